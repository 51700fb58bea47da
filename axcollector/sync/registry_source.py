"""The registry as a source of events: its file is watched, and what anyone changes in it is told to the listener.

Few changed rows, told by the file's change log, are a change list; everything else is a snapshot. A change list says
what rows are like now, so it may only be applied to a catalog of an earlier state of the file, never to one of a
later: it would take that back. A snapshot is read by the listener when it comes to it, so its state is later than
the look that sent it, nobody knows how much. Hence:

* What is sent stands for the log's position at the look (`_position`), and until the listener says that it shows it,
  no change list follows: changes wait in the log.
* The list that follows has all rows changed since that position, so all that the snapshot may have missed; they are
  read after it, so no row in it is older.
* What the listener drops is answered by a snapshot, as is a log that has lost what came next.

A file that cannot be read is no snapshot: the old catalog stays, and it is looked at again.
"""

from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from axcollector.core.errors import RegistryError
from axcollector.registry_changes import ChangedRow
from axcollector.registry_log import LogPosition
from axcollector.services import Periodic, Worker
from axcollector.sync.events import Change, ChangeList, Listener, Operation, Snapshot
from axcollector.sync.registry_watch import Look, RegistryWatch

WATCH_SECONDS = 0.5
"""How often the file is looked at; changes are to be seen within two seconds."""


class RegistrySource(Service):
    """Watches a registry file and tells the listener; makes the file, empty, when it is missing at the start.

    Attributes:
        jobs: What it does now and then.
        heard_at: When the file was last looked at while all that it holds was shown; None: never.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        worker: Worker,
        listener: Listener,
        path: str,
        refresh_interval_seconds: float = 0,
    ) -> None:
        """Prepare.

        Args:
            clock: What tells and schedules time.
            worker: Whose thread looks at the file; best not the listener's, where a look waits for a rebuild's end.
            listener: Who gets the events.
            path: The file.
            refresh_interval_seconds: After so long without one a snapshot is sent in any case; 0 for never.
        """
        self._clock = clock
        self._worker = worker
        self._listener = listener
        self._path = path
        self._refresh_interval = refresh_interval_seconds
        self._watch = RegistryWatch(path)
        self._periodic = Periodic(clock, WATCH_SECONDS, "watching the registry", self._look)
        self.jobs = (self._periodic,)
        self.heard_at: float | None = None
        self._position: LogPosition | None = None
        self._awaited: Snapshot | ChangeList | None = None
        self._is_due = True
        self._sent_at = 0.0
        self._trouble: str | None = None

    def startService(self) -> None:
        """Look at the file, at once and then every half second; the first event is a snapshot."""
        self.running = True
        self._awaited = None
        self._is_due = True
        self._periodic.startService()

    def stopService(self) -> "defer.Deferred[None]":
        """Look no more. Fires when a look under way has ended and the file is closed."""
        self.running = False
        return defer.ensureDeferred(self._stop())

    async def _stop(self) -> None:
        await self._periodic.stopService()
        await self._worker.run(self._watch.close).addErrback(lambda f: f.trap(defer.CancelledError) and None)

    async def _look(self) -> None:
        since = self._position if self._awaited is None else None
        try:
            look = await self._worker.run(self._watch.look, since)
        except RegistryError as exc:
            self._tell_of_trouble(str(exc))
            return
        if self._trouble is not None:
            self._trouble = None
            self._log.info("the registry {path} can be watched again", path=self._path)
        now = self._clock.seconds()
        is_old = 0 < self._refresh_interval <= now - self._sent_at
        is_untold = not look.is_told or (since is not None and look.changed is None)
        if self._is_due or is_old or is_untold:
            self._is_due = False
            self._sent_at = now
            self._send(Snapshot(look.version, self._path), look)
        elif not look.changed:
            self.heard_at = now if self._awaited is None else self.heard_at
        else:
            self._send(ChangeList([_change_of(row) for row in look.changed], look.version), look)

    def _send(self, event: Snapshot | ChangeList, look: Look) -> None:
        self._position = look.position
        self._awaited = event
        if isinstance(event, Snapshot):
            shown = self._listener.snapshot_received(event)
        else:
            shown = self._listener.changes_received(event)
        shown.addCallback(self._answered, event, self._clock.seconds())

    # The first is what a Deferred fires with.
    def _answered(self, is_shown: bool, event: Snapshot | ChangeList, looked_at: float) -> None:  # noqa: FBT001
        if is_shown:
            self.heard_at = looked_at
        if event is self._awaited:
            self._awaited = None
            self._is_due = not is_shown

    def _tell_of_trouble(self, trouble: str) -> None:
        """One line a trouble, however often it is met."""
        if trouble != self._trouble:
            self._trouble = trouble
            self._log.error("the registry is not watched, {trouble}; what was read of it stays", trouble=trouble)


def _change_of(changed: ChangedRow) -> Change:
    """The row as it is now, put in place of whatever there is of its key; or its key removed."""
    if changed.row is None:
        return Change(Operation.DELETE, changed.table, old_row=changed.key)
    return Change(Operation.UPDATE, changed.table, new_row=changed.row)
