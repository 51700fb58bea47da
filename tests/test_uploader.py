"""The uploader, with a clock, a store in memory, and a real directory."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import defer
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.task import Clock, deferLater
from twisted.logger import LogEvent, LogLevel, formatEvent

from axcollector.backlog import SLICE
from axcollector.buckets import merge_bucket
from axcollector.core.delivery import Backlog, Counts, UploaderStatus
from axcollector.core.errors import EndpointUnavailable, TenantRefused, UploadFailed
from axcollector.core.retry import Pause
from axcollector.core.stamps import stamp
from axcollector.disk import Disk
from axcollector.services import Worker, WorkThread
from axcollector.stores.signed import SignedStore
from axcollector.uploader import Uploader
from tests.conftest import LoggedFailures
from tests.fake_stores import MemoryStore
from tests.fakes import HeldThread, SameThread, result_of
from tests.signing_server import RawServer, SigningServer, url_of

NOW = 1_767_323_045
KEY = "date=2026-01-02/time=03-04-05/"


class Place:
    """A data directory and what delivers it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = Clock()
        self.clock.advance(NOW)
        self.store = MemoryStore()
        for stage in ("tmp", "staging", "failed", "recovered"):
            (root / stage).mkdir()
        self.uploader = self.make()

    def make(self, worker: Worker | None = None, disk: Disk | None = None, **changes: float) -> Uploader:
        """Another uploader for the same directory and store."""
        values = {"interval_seconds": 5, "concurrency": 4, "max_attempts": 3, "failed_retry_batch": 2} | changes
        self.uploader = Uploader(
            self.clock, worker or SameThread(), disk or Disk(), self.store, str(self.root), chance=lambda: 0.5, **values
        )
        return self.uploader

    def stage(self, tenant: str, *names: str, after: int = 0, stage: str = "staging") -> Path:
        """A bucket, `after` seconds after NOW, with these files, which hold their own names."""
        bucket = self.root / stage / f"{tenant}~{stamp(NOW + after)}"
        bucket.mkdir(exist_ok=True)
        for name in names:
            (bucket / f"{name}.txt.gz").write_text(name)
        return bucket

    def left(self, stage: str = "staging") -> list[str]:
        """The files in a stage."""
        root = self.root / stage
        return sorted(str(path.relative_to(root)) for path in root.rglob("*"))

    def delivered(self) -> list[str]:
        """What the store has, by content."""
        return sorted(content.decode() for content in self.store.objects.values())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A place whose uploader is stopped in the end, leaving no delayed call."""
    place = Place(tmp_path)
    yield place
    if place.uploader.running:
        result_of(place.uploader.stopService())
    assert place.clock.getDelayedCalls() == []


def texts(events: list[LogEvent], *levels: LogLevel) -> list[str]:
    """What was logged at these levels."""
    return [formatEvent(event) for event in events if event["log_level"] in levels]


def refuse_all(error: Exception) -> Callable[[str, str], Exception]:
    """Every put fails so."""
    return lambda tenant, key: error


def test_what_is_staged_is_delivered(place: Place, log_events: list[LogEvent]) -> None:
    """Under its key, once; file and bucket are deleted; it is logged and counted."""
    place.stage("acme~test", "a", "b")
    place.uploader.startService()
    assert place.store.objects == {("acme~test", f"{KEY}{name}.txt.gz"): name.encode() for name in "ab"}
    assert place.left() == []
    assert place.uploader.status() == UploaderStatus(counts=Counts(delivered_files=2, delivered_bytes=2))
    bucket = f"acme~test~{stamp(NOW)}"
    assert texts(log_events, LogLevel.info) == [
        f"delivered {bucket}/{name}.txt.gz: 1 bytes, attempt 1, 0.000 s, 0 s after its interval began" for name in "ab"
    ]


def test_sweeps_come_at_their_times(place: Place) -> None:
    """What is staged later is found by the next sweep, whether or not earlier files are still under way."""
    place.uploader.startService()
    place.store.is_slow = True
    place.stage("acme~test", "a")
    place.clock.advance(4.9)
    assert place.store.waiting == []
    place.clock.advance(0.1)
    assert len(place.store.waiting) == 1
    place.stage("acme~test", "b", after=1)
    place.clock.advance(5)
    assert len(place.store.waiting) == 2
    place.store.step()
    place.store.step()
    assert place.delivered() == ["a", "b"]


def test_each_end_makes_room_for_the_next(place: Place) -> None:
    """Slots are filled without waiting for a sweep; no tenant holds more than half of them."""
    place.store.is_slow = True
    place.stage("big~test", *"abcdefgh")
    place.uploader.startService()
    assert len(place.store.waiting) == 2
    place.store.step()
    assert len(place.store.waiting) == 2
    place.stage("small~test", "x", after=100)
    place.clock.advance(5)
    assert [tenant for tenant, _ in place.store.waiting] == ["big~test", "big~test", "small~test"]
    assert place.uploader.status().in_flight == 3
    while place.store.waiting:
        place.store.step()
    assert place.delivered() == sorted("abcdefghx")


def test_a_long_backlog_is_no_recursion(place: Place) -> None:
    """Thousands of files that are delivered at once."""
    place.stage("acme~test", *(f"{n:04}" for n in range(2000)))
    place.uploader.startService()
    assert len(place.store.objects) == 2000
    assert place.left() == []


def test_files_that_come_while_the_bucket_empties(place: Place) -> None:
    """The splitter adds to a bucket whose last file is being delivered: it is delivered in its turn."""
    place.store.is_slow = True
    place.stage("acme~test", "a")
    place.uploader.startService()
    merge_bucket(Disk(), str(place.stage("acme~test", "b", stage="tmp")), str(place.root / "staging"))
    place.store.step()
    place.clock.advance(5)
    place.store.step()
    assert place.delivered() == ["a", "b"]
    assert place.left() == []


def test_a_bucket_is_given_up_after_its_attempts(place: Place, log_events: list[LogEvent]) -> None:
    """One attempt a sweep, however many files fail; then it lies in failed, whole."""
    bucket = place.stage("acme~test", "a", "b").name
    place.store.refuse = refuse_all(UploadFailed("the store answered 500"))
    place.uploader.startService()
    place.clock.advance(5)
    assert place.left("failed") == []
    assert len(place.store.puts) == 4
    place.clock.advance(5)
    assert place.left("failed") == [bucket, f"{bucket}/a.txt.gz", f"{bucket}/b.txt.gz"]
    assert place.left() == []
    assert place.uploader.status().counts == Counts(failed_tries=6, given_up_buckets=1)
    assert place.uploader.status().backlog == Backlog(failed_buckets=1)
    said = f"{bucket}/a.txt.gz was not delivered: the store answered 500; 1 bytes, attempt"
    assert texts(log_events, LogLevel.warn)[::4] == [
        f"{said} 1 of 3, then the next sweep tries again",
        f"{said} 3 of 3, then its bucket goes to failed",
    ]
    assert texts(log_events, LogLevel.error) == [f"{bucket} moved to failed after 3 attempts"]


def test_one_bad_file_holds_up_nothing(place: Place) -> None:
    """The other files of its bucket are delivered; only it goes to failed."""
    bucket = place.stage("acme~test", "a", "b", "c").name
    place.store.refuse = lambda tenant, key: UploadFailed("bad") if key.endswith("a.txt.gz") else None
    place.make(max_attempts=1, failed_retry_batch=0).startService()
    assert place.delivered() == ["b", "c"]
    assert place.left("failed") == [bucket, f"{bucket}/a.txt.gz"]


def test_giving_up_adds_to_what_has_failed_before(place: Place) -> None:
    """Files are added, none is overwritten."""
    bucket = place.stage("acme~test", "a", stage="failed").name
    place.stage("acme~test", "b")
    place.store.refuse = refuse_all(UploadFailed("bad"))
    place.make(max_attempts=1, failed_retry_batch=0).startService()
    assert place.left("failed") == [bucket, f"{bucket}/a.txt.gz", f"{bucket}/b.txt.gz"]


def test_failed_comes_back_after_a_success(place: Place) -> None:
    """So many buckets at each success, and they are delivered without waiting for a sweep."""
    for n in range(7):
        place.stage("old~test", f"old{n}", after=n, stage="failed")
    place.store.up = False
    place.uploader.startService()
    assert len(place.left("failed")) == 10
    place.store.up = True
    place.clock.advance(5)
    assert len(place.store.objects) == 7
    assert place.left("failed") == []


def test_failed_comes_back_every_ten_minutes(place: Place) -> None:
    """Even if nothing is delivered; the oldest first."""
    place.store.refuse = refuse_all(UploadFailed("bad"))
    place.uploader.startService()
    for n in (3, 1, 2):
        place.stage("old~test", "x", after=n, stage="failed")
    place.clock.pump([5] * 119)
    assert place.store.puts == []
    place.clock.advance(5)
    keys = {key for _, key in place.store.puts}
    assert {f"date=2026-01-02/time=03-04-0{5 + n}/x.txt.gz" for n in (1, 2)} == keys
    assert len(place.left("failed")) == 2


def test_a_restart_goes_on(place: Place) -> None:
    """A new uploader finds what is there; what is in failed gets a chance."""
    place.stage("acme~test", "a")
    place.stage("acme~test", "b", after=1, stage="failed")
    place.store.is_slow = True
    place.uploader.startService()
    result_of(place.uploader.stopService())
    place.store.is_slow = False
    place.make().startService()
    assert place.delivered() == ["a", "b"]


def test_what_was_sent_but_not_deleted_is_sent_again(place: Place) -> None:
    """After a crash between the store's answer and the deletion: under the same key, so it is there once."""
    worker = HeldThread()
    place.make(worker).startService()
    place.stage("acme~test", "a")
    while not place.store.objects:
        worker.step()
    killed = place.uploader
    assert len(place.left()) == 2
    place.make().startService()
    assert place.store.puts == [("acme~test", f"{KEY}a.txt.gz")] * 2
    assert len(place.store.objects) == 1
    assert place.left() == []
    for periodic in killed.jobs:
        periodic.stopService()


@pytest.mark.parametrize("buckets", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_one_long_backlog_delays_nobody(place: Place, buckets: int) -> None:
    """While very many buckets of one tenant wait, another's newest file goes with the next sweep."""
    for n in range(buckets):
        place.stage("big~test", "f", after=n)
    place.store.is_slow = True
    place.uploader.startService()
    for _ in range(300):
        place.store.step()
    place.stage("small~test", "x", after=20_000)
    assert {tenant for tenant, _ in place.store.waiting} == {"big~test"}
    place.clock.advance(5)
    assert [tenant for tenant, _ in place.store.waiting].count("small~test") == 1
    assert len(place.store.waiting) == 3
    order = [key for tenant, key in place.store.puts if tenant == "big~test"]
    assert order == sorted(order)
    assert len(order) == 302


def test_a_long_backlog_of_failed_drains_at_the_stores_speed(place: Place) -> None:
    """One success is enough: all the rest follows without another sweep, never too much of it at once."""
    for n in range(1500):
        place.stage(f"org-{n % 7}~test", "f", after=n, stage="failed")
    place.store.up = False
    place.uploader.startService()
    assert place.store.objects == {}
    place.store.up = True
    place.store.is_slow = True
    place.clock.advance(5)
    staged = 0
    while place.store.waiting:
        staged = max(staged, place.uploader.status().backlog.buckets)
        place.store.step()
    assert len(place.store.objects) == 1500
    assert staged <= 1300
    assert place.uploader.status().counts.returned_buckets == 1500
    assert place.uploader.status().backlog == Backlog()


def test_a_long_backlog_behind_a_pause_hides_nobody(place: Place) -> None:
    """Refused tenants' files fill no window: those of others are found and go, however many there are."""

    class PickyStore(MemoryStore):
        def authorities(self, tenant: str) -> tuple[str, ...]:
            return (self.AUTHORITY, f"signer: {tenant}")

    place.store = PickyStore()
    place.make()
    place.store.refuse = lambda tenant, key: TenantRefused(f"signer: {tenant}", "403") if tenant[0] == "r" else None
    for n in range(600):
        place.stage(f"r{n % 3}~test", "f", after=n)
        place.stage("z~test", f"z{n}", after=10_000 + n)
    place.uploader.startService()
    assert len(place.store.objects) == 600
    assert len(place.store.puts) == 603


def test_a_pause_of_all_fetches_nothing(place: Place) -> None:
    """While nobody may go the window stays as it is, and the rest of a long backlog is left on disk."""
    for n in range(1000):
        place.stage(f"org-{n}~test", "f", after=n)
    place.store.up = False
    place.store.retry_after = 60
    place.uploader.startService()
    assert place.uploader._schedule.waiting < 500
    place.clock.pump([5] * 4)
    assert place.uploader._schedule.waiting < 500
    place.store.up = True
    place.clock.pump([5] * 12)
    assert len(place.store.objects) == 1000


def test_very_many_refused_tenants_hide_nobody(place: Place) -> None:
    """More of them than a window holds: within two sweeps others have been found."""

    class PickyStore(MemoryStore):
        def authorities(self, tenant: str) -> tuple[str, ...]:
            return (self.AUTHORITY, f"signer: {tenant}")

    place.store = PickyStore()
    place.make()
    place.store.refuse = lambda tenant, key: TenantRefused(f"signer: {tenant}", "403", 300) if "r" in tenant else None
    for n in range(800):
        for m in range(3):
            place.stage(f"r{n}~x", "f", after=n + m)
    place.stage("good~test", "x", after=10_000)
    place.uploader.startService()
    place.clock.advance(5)
    assert place.delivered() == ["x"]
    assert len(place.store.puts) == 801


@pytest.mark.parametrize("stage", ["staging", "failed"])
def test_stopping_ends_what_goes_in_slices(place: Place, stage: str) -> None:
    """A stop waits for the slice under way, not for the whole of a long stage."""
    for n in range(4 * SLICE):
        place.stage("acme~test", "f", after=n, stage=stage)
    worker = HeldThread()
    place.make(worker).startService()
    worker.step()
    worker.step()
    stopped = place.uploader.stopService()
    steps = 0
    while worker.jobs:
        worker.step()
        steps += 1
    result_of(stopped)
    assert steps <= 3
    assert place.store.puts == []


def test_the_status(place: Place) -> None:
    """What waits, how old the oldest is, who is waited for, what has happened; without a sweep in between."""
    place.store.is_slow = True
    place.stage("acme~test", "a", "bb")
    place.stage("acme~test", "c", after=60)
    place.stage("old~test", "x", stage="failed", after=-60)
    place.make(failed_retry_batch=0, concurrency=2).startService()
    place.clock.advance(100)
    assert place.uploader.status() == UploaderStatus(
        backlog=Backlog(buckets=2, files=3, bytes=4, failed_buckets=1, oldest_start=NOW),
        oldest_age_seconds=100,
        in_flight=1,
    )
    place.store.step()
    status = place.uploader.status()
    assert status.backlog == Backlog(buckets=2, files=2, bytes=3, failed_buckets=1, oldest_start=NOW)
    assert status.counts == Counts(delivered_files=1, delivered_bytes=1)
    place.store.up = False
    place.store.step()
    (pause,) = place.uploader.status().paused
    assert (pause.authority, pause.until, pause.reason) == ("memory", NOW + 100.75, "it is down")
    assert place.uploader.status().counts.paused_tries == 1


def test_outcomes_are_events(place: Place, log_events: list[LogEvent]) -> None:
    """One each, with bucket, bytes, attempt and delay; counted likewise."""
    outcomes: list[Exception | None] = [
        None,
        UploadFailed("500"),
        EndpointUnavailable("memory", "503", 2),
        UploadFailed("gone"),
    ]
    buckets = [place.stage("acme~test", f"f{n}", after=n) for n in range(4)]
    (buckets[3] / "f3.txt.gz").write_text("f3")
    place.store.is_slow = True
    place.store.refuse = lambda tenant, key: outcomes[int(key[-len("0.txt.gz")])]
    place.make(concurrency=10).startService()
    place.clock.advance(3)
    (buckets[3] / "f3.txt.gz").unlink()
    while place.store.waiting:
        place.store.step()
    told = [
        (event["bucket"], event["bytes"], event["attempt"], round(event["delay"], 3))
        for event in log_events
        if "delay" in event
    ]
    assert told == [
        (buckets[0].name, 2, 1, 3.0),
        (buckets[1].name, 2, 1, 5),
        (buckets[2].name, 2, 1, 2.0),
        (buckets[3].name, 2, 1, 0.0),
    ]
    expected = Counts(delivered_files=1, delivered_bytes=2, failed_tries=1, paused_tries=1, vanished_files=1)
    assert place.uploader.status().counts == expected


def test_a_pause_costs_no_attempt(place: Place, log_events: list[LogEvent]) -> None:
    """However long the store is away, nothing goes to failed; one line says that it is away, one that it is back."""
    for n in range(8):
        place.stage("acme~test", f"f{n}", after=n)
    place.store.up = False
    place.uploader.startService()
    assert place.uploader.status().paused == (Pause("memory", NOW + 0.75, "it is down", 1),)
    puts = len(place.store.puts)
    place.clock.pump([5] * 200)
    assert len(place.store.puts) - puts < 20
    assert place.left("failed") == []
    assert place.uploader.status().counts.failed_tries == 0
    place.store.up = True
    place.clock.pump([5] * 70)
    assert len(place.store.objects) == 8
    assert place.uploader.status().paused == ()
    assert texts(log_events, LogLevel.warn) == [
        "memory is paused for 0.8 s: it is down; its files wait, no attempt is counted"
    ]
    assert [t for t in texts(log_events, LogLevel.info) if "again" in t] == ["memory works again"]


def test_retry_after_is_obeyed_and_one_probes(place: Place) -> None:
    """Nobody goes before it is over; then one does, and the rest when that one is delivered."""
    place.stage("acme~test", *"abcdef")
    place.store.up = False
    place.store.retry_after = 12
    place.uploader.startService()
    place.store.puts.clear()
    place.clock.pump([5, 5])
    assert place.store.puts == []
    place.store.up = True
    place.store.is_slow = True
    place.clock.advance(5)
    assert len(place.store.waiting) == 1
    place.clock.advance(5)
    assert len(place.store.waiting) == 1
    place.store.step()
    assert len(place.store.waiting) == 2


def test_a_probe_without_an_outcome_is_followed_by_another(place: Place) -> None:
    """A file that fails by itself says nothing about the authority that it probed: the next file probes at once."""
    place.stage("acme~test", *"abc")
    place.store.up = False
    place.uploader.startService()
    place.store.up = True
    place.store.refuse = lambda tenant, key: UploadFailed("bad") if key.endswith("a.txt.gz") else None
    place.clock.advance(5)
    assert place.delivered() == ["b", "c"]
    assert place.uploader.status().paused == ()


def test_a_probe_that_says_nothing_is_followed_by_the_next(place: Place) -> None:
    """At once, and by another tenant's file: nobody waits for a sweep because one file is bad."""
    place.stage("a~test", "a")
    place.stage("b~test", "b", after=60)
    place.store.up = False
    place.uploader.startService()
    place.store.up = True
    place.store.refuse = lambda tenant, key: UploadFailed("bad") if tenant == "a~test" else None
    place.store.is_slow = True
    place.clock.advance(5)
    assert [tenant for tenant, _ in place.store.waiting] == ["a~test"]
    place.store.step()
    assert [tenant for tenant, _ in place.store.waiting] == ["b~test"]


def test_who_was_asked_before_is_free(place: Place) -> None:
    """The signer has answered where a store asks for a pause: whoever needs another store need not wait."""

    class TwoStores(MemoryStore):
        def authorities(self, tenant: str) -> tuple[str, ...]:
            return ("signer", f"store {tenant}")

    place.store = TwoStores()
    place.make()
    place.stage("a~test", "a")
    place.stage("b~test", "b", after=60)
    place.store.refuse = refuse_all(EndpointUnavailable("signer", "503", 1))
    place.uploader.startService()
    assert [pause.authority for pause in place.uploader.status().paused] == ["signer"]
    unavailable = EndpointUnavailable("store a~test", "503", 60)
    place.store.refuse = lambda tenant, key: unavailable if tenant == "a~test" else None
    place.store.is_slow = True
    place.clock.advance(5)
    assert [tenant for tenant, _ in place.store.waiting] == ["a~test"]
    place.store.step()
    assert [pause.authority for pause in place.uploader.status().paused] == ["store a~test"]
    assert [tenant for tenant, _ in place.store.waiting] == ["b~test"]


def test_attempts_end_with_the_bucket(place: Place, log_events: list[LogEvent]) -> None:
    """One that is delivered and comes again, with a further file, begins with no attempts."""
    for _ in range(2):
        place.stage("acme~test", "a")
        place.store.refuse = refuse_all(UploadFailed("bad"))
        place.clock.advance(5) if place.uploader.running else place.uploader.startService()
        place.store.refuse = lambda tenant, key: None
        place.clock.advance(5)
        assert place.left() == []
    assert [event["attempt"] for event in log_events if event["log_level"] == LogLevel.warn] == [1, 1]


def test_a_refused_tenant_stops_nobody_else(place: Place) -> None:
    """Only that tenant's files wait."""

    class PickyStore(MemoryStore):
        def authorities(self, tenant: str) -> tuple[str, ...]:
            return (self.AUTHORITY, f"signer: {tenant}")

    place.store = PickyStore()
    place.make()
    place.store.refuse = lambda tenant, key: TenantRefused(f"signer: {tenant}", "403") if tenant == "a~test" else None
    place.stage("a~test", *"abc")
    place.stage("b~test", "x")
    place.uploader.startService()
    assert place.delivered() == ["x"]
    assert [pause.authority for pause in place.uploader.status().paused] == ["signer: a~test"]
    assert len([tenant for tenant, _ in place.store.puts if tenant == "a~test"]) == 1
    place.store.refuse = lambda tenant, key: None
    place.clock.advance(5)
    assert place.delivered() == ["a", "b", "c", "x"]


def test_a_vanished_file_is_nothing(place: Place, log_events: list[LogEvent]) -> None:
    """It is no attempt of its bucket, whose other files are delivered."""
    bucket = place.stage("acme~test", "a", "b")
    place.store.is_slow = True
    place.uploader.startService()
    (bucket / "a.txt.gz").unlink()
    place.store.refuse = lambda tenant, key: UploadFailed("gone") if key.endswith("a.txt.gz") else None
    place.store.step()
    place.store.step()
    assert place.delivered() == ["b"]
    assert place.uploader.status().counts.failed_tries == 0
    assert f"{bucket.name}/a.txt.gz vanished before it was delivered" in texts(log_events, LogLevel.info)


def test_a_bug_in_a_store_is_an_attempt(place: Place, logged_failures: LoggedFailures) -> None:
    """It is logged as the bug it is, and stops nobody."""
    place.stage("acme~test", "a")
    place.stage("other~test", "b")
    place.store.refuse = lambda tenant, key: ZeroDivisionError() if tenant == "acme~test" else None
    place.make(max_attempts=1, failed_retry_batch=0).startService()
    assert place.delivered() == ["b"]
    assert len(place.left("failed")) == 2
    assert len(logged_failures.take(ZeroDivisionError)) == 1


def test_a_put_that_is_cancelled_by_itself_is_postponed(place: Place) -> None:
    """It is tried again by the next sweep, not at once and for ever."""
    place.stage("acme~test", "a")
    place.store.refuse = refuse_all(defer.CancelledError())
    place.uploader.startService()
    assert len(place.store.puts) == 1
    place.clock.advance(5)
    assert len(place.store.puts) == 2


def test_stopping_breaks_off_and_keeps(place: Place) -> None:
    """Uploads under way are cancelled, their files stay, none is begun; drained fails."""
    place.store.is_slow = True
    place.stage("acme~test", *"abcdef")
    place.uploader.startService()
    drained = place.uploader.drained()
    result_of(place.uploader.stopService())
    assert place.store.waiting == []
    assert len(place.left()) == 7
    assert place.uploader.status().in_flight == 0
    with pytest.raises(defer.CancelledError):
        result_of(drained)
    place.clock.advance(100)
    result_of(place.uploader.sweep())
    assert len(place.store.puts) == 2


def test_a_store_of_coroutines(place: Place) -> None:
    """A put may be an `async def`; a stop breaks it off as any other."""

    class AsyncStore(MemoryStore):
        async def put(self, tenant: str, key: str, path: str) -> None:  # type: ignore[override]
            await super().put(tenant, key, path)

    place.store = AsyncStore()
    place.make().startService()
    place.stage("acme~test", "a")
    result_of(place.uploader.sweep())
    assert len(place.store.objects) == 1
    place.store.is_slow = True
    place.stage("acme~test", "b")
    result_of(place.uploader.sweep())
    assert len(place.store.waiting) == 1
    result_of(place.uploader.stopService())
    assert (place.store.waiting, len(place.left())) == ([], 2)


def test_stopping_waits_for_the_disk(place: Place) -> None:
    """A file whose upload has succeeded is deleted before the stop is done."""
    worker = HeldThread()
    place.make(worker).startService()
    place.stage("acme~test", "a")
    while not place.store.objects:
        worker.step()
    assert len(place.left()) == 2
    stopped = place.uploader.stopService()
    assert not stopped.called
    while worker.jobs:
        worker.step()
    result_of(stopped)
    assert place.left() == []


def test_a_stopped_worker_is_no_bug(place: Place) -> None:
    """A disk that is taken away too early costs nothing but the deletion."""

    class StoppedWorker(SameThread):
        is_stopped = False

        def run(self, function: Callable[..., object], *arguments: object) -> "defer.Deferred[object]":
            return defer.fail(defer.CancelledError()) if self.is_stopped else super().run(function, *arguments)

    worker = StoppedWorker()
    place.make(worker).startService()
    place.store.is_slow = True
    place.stage("acme~test", "a")
    place.clock.advance(5)
    worker.is_stopped = True
    place.store.step()
    assert len(place.left()) == 2


def test_drained(place: Place) -> None:
    """Fires once a sweep has found nothing while nothing is under way; a cancelled waiter is forgotten."""
    place.store.is_slow = True
    place.stage("acme~test", "a")
    place.uploader.startService()
    drained, other = place.uploader.drained(), place.uploader.drained()
    other.cancel()
    with pytest.raises(defer.CancelledError):
        result_of(other)
    place.clock.advance(5)
    place.store.step()
    assert not drained.called
    place.clock.advance(5)
    result_of(drained)


def test_what_is_foreign_is_reported_once(place: Place, log_events: list[LogEvent]) -> None:
    """And left alone; what goes and comes again is reported again."""
    foreign = place.root / "staging" / "lost+found"
    foreign.mkdir()
    place.uploader.startService()
    place.clock.advance(5)
    assert place.left() == ["lost+found"]
    assert len(texts(log_events, LogLevel.warn)) == 1
    foreign.rmdir()
    place.clock.advance(5)
    foreign.mkdir()
    place.clock.advance(5)
    text = "lost+found is left alone: its name is not that of a bucket"
    assert texts(log_events, LogLevel.warn) == [text, text]


def test_what_cannot_come_back_is_reported_once(place: Place, log_events: list[LogEvent]) -> None:
    """However many successes give it another chance."""
    name = place.stage("acme~test", "a", stage="failed").name
    (place.root / "staging" / name).write_text("in the way")
    (place.root / "recovered").mkdir(exist_ok=True)
    (place.root / "recovered" / "unreadable").write_text("so it cannot be put aside")
    place.stage("other~test", "b", "c")
    place.uploader.startService()
    assert texts(log_events, LogLevel.warn) == [
        f"failed/{name} is left alone: it cannot be moved to staging: File exists",
        f"{name} is left alone: it is no directory",
    ]


class BrokenDisk(Disk):
    """Fails at what it is told."""

    def __init__(self) -> None:
        self.broken: set[str] = set()

    def _meet(self, what: str) -> None:
        if what in self.broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def unsorted_names(self, directory: str) -> list[str]:
        self._meet(os.path.basename(directory))
        return super().unsorted_names(directory)

    def unlink(self, path: str) -> None:
        self._meet("unlink")
        super().unlink(path)

    def rename(self, source: str, target: str) -> None:
        self._meet("rename")
        super().rename(source, target)


def test_a_broken_disk_is_reported(place: Place, log_events: list[LogEvent]) -> None:
    """A stage that cannot be read is an error in the log, and the next sweep tries again."""
    disk = BrokenDisk()
    disk.broken = {"staging", "failed"}
    place.stage("acme~test", "a")
    place.make(disk=disk).startService()
    assert texts(log_events, LogLevel.error) == [
        "failed cannot be read: Input/output error",
        "staging cannot be read: Input/output error",
    ]
    disk.broken.clear()
    place.clock.advance(5)
    assert place.delivered() == ["a"]


def test_a_file_that_cannot_be_deleted(place: Place, log_events: list[LogEvent]) -> None:
    """It counts as an attempt, lest it is sent for ever; a bucket that cannot be moved either begins anew."""
    disk = BrokenDisk()
    disk.broken = {"unlink", "rename"}
    bucket = place.stage("acme~test", "a").name
    place.make(disk=disk, max_attempts=1).startService()
    assert place.uploader.status().counts.delivered_files == 0
    assert texts(log_events, LogLevel.error) == [f"{bucket} cannot be moved to failed: Input/output error"]
    disk.broken.clear()
    place.clock.advance(5)
    assert place.uploader.status().counts.delivered_files == 1
    assert place.left() == []


def test_a_bug_of_ours_is_logged(place: Place, logged_failures: LoggedFailures) -> None:
    """It ends one upload, not the service."""

    class BuggyDisk(Disk):
        def unlink(self, path: str) -> None:
            if path.endswith("a.txt.gz"):
                raise ZeroDivisionError
            super().unlink(path)

    place.stage("acme~test", "a", "b")
    place.make(disk=BuggyDisk()).startService()
    assert place.delivered() == ["a", "b"]
    assert len(place.left()) == 2
    assert len(logged_failures.take(ZeroDivisionError)) == 1


def test_news_of_a_host_that_was_not_known(place: Place) -> None:
    """A host that a file meets for the first time is paused like any other."""
    hosts: dict[str, str] = {}

    class LearningStore(MemoryStore):
        def authorities(self, tenant: str) -> tuple[str, ...]:
            return ("signer", hosts[tenant]) if tenant in hosts else ("signer",)

    def refuse(tenant: str, key: str) -> Exception:
        hosts[tenant] = "store x"
        return EndpointUnavailable("store x", "503", 100)

    place.store = LearningStore()
    place.store.refuse = refuse
    place.stage("acme~test", *"abcdef")
    place.make().startService()
    place.clock.pump([5] * 5)
    assert len(place.store.puts) == 1
    assert [pause.authority for pause in place.uploader.status().paused] == ["store x"]


@pytest_twisted.ensureDeferred
async def test_a_store_that_hangs_stops_no_other_tenant(place: Place) -> None:
    """With real threads and sockets: one tenant's store never answers, the files of others are delivered."""
    from twisted.internet import reactor

    server, stuck = SigningServer("token"), RawServer(b"")
    ports = [reactor.listenTCP(0, factory, interface="127.0.0.1") for factory in (server.site(), stuck)]
    server.store_of["stuck~test"] = url_of(ports[1])
    store = SignedStore.over_network(
        reactor, Disk(), url_of(ports[0]), lambda: "token", timeout_seconds=30, concurrency=4
    )
    thread = WorkThread(IReactorFromThreads(reactor), "disk")
    thread.startService()
    place.stage("stuck~test", *"abcdefgh")
    for n in range(20):
        place.stage("good~test", f"x{n}", f"y{n}", after=n)
    uploader = Uploader(
        reactor, thread, Disk(), store, str(place.root),
        interval_seconds=0.05, concurrency=4, max_attempts=3, failed_retry_batch=2, chance=lambda: 0.5,
    )  # fmt: skip
    uploader.startService()
    while len(server.objects) < 40 or uploader.status().backlog.files > 8:
        await deferLater(reactor, 0.01, lambda: None)
    assert {tenant for tenant, _ in server.objects} == {"good~test"}
    assert uploader.status().in_flight == 2
    assert uploader.status().counts.failed_tries == 0
    server.store_of.clear()
    await uploader.stopService()
    assert len(place.left()) == 9
    uploader.startService()
    await uploader.drained()
    assert len(server.objects) == 48
    await uploader.stopService()
    await thread.stopService()
    await store.close()
    await stuck.close()
    for port in ports:
        await defer.maybeDeferred(port.stopListening)
