"""The data directory as a whole: one owner, its stages, its identity, and how often it was started.

{local_storage_path}/lock          held by the process that works here; holds its pid
{local_storage_path}/workers.lock  held by it and its worker processes, where it has any, until all of them are gone
{local_storage_path}/instance_id   this installation's UUID, made once
{local_storage_path}/starts        how often it was started; part of every file's name, so that none is used twice
"""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass

from twisted.logger import Logger

from axcollector.core.errors import DirectoryInUse
from axcollector.core.layout import Stage
from axcollector.directories import DurableDirectories
from axcollector.disk import Disk, write_durably
from axcollector.locks import Lock
from axcollector.ownership import check_above, check_private, check_writable

WORKERS_SECONDS = 15.0
"""So long a start waits for workers of a parent that was killed; they give up sooner."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes a journal's name one that nobody else gives.

    Attributes:
        instance_id: This installation's id.
        starts: Which start of the data directory this is, the first being 1.
        worker: Which process of that start: no number is given twice.
    """

    instance_id: str
    starts: int
    worker: int = 0


class Premises:
    """A data directory of ours, from `acquire` to `release`.

    Attributes:
        instance_id: This installation's id; known once acquired.
        starts: Which start this is, the first being 1; likewise.
    """

    _log = Logger()

    def __init__(self, disk: Disk, root: str, data_directory: str, *, shared: bool = False) -> None:
        """Nothing is touched yet.

        Args:
            disk: The hands.
            root: `local_storage_path`.
            data_directory: Where the stages are, below the root.
            shared: Whether worker processes will work there too.
        """
        self._disk = disk
        self._root = root
        self._data_directory = data_directory
        self._lock = Lock(os.path.join(root, "lock"))
        self._workers_lock = Lock(os.path.join(root, "workers.lock"))
        self._shared = shared
        self.instance_id = ""
        self.starts = 0

    def acquire(self, instance_id: str | None, make_id: Callable[[], str], now: float) -> None:
        """Make what is missing and take possession.

        Args:
            instance_id: The configured id, or None: the one made at the first start.
            make_id: Makes one.
            now: Seconds since the epoch.

        Raises:
            UnsafeDirectory: Others could change what lies here.
            DirectoryInUse: Another process, or another collector of this one, works here; or worker processes of one
                that was killed do, and do not end.
            OSError: It cannot be made or written.
        """
        directories = DurableDirectories(self._disk)
        check_above(self._root)
        directories.ensure(self._root)
        check_private(self._root)
        self._lock.acquire()
        try:
            self._outlast_workers()
            for directory in self._directories():
                directories.ensure(directory)
                check_private(directory)
            for stage in Stage:
                directory = os.path.join(self._data_directory, stage)
                directories.ensure(directory)
                check_private(directory, may_be_link=False)
            self.instance_id = instance_id or self._kept_id(make_id)
            self.starts = self._next_start(now)
        except BaseException:
            self.release()
            raise

    def check(self) -> None:
        """Look whether `acquire` would find anything to object to, or could not write; make and lock nothing.

        Raises:
            UnsafeDirectory: Others could change what lies here.
            OSError: It could not be made or written.
        """
        check_above(self._root)
        stages = [os.path.join(self._data_directory, stage) for stage in Stage]
        for directory in [self._root, *self._directories(), *stages]:
            if not os.path.lexists(directory):
                check_writable(os.path.dirname(directory))
                return
            check_private(directory, may_be_link=directory not in stages)
            check_writable(directory)

    def _outlast_workers(self) -> None:
        """Wait for workers of a parent that was killed: they still commit and answer, and end soon. Blocking."""
        if not self._shared and not self._disk.exists(self._workers_lock.path):
            return
        try:
            self._workers_lock.acquire()
        except DirectoryInUse:
            self._log.info("worker processes of the last run have not ended yet; they are waited for")
            try:
                self._workers_lock.acquire(WORKERS_SECONDS)
            except DirectoryInUse as exc:  # whose number it holds has gone
                raise DirectoryInUse(exc.path, None) from exc
        if not self._shared:
            self._workers_lock.release()

    def workers_lock(self) -> int:
        """The descriptor of the lock that worker processes inherit, so that it is held until they are gone."""
        return self._workers_lock.descriptor

    @property
    def identity(self) -> Identity:
        """What journals made in this start have in their names."""
        return Identity(self.instance_id, self.starts)

    def _directories(self) -> list[str]:
        """Those between the root and the stages."""
        names = os.path.relpath(self._data_directory, self._root).split(os.sep)
        return [os.path.join(self._root, *names[:count]) for count in range(1, len(names) + 1)]

    def release(self) -> None:
        """Let others have it."""
        self._workers_lock.release()
        self._lock.release()

    def _kept_id(self, make_id: Callable[[], str]) -> str:
        path = os.path.join(self._root, "instance_id")
        if kept := self._read(path):
            self._disk.sync_directory(self._root)  # whoever wrote it may have been killed before
            return kept
        made = make_id()
        write_durably(self._disk, path, made.encode() + b"\n")
        return made

    def _next_start(self, now: float) -> int:
        path = os.path.join(self._root, "starts")
        text = self._read(path)
        if text is None:
            text = "0"
        elif not (text.isascii() and text.isdigit()):  # nor where it is empty
            # Any number that was not used before will do, and the time is larger than any count.
            self._log.error("{path} is damaged; counting goes on from the present time", path=path)
            text = str(int(now))
        starts = int(text) + 1
        write_durably(self._disk, path, b"%d\n" % starts)
        return starts

    def _read(self, path: str) -> str | None:
        with contextlib.suppress(FileNotFoundError), self._disk.open(path) as file:
            return file.read(128).decode(errors="replace").strip()
        return None
