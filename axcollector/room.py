"""Whether there is room on disk for more. Nothing is ever deleted to make room: new batches are refused instead."""

import os
from collections.abc import Iterator

from twisted.logger import Logger

from axcollector.core.errors import SpoolFailed
from axcollector.core.layout import Stage
from axcollector.directories import DurableDirectories
from axcollector.disk import Disk

MINIMUM_FREE_SHARE = 0.10
"""With no quota set, new batches are refused while less than this share of the file system is free."""


class Lack:
    """Whether there is room, as far as is known; who knows it sets it.

    Attributes:
        lack: What is lacking, in one sentence, or None.
    """

    lack: str | None = None

    def check(self) -> None:
        """Refuse a batch while there is no room.

        Raises:
            SpoolFailed: There is none; the reason says what to do.
        """
        if self.lack is not None:
            raise SpoolFailed(self.lack)


class Room(Lack):
    """Measures the spool now and then (blocking, in a thread), and answers from the last measurement.

    Attributes:
        used_bytes: How large the stages were together; None: that was not measured, as without a quota it is not.
        free_share: The share of the file system that is free, 0 to 1; None: that was not measured.
        is_measured: Whether it is known at all whether there is room: a large spool takes a while after the start.
    """

    _log = Logger()
    used_bytes: int | None = None
    free_share: float | None = None
    is_measured = False

    def __init__(self, disk: Disk, data_directory: str, quota_bytes: int) -> None:
        """Nothing is measured yet, so there is room.

        Args:
            disk: The hands.
            data_directory: Where the stages are.
            quota_bytes: How large they may be together; 0: as large as the file system's free share allows.
        """
        self._disk = disk
        self._data_directory = data_directory
        self._directories = DurableDirectories(disk)
        self._quota = quota_bytes

    def measure(self) -> None:
        """Look whether there is room, and log it when that has changed; stages that somebody removed are made anew."""
        try:
            for stage in Stage:
                self._directories.ensure(os.path.join(self._data_directory, stage))
            lack = self._measured()
        except OSError as exc:
            lack = f"the spool's directories cannot be used: {exc.strerror}"
        if lack is not None and self.lack is None:
            self._log.error("no room: {lack}; new batches get 503", lack=lack)
        elif lack is None and self.lack is not None:
            self._log.info("there is room again")
        self.lack = lack
        self.is_measured = True

    def _measured(self) -> str | None:
        free = self.free_share = self._disk.free_share(self._data_directory)
        if self._quota:
            used = self.used_bytes = sum(self._sizes(self._data_directory))
            if used >= self._quota:
                return (
                    f"the spool holds {used} bytes, its quota (spool_quota_bytes) is {self._quota}:"
                    " see why uploads do not drain it, or raise the quota"
                )
        elif free < MINIMUM_FREE_SHARE:
            return (
                f"only {free:.1%} of the spool's file system is free, {MINIMUM_FREE_SHARE:.0%} are needed:"
                " free some, or set spool_quota_bytes"
            )
        return None

    def _sizes(self, directory: str) -> Iterator[int]:
        for stage in Stage:
            yield from sizes_below(os.path.join(directory, stage))


def sizes_below(directory: str) -> Iterator[int]:
    """The sizes of all files below a directory; what vanishes meanwhile counts for nothing."""
    for here, _, names in os.walk(directory):
        for name in names:
            try:
                yield os.lstat(os.path.join(here, name)).st_size
            except FileNotFoundError:
                continue
