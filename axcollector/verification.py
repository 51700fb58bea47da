"""Whether what lies in the stages is as it was written: each file's CRCs, counts and name. Blocking; only reads."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from axcollector.buckets import parse_bucket
from axcollector.core.layout import FILE_SUFFIX, JOURNAL_SUFFIX, QUARANTINE, SPLIT_SUFFIX, UNREADABLE, Stage
from axcollector.disk import Disk
from axcollector.inspection import examine, name_fault
from axcollector.inventory import BUCKET, FOREIGN, SPLIT, Item, ItemFile


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one file, or of something that is none.

    Attributes:
        stage: Where it lies.
        name: Its path below the data directory.
        size: Bytes.
        records: How many records can be read.
        damage: What is wrong; empty: nothing is.
        notes: What is worth knowing, and not wrong.
        vanished: Whether it was gone when it was to be read: moved, split or delivered.
    """

    stage: str
    name: str
    size: int
    records: int = 0
    damage: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    vanished: bool = False


@dataclass(slots=True)
class Verification:
    """Looks at one item after the other.

    Attributes:
        disk: The hands.
        data_directory: What the items' stages are in.
    """

    disk: Disk
    data_directory: str
    _seen: set[str] = field(default_factory=set)

    def verify(self, item: Item) -> Iterator[Verdict]:
        """What is found of an item, file by file; of what is none of ours, that it is not."""
        if item.kind == FOREIGN:
            damage = "it is nothing that belongs here, and is left alone: move it away"
            yield Verdict(item.stage, os.path.join(item.stage, item.name), item.size, damage=(damage,))
            return
        if item.kind == SPLIT and self._is_under_way(item):
            note = "a copy that is being made, or was broken off: what it is made of is the truth, and is still there"
            yield Verdict(item.stage, os.path.join(item.stage, item.name), item.size, notes=(note,))
            return
        for file in item.files:
            if item.stage != QUARANTINE or file.name.endswith(FILE_SUFFIX):
                yield self._verified(item, file)

    def _is_under_way(self, item: Item) -> bool:
        """Whether what a split, or a salvage, is made of is still there."""
        source = item.name.replace(SPLIT_SUFFIX, JOURNAL_SUFFIX).replace(".salvage~", "~")
        return self.disk.exists(os.path.join(self.data_directory, item.stage, source))

    def _verified(self, item: Item, file: ItemFile) -> Verdict:
        if not file.is_regular:
            return Verdict(item.stage, file.name, file.size, damage=("it is no regular file, and is left alone",))
        fault = self._name_fault(item, file)
        if item.kind == BUCKET and not file.name.endswith(FILE_SUFFIX):
            return Verdict(item.stage, file.name, file.size, damage=(fault,) if fault else ())
        try:
            report = examine(self.disk, os.path.join(self.data_directory, file.name))
        except FileNotFoundError:
            return Verdict(item.stage, file.name, file.size, vanished=True)
        except OSError as exc:
            return Verdict(item.stage, file.name, file.size, damage=(f"it cannot be read: {exc.strerror or exc}",))
        damage, notes = list(report.damage), list(report.notes)
        if fault:
            damage.append(fault)
        if item.kind == UNREADABLE:
            damage.append("it was put aside because it is damaged or no file of ours: see what `cat` gives of it")
        elif item.kind == BUCKET and item.stage == Stage.RECOVERED:  # how a killed process of the reference leaves it
            damage, notes = [], notes + damage
        return Verdict(item.stage, file.name, file.size, report.records + report.aside, tuple(damage), tuple(notes))

    def _name_fault(self, item: Item, file: ItemFile) -> str | None:
        if item.kind != BUCKET or item.stage == Stage.RECOVERED:
            return None
        start, tenant = parse_bucket(item.name)
        return name_fault(tenant, start, os.path.basename(file.name))
