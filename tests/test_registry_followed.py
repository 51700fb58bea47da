"""The registry as a source, whatever is done to its file: in the end the catalog equals one built from the file."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from axcollector.core.tables import COLUMNS, COMPANIES, KEYS, Row, short_name
from axcollector.registry import Registry
from axcollector.registry_log import MAX_CHANGED_ROWS
from axcollector.sync.events import Snapshot
from axcollector.sync.listener import SyncListener
from tests.effort import either
from tests.fakes import HeldThread, result_of
from tests.test_catalog import everything_of, rows_of
from tests.test_registry import execute
from tests.test_registry_source import Told, Watched, add, errors_in

Statement = tuple[str, tuple[Any, ...]]


def shown_by(listener: SyncListener) -> list[object]:
    """All that a listener's catalog says about what these tests have in their tables."""
    catalog = listener.catalog
    assert catalog is not None
    return [*everything_of(catalog), *map(catalog.tenant_of_scope, "abcde"), dict(catalog.counts())]


def built_from(path: Path) -> list[object]:
    """What a catalog built from the file shows."""
    listener = Told(Clock())
    assert result_of(listener.snapshot_received(Snapshot("", str(path))))
    return shown_by(listener)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """A registry with scope a, watched."""
    watched = Watched(add(tmp_path / "registry.db", "a"))
    assert watched.listener.scopes == {"a"}
    yield watched
    watched.stop()


def follows(watched: Watched) -> bool:
    """Whether the catalog equals the file, and goes on to do so with a list after one more change."""
    if shown_by(watched.listener) != built_from(watched.path):
        return False
    before = watched.sent
    execute(watched.path, "INSERT INTO data_scope VALUES ('e', 't', 'o', 'e')")
    after = watched.after()
    return "e" in after and shown_by(watched.listener) == built_from(watched.path) and watched.sent[1] == before[1] + 1


def rename_over(path: Path, other: Path) -> None:
    """Rename the other to it."""
    os.replace(other, path)


def delete_and_put(path: Path, other: Path) -> None:
    """Delete it first."""
    os.unlink(path)
    os.replace(other, path)


def copy_over(path: Path, other: Path) -> None:
    """Copy the other's content into it."""
    shutil.copyfile(other, path)


@pytest.mark.parametrize("put", [rename_over, delete_and_put, copy_over])
@pytest.mark.parametrize("is_relative", [False, True])
def test_replaced(watched: Watched, tmp_path: Path, put: Callable[[Path, Path], None], is_relative: bool) -> None:
    """Another file in its place is a snapshot, be it an edited copy of the old one or one of its own."""
    other = tmp_path / "other.db"
    if is_relative:
        shutil.copyfile(watched.path, other)
    add(other, "b")
    put(watched.path, other)
    assert watched.after() == ({"a", "b"} if is_relative else {"b"})
    assert follows(watched)


@pytest.mark.parametrize("put", [rename_over, delete_and_put])
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_replaced_with_something_in_the_write_ahead_log(
    watched: Watched, tmp_path: Path, put: Callable[[Path, Path], None], mode: str
) -> None:
    """What the old file's log holds does not get into the new file, which it would destroy; who reads on is let be."""
    other = add(tmp_path / "other.db", "b")
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) SELECT 't', i FROM n"
    execute(other, f"PRAGMA journal_mode = {mode}; INSERT INTO company (tenant_id, id) {many}")
    reader = sqlite3.connect(watched.path, isolation_level=None)
    add(watched.path, "c")
    reader.execute("BEGIN")
    assert len(reader.execute("SELECT * FROM data_scope").fetchall()) == 2
    assert os.path.getsize(f"{watched.path}-wal") > 0
    put(watched.path, other)
    assert watched.after() == {"b"}
    assert follows(watched)
    assert len(reader.execute("SELECT * FROM data_scope").fetchall()) == 2
    reader.close()
    assert follows_still(watched)


def test_what_is_written_to_the_new_file_stays(watched: Watched, tmp_path: Path) -> None:
    """What somebody commits to the new file before we have looked is in its own log, which is let be."""
    add(watched.path, "c")
    assert watched.after() == {"a", "c"}
    os.replace(add(tmp_path / "other.db", "b"), watched.path)
    writer = sqlite3.connect(watched.path, isolation_level=None)
    writer.execute("INSERT INTO data_scope VALUES ('d', 't', 'o', 'e')")
    log = f"{watched.path}-wal"
    assert os.path.getsize(log) > 0
    os.utime(log, (os.path.getctime(watched.path) + 1,) * 2)
    assert watched.after() == {"b", "d"}
    writer.close()
    assert follows(watched)


def follows_still(watched: Watched) -> bool:
    """As `follows`, after that."""
    execute(watched.path, "DELETE FROM data_scope WHERE id = 'e'")
    watched.after()
    return follows(watched)


@pytest.mark.parametrize("has_same_inode", [False, True])
def test_missing_while_its_write_ahead_log_holds_something(
    watched: Watched, tmp_path: Path, has_same_inode: bool
) -> None:
    """The same when the file was seen to be missing before another comes, even if that gets the same inode."""
    other = add(tmp_path / "other.db", "b")
    add(watched.path, "c")
    away = tmp_path / "away.db"
    os.replace(watched.path, away)
    assert watched.after() == {"a"}
    assert os.path.getsize(f"{watched.path}-wal") > 0
    if has_same_inode:
        other = Path(shutil.copyfile(other, away))
    os.replace(other, watched.path)
    assert watched.after() == {"b"}
    assert follows(watched)


def test_an_older_copy_comes_back(watched: Watched, tmp_path: Path) -> None:
    """A file from a backup is a snapshot, whose log does not go on from what was seen since."""
    backup = Path(shutil.copyfile(watched.path, tmp_path / "backup.db"))
    add(watched.path, "b")
    assert watched.after() == {"a", "b"}
    os.replace(backup, watched.path)
    assert watched.after() == {"a"}
    assert watched.sent == (2, 1)
    assert follows(watched)


@pytest.mark.parametrize("damage", [b"", b"not SQLite" * 1000, None])
def test_damaged(watched: Watched, log_events: list[LogEvent], damage: bytes | None) -> None:
    """A file that was cut or overwritten leaves the catalog as it is, is told once, and is read when it is whole."""
    whole = watched.path.read_bytes()
    watched.path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert watched.after(10) == {"a"}
    assert [str(watched.path) in error for error in errors_in(log_events)] == [True]
    watched.path.write_bytes(whole)
    assert watched.after() == {"a"}
    assert follows(watched)


def test_damaged_pages(watched: Watched, log_events: list[LogEvent]) -> None:
    """Pages that cannot be understood are an error that names the file, not a catalog of what is left."""
    whole = watched.path.read_bytes()
    watched.path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    assert watched.after(5) == {"a"}
    assert [str(watched.path) in error for error in errors_in(log_events)] == [True]
    watched.path.write_bytes(whole)
    assert watched.after() == {"a"}
    assert follows(watched)


@pytest.mark.parametrize("mode", ["wal", "delete"])
@pytest.mark.parametrize("ending", ["COMMIT", "ROLLBACK"])
def test_locked(tmp_path: Path, log_events: list[LogEvent], mode: str, ending: str) -> None:
    """While somebody has the file for himself the catalog stays; a writer who locks nobody out is not even noticed."""
    path = add(tmp_path / "registry.db", "a")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute(f"PRAGMA journal_mode = {mode}")
    watched = Watched(path)
    other.execute("BEGIN EXCLUSIVE")
    other.execute("UPDATE data_scope SET id = 'b'")
    assert watched.after(1) == {"a"}
    assert len(errors_in(log_events)) == (mode == "delete")
    other.execute(ending)
    assert watched.after() == {"b" if ending == "COMMIT" else "a"}
    other.close()
    assert follows(watched)
    watched.stop()


def test_locked_in_wal_mode(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """Exclusive locking of a file with a write-ahead log is an error until it ends."""
    path = add(tmp_path / "registry.db", "a")
    watched = Watched(path)
    result_of(watched.source.stopService())
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("UPDATE data_scope SET id = 'b'")
    watched.source.startService()
    assert watched.after(1) == {"a"}
    assert ["locked" in error for error in errors_in(log_events)] == [True]
    other.close()
    assert watched.after() == {"b"}
    assert follows(watched)
    watched.stop()


@contextlib.contextmanager
def forbidden(path: Path) -> Iterator[None]:
    """Nobody may read this file in this context; for root, who may read everything, we are somebody else."""
    os.chmod(path, 0)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65_534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        os.chmod(path, 0o600)


def test_forbidden(watched: Watched, log_events: list[LogEvent]) -> None:
    """A file that may not be read any more is told once, and read when it may be."""
    result_of(watched.source.stopService())
    with forbidden(watched.path):
        watched.source.startService()
        assert watched.after() == {"a"}
        assert [str(watched.path) in error for error in errors_in(log_events)] == [True]
    execute(watched.path, "INSERT INTO data_scope VALUES ('b', 't', 'o', 'e')")
    assert watched.after() == {"a", "b"}
    assert follows(watched)


def test_no_file_in_its_place(watched: Watched, log_events: list[LogEvent]) -> None:
    """A directory in its place is told once; the file is read when it is back."""
    os.replace(watched.path, f"{watched.path}.away")
    watched.path.mkdir()
    assert watched.after() == {"a"}
    assert [str(watched.path) in error for error in errors_in(log_events)] == [True]
    watched.path.rmdir()
    os.replace(f"{watched.path}.away", watched.path)
    assert watched.after() == {"a"}
    assert follows(watched)


@pytest.mark.parametrize(
    ("script", "sent"),
    [
        ("VACUUM", (2, 0)),
        ("ALTER TABLE data_scope ADD COLUMN colour text", (2, 0)),
        ("ALTER TABLE app DROP COLUMN name", (2, 0)),
        ("CREATE TABLE more (id)", (2, 0)),
        ("PRAGMA user_version = 5", (2, 0)),
        ("ATTACH '{path}' AS r; INSERT INTO r.app (tenant_id, id, name) VALUES ('t', '1', 'n')", (1, 1)),
        ("INSERT INTO developer VALUES ('1', 't', CAST(X'FF' AS text), NULL)", (1, 1)),
        ("INSERT INTO developer VALUES (CAST(X'FF' AS text), 't', 'd', NULL)", (2, 0)),
        ("BEGIN; INSERT INTO app (tenant_id, id) VALUES ('t', '1'); ROLLBACK", (1, 0)),
    ],
)
def test_what_is_done_to_the_file(watched: Watched, tmp_path: Path, script: str, sent: tuple[int, int]) -> None:
    """What the log tells is a list, what it does not tell a snapshot, what changes nothing neither."""
    script = script.replace("{path}", str(watched.path))
    execute(tmp_path / "main.db" if "ATTACH" in script else watched.path, script)
    watched.after()
    assert sent == watched.sent
    values = "'1', 't', 'o', 'e'" + (", 'blue'" if "colour" in script else "")
    execute(watched.path, f"INSERT INTO data_scope VALUES ({values})")
    watched.after()
    assert shown_by(watched.listener) == built_from(watched.path)
    assert watched.sent == (sent[0], sent[1] + 1)


@pytest.mark.parametrize(
    "script",
    [
        "DROP TRIGGER axcollector_change_data_scope_insert",
        """DROP TRIGGER axcollector_change_data_scope_insert;
        CREATE TRIGGER axcollector_change_data_scope_insert AFTER INSERT ON data_scope BEGIN SELECT 1; END""",
        "CREATE UNIQUE INDEX one_name ON data_scope (scope, org, env)",
    ],
)
def test_a_log_that_was_tampered_with(watched: Watched, script: str) -> None:
    """Without a part of its log, or with what makes it tell less than all, the file is followed by snapshots."""
    execute(watched.path, script)
    watched.after()
    for count, scope in enumerate("bcd", 3):
        execute(watched.path, f"REPLACE INTO data_scope VALUES ('{scope}', 't', 'o', 'e')")
        assert scope in watched.after()
        assert shown_by(watched.listener) == built_from(watched.path)
        assert watched.sent == (count, 0)


def test_a_trigger_that_was_away_for_a_while(watched: Watched) -> None:
    """Tables or triggers that have changed are a snapshot, though the log has moved and is as it should be."""
    connection = sqlite3.connect(watched.path)
    name = "axcollector_change_data_scope_insert"
    (made,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    connection.close()
    insert = "INSERT INTO data_scope VALUES ('{}', 't', 'o', 'e');"
    execute(watched.path, f"DROP TRIGGER {name}; {insert.format('b')} {made}; {insert.format('c')}")
    assert watched.after() == {"a", "b", "c"}
    assert watched.sent == (2, 0)
    assert follows(watched)


def test_a_log_that_was_emptied(watched: Watched) -> None:
    """Its end is lost, so that is a snapshot, and what comes next too; then there is a log again."""
    execute(watched.path, "DELETE FROM axcollector_change")
    watched.after()
    assert watched.sent == (2, 0)
    add(watched.path, "b")
    assert watched.after() == {"a", "b"}
    assert watched.sent == (3, 0)
    assert follows(watched)


def test_a_log_that_was_dropped(watched: Watched) -> None:
    """The triggers that are left let nobody write; whoever opens the file to change it makes the log anew."""
    execute(watched.path, "DROP TABLE axcollector_change")
    with pytest.raises(sqlite3.OperationalError, match=r"no such table: main\.axcollector_change"):
        execute(watched.path, "DELETE FROM data_scope")
    assert watched.after() == {"a"}
    add(watched.path, "b")
    assert watched.after() == {"a", "b"}
    assert watched.sent[1] == 0
    assert follows(watched)


@pytest.mark.parametrize(
    "change",
    [
        "c = sqlite3.connect(sys.argv[1]); c.execute('DELETE FROM data_scope')",
        "c = sqlite3.connect(''); c.execute('ATTACH ? AS r', sys.argv[1:]); c.execute('DELETE FROM r.data_scope')",
    ],
)
def test_another_process(watched: Watched, change: str) -> None:
    """A change by another process is seen within two seconds, as a list."""
    program = f"import sqlite3, sys; {change}; c.commit()"
    subprocess.run([sys.executable, "-c", program, str(watched.path)], check=True)
    assert watched.after() == set()
    assert watched.sent == (1, 1)
    assert follows(watched)


KEY_TEXTS = {"tenant_id": ["t", "t", "t", "u"], "appcred_id": ["k", "k", "l"]}
"""As few as make rows meet."""


def keyed_rows_of(table: str) -> st.SearchStrategy[Row]:
    """Rows of a table whose keys are no nulls."""
    keys = {column: st.sampled_from(KEY_TEXTS.get(column, ["1", "1", "2", ""])) for column in KEYS[table]}
    return st.builds(lambda row, key: {**row[1], **key}, rows_of(table), st.fixed_dictionaries(keys))


@st.composite
def statements(draw: st.DrawFn) -> Statement:
    """A statement of any kind on any of the tables."""
    table = draw(st.sampled_from(list(COLUMNS)))
    row = draw(keyed_rows_of(table))
    name = short_name(table)
    column = draw(st.sampled_from(COLUMNS[table]))
    where = draw(st.sampled_from(["", f" WHERE {column} = ?"]))
    told = (row[column],) if where else ()
    conflict = draw(st.sampled_from(["OR REPLACE", "OR REPLACE", "OR ABORT"]))
    changed = draw(st.sampled_from([COLUMNS[table], KEYS[table], COLUMNS[table][-1:]]))
    rowid = draw(st.integers(1, 2))
    other = draw(keyed_rows_of(table))
    others = tuple(other[each] for each in changed)
    return draw(
        st.sampled_from(
            [
                (f"INSERT {conflict} INTO {name} ({', '.join(row)}) VALUES ({_marks(row)})", tuple(row.values())),
                (
                    f"INSERT {conflict} INTO {name} (rowid, {', '.join(row)}) VALUES (?, {_marks(row)})",
                    (rowid, *row.values()),
                ),
                (f"UPDATE {conflict} {name} SET {' = ?, '.join(changed)} = ?{where}", (*others, *told)),
                (f"UPDATE {conflict} {name} SET rowid = ?{where}", (rowid, *told)),
                (f"DELETE FROM {name}{where}", told),
            ]
        )
    )


def _marks(row: Any) -> str:
    return ", ".join("?" * len(row))


def execute_all(connection: sqlite3.Connection, edits: list[Statement]) -> None:
    """Execute them, whatever their outcome."""
    for statement, arguments in edits:
        with contextlib.suppress(sqlite3.IntegrityError):  # of that statement nothing is done
            connection.execute(statement, arguments)


some_statements = st.lists(statements(), min_size=1, max_size=10)


@settings(max_examples=either(50, 20))
@given(st.lists(some_statements, min_size=3, max_size=8))
def test_lists_alone(edits: list[list[Statement]]) -> None:
    """After a first snapshot lists alone keep the catalog equal to the file."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "registry.db"
        watched = Watched(path)
        other = sqlite3.connect(path, isolation_level=None)
        for each in edits:
            execute_all(other, each)
            watched.clock.advance(0.5)
            assert shown_by(watched.listener) == built_from(path)
        assert len(watched.listener.snapshots) == 1
        other.close()
        watched.stop()


class Edits(RuleBasedStateMachine):
    """Edits of all kinds by others, looks and rebuilds at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        self.path = Path(self.directory.name) / "registry.db"
        with Registry.create(str(self.path)):
            pass
        self.other = sqlite3.connect(self.path, isolation_level=None)
        self.worker = HeldThread()
        self.watched = Watched(self.path, worker=self.worker)
        self.rebuild()

    @rule(edits=some_statements)
    def edit(self, edits: list[Statement]) -> None:
        execute_all(self.other, edits)

    @rule(edits=some_statements, ending=st.sampled_from(["COMMIT", "ROLLBACK"]), is_seen=st.booleans())
    def edit_in_a_transaction(self, edits: list[Statement], ending: str, is_seen: bool) -> None:
        self.other.execute("BEGIN")
        execute_all(self.other, edits)
        if is_seen:
            self.look()
        self.other.execute(ending)

    @rule(edits=some_statements, count=st.sampled_from([1, 2, 3, MAX_CHANGED_ROWS + 1]))
    def edit_much(self, edits: list[Statement], count: int) -> None:
        self.other.execute("BEGIN")
        rows = (("t", str(number)) for number in range(count))
        self.other.executemany(f"INSERT OR IGNORE INTO {short_name(COMPANIES)} (tenant_id, id) VALUES (?, ?)", rows)
        execute_all(self.other, edits)
        self.other.execute("COMMIT")

    @rule(edits=some_statements)
    def edit_unlogged(self, edits: list[Statement]) -> None:
        registry = Registry(str(self.path), self.other)
        with registry._transaction("BEGIN IMMEDIATE"), registry.unlogged():
            execute_all(self.other, edits)

    @rule(edits=some_statements)
    def put_an_edited_copy_in_its_place(self, edits: list[Statement]) -> None:
        copy = self.path.with_name("copy.db")
        self.other.execute("VACUUM INTO ?", (str(copy),))
        self.other.close()
        self.other = sqlite3.connect(copy, isolation_level=None)
        execute_all(self.other, edits)
        self.other.close()
        os.replace(copy, self.path)
        self.look()
        self.other = sqlite3.connect(self.path, isolation_level=None)

    @rule()
    def look(self) -> None:
        is_idle = not self.worker.jobs
        self.watched.clock.advance(0.5)
        if is_idle and not self.worker.jobs:
            assert shown_by(self.watched.listener) == built_from(self.path)

    @rule()
    def rebuild(self) -> None:
        if self.worker.jobs:
            self.worker.step()

    def teardown(self) -> None:
        for _ in range(3):
            self.look()
            while self.worker.jobs:
                self.worker.step()
        assert shown_by(self.watched.listener) == built_from(self.path)
        self.watched.stop()
        self.other.close()
        self.directory.cleanup()


Edits.TestCase.settings = settings(max_examples=either(25, 10), stateful_step_count=15, deadline=None)
test_edits_by_others = Edits.TestCase
