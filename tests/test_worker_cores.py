"""Which core a worker keeps to."""

import os
import subprocess
import sys

import pytest
from twisted.logger import LogEvent, formatEvent

from axcollector.workers.cores import available, core_of, kept_to

SHOW = [sys.executable, "-S", "-c", "import os; print(sorted(os.sched_getaffinity(0)))"]


def shown() -> str:
    """On which cores a process may run that is started now."""
    return subprocess.run(SHOW, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("workers", "cores", "kept"),
    [
        (2, [0, 1], [0, 1]),
        (3, [2, 5, 7], [2, 5, 7]),
        (2, [0, 1, 2, 3], [None, None]),  # any of them could be somebody else's busy one
        (3, [0, 1], [None] * 3),  # two would share one for ever, and the third have one of its own
        (1, [0], [None]),
        (2, [], [None, None]),  # the system does not tell
    ],
)
def test_one_worker_a_core_or_none(workers: int, cores: list[int], kept: list[int | None]) -> None:
    """Where there are as many workers as cores each has one; else the system chooses."""
    assert [core_of(slot, workers, cores) for slot in range(workers)] == kept


def test_what_is_started_meanwhile_keeps_to_it() -> None:
    """A process does, from its beginning; this one, and what it starts later, may run where they could before."""
    before = os.sched_getaffinity(0)
    for core in available():
        with kept_to(core):
            assert shown() == f"[{core}]"
        assert os.sched_getaffinity(0) == before
    with kept_to(None):
        assert shown() == str(sorted(before))


def test_a_core_that_is_not_there_is_no_reason_not_to_start(log_events: list[LogEvent]) -> None:
    """A system that refuses leaves the process where it may run, and that is told."""
    before = os.sched_getaffinity(0)
    with kept_to(1 << 12):
        assert shown() == str(sorted(before))
    (event,) = [event for event in log_events if event["log_namespace"].startswith("axcollector")]
    assert "cannot keep to core 4096 (Invalid argument)" in formatEvent(event)
    assert os.sched_getaffinity(0) == before


def test_a_start_that_fails_changes_nothing_else() -> None:
    """What is raised meanwhile goes through, and this process may run where it could before."""
    before = os.sched_getaffinity(0)
    with pytest.raises(FileNotFoundError), kept_to(min(before)):
        subprocess.run(["/no/such/program"], check=True)
    assert os.sched_getaffinity(0) == before
