"""The directory: both kinds answer the same, refuse the same, and say when they cannot."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet import defer
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel

from axcollector.core.errors import LookupFailed, NotReady, Rejected
from axcollector.core.model import NO_DEVELOPER, DeveloperInfo, Tenant
from axcollector.core.tables import DEVELOPERS
from axcollector.registry import Registry
from axcollector.sync.directory import IDS_A_TURN, CachedDirectory, Directory, RegistryDirectory
from axcollector.sync.events import Change, ChangeList, Operation, Snapshot
from axcollector.sync.listener import SyncListener
from tests.fakes import HeldThread, SameThread, result_of
from tests.test_listener import take_a_turn


def cached(listener: SyncListener) -> Directory:
    """A directory that asks the catalog."""
    return CachedDirectory(cast("Any", Clock()), listener)


def uncached(listener: SyncListener) -> Directory:
    """A directory that asks the file."""
    return RegistryDirectory(listener, SameThread())


both = pytest.mark.parametrize("make", [cached, uncached])
Make = Callable[[SyncListener], Directory]


def a_listener() -> SyncListener:
    """A listener that runs."""
    listener = SyncListener(cast("Any", Clock()), SameThread())
    listener.startService()
    return listener


def a_registry(path: Path, organization: str = "acme") -> str:
    """A registry with scope s and key k."""
    with Registry.create(str(path)) as registry:
        registry.add_scope(organization, "prod", "s", "t")
        registry.add_scope(organization, "prod", "a", "t")
        registry.add_key("s", "k", product="gold", app="weather", developer="ada", email="ada@example.com")
    return str(path)


def ask(coroutine: Any) -> Any:
    """What a coroutine of the directory returns or raises."""
    return result_of(defer.ensureDeferred(coroutine))


@both
def test_before_the_first_snapshot(make: Make) -> None:
    """Before the first snapshot nothing can be answered."""
    directory = make(a_listener())
    assert not directory.ready()
    for coroutine in (
        directory.tenant_for_scope("s"),
        directory.tenant_for_names("acme", "prod"),
        directory.scopes_for_names("acme", "prod"),
        directory.developers(Tenant("t", "acme", "prod"), ["k"]),
    ):
        with pytest.raises(NotReady):
            ask(coroutine)


@both
def test_answers(make: Make, tmp_path: Path) -> None:
    """After it tenants and developers are known; what is unknown is refused with the words of the contract."""
    listener = a_listener()
    directory = make(listener)
    listener.snapshot_received(Snapshot("1", a_registry(tmp_path / "r.db")))
    assert directory.ready()
    tenant = Tenant("t", "acme", "prod")
    assert ask(directory.tenant_for_scope("s")) == tenant
    assert ask(directory.tenant_for_names("acme", "prod")) == tenant
    assert list(ask(directory.scopes_for_names("acme", "prod"))) == ["a", "s"]
    assert list(ask(directory.scopes_for_names("acme", "dev"))) == []
    info = DeveloperInfo("gold", "weather", "ada@example.com", "ada")
    assert ask(directory.developers(tenant, {"k", "l"})) == {"k": info, "l": NO_DEVELOPER}
    assert ask(directory.developers(tenant, ())) == {}
    with pytest.raises(Rejected, match=r"^No tenant found for this scopeuuid: x$") as caught:
        ask(directory.tenant_for_scope("x"))
    assert (caught.value.code, caught.value.status) == ("UNKNOWN_SCOPE", 400)
    with pytest.raises(Rejected, match=r"^No tenant found for this org: acme and env: dev$") as caught:
        ask(directory.tenant_for_names("acme", "dev"))
    assert (caught.value.code, caught.value.status) == ("UNKNOWN_SCOPE", 400)


def test_the_cached_one_waits_for_nothing(tmp_path: Path) -> None:
    """A rebuild under way does not hold up the cached directory."""
    worker = HeldThread()
    listener = SyncListener(cast("Any", Clock()), worker)
    listener.startService()
    directory = CachedDirectory(cast("Any", Clock()), listener)
    listener.snapshot_received(Snapshot("1", a_registry(tmp_path / "1.db")))
    assert not directory.ready()
    worker.step()
    listener.snapshot_received(Snapshot("2", a_registry(tmp_path / "2.db", "other")))
    assert ask(directory.tenant_for_scope("s")).organization == "acme"
    worker.step()
    assert ask(directory.tenant_for_scope("s")).organization == "other"


def test_very_many_client_ids_take_turns(tmp_path: Path) -> None:
    """A batch of more client ids than one turn allows gets all of them, and lets others have theirs meanwhile."""
    clock = Clock()
    listener = a_listener()
    directory = CachedDirectory(cast("Any", clock), listener)
    listener.snapshot_received(Snapshot("1", a_registry(tmp_path / "r.db")))
    tenant = Tenant("t", "acme", "prod")
    client_ids = [*map(str, range(IDS_A_TURN)), "k"]
    known = defer.ensureDeferred(directory.developers(tenant, client_ids))
    assert not known.called
    clock.advance(0)
    found = result_of(known)
    assert client_ids == list(found)
    assert found["k"].developer == "ada"
    cancelled = defer.ensureDeferred(directory.developers(tenant, client_ids))
    cancelled.cancel()
    with pytest.raises(defer.CancelledError):
        result_of(cancelled)
    assert clock.getDelayedCalls() == []


def test_a_batch_sees_one_state_of_the_catalog(tmp_path: Path) -> None:
    """A change between the turns of a large batch: all of it is of after the change, however often that happens."""

    def renamed(name: str) -> ChangeList:
        row = {"tenant_id": "t", "id": developer_id, "username": name}
        return ChangeList([Change(Operation.UPDATE, DEVELOPERS, row)])

    clock = Clock()
    listener = a_listener()
    directory = CachedDirectory(cast("Any", clock), listener)
    path = a_registry(tmp_path / "r.db")
    with Registry.open(path) as registry:
        registry.add_key("s", "l", product="gold", app="weather", developer="ada")
        developer_id = str(next(iter(registry.rows(DEVELOPERS)))["id"])
    listener.snapshot_received(Snapshot("1", path))
    client_ids = ["k", *map(str, range(IDS_A_TURN)), "l"]
    for changes in (1, 2, 5):
        asked = defer.ensureDeferred(directory.developers(Tenant("t", "acme", "prod"), client_ids))
        for number in range(changes):
            if not asked.called:
                listener.changes_received(renamed(f"name {changes}.{number}"))
                take_a_turn(clock)
        while clock.getDelayedCalls():
            take_a_turn(clock)
        found = result_of(asked)
        assert found["k"].developer == found["l"].developer != "ada"
        assert len(found) == len(client_ids)


def test_the_uncached_one_asks_each_time(tmp_path: Path) -> None:
    """The uncached directory sees what was just committed, in the file that lies there now."""
    listener = a_listener()
    directory = RegistryDirectory(listener, SameThread())
    path = a_registry(tmp_path / "r.db")
    listener.snapshot_received(Snapshot("1", path))
    assert ask(directory.tenant_for_scope("s")).organization == "acme"
    with Registry.open(path) as registry:
        registry.add_scope("acme", "dev", "new")
    assert ask(directory.tenant_for_scope("new")).environment == "dev"
    result_of(directory.stopService())
    os.replace(a_registry(tmp_path / "2.db", "other"), path)
    assert ask(directory.tenant_for_scope("s")).organization == "other"
    os.replace(a_registry(tmp_path / "3.db", "third"), path)
    assert ask(directory.tenant_for_scope("s")).organization == "third"
    result_of(directory.stopService())
    result_of(directory.stopService())


def test_a_file_copied_over_is_asked_uncached(tmp_path: Path) -> None:
    """A file whose content was replaced in place is asked as it is now, not as the connection remembers it."""
    listener = a_listener()
    directory = RegistryDirectory(listener, SameThread())
    path = a_registry(tmp_path / "r.db")
    listener.snapshot_received(Snapshot("1", path))
    assert ask(directory.tenant_for_scope("s")).organization == "acme"
    shutil.copyfile(a_registry(tmp_path / "2.db", "other"), path)
    assert ask(directory.tenant_for_scope("s")).organization == "other"
    result_of(directory.stopService())


def test_a_replaced_file_is_not_damaged_by_the_uncached_one(tmp_path: Path) -> None:
    """What the old file's write-ahead log holds does not get into the new file, even if nobody else has looked yet."""
    listener = a_listener()
    directory = RegistryDirectory(listener, SameThread())
    path = a_registry(tmp_path / "r.db")
    listener.snapshot_received(Snapshot("1", path))
    ask(directory.tenant_for_scope("s"))
    other = a_registry(tmp_path / "2.db", "other")
    with Registry.open(path) as registry:
        registry.add_scope("acme", "dev", "old")
        os.replace(other, path)
        assert ask(directory.tenant_for_scope("s")).organization == "other"
        with pytest.raises(Rejected):
            ask(directory.tenant_for_scope("old"))
    result_of(directory.stopService())


def test_a_registry_that_cannot_be_asked(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """A look-up that fails is a 500 that names no file; the log names it, once, and says when it is over."""
    listener = a_listener()
    directory = RegistryDirectory(listener, SameThread())
    path = a_registry(tmp_path / "r.db")
    listener.snapshot_received(Snapshot("1", path))
    os.rename(path, path + ".away")
    for _ in range(2):
        with pytest.raises(LookupFailed) as caught:
            ask(directory.tenant_for_scope("s"))
        assert (caught.value.code, caught.value.status) == ("INTERNAL_SEARCH_ERROR", 500)
        assert path not in caught.value.reason
    assert [path in str(event["trouble"]) for event in log_events if event["log_level"] == LogLevel.error] == [True]
    os.rename(path + ".away", path)
    assert ask(directory.tenant_for_scope("s")).organization == "acme"
    assert [event["path"] for event in log_events if "again" in str(event["log_format"])] == [path]
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE data_scope")
    connection.close()
    with pytest.raises(LookupFailed):
        ask(directory.tenant_for_names("acme", "prod"))
    result_of(directory.stopService())


def test_stopping_after_the_worker() -> None:
    """A worker that takes no more work does not keep it from stopping."""

    class Ended:
        def run(self, *_: object) -> "defer.Deferred[Any]":
            return defer.fail(defer.CancelledError())

    result_of(RegistryDirectory(a_listener(), Ended()).stopService())
