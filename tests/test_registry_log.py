"""The registry's change log: whatever program changes a row, in whatever way, its key is there, and with it the row."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from axcollector.core.errors import RegistryError
from axcollector.core.tables import (
    APPS,
    COLUMNS,
    COMPANIES,
    DEVELOPERS,
    KEYS,
    MAPPER,
    PRODUCTS,
    SCOPES,
    Row,
    short_name,
)
from axcollector.registry import Registry
from axcollector.registry_changes import ChangedRow, FollowedRegistry
from axcollector.registry_log import KEPT_ENTRIES, MAX_CHANGED_ROWS, LogPosition
from tests.test_registry import FOREIGN, execute


class Followed:
    """A registry of ours, a connection that follows it, and the library's on the same file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with Registry.create(str(path)) as registry:
            registry.add_scope("acme", "prod", "s", "t")
        self.file = FollowedRegistry.open(str(path))
        self.other = sqlite3.connect(path, isolation_level=None)
        self.position = self.now()

    def now(self) -> LogPosition:
        position = self.file.log_position()
        assert position is not None
        return position

    def changed(self) -> list[tuple[str, tuple[str | None, ...], bool]] | None:
        """What was changed since the last time, by table and key, and whether it is there."""
        with self.file.reading():
            changed = self.file.changed_since(self.position)
            self.position = self.now()
        if changed is None:
            return None
        for each in changed:
            assert each.row is None or each.key.items() <= each.row.items()
        return sorted((short_name(each.table), tuple(each.key.values()), each.row is not None) for each in changed)

    def close(self) -> None:
        self.file.close()
        self.other.close()


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[Followed]:
    """A followed registry."""
    followed = Followed(tmp_path / "registry.db")
    yield followed
    followed.close()


def insert(table: str, row: Row, verb: str = "INSERT") -> str:
    """A statement; texts here hold no quotes."""
    values = ", ".join("NULL" if value is None else f"'{value}'" for value in row.values())
    return f"{verb} INTO {short_name(table)} ({', '.join(row)}) VALUES ({values})"


@pytest.mark.parametrize("table", COLUMNS)
def test_every_table(followed: Followed, table: str) -> None:
    """A row inserted, updated, moved to another key or deleted is told once, as it is now."""
    row = dict.fromkeys(COLUMNS[table], "x")
    key = tuple(row[column] for column in KEYS[table])
    column = KEYS[table][-1]
    moved = (*key[:-1], "y")
    followed.other.execute(insert(table, row))
    named = dict(zip(KEYS[table], key, strict=True))
    assert followed.file.changed_since(followed.position) == [ChangedRow(table, named, row)]
    assert followed.changed() == [(short_name(table), key, True)]
    followed.other.execute(f"UPDATE {short_name(table)} SET {COLUMNS[table][-1]} = 'x' WHERE {column} = 'x'")
    assert followed.changed() == [(short_name(table), key, True)]
    followed.other.execute(f"UPDATE {short_name(table)} SET {column} = 'y' WHERE {column} = 'x'")
    assert followed.changed() == [(short_name(table), key, False), (short_name(table), moved, True)]
    followed.other.execute(f"DELETE FROM {short_name(table)} WHERE {column} = 'y'")
    assert followed.changed() == [(short_name(table), moved, False)]
    assert followed.changed() == []


def test_rows_replaced(followed: Followed) -> None:
    """What REPLACE removes without firing a delete trigger is told: by its key, which the new row has, or its rowid."""
    add = "INSERT INTO company (tenant_id, id, name) VALUES"
    followed.other.execute(f"{add} ('t', '1', 'a'), ('t', '2', 'b'), ('t', '3', 'c')")
    assert len(followed.changed() or []) == 3
    followed.other.execute("INSERT OR REPLACE INTO company (tenant_id, id, name) VALUES ('t', '1', 'd')")
    assert followed.changed() == [("company", ("t", "1"), True)]
    followed.other.execute("UPDATE OR REPLACE company SET id = '2' WHERE id = '1'")
    assert followed.changed() == [("company", ("t", "1"), False), ("company", ("t", "2"), True)]
    rowid = followed.other.execute("SELECT rowid FROM company WHERE id = '3'").fetchone()[0]
    followed.other.execute(f"REPLACE INTO company (rowid, tenant_id, id) VALUES ({rowid}, 't', '4')")
    assert followed.changed() == [("company", ("t", "3"), False), ("company", ("t", "4"), True)]
    followed.other.execute(f"UPDATE OR REPLACE company SET rowid = {rowid} WHERE id = '2'")
    assert followed.changed() == [("company", ("t", "2"), True), ("company", ("t", "4"), False)]
    followed.other.execute(f"{add} ('t', '2', 'e') ON CONFLICT DO UPDATE SET name = excluded.name, id = '5'")
    assert followed.changed() == [("company", ("t", "2"), False), ("company", ("t", "5"), True)]
    followed.other.execute("PRAGMA recursive_triggers = ON")
    followed.other.execute(f"REPLACE INTO company (rowid, tenant_id, id) VALUES ({rowid}, 't', '6')")
    assert followed.changed() == [("company", ("t", "5"), False), ("company", ("t", "6"), True)]


def test_all_rows_deleted(followed: Followed) -> None:
    """A DELETE of everything is told row by row."""
    followed.other.execute("DELETE FROM data_scope")
    assert followed.changed() == [("data_scope", ("s",), False)]


def test_rolled_back(followed: Followed) -> None:
    """What was rolled back is not told, nor what a statement that failed did."""
    followed.other.execute("BEGIN")
    followed.other.execute("DELETE FROM data_scope")
    followed.other.execute("ROLLBACK")
    with pytest.raises(sqlite3.IntegrityError):
        followed.other.execute("INSERT INTO data_scope (id) VALUES ('r'), ('s')")
    assert followed.changed() == []


def test_tables_come_in_order(followed: Followed) -> None:
    """Rows come by table in the order that catalogs are built in, whatever the order of the changes."""
    for table in (MAPPER, APPS, COMPANIES, DEVELOPERS, PRODUCTS, SCOPES):
        followed.other.execute(insert(table, dict.fromkeys(COLUMNS[table], "x")))
    changed = followed.file.changed_since(followed.position)
    assert changed is not None
    assert [each.table for each in changed] == list(COLUMNS)


def test_distrustful_programs(followed: Followed) -> None:
    """A program that does not trust the schema writes to the log like any other."""
    followed.other.execute("PRAGMA trusted_schema = OFF")
    followed.other.execute("DELETE FROM data_scope")
    assert followed.changed() == [("data_scope", ("s",), False)]


def test_the_log_is_kept_short(followed: Followed) -> None:
    """The log forgets its oldest entries by itself; who has not read them is told that it cannot tell."""
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT 't', i FROM n"
    followed.other.execute(f"INSERT INTO company (tenant_id, id) {numbers}", (MAX_CHANGED_ROWS,))
    assert len(followed.changed() or []) == MAX_CHANGED_ROWS
    followed.other.execute(f"INSERT INTO developer (tenant_id, id) {numbers}", (MAX_CHANGED_ROWS + 1,))
    assert followed.changed() is None
    before = followed.position
    followed.other.execute("UPDATE company SET name = 'x' WHERE id = '1'")
    assert len(followed.changed() or []) == 1
    followed.other.execute("UPDATE company SET name = 'x'")
    followed.other.execute("UPDATE developer SET email = 'x'")
    assert followed.file.changed_since(before) is None
    count = followed.other.execute("SELECT count(*) FROM axcollector_change").fetchone()[0]
    assert KEPT_ENTRIES <= count <= KEPT_ENTRIES + 100


def test_one_row_changed_often(followed: Followed) -> None:
    """Many changes of few rows are few rows, as long as the log holds them."""
    for _ in range(3):
        followed.other.execute("BEGIN")
        followed.other.executemany("UPDATE data_scope SET org = ?", [(str(n),) for n in range(3_000)])
        followed.other.execute("COMMIT")
        assert followed.changed() == [("data_scope", ("s",), True)]


def test_keys_that_are_no_plain_texts(followed: Followed) -> None:
    """Numbers are the texts that they are stored as; of blobs and texts that read the same one may be left."""
    add = "INSERT INTO company (tenant_id, id, name) VALUES"
    followed.other.execute(f"{add} (1, 2.50, 3), ('t', X'61', 'blob')")
    assert followed.changed() == [("company", ("1", "2.5"), True), ("company", ("t", "a"), True)]
    followed.other.execute(f"{add} ('t', 'a', 'text')")
    assert followed.changed() is None
    followed.other.execute("DELETE FROM company WHERE id = 'a'")
    assert followed.changed() == [("company", ("t", "a"), True)]
    followed.other.execute("DELETE FROM company WHERE id = X'61'")
    assert followed.changed() == [("company", ("t", "a"), False)]


@pytest.mark.parametrize("key", ["CAST(X'FF' AS text)", "X'FF'", "char(65533)"])
def test_keys_that_cannot_be_told_apart(followed: Followed, key: str) -> None:
    """A key that is no UTF-8 reads as another one may: only a snapshot tells what is left."""
    followed.other.execute(f"INSERT INTO company (tenant_id, id) VALUES ('t', {key})")
    assert followed.changed() is None
    followed.other.execute("INSERT INTO company (tenant_id, id, name) VALUES ('t', 'c', CAST(X'FF' AS text))")
    assert followed.changed() == [("company", ("t", "c"), True)]


def test_unusual_keys(followed: Followed) -> None:
    """Quotes, zero characters, empty and long texts are keys like any other."""
    keys = ['it\'s "so"', "a\0b", "", "ü€😀", "x" * 100_000]
    followed.other.executemany("INSERT INTO company (tenant_id, id) VALUES ('t', ?)", [(key,) for key in keys])
    assert followed.changed() == sorted(("company", ("t", key), True) for key in keys)


def test_one_moment(followed: Followed) -> None:
    """Data version, position and rows that are read in one transaction are of one moment, in whatever order."""
    file, other = followed.file, followed.other
    with file.reading():
        version = file.data_version()
        other.execute("DELETE FROM data_scope")
        assert followed.position == file.log_position()
        assert file.changed_since(followed.position) == []
        assert version == file.data_version()
    assert version != file.data_version()
    assert followed.changed() == [("data_scope", ("s",), False)]
    with file.reading():
        position = file.log_position()
        other.execute("INSERT INTO data_scope (id) VALUES ('r')")
        version = file.data_version()
        assert position == file.log_position()
    assert version != file.data_version()
    assert followed.changed() == [("data_scope", ("r",), True)]


@pytest.mark.parametrize(
    "script",
    [
        "DROP TABLE axcollector_change",
        "DROP TRIGGER axcollector_change_app_update",
        """DROP TRIGGER axcollector_change_app_delete;
        CREATE TRIGGER axcollector_change_app_delete AFTER DELETE ON app BEGIN SELECT 1; END""",
        "CREATE TRIGGER extra AFTER INSERT ON axcollector_change BEGIN DELETE FROM company; END",
        "CREATE UNIQUE INDEX one_name ON app (name)",
        "ALTER TABLE app RENAME COLUMN id TO number; ALTER TABLE app ADD COLUMN id text",
        "ALTER TABLE company RENAME TO firm",
        "DROP TABLE company",
        "DELETE FROM axcollector_change",
    ],
)
def test_logs_that_are_not_believed(followed: Followed, script: str) -> None:
    """A log that misses a part, or whose tables have other keys than it tells, is no log."""
    followed.other.executescript(script)
    assert followed.file.log_position() is None
    assert followed.file.changed_since(followed.position) is None


@pytest.mark.parametrize(
    "script",
    [
        "DELETE FROM axcollector_change WHERE seq = (SELECT max(seq) - 1 FROM axcollector_change)",
        "UPDATE axcollector_change SET mark = 0",
        "INSERT INTO axcollector_change (name, key1) VALUES ('data_scope', NULL)",
        "INSERT INTO axcollector_change (name, key1) VALUES ('unheard_of', '1')",
    ],
)
def test_entries_that_are_not_ours(followed: Followed, script: str) -> None:
    """A log in which something is missing, or stands that no trigger wrote, tells nothing about that time."""
    followed.other.execute("INSERT INTO data_scope (id) VALUES ('q'), ('r')")
    followed.other.execute(script)
    assert followed.changed() is None
    followed.other.execute("DELETE FROM data_scope WHERE id = 'q'")
    assert followed.changed() == [("data_scope", ("q",), False)]


@pytest.mark.parametrize(
    "script", ["ALTER TABLE app ADD COLUMN colour text", "CREATE INDEX names ON app (name)", "CREATE TABLE more (id)"]
)
def test_additions_do_no_harm(followed: Followed, script: str) -> None:
    """More columns, tables and indexes leave the log as good as it was."""
    version = followed.file.schema_version()
    followed.other.execute(script)
    assert version != followed.file.schema_version()
    followed.other.execute("INSERT INTO app (tenant_id, id) VALUES ('t', '1')")
    assert followed.changed() == [("app", ("t", "1"), True)]


@pytest.mark.parametrize(
    ("replaced", "by", "encoding", "is_exact"),
    [
        ("id text NOT NULL", "id text NOT NULL", "UTF-8", True),
        ("id text NOT NULL", "id text NOT NULL COLLATE NOCASE", "UTF-8", False),
        ("id text NOT NULL", "id integer NOT NULL", "UTF-8", False),
        ("id text NOT NULL", "id text NOT NULL", "UTF-16le", False),
    ],
)
def test_other_collations_and_encodings(
    followed: Followed, tmp_path: Path, replaced: str, by: str, encoding: str, is_exact: bool
) -> None:
    """A file whose keys are compared in another way, or kept in another encoding, is not followed by its log."""
    made = followed.other.execute("SELECT sql FROM sqlite_master WHERE sql NOT LIKE '%sqlite_sequence%'").fetchall()
    script = [f"PRAGMA encoding = '{encoding}'", *(sql.replace(replaced, by) for (sql,) in made)]
    path = tmp_path / "made.db"
    execute(path, ";".join([*script, "INSERT INTO axcollector_change (name) VALUES ('')"]))
    with FollowedRegistry.open(str(path)) as registry:
        assert is_exact is (registry.log_position() is not None)


def test_copies(followed: Followed, tmp_path: Path) -> None:
    """In a copy a position is found again as long as it is older than the copy; there it tells the copy's changes."""
    before = followed.position
    copy = sqlite3.connect(tmp_path / "copy.db", isolation_level=None)
    followed.other.backup(copy)
    followed.other.execute("INSERT INTO data_scope (id) VALUES ('r')")
    copy.execute("DELETE FROM data_scope")
    copy.execute("INSERT INTO data_scope (id) VALUES ('q')")
    after = followed.now()
    with FollowedRegistry.open(str(tmp_path / "copy.db")) as file:
        assert len(file.changed_since(before) or []) == 2
        assert file.changed_since(after) is None
    copy.close()


def test_bulk_changes(followed: Followed) -> None:
    """Changes within `unlogged` are not logged; positions from before are gone, and later changes are logged."""
    version = followed.file.schema_version()
    with Registry.open(str(followed.path)) as registry:
        with registry._transaction("BEGIN IMMEDIATE"), registry.unlogged():
            registry._change("INSERT INTO company (tenant_id, id) VALUES ('t', '1')")
        assert version != followed.file.schema_version()
        assert followed.changed() is None
        assert followed.changed() == []
        assert followed.other.execute("SELECT name FROM axcollector_change").fetchall() == [("",)]
        registry.remove_scope("s")
        assert followed.changed() == [("data_scope", ("s",), False)]


def test_bulk_changes_that_fail(followed: Followed) -> None:
    """Rolled back, a bulk change leaves the log as it was; caught within the transaction, it leaves a log."""

    def fail_as_a_full_disk_does() -> None:
        registry._ask("ROLLBACK")
        raise ZeroDivisionError

    with Registry.open(str(followed.path)) as registry:
        with pytest.raises(ZeroDivisionError), registry._transaction("BEGIN IMMEDIATE"), registry.unlogged():
            raise ZeroDivisionError
        assert followed.changed() == []
        with pytest.raises(ZeroDivisionError), registry._transaction("BEGIN IMMEDIATE"), registry.unlogged():
            fail_as_a_full_disk_does()
        assert followed.changed() == []
        problem = pytest.raises(NotADirectoryError)
        with registry._transaction("BEGIN IMMEDIATE"), problem, registry.unlogged():
            (followed.path / "nothing").read_bytes()
        assert followed.changed() is None
        registry.remove_scope("s")
        assert followed.changed() == [("data_scope", ("s",), False)]


def test_bulk_changes_of_foreign_files(tmp_path: Path) -> None:
    """Without a log `unlogged` changes nothing of the schema."""
    path = tmp_path / "foreign.db"
    execute(path, FOREIGN)
    with FollowedRegistry.open(str(path)) as registry:
        version = registry.schema_version()
        with registry._transaction("BEGIN IMMEDIATE"), registry.unlogged():
            registry._change("DELETE FROM data_scope")
        assert version == registry.schema_version()
        assert registry.log_position() is None


def without_log(path: Path) -> None:
    """Make it what it was before there were change logs."""
    connection = sqlite3.connect(path)
    triggers = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
    connection.executescript("".join(f"DROP TRIGGER {name};" for (name,) in triggers) + "DROP TABLE axcollector_change")
    connection.close()


def test_files_from_before(followed: Followed) -> None:
    """A file of ours without a log gets one when it is next opened to be changed, and is left alone when it is read."""
    without_log(followed.path)
    with FollowedRegistry.open(str(followed.path)) as registry:
        assert registry.log_position() is None
    with Registry.create(str(followed.path)):
        pass
    assert followed.changed() is None
    followed.other.execute("DELETE FROM data_scope")
    assert followed.changed() == [("data_scope", ("s",), False)]


@pytest.mark.parametrize(
    "script",
    [
        "ALTER TABLE app ADD COLUMN colour text",
        "CREATE TABLE axcollector_change (mine)",
        "CREATE TRIGGER axcollector_change_app_delete AFTER DELETE ON app BEGIN SELECT 1; END",
    ],
)
def test_files_that_get_no_log(followed: Followed, script: str) -> None:
    """A file that somebody has made his own, or in which a part of a log is left, gets none."""
    without_log(followed.path)
    followed.other.executescript(script)
    version = followed.file.schema_version()
    with Registry.create(str(followed.path)):
        pass
    assert version == followed.file.schema_version()


def test_errors_name_the_file(followed: Followed) -> None:
    """What the library raises names the file."""
    followed.file.close()
    for ask in (followed.file.schema_version, followed.file.log_position):
        with pytest.raises(RegistryError, match=r"registry\.db cannot be used"):
            ask()
    with pytest.raises(RegistryError, match=r"registry\.db cannot be used"):
        followed.file.changed_since(followed.position)
