"""Many rows at once: the registry's file filled, or read whole in the order of the text. Blocking.

All rows of an import come in one transaction, which ends in the file as a whole or not at all, and durably. Where there
are more than a few, they are not logged one by one for those who watch the registry: these read it anew.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from axcollector.core.errors import RegistryError
from axcollector.core.tables import COLUMNS, KEYS, Values, short_name
from axcollector.registry_file import RegistryFile, errors_of
from axcollector.registry_log import MAX_CHANGED_ROWS

_FETCHED_ROWS: Final = 2000
_CACHE_KIBIBYTES: Final = 262_144
"""Rows come in any order, and an index is quick in that only while its pages are in memory."""


@dataclass(frozen=True, slots=True)
class _Upsert:
    """How the rows of a table are put into this file.

    Attributes:
        statement: Inserts a row, or brings the one with its primary key to its values.
        columns: The columns of ours that the file has: those that the statement takes.
    """

    statement: str
    columns: tuple[str, ...]


class BulkRegistry(RegistryFile):
    """A registry of which much is read or written at a time. Every method may raise `RegistryError`."""

    @contextlib.contextmanager
    def loading(self, *, replace: bool = False) -> Iterator["Loading"]:
        """A transaction that takes rows, and ends when the context does; with an exception, nothing was changed.

        Args:
            replace: Whether to empty all tables first.
        """
        self._ask(f"PRAGMA cache_size = -{_CACHE_KIBIBYTES}")
        upserts = {table: upsert for table in COLUMNS if (upsert := self._upsert(table))}
        with self._transaction("BEGIN IMMEDIATE"), contextlib.ExitStack() as unlogged:
            loading = Loading(self, upserts, unlogged)
            if replace:
                loading.stop_logging()
                for table in upserts:
                    self._ask(f"DELETE FROM {short_name(table)}")  # noqa: S608 - our own
            yield loading

    def put_rows(self, table: str, statement: str, rows: Sequence[Values]) -> None:
        """Execute an upsert once for each row."""
        with errors_of(self.path):
            try:
                self._connection.executemany(statement, rows)
            except sqlite3.OperationalError as exc:
                if "ON CONFLICT" not in str(exc):
                    raise
                what = f"its table {short_name(table)} has no primary key of {' and '.join(KEYS[table])}"
                raise RegistryError(f"{self.path} was not changed: {what}") from exc

    def counts(self) -> Mapping[str, int]:
        """How many rows each table has."""
        return {table: self._ask(f"SELECT count(*) FROM {self._source(table)}")[0][0] for table in COLUMNS}  # noqa: S608 - our own

    def ordered(self, table: str) -> Iterator[Sequence[Values]]:
        """The rows of a table, by primary key, some at a time."""
        texts = ", ".join(f"CAST({column} AS text)" for column in COLUMNS[table])
        order = ", ".join(f"{column} COLLATE BINARY" for column in COLUMNS[table])
        self._ask(f"PRAGMA cache_size = -{_CACHE_KIBIBYTES}")
        with errors_of(self.path):
            question = f"SELECT {texts} FROM {self._source(table)} ORDER BY {order}"  # noqa: S608 - our own
            cursor = self._connection.execute(question)
            while rows := cursor.fetchmany(_FETCHED_ROWS):
                yield rows

    def _upsert(self, table: str) -> _Upsert | None:
        """None where the file has no such table. A row that is there with the same values is left alone."""
        name, key = short_name(table), KEYS[table]
        there = {row[1].lower() for row in self._ask(f"PRAGMA table_info({name})")}
        columns = tuple(column for column in COLUMNS[table] if column in there)
        if not columns:
            return None
        others = [column for column in columns if column not in key]
        pairs = ", ".join(f"{column} = excluded.{column}" for column in others)
        differs = " OR ".join(f"excluded.{column} IS NOT {name}.{column}" for column in others)
        statement = (
            f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608 - ours
            f" ON CONFLICT ({', '.join(key)}) DO {f'UPDATE SET {pairs} WHERE {differs}' if others else 'NOTHING'}"
        )
        return _Upsert(statement, columns)


class Loading:
    """Takes rows, within a transaction.

    Attributes:
        counts: How many rows of each table it has been given.
    """

    def __init__(self, registry: BulkRegistry, upserts: Mapping[str, _Upsert], unlogged: contextlib.ExitStack) -> None:
        self._registry = registry
        self._upserts = upserts
        self._unlogged = unlogged
        self._is_logging = True
        self.counts = dict.fromkeys(COLUMNS, 0)

    def put(self, table: str, rows: Sequence[Values]) -> None:
        """Insert rows, or replace those with their primary keys.

        Raises:
            RegistryError: The file has no such table, or lacks a column that a row has.
        """
        if sum(self.counts.values()) + len(rows) > MAX_CHANGED_ROWS:
            self.stop_logging()
        upsert = self._upserts.get(table)
        if upsert is None:
            raise RegistryError(f"{self._registry.path} was not changed: it has no table {short_name(table)}")
        if len(upsert.columns) < len(COLUMNS[table]):
            rows = [self._projected(table, row, upsert.columns) for row in rows]
        self._registry.put_rows(table, upsert.statement, rows)
        self.counts[table] += len(rows)

    def stop_logging(self) -> None:
        """What changes from now on is not logged row by row: reading all anew is less work for everybody."""
        if self._is_logging:
            self._is_logging = False
            self._unlogged.enter_context(self._registry.unlogged())

    def _projected(self, table: str, row: Values, columns: Sequence[str]) -> Values:
        """A row without the columns that the file lacks, in which it must have nothing."""
        named = dict(zip(COLUMNS[table], row, strict=True))
        lost = next((column for column, value in named.items() if value is not None and column not in columns), None)
        if lost is not None:
            what = f"its table {short_name(table)} has no column {lost}, which a row has"
            raise RegistryError(f"{self._registry.path} was not changed: {what}")
        return tuple(named[column] for column in columns)
