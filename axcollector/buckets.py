"""Buckets as directories: moving them between stages, listing a stage, and tidying what was delivered. Blocking.

The directory that a bucket lies in is its state, and a rename is the only transition. Two parties add to staging
(the splitter, and the uploader with what comes back from failed) while the uploader takes files out of it, so a
bucket may already be there, get further files, or vanish, between any two system calls:

* A bucket is moved whole by one rename where the stage has none of that name, or an empty one.
* Where it has, the files are moved in one by one, under names that are not taken.
* Where the target vanishes meanwhile (it had become empty), or the source gets further files, it is begun anew.
* A directory is only ever removed by `rmdir`, which refuses where somebody has just added a file.
"""

import contextlib
import errno
import os
import stat
from collections import deque
from dataclasses import dataclass

from axcollector.core import layout
from axcollector.core.schedule import StagedFile
from axcollector.disk import Disk, read_slices

_NOT_EMPTY = frozenset({errno.ENOTEMPTY, errno.EEXIST})
"""What rename and rmdir say of a directory with something in it; POSIX allows either."""


def merge_bucket(disk: Disk, bucket: str, stage: str) -> None:
    """Move a bucket's directory into a stage; where the stage has that bucket already, add its files to it.

    No file is overwritten: one whose name is taken by the same content is dropped, by other content gets a name of
    its own. When this returns, the move is durable. After a crash on the way each file lies in one of the two places.

    Args:
        disk: The hands.
        bucket: Path of the bucket's directory, the files in it and their names being durable.
        stage: Path of the stage's directory, on the same file system.

    Raises:
        OSError: Some files may have been moved; calling again goes on.
    """
    target = os.path.join(stage, os.path.basename(bucket))
    while not (_rename_whole(disk, bucket, target) or _move_files(disk, bucket, target)):
        pass
    disk.sync_directory(stage)
    disk.sync_directory(os.path.dirname(bucket))


def _rename_whole(disk: Disk, bucket: str, target: str) -> bool:
    """Whether the stage had no such bucket, so that one rename did it."""
    try:
        disk.rename(bucket, target)
    except OSError as exc:
        if exc.errno not in _NOT_EMPTY:
            raise
        return False
    return True


def _move_files(disk: Disk, bucket: str, target: str) -> bool:
    """Move the files into the stage's bucket; whether all of it is done, or to be begun anew."""
    for name in disk.names(bucket):
        try:
            _move_file(disk, os.path.join(bucket, name), target)
        except FileNotFoundError:
            if disk.exists(target):
                raise
            return False
    with contextlib.suppress(FileNotFoundError):  # emptied by the uploader: all that was moved is delivered
        disk.sync_directory(target)
    return remove_if_empty(disk, bucket)


def _move_file(disk: Disk, path: str, target: str) -> None:
    name = os.path.basename(path)
    place = os.path.join(target, name)
    number = 1
    while disk.exists(place):
        if _same_content(disk, path, place):
            disk.unlink(path)
            return
        number += 1
        place = os.path.join(target, f"{name.removesuffix(layout.FILE_SUFFIX)}_{number}{layout.FILE_SUFFIX}")
    disk.rename(path, place)


def _same_content(disk: Disk, path: str, other: str) -> bool:
    facts = os.lstat(path), os.lstat(other)
    if not all(stat.S_ISREG(fact.st_mode) for fact in facts) or facts[0].st_size != facts[1].st_size:
        return False
    with disk.open(path) as one, disk.open(other) as two:
        return all(a == b for a, b in zip(read_slices(one), read_slices(two), strict=False))


def remove_if_empty(disk: Disk, directory: str) -> bool:
    """Remove a directory where nothing is in it; whether it is gone."""
    try:
        disk.remove_directory(directory)
    except FileNotFoundError:
        return True
    except OSError as exc:
        if exc.errno not in _NOT_EMPTY:
            raise
        return False
    return True


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies in a stage, or in some of its buckets.

    Attributes:
        files: The files to deliver, oldest first.
        foreign: What is not ours, or cannot be used: path below the stage, and why.
        buckets: How many buckets were looked into.
    """

    files: tuple[StagedFile, ...] = ()
    foreign: tuple[tuple[str, str], ...] = ()
    buckets: int = 0


class Stages:
    """Staging and failed, as the uploader uses them. For one thread at a time."""

    def __init__(self, disk: Disk, data_directory: str) -> None:
        self._disk = disk
        self._staging = os.path.join(data_directory, layout.Stage.STAGING)
        self._failed = os.path.join(data_directory, layout.Stage.FAILED)
        self._to_bring_back: deque[str] = deque()

    def path(self, file: StagedFile) -> str:
        """Where a staged file lies."""
        return os.path.join(self._staging, file.bucket, file.name)

    def staged(self) -> Listing:
        """What is in staging; files without content and directories without files are removed on the way.

        Raises:
            OSError: Staging itself cannot be read.
        """
        return self._look_into(self._disk.names(self._staging))

    def _look_into(self, buckets: list[str]) -> Listing:
        files: list[StagedFile] = []
        foreign: list[tuple[str, str]] = []
        for bucket in buckets:
            try:
                start, tenant = _parse(bucket)
                self._look_into_bucket(start, tenant, bucket, files, foreign)
            except FileNotFoundError:
                continue  # taken away meanwhile
            except ValueError:
                foreign.append((bucket, "its name is not that of a bucket"))
            except OSError as exc:
                foreign.append((bucket, f"it cannot be read: {exc.strerror}"))
        files.sort(key=lambda file: (file.start, file.bucket, file.name))
        return Listing(tuple(files), tuple(foreign), len(buckets))

    def _look_into_bucket(
        self, start: int, tenant: str, bucket: str, files: list[StagedFile], foreign: list[tuple[str, str]]
    ) -> None:
        directory = os.path.join(self._staging, bucket)
        if not self._disk.is_directory(directory):
            foreign.append((bucket, "it is no directory"))
            return
        names = self._disk.names(directory)
        for name in names:
            facts = os.lstat(os.path.join(directory, name))
            if not (stat.S_ISREG(facts.st_mode) and name.endswith(layout.FILE_SUFFIX)):
                foreign.append((os.path.join(bucket, name), f"it is no {layout.FILE_SUFFIX} file"))
            elif facts.st_size:
                files.append(StagedFile(start, bucket, name, tenant, facts.st_size))
            else:
                self.discard(bucket, name)
        if not names:
            remove_if_empty(self._disk, directory)

    def has(self, file: StagedFile) -> bool:
        """Whether a staged file is still there."""
        return self._disk.exists(self.path(file))

    def discard(self, bucket: str, name: str) -> None:
        """Remove a file that is delivered or empty, and its bucket when nothing else is in it.

        Raises:
            OSError: It could not be removed.
        """
        directory = os.path.join(self._staging, bucket)
        with contextlib.suppress(FileNotFoundError):
            self._disk.unlink(os.path.join(directory, name))
        remove_if_empty(self._disk, directory)

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

    def bring_back(self, limit: int) -> Listing:
        """Move up to `limit` buckets from failed back to staging, oldest first; what is to be delivered of them.

        All that is in failed has its turn before anything that was given up meanwhile has another one.

        Raises:
            OSError: Failed itself cannot be read.
        """
        if not self._to_bring_back:
            buckets = [name for name in self._disk.names(self._failed) if _is_bucket(name)]
            self._to_bring_back.extend(sorted(buckets, key=lambda name: (_parse(name)[0], name)))
        moved: list[str] = []
        foreign: list[tuple[str, str]] = []
        while self._to_bring_back and len(moved) < limit:
            bucket = self._to_bring_back.popleft()
            directory = os.path.join(self._failed, bucket)
            if self._disk.is_directory(directory):
                try:
                    merge_bucket(self._disk, directory, self._staging)
                except OSError as exc:
                    foreign.append((bucket, f"it cannot be moved to staging: {exc.strerror}"))
                else:
                    moved.append(bucket)
        return Listing(self._look_into(moved).files, tuple(foreign), len(moved))


def _parse(bucket: str) -> tuple[int, str]:
    """The start, and the tenant's directory name, of a bucket's directory.

    Raises:
        ValueError: It is no bucket's name.
    """
    name = layout.parse_bucket_directory(bucket)
    return name.start, layout.tenant_directory(name.organization, name.environment)


def _is_bucket(name: str) -> bool:
    try:
        layout.parse_bucket_directory(name)
    except ValueError:
        return False
    return True
