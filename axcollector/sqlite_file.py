"""A SQLite file of ours: one connection to it, how it is made, and its errors as ours. Blocking.

A connection belongs to the thread that opened it. What a kind of file holds, and which error names it, is its
subclass's.
"""

import contextlib
import functools
import os
import sqlite3
from collections.abc import Iterator
from typing import Any, Final, Self
from urllib.parse import quote

from axcollector.core.errors import AxcollectorError
from axcollector.disk import make_private_directory, open_private

BUSY_TIMEOUT_SECONDS: Final = 5.0
"""How long a question waits while another process writes."""


class SqliteFile:
    """One connection to a file. Every method may raise the error of its kind, which names the file.

    Attributes:
        path: The file.
    """

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        """Take over a connection."""
        self.path = path
        self._connection = connection

    def close(self) -> None:
        """Close it; nothing may be asked afterwards."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """What is read in this context is all of one moment."""
        with self._transaction("BEGIN"):
            yield

    def data_version(self) -> int:
        """A number that is another than before where another connection has committed in between."""
        return int(self._ask("PRAGMA data_version")[0][0])

    def checkpoint(self) -> None:
        """Bring the write-ahead log, where there is one, into the file; not while somebody is in the way."""
        with contextlib.suppress(sqlite3.OperationalError):
            milliseconds = self._connection.execute("PRAGMA busy_timeout").fetchone()[0]
            self._connection.execute("PRAGMA busy_timeout = 0")
            try:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                self._connection.execute(f"PRAGMA busy_timeout = {int(milliseconds)}")

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        """What turns the library's errors into those of this kind of file."""
        raise NotImplementedError

    def _ask(self, question: str, *arguments: object) -> list[Any]:
        with self._errors():
            return self._connection.execute(question, arguments).fetchall()

    def _change(self, statement: str, *arguments: object) -> int:
        """Execute a statement and say how many rows it changed."""
        with self._errors():
            return self._connection.execute(statement, arguments).rowcount

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        self._ask(begin)
        try:
            yield
            self._ask("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._connection.rollback()
            raise

    def _make_tables(self, tables: tuple[str, ...]) -> None:
        """Give a file that holds nothing these tables, and a write-ahead log; leave any other as it is."""
        with self._errors():
            is_new = os.path.getsize(self.path) == 0
        if is_new:
            self._ask("PRAGMA journal_mode = WAL")
        with self._transaction("BEGIN IMMEDIATE"):
            if not self._ask("SELECT 1 FROM sqlite_master LIMIT 1"):
                for table in tables:
                    self._ask(f"CREATE TABLE {table}")


@contextlib.contextmanager
def errors_as(error: type[AxcollectorError], file: str) -> Iterator[None]:
    """What the library and the system raise becomes such an error, which names the file ("the registry r.db")."""
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning, OSError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        if reason == "database is locked":
            reason += "; somebody else is changing it, so try again"
        raise error(f"{file} cannot be used: {reason}") from exc
    except UnicodeError as exc:
        raise error(f"{file} cannot hold a text that is not UTF-8") from exc


def connect(path: str, busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS) -> sqlite3.Connection:
    """A connection to a file that is there; raises what the library does."""
    name = f"file:{quote(os.path.abspath(os.fsencode(path)))}?mode=rw"
    # Whoever asks it asks one thing at a time, but not always in the same thread (see `threads`).
    connection = sqlite3.connect(
        name, uri=True, isolation_level=None, timeout=busy_timeout_seconds, check_same_thread=False
    )
    # One text that is no UTF-8 may not keep all other rows from being read.
    connection.text_factory = functools.partial(str, encoding="utf-8", errors="replace")
    return connection


def make_file(path: str) -> None:
    """Make an empty file, mode 0600, and its directory, 0700, where they are missing; raises `OSError`."""
    directory = os.path.dirname(os.path.abspath(path))
    missing = []
    while not os.path.isdir(directory):
        missing.append(directory)
        directory = os.path.dirname(directory)
    for below in reversed(missing):
        make_private_directory(below)
    with contextlib.suppress(FileExistsError):
        os.close(open_private(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC))
