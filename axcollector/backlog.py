"""The buckets that wait on disk: found, looked into, tidied and moved, a slice at a time. Blocking.

Staging and failed may hold 100,000 buckets, while the uploader needs a few hundred files at a time and shares its
thread with what it deletes and moves. So each call here does a bounded piece of work:

* A sweep reads staging's names, which is quick, and takes in some of them with each call (`sweep`).
* Buckets are looked into when their turn comes (`page`), tenants taking turns, oldest first; all of them are eventually
  counted, in the background (`measure`).
* Buckets of failed are brought back in the order that a listing gave; all of them have their turn before anything that
  was given up meanwhile has another one (`list_failed`, `bring_back`).

Names that others add or take away meanwhile are found, or found missing, later. `Uploader` says when to call what; all
calls are made in one thread, only `summary` may be read from others.
"""

import contextlib
import os
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from axcollector.buckets import look_into, merge_bucket, parse_bucket, remove_if_empty
from axcollector.core import layout
from axcollector.core.delivery import Backlog
from axcollector.core.foreign import Foreign, Told
from axcollector.core.schedule import StagedFile
from axcollector.core.turns import Entry, Turns
from axcollector.disk import Disk
from axcollector.failed import FailedStage

SLICE: Final = 250
"""How many names, or buckets, one call deals with: a few milliseconds."""
RETURNED_LIMIT: Final = 1000
"""While so many buckets that came back from failed wait for their turn, no more do: enough for any store."""


@dataclass(frozen=True, slots=True)
class Page:
    """The next files to deliver.

    Attributes:
        files: These.
        looked: Into how many buckets was looked for them.
        left: How many still wait to be looked into.
        foreign: What is in the way and was not told before: name below the stage, and why.
    """

    files: tuple[StagedFile, ...]
    looked: int
    left: int
    foreign: tuple[Told, ...] = ()


class StagedBacklog:
    """Staging and failed, as the uploader uses them.

    Attributes:
        summary: What waits, as of the last call.
    """

    def __init__(self, disk: Disk, data_directory: str) -> None:
        self._disk = disk
        self._staging = os.path.join(data_directory, layout.Stage.STAGING)
        self._failed = os.path.join(data_directory, layout.Stage.FAILED)
        self._sweep = 0
        self._names: list[str] | None = None
        self._suspects: list[str] | None = None
        self._oldest: int | None = None
        self._oldest_so_far: int | None = None
        self._seen: dict[str, int] = {}
        self._strangers: set[str] = set()
        self._turns = Turns()
        self._sizes: dict[str, tuple[int, int]] = {}
        self._to_measure: set[str] = set()
        self._files = self._bytes = 0
        self._failed_stage = FailedStage(disk, self._failed, SLICE)
        self._returned: set[str] = set()
        self._foreign = Foreign()
        self.summary = Backlog()

    def path(self, file: StagedFile) -> str:
        """Where a staged file lies."""
        return os.path.join(self._staging, file.bucket, file.name)

    def sweep(self) -> bool:
        """Take in the next names of staging; whether that was all, and the sweep is over.

        Raises:
            OSError: Staging itself cannot be read.
        """
        if self._names is None:
            self._names = self._disk.unsorted_names(self._staging)
            self._sweep += 1
            self._oldest_so_far = None
        for _ in range(min(SLICE, len(self._names))):
            self._take_in(self._names.pop())
        if self._names:
            return False
        if self._suspects is None:
            self._suspects = list(self._seen)
        for _ in range(min(10 * SLICE, len(self._suspects))):
            bucket = self._suspects.pop()
            if self._seen.get(bucket, self._sweep) < self._sweep:
                self._forget(bucket)
        if self._suspects:
            return False
        self._names = self._suspects = None
        self._oldest = self._oldest_so_far
        self._sum_up()
        return True

    def _take_in(self, bucket: str) -> None:
        is_new = bucket not in self._seen
        self._seen[bucket] = self._sweep
        try:
            start, tenant = parse_bucket(bucket)
        except ValueError:
            self._strangers.add(bucket)
            self._foreign.note(bucket, bucket, "its name is not that of a bucket")
            return
        if is_new:
            self._to_measure.add(bucket)
        if self._oldest_so_far is None or start < self._oldest_so_far:
            self._oldest_so_far = start
        self._turns.add((start, bucket, "", tenant))

    def page(self, limit: int, skip: AbstractSet[str]) -> Page:
        """Look into the next buckets, none of the tenants in `skip`, for about `limit` files."""
        files: list[StagedFile] = []
        looked = 0
        with contextlib.closing(self._turns.taking(skip)) as entries:  # type: ignore[type-var]  # has `close`
            for entry in entries:
                files += self._look_into(entry, limit)
                looked += 1
                if len(files) >= limit or looked >= limit:
                    break
        self._sum_up()
        return Page(tuple(files), looked, len(self._turns), self._foreign.news(SLICE))

    def _look_into(self, entry: Entry, limit: int) -> tuple[StagedFile, ...]:
        start, bucket, after, tenant = entry
        self._returned.discard(bucket)
        try:
            contents = look_into(self._disk, self._staging, bucket, after, limit)
        except FileNotFoundError:
            self._missing(bucket)
            return ()
        except NotADirectoryError:
            self._foreign.note(bucket, bucket, "it is no directory")
            return ()
        except OSError as exc:
            self._foreign.note(bucket, bucket, f"it cannot be read: {exc.strerror}")
            return ()
        for what, why in contents.foreign:
            self._foreign.note(bucket, what, why)
        if contents.is_whole:
            self._measured(bucket, contents.files)
        elif contents.more_after is not None:
            self._turns.add((start, bucket, contents.more_after, tenant))
        return contents.files

    def _missing(self, bucket: str) -> None:
        """It, or one of its files, was not there: forget it, or look again with the next sweep."""
        if not self._disk.exists(os.path.join(self._staging, bucket)):
            self._forget(bucket)

    def measure(self) -> bool:
        """Count the files of some buckets that nobody has looked into; whether all are counted."""
        for _ in range(min(SLICE, len(self._to_measure))):
            bucket = self._to_measure.pop()
            try:
                self._measured(bucket, look_into(self._disk, self._staging, bucket).files)
            except FileNotFoundError:
                self._missing(bucket)
            except OSError:
                pass  # told when its turn comes
        self._sum_up()
        return not self._to_measure

    def _measured(self, bucket: str, files: tuple[StagedFile, ...]) -> None:
        self._to_measure.discard(bucket)
        self._resize(bucket, len(files), sum(file.size for file in files))
        if not files:
            self._missing(bucket)

    def _resize(self, bucket: str, files: int, size: int) -> None:
        before = self._sizes.pop(bucket, (0, 0))
        if files:
            self._sizes[bucket] = files, size
        self._files += files - before[0]
        self._bytes += size - before[1]

    def _forget(self, bucket: str) -> None:
        self._seen.pop(bucket, None)
        self._strangers.discard(bucket)
        self._to_measure.discard(bucket)
        self._foreign.forget(bucket)
        self._resize(bucket, 0, 0)

    def has(self, file: StagedFile) -> bool:
        """Whether a staged file is still there."""
        return self._disk.exists(self.path(file))

    def discard(self, file: StagedFile) -> bool:
        """Remove a file that is delivered, and its bucket when nothing else is in it; whether the bucket is gone.

        Raises:
            OSError: It could not be removed.
        """
        directory = os.path.join(self._staging, file.bucket)
        is_there = self._disk.is_directory(directory)  # if only a link of its name is, nothing is deleted through that
        if is_there:
            with contextlib.suppress(FileNotFoundError):
                self._disk.unlink(os.path.join(directory, file.name))
        is_gone = not is_there or remove_if_empty(self._disk, directory)
        if is_gone:
            self._forget(file.bucket)
        elif file.bucket in self._sizes:
            files, size = self._sizes[file.bucket]
            self._resize(file.bucket, files - 1, size - file.size)
        self._sum_up()
        return is_gone

    def give_up(self, bucket: str) -> None:
        """Move a bucket from staging to failed; one that is gone is no error.

        Raises:
            OSError: It could not be moved.
        """
        directory = os.path.join(self._staging, bucket)
        try:
            merge_bucket(self._disk, directory, self._failed)
        except FileNotFoundError:
            if self._disk.exists(directory):
                raise
        else:
            self._failed_stage.count += 1
        self._forget(bucket)
        self._sum_up()

    def list_failed(self) -> bool:
        """Take in the next names of failed, unless some still wait for their turn; whether that was all.

        Raises:
            OSError: Failed itself cannot be read.
        """
        is_done = self._failed_stage.take_in()
        self._sum_up()
        return is_done

    def bring_back(self, limit: int, waiting_limit: int = RETURNED_LIMIT) -> int:
        """Move up to `limit` buckets from failed back to staging, oldest first; returns how many.

        None is moved while `waiting_limit` that came back before wait for their turn.

        Raises:
            OSError: That they were moved may not be durable.
        """
        moved, foreign = self._failed_stage.move(min(limit, waiting_limit - len(self._returned)), self._staging)
        for what, why in foreign:
            self._foreign.note(what, what, why)
        self._came_back(moved)
        return len(moved)

    def bring_back_one(self, bucket: str) -> bool:
        """Move this bucket of failed back to staging; whether it was there.

        Raises:
            OSError: It could not be moved, or that it was may not be durable.
        """
        try:
            parse_bucket(bucket)
        except ValueError:
            return False
        was_there = self._failed_stage.move_one(bucket, self._staging)
        self._came_back([bucket] if was_there else [])
        return was_there

    def _came_back(self, moved: list[str]) -> None:
        for bucket in moved:
            self._returned.add(bucket)
            self._take_in(bucket)
        if moved:
            self._disk.sync_directory(self._staging)
            self._disk.sync_directory(self._failed)
            self._sum_up()

    def _sum_up(self) -> None:
        buckets = len(self._seen) - len(self._strangers)
        self.summary = Backlog(
            buckets=buckets,
            files=self._files,
            bytes=self._bytes,
            unmeasured_buckets=len(self._to_measure),
            failed_buckets=max(0, self._failed_stage.count),
            oldest_start=self._oldest if buckets else None,
        )
