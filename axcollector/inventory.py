"""What lies in a data directory: journals and buckets by stage, for whoever looks from outside. Blocking; only reads.

Nothing is locked, so that it works on a live collector too: what was there when its directory was listed may be moved,
split or delivered a moment later. Whatever vanishes meanwhile is left out, and is no fault.

Each thing that a stage holds is an `Item`; what an item is, its name and its place say:

* a *journal*: a file in `tmp/` or `recovered/`, written still, or waiting for its split;
* a *split*: what a journal, or a directory of the reference's, is copied to, of worth only where that is gone already;
* a *bucket*: a directory of one tenant's files, also as the reference leaves it;
* *unreadable*: what was put aside in `recovered/unreadable/`, or lies in a bucket there;
* *foreign*: whatever else lies in a stage; nothing is ever done with it.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from axcollector.core.layout import (
    JOURNAL_SUFFIX,
    QUARANTINE,
    UNREADABLE,
    JournalName,
    ReferenceName,
    Stage,
)
from axcollector.disk import Disk

STAGES: Final = (Stage.TMP.value, Stage.RECOVERED.value, Stage.STAGING.value, Stage.FAILED.value, QUARANTINE)
"""In the order in which data goes."""
JOURNAL: Final = "journal"
SPLIT: Final = "split"
BUCKET: Final = "bucket"
FOREIGN: Final = "foreign"


@dataclass(frozen=True, slots=True)
class ItemFile:
    """A file of an item.

    Attributes:
        name: Its path below the data directory.
        size: Bytes.
        is_regular: Whether it is a file at all, no link or pipe.
    """

    name: str
    size: int
    is_regular: bool = True


@dataclass(frozen=True, slots=True)
class Item:
    """What a stage holds under one name.

    Attributes:
        stage: The stage.
        name: Its path below the stage.
        kind: `journal`, `split`, `bucket`, `unreadable` or `foreign`.
        files: The files in it; of a file, itself.
        organization: The tenant's; None where it holds several tenants' records, or it cannot be told.
        environment: Likewise.
        start: When its interval began, in seconds since the epoch; None: it has none.
        end: When it is over; None: the name does not tell.
    """

    stage: str
    name: str
    kind: str
    files: tuple[ItemFile, ...]
    organization: str | None = None
    environment: str | None = None
    start: int | None = None
    end: int | None = None

    @property
    def size(self) -> int:
        """The bytes of all files in it."""
        return sum(file.size for file in self.files)

    @property
    def awaits_delivery(self) -> bool:
        """Whether it holds records that are still to come to the store."""
        return self.stage != QUARANTINE and self.kind in {JOURNAL, SPLIT, BUCKET} and bool(self.files)


class Inventory:
    """The stages of one data directory."""

    def __init__(self, disk: Disk, data_directory: str) -> None:
        """Look at nothing yet; `data_directory` is where the stages are."""
        self._disk = disk
        self.data_directory = data_directory

    def items(self, stages: Sequence[str] = STAGES) -> Iterator[Item]:
        """What lies in these stages, stage by stage, each oldest first; a stage that is not there holds nothing.

        Raises:
            OSError: A stage cannot be read.
        """
        for stage in stages:
            found = [item for name in self._names(stage) for item in self._looked_at(stage, name)]
            yield from sorted(found, key=lambda item: (item.start is None, item.start or 0, item.name))

    def find(self, name: str) -> list[Item]:
        """The items of this name, with or without the stage before it, each with those of its files that are named.

        What is named may be an item, such as `acme~prod~20161124150800`, or a file in one.

        Raises:
            OSError: A stage cannot be read.
        """
        stage, _, below = name.rstrip("/").partition("/")
        stages, rest = ((stage,), below) if stage in STAGES and below else (STAGES, name.rstrip("/"))
        return [found for item in self.items(stages) if (found := _named(item, rest)) is not None]

    def _names(self, stage: str) -> list[str]:
        try:
            return self._disk.names(os.path.join(self.data_directory, stage))
        except FileNotFoundError:
            return []

    def _looked_at(self, stage: str, name: str) -> Iterator[Item]:
        if stage == Stage.RECOVERED and name == UNREADABLE:
            for each in self._names(os.path.join(stage, name)):
                below = os.path.join(name, each)
                yield Item(stage, below, UNREADABLE, tuple(self._files(os.path.join(stage, below))))
            return
        files = tuple(self._files(os.path.join(stage, name)))
        path = os.path.join(self.data_directory, stage, name)
        is_directory = self._disk.is_directory(path)
        if not is_directory and not files:  # it has gone meanwhile
            return
        yield _item(stage, name, files, is_directory=is_directory)

    def _files(self, name: str) -> Iterator[ItemFile]:
        """The files at or below a place, by name."""
        path = os.path.join(self.data_directory, name)
        try:
            facts = os.lstat(path)
            if stat.S_ISDIR(facts.st_mode):
                for each in self._disk.names(path):
                    yield from self._files(os.path.join(name, each))
            else:
                yield ItemFile(name, facts.st_size, stat.S_ISREG(facts.st_mode))
        except FileNotFoundError:
            return


def _item(stage: str, name: str, files: tuple[ItemFile, ...], *, is_directory: bool) -> Item:
    try:
        if stage in {Stage.TMP, Stage.RECOVERED} and (found := _journal(name)) is not None:
            journal, suffix = found
            kind = JOURNAL if suffix == JOURNAL_SUFFIX else SPLIT
            if is_directory == (kind == SPLIT):
                return Item(stage, name, kind, files, start=journal.interval.start, end=journal.interval.end)
        elif is_directory and stage != Stage.TMP:
            found_bucket, is_salvage = ReferenceName.parse(name)
            bucket, kind = found_bucket.bucket, SPLIT if is_salvage else BUCKET
            return Item(stage, name, kind, files, bucket.organization, bucket.environment, bucket.start)
    except ValueError:
        pass
    return Item(stage, name, FOREIGN, files)


def _journal(name: str) -> tuple[JournalName, str] | None:
    try:
        return JournalName.parse(name)
    except ValueError:
        return None


def _named(item: Item, name: str) -> Item | None:
    """The item, if it has this name, or with those of its files alone that have."""
    if item.name == name or (item.kind == UNREADABLE and item.name == f"{UNREADABLE}/{name}"):
        return item
    stage = item.stage + "/"
    files = tuple(file for file in item.files if name in {file.name.removeprefix(stage), os.path.basename(file.name)})
    if not files:
        return None
    return Item(item.stage, item.name, item.kind, files, item.organization, item.environment, item.start, item.end)
