"""What a crash left in `tmp/`, taken over at the start, before anything else is opened. Blocking."""

import os

from axcollector.core.layout import JOURNAL_SUFFIX, RECOVERED_MARK, JournalName, Stage
from axcollector.core.stamps import stamp_milliseconds
from axcollector.disk import Disk, remove_tree


def take_over(disk: Disk, data_directory: str, now: float) -> int:
    """Move what a crash left in `tmp/` to `recovered/`, before anything else is opened. How many things were moved.

    A split beside its journal is worth nothing, and is removed first, durably: alone it would be taken for the truth.
    What is found need not be durable, because whoever did it was killed; so first of all it is made so: a journal that
    was deleted may not come back when its split is on its way already.
    """
    source = os.path.join(data_directory, Stage.TMP)
    target = os.path.join(data_directory, Stage.RECOVERED)
    disk.sync_directory(target)
    disk.sync_directory(source)
    names = disk.names(source)
    broken_off = [name for name in names if name.removesuffix(".split") + JOURNAL_SUFFIX in names]
    for name in broken_off:
        remove_tree(disk, os.path.join(source, name))
    if broken_off:
        disk.sync_directory(source)
    left = [name for name in names if name not in broken_off]
    for name in left:
        disk.rename(os.path.join(source, name), os.path.join(target, _recovered_name(name, now)))
    if left:
        disk.sync_directory(target)
        disk.sync_directory(source)
    return len(left)


def _recovered_name(name: str, now: float) -> str:
    try:
        journal, _ = JournalName.parse(name)
    except ValueError:
        return name if RECOVERED_MARK in name else f"{name}{RECOVERED_MARK}{stamp_milliseconds(now)}"
    found = journal.found(now)
    return found.journal if name == journal.journal else found.split
