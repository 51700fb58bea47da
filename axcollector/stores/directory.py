"""The `file:` store: a directory, `{root}/{org}~{env}/date=…/time=…/{file}`.

A file is copied to a draft beside its final place, brought to stable storage, and renamed: whoever reads the
directory sees whole files only. Directories are synced before a put is done, because its file is deleted then.
"""

import contextlib
import errno
import os
from typing import BinaryIO, Final

from twisted.internet import defer

from axcollector.core.errors import EndpointUnavailable, FileRefused, UploadFailed
from axcollector.directories import DurableDirectories
from axcollector.disk import Disk
from axcollector.services import Worker

_SLICE_BYTES: Final = 1 << 18
_OF_THE_WHOLE_STORE: Final = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENODEV, errno.ENXIO),
        *(errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.ENOMEM, errno.EMFILE, errno.ENFILE),
    }
)
"""Errors that the next file would meet as well; all others are taken to be of one file, or of one tenant."""


class DirectoryStore:
    """A `Store` that copies files into a directory."""

    def __init__(self, worker: Worker, disk: Disk, root: str) -> None:
        """Prepare; nothing is made before the first put.

        Args:
            worker: Who copies: a slow disk holds up its other work.
            disk: The hands.
            root: The directory's path; made where it is missing.
        """
        self._worker = worker
        self._disk = disk
        self._root = root
        self._directories = DurableDirectories(disk)
        self._authority = f"file:{root}"

    def put(self, tenant: str, key: str, path: str) -> "defer.Deferred[None]":
        """Copy a file; see `Store`. Cancelling forgets the outcome: a copy that has begun goes on to its end."""
        return self._worker.run(self._copy, path, os.path.join(self._root, tenant, key))

    def authorities(self, tenant: str) -> tuple[str, ...]:  # noqa: ARG002 - all tenants share the disk
        """The directory."""
        return (self._authority,)

    def problem(self) -> str | None:
        """Why nothing could be put, as far as that shows without writing; None: it does not. Blocking."""
        path = self._root
        while not os.path.lexists(path):  # it is made with the first file
            path = os.path.dirname(path)
        if not os.path.isdir(path):
            return f"the store {self._root} cannot be used: {path} is no directory"
        if not os.access(path, os.W_OK | os.X_OK):
            return f"the store {self._root} cannot be used: {path} may not be written by this process"
        return None

    def close(self) -> "defer.Deferred[None]":
        """There is nothing to release. Fires at once."""
        return defer.succeed(None)

    def _copy(self, source: str, target: str) -> None:
        try:
            file = self._disk.open_within(source)
        except OSError as exc:
            raise _unreadable(exc) from exc
        draft = f"{target}.new"
        with file:
            try:
                self._write(file, draft)
                self._disk.rename(draft, target)
                self._disk.sync_directory(os.path.dirname(target))
            except (OSError, UploadFailed) as exc:
                with contextlib.suppress(OSError):
                    self._disk.unlink(draft)
                raise (self._refused(exc) if isinstance(exc, OSError) else exc) from exc

    def _write(self, file: BinaryIO, draft: str) -> None:
        directory = os.path.dirname(draft)
        self._directories.make(directory)
        with contextlib.suppress(FileNotFoundError):  # left by a crash
            self._disk.unlink(draft)
        with self._disk.create(draft) as copy:
            while data := _read(file):
                copy.write_in_steps(data)
            copy.sync()
        self._directories.sync(directory)

    def _refused(self, exc: OSError) -> UploadFailed:
        reason = f"the store {self._root} does not take it: {exc.strerror}"
        if exc.errno in _OF_THE_WHOLE_STORE:
            return EndpointUnavailable(self._authority, reason)
        return UploadFailed(reason)


def _read(file: BinaryIO) -> bytes:
    try:
        return file.read(_SLICE_BYTES)
    except OSError as exc:
        raise _unreadable(exc) from exc


def _unreadable(exc: OSError) -> FileRefused:
    return FileRefused(f"the file cannot be read: {exc.strerror}")
