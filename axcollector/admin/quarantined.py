"""`GET /quarantine`: what lies in quarantine, by bucket, with the reasons. The oldest buckets, and the start of each.

It is a look, not a count: `axcollector quarantine list` counts everything.
"""

import heapq
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import msgspec
from klein import Klein
from twisted.web.iweb import IRequest

from axcollector import answers
from axcollector.buckets import parse_bucket
from axcollector.core.errors import QuarantineDamaged
from axcollector.core.layout import FILE_SUFFIX, QUARANTINE
from axcollector.disk import Disk
from axcollector.quarantine_files import QuarantineFile
from axcollector.services import Worker

_MOST_BUCKETS: Final = 50
_MOST_LINES: Final = 500
"""Of one bucket."""
_MOST_REASONS: Final = 3


class ReasonCount(msgspec.Struct, frozen=True):
    """A reason, and how many records have it."""

    reason: str
    records: int


class Quarantined(msgspec.Struct, frozen=True):
    """A bucket in quarantine.

    Attributes:
        bucket: Its name.
        bytes: The bytes of its files.
        records: How many records were looked at.
        is_whole: Whether those were all.
        reasons: Why they were set aside: the most frequent reasons.
        problem: What keeps it from being read; "" where nothing does.
    """

    bucket: str
    bytes: int
    records: int
    is_whole: bool
    reasons: list[ReasonCount]
    problem: str = ""


def look(disk: Disk, directory: str) -> tuple[list[Quarantined], bool]:
    """The oldest buckets, and whether there are more. Blocking."""
    found = []
    with suppress(FileNotFoundError):
        for name in disk.unsorted_names(directory):
            with suppress(ValueError):
                found.append((parse_bucket(name)[0], name))
    oldest = heapq.nsmallest(_MOST_BUCKETS, found)
    return [_look_into(disk, directory, name) for _, name in oldest], len(found) > len(oldest)


def _look_into(disk: Disk, directory: str, bucket: str) -> Quarantined:
    reasons: Counter[str] = Counter()
    size, problem = 0, ""
    lines: Iterator[str] = iter(())
    try:
        names = [name for name in disk.names(os.path.join(directory, bucket)) if name.endswith(FILE_SUFFIX)]
        size = sum(disk.size(os.path.join(directory, bucket, name)) for name in names)
        lines = _reasons_in(QuarantineFile(disk, directory, os.path.join(bucket, name)) for name in names)
        for reason, _ in zip(lines, range(_MOST_LINES), strict=False):
            reasons[reason] += 1
    except QuarantineDamaged:
        problem = "it is damaged"
    except OSError as exc:
        problem = f"it cannot be read: {exc.strerror}"
    is_whole = not problem and next(lines, None) is None
    frequent = [ReasonCount(*each) for each in reasons.most_common(_MOST_REASONS)]
    return Quarantined(bucket, size, reasons.total(), is_whole, frequent, problem)


def _reasons_in(files: Iterator[QuarantineFile]) -> Iterator[str]:
    for file in files:
        for _, _, entry in file.lines():
            yield entry.reason


def add_quarantine(app: Klein, worker: Worker, data_directory: str) -> None:
    """Give an app the route of what lies in quarantine; `worker` reads it."""
    directory, disk = os.path.join(data_directory, QUARANTINE), Disk()

    @app.route("/quarantine", methods=["GET"])
    async def set_aside(request: IRequest) -> bytes:
        """The oldest buckets there, and why."""
        buckets, more = await worker.run(look, disk, directory)
        return answers.give(request, 200, msgspec.json.encode({"buckets": buckets, "more": more}))
