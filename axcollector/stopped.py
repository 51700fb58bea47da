"""What may be done in the data directory of a stopped collector, while nobody else can start there. Blocking."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Final

from axcollector.buckets import move_bucket, parse_bucket
from axcollector.core.errors import UnsafeDirectory
from axcollector.core.layout import Stage
from axcollector.disk import Disk
from axcollector.failed import FailedStage
from axcollector.locks import Lock

_SLICE: Final = 1000


@contextlib.contextmanager
def possession(root: str) -> Iterator[None]:
    """Holds the data directory at `root`, as a collector does that runs there.

    Raises:
        DirectoryInUse: A collector, or somebody else who holds it, works there.
        UnsafeDirectory: It is another user's.
        OSError: It is not there, or cannot be locked.
    """
    check_owner(root)
    lock = Lock(os.path.join(root, "lock"))
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def check_owner(root: str) -> None:
    """See that a data directory is ours: what another user, and be it root, writes there its collector cannot read.

    Raises:
        UnsafeDirectory: It is another user's.
        OSError: It is not there.
    """
    owner = os.stat(root).st_uid
    if owner != os.geteuid():
        raise UnsafeDirectory(
            f"{root} belongs to user {owner}, whose collector could not read what you would write there:"
            f" run this as that user, such as with sudo -u '#{owner}'"
        )


def return_failed(disk: Disk, data_directory: str, bucket: str | None = None) -> int:
    """Move this bucket, or all, from failed back to staging, durably. How many were moved.

    Raises:
        OSError: Some may have been moved.
    """
    staging, failed = (os.path.join(data_directory, stage) for stage in (Stage.STAGING, Stage.FAILED))
    moved = _return_all(disk, failed, staging) if bucket is None else _return_one(disk, failed, staging, bucket)
    if moved:
        disk.sync_directory(staging)
        disk.sync_directory(failed)
    return moved


def _return_all(disk: Disk, failed: str, staging: str) -> int:
    if not disk.is_directory(failed):
        return 0
    stage = FailedStage(disk, failed, _SLICE)
    while not stage.take_in():
        pass
    moved, foreign = stage.move(sys.maxsize, staging)
    if foreign:
        message = "; ".join(f"{what}: {why}" for what, why in foreign)
        raise OSError(message)
    return len(moved)


def _return_one(disk: Disk, failed: str, staging: str, bucket: str) -> int:
    try:
        parse_bucket(bucket)
    except ValueError:
        return 0
    path = os.path.join(failed, bucket)
    if os.path.basename(bucket) != bucket or not disk.is_directory(path):
        return 0
    move_bucket(disk, path, staging)
    return 1
