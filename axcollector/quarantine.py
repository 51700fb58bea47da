"""Room for records that are set aside: how much of them is kept, against a quota of its own.

What counts is what lies in `quarantine/` (measured now and then), what stands in journals that are not split yet, and
what waits for a commit. So the quota holds at any moment, but for what a crash left in journals: that was acknowledged,
and comes to `quarantine/` whatever the quota says.

Of several processes one measures, and tells the others: what it has found, and what all others hold.

When it is full, a batch that has bad records gets 503, and stays with its client; others are taken as ever.
"""

import os

from twisted.logger import Logger

from axcollector.core.errors import SpoolFailed
from axcollector.core.layout import JOURNAL_SUFFIX, QUARANTINE
from axcollector.disk import Disk
from axcollector.room import sizes_below


class Quarantine:
    """How full it is. Its parts may be called from different threads: the reactor's, the writer's, the splitters'.

    Attributes:
        records: How many records were set aside, durably, since the start.
        refused: How many batches were refused since the start because it was full.
        measurements: How many there have been.
    """

    _log = Logger()

    def __init__(self, data_directory: str, quota_bytes: int = 0) -> None:
        """Nothing is measured yet.

        Args:
            data_directory: Where the stages are.
            quota_bytes: How much may be kept; 0: any amount.
        """
        self._directory = os.path.join(data_directory, QUARANTINE)
        self._quota = quota_bytes
        self._measured = 0
        self._waiting = 0
        self._journals: dict[str, int] = {}
        self._published: dict[str, int] = {}  # since the last measurement
        self._seen: tuple[str, ...] = ()  # of those, at the measurement before
        self._is_full = False
        self.measurements = 0
        self.records = 0
        self.refused = 0

    @property
    def used_bytes(self) -> int:
        """What is kept, compressed, and what waits, as it is."""
        return self._measured + self.held_bytes

    @property
    def measured_bytes(self) -> int:
        """What lay in `quarantine/` when it was measured; as it was told, with what others hold."""
        return self._measured

    @property
    def held_bytes(self) -> int:
        """What this process has set aside, and was not measured yet."""
        journals = tuple(self._journals.values()) + tuple(self._published.values())
        return self._waiting + sum(journals)

    def hold(self, size: int) -> None:
        """Let so many bytes of lines wait for a commit; `settle` them.

        Raises:
            SpoolFailed: There is no room for them.
        """
        used = self.used_bytes
        if self._quota and used + size > self._quota:
            self.refused += 1
            if not self._is_full:
                self._is_full = True
                self._log.error(
                    "the quarantine holds {used} bytes, its quota (quarantine_quota_bytes) is {quota}: batches with bad"
                    " records get 503; see `axcollector quarantine list`, retry or drop some, or raise the quota",
                    used=used,
                    quota=self._quota,
                )
            raise SpoolFailed("There is no room to set the batch's invalid records aside (quarantine_quota_bytes)")
        self._waiting += size

    def settle(self, size: int, count: int) -> None:
        """So many bytes wait no more, and so many records were written."""
        self._waiting -= size
        self.records += count

    def note(self, identity: str, size: int) -> None:
        """A journal holds so many bytes more, compressed."""
        self._journals[identity] = self._journals.get(identity, 0) + size

    def publish(self, identity: str) -> None:
        """What a journal held lies in `quarantine/` now."""
        size = self._journals.get(identity)
        if size is not None:
            self._published[identity] = size  # first, so that it is never missed
            self._journals.pop(identity, None)

    def measure(self) -> None:
        """Look how much lies in `quarantine/`. Blocking."""
        seen = tuple(self._published)
        self._measured = sum(sizes_below(self._directory))
        for identity in seen:
            self._published.pop(identity, None)
        self.measurements += 1
        self._look_again()

    def told(self, size: int, measurements: int) -> None:
        """Somebody else has measured, so often; with what others hold that makes so many bytes."""
        self._measured = size
        if measurements != self.measurements:
            self.measurements = measurements
            for identity in self._seen:
                self._published.pop(identity, None)
            # A measurement that is told now may have begun before these came; the next one has not.
            self._seen = tuple(self._published)
        self._look_again()

    def publish_gone(self, disk: Disk, directory: str) -> None:
        """Those of our journals that are not in their directory any more were split, by somebody else."""
        for identity in tuple(self._journals):
            if not disk.exists(os.path.join(directory, identity + JOURNAL_SUFFIX)):
                self.publish(identity)

    def _look_again(self) -> None:
        if self._is_full and self.used_bytes < self._quota:
            self._is_full = False
            self._log.info("there is room in the quarantine again")
