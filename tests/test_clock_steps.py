"""Clock steps: forward, backward and repeated times lose nothing, use no name twice and change nothing closed."""

import gzip
import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock

from axcollector.clock_steps import ClockSteps
from axcollector.closing import CLOSING_TICK_SECONDS, PAUSE_SECONDS, Closing
from axcollector.core.commit import GroupCommit
from axcollector.core.layout import JOURNAL_SUFFIX, Stage
from axcollector.core.model import Batch, Tenant
from axcollector.core.retry import MAX_PAUSE_SECONDS
from axcollector.disk import AppendFile, Disk
from axcollector.journal import JournalPlan, JournalWriter
from axcollector.premises import Premises
from axcollector.services import Periodic
from axcollector.splitter import Splitter
from axcollector.spool import Spool
from axcollector.takeover import take_over
from axcollector.uploader import Uploader
from tests.fake_stores import MemoryStore
from tests.fakes import SameThread, result_of

TENANTS = (Tenant("t1", "acme", "prod"), Tenant("t2", "zoo", "test"))
START = 1_480_000_080.0
INTERVAL_SECONDS = 10
GRACE_SECONDS = 2


class SteppedClock(Clock):
    """A wall clock that can be set; what is scheduled comes when its time has passed all the same."""

    def __init__(self, now: float = START) -> None:
        super().__init__()
        self.rightNow = now

    def set(self, now: float) -> None:
        """Set it to another time."""
        step, self.rightNow = now - self.rightNow, now
        for call in self.getDelayedCalls():
            call.delay(step)


class NotingDisk(Disk):
    """A real directory that notes the journals made in it, and can be full.

    Attributes:
        journals: Their names, in order.
        full: Whether no directory can be made.
    """

    def __init__(self) -> None:
        self.journals: list[str] = []
        self.full = False

    def create(self, path: str) -> AppendFile:
        if path.endswith(JOURNAL_SUFFIX):
            self.journals.append(path.rpartition("/")[2])
        return super().create(path)

    def make_directory(self, path: str) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        super().make_directory(path)


class Station:
    """All stations from a batch to the store, through one start after the other.

    Attributes:
        clock: The wall clock, which is no other after a restart.
        sent: How many batches were acknowledged; each is one line with its number.
        staged: Every file that was ever seen in staging, with what was in it.
        store: What was delivered.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "ax"
        self.disk = NotingDisk()
        self.store = MemoryStore()
        self.sent = 0
        self.staged: dict[str, str] = {}
        self._now_staged: set[str] = set()
        self.clock = SteppedClock()
        self.start()

    def start(self) -> None:
        """As the collector does."""
        self.premises = Premises(self.disk, str(self.root), str(self.data))
        self.premises.acquire(None, lambda: "id", self.clock.seconds())
        take_over(self.disk, str(self.data), self.clock.seconds())
        plan = JournalPlan(str(self.data / "tmp"), "id", self.premises.starts, INTERVAL_SECONDS, 300)
        self.writer = JournalWriter(self.disk, plan)
        self.spool = Spool(self.clock, SameThread(), self.writer, GroupCommit(10, 1 << 20))
        splitter = Splitter(self.disk, str(self.data), Stage.TMP, pack_all=False)
        self.closing = Closing(self.clock, SameThread(), self.spool, splitter, GRACE_SECONDS)
        self.uploader = Uploader(
            self.clock,
            SameThread(),
            self.disk,
            self.store,
            str(self.data),
            interval_seconds=5,
            concurrency=4,
            max_attempts=3,
            failed_retry_batch=10,
            chance=lambda: 0.5,
        )
        self.uploader.startService()
        Splitter(self.disk, str(self.data), Stage.RECOVERED, pack_all=False).work()
        self.closing.startService()

    def stop(self) -> None:
        """In order."""
        result_of(self.closing.stopService())
        result_of(self.uploader.stopService())
        self.premises.release()
        assert self.clock.getDelayedCalls() == []

    def crash(self) -> None:
        """Everything stops where it is."""
        self.writer.finish()
        self.premises.release()
        self.clock = SteppedClock(self.clock.seconds())

    def send(self, count: int = 1) -> None:
        """So many batches, all acknowledged."""
        for _ in range(count):
            result_of(self.spool.submit(Batch(TENANTS[self.sent % 2], b'{"id":%d}\n' % self.sent, 1)))
            self.sent += 1

    def pass_seconds(self, seconds: float) -> None:
        """Let time pass."""
        for _ in range(max(1, int(seconds / CLOSING_TICK_SECONDS))):
            self.clock.advance(CLOSING_TICK_SECONDS)
            self.look()

    def look(self) -> None:
        """A file in staging never changes, and one that was taken away never comes again."""
        found = {}
        for path in (self.data / Stage.STAGING).glob("*/*"):
            found[str(path.relative_to(self.data))] = hashlib.sha256(path.read_bytes()).hexdigest()
        known = {name: digest for name, digest in found.items() if name in self.staged}
        assert known == {name: self.staged[name] for name in known}
        assert not (found.keys() - self._now_staged) & self.staged.keys()
        self._now_staged = set(found)
        self.staged |= found

    def delivered(self) -> Counter[int]:
        """How often each line was, each for its tenant."""
        found: Counter[int] = Counter()
        for (tenant, _), content in self.store.objects.items():
            ids = Counter(json.loads(line)["id"] for line in gzip.decompress(content).splitlines())
            assert {("acme~prod", "zoo~test")[number % 2] for number in ids} == {tenant}
            found += ids
        return found

    def check_names(self) -> None:
        """No journal's name, and no key in the store, was used twice."""
        assert len(set(self.disk.journals)) == len(self.disk.journals)
        assert len(set(self.store.puts)) == len(self.store.puts)


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    """One that is stopped in the end, all being delivered, once."""
    made = Station(tmp_path)
    yield made
    made.stop()
    made.start()
    made.pass_seconds(6)
    made.stop()
    assert made.delivered() == dict.fromkeys(range(made.sent), 1)
    assert len(set(made.disk.journals)) == len(made.disk.journals)


class AnyTimes(RuleBasedStateMachine):
    """Batches, time, steps of the clock and restarts in any order."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = TemporaryDirectory()
        self.station = Station(Path(self._directory.name))

    @rule(count=st.integers(1, 3))
    def send(self, count: int) -> None:
        self.station.send(count)

    @rule(seconds=st.sampled_from([0.25, 1, INTERVAL_SECONDS / 2, INTERVAL_SECONDS + GRACE_SECONDS]))
    def wait(self, seconds: float) -> None:
        self.station.pass_seconds(seconds)

    @rule(seconds=st.sampled_from([-31_536_000, -3600, -INTERVAL_SECONDS, -1, -0.3, 0.3, 1, INTERVAL_SECONDS, 86_400]))
    def step(self, seconds: float) -> None:
        self.station.clock.set(self.station.clock.seconds() + seconds)

    @rule(seconds=st.sampled_from([0, 0.001, 9.999, 10]))
    def repeat(self, seconds: float) -> None:
        self.station.clock.set(START + seconds)

    @rule(back=st.sampled_from([0, 1, INTERVAL_SECONDS, 3600]), crash=st.booleans())
    def restart(self, back: float, crash: bool) -> None:
        if crash:
            self.station.crash()
        else:
            self.station.stop()
        self.station.look()
        self.station.clock.set(self.station.clock.seconds() - back)
        self.station.start()

    @invariant()
    def names_are_new(self) -> None:
        self.station.look()
        self.station.check_names()

    def teardown(self) -> None:
        station = self.station
        station.pass_seconds(INTERVAL_SECONDS + GRACE_SECONDS + 6)
        station.stop()
        station.start()
        station.pass_seconds(6)
        station.stop()
        station.check_names()
        assert station.delivered() == dict.fromkeys(range(station.sent), 1)
        assert [path for stage in Stage for path in (station.data / stage).iterdir()] == []
        self._directory.cleanup()


def test_any_times() -> None:
    """Whatever the clock is set to and whenever, each batch is delivered once, and no name is used twice."""
    run_state_machine_as_test(AnyTimes, settings=settings(max_examples=25, stateful_step_count=25))


def test_an_interval_that_comes_three_times(station: Station) -> None:
    """Each time it has a journal and files of its own; what was staged the first time stays as it is."""
    station.store.up = False
    for _ in range(3):
        station.clock.set(START + 1)
        station.send(2)
        station.pass_seconds(INTERVAL_SECONDS + GRACE_SECONDS)
    staged = sorted(station.staged)
    assert [name.split("/")[1] for name in staged] == ["acme~prod~20161124150800"] * 3 + ["zoo~test~20161124150800"] * 3
    assert len({name.split("/")[2] for name in staged}) == 6
    station.store.up = True
    station.pass_seconds(MAX_PAUSE_SECONDS)


def test_a_journal_of_the_future_is_closed(station: Station) -> None:
    """Set back by a year, nobody waits a year for what is open: it is split at the next tick."""
    station.send(2)
    station.clock.set(START - 31_536_000)
    station.pass_seconds(CLOSING_TICK_SECONDS)
    assert len(station.staged) == 2
    station.send(2)
    assert station.writer.open_name is not None
    assert station.writer.open_name.startswith("20151125150800.")


@pytest.mark.parametrize("step", [-3600, 3600])
def test_a_restart_at_another_time(station: Station, step: float) -> None:
    """What a crash left is delivered, whatever time it is when it is found, and so is what comes after."""
    station.send(3)
    station.crash()
    station.clock.set(START + step)
    station.start()
    station.send(3)
    station.pass_seconds(INTERVAL_SECONDS + GRACE_SECONDS + 6)
    assert station.delivered() == dict.fromkeys(range(6), 1)


def test_a_split_that_failed_before_the_clock_was_set_back(station: Station) -> None:
    """It is tried again after its usual pause, not after the hour as well."""
    station.send(2)
    station.disk.full = True
    station.pass_seconds(INTERVAL_SECONDS + GRACE_SECONDS + 1)
    station.disk.full = False
    station.clock.set(station.clock.seconds() - 3600)
    station.pass_seconds(PAUSE_SECONDS)
    assert len(station.staged) == 2


def test_a_pause_from_before_the_clock_was_set_back(station: Station) -> None:
    """No pause lasts for longer than pauses may."""
    station.store.up = False
    station.send(2)
    station.pass_seconds(INTERVAL_SECONDS + GRACE_SECONDS + 6)
    station.store.up = True
    station.clock.set(station.clock.seconds() - 3600)
    for _ in range(int(MAX_PAUSE_SECONDS) + 6):
        station.clock.advance(1)
    assert station.delivered() == dict.fromkeys(range(2), 1)


# What is scheduled, by a reactor that tells time by the wall clock


class SteppedReactor(SelectReactor):
    """A reactor whose wall clock can be set, turned by hand.

    Attributes:
        ahead: By how much its wall clock was set.
    """

    ahead = 0.0

    def seconds(self) -> float:
        return time.time() + self.ahead

    def turn_until(self, condition: object, seconds: float = 30) -> bool:
        """Turn it for so long at the most; whether the condition, a function, came to hold."""
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            self.iterate(0.01)
        return bool(condition())


@pytest.fixture
def stepped_reactor() -> Iterator[SteppedReactor]:
    """One of its own, which nobody installs."""
    made = SteppedReactor()
    yield made
    for reader in made.removeAll():
        reader.connectionLost(None)


def ticks_go_on(reactor: SteppedReactor, step: float, seconds: float = 60) -> bool:
    """Whether periodic work goes on after a step, within so long; a busy machine takes its time."""
    ticks: list[float] = []
    periodic = Periodic(reactor, 0.05, "work", lambda: ticks.append(reactor.seconds()))
    periodic.startService()
    assert reactor.turn_until(lambda: len(ticks) > 3)
    reactor.ahead += step
    reactor.turn_until(lambda: False, 1.5)  # until those who watch the clock have noticed
    before = len(ticks)
    goes_on = reactor.turn_until(lambda: len(ticks) > before + 3, seconds)
    periodic.stopService()
    return goes_on


def test_a_bare_reactor_waits_for_the_old_time(stepped_reactor: SteppedReactor) -> None:
    """Why somebody has to watch the clock: set back, Twisted makes no call until the old time has come again."""
    assert not ticks_go_on(stepped_reactor, -3600, seconds=1.5)


@pytest.mark.parametrize("step", [-3600, 3600])
def test_periodic_work_goes_on(stepped_reactor: SteppedReactor, step: float) -> None:
    """With somebody watching, it goes on after a step back and after a step forward."""
    watch = ClockSteps(stepped_reactor, stepped_reactor.seconds, time.monotonic)
    watch.startService()
    try:
        assert ticks_go_on(stepped_reactor, step)
    finally:
        watch.stopService()


class WatchedClock(Clock):
    """A clock in the place of a reactor, beside one that nobody sets."""

    def __init__(self) -> None:
        super().__init__()
        self.rightNow = START
        self.steady = 0.0

    def pass_seconds(self, seconds: float) -> None:
        """Real time passes."""
        self.steady += seconds
        self.advance(seconds)

    def callFromThread(self, function: object) -> None:
        """The test looks itself."""


@pytest.mark.parametrize("step", [-3600, 3600])
def test_calls_made_between_the_step_and_the_look(step: float) -> None:
    """They were scheduled by the new time, and come when they were meant to."""
    clock = WatchedClock()
    watch = ClockSteps(clock, clock.seconds, lambda: clock.steady)
    watch.startService()
    watch.stopService()
    came: list[float] = []
    clock.pass_seconds(0.5)
    clock.rightNow += step
    clock.callLater(60, lambda: came.append(clock.steady))
    clock.pass_seconds(0.5)
    watch.look()
    clock.pass_seconds(0)
    for _ in range(200):
        clock.pass_seconds(0.5)
    assert came == [60.5]
