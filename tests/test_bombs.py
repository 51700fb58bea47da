"""Refusing a body takes no more memory than twice its limit, whatever it is, and no more is looked at than must be."""

import gzip
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from twisted.python.failure import Failure

from axcollector.core import payload
from axcollector.core.errors import Rejected
from axcollector.core.traces import without_trace
from tests.bombs import LIMITS, SHAPES, in_buffer
from tests.test_intake import Fixture

MIB = 1 << 20


@pytest.mark.parametrize("shape", SHAPES)
def test_memory_while_a_bomb_is_refused(shape: str) -> None:
    """A process's memory rises by less than twice the limit while it refuses one."""
    command = [sys.executable, "-m", "tests.bombs", shape]
    ran = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True)
    code, rose = ran.stdout.split()
    assert code == SHAPES[shape][1]
    assert int(rose) <= 2 * LIMITS.max_decompressed_bytes


@pytest.mark.parametrize("wrap", [bytes, in_buffer])
def test_a_bomb_is_refused_before_its_end(wrap: object) -> None:
    """What follows the byte too many is not looked at: were it, this would be data that cannot be read."""
    assert callable(wrap)
    small = gzip.compress(bytes(LIMITS.max_decompressed_bytes // 2), 9)
    with pytest.raises(Rejected) as caught:
        payload.decode(wrap(small[:-1000] + bytes(2000)), "gzip", LIMITS)
    assert caught.value.code == "BAD_DATA"
    larger = gzip.compress(bytes(2 * LIMITS.max_decompressed_bytes), 9)
    with pytest.raises(Rejected) as caught:
        payload.decode(wrap(larger[:-1000] + bytes(2000)), "gzip", LIMITS)
    assert caught.value.code == "PAYLOAD_TOO_LARGE"


def test_what_waits_is_as_it_was_sent() -> None:
    """Large bodies that wait for their turn are held as they were sent, not as far as they were looked at."""
    fixture = Fixture()
    bomb = gzip.compress(bytes(100 * MIB), 9)
    fixture.take(bomb, "gzip").addErrback(
        lambda failure: failure.trap(Rejected)
    )  # what a first one loads is not counted
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        waiting = [fixture.take(bomb, "gzip") for _ in range(30)]
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 2 * MIB  # each was inflated to half a MiB at first
    for each in waiting:
        each.addErrback(lambda failure: failure.trap(Rejected))
    for _ in range(31):
        fixture.thread.step()
    assert fixture.thread.jobs == []


def test_a_refusal_holds_nothing() -> None:
    """The refusal of a large body does not hold on to what was inflated of it, however long somebody keeps it."""
    fixture = Fixture()
    failures: list[Failure] = []
    fixture.take(gzip.compress(bytes(60 * MIB), 9), "gzip").addErrback(failures.append)
    fixture.thread.step()
    (failure,) = failures
    assert failure.check(Rejected)
    assert failure.value.code == "PAYLOAD_TOO_LARGE"
    assert "_gunzip" not in {frame[0] for frame in failure.frames}


def test_without_trace() -> None:
    """What led to a refusal is forgotten, and what it says is kept."""
    try:
        try:
            raise ValueError("x")
        except ValueError as exc:
            raise Rejected("BAD_DATA", "why") from exc
    except Rejected as exc:
        bare = without_trace(exc)
    assert (bare.__traceback__, bare.__cause__, bare.__context__) == (None, None, None)
    assert (bare.code, bare.reason) == ("BAD_DATA", "why")
