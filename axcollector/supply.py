"""Keeps the uploader's schedule supplied: what is staged is fetched page by page, what has failed is brought back.

The schedule knows a few hundred files, the disk may hold 100,000 buckets. Where files are ready to go for fewer slots
than they will soon be asked for, the next page is fetched, without the tenants that have files enough or may not go at
present: a long backlog of theirs hides nobody else's.
"""

import sys
from typing import Final

from axcollector.backlog import SLICE, StagedBacklog
from axcollector.core.schedule import Schedule
from axcollector.outcomes import Outcomes
from axcollector.services import Worker

_PAGE_FILES: Final = 250
"""About how many files are fetched at once."""
_LOW_FILES: Final = 100
"""With fewer than so many files ready to go, of all tenants or of one, more are fetched."""
_ANY: Final = sys.maxsize
"""However many wait already."""
_MOST_FILES: Final = 2000
"""With so many files waiting, most of them of tenants that may not go, no more are fetched before the next sweep."""


class Supply:
    """Fetches and brings back, between `start` and `stop`; one of each at a time."""

    def __init__(
        self, worker: Worker, backlog: StagedBacklog, schedule: Schedule, outcomes: Outcomes, failed_retry_batch: int
    ) -> None:
        """Prepare.

        Args:
            worker: Who works on the disk.
            backlog: What waits there; used by the worker only.
            schedule: What is supplied.
            outcomes: Who tells.
            failed_retry_batch: How many buckets of failed get another chance at once.
        """
        self._worker = worker
        self._backlog = backlog
        self._schedule = schedule
        self._outcomes = outcomes
        self._failed_retry_batch = failed_retry_batch
        self._is_stopped = False
        self._left = 0
        self._in_vain: frozenset[str] | None = None
        self._is_fetching = False
        self._is_bringing_back = False
        self._is_due_again = False

    def start(self) -> None:
        """Work may begin."""
        self._is_stopped = False

    def stop(self) -> None:
        """End what is done slice by slice."""
        self._is_stopped = True

    async def sweep(self) -> bool:
        """Take in what is in staging, and fetch the first page; whether there is nothing to deliver.

        Raises:
            OSError: Staging cannot be read.
        """
        while not await self._worker.run(self._backlog.sweep):
            if self._is_stopped:
                return False
        self._schedule.refresh()
        return not await self._fetch(frozenset()) and not self._left

    def is_low(self) -> bool:
        """Whether it is time to `fetch`."""
        if self._is_fetching or not self._left:
            return False
        if self._schedule.ready >= _LOW_FILES or self._schedule.waiting >= _MOST_FILES:
            return False
        return self._schedule.supplied(_LOW_FILES) != self._in_vain

    async def fetch(self) -> None:
        """Get the next page, without the tenants that need no more at present."""
        self._is_fetching = True
        try:
            await self._fetch(self._schedule.supplied(_LOW_FILES))
        finally:
            self._is_fetching = False

    async def _fetch(self, skip: frozenset[str]) -> int:
        page = await self._worker.run(self._backlog.page, _PAGE_FILES, skip)
        self._left = page.left
        self._in_vain = None if page.looked else skip
        self._outcomes.left_alone(page.foreign)
        self._schedule.add(page.files)
        return len(page.files)

    async def measure(self) -> None:
        """Count what nobody has looked into yet."""
        while self._backlog.summary.unmeasured_buckets and not self._is_stopped:
            await self._worker.run(self._backlog.measure)

    async def bring_back(self) -> bool:
        """Give some of failed another chance, and again if that was asked for meanwhile; whether any came back."""
        self._is_due_again = True
        if self._is_bringing_back:
            return False
        self._is_bringing_back = True
        buckets = 0
        try:
            while self._is_due_again and not self._is_stopped:
                self._is_due_again = False
                buckets += await self._bring_some_back()
        finally:
            self._is_bringing_back = False
        return bool(buckets)

    async def retry(self, bucket: str | None = None) -> int:
        """Give a bucket of failed, whatever its turn, or all of them another chance now; how many came back.

        Raises:
            OSError: It cannot be moved, or failed not be read, or that they were moved may not be durable.
        """
        if bucket is None:
            return await self._retry_all()
        buckets = int(await self._worker.run(self._backlog.bring_back_one, bucket))
        self._came_back(buckets)
        return buckets

    async def _retry_all(self) -> int:
        buckets = 0
        for _ in range(2):  # what an earlier listing has left, and what has failed since
            while not await self._worker.run(self._backlog.list_failed):
                if self._is_stopped:
                    return buckets
            while not self._is_stopped and (moved := await self._worker.run(self._backlog.bring_back, SLICE, _ANY)):
                self._came_back(moved)
                buckets += moved
        return buckets

    def _came_back(self, buckets: int) -> None:
        if buckets:
            self._outcomes.returned(buckets)
            self._left += buckets
            self._in_vain = None

    async def _bring_some_back(self) -> int:
        try:
            while not await self._worker.run(self._backlog.list_failed):
                if self._is_stopped:
                    return 0
            buckets = await self._worker.run(self._backlog.bring_back, self._failed_retry_batch)
        except OSError as exc:
            self._outcomes.disk_failed("failed cannot be read", exc)
            return 0
        self._came_back(buckets)
        return buckets
