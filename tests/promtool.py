"""Prometheus' own checks, where promtool is installed (tests/setup_promtool.sh does that), and ours in Python."""

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

PROMTOOL: Final = shutil.which("promtool")
needs_promtool: Final = pytest.mark.skipif(PROMTOOL is None, reason="no promtool: see tests/setup_promtool.sh")
_NOT_BASE: Final = re.compile(r"_(milliseconds|ms|minutes|hours|kilobytes|megabytes|mib|percent)(_|$)")


def check_metrics(scrape: bytes) -> str:
    """What promtool has to say of a scrape; "" where nothing."""
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=scrape, capture_output=True, timeout=60, check=False)
    return (done.stdout + done.stderr).decode()


def check_config(path: Path) -> tuple[int, str]:
    """What it makes of a configuration of Prometheus, the files that this names apart."""
    assert PROMTOOL is not None
    command = [PROMTOOL, "check", "config", "--syntax-only", path]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    return done.returncode, (done.stdout + done.stderr).decode()


def check_rules(path: Path) -> tuple[int, str]:
    """What it makes of a file of rules."""
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, "check", "rules", path], capture_output=True, timeout=60, check=False)
    return done.returncode, (done.stdout + done.stderr).decode()


def families_in(scrape: bytes) -> Mapping[str, Metric]:
    """The metrics of a scrape, by their names without `_total`."""
    return {family.name: family for family in text_string_to_metric_families(scrape.decode())}


def names_in(scrape: bytes) -> set[str]:
    """The names of all samples, as queries have them."""
    return {sample.name for family in families_in(scrape).values() for sample in family.samples}


def faults_in(scrape: bytes) -> Sequence[str]:
    """What is against Prometheus' rules for names and units."""
    text = scrape.decode()
    found = []
    for name, family in families_in(scrape).items():
        full = name + "_total" if family.type == "counter" else name
        found += [f"{full}: no help"] if not family.documentation.strip() else []
        found += [f"{full}: no type"] if f"# TYPE {full} {family.type}" not in text else []
        found += [f"{full}: a name of another kind"] if not re.fullmatch(r"[a-z][a-z0-9_]*", full) else []
        found += [f"{full}: no base unit"] if _NOT_BASE.search(full) else []
        found += [f"{full}: a suffix of a counter"] if family.type != "counter" and full.endswith("_total") else []
        found += [f"{full}: a suffix of a histogram"] if re.search(r"_(count|sum|bucket)$", full) else []
        series = [(sample.name, tuple(sorted(sample.labels.items()))) for sample in family.samples]
        found += [f"{full}: a series twice"] if len(set(series)) < len(series) else []
    return found
