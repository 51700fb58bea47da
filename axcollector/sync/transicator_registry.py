"""A registry file that is kept by the transicator source: the registry's tables, and how far they have got. Blocking.

Besides the tables of every registry it has one of ours, `axcollector_sync`, that holds a `SyncState`. Rows and state
change in one transaction, so that after a crash they are of one moment. A file is whole from the moment on that it
has its name; it is made as a draft before.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, Self
from urllib.parse import quote

from axcollector.core.errors import RegistryError, SyncFailed
from axcollector.core.tables import COLUMNS, KEYS, SCOPES, Row, short_name
from axcollector.registry_file import RegistryFile, errors_of
from axcollector.sync.events import Change, Operation
from axcollector.sync.transicator_protocol import (
    ROW_COLUMNS,
    LogSequence,
    Page,
    RowChange,
    RowEffect,
    Unusable,
    effect_of,
    flat_name,
    scopes_of,
)

STATE_TABLE: Final = "axcollector_sync"
_ROWS_AT_A_TIME: Final = 1000
_STEPS_BETWEEN_LOOKS: Final = 100_000
"""SQLite's steps between two looks at whether a draft is still wanted: a few milliseconds."""


@dataclass(frozen=True, slots=True)
class SyncState:
    """How far a registry file has got.

    Attributes:
        generation: Grows with each file: of several the one with the highest counts.
        cluster_id: Whose rows it has.
        version: The snapshot that it was made of.
        sequence: All that the change server told up to here is in it.
        scopes: The scopes that the snapshot was asked for, as `scopes_of` gives them.
        tables: The tables that the snapshot had, by their flat names.
        due: Why only another snapshot can tell how things stand, or "".
    """

    generation: int
    cluster_id: str
    version: str
    sequence: LogSequence
    scopes: tuple[str, ...]
    tables: frozenset[str]
    due: str = ""

    def to_text(self) -> str:
        """As it stands in the file."""
        return json.dumps(
            {
                "generation": self.generation,
                "cluster_id": self.cluster_id,
                "version": self.version,
                "sequence": str(self.sequence),
                "scopes": self.scopes,
                "tables": sorted(self.tables),
                "due": self.due,
            }
        )

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read `to_text`; raises this or that, or `SyncFailed`, where it is none."""
        found = json.loads(text)
        return cls(
            generation=int(found["generation"]),
            cluster_id=found["cluster_id"],
            version=found["version"],
            sequence=LogSequence.parse(found["sequence"]),
            scopes=tuple(found["scopes"]),
            tables=frozenset(found["tables"]),
            due=found["due"],
        )


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of an answer of the change server.

    Attributes:
        state: How far the file has got with it.
        changes: What has changed in it, as the listener takes it.
    """

    state: SyncState
    changes: tuple[Change, ...]


class SyncedRegistry(RegistryFile):
    """One connection to such a file. Every method may raise `RegistryError`, which names the file."""

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        super().__init__(path, connection)
        self._is_given_up: Callable[[], bool] = lambda: False

    @classmethod
    def draft(cls, path: str, is_given_up: Callable[[], bool] = lambda: False) -> Self:
        """A new file, without a state, to be filled; what a crash leaves of it is of no use.

        Args:
            path: Where.
            is_given_up: Asked now and then whether nobody wants it any more; then filling it raises.
        """
        registry = cls.create(path)
        try:
            registry._prepare(is_given_up)  # noqa: SLF001 - our own
        except BaseException:
            registry.close()
            raise
        return registry

    def _prepare(self, is_given_up: Callable[[], bool]) -> None:
        for column in ROW_COLUMNS[SCOPES]:
            if column not in COLUMNS[SCOPES]:
                self._ask(f"ALTER TABLE {short_name(SCOPES)} ADD COLUMN {column} text")
        self._ask(f"CREATE TABLE {STATE_TABLE} (state text)")
        # Nobody watches this file: what might be there to tell of its changes would only cost time.
        for (trigger,) in self._ask("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
            self._ask(f"DROP TRIGGER {trigger}")
        for setting in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -65536"):
            self._ask(f"PRAGMA {setting}")
        self._is_given_up = is_given_up
        self._connection.set_progress_handler(is_given_up, _STEPS_BETWEEN_LOOKS)
        self._ask("BEGIN")

    def finish(self, state: SyncState) -> None:
        """Make a draft a whole file, all of it in that one file, and close it."""
        self.write_state(state)
        self._ask("COMMIT")
        self._ask("PRAGMA journal_mode = WAL")
        self.checkpoint()
        self.close()

    def put_rows(self, table: str, rows: Iterable[Row]) -> None:
        """Insert rows of a table of ours, or replace those of the same key."""
        columns = ROW_COLUMNS[table]
        texts = (tuple(row.get(column) for column in columns) for row in rows if _has_key(table, row))
        statement = _upsert(table)
        while batch := list(islice(texts, _ROWS_AT_A_TIME)):
            if self._is_given_up():
                raise RegistryError(f"the registry {self.path} is not filled any further")
            self._change_many(statement, batch)

    def copy_from(self, path: str, tables: Sequence[str]) -> None:
        """Insert all rows of tables of ours from the SQLite file that lies there, in which they have flat names."""
        self._ask("COMMIT")
        self._ask("PRAGMA trusted_schema = OFF")
        # Nobody else has it, and there is no log beside it, though its header speaks of one.
        self._ask("ATTACH ? AS snapshot", f"file:{quote(os.fsencode(os.path.abspath(path)))}?mode=ro&immutable=1")
        self._ask("BEGIN")
        for table in tables:
            name = flat_name(table)
            there = {row[1] for row in self._ask(f"PRAGMA snapshot.table_info({name})")}
            columns = ", ".join(
                f"CAST({column} AS text)" if column in there else "NULL" for column in ROW_COLUMNS[table]
            )
            where = " AND ".join(f"coalesce({column}, '') <> ''" for column in KEYS[table])
            into = f"INSERT OR REPLACE INTO {short_name(table)} ({', '.join(ROW_COLUMNS[table])})"
            self._ask(f"{into} SELECT {columns} FROM snapshot.{name} WHERE {where}")  # noqa: S608 - our own names
        self._ask("COMMIT")
        self._ask("DETACH snapshot")
        self._ask("BEGIN")

    def state(self) -> SyncState | None:
        """How far it has got; None where the file is none of the transicator source."""
        if not self._ask("SELECT 1 FROM sqlite_master WHERE name = ?", STATE_TABLE):
            return None
        rows = self._ask(f"SELECT state FROM {STATE_TABLE}")  # noqa: S608 - our own
        try:
            return SyncState.from_text(rows[0][0])
        except (ValueError, LookupError, TypeError, AttributeError, SyncFailed) as exc:
            raise RegistryError(f"the registry {self.path} cannot be used: its state is damaged") from exc

    def is_sound(self) -> bool:
        """Whether SQLite finds all of the file in order; reads all of it."""
        return bool(self._ask("PRAGMA integrity_check(1)") == [("ok",)])

    def write_state(self, state: SyncState) -> None:
        """Note how far it has got; the caller has a transaction open, or wants one for this alone."""
        self._ask(f"DELETE FROM {STATE_TABLE}")  # noqa: S608 - our own
        self._ask(f"INSERT INTO {STATE_TABLE} VALUES (?)", state.to_text())  # noqa: S608 - our own

    def scopes(self, cluster_id: str) -> tuple[str, ...]:
        """The scopes that its rows name, as `scopes_of` gives them."""
        columns = ROW_COLUMNS[SCOPES]
        rows = self._ask(f"SELECT {', '.join(columns)} FROM {short_name(SCOPES)}")  # noqa: S608 - our own
        return scopes_of((dict(zip(columns, row, strict=True)) for row in rows), cluster_id)

    def apply(self, page: Page) -> Applied:
        """Apply the changes of a page that is newer, in one transaction with the state.

        The state that comes of it is `due` where a change cannot be applied, where the snapshot had no such table, or
        where the scopes are not those any more that the snapshot was asked for.
        """
        with self._transaction("BEGIN IMMEDIATE"):
            state = self.state()
            if state is None:
                raise RegistryError(f"the registry {self.path} cannot be used: its state is missing")
            changes: list[Change] = []
            due = state.due
            for change in page.changes:
                if flat_name(change.table) not in state.tables:
                    due = due or f"table {change.table[:100]} was not in it"
                elif change.table in ROW_COLUMNS:
                    try:
                        changes += self._carry_out(change, state.scopes)
                    except Unusable as exc:
                        due = due or f"a change of {change.table} cannot be applied: {exc}"
            if not due and self.scopes(state.cluster_id) != state.scopes:
                due = "the scopes have changed"
            state = replace(state, sequence=page.last, due=due)
            self.write_state(state)
        return Applied(state, tuple(changes))

    def _carry_out(self, change: RowChange, scopes: Sequence[str]) -> Iterable[Change]:
        table = change.table
        effect = effect_of(change, scopes, lambda key: self._stored(table, key))
        if effect.removed is not None:
            where = " AND ".join(f"{column} = ?" for column in KEYS[table])
            keys = (effect.removed[column] for column in KEYS[table])
            self._change(f"DELETE FROM {short_name(table)} WHERE {where}", *keys)  # noqa: S608 - our own
        if effect.put is not None:
            self._change(_upsert(table), *(effect.put[column] for column in ROW_COLUMNS[table]))
        return _as_changes(table, effect)

    def _change_many(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        with errors_of(self.path):
            self._connection.executemany(statement, rows)

    def _stored(self, table: str, key: Row) -> Row | None:
        columns = ROW_COLUMNS[table]
        where = " AND ".join(f"{column} = ?" for column in KEYS[table])
        question = f"SELECT {', '.join(columns)} FROM {short_name(table)} WHERE {where}"  # noqa: S608 - our own
        rows = self._ask(question, *(key[column] for column in KEYS[table]))
        return dict(zip(columns, rows[0], strict=True)) if rows else None


def _as_changes(table: str, effect: RowEffect) -> Iterable[Change]:
    if effect.put is None:
        return [Change(Operation.DELETE, table, None, effect.removed)]
    row = {column: effect.put[column] for column in COLUMNS[table]}
    return [Change(Operation.UPDATE, table, row, effect.removed)]


def _has_key(table: str, row: Row) -> bool:
    return all(row.get(column) for column in KEYS[table])


def _upsert(table: str) -> str:
    columns = ROW_COLUMNS[table]
    marks = ", ".join("?" * len(columns))
    return f"INSERT OR REPLACE INTO {short_name(table)} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608 - our own
