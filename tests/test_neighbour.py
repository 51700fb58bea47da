"""A good neighbour: what a collector does, and does not do, to the program that it is embedded in."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from axcollector.api import Collector, Config
from tests.neighbour import scope_in
from tests.neighbour_stalls import Watchdog
from tests.running import QUICK, until

ROOT = Path(__file__).parent.parent
BOUNDED = os.environ.get("AXCOLLECTOR_PROOFS") == "bounded"
CYCLES = 20 if BOUNDED else 1000
STALL_SECONDS = 2 if BOUNDED else 60
NOTHING = {"seen": [], "reactor": False, "handlers": 0, "signals": [], "threads": 1, "children": []}


def neighbour(*arguments: object) -> dict[str, Any]:
    """What a run of `tests.neighbour` prints."""
    command = [sys.executable, "-B", "-m", "tests.neighbour", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", ["axcollector", "axcollector.api"])
def test_importing_does_nothing(name: str) -> None:
    """No reactor, no thread, no file, no process, no signal; no log is configured, but for what Twisted's own does."""
    found = neighbour("imports", name)
    assert {key: found[key] for key in NOTHING} == NOTHING
    assert "klein" not in found["klein or treq"]
    assert found["observers"] <= neighbour("imports", "twisted.logger")["observers"]


def test_what_importing_does_is_seen() -> None:
    """Each of those, where a module does it."""
    found = neighbour("imports", "tests.bad_neighbour")
    assert {key for key in NOTHING if found[key] == NOTHING[key]} == {"reactor", "children"}
    assert {each.partition(" ")[0] for each in found["seen"]} >= {"open", "os.mkdir", "subprocess.Popen"}
    assert neighbour("imports", "klein")["reactor"] is True


@pytest.mark.parametrize("work_threads", [11, 2])
@pytest_twisted.ensureDeferred
async def test_threads_are_few_and_bounded(tmp_path: Path, work_threads: int) -> None:
    """None before the start, at most `work_threads` ever, none behind the stop; two are enough for the whole job."""
    settings: dict[str, Any] = {**QUICK, "work_threads": work_threads}
    config = Config(local_storage_path=str(tmp_path), **settings)
    before = set(threading.enumerate())

    def ours() -> int:
        """How many threads of ours there are, without those of other tests that are not over."""
        return sum(each.name.startswith("axcollector") for each in set(threading.enumerate()) - before)

    scope, collector = scope_in(config), Collector(reactor, config)
    assert ours() == 0
    collector.startService()
    assert ours() <= work_threads
    most = 0

    def delivered() -> bool:
        nonlocal most
        most = max(most, ours())
        return bool(list(tmp_path.glob("store/*/*/*/*.txt.gz")))

    await until(collector.directory.ready)
    await collector.submit(scope, [{"client_received_start_timestamp": 1}])
    await until(delivered)
    assert 2 <= most <= work_threads
    await collector.stopService()
    await until(lambda: ours() == 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["epoll", "poll", "select", "asyncio"])
def test_reactors(name: str) -> None:
    """The whole job, over HTTP and from the process, under each."""
    found = neighbour("reactor", name)
    assert found["reactor"].lower().startswith(name)
    assert (found["status"], found["starts"]) == (200, [1, 2])


@pytest.mark.slow
def test_starts_and_stops_leave_nothing() -> None:
    """No thread, descriptor or delayed call, and no memory that grows with them."""
    found = neighbour("cycles", CYCLES)
    before, after = found["before"], found["after"]
    for what in ("threads", "descriptors", "delayed calls"):
        assert after[what] == before[what], what
    # What is made once, when it is first needed, is no leak; a collector that stays would be some hundreds each time.
    assert after["objects"] - before["objects"] < 4000 + found["cycles"]
    assert after["kilobytes"] - before["kilobytes"] < 4096 + 4 * found["cycles"]


@pytest_twisted.ensureDeferred
async def test_the_watchdog_sees_what_keeps_the_reactor() -> None:
    """Thirty milliseconds of work in one piece."""
    watchdog = Watchdog(reactor)
    watchdog.start()
    watchdog.phase("busy")
    until_used = time.thread_time() + 0.03
    while time.thread_time() < until_used:
        pass
    found = watchdog.stop()["busy"]
    assert min(found["reactor"], found["ours"], found["late"]) >= 25


@pytest.mark.slow
def test_the_reactor_is_not_kept() -> None:
    """For more than 10 ms while everything happens at a time, nor for more than 25 by a maximal body or a rebuild."""
    found = neighbour("stalls", STALL_SECONDS)["phases"]
    for phase, milliseconds in (("everything", 10), ("large bodies and rebuilds", 25)):
        assert found[phase]["reactor"] <= milliseconds, found
        assert found[phase]["ours, p99"] <= milliseconds, found
