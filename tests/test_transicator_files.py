"""The transicator source's registry files: whole or not there, one at a time, whatever crashes when."""

import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogEvent

from axcollector.core.errors import RegistryError, SyncFailed
from axcollector.disk import Disk
from axcollector.registry import Registry
from axcollector.sync.transicator_files import RegistryFiles, newest_registry
from axcollector.sync.transicator_protocol import LogSequence, Page
from axcollector.sync.transicator_registry import SyncedRegistry
from axcollector.sync.transicator_snapshot import Download
from tests.transicator_server import CLUSTER, COLUMNS, SAMPLES, SELECTOR, json_snapshot, sqlite_snapshot
from tests.transicator_world import DyingDisk, World


def files_in(directory: Path, disk: Disk | None = None) -> RegistryFiles:
    """The files of our cluster."""
    return RegistryFiles(disk or Disk(), str(directory), CLUSTER)


def downloaded(directory: Path, name: str = "snapshot.sqlite") -> Download:
    """A recorded snapshot, as if it had just been downloaded."""
    path = shutil.copyfile(SAMPLES / name, directory / "transicator.download")
    path.chmod(0o600)
    return Download(str(path), "", "")


def adopted(files: RegistryFiles, directory: Path, version: str = "1:1:") -> str:
    """The path of a file that was made of the recorded snapshot."""
    state, scopes = files.make_draft(downloaded(directory))
    return files.adopt(replace(state, version=version, scopes=scopes)).path


def test_a_file_is_whole_when_it_has_its_name(tmp_path: Path) -> None:
    """Mode 0600, in WAL mode, no log beside it, a registry like any other, and nothing else is left."""
    files = files_in(tmp_path)
    path = adopted(files, tmp_path)
    assert os.listdir(tmp_path) == ["registry-1%3A1%3A.db"]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with Registry.open(path) as registry:
        assert [scope.id for scope in registry.scopes()] == ["scope-uuid-1"]
        assert [key.client_id for key in registry.keys("scope-uuid-1")] == ["key-1"]
        assert registry._ask("PRAGMA journal_mode") == [("wal",)]
        assert registry._ask("PRAGMA integrity_check") == [("ok",)]
    live = files.look().live
    assert live is not None
    assert (live.path, live.state.generation, live.state.version) == (path, 1, "1:1:")
    assert live.state.scopes == (CLUSTER, "envscope-a", "orgscope-a", "tenant-a")
    assert newest_registry(str(tmp_path), CLUSTER) == path


def test_a_recorded_sqlite_snapshot_on_a_read_only_directory(tmp_path: Path) -> None:
    """It is in WAL mode and opened as it lies there: nothing is made beside it, not even by root."""
    directory = tmp_path / "there"
    directory.mkdir()
    download = downloaded(directory)
    before = os.stat(directory).st_mtime_ns
    files = files_in(tmp_path)
    files.remove = lambda path: None  # type: ignore[method-assign] - it is looked at afterwards
    files.make_draft(download)
    assert os.listdir(directory) == ["transicator.download"]
    assert os.stat(directory).st_mtime_ns == before


def test_empty_tables_are_tables_that_the_snapshot_had(tmp_path: Path) -> None:
    """In both formats, by one name."""
    states = []
    for name in ("snapshot.sqlite", "snapshot.json"):
        state, _ = files_in(tmp_path).make_draft(downloaded(tmp_path, name))
        states.append(state.tables)
    assert states[0] == states[1]
    assert {"kms_company", "kms_company_developer", "edgex_data_scope"} < states[0]


def test_the_newest_of_several_counts(tmp_path: Path) -> None:
    """After a crash between the swap and the deletion; the others are told to be outdated."""
    files = files_in(tmp_path)
    paths = [adopted(files, tmp_path, version) for version in ("2:2:", "10:10:", "1:1:")]
    found = files.look()
    assert found.live is not None
    assert found.live.path == paths[2]
    assert found.outdated == (paths[0], paths[1])
    assert newest_registry(str(tmp_path), CLUSTER) == paths[2]


def test_drafts_and_leftovers_are_deleted(tmp_path: Path) -> None:
    """Half made files, and logs of files that have gone; nothing else is touched."""
    files = files_in(tmp_path)
    adopted(files, tmp_path)
    useless = ["transicator.draft", "transicator.draft-wal", "transicator.download", "registry-9.db-wal"]
    useful = ["registry.db", "registry.db-wal", "registry-x", "other.db-wal", "registry-1%3A1%3A.db-wal"]
    for name in [*useless, *useful]:
        (tmp_path / name).write_bytes(b"")
    files.look()
    assert {*os.listdir(tmp_path)} == {*useful, "registry-1%3A1%3A.db"} - {"registry-1%3A1%3A.db-wal"}


def test_files_that_are_not_ours_are_left_alone(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """Of another cluster, without a state, with a damaged one, or no database at all."""
    other = adopted(RegistryFiles(Disk(), str(tmp_path), "another"), tmp_path)
    files = files_in(tmp_path)
    Registry.create(str(tmp_path / "registry-mine.db")).close()
    (tmp_path / "registry-damaged.db").write_bytes(b"x" * 5000)
    for number, state in enumerate(['{"generation": 1}', "x", '{"generation": 1, "sequence": "x"}']):
        with SyncedRegistry.create(str(tmp_path / f"registry-{number}.db")) as registry:
            registry._ask("CREATE TABLE axcollector_sync (state text)")
            registry._ask("INSERT INTO axcollector_sync VALUES (?)", state)
    before = sorted(name for name in os.listdir(tmp_path) if name.endswith(".db"))
    for _ in range(2):
        found = files.look()
        assert (found.live, found.outdated) == (None, ())
    assert sorted(name for name in os.listdir(tmp_path) if name.endswith(".db")) == before
    assert os.path.exists(other)
    told = [event["path"] for event in log_events if "is left alone" in event["log_format"]]
    assert len(told) == len(set(told)) == 4


@given(st.text())
def test_a_version_makes_a_file_name(version: str) -> None:
    """Whatever it is, however long; another version, another name."""
    from axcollector.sync.transicator_files import _file_name

    try:
        version.encode()
    except UnicodeEncodeError:
        return
    name = _file_name(version)
    assert "/" not in name
    assert len(f"registry-{name}-99.db-journal") < 200
    assert name != _file_name(version + "1")


def test_long_versions(tmp_path: Path) -> None:
    """A version lists running transactions, of which there may be hundreds."""
    files = files_in(tmp_path)
    long = "756:757:" + ",".join(map(str, range(200)))
    assert adopted(files, tmp_path, long) != adopted(files, tmp_path, long + "0")
    live = files.look().live
    assert live is not None
    assert live.state.version == long + "0"


def test_a_name_under_which_something_lies_is_not_used(tmp_path: Path) -> None:
    """Nor one whose log is still there: it would be read into the new file."""
    (tmp_path / "registry-1%3A1%3A.db-wal").write_bytes(b"x")
    assert adopted(files_in(tmp_path), tmp_path) == str(tmp_path / "registry-1%3A1%3A-2.db")


def test_a_draft_that_somebody_has_open_is_not_adopted(tmp_path: Path) -> None:
    """Part of it may be in its log."""
    files = files_in(tmp_path)
    state, _ = files.make_draft(downloaded(tmp_path))
    connection = sqlite3.connect(tmp_path / "transicator.draft")
    connection.execute("SELECT * FROM app").fetchall()
    with pytest.raises(RegistryError, match="not all in one file"):
        files.adopt(state)
    connection.close()


def test_a_state_that_is_missing(tmp_path: Path) -> None:
    """Nothing is applied to a file that does not say how far it has got."""
    path = str(tmp_path / "r.db")
    with SyncedRegistry.create(path) as registry:
        with pytest.raises(RegistryError, match="its state is missing"):
            registry.apply(Page(LogSequence((0, 1, 0)), LogSequence((0, 0, 0)), ()))
        assert registry.state() is None


def test_a_draft_that_cannot_be_made(tmp_path: Path) -> None:
    """A directory in its place is an error that names it."""
    (tmp_path / "transicator.draft").mkdir()
    with (
        pytest.raises(RegistryError, match=r"transicator\.draft"),
        SyncedRegistry.draft(str(tmp_path / "transicator.draft")),
    ):
        pass


def test_no_file_yet(tmp_path: Path) -> None:
    """Neither a directory nor a file is made by looking for one."""
    assert newest_registry(str(tmp_path / "missing"), CLUSTER) is None
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("formats", [{"sqlite"}, {"json"}])
def test_a_crash_at_any_point_of_a_swap(tmp_path: Path, formats: set[str]) -> None:
    """The next start, without any server, serves the old file or the new one, whole; with servers it catches up."""
    for left in range(100):
        world = World(tmp_path / f"{left}", disk=(disk := DyingDisk()))
        world.server.formats = formats
        world.server.insert("kms.developer", "tenant-a", id="d1", tenant_id="tenant-a", username="ada")
        world.start()
        old = world.expected()
        world.server.add_scope("scope-2", "tenant-b")
        world.server.insert("kms.developer", "tenant-b", id="d2", tenant_id="tenant-b", username="bob")
        new = world.expected()
        disk.left = left
        world.turn(1)
        is_dead = disk.left < 0
        world.die()
        world.disk = Disk()
        for what in ("token", "snapshots", "changes"):
            world.server.next[what] += [lambda request: request.transport.loseConnection() or 1] * 3
        world.start()
        found = world.kept()
        assert found["kms.developer"] in (old["kms.developer"], new["kms.developer"])
        world.server.next.clear()
        world.turn(10)
        assert world.kept() == world.expected()
        assert len(world.registries()) == 1
        world.stop()
        assert world.leftovers() == []
        if not is_dead:
            break
    assert left > 5


def test_a_process_that_is_killed_while_it_applies_changes(tmp_path: Path) -> None:
    """Rows and sequence are of one moment, whenever it was."""
    path = adopted(files_in(tmp_path), tmp_path)
    script = f"""
import sys, itertools
from axcollector.sync.transicator_protocol import LogSequence, Page, RowChange
from axcollector.sync.transicator_registry import SyncedRegistry
from axcollector.sync.events import Operation
for number in itertools.count(1):
    row = {{"tenant_id": "tenant-a", "id": "p", "name": str(number)}}
    change = RowChange(Operation.UPDATE, "kms.api_product", row, None)
    at = LogSequence((0, number, 0))
    with SyncedRegistry.open({path!r}) as registry:
        registry.apply(Page(at, at, (change,)))
    print(number, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process:
        for _ in range(20):
            process.stdout.readline()
        process.kill()
    with SyncedRegistry.open(path) as registry:
        state = registry.state()
        assert state is not None
        assert registry._ask("SELECT name FROM api_product WHERE id = 'p'") == [(str(state.sequence.fields[1]),)]
        assert state.sequence.fields[1] >= 20


@pytest.mark.parametrize("name", ["snapshot.json", "snapshot.sqlite"])
def test_a_draft_that_nobody_wants_any_more(tmp_path: Path, name: str) -> None:
    """Filling it ends soon: whoever stops does not wait for a million rows."""
    download = downloaded(tmp_path, name)
    if name.endswith("sqlite"):
        connection = sqlite3.connect(download.path)
        rows = ((str(number),) for number in range(50_000))
        connection.executemany("INSERT INTO kms_company (id, tenant_id) VALUES (?, 'tenant-a')", rows)
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint (TRUNCATE)")
        connection.close()
    files = files_in(tmp_path)
    files.is_given_up = True
    with pytest.raises(SyncFailed, match="the snapshot cannot be used"):
        files.make_draft(download)
    files.is_given_up = False
    assert files.make_draft(download)[0].tables


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM axcollector_sync",
        "DROP TABLE axcollector_sync",
        """UPDATE axcollector_sync SET state = '[]'""",
        """UPDATE axcollector_sync SET state = json_replace(state, '$.sequence', 'x')""",
        """UPDATE axcollector_sync SET state = json_replace(state, '$.sequence', 5)""",
    ],
)
def test_a_file_whose_state_is_damaged(tmp_path: Path, change: str) -> None:
    """It is not sound, and not used."""
    files = files_in(tmp_path)
    adopted(files, tmp_path)
    live = files.look().live
    assert live is not None
    assert files.is_sound(live)
    with contextlib.closing(sqlite3.connect(live.path)) as connection, connection:
        connection.execute(change)
    assert not files.is_sound(live)
    assert files.look().live is None


def test_a_file_that_cannot_be_opened_is_not_therefore_damaged(tmp_path: Path) -> None:
    """What the system does not let us do now, on a full disk say, does not call for a snapshot."""
    files = files_in(tmp_path)
    adopted(files, tmp_path)
    live = files.look().live
    assert live is not None
    os.unlink(live.path)
    assert not files.is_sound(live)
    os.mkdir(live.path)
    with pytest.raises(RegistryError, match="unable to open database file"):
        files.is_sound(live)


@pytest.mark.parametrize("made_by", [json_snapshot, sqlite_snapshot])
def test_rows_without_a_key_are_left_out(tmp_path: Path, made_by: Callable[..., bytes]) -> None:
    """Nobody could find them, and no change could speak of them."""
    columns = dict.fromkeys((*COLUMNS["kms.company"], SELECTOR))
    rows = [columns | {"id": key, "tenant_id": tenant} for key, tenant in (("1", "t"), ("2", None), (None, "t"))]
    path = tmp_path / "transicator.download"
    path.write_bytes(made_by("1:1:", {"edgex.data_scope": [], "kms.company": rows}))
    files_in(tmp_path).make_draft(Download(str(path), "", ""))
    with Registry.open(str(tmp_path / "transicator.draft")) as registry:
        assert [(row["tenant_id"], row["id"]) for row in registry.rows("kms.company")] == [("t", "1")]


def test_what_a_sqlite_snapshot_would_have_done_is_not_done(tmp_path: Path) -> None:
    """Its tables are read, and nothing else in it counts: neither triggers nor views."""
    download = downloaded(tmp_path)
    with contextlib.closing(sqlite3.connect(download.path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        for event in ("INSERT", "UPDATE", "DELETE"):
            connection.execute(f"CREATE TRIGGER {event}_t AFTER {event} ON kms_app BEGIN DELETE FROM kms_app; END")
        connection.execute("DROP TABLE kms_company")
        connection.execute("CREATE VIEW kms_company AS SELECT id, tenant_id, 'made' AS name FROM kms_app")
        connection.commit()
    state, _ = files_in(tmp_path).make_draft(download)
    assert "kms_company" not in state.tables
    with Registry.open(str(tmp_path / "transicator.draft")) as registry:
        assert list(registry.rows("kms.company")) == []
        assert len(list(registry.rows("kms.app"))) > 0
        triggers = registry._ask("SELECT name FROM sqlite_master WHERE type = 'trigger'")
    assert triggers == []


class WatchedDisk(Disk):
    """A disk that tells what makes a file durable, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []

    def sync_file(self, path: str) -> None:
        self.done.append(f"sync {os.path.basename(path)}")
        super().sync_file(path)

    def rename(self, source: str, target: str) -> None:
        self.done.append(f"rename to {os.path.basename(target)}")
        super().rename(source, target)

    def sync_directory(self, path: str) -> None:
        self.done.append("sync the directory")
        super().sync_directory(path)


def test_a_file_is_on_stable_storage_before_it_has_its_name(tmp_path: Path) -> None:
    """And its name is before the file that it replaces is deleted."""
    disk = WatchedDisk()
    adopted(files_in(tmp_path, disk), tmp_path)
    assert disk.done == ["sync transicator.draft", "rename to registry-1%3A1%3A.db", "sync the directory"]
