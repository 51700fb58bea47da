"""The sync protocol's values and rules: sequences, scopes, change lists, and what a change does to a row.

Pure. A change speaks of one row by the columns of its table. What is made of it here is a `RowEffect`: the row whose
key is to go and the row that is to be, each of which may be missing. Applying an effect twice, or on top of a later
state that later effects lead to again, does no harm.

* Sequences are three hexadecimal fields and compare as numbers.
* A long text that an update leaves as it was (a TOAST column) is not sent, a literal stands for it: the value is that
  of the stored row, or that of the old row where the server tells.
* A row belongs to a selector. One that moves to a selector which is not ours is told to us as an update for the last
  time, and is gone for us.
* What cannot be applied (no key, no row to delete, an unchanged text that nobody knows) is `Unusable`: only a new
  snapshot can tell what the row is like.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Self

import msgspec

from axcollector.core.errors import SyncFailed
from axcollector.core.tables import COLUMNS, KEYS, SCOPES, Row
from axcollector.sync.events import Operation

UNCHANGED_TOAST: Final = '"unchanged-toast-datum"'
"""Stands for a long text that was not changed; the quotes are part of it."""
SELECTOR_COLUMN: Final = "_change_selector"

ROW_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    **COLUMNS,
    SCOPES: (*COLUMNS[SCOPES], "apid_cluster_id", "org_scope", "env_scope"),
}
"""The tables that are kept, and their columns."""

_SELECTOR: Final = re.compile(r"[0-9a-z_-]+")
_HEX: Final = re.compile(r"[0-9A-Fa-f]{1,32}")


class Unusable(Exception):
    """A change of a table of ours cannot be applied; says why."""


@dataclass(frozen=True, slots=True, order=True)
class LogSequence:
    """A place in the change server's history; ordered as that is."""

    fields: tuple[int, int, int]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `a.b.c`.

        Raises:
            SyncFailed: It is no sequence.
        """
        parts = text.split(".")
        if len(parts) != 3 or not all(map(_HEX.fullmatch, parts)):
            raise SyncFailed("the change server names a sequence that is none")
        first, second, third = (int(part, 16) for part in parts)
        return cls((first, second, third))

    def __str__(self) -> str:
        return ".".join(f"{field:x}" for field in self.fields)


@dataclass(frozen=True, slots=True)
class RowChange:
    """One change as the server tells it; rows have the server's columns."""

    operation: Operation
    table: str
    new: Row | None
    old: Row | None


@dataclass(frozen=True, slots=True)
class Page:
    """An answer of the change server.

    Attributes:
        last: Up to where it tells.
        first: What the server still remembers begins here.
        changes: In the order in which they happened; of others' changes nothing is told.
    """

    last: LogSequence
    first: LogSequence
    changes: tuple[RowChange, ...]


@dataclass(frozen=True, slots=True)
class RowEffect:
    """What a change does to a table of ours.

    Attributes:
        removed: The key of the row that goes, by its columns; None: none does.
        put: The row that is to be, with the columns of `ROW_COLUMNS`; None: none.
    """

    removed: Row | None
    put: Row | None


def is_selector(text: str) -> bool:
    """Whether the servers take this as a scope; of a request with another one they take nothing."""
    return _SELECTOR.fullmatch(text) is not None


def scopes_of(rows: Iterable[Row], cluster_id: str) -> tuple[str, ...]:
    """The scopes that a cluster's rows of `edgex.data_scope` name, and the cluster's own; sorted, each once."""
    named = {
        row.get(column) or ""
        for row in rows
        if row.get("apid_cluster_id") == cluster_id
        for column in ("scope", "org_scope", "env_scope")
    }
    return tuple(sorted({*named, cluster_id} - {""}))


def flat_name(table: str) -> str:
    """A table's name as SQLite snapshots write it: `kms.app` and `kms_app` are one."""
    return table.replace(".", "_", 1)


class _Value(msgspec.Struct):
    value: str | None = None


_Columns = dict[str, _Value]


class _WireChange(msgspec.Struct, rename="camel"):
    operation: int
    table: str
    new_row: _Columns | None = None
    old_row: _Columns | None = None


class _WirePage(msgspec.Struct, rename="camel"):
    last_sequence: str
    first_sequence: str
    changes: list[msgspec.Raw] | None = None


_PAGE: Final = msgspec.json.Decoder(_WirePage)
_CHANGE: Final = msgspec.json.Decoder(_WireChange)
_OPERATIONS: Final = {operation.value: operation for operation in Operation}


def decode_page(body: bytes) -> Page:
    """Read an answer of the change server. The changes are decoded one by one: no step takes long.

    Raises:
        SyncFailed: It is none.
    """
    try:
        page = _PAGE.decode(body)
        changes = tuple(_change(_CHANGE.decode(raw)) for raw in page.changes or ())
    except (ValueError, msgspec.MsgspecError, RecursionError) as exc:
        message = f"the change server's answer is no change list: {exc}"[:200]
        raise SyncFailed(message) from exc
    return Page(LogSequence.parse(page.last_sequence), LogSequence.parse(page.first_sequence), changes)


def _change(wire: _WireChange) -> RowChange:
    operation = _OPERATIONS.get(wire.operation)
    if operation is None:
        raise SyncFailed("the change server tells of an unknown operation")
    return RowChange(operation, wire.table, _row(wire.new_row), _row(wire.old_row))


def _row(columns: _Columns | None) -> Row | None:
    return None if columns is None else {name: value.value for name, value in columns.items()}


def effect_of(change: RowChange, scopes: Collection[str], stored: Callable[[Row], Row | None]) -> RowEffect:
    """What a change does to its table, which is one of ours.

    Args:
        change: The change.
        scopes: The selectors that are ours.
        stored: Gives the row that is stored under a key, or None.

    Raises:
        Unusable: It cannot be told from the change.
    """
    old_key = _key(change.table, change.old or {}, {})
    if change.operation is Operation.DELETE:
        if old_key is None:
            raise Unusable("a delete without the row's key")
        return RowEffect(old_key, None)
    new = change.new or {}
    key = _key(change.table, new, change.old or {})
    if key is None:
        raise Unusable("a row without its key")
    if not _is_ours(new, scopes):
        return RowEffect(old_key or key, None)
    put = {column: new.get(column) for column in ROW_COLUMNS[change.table]} | key
    unchanged = [column for column, value in put.items() if value == UNCHANGED_TOAST]
    if unchanged:
        before = (stored(old_key) if old_key else None) or stored(key) or change.old or {}
        if not all(before.get(column, UNCHANGED_TOAST) != UNCHANGED_TOAST for column in unchanged):
            raise Unusable("a text that was not changed, of a row that is not known")
        put |= {column: before[column] for column in unchanged}
    return RowEffect(None if old_key == key else old_key, put)


def _key(table: str, row: Row, other: Row) -> dict[str, str] | None:
    """The primary key of a row, or None where some of it is missing; what is not told anew is as in the other row."""
    key = {}
    for column in KEYS[table]:
        value = row.get(column)
        if value == UNCHANGED_TOAST:
            value = other.get(column)
        if not value or value == UNCHANGED_TOAST:
            return None
        key[column] = value
    return key


def _is_ours(row: Row, scopes: Collection[str]) -> bool:
    """A row that does not tell its selector was sent because it is ours."""
    selector = row.get(SELECTOR_COLUMN, UNCHANGED_TOAST)
    return selector == UNCHANGED_TOAST or selector in scopes
