"""The registry's file: one SQLite connection, its tables wherever they come from, its errors. Blocking.

A connection belongs to the thread that opened it. A file of our own has all tables, mode 0600, a write-ahead log, and
a change log (`axcollector.registry_log`). A foreign one may have more tables and columns, may lack all but
`data_scope` and the columns of keys, and need not have such logs: it is read as it is. Names are matched as SQLite
does, whatever their case.

Nobody should put another file in this one's place while the write-ahead log beside it holds something: whoever
opens the new file would read the old one's log into it. `checkpoint` empties that log, and whoever has had the old
file open calls `remove_wal_of_the_replaced` before he opens the new one.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from typing import Final, Self

from axcollector.core.errors import RegistryError
from axcollector.core.tables import COLUMNS, MAPPER, SCOPES, Row, Values, short_name
from axcollector.registry_log import ChangeLog
from axcollector.sqlite_file import BUSY_TIMEOUT_SECONDS, SqliteFile, connect, errors_as, make_file

_REQUIRED: Final = {SCOPES: COLUMNS[SCOPES], MAPPER: ("tenant_id", "appcred_id", "app_id", "apiprdt_id")}
"""The columns without which a table makes no sense; of the other tables, `tenant_id` and `id`."""

_TABLES: Final = (
    "data_scope (id text NOT NULL, scope text, org text, env text, PRIMARY KEY (id))",
    """app_credential_apiproduct_mapper (tenant_id text NOT NULL, appcred_id text NOT NULL, app_id text NOT NULL,
        apiprdt_id text NOT NULL, status text, PRIMARY KEY (tenant_id, appcred_id, app_id, apiprdt_id))""",
    """app (id text NOT NULL, tenant_id text NOT NULL, name text, developer_id text, company_id text,
        PRIMARY KEY (tenant_id, id))""",
    "api_product (id text NOT NULL, tenant_id text NOT NULL, name text, PRIMARY KEY (tenant_id, id))",
    "developer (id text NOT NULL, tenant_id text NOT NULL, username text, email text, PRIMARY KEY (tenant_id, id))",
    "company (id text NOT NULL, tenant_id text NOT NULL, name text, PRIMARY KEY (tenant_id, id))",
)


class RegistryFile(SqliteFile):
    """One connection to a registry file. Every method may raise `RegistryError`, which names the file.

    Attributes:
        path: The file.
    """

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        """Take over a connection; `open` and `create` make one."""
        super().__init__(path, connection)
        self._log = ChangeLog(connection)
        self._sources: dict[str, str] = {}
        self._schema_version: object = None

    @classmethod
    def open(cls, path: str, busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS) -> Self:
        """Open a file that is there.

        Raises:
            RegistryError: It is not there, cannot be read, or is no registry.
        """
        return cls(path, _connect(path, busy_timeout_seconds))._checked()  # noqa: SLF001 - our own

    @classmethod
    def create(cls, path: str) -> Self:
        """Open a file, made before (mode 0600, its directory 0700) if it is missing; an empty one gets its tables.

        One of our own that has no change log, since it is from before there were any, gets it.
        """
        with errors_of(path):
            make_file(path)
        registry = cls(path, _connect(path, BUSY_TIMEOUT_SECONDS))
        try:
            registry._make_tables(_TABLES)
            registry.begin_log()
        except BaseException:
            registry.close()
            raise
        return registry._checked()

    def rows(self, table: str) -> Iterator[Row]:
        """The rows of a table (`kms.app`), with the columns of `tables.COLUMNS`; none where there is no such table."""
        for values in self.values(table):
            yield dict(zip(COLUMNS[table], values, strict=True))

    def values(self, table: str) -> Iterator[Values]:
        """The same, each row as the values of those columns, in their order."""
        texts = ", ".join(f"CAST({column} AS text)" for column in COLUMNS[table])
        with errors_of(self.path):
            yield from self._connection.execute(f"SELECT {texts} FROM {self._source(table)}")  # noqa: S608 - ours

    def begin_log(self) -> None:
        """Give a file of our own that has no change log, or lost a part of it, its log; others are left as they are."""
        if self._lacks_log():
            with self._transaction("BEGIN IMMEDIATE"):
                if self._lacks_log():
                    with errors_of(self.path):
                        self._log.begin()

    @contextlib.contextmanager
    def unlogged(self) -> Iterator[None]:
        """Within an open write transaction: many changes, at the cost that they would have without a change log.

        Triggers and log entries are removed at the beginning, and triggers made anew at the end, in the same
        transaction; whoever watches the file takes a snapshot. Without a change log of ours it does nothing.
        """
        with errors_of(self.path):
            was_logging = self._log.suspend()
        try:
            yield
        finally:
            if was_logging:
                with errors_of(self.path):
                    self._log.resume()

    def _lacks_log(self) -> bool:
        """Whether all our tables are as we make them, and the change log is not there, or not all of it."""
        there = {sql for (sql,) in self._ask("SELECT sql FROM sqlite_master WHERE type = 'table'")}
        with errors_of(self.path):
            return there >= {f"CREATE TABLE {table}" for table in _TABLES} and self._log.is_partial()

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        return errors_of(self.path)

    def _source(self, table: str) -> str:
        """What stands for a table in `FROM`: it has all our columns, as texts, null where the file lacks them."""
        version = self._ask("PRAGMA schema_version")
        if version != self._schema_version:
            self._sources = {}
            self._schema_version = version
        if table not in self._sources:
            self._sources[table] = self._describe(table)
        return self._sources[table]

    def _describe(self, table: str) -> str:
        name = short_name(table)
        there = {row[1].lower(): _text_of(row[1], row[2]) for row in self._ask(f"PRAGMA table_xinfo({name})")}
        missing = [column for column in _REQUIRED.get(table, ("tenant_id", "id")) if column not in there]
        if missing and (there or table == SCOPES):
            what = f"its table {name} has no column {missing[0]}" if there else f"it has no table {name}"
            raise RegistryError(f"{self.path} is no registry: {what}")
        columns = ", ".join(f"{there.get(column, 'NULL')} AS {column}" for column in COLUMNS[table])
        return f"(SELECT {columns} FROM {name})" if there else f"(SELECT {columns} WHERE 0)"  # noqa: S608 - our own

    def _checked(self) -> Self:
        """Itself, if it is a registry; else it is closed."""
        try:
            for table in COLUMNS:
                self._source(table)
        except RegistryError:
            self.close()
            raise
        return self


def _text_of(column: str, declared: str) -> str:
    """A column's values as the texts that they are read as; one that is declared as text is left to its index."""
    is_text = "INT" not in declared.upper() and any(kind in declared.upper() for kind in ("CHAR", "CLOB", "TEXT"))
    return column if is_text else f"CAST({column} AS text)"


def errors_of(path: str) -> contextlib.AbstractContextManager[None]:
    """What the library and the system raise becomes a `RegistryError` that names the file."""
    return errors_as(RegistryError, f"the registry {path}")


def remove_wal_of_the_replaced(path: str) -> None:
    """Remove the write-ahead log, if it was last written before the file came here, so not for this file.

    Only for who knows that another file lay here before: while a file stays, its own log may well be the older one.
    Who still has the old file open goes on with it.
    """
    with errors_of(path), contextlib.suppress(FileNotFoundError):
        wal = os.stat(path + "-wal")
        if wal.st_size and wal.st_mtime_ns <= os.stat(path).st_ctime_ns:
            os.unlink(path + "-wal")
            os.unlink(path + "-shm")


def _connect(path: str, busy_timeout_seconds: float) -> sqlite3.Connection:
    with errors_of(path):
        if not os.path.exists(path):
            raise RegistryError(f"the registry {path} does not exist")
        return connect(path, busy_timeout_seconds)
