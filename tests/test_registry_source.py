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

from axcollector.registry import Registry
from axcollector.sync.events import ChangeList, Snapshot
from axcollector.sync.listener import SyncListener
from axcollector.sync.registry_source import RegistrySource
from tests.fakes import HeldThread, SameThread, result_of


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
    other.execute("COMMIT")
    other.close()
    assert watched.after() == {"b"}
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
