"""What lies in the stages, looked at in steps."""

import gc
import os
from pathlib import Path
from typing import Final

import pytest

from axcollector.core.layout import QUARANTINE, JournalName, Stage, bucket_directory
from axcollector.core.model import BucketName, Interval
from axcollector.core.status import FailedBucket, StageStatus
from axcollector.disk import Disk
from axcollector.stages import _PASSES_BETWEEN, LISTED, SLICE, Stages

START: Final = 1_767_323_045


class CountingDisk(Disk):
    """A real directory; says how often it was listed."""

    listed = 0

    def unsorted_names(self, directory: str) -> list[str]:
        self.listed += 1
        return super().unsorted_names(directory)


class Place:
    """A data directory, and who looks at it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for stage in (*Stage, QUARANTINE):
            (root / stage).mkdir()
        self.disk = CountingDisk()
        self.stages = Stages(self.disk, str(root))

    def look(self) -> int:
        """Look at everything; how many steps that took."""
        steps = 1
        while not self.stages.step():
            steps += 1
        return steps

    def bucket(self, stage: str, start: int, *sizes: int, organization: str = "acme") -> Path:
        """A bucket with files of these sizes."""
        path = self.root / stage / bucket_directory(BucketName(start, organization, "prod"))
        path.mkdir()
        for number, size in enumerate(sizes):
            (path / f"{number}.txt.gz").write_bytes(bytes(size))
        return path

    def found(self, stage: str) -> tuple[int, int, float | None]:
        """Buckets, bytes, and since when."""
        status = self.stages.found[stage]
        assert status.name == stage
        return status.buckets, status.bytes, status.oldest_at


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An empty one."""
    return Place(tmp_path)


def journal(start: int, sequence: int = 0, recovered: str = "") -> JournalName:
    """A journal's name."""
    return JournalName(Interval(start, start + 60), "id", 1, 0, sequence, recovered)


def test_nothing(place: Place) -> None:
    """Before the first look, and in an empty directory, there is nothing; also where a stage is missing."""
    assert place.stages.found["tmp"] == StageStatus(name="tmp")
    (place.root / QUARANTINE).rmdir()
    place.look()
    assert [place.found(stage) for stage in ("tmp", "recovered", "failed", QUARANTINE)] == [(0, 0, None)] * 4
    assert place.stages.failed == ()


def test_journals(place: Place) -> None:
    """A journal counts, as large as it is now; its split counts when the journal has gone; nothing else does."""
    tmp = place.root / "tmp"
    (tmp / journal(START).journal).write_bytes(bytes(10))
    (tmp / journal(START).split).mkdir()
    (tmp / journal(START + 60, 1).split / "bucket").mkdir(parents=True)
    (tmp / journal(START + 60, 1).split / "bucket" / "file").write_bytes(bytes(7))
    (tmp / "foreign").write_bytes(bytes(99))
    place.look()
    assert place.found("tmp") == (2, 17, START)
    (tmp / journal(START).journal).write_bytes(bytes(30))
    place.look()
    assert place.found("tmp") == (2, 37, START)
    os.unlink(tmp / journal(START).journal)
    os.rmdir(tmp / journal(START).split)
    place.look()
    assert place.found("tmp") == (1, 7, START + 60)


def test_what_a_crash_left(place: Place) -> None:
    """Journals with their mark, and directories as the reference leaves them."""
    recovered = place.root / "recovered"
    (recovered / journal(START, recovered="20260102030405.678").journal).write_bytes(bytes(5))
    (recovered / "acme~prod~20260102030405").mkdir()
    (recovered / "acme~prod~20260102030405" / "x.txt.gz").write_bytes(bytes(6))
    (recovered / "unreadable").mkdir()
    place.look()
    assert place.found("recovered") == (2, 11, START)


def test_failed_buckets(place: Place) -> None:
    """They are told one by one, the oldest first; one that came, went or got another file is seen."""
    place.bucket("failed", START + 60, 10, 20)
    oldest = place.bucket("failed", START, 5)
    place.look()
    assert place.found("failed") == (2, 35, START)
    assert place.stages.failed == [FailedBucket(oldest.name, 5), FailedBucket("acme~prod~20260102030505", 30)]
    (oldest / "another.txt.gz").write_bytes(bytes(3))
    os.utime(oldest, ns=(1, 1))  # a clock may be coarse
    place.look()
    assert place.found("failed") == (2, 38, START)
    for file in oldest.iterdir():
        file.unlink()
    oldest.rmdir()
    place.look()
    assert place.found("failed") == (1, 30, START + 60)
    assert [each.bucket for each in place.stages.failed] == ["acme~prod~20260102030505"]


def test_a_long_stage(place: Place) -> None:
    """It takes as many steps as it has slices; while nothing comes or goes it is looked at now and then only."""
    count = 2 * SLICE + 1
    for number in range(count):
        place.bucket("failed", START + number, 1)
    assert place.look() == 4 + 2
    assert place.found("failed") == (count, count, START)
    of_stages = [each for each in gc.get_objects() if type(each).__module__ == "axcollector.stages"]
    assert len(of_stages) < SLICE, "the garbage collector looks at each bucket"
    assert len(place.stages.failed) == min(count, LISTED)
    listed = place.disk.listed
    assert [place.look() for _ in range(_PASSES_BETWEEN - 1)] == [4] * (_PASSES_BETWEEN - 1)
    assert place.disk.listed == listed + 3 * (_PASSES_BETWEEN - 1)
    assert place.look() == 4 + 2
    place.bucket("failed", START - 60, 4)
    assert place.look() > 4
    assert place.found("failed") == (count + 1, count + 4, START - 60)


def test_a_stage_that_cannot_be_read(place: Place) -> None:
    """What was found before stays, and the others are looked at all the same."""
    bucket = place.bucket("failed", START, 5)
    (place.root / "tmp" / journal(START).journal).write_bytes(bytes(10))
    place.look()
    bucket.joinpath("0.txt.gz").unlink()
    bucket.rmdir()
    (place.root / "failed").rmdir()
    (place.root / "failed").write_bytes(b"")
    (place.root / "tmp" / journal(START, 1).journal).write_bytes(bytes(10))
    place.look()
    assert place.found("failed") == (1, 5, START)
    assert place.found("tmp") == (2, 20, START)
