"""The registry's change log: which rows any program has changed, written by triggers in the very transaction.

A file of our own has, besides its tables, the table `axcollector_change` and triggers that put the primary key of
every row inserted, updated or deleted there. Only keys are logged: whoever reads the log takes the rows as they are
now, so an entry too many does no harm, and replaying a stretch of the log twice neither. What triggers might miss:

* `INSERT OR REPLACE` and `UPDATE OR REPLACE` remove rows without firing delete triggers. The row removed has the key
  of the new one, which is logged, or its rowid, which is looked up before (`displaced`). Hence there may be no other
  unique index on the tables, and no other collation in their keys.
* A connection that has its triggers disabled, or writes blobs in place, is not logged. Where nothing else is logged
  at the same time, `PRAGMA data_version` tells that something happened; else nothing does.

Each entry has a random mark. So an entry is found again (`LogPosition`) only in a file that has been in the state
that the entry ended: in that file itself, or in a copy made since, whatever its name and inode. The log always has an
entry, and keeps the newest 10 000 by itself; nobody has to say that he has read it, and any number may read it.

A log is believed (`ChangeLog.is_exact`) only if its table, its triggers and the tables' keys are what is made here.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from axcollector.core.tables import KEYS, short_name

KEPT_ENTRIES: Final = 10_000
"""How many entries the log keeps at least, and, but for `_TRIMMED_EACH`, at most."""

MAX_CHANGED_ROWS: Final = 5_000
"""With more rows changed, a catalog is built anew: they would keep the reactor busy for several turns."""

_TRIMMED_EACH: Final = 100
"""Old entries are removed this many at a time, which is cheaper than one by one."""

_LOG: Final = "axcollector_change"
_COLUMNS: Final = ("key1", "key2", "key3", "key4")
_TABLE: Final = (
    f"CREATE TABLE {_LOG} (seq integer PRIMARY KEY AUTOINCREMENT, mark integer NOT NULL DEFAULT (random()),"
    f" name text NOT NULL, {', '.join(_COLUMNS)})"
)
_MARKER: Final = f"INSERT INTO {_LOG} (name) VALUES ('')"  # noqa: S608 - our own
"""An entry of no row: what came before it is not told by the log."""

_REPLACEMENT: Final = "\ufffd"
"""What stands in a text for bytes that are no UTF-8: several keys may look the same with it."""


@dataclass(frozen=True, slots=True)
class LogPosition:
    """An entry of the log, and so a state of the file.

    Attributes:
        seq: Its number.
        mark: Its random mark.
    """

    seq: int
    mark: object


@dataclass(frozen=True, slots=True)
class RowKey:
    """A row's name.

    Attributes:
        table: Its table's full name, such as `kms.app`.
        values: Its primary key, in the order of `KEYS`.
    """

    table: str
    values: tuple[str, ...]


class ChangeLog:
    """The change log of a connection's file, where it has one. Raises what `sqlite3` raises."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._is_exact = False
        self._schema_version: int | None = None

    def is_exact(self) -> bool:
        """Whether all that programs do to the tables is in the log: it is there, and as it is made here."""
        version = self.schema_version()
        if version != self._schema_version:
            self._is_exact = self._there() == _EXPECTED and self._has_plain_keys()
            self._schema_version = version
        return self._is_exact

    def schema_version(self) -> int:
        """A number that changes whenever a table or trigger does."""
        return int(self._ask("PRAGMA schema_version")[0][0])

    def is_partial(self) -> bool:
        """Whether parts of the log are missing, or all of it, while nothing else has their names."""
        there = self._there()
        return there != _EXPECTED and there.items() <= _EXPECTED.items()

    def begin(self) -> None:
        """Make the log, or those parts of it that are missing; within a transaction."""
        there = self._there()
        for name, statement in _EXPECTED.items():
            if name not in there:
                self._connection.execute(statement)
        self._connection.execute(_MARKER)

    def suspend(self) -> bool:
        """Log nothing more, and forget what was logged; within a transaction. Says whether there was a log."""
        if not self.is_exact():
            return False
        for trigger in _TRIGGERS:
            self._connection.execute(f"DROP TRIGGER {trigger}")
        self._connection.execute(f"DELETE FROM {_LOG}")  # noqa: S608 - our own
        return True

    def resume(self) -> None:
        """Log again, after `suspend`; within the same transaction. If that was rolled back, everything is as it was."""
        if self._connection.in_transaction:
            self.begin()

    def position(self) -> LogPosition | None:
        """Where the log ends; None where it cannot be believed."""
        if not self.is_exact():
            return None
        last = self._ask(f"SELECT seq, mark FROM {_LOG} ORDER BY seq DESC LIMIT 1")  # noqa: S608 - our own
        return LogPosition(*last[0]) if last else None

    def holds_all_since(self, position: LogPosition) -> bool:
        """Whether the file has been in that state, and all that was changed since is in the log."""
        if not self.is_exact():
            return False
        mark = self._ask(f"SELECT mark FROM {_LOG} WHERE seq = ?", position.seq)  # noqa: S608 - our own
        if mark != [(position.mark,)]:
            return False
        count, last = self._ask(f"SELECT count(*), max(seq) FROM {_LOG} WHERE seq >= ?", position.seq)[0]  # noqa: S608 - our own
        return bool(count == last - position.seq + 1)

    def keys_since(self, position: LogPosition) -> Sequence[RowKey] | None:
        """The rows that were changed since then, each once, by table in the order of `catalog.COLUMNS`.

        Returns:
            None where the log cannot tell: it has never been there, or has lost what came next; or too many.
        """
        if not self.holds_all_since(position):
            return None
        texts = ", ".join(f"CAST({column} AS text)" for column in _COLUMNS)
        question = f"SELECT DISTINCT name, {texts} FROM {_LOG} WHERE seq > ? LIMIT ?"  # noqa: S608 - our own
        found = self._ask(question, position.seq, MAX_CHANGED_ROWS + 1)
        keyed = [key for entry in found if (key := _key_of(entry)) is not None]
        if len(found) > MAX_CHANGED_ROWS or len(keyed) < len(found):
            return None
        return [key for _, key in sorted(keyed, key=lambda each: each[0])]

    def _there(self) -> dict[str, str]:
        """What has a name of ours, or hangs on the log, and the statement that made it."""
        question = f"SELECT name, sql FROM sqlite_master WHERE name GLOB '{_LOG}*' OR tbl_name = '{_LOG}'"  # noqa: S608 - our own
        return dict(self._ask(question))

    def _has_plain_keys(self) -> bool:
        """Whether rows are told apart by the texts of their keys, and by nothing else."""
        return self._ask("PRAGMA encoding") == [("UTF-8",)] and all(map(self._is_plain, KEYS))

    def _is_plain(self, table: str) -> bool:
        name = short_name(table)
        columns = self._ask(f"PRAGMA table_info({name})")
        key = sorted((row[5], row[1], row[2].lower()) for row in columns if row[5])
        if key != [(at, column, "text") for at, column in enumerate(KEYS[table], 1)]:
            return False
        unique = [row[1] for row in self._ask(f"PRAGMA index_list({name})") if row[2]]
        collations = {row[4] for index in unique for row in self._ask(f"PRAGMA index_xinfo({index})")}
        return len(unique) == 1 and collations == {"BINARY"}

    def _ask(self, question: str, *arguments: object) -> list[Any]:
        return self._connection.execute(question, arguments).fetchall()


def _triggers_of(table: str) -> Iterator[tuple[str, str]]:
    """The triggers of a table: names, and statements as SQLite keeps them."""
    name = short_name(table)
    key = KEYS[table]
    into = f"INSERT INTO {_LOG} (name, {', '.join(_COLUMNS[: len(key)])})"
    new, old = (", ".join(f"{row}.{column}" for column in key) for row in ("new", "old"))
    is_moved = " OR ".join(f"old.{column} IS NOT new.{column}" for column in key)
    displaced = f"{into} SELECT '{name}', {', '.join(key)} FROM {name} WHERE rowid = new.rowid"  # noqa: S608 - our own
    for kind, when, statements in (
        ("insert", "AFTER INSERT", f"{into} VALUES ('{name}', {new})"),
        ("delete", "AFTER DELETE", f"{into} VALUES ('{name}', {old})"),
        ("update", "AFTER UPDATE", f"{into} VALUES ('{name}', {new}); {into} SELECT '{name}', {old} WHERE {is_moved}"),
        ("insert_displaced", "BEFORE INSERT", displaced),
        ("update_displaced", "BEFORE UPDATE", f"{displaced} AND new.rowid <> old.rowid"),
    ):
        trigger = f"{_LOG}_{name}_{kind}"
        yield trigger, f"CREATE TRIGGER {trigger} {when} ON {name} BEGIN {statements}; END"


_TRIM: Final = f"""CREATE TRIGGER {_LOG}_trim AFTER INSERT ON {_LOG} WHEN new.seq % {_TRIMMED_EACH} = 0
    BEGIN DELETE FROM {_LOG} WHERE seq <= new.seq - {KEPT_ENTRIES}; END"""  # noqa: S608 - our own
_TRIGGERS: Final = dict(trigger for table in KEYS for trigger in _triggers_of(table)) | {f"{_LOG}_trim": _TRIM}
_EXPECTED: Final = {_LOG: _TABLE, **_TRIGGERS}
_BY_NAME: Final = {short_name(table): (at, table) for at, table in enumerate(KEYS)}


def _key_of(entry: tuple[str | None, ...]) -> tuple[int, RowKey] | None:
    """The row that an entry (name and key) is about, behind its table's place; None where that is unclear."""
    at, table = _BY_NAME.get(entry[0] or "", (0, None))
    if table is None:
        return None
    texts = tuple(text for text in entry[1 : 1 + len(KEYS[table])] if text is not None and _REPLACEMENT not in text)
    return (at, RowKey(table, texts)) if len(texts) == len(KEYS[table]) else None
