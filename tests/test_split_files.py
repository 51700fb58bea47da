"""The files of a split: what lets others go first does so between pieces of work, and takes no disk for others."""

import random
from pathlib import Path

from axcollector.core import deflate, frames
from axcollector.core.layout import JournalName
from axcollector.core.model import Interval
from axcollector.courtesy import Courtesy
from axcollector.disk import AppendFile, Disk
from axcollector.members import members_in
from axcollector.split_files import SplitFiles

NAME = JournalName(Interval(1_480_000_080, 1_480_000_200), "id", 1, 0, 0)


class Noting(Courtesy):
    """Notes what it is asked."""

    def __init__(self) -> None:
        self.events: list[str] = []
        super().__init__()

    def step_back(self) -> None:
        self.events.append("step back")

    def go_on(self) -> None:
        self.events.append("go on")


class NotingFile(AppendFile):
    """Notes its syncs in between."""

    events: list[str]

    def write(self, data: bytes | memoryview) -> None:
        self.events.append("write")
        super().write(data)

    def sync(self) -> None:
        self.events.append("sync")
        super().sync()


class NotingDisk(Disk):
    """Makes such files."""

    def __init__(self, events: list[str]) -> None:
        self.events = events

    def create(self, path: str) -> AppendFile:
        file = super().create(path)
        file.__class__ = NotingFile
        assert isinstance(file, NotingFile)
        file.events = self.events
        return file


def test_between_pieces_and_behind_the_disk(tmp_path: Path) -> None:
    """It looks before each piece and before the disk is waited for, and what the disk took counts for no contention."""
    large = [random.Random(number).randbytes(400_000) for number in range(7)]
    lines = [*(("acme~prod", text) for text in large), *((f"t{number}~prod", b"{}\n") for number in range(20))]
    journal = tmp_path / "journal"
    journal.write_bytes(
        b"".join(
            frames.write(NAME.identity, number, tenant, 1, deflate.member(text))
            for number, (tenant, text) in enumerate(lines)
        )
    )
    (tmp_path / "split").mkdir()
    courtesy = Noting()
    with Disk().open(str(journal)) as file:
        tenants = members_in(file, NAME.identity, courtesy).contents.tenants
        courtesy.events.clear()
        files = SplitFiles(NotingDisk(courtesy.events), NAME, file.fileno(), courtesy, pack_all=False)
        files.write(str(tmp_path / "split"), tenants)
    assert len(list((tmp_path / "split").glob("*/*"))) == 21
    piece, step, end = ["step back", "write"], ["sync", "go on"], ["step back", *["sync"] * 16, "go on"]
    large_file = [*piece * 3, *step] * 2 + piece
    assert courtesy.events == [*large_file, *piece * 15, *end, *piece * 5, "step back", *["sync"] * 5, "go on"]
