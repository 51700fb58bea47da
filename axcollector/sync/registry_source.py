"""The registry as a source of events: its file is watched, and a change by anyone is a snapshot.

A connection of its own tells whether another one has committed (`PRAGMA data_version`, which works across processes);
the file's inode, size and time tell whether another file lies there. Both are looked at every half second, in the
worker's thread. What the write-ahead log holds is brought into the file each time, so that the log is empty when
somebody puts another file in its place.

A file that cannot be read is no snapshot: the old catalog stays, and it is looked at again.
"""

import os
from dataclasses import dataclass

from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from axcollector.core.errors import RegistryError
from axcollector.registry_file import RegistryFile, errors_of
from axcollector.services import Periodic, Worker
from axcollector.sync.events import Snapshot
from axcollector.sync.listener import SyncListener

WATCH_SECONDS = 0.5
"""How often the file is looked at; changes are to be seen within two seconds."""

_BUSY_TIMEOUT_SECONDS = 0.5
"""How long a look waits for somebody who writes; the next one comes soon."""


class RegistrySource(Service):
    """Watches a registry file and tells the listener; makes the file, empty, when it is missing at the start."""

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        worker: Worker,
        listener: SyncListener,
        path: str,
        refresh_interval_seconds: float = 0,
    ) -> None:
        """Prepare.

        Args:
            clock: What tells and schedules time.
            worker: Whose thread looks at the file; best not the listener's, where a look waits for a rebuild's end.
            listener: Who gets the snapshots.
            path: The file.
            refresh_interval_seconds: After so long without one a snapshot is sent in any case; 0 for never.
        """
        self._clock = clock
        self._worker = worker
        self._listener = listener
        self._path = path
        self._refresh_interval = refresh_interval_seconds
        self._watch = _Watch(path)
        self._periodic = Periodic(clock, WATCH_SECONDS, "watching the registry", self._look)
        self._seen: _State | None = None
        self._sent_at = 0.0
        self._trouble: str | None = None

    def startService(self) -> None:
        """Look at the file, at once and then every half second."""
        self.running = True
        self._seen = None
        self._periodic.startService()

    def stopService(self) -> "defer.Deferred[None]":
        """Look no more. Fires when a look under way has ended and the file is closed."""
        self.running = False
        return defer.ensureDeferred(self._stop())

    async def _stop(self) -> None:
        await self._periodic.stopService()
        await self._worker.run(self._watch.close).addErrback(lambda f: f.trap(defer.CancelledError) and None)

    async def _look(self) -> None:
        try:
            state = await self._worker.run(self._watch.look)
        except RegistryError as exc:
            self._tell_of_trouble(str(exc))
            return
        if self._trouble is not None:
            self._trouble = None
            self._log.info("the registry {path} can be watched again", path=self._path)
        now = self._clock.seconds()
        is_due = 0 < self._refresh_interval <= now - self._sent_at
        if state != self._seen or is_due:
            self._seen = state
            self._sent_at = now
            self._listener.snapshot_received(Snapshot(state.version, self._path))

    def _tell_of_trouble(self, trouble: str) -> None:
        """One line a trouble, however often it is met."""
        if trouble != self._trouble:
            self._trouble = trouble
            self._log.error("the registry is not watched, {trouble}; what was read of it stays", trouble=trouble)


@dataclass(frozen=True, slots=True)
class _State:
    """What the file was like at a look; another state, another content.

    Attributes:
        opened: How often it has been opened.
        data_version: `PRAGMA data_version` of the connection.
    """

    opened: int
    data_version: int

    @property
    def version(self) -> str:
        return f"{self.opened}.{self.data_version}"


class _Watch:
    """A connection to the file, opened anew when another file lies there; lives in the worker's thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: RegistryFile | None = None
        self._identity: tuple[int, ...] = ()
        self._opened = 0

    def look(self) -> _State:
        """What the file is like now.

        Raises:
            RegistryError: It cannot be read.
        """
        if not self._opened:
            self._make_if_missing()
        try:
            return self._look()
        except RegistryError:
            self.close()
            raise

    def _look(self) -> _State:
        identity = self._identify()
        if self._file is None or identity != self._identity:
            self.close()
            self._file = RegistryFile.open(self._path, _BUSY_TIMEOUT_SECONDS)
            self._opened += 1
        state = _State(self._opened, self._file.data_version())
        if self._has_log():
            self._file.checkpoint()
            after = self._identify()
            if after[:2] == identity[:2]:  # else it was replaced meanwhile, which the next look is to see
                identity = after
        self._identity = identity
        return state

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _identify(self) -> tuple[int, ...]:
        with errors_of(self._path):
            facts = os.stat(self._path)
        return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns

    def _has_log(self) -> bool:
        try:
            return os.path.getsize(self._path + "-wal") > 0
        except OSError:
            return False

    def _make_if_missing(self) -> None:
        """Before it has been read for the first time only: a file that goes later is missed, not replaced."""
        with errors_of(self._path):
            is_missing = not os.path.exists(self._path) or not os.path.getsize(self._path)
        if is_missing:
            RegistryFile.create(self._path).close()
