"""Whose turn it is among the buckets that failed: all that a listing found, oldest first, before any has another one.

For one thread, which never has to do with more than a slice of a long list at once. Blocking.
"""

import contextlib
import errno
import os
from heapq import heappop, heappush

from axcollector.buckets import move_bucket, parse_bucket
from axcollector.core import layout
from axcollector.core.foreign import Told
from axcollector.disk import Disk


class FailedStage:
    """The directory `failed`.

    Attributes:
        count: How many buckets lie in it: as last listed, and what was moved since.
    """

    def __init__(self, disk: Disk, directory: str, slice_names: int) -> None:
        """Look at nothing yet.

        Args:
            disk: The hands.
            directory: Its path.
            slice_names: How many names are taken in at once.
        """
        self._disk = disk
        self._directory = directory
        self._slice = slice_names
        self._names: list[str] | None = None
        self._turns: list[tuple[int, str]] = []
        self.count = 0

    def take_in(self) -> bool:
        """Take in the next names, unless some still wait for their turn; whether that was all.

        Raises:
            OSError: The directory cannot be read.
        """
        if self._names is None:
            if self._turns:
                return True
            self._names = self._disk.unsorted_names(self._directory)
            self.count = 0
        for _ in range(min(self._slice, len(self._names))):
            name = self._names.pop()
            with contextlib.suppress(ValueError):
                heappush(self._turns, (parse_bucket(name)[0], name))
                self.count += 1
        if self._names:
            return False
        self._names = None
        return True

    def move(self, limit: int, stage: str) -> tuple[list[str], list[Told]]:
        """Move up to `limit` buckets to another stage; both are yet to be synced.

        Returns:
            Those that were moved; what could not be, and why.
        """
        moved: list[str] = []
        foreign: list[Told] = []
        while self._turns and len(moved) < limit:
            _, bucket = heappop(self._turns)
            problem = self._move(bucket, stage)
            if problem is None:
                moved.append(bucket)
            elif problem:
                foreign.append((f"{layout.Stage.FAILED}/{bucket}", problem))
        return moved, foreign

    def _move(self, bucket: str, stage: str) -> str | None:
        """Move a bucket. None: it was moved; else why not, or nothing where it is not there."""
        path = os.path.join(self._directory, bucket)
        if not self._disk.is_directory(path):
            return "it is no directory" if self._disk.exists(path) else ""
        try:
            move_bucket(self._disk, path, stage)
        except OSError as exc:
            return f"it cannot be moved to staging: {exc.strerror}"
        self.count -= 1
        return None

    def move_one(self, bucket: str, stage: str) -> bool:
        """Move this bucket to another stage, out of turn; both are yet to be synced. Whether it was there.

        Raises:
            OSError: It could not be moved.
        """
        problem = self._move(bucket, stage)
        if problem:
            raise OSError(errno.EIO, problem)
        return problem is None
