"""What the parent's sync source tells, passed on to every worker.

An event counts as shown when all workers that were told of it show it. One that ends before counts too: its successor
is told the last snapshot, and reads the file as it is then, which is later than whatever was told before.

A worker that begins may be told changes that its reading of the file has seen already. That does no harm that lasts:
the source tells rows as they were when it looked, each later list has all that changed since, and a list that is not
shown is followed by a snapshot.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from twisted.internet import defer
from twisted.logger import Logger

from axcollector.core import messages
from axcollector.sync.events import Change, ChangeList, Snapshot, problem_of, problem_of_change

CHANGES_A_MESSAGE = 500
"""So many changes go into one message: a worker reads it in a few milliseconds, and takes requests in between."""


class Recipient(Protocol):
    """A worker."""

    def tell(self, number: int, orders: Sequence[messages.Order]) -> "defer.Deferred[bool]":
        """Tell it an event. Fires with whether it shows it; with True when it ends before."""
        ...


class Feed:
    """Whoever is told events by the source; a `Listener`.

    Attributes:
        current: The snapshot that a worker is to begin with, or None before the first.
    """

    _log = Logger()

    def __init__(self, recipients: Callable[[], Sequence[Recipient]]) -> None:
        """Tell nothing yet; `recipients` gives those of the moment."""
        self._recipients = recipients
        self._number = 0
        self.current: messages.Snapshot | None = None

    def snapshot_received(self, snapshot: Snapshot) -> "defer.Deferred[bool]":
        """Everything is as it is in this registry file: all rebuild their catalogs."""
        problem = problem_of(snapshot)
        if problem is not None:
            return self._ignore(problem)
        self._number += 1
        self.current = messages.Snapshot(self._number, snapshot.version, snapshot.registry)
        return self._tell([self.current])

    def changes_received(self, changes: ChangeList) -> "defer.Deferred[bool]":
        """Something changed since the last event: all amend their catalogs."""
        problem = problem_of(changes) or next(filter(None, map(problem_of_change, changes.changes)), None)
        if self.current is None:
            problem = problem or f"a change list (version {changes.version}) before any snapshot"
        if problem is not None:
            return self._ignore(problem)
        self._number += 1
        return self._tell(list(_parts(self._number, changes)))

    def _ignore(self, problem: str) -> "defer.Deferred[bool]":
        self._log.error("a sync event is ignored: {problem}", problem=problem)
        return defer.succeed(result=False)

    def _tell(self, orders: Sequence[messages.Order]) -> "defer.Deferred[bool]":
        told = [each.tell(self._number, orders) for each in self._recipients()]
        return defer.gatherResults(told, consumeErrors=True).addCallback(all)


def _parts(number: int, changes: ChangeList) -> Iterator[messages.Changes]:
    rows = [_row_change(change) for change in changes.changes]
    for begin in range(0, max(len(rows), 1), CHANGES_A_MESSAGE):
        end = begin + CHANGES_A_MESSAGE
        yield messages.Changes(number, changes.version, rows[begin:end], more=end < len(rows))


def _row_change(change: Change) -> messages.RowChange:
    new_row = None if change.new_row is None else dict(change.new_row)
    old_row = None if change.old_row is None else dict(change.old_row)
    return messages.RowChange(change.operation.value, change.table, new_row, old_row)
