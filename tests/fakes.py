"""Stand-ins for what tests should not wait for: threads, clocks, stores."""

import errno
import os
from collections.abc import Callable
from typing import TypeVar

from twisted.internet import defer

from axcollector.disk import AppendFile, Disk

T = TypeVar("T")


class SameThread:
    """A `Worker` that runs everything at once, in the calling thread."""

    def run(self, function: Callable[..., T], *arguments: object) -> "defer.Deferred[T]":
        """Run it now."""
        return defer.maybeDeferred(function, *arguments)


class HeldThread:
    """A `Worker` that runs its jobs when told to: shows what happens while a write is under way."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], None]] = []

    def run(self, function: Callable[..., T], *arguments: object) -> "defer.Deferred[T]":
        """Keep it for later."""
        result: defer.Deferred[T] = defer.Deferred()
        self.jobs.append(lambda: defer.maybeDeferred(function, *arguments).chainDeferred(result))
        return result

    def step(self) -> None:
        """Run the job that was given first."""
        self.jobs.pop(0)()


def result_of(deferred: "defer.Deferred[T]") -> T:
    """What a Deferred that has fired holds; raises what it failed with."""
    results: list[T] = []
    failures = []
    deferred.addCallbacks(results.append, failures.append)
    if failures:
        failures[0].raiseException()
    assert results, "the Deferred has not fired"
    return results[0]


class MortalFile(AppendFile):
    """A file of a `MortalDisk`."""

    disk: "MortalDisk"

    def write(self, data: bytes | memoryview) -> None:
        """Append; the write during which the disk dies is torn."""
        if self.disk.left == 0:
            super().write(data[: len(data) // 2])
        self.disk.live()
        super().write(data)

    def sync(self) -> None:
        """Sync, which is nothing to a real directory that does not lose power."""
        self.disk.live()

    def truncate(self, size: int) -> None:
        """Cut back."""
        self.disk.live()
        super().truncate(size)


class MortalDisk(Disk):
    """A real directory that, when told to, changes no more after so many changes: what a crash at that moment leaves.

    Attributes:
        left: How many changes it still makes; None: any number.
    """

    def __init__(self) -> None:
        self.left: int | None = None

    def live(self) -> None:
        """Count a change, or refuse it."""
        if self.left is not None:
            if self.left <= 0:
                self.left = -1
                raise OSError(errno.EIO, "the disk is dead")
            self.left -= 1

    def create(self, path: str) -> AppendFile:
        """A new file."""
        self.live()
        file = MortalFile(path, os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600))
        file.disk = self
        return file

    def make_directory(self, path: str) -> None:
        """A new directory."""
        self.live()
        super().make_directory(path)

    def rename(self, source: str, target: str) -> None:
        """Rename."""
        self.live()
        super().rename(source, target)

    def unlink(self, path: str) -> None:
        """Remove a file."""
        self.live()
        super().unlink(path)

    def remove_directory(self, path: str) -> None:
        """Remove a directory."""
        self.live()
        super().remove_directory(path)

    def sync_directory(self, path: str) -> None:
        """Sync, likewise."""
        self.live()


from tests.crashable import CrashableDisk  # noqa: E402, F401 - one of the stand-ins, in a module of its own
