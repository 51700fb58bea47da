"""The hands: what POSIX offers to make things durable. Blocking; runs in work threads.

A file's content is durable once `AppendFile.sync` has returned, its name once the directory that holds it has been
synced. `Disk` is a class, and everyone gets one as an argument, so that tests can hand in one that forgets what was
not synced.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO, Self

from axcollector.locks import lock_file

STEP_BYTES = 1 << 20
"""So much of a file that nobody waits for is brought to stable storage at once."""
DIRECTORY_MODE = 0o700
FILE_MODE = 0o600


class AppendFile:
    """A file that is written at its end only."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._unsynced = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append all of `data`.

        Raises:
            OSError: Some of it may have been written.
        """
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def write_in_steps(self, data: bytes | memoryview) -> bool:
        """As `write`, for what nobody waits for; it goes to stable storage step by step, the last with `sync`.

        Whoever syncs another file meanwhile waits for what the disk has to do already: for one step, not for all.

        Returns:
            Whether this ended a step, and so waited for the disk.
        """
        self.write(data)
        self._unsynced += len(data)
        if self._unsynced < STEP_BYTES:
            return False
        self._unsynced = 0
        self.sync()
        return True

    def sync(self) -> None:
        """Bring what was written to stable storage."""
        os.fdatasync(self._descriptor)

    def begin_sync(self) -> None:
        """Let the kernel begin to write, without waiting: of several files that are synced then, all are on their way.

        Advice only: a system that does not know it, or a file system that refuses it, loses time and nothing else.
        """
        if hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):
                os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def is_linked(self) -> bool:
        """Whether its path still leads to it: it may have been removed, or its directory moved away."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.lstat(self.path))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def truncate(self, size: int) -> None:
        """Cut the file back to its first `size` bytes."""
        os.ftruncate(self._descriptor, size)

    def lock(self) -> bool:
        """Lock it until it is closed, or its process ends, however it ends. Whether nobody else has it locked."""
        return lock_file(self._descriptor)

    def close(self) -> None:
        """Close it, without syncing."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Disk:
    """The file system, as far as the spool needs it. Paths are strings; every method may raise `OSError`."""

    def create(self, path: str) -> AppendFile:
        """A new, empty file that only its owner may read. Its name is durable after `sync_directory` only."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        return AppendFile(path, open_private(path, flags))

    def open(self, path: str) -> BinaryIO:
        """A regular file, to read; symbolic links are not followed, and nothing waits for a pipe."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "It is no regular file", path)
        return os.fdopen(descriptor, "rb", buffering=0)

    def open_within(self, path: str) -> BinaryIO:
        """As `open`, for what lies in a stage: the directory that it lies in is no symbolic link either."""
        directory = os.path.dirname(path)
        if self.exists(directory) and not self.is_directory(directory):
            raise NotADirectoryError(errno.ENOTDIR, "It lies in no directory of ours", path)
        return self.open(path)

    @contextlib.contextmanager
    def claimed(self, path: str) -> Iterator[bool]:
        """Locks a file, if it is there and is one, until the block ends; gives False where somebody else has it."""
        if not self.is_file(path):
            yield True
            return
        try:
            file = self.open(path)
        except FileNotFoundError:  # it has gone meanwhile
            yield True
            return
        with file:
            yield lock_file(file.fileno())

    def make_directory(self, path: str) -> None:
        """A new directory that only its owner may enter; its parent is there."""
        make_private_directory(path)

    def names(self, directory: str) -> list[str]:
        """What lies in a directory, sorted."""
        return sorted(self.unsorted_names(directory))

    def unsorted_names(self, directory: str) -> list[str]:
        """What lies in a directory, in any order: sorting very many names keeps all threads waiting."""
        return os.listdir(directory)

    def is_directory(self, path: str) -> bool:
        """Whether it is a directory itself (not a link to one)."""
        try:
            return stat.S_ISDIR(os.lstat(path).st_mode)
        except FileNotFoundError:
            return False

    def is_file(self, path: str) -> bool:
        """Whether it is a regular file itself (not a link to one)."""
        try:
            return stat.S_ISREG(os.lstat(path).st_mode)
        except FileNotFoundError:
            return False

    def exists(self, path: str) -> bool:
        """Whether anything of that name is there."""
        return os.path.lexists(path)

    def size(self, path: str) -> int:
        """A file's size in bytes."""
        return os.lstat(path).st_size

    def rename(self, source: str, target: str) -> None:
        """Rename a file or a directory; a file of the target's name is replaced."""
        os.rename(source, target)

    def unlink(self, path: str) -> None:
        """Remove a file."""
        os.unlink(path)

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        os.rmdir(path)

    def sync_file(self, path: str) -> None:
        """Bring the content of a file that somebody else has written to stable storage."""
        with self.open(path) as file:
            os.fsync(file.fileno())

    def sync_directory(self, path: str) -> None:
        """Bring the names in a directory to stable storage."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def free_bytes(self, path: str) -> int:
        """How many bytes may still be written to the file system below `path`."""
        facts = os.statvfs(path)
        return facts.f_bavail * facts.f_frsize

    def free_share(self, path: str) -> float:
        """The share of the file system below `path` that may still be written, 0 to 1."""
        facts = os.statvfs(path)
        return facts.f_bavail / facts.f_blocks if facts.f_blocks else 1.0


def ensure_within(disk: Disk, directory: str, *names: str) -> str:
    """Make directories, each in the one before, where they are missing; their names are durable. The last one's path.

    Args:
        disk: The hands.
        directory: One that is there.
        names: Of those below it. None of them may be a symbolic link, so that nothing leaves the directory by one.

    Raises:
        OSError: One cannot be made, or something else has its name.
    """
    for name in names:
        parent, directory = directory, os.path.join(directory, name)
        if not disk.is_directory(directory):
            disk.make_directory(directory)
        disk.sync_directory(parent)
    return directory


def remove_tree(disk: Disk, path: str) -> None:
    """Remove a directory and all below it, or whatever else has that name; links are removed, not followed."""
    if not disk.is_directory(path):
        disk.unlink(path)
        return
    for name in disk.names(path):
        remove_tree(disk, os.path.join(path, name))
    disk.remove_directory(path)


def open_private(path: str, flags: int) -> int:
    """Open a file, and make it where `flags` say so: for its owner alone then, whatever the process's umask is."""
    descriptor = os.open(path, flags, FILE_MODE)
    try:
        if flags & os.O_EXCL:
            os.fchmod(descriptor, FILE_MODE)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def make_private_directory(path: str) -> None:
    """Make a directory that only its owner may enter, whatever the process's umask is."""
    os.mkdir(path, DIRECTORY_MODE)
    if stat.S_IMODE(os.lstat(path).st_mode) & DIRECTORY_MODE != DIRECTORY_MODE:  # the umask took more than it should
        os.chmod(path, DIRECTORY_MODE)


def write_durably(disk: Disk, path: str, content: bytes) -> None:
    """Replace a small file's content in one step: after a crash it is the old or the new one, whole."""
    draft = path + ".new"
    with contextlib.suppress(FileNotFoundError):
        disk.unlink(draft)
    with disk.create(draft) as file:
        file.write(content)
        file.sync()
    disk.rename(draft, path)
    disk.sync_directory(os.path.dirname(path))


def read_slices(file: BinaryIO, slice_bytes: int = 1 << 18) -> Iterator[bytes]:
    """A file's content, slice by slice, to its end."""
    while data := file.read(slice_bytes):
        yield data
