"""Locks on files: each lasts until the file is closed, or its process ends, however it ends. Blocking."""

import errno
import fcntl
import os
import time

from axcollector.core.errors import DirectoryInUse

_LOOK_SECONDS = 0.02
_LOCK_MODE = 0o600


def lock_file(descriptor: int) -> bool:
    """Whether a file could be locked. It excludes whoever else has opened it, also in the same process."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno not in {errno.EAGAIN, errno.EACCES}:
            raise
        return False
    return True


class Lock:
    """Holds a data directory for one owner, until released or until the process ends, however it ends."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def descriptor(self) -> int:
        """The file that is locked, while it is: who inherits it holds the lock too."""
        assert self._descriptor is not None
        return self._descriptor

    def acquire(self, patience_seconds: float = 0.0) -> None:
        """Take it, and note our process id in it. Blocks for so long where somebody has it.

        Raises:
            DirectoryInUse: Somebody has it, and goes on having it.
        """
        deadline = time.monotonic() + patience_seconds
        while True:
            try:
                self._take()
            except DirectoryInUse:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_LOOK_SECONDS)
            else:
                return

    def _take(self) -> None:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _LOCK_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.fchmod(descriptor, _LOCK_MODE)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as exc:
            is_held = exc.errno in {errno.EAGAIN, errno.EACCES}
            pid = os.pread(descriptor, 32, 0).strip() if is_held else b""
            os.close(descriptor)
            if not is_held:
                raise
            raise DirectoryInUse(self.path, int(pid) if pid.isdigit() else None) from exc
        self._descriptor = descriptor

    def release(self) -> None:
        """Give it back; the file stays, because removing it would race with the next owner."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_held(path: str) -> bool:
    """Whether somebody holds the lock on a file. It is tried, and given back at once, without writing to the file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno not in {errno.EAGAIN, errno.EACCES}:
            raise
        return True
    finally:
        os.close(descriptor)
    return False
