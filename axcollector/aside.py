"""Putting aside what is in the way or cannot be read: to `recovered/unreadable/`, where a person looks at it. Blocking.

A rename moves a thing as it is: a symbolic link is not followed, a pipe not opened, a file not read.
"""

import os

from twisted.logger import Logger

from axcollector.core.layout import UNREADABLE, Stage
from axcollector.disk import Disk, ensure_within

_log = Logger()


def put_aside(disk: Disk, path: str, data_directory: str, why: str = "") -> str:
    """Move something to `recovered/unreadable/`, durably but for its old name; with a reason, it is logged.

    Returns:
        Where it lies now: the directory.

    Raises:
        OSError: It stays where it was.
    """
    kept = ensure_within(disk, data_directory, Stage.RECOVERED, UNREADABLE)
    move_beside(disk, path, kept)
    if why:
        _log.error("{path} is put aside, in {kept}: {why}", path=path, kept=kept, why=why)
    return kept


def move_beside(disk: Disk, path: str, directory: str) -> None:
    """Move something into a directory, durably but for its old name, under a name that is not taken there."""
    name = os.path.basename(path)
    place = os.path.join(directory, name)
    number = 1
    while disk.exists(place):
        number += 1
        place = os.path.join(directory, f"{name}_{number}")
    disk.rename(path, place)
    disk.sync_directory(directory)
