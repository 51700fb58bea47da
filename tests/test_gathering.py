"""The checks of a collector's health: they tell the truth from the first second on, and end when the trouble does."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from axcollector.collector import Collector
from axcollector.core.delivery import PAUSES_TOLD
from axcollector.core.errors import TenantRefused, UploadFailed
from axcollector.core.status import Check, Status
from axcollector.gathering import SLOW_SECONDS, STUCK_SECONDS, STUCK_UPLOAD_SECONDS
from axcollector.registry import Registry
from tests.fake_stores import MemoryStore
from tests.test_collector import Reactor, collector_in

RECORD = {"client_received_start_timestamp": 1}


class Place:
    """A collector at work, over a store in memory."""

    def __init__(self, root: Path) -> None:
        self.reactor = Reactor()
        self.store = MemoryStore()
        self.collector = collector_in(
            root, self.reactor, self.store, collection_interval=1, close_grace=0.1, upload_interval=0.5
        )
        self.collector.startService()
        self.reactor.turn_until(self.collector.directory.ready)
        with Registry.open(self.collector.config.registry_file) as registry:
            self.scope = registry.add_scope("acme", "prod").id
        self.reactor.turn_until(self._is_known)

    def _is_known(self) -> bool:
        catalog = self.collector.sync.catalog
        return catalog is not None and catalog.tenant_of_scope(self.scope) is not None

    def send(self, *records: object) -> None:
        """A batch, taken."""
        assert self.reactor.wait(self.collector.submit(self.scope, list(records))) == len(records)

    def until(self, condition: object) -> None:
        """Turn until it holds; time goes on, slowly."""
        self.reactor.turn_until(condition)

    @property
    def uploads(self) -> dict[str, int]:
        """Uploads that ended, by result."""
        return dict(self.collector.status().delivery.attempts)

    @property
    def checks(self) -> dict[str, Check]:
        """How it is."""
        return dict(self.collector.checks())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """One that is stopped in the end."""
    place = Place(tmp_path)
    yield place
    place.reactor.wait(place.collector.stopService())
    assert place.reactor.getDelayedCalls() == []


def unready(status: Status) -> set[str]:
    """What keeps it from being ready."""
    return {name for name, check in status.checks.items() if check.required and not check.ok}


def test_before_the_start(tmp_path: Path) -> None:
    """Nothing is well, and there is nothing to tell."""
    collector: Collector = collector_in(tmp_path, Reactor())
    status = collector.status()
    assert unready(status) == {"catalog", "spool", "commit", "uploader"}
    assert status.checks["store"] == Check(ok=False, reason="The collector is not started", required=False)
    assert (status.instance_id, status.started_at, status.jobs) == ("", 0.0, [])
    assert {stage.buckets for stage in status.stages} == {0}


def test_of_a_store_nothing_is_known_before_the_first_file(place: Place) -> None:
    """It is not said to be well then; it is once a file is delivered, and readiness needs neither."""
    unknown = Check(ok=False, reason="Not known yet: nothing was sent to it since the start", required=False)
    assert place.checks["store"] == unknown
    assert place.collector.status().ready
    place.send(RECORD)
    place.until(lambda: place.uploads["delivered"] == 1)
    assert place.checks["store"] == Check(ok=True, required=False)


def test_a_spool_that_is_full_from_the_start(tmp_path: Path) -> None:
    """It is not said to have room before somebody has looked, however long that takes."""
    reactor = Reactor()
    bucket = tmp_path / "data" / "ax" / "failed" / "acme~prod~20260102030400"
    for directory in (*reversed(bucket.parents), bucket):
        directory.mkdir(mode=0o700, exist_ok=True)
    (bucket / "whatever").write_bytes(bytes(100))
    collector = collector_in(tmp_path, reactor, MemoryStore(), spool_quota_bytes=99)
    collector.startService()
    said = [collector.checks()["spool"]]

    def is_known() -> bool:
        said.append(collector.checks()["spool"])
        return "its quota" in said[-1].reason

    reactor.turn_until(is_known)
    assert [each.ok for each in said] == [False] * len(said)
    reactor.wait(collector.stopService())


def test_a_store_that_is_away(place: Place) -> None:
    """It is told since when and why; the collector stays ready, and it is well again after the next file."""
    place.store.up = False
    place.send(RECORD)
    place.until(lambda: place.uploads["paused"] == 1)
    store = place.checks["store"]
    assert (store.ok, store.required) == (False, False)
    assert store.reason.startswith("No file was delivered for 0 s: memory is paused")
    (paused,) = place.collector.status().delivery.paused
    assert (paused.authority, paused.reason) == ("memory", "it is down")
    place.reactor.advance(60)
    assert place.checks["store"].reason.startswith("No file was delivered for 60 s: memory is paused")
    assert place.collector.status().ready
    place.store.up = True
    place.reactor.advance(301)
    place.until(lambda: place.uploads["delivered"] == 1)
    assert place.checks["store"] == Check(ok=True, required=False)


def test_a_tenant_that_is_paused(place: Place) -> None:
    """It is told, though the files of others are delivered."""
    with Registry.open(place.collector.config.registry_file) as registry:
        other = registry.add_scope("other", "prod").id
    place.until(lambda: place.collector.sync.catalog.tenant_of_scope(other) is not None)
    place.store.refuse = lambda tenant, key: TenantRefused("signer: acme", "no", 300.0) if "acme" in tenant else None
    place.send(RECORD)
    place.until(lambda: place.uploads["paused"] == 1)
    place.reactor.wait(place.collector.submit(other, [RECORD]))
    place.until(lambda: place.uploads["delivered"] == 1)
    store = place.checks["store"]
    assert (store.ok, store.reason) == (True, "1 paused, the first: signer: acme is paused: no")


def test_very_many_tenants_that_are_paused(place: Place) -> None:
    """They are counted; so many are told one by one that a look every two seconds costs nothing."""
    uploader = place.collector.uploader
    assert uploader is not None
    place.store.refuse = lambda tenant, key: TenantRefused(f"signer: {tenant}", "no", 300.0)
    tenants = PAUSES_TOLD + 1
    with Registry.open(place.collector.config.registry_file) as registry:
        scopes = [registry.add_scope(f"org{number}", "prod").id for number in range(tenants)]
    place.until(lambda: place.collector.sync.catalog.tenant_of_scope(scopes[-1]) is not None)
    for scope in scopes:
        place.reactor.wait(place.collector.submit(scope, [RECORD]))
    place.until(lambda: place.uploads["paused"] == tenants)
    delivery = place.collector.status().delivery
    assert (len(delivery.paused), delivery.paused_count) == (PAUSES_TOLD, tenants)
    assert delivery.paused_until is not None
    assert delivery.paused_until >= max(each.until for each in delivery.paused)


def test_a_store_that_refuses(place: Place) -> None:
    """What the last upload met is told, also of a bucket in failed; that is no stuck uploader."""
    place.store.refuse = lambda tenant, key: UploadFailed("not this one")
    place.send(RECORD)
    place.until(lambda: place.uploads["failed"] == 3)
    place.until(lambda: place.collector.status().delivery.failed)
    (failed,) = place.collector.status().delivery.failed
    assert (failed.bucket.partition("~")[0], failed.reason) == ("acme", "not this one")
    assert "not this one" in place.checks["store"].reason
    assert place.collector.status().ready
    place.reactor.advance(STUCK_SECONDS + 1)
    place.until(lambda: place.checks["uploader"].ok)


def test_an_uploader_that_is_stuck(place: Place) -> None:
    """An upload that never ends is told, and keeps the collector from being ready, until it ends."""
    place.store.is_slow = True
    place.send(RECORD)
    place.until(lambda: place.collector.status().delivery.under_way == 1)
    place.reactor.advance(STUCK_UPLOAD_SECONDS - 60)
    assert place.checks["uploader"].ok
    place.reactor.advance(90)
    assert unready(place.collector.status()) == {"uploader"}
    assert "1 uploads are under way, and none has ended for 3" in place.checks["uploader"].reason
    assert place.collector.problems()["uploader"] == place.checks["uploader"].reason
    place.store.is_slow = False
    place.store.step()
    place.until(lambda: place.uploads["delivered"] == 1)
    assert place.collector.status().ready


def test_a_store_that_does_not_answer(place: Place) -> None:
    """It is told long before an upload counts as stuck: nothing else has said that it is well."""
    place.store.is_slow = True
    place.reactor.advance(10 * SLOW_SECONDS)
    place.until(lambda: place.checks["uploader"].ok)
    place.send(RECORD)
    place.until(lambda: place.collector.status().delivery.under_way == 1)
    assert place.checks["store"].reason.startswith("Not known yet")
    place.reactor.advance(SLOW_SECONDS + 1)
    store = place.checks["store"]
    assert (store.ok, store.required) == (False, False)
    assert store.reason.startswith("It does not answer: 1 uploads are under way, and none has ended for 12")
    assert place.collector.status().ready
    place.store.is_slow = False
    place.store.step()
    place.until(lambda: place.uploads["delivered"] == 1)
    assert place.checks["store"] == Check(ok=True, required=False)


def test_sweeps_that_are_rare(tmp_path: Path) -> None:
    """Between two of them nothing is stuck, however long that is."""
    reactor = Reactor()
    collector = collector_in(tmp_path, reactor, MemoryStore(), upload_interval=7200)
    collector.startService()
    reactor.turn_until(collector.directory.ready)
    reactor.advance(7100)
    assert collector.checks()["uploader"].ok
    reactor.advance(STUCK_SECONDS + 200)
    reactor.turn_until(lambda: collector.checks()["uploader"].ok)
    reactor.wait(collector.stopService())


def test_an_uploader_with_nothing_to_do(place: Place) -> None:
    """However long that lasts, it is not stuck, as soon as it has looked."""
    place.reactor.advance(10 * STUCK_UPLOAD_SECONDS)
    place.until(lambda: place.checks["uploader"].ok)


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    """Of `file:` it shows before anything is sent."""
    reactor = Reactor()
    collector = collector_in(tmp_path, reactor)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "store").write_bytes(b"")
    collector.startService()
    reactor.turn_until(lambda: "is no directory" in collector.checks()["store"].reason)
    assert not collector.checks()["store"].ok
    (tmp_path / "data" / "store").unlink()
    reactor.advance(10)
    reactor.turn_until(lambda: collector.checks()["store"] == Check(ok=True, required=False))
    reactor.wait(collector.stopService())
