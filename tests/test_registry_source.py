"""The registry as a source: whoever changes the file, and however, the catalog follows within two seconds."""

import os
import shutil
import sqlite3
import stat
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet import defer
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel

from axcollector.core.tables import APPS, SCOPES
from axcollector.registry import Registry
from axcollector.sync.events import Change, ChangeList, Operation, Snapshot
from axcollector.sync.listener import SyncListener
from axcollector.sync.registry_source import RegistrySource
from tests.fakes import HeldThread, SameThread, result_of
from tests.test_registry import FOREIGN, execute
from tests.test_registry_log import without_log


class Told(SyncListener):
    """A listener that counts what it is told."""

    def __init__(self, clock: Clock, worker: SameThread | HeldThread | None = None) -> None:
        super().__init__(cast("Any", clock), worker or SameThread())
        self.snapshots: list[Snapshot] = []
        self.lists: list[ChangeList] = []
        self.startService()

    def snapshot_received(self, snapshot: Snapshot) -> "defer.Deferred[bool]":
        self.snapshots.append(snapshot)
        return super().snapshot_received(snapshot)

    def changes_received(self, changes: ChangeList) -> "defer.Deferred[bool]":
        self.lists.append(changes)
        return super().changes_received(changes)

    @property
    def scopes(self) -> set[str]:
        assert self.catalog is not None
        return {scope for scope in "abcde" if self.catalog.tenant_of_scope(scope)}


class Watched:
    """A source that runs, on a clock of its own."""

    def __init__(
        self, path: Path, refresh_interval_seconds: float = 0, worker: SameThread | HeldThread | None = None
    ) -> None:
        self.path = path
        self.clock = Clock()
        self.listener = Told(self.clock, worker)
        self.source = RegistrySource(
            cast("Any", self.clock), SameThread(), self.listener, str(path), refresh_interval_seconds
        )
        self.source.startService()

    def after(self, seconds: float = 2) -> set[str]:
        """The scopes that are known after a while."""
        for _ in range(int(seconds / 0.5)):
            self.clock.advance(0.5)
        return self.listener.scopes

    @property
    def sent(self) -> tuple[int, int]:
        """How many snapshots and change lists were sent."""
        return len(self.listener.snapshots), len(self.listener.lists)

    def stop(self) -> None:
        result_of(self.source.stopService())
        result_of(self.listener.stopService())
        assert self.clock.getDelayedCalls() == []


def add(path: Path, scope: str) -> Path:
    """What the command line does."""
    with Registry.create(str(path)) as registry:
        registry.add_scope("acme", "prod", scope)
    return path


def errors_in(events: list[LogEvent]) -> list[str]:
    """What was logged as an error, as a reader sees it."""
    return [str(event["trouble"]) for event in events if event["log_level"] == LogLevel.error]


def test_a_missing_file_is_made(tmp_path: Path) -> None:
    """A file that is missing at the start is made, empty and for its owner only; that is a snapshot."""
    watched = Watched(tmp_path / "data" / "registry.db")
    assert watched.listener.scopes == set()
    assert len(watched.listener.snapshots) == 1
    assert stat.S_IMODE(watched.path.stat().st_mode) == 0o600
    watched.stop()


def test_an_empty_file_is_made_a_registry(tmp_path: Path) -> None:
    """A file of no bytes at the start counts as missing."""
    path = tmp_path / "registry.db"
    path.touch()
    watched = Watched(path)
    assert watched.after() == set()
    watched.stop()


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_changes_by_others_are_seen(tmp_path: Path, mode: str) -> None:
    """A commit of another connection is seen within two seconds, whatever the journal mode; no commit, no event."""
    path = add(tmp_path / "registry.db", "a")
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA journal_mode = {mode}")
    connection.close()
    watched = Watched(path)
    assert watched.listener.scopes == {"a"}
    add(path, "b")
    assert watched.after() == {"a", "b"}
    with Registry.open(str(path)) as writer:
        for number in range(3):
            writer.add_scope("acme", "prod", "cde"[number])
            assert len(watched.after()) == number + 3
    assert watched.sent == (1, 4)
    assert len({event.version for event in [*watched.listener.snapshots, *watched.listener.lists]}) == 5
    watched.after(60)
    assert watched.sent == (1, 4)
    watched.stop()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == (mode,)
    connection.close()


def test_the_write_ahead_log_is_kept_empty(tmp_path: Path) -> None:
    """What others write to that log is brought into the file, so that replacing the file is safe."""
    path = add(tmp_path / "registry.db", "a")
    watched = Watched(path)
    with Registry.open(str(path)) as writer:
        writer.add_scope("acme", "prod", "b")
        assert os.path.getsize(f"{path}-wal") > 0
        watched.after()
        assert os.path.getsize(f"{path}-wal") == 0
        assert watched.sent == (1, 1)
    watched.stop()


def test_a_replaced_file(tmp_path: Path) -> None:
    """Another file in its place is read, after changes of the first one and before changes of the second."""
    path = add(tmp_path / "registry.db", "a")
    watched = Watched(path)
    add(path, "b")
    assert watched.after() == {"a", "b"}
    os.replace(add(tmp_path / "other.db", "c"), path)
    assert watched.after() == {"c"}
    add(path, "d")
    assert watched.after() == {"c", "d"}
    shutil.copyfile(add(tmp_path / "third.db", "e"), path)
    assert watched.after() == {"e"}
    watched.stop()


def test_a_removed_file(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """The catalog stays when the file goes, which is told once; a new one is read when it comes, which is told too."""
    path = add(tmp_path / "registry.db", "a")
    watched = Watched(path)
    os.unlink(path)
    assert watched.after(10) == {"a"}
    assert [str(path) in error for error in errors_in(log_events)] == [True]
    add(path, "b")
    assert watched.after() == {"b"}
    assert [event["path"] for event in log_events if "again" in str(event["log_format"])] == [str(path)]
    watched.stop()


@pytest.mark.parametrize("damage", [b"", b"not SQLite" * 1000])
def test_a_damaged_file(tmp_path: Path, log_events: list[LogEvent], damage: bytes) -> None:
    """The catalog stays when the file is cut to nothing or overwritten; a good one in its place is read."""
    path = add(tmp_path / "registry.db", "a")
    good = shutil.copyfile(path, tmp_path / "good.db")
    watched = Watched(path)
    path.write_bytes(damage)
    assert watched.after(10) == {"a"}
    assert [str(path) in error for error in errors_in(log_events)] == [True]
    add(good, "b")
    os.replace(good, path)
    assert watched.after() == {"a", "b"}
    watched.stop()


def test_a_locked_file(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """The catalog stays while somebody locks the file; what they did is seen afterwards."""
    path = add(tmp_path / "registry.db", "a")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA journal_mode = delete")
    watched = Watched(path)
    other.execute("BEGIN EXCLUSIVE")
    other.execute("UPDATE data_scope SET id = 'b'")
    assert watched.after(1) == {"a"}
    assert ["database is locked" in error for error in errors_in(log_events)] == [True]
    assert watched.source.heard_at == 0.0
    other.execute("COMMIT")
    other.close()
    assert watched.after() == {"b"}
    assert watched.source.heard_at == watched.clock.seconds()
    watched.stop()


def test_an_unusable_place(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """A file that cannot be made leaves us without a snapshot, until it can be."""
    (tmp_path / "data").write_bytes(b"in the way")
    watched = Watched(tmp_path / "data" / "registry.db")
    watched.clock.advance(0.5)
    assert watched.listener.snapshots == []
    assert len(errors_in(log_events)) == 1
    os.unlink(tmp_path / "data")
    assert watched.after() == set()
    watched.stop()


def test_full_rebuilds(tmp_path: Path) -> None:
    """With a refresh interval a snapshot comes when none has for so long."""
    path = add(tmp_path / "registry.db", "a")
    watched = Watched(path, refresh_interval_seconds=10)
    watched.after(9)
    add(path, "b")
    watched.after(0.5)
    assert watched.sent == (1, 1)
    watched.after(0.5)
    assert watched.sent == (2, 1)
    watched.after(9.5)
    assert watched.sent == (2, 1)
    watched.after(0.5)
    assert watched.sent == (3, 1)
    watched.stop()


def test_what_a_change_list_says(tmp_path: Path) -> None:
    """A row that is there is put, one that is gone is removed by its key, each once, whatever was done to it."""
    watched = Watched(add(tmp_path / "registry.db", "a"))
    execute(
        watched.path,
        """INSERT INTO app (tenant_id, id) VALUES ('t', '1'), ('t', '2');
        UPDATE app SET name = 'n' WHERE id = '1';
        DELETE FROM app WHERE id = '2';
        UPDATE data_scope SET id = 'b', scope = 't', org = 'o';""",
    )
    assert watched.after() == {"b"}
    scope = {"id": "b", "scope": "t", "org": "o", "env": "prod"}
    app = {"tenant_id": "t", "id": "1", "name": "n", "developer_id": None, "company_id": None}
    gone = [
        Change(Operation.DELETE, SCOPES, old_row={"id": "a"}),
        Change(Operation.DELETE, APPS, old_row={"tenant_id": "t", "id": "2"}),
    ]
    put = [Change(Operation.UPDATE, SCOPES, new_row=scope), Change(Operation.UPDATE, APPS, new_row=app)]
    (sent,) = watched.listener.lists
    assert [change.table for change in sent.changes] == [SCOPES, SCOPES, APPS, APPS]
    for change in [*gone, *put]:
        assert change in sent.changes
    watched.stop()


def test_changes_during_a_rebuild_wait_for_it(tmp_path: Path) -> None:
    """No list is sent before the snapshot is shown; then one brings all that the rebuild may have missed."""
    worker = HeldThread()
    watched = Watched(add(tmp_path / "registry.db", "a"), worker=worker)
    add(watched.path, "b")
    watched.clock.advance(0.5)
    assert watched.sent == (1, 0)
    worker.step()
    assert watched.listener.scopes == {"a", "b"}
    add(watched.path, "c")
    with Registry.open(str(watched.path)) as registry:
        registry.remove_scope("b")
    assert watched.after(0.5) == {"a", "c"}
    assert watched.sent == (1, 1)
    assert len(watched.listener.lists[0].changes) == 2
    watched.stop()


def test_changes_during_a_rebuild_that_the_log_does_not_tell(tmp_path: Path) -> None:
    """Another file during a rebuild is a snapshot at once; the list that follows goes on from that."""
    worker = HeldThread()
    watched = Watched(add(tmp_path / "registry.db", "a"), worker=worker)
    os.replace(add(tmp_path / "other.db", "b"), watched.path)
    watched.clock.advance(0.5)
    assert watched.sent == (2, 0)
    add(watched.path, "c")
    watched.clock.advance(0.5)
    worker.step()
    watched.clock.advance(0.5)
    assert watched.sent == (2, 0)
    worker.step()
    assert watched.after(0.5) == {"b", "c"}
    assert watched.sent == (2, 1)
    while worker.jobs:
        worker.step()
    watched.stop()


@pytest.mark.parametrize("script", ["UPDATE company SET name = 'x'", "DELETE FROM company"])
def test_many_changes_are_a_snapshot(tmp_path: Path, script: str) -> None:
    """More rows than a list should have, or than the log holds, are a snapshot; few of them later are a list."""
    watched = Watched(add(tmp_path / "registry.db", "a"))
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 15000) SELECT 't', i FROM n"
    execute(watched.path, f"INSERT INTO company (tenant_id, id) {many}")
    watched.after(0.5)
    assert watched.sent == (2, 0)
    execute(watched.path, f"{script} WHERE id < '4'; INSERT INTO data_scope (id) VALUES ('x')")
    watched.after(0.5)
    assert watched.sent == (3, 0)
    execute(watched.path, f"{script} WHERE id > '99'")
    watched.after(0.5)
    assert watched.sent == (3, 1)
    watched.stop()


def test_bulk_changes_are_a_snapshot(tmp_path: Path) -> None:
    """Changes that were not logged are a snapshot, with whatever was logged besides; later ones are a list."""
    watched = Watched(add(tmp_path / "registry.db", "a"))
    with Registry.open(str(watched.path)) as registry:
        registry.add_scope("acme", "prod", "b")
        with registry._transaction("BEGIN IMMEDIATE"), registry.unlogged():
            registry._change("UPDATE data_scope SET id = 'c' WHERE id = 'a'")
        registry.add_scope("acme", "prod", "d")
        assert watched.after(0.5) == {"b", "c", "d"}
        assert watched.sent == (2, 0)
        registry.remove_scope("c")
        assert watched.after(0.5) == {"b", "d"}
        assert watched.sent == (2, 1)
    watched.stop()


def test_foreign_files(tmp_path: Path) -> None:
    """A file without a change log of ours is never given one; every change of it is a snapshot."""
    path = tmp_path / "foreign.db"
    execute(path, FOREIGN)
    content = path.read_bytes()
    watched = Watched(path)
    watched.after()
    assert content == path.read_bytes()
    execute(path, "UPDATE DATA_SCOPE SET id = 'a'")
    assert watched.after() == {"a"}
    assert watched.sent == (2, 0)
    watched.stop()


def test_files_from_before_there_were_change_logs(tmp_path: Path) -> None:
    """A file of ours without a log gets one at the first look."""
    path = add(tmp_path / "registry.db", "a")
    without_log(path)
    watched = Watched(path)
    add(path, "b")
    assert watched.after() == {"a", "b"}
    assert watched.sent == (1, 1)
    watched.stop()


@pytest.mark.parametrize("kind", ["snapshot", "list"])
def test_events_that_are_dropped(tmp_path: Path, kind: str) -> None:
    """What the listener says that it does not show is followed by a snapshot, at the next look."""

    class Forgetful(Told):
        is_forgetful = kind == "snapshot"

        def _answer(self, shown: "defer.Deferred[bool]") -> "defer.Deferred[bool]":
            return defer.succeed(False) if self.is_forgetful else shown

        def snapshot_received(self, snapshot: Snapshot) -> "defer.Deferred[bool]":
            return self._answer(super().snapshot_received(snapshot))

        def changes_received(self, changes: ChangeList) -> "defer.Deferred[bool]":
            return self._answer(super().changes_received(changes))

    clock = Clock()
    path = add(tmp_path / "registry.db", "a")
    listener = Forgetful(clock)
    source = RegistrySource(cast("Any", clock), SameThread(), listener, str(path))
    source.startService()
    if kind == "list":
        listener.is_forgetful = True
        add(path, "b")
        clock.advance(0.5)
        assert (len(listener.snapshots), len(listener.lists)) == (1, 1)
    clock.advance(0.5)
    listener.is_forgetful = False
    clock.advance(0.5)
    before = len(listener.snapshots)
    assert before > 1
    clock.advance(0.5)
    assert before == len(listener.snapshots)
    result_of(source.stopService())


def test_two_who_watch(tmp_path: Path) -> None:
    """Two may follow one file; what one does to it is no change to the other."""
    path = add(tmp_path / "registry.db", "a")
    both = Watched(path), Watched(path)
    with Registry.open(str(path)) as registry:
        for scope in "bcd":
            registry.add_scope("acme", "prod", scope)
            for watched in both:
                assert scope in watched.after()
    assert [watched.sent for watched in both] == [(1, 3), (1, 3)]
    for watched in both:
        watched.stop()


def test_it_can_be_started_again(tmp_path: Path) -> None:
    """A source that was stopped sends a snapshot when it is started again."""
    watched = Watched(add(tmp_path / "registry.db", "a"))
    result_of(watched.source.stopService())
    add(watched.path, "b")
    watched.source.startService()
    assert watched.listener.scopes == {"a", "b"}
    watched.stop()


def test_stopping_during_a_look(tmp_path: Path) -> None:
    """Stopping waits for the look under way, then closes the file."""
    clock = Clock()
    worker = HeldThread()
    source = RegistrySource(cast("Any", clock), worker, Told(clock), str(tmp_path / "registry.db"))
    source.startService()
    stopped = source.stopService()
    worker.step()
    assert not stopped.called
    worker.step()
    result_of(stopped)
    assert worker.jobs == []


def test_stopping_before_an_event_is_shown(tmp_path: Path) -> None:
    """Stopping does not wait for the listener; what that says later of an event from before changes nothing."""
    worker = HeldThread()
    watched = Watched(add(tmp_path / "registry.db", "a"), worker=worker)
    result_of(watched.source.stopService())
    watched.source.startService()
    assert watched.sent == (2, 0)
    worker.step()
    add(watched.path, "b")
    watched.clock.advance(0.5)
    assert watched.sent == (2, 0)
    worker.step()
    assert watched.after(0.5) == {"a", "b"}
    assert watched.sent == (2, 1)
    while worker.jobs:
        worker.step()
    watched.stop()


def test_stopping_after_the_worker(tmp_path: Path) -> None:
    """A worker that takes no more work does not keep it from stopping, and makes no noise."""

    class Ended:
        def run(self, *_: object) -> "defer.Deferred[Any]":
            return defer.fail(defer.CancelledError())

    clock = Clock()
    source = RegistrySource(cast("Any", clock), Ended(), Told(clock), str(tmp_path / "registry.db"))
    source.startService()
    clock.advance(1)
    result_of(source.stopService())
    assert os.listdir(tmp_path) == []
