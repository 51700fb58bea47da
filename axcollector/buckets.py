"""Buckets as directories: moving them between stages, looking into one, and tidying what was delivered. Blocking.

The directory that a bucket lies in is its state, and a rename is the only transition. Two parties add to staging
(the splitter, and the uploader with what comes back from failed) while the uploader takes files out of it, so a
bucket may already be there, get further files, or vanish, between any two system calls:

* A bucket is moved whole by one rename where the stage has none of that name, or an empty one.
* Where it has, the files are moved in one by one, under names that are not taken.
* Where the target vanishes meanwhile (it had become empty), or the source gets further files, it is begun anew.
* A directory is only ever removed by `rmdir`, which refuses where somebody has just added a file.
* Where something else than a directory has the bucket's name in the stage, that is put aside.
"""

import contextlib
import errno
import functools
import heapq
import os
import stat
from dataclasses import dataclass

from axcollector.aside import put_aside
from axcollector.core import layout
from axcollector.core.schedule import StagedFile
from axcollector.core.stamps import unstamp
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
    move_bucket(disk, bucket, stage)
    disk.sync_directory(stage)
    disk.sync_directory(os.path.dirname(bucket))


def merge_buckets(disk: Disk, directory: str, stage: str) -> None:
    """Move all buckets in a directory into a stage, as `merge_bucket` does; what is no directory is put aside.

    The moves become durable together: with a sync for each, ten thousand buckets kept a disk busy for a minute.
    """
    for name in disk.names(directory):
        path = os.path.join(directory, name)
        if disk.is_directory(path):
            move_bucket(disk, path, stage)
        else:
            put_aside(disk, path, os.path.dirname(stage), "it lies where only buckets do and is no directory")
    disk.sync_directory(stage)  # also of those that an earlier try moved
    disk.sync_directory(directory)


def move_bucket(disk: Disk, bucket: str, stage: str) -> None:
    """As `merge_bucket`, but durable only when the stage, and then where the bucket was, have been synced."""
    target = os.path.join(stage, os.path.basename(bucket))
    while not (_rename_whole(disk, bucket, target) or _move_files(disk, bucket, target)):
        pass


def _rename_whole(disk: Disk, bucket: str, target: str) -> bool:
    """Whether the stage had no such bucket, so that one rename did it."""
    try:
        disk.rename(bucket, target)
    except NotADirectoryError:
        if disk.is_directory(target) or not disk.exists(target) or not disk.is_directory(bucket):
            raise
        put_aside(disk, target, os.path.dirname(os.path.dirname(target)), "it has a bucket's name and is no directory")
        return False
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
class Contents:
    """What lies in a bucket, or in a part of it.

    Attributes:
        files: The files to deliver, by name.
        foreign: What is not ours: its name below the stage, and why.
        is_whole: Whether that is all that lies in it.
        more_after: Where it is not, and more is behind it: the last name that was looked at.
    """

    files: tuple[StagedFile, ...]
    foreign: tuple[tuple[str, str], ...]
    is_whole: bool
    more_after: str | None = None


def look_into(disk: Disk, stage: str, bucket: str, after: str = "", limit: int | None = None) -> Contents:
    """See what is in a bucket; files without content, and a bucket without files, are removed on the way.

    Args:
        disk: The hands.
        stage: Path of the stage that it lies in.
        bucket: Its name.
        after: What comes up to this name is left out.
        limit: No more than so many names are looked at, the first ones; None: all are.

    Raises:
        FileNotFoundError: It, or one of its files, has vanished.
        NotADirectoryError: It is something else.
        OSError: It cannot be read.
    """
    start, tenant = parse_bucket(bucket)
    directory = os.path.join(stage, bucket)
    if not stat.S_ISDIR(os.lstat(directory).st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "it is no directory", directory)
    all_names = disk.unsorted_names(directory)
    # Not sorted as a whole: there may be very many, and sorting would keep all threads waiting.
    left = [name for name in all_names if name > after]
    names = heapq.nsmallest(len(left) if limit is None else limit, left)
    files: list[StagedFile] = []
    foreign: list[tuple[str, str]] = []
    for name in names:
        facts = os.lstat(os.path.join(directory, name))
        if not (stat.S_ISREG(facts.st_mode) and name.endswith(layout.FILE_SUFFIX)):
            foreign.append((os.path.join(bucket, name), f"it is no {layout.FILE_SUFFIX} file"))
        elif facts.st_size:
            files.append(StagedFile(start, bucket, name, tenant, facts.st_size))
        else:
            disk.unlink(os.path.join(directory, name))
    if not files and not foreign and len(names) == len(all_names):
        remove_if_empty(disk, directory)
    more_after = names[-1] if len(names) < len(left) else None
    return Contents(tuple(files), tuple(foreign), len(names) == len(all_names), more_after)


def parse_bucket(bucket: str) -> tuple[int, str]:
    """The start, and the tenant's directory name, of a bucket's directory.

    Raises:
        ValueError: It is no bucket's name.
    """
    tenant, _, start = bucket.partition(layout.RECOVERED_MARK)[0].rpartition("~")
    return unstamp(start), _checked(tenant)


@functools.lru_cache(maxsize=10_000)
def _checked(tenant: str) -> str:
    layout.split_tenant_directory(tenant)
    return tenant
