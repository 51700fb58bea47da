"""All targets, by name."""

from benchmarks.fuzzing.bodies import PAYLOAD
from benchmarks.fuzzing.changes import CHANGES
from benchmarks.fuzzing.coded import GZIP
from benchmarks.fuzzing.names import NAMES
from benchmarks.fuzzing.torn import SALVAGE

TARGETS = {target.name: target for target in (PAYLOAD, GZIP, SALVAGE, NAMES, CHANGES)}
