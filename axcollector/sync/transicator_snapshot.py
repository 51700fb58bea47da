"""From a downloaded snapshot, in either of its formats, to a draft of a registry file. Blocking.

A SQLite snapshot is copied table by table by SQLite itself, a JSON snapshot row by row; neither is ever in memory.
Which of the two it is its first bytes tell.
"""

import base64
import binascii
import hashlib
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import groupby, islice
from typing import BinaryIO, Final, TypeVar
from urllib.parse import quote

from axcollector.core.errors import RegistryError, SyncFailed
from axcollector.core.tables import COLUMNS, SCOPES
from axcollector.courtesy import Haste
from axcollector.disk import Disk, read_slices
from axcollector.sync.rebuilding import ROWS_A_PIECE, Pace
from axcollector.sync.transicator_json import JsonSnapshot
from axcollector.sync.transicator_protocol import flat_name
from axcollector.sync.transicator_registry import SyncedRegistry

T = TypeVar("T")

_SQLITE: Final = b"SQLite format 3\0"
_ETAG: Final = re.compile(r'(?:W/)?"?([0-9A-Za-z+/=_-]+)"?')


@dataclass(frozen=True, slots=True)
class Download:
    """A snapshot that was downloaded.

    Attributes:
        path: Where it lies.
        etag: Its `ETag`, or "".
        txid: Its version as the header `Transicator-Snapshot-TXID` tells it, or "".
    """

    path: str
    etag: str
    txid: str


@dataclass(frozen=True, slots=True)
class Filled:
    """What a draft was made of.

    Attributes:
        version: The snapshot's version.
        tables: The flat names of its tables.
    """

    version: str
    tables: frozenset[str]


def fill(draft: SyncedRegistry, download: Download, disk: Disk) -> Filled:
    """Put the rows of a snapshot into a draft.

    Raises:
        SyncFailed: It is no snapshot, or not all of one.
        OSError: It cannot be read.
    """
    with disk.open(download.path) as file:
        is_sqlite = file.read(len(_SQLITE)) == _SQLITE
        file.seek(0)
        try:
            filled = _from_sqlite(draft, download, file) if is_sqlite else _from_json(draft, file)
        except (RegistryError, sqlite3.Error) as exc:
            message = f"the snapshot cannot be used: {exc}"
            raise SyncFailed(message) from exc
    if not (filled.version.isascii() and filled.version.isprintable() and filled.version):  # it goes into URLs
        raise SyncFailed("the snapshot has no usable version")
    if flat_name(SCOPES) not in filled.tables:
        message = f"the snapshot has no table {SCOPES}"
        raise SyncFailed(message)
    return filled


def _from_json(draft: SyncedRegistry, file: BinaryIO) -> Filled:
    snapshot = JsonSnapshot(file)
    for table, rows in groupby(_gently(snapshot.rows()), key=lambda each: each[0]):
        if table in COLUMNS:
            draft.put_rows(table, (row for _, row in rows))
    return Filled(snapshot.version or "", frozenset(map(flat_name, snapshot.tables)))


def _gently(rows: Iterator[T]) -> Iterator[T]:
    """The same rows, with rests in which others have the interpreter."""
    pace, haste = Pace(), Haste()
    while piece := list(islice(rows, ROWS_A_PIECE)):
        yield from piece
        pace.rest(haste)


def _from_sqlite(draft: SyncedRegistry, download: Download, file: BinaryIO) -> Filled:
    _check_digest(download.etag, file)
    version, tables = _describe(download.path)
    draft.copy_from(download.path, [table for table in COLUMNS if flat_name(table) in tables])
    return Filled(download.txid or version, tables)


def _describe(path: str) -> tuple[str, frozenset[str]]:
    """The version that stands in a SQLite snapshot, or "", and its tables."""
    with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro&immutable=1", uri=True)) as connection:
        names = {str(name) for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        version = ""
        if "_transicator_metadata" in names:
            rows = connection.execute("SELECT value FROM _transicator_metadata WHERE key = 'snapshot'").fetchall()
            version = str(rows[0][0] or "") if rows else ""
    return version, frozenset(name for name in names if not name.startswith(("_", "sqlite_")))


def _check_digest(etag: str, file: BinaryIO) -> None:
    """Refuse a file that is not what its `ETag` says; one that is no SHA-256 says nothing."""
    expected = set(_digests(etag))
    if not expected:
        return
    digest = hashlib.sha256()
    for data in read_slices(file):
        digest.update(data)
    if digest.digest() not in expected:
        raise SyncFailed("the snapshot is damaged: its SHA-256 is not what its ETag says")


def _digests(etag: str) -> Iterator[bytes]:
    """The SHA-256 that an `ETag` may mean, as hexadecimal digits or in base 64."""
    match = _ETAG.fullmatch(etag.strip())
    text = match[1] if match else ""
    with suppress(ValueError, binascii.Error):
        if len(text) == 2 * hashlib.sha256().digest_size:
            yield bytes.fromhex(text)
        elif 43 <= len(text) <= 44:
            yield base64.urlsafe_b64decode(text.replace("+", "-").replace("/", "_").rstrip("=") + "=")
