"""The two events that a source of tenants and developers sends, and what is wrong with one that cannot be used."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from twisted.internet import defer

from axcollector.core.tables import Row, is_utf8


class Operation(enum.Enum):
    """What happened to a row; the values are those of Transicator's change lists."""

    INSERT = 1
    UPDATE = 2
    DELETE = 3


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything is to be as it is in this registry file, whatever was before.

    Attributes:
        version: What the source calls this state; for the log.
        registry: The path of the SQLite file.
    """

    version: str
    registry: str


@dataclass(frozen=True, slots=True)
class Change:
    """One row came, changed or went.

    Attributes:
        operation: What happened to it.
        table: The table's full name, such as `kms.app`; changes of unknown tables have no effect.
        new_row: The row as it is now; None after a DELETE.
        old_row: The row as it was, at least its primary key, where its source tells; None before an INSERT.
    """

    operation: Operation
    table: str
    new_row: Row | None = None
    old_row: Row | None = None


@dataclass(frozen=True, slots=True)
class ChangeList:
    """What happened since the snapshot, or since the change list before, in this order.

    It may wait, and is taken a slice a turn: nobody changes the sequence, or a row in it, once it was handed over.

    Attributes:
        changes: The changes.
        version: What the source calls the state after them; for the log.
    """

    changes: Sequence[Change]
    version: str = ""


class Listener(Protocol):
    """Whoever is told events.

    Both Deferreds fire, with True, when the event is shown; with False when it was not, and will not be.
    """

    def snapshot_received(self, snapshot: Snapshot) -> "defer.Deferred[bool]":
        """Everything is as it is in this registry file."""
        ...

    def changes_received(self, changes: ChangeList) -> "defer.Deferred[bool]":
        """Something changed since the last event."""
        ...


def problem_of(event: object) -> str | None:
    """What makes it impossible to use an event, or None; events come from whoever embeds us.

    A change list's changes are not looked at, since there may be very many: see `problem_of_change`.
    """
    if isinstance(event, Snapshot):
        path: object = event.registry
        is_usable = isinstance(path, str) and path and "\0" not in path
        return None if is_usable else "a snapshot without the path of a registry file"
    if not isinstance(event, ChangeList):
        return f"neither a Snapshot nor a ChangeList: {type(event).__name__}"
    changes: object = event.changes
    return None if isinstance(changes, Sequence) else "changes that are no sequence"


def problem_of_change(change: object) -> str | None:
    """What makes it impossible to use a change, or None."""
    if not isinstance(change, Change):
        return f"not a Change: {type(change).__name__}"
    operation: object = change.operation
    table: object = change.table
    if not isinstance(operation, Operation):
        return f"an unknown operation: {operation!r}"
    if not isinstance(table, str):
        return f"a table whose name is no text: {table!r}"
    missing = change.old_row is None if operation is Operation.DELETE else change.new_row is None
    if missing:
        return f"no row to {operation.name}"
    return _problem_of_row(change.new_row) or _problem_of_row(change.old_row)


def _problem_of_row(row: object) -> str | None:
    if row is None:
        return None
    if not isinstance(row, Mapping):
        return f"a row that is no mapping: {type(row).__name__}"
    for column, value in row.items():
        if value is not None and not isinstance(value, str):
            return f"a column {column} that is neither text nor null"
        if value is not None and not is_utf8(value):
            return f"a column {column} whose text is not UTF-8"
    return None
