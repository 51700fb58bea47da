"""What waits on disk: found and looked into a slice at a time, counted, moved back and forth."""

import errno
import os
from pathlib import Path

import pytest

from axcollector.backlog import RETURNED_LIMIT, SLICE, Page, StagedBacklog
from axcollector.core.delivery import Backlog
from axcollector.core.schedule import StagedFile
from axcollector.core.stamps import stamp
from axcollector.disk import Disk

START = 1_767_323_045
BUCKET = "acme~test~20260102030405"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with its stages."""
    for stage in ("staging", "failed"):
        (tmp_path / stage).mkdir()
    return tmp_path


def make(directory: Path, **files: str) -> Path:
    """A directory with these files, `.txt.gz` being added to their names."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / f"{name}.txt.gz").write_text(content)
    return directory


def many(stage: Path, count: int, tenant: str = "acme~test") -> list[str]:
    """So many buckets of a file each; their names, oldest first."""
    names = [f"{tenant}~{stamp(START + number)}" for number in range(count)]
    for name in names:
        make(stage / name, f="12")
    return names


def backlog_of(data: Path, disk: Disk | None = None) -> StagedBacklog:
    """As it is after a sweep."""
    backlog = StagedBacklog(disk or Disk(), str(data))
    sweep(backlog)
    return backlog


def sweep(backlog: StagedBacklog) -> int:
    """A sweep; in how many slices."""
    slices = 1
    while not backlog.sweep():
        slices += 1
    return slices


def page_of(backlog: StagedBacklog, limit: int = 100, *skip: str) -> list[tuple[str, str]]:
    """Bucket and name of the next files."""
    return [(file.bucket, file.name) for file in backlog.page(limit, set(skip)).files]


def test_tenants_take_turns_oldest_first(data: Path) -> None:
    """Files of all buckets; those of tenants to be skipped come later."""
    names = ["b~e~20260102030405", "a~e~20260102030406", "b~e~20260102030407", "c~e~20260102030408"]
    for name in names:
        make(data / "staging" / name, x="1", y="2")
    backlog = backlog_of(data)
    assert page_of(backlog, 2, "b~e") == [(names[1], "x.txt.gz"), (names[1], "y.txt.gz")]
    assert [bucket for bucket, _ in page_of(backlog)] == [names[0]] * 2 + [names[3]] * 2 + [names[2]] * 2
    assert backlog.page(100, set()) == Page((), 0, 0)
    sweep(backlog)
    assert len(page_of(backlog)) == 8


def test_a_sweep_goes_in_slices(data: Path) -> None:
    """However many names there are, no call deals with more than so many of them; nothing is left out."""
    names = many(data / "staging", SLICE * 2 + 1)
    backlog = StagedBacklog(Disk(), str(data))
    assert sweep(backlog) == 3
    assert [bucket for bucket, _ in page_of(backlog, 10_000)] == names
    assert backlog.summary.oldest_start == START


def test_a_bucket_of_very_many_files_is_taken_in_parts(data: Path) -> None:
    """Each file once; other tenants have their turn in between."""
    make(data / "staging" / BUCKET, **{f"f{n}": "1" for n in range(5)})
    make(data / "staging" / "z~e~20260102030406", x="1")
    backlog = backlog_of(data)
    pages = [[name for _, name in page_of(backlog, 2)] for _ in range(5)]
    assert pages == [["f0.txt.gz", "f1.txt.gz"], ["x.txt.gz", "f2.txt.gz", "f3.txt.gz"], ["f4.txt.gz"], [], []]
    backlog.measure()
    assert (backlog.summary.files, backlog.summary.bytes) == (6, 6)


def test_what_is_in_the_way_hides_no_file(data: Path) -> None:
    """However many foreign things come first in a bucket."""
    bucket = make(data / "staging" / BUCKET, z="1")
    for number in range(5):
        (bucket / f"a{number}").write_text("x")
    backlog = backlog_of(data)
    assert [page_of(backlog, 2) for _ in range(2)] == [[], [(BUCKET, "z.txt.gz")]]


def test_what_waits_is_counted(data: Path) -> None:
    """In the background what nobody looked into; and kept up to date with each deletion and move."""
    make(data / "staging" / BUCKET, a="1", b="22")
    make(data / "staging" / "z~e~20260102030406", x="333")
    make(data / "staging" / "y~e~20260102030407", empty="")
    backlog = backlog_of(data)
    assert backlog.summary == Backlog(buckets=3, unmeasured_buckets=3, oldest_start=START)
    page_of(backlog, 2)
    assert backlog.summary == Backlog(buckets=3, files=2, bytes=3, unmeasured_buckets=2, oldest_start=START)
    assert backlog.measure()
    expected = Backlog(buckets=2, files=3, bytes=6, oldest_start=START)
    assert backlog.summary == expected
    sweep(backlog)
    assert backlog.summary == expected
    assert not backlog.discard(StagedFile(START, BUCKET, "b.txt.gz", "acme~test", 2))
    assert backlog.summary == Backlog(buckets=2, files=2, bytes=4, oldest_start=START)
    backlog.give_up("z~e~20260102030406")
    assert backlog.summary == Backlog(buckets=1, files=1, bytes=1, failed_buckets=1, oldest_start=START)
    assert backlog.discard(StagedFile(START, BUCKET, "a.txt.gz", "acme~test", 1))
    assert backlog.summary == Backlog(failed_buckets=1)


def test_counting_goes_in_slices(data: Path) -> None:
    """Those that vanish meanwhile, or cannot be read, are passed over."""
    names = many(data / "staging", SLICE + 3)
    backlog = backlog_of(data)
    for name in names[:2]:
        (data / "staging" / name / "f.txt.gz").unlink()
        (data / "staging" / name).rmdir()
    (data / "staging" / names[1]).write_text("no directory")
    assert [backlog.measure(), backlog.measure()] == [False, True]
    assert (backlog.summary.buckets, backlog.summary.files) == (SLICE + 2, SLICE + 1)


def test_what_others_take_away_is_forgotten(data: Path) -> None:
    """By the next sweep, or when its turn comes."""
    names = many(data / "staging", 3)
    backlog = backlog_of(data)
    backlog.measure()
    for name in names[:2]:
        (data / "staging" / name / "f.txt.gz").unlink()
        (data / "staging" / name).rmdir()
    sweep(backlog)
    assert backlog.summary == Backlog(buckets=1, files=1, bytes=2, oldest_start=START + 2)
    assert page_of(backlog) == [(names[2], "f.txt.gz")]
    sweep(backlog)
    (data / "staging" / names[2] / "f.txt.gz").unlink()
    (data / "staging" / names[2]).rmdir()
    assert page_of(backlog) == []
    assert backlog.summary == Backlog()


def test_what_is_in_the_way_is_told_once(data: Path) -> None:
    """It is left alone; what has gone and come back is told again; no bucket is counted for it."""
    staging = data / "staging"
    make(staging / "lost+found")
    (staging / BUCKET).write_text("a file")
    (make(staging / "z~e~20260102030406", good="1") / "draft.new").write_text("x")
    told = {
        ("lost+found", "its name is not that of a bucket"),
        (BUCKET, "it is no directory"),
        ("z~e~20260102030406/draft.new", "it is no .txt.gz file"),
    }
    backlog = backlog_of(data)
    assert set(backlog.page(100, set()).foreign) == told
    sweep(backlog)
    assert backlog.page(100, set()).foreign == ()
    assert backlog.summary.buckets == 2
    (staging / "lost+found").rmdir()
    sweep(backlog)
    make(staging / "lost+found")
    sweep(backlog)
    assert backlog.page(100, set()).foreign == (("lost+found", "its name is not that of a bucket"),)


class DenyingDisk(Disk):
    """Does not let one bucket be looked into, nor one file be seen, and denies what it is told."""

    def __init__(self) -> None:
        self.denied: set[str] = {BUCKET}

    def unsorted_names(self, directory: str) -> list[str]:
        if os.path.basename(directory) in self.denied:
            raise PermissionError(errno.EACCES, "Permission denied")
        return super().unsorted_names(directory)

    def sync_directory(self, path: str) -> None:
        if os.path.basename(path) in self.denied:
            raise OSError(errno.EIO, "Input/output error")
        super().sync_directory(path)


def test_what_cannot_be_read_harms_nobody_else(data: Path) -> None:
    """A bucket that cannot be read is named, the others are listed; a stage that cannot be read is an error."""
    make(data / "staging" / BUCKET, a="1")
    make(data / "staging" / "b~e~20260102030405", b="1")
    disk = DenyingDisk()
    backlog = backlog_of(data, disk)
    page = backlog.page(100, set())
    assert [file.name for file in page.files] == ["b.txt.gz"]
    assert page.foreign == ((BUCKET, "it cannot be read: Permission denied"),)
    assert backlog.measure()
    for _ in range(2):
        disk.denied = {"staging", "failed"}
        with pytest.raises(PermissionError):
            backlog.sweep()
        with pytest.raises(PermissionError):
            backlog.list_failed()
    disk.denied = set()
    sweep(backlog)
    assert len(page_of(backlog)) == 2


class VanishingDisk(Disk):
    """A file vanishes between the listing and the look at it."""

    def unsorted_names(self, directory: str) -> list[str]:
        return [*super().unsorted_names(directory), *(["gone.txt.gz"] if directory.endswith(BUCKET) else [])]


def test_a_file_that_vanishes_while_its_bucket_is_looked_into(data: Path) -> None:
    """The bucket is looked into again after the next sweep; others are not concerned."""
    make(data / "staging" / BUCKET, a="1")
    make(data / "staging" / "b~e~20260102030405", b="1")
    backlog = backlog_of(data, VanishingDisk())
    assert page_of(backlog) == [("b~e~20260102030405", "b.txt.gz")]
    backlog._disk = Disk()
    sweep(backlog)
    assert len(page_of(backlog)) == 2


def test_a_delivered_file_is_discarded(data: Path) -> None:
    """With the last one the bucket goes; a file that is gone already is no error."""
    bucket = make(data / "staging" / BUCKET, a="1", b="2")
    backlog = StagedBacklog(Disk(), str(data))
    files = [StagedFile(START, BUCKET, f"{name}.txt.gz", "acme~test", 1) for name in "ab"]
    assert backlog.has(files[0])
    assert not backlog.discard(files[0])
    assert not backlog.has(files[0])
    assert not backlog.discard(files[0])
    assert backlog.discard(files[1])
    assert not bucket.exists()


def test_giving_up(data: Path) -> None:
    """A bucket moves to failed, to what is there of it already; one that is gone is no error, a lost stage is."""
    make(data / "failed" / BUCKET, a="1")
    bucket = make(data / "staging" / BUCKET, b="2")
    backlog = StagedBacklog(Disk(), str(data))
    backlog.give_up(BUCKET)
    assert sorted(os.listdir(data / "failed" / BUCKET)) == ["a.txt.gz", "b.txt.gz"]
    backlog.give_up(BUCKET)
    make(bucket, c="3")
    (data / "failed").rename(data / "gone")
    with pytest.raises(FileNotFoundError):
        backlog.give_up(BUCKET)


def test_failed_comes_back_oldest_first_and_in_turn(data: Path) -> None:
    """So many at once; what fails again meanwhile waits until all others have had their chance."""
    names = [f"{org}~e~2026010203040{second}" for second, org in enumerate("dcba")]
    for name in names:
        make(data / "failed" / name, a="1")
    make(data / "failed" / "lost+found")
    (data / "failed" / "x~e~20260102030405").write_text("no bucket")
    backlog = backlog_of(data)

    def bring_back(limit: int) -> list[str]:
        assert backlog.list_failed()
        backlog.bring_back(limit)
        return [bucket for bucket, _ in page_of(backlog)]

    assert bring_back(2) == names[:2]
    for name in names[:2]:
        backlog.give_up(name)
    (data / "failed" / names[3] / "a.txt.gz").unlink()
    (data / "failed" / names[3]).rmdir()
    assert bring_back(2) == names[2:3]
    assert bring_back(9) == names[:2]
    assert bring_back(9) == []
    assert sorted(os.listdir(data / "failed")) == ["lost+found", "x~e~20260102030405"]


def test_no_more_comes_back_than_is_taken_up(data: Path) -> None:
    """A store that takes nothing is not sent all of failed at once; each bucket that is looked into makes room."""
    names = many(data / "failed", RETURNED_LIMIT + 20)
    backlog = backlog_of(data)
    slices = 1
    while not backlog.list_failed():
        slices += 1
    assert slices == -(-len(names) // SLICE)
    assert backlog.summary.failed_buckets == len(names)
    assert [backlog.bring_back(RETURNED_LIMIT - 1), backlog.bring_back(10), backlog.bring_back(10)] == [
        RETURNED_LIMIT - 1,
        1,
        0,
    ]
    assert [bucket for bucket, _ in page_of(backlog, 5)] == names[:5]
    assert backlog.list_failed()
    assert backlog.bring_back(10) == 5
    assert backlog.summary.failed_buckets == 15


def test_failed_is_added_to_what_is_staged(data: Path) -> None:
    """A bucket that is in staging again gets its old files back; all that is in it is named."""
    make(data / "failed" / BUCKET, a="1")
    make(data / "staging" / BUCKET, b="2")
    backlog = backlog_of(data)
    backlog.list_failed()
    assert backlog.bring_back(1) == 1
    assert page_of(backlog) == [(BUCKET, "a.txt.gz"), (BUCKET, "b.txt.gz")]


def test_what_cannot_come_back_blocks_nothing(data: Path) -> None:
    """A bucket that cannot be moved is named; the next one has its chance."""
    other = "z~e~20260102030406"
    make(data / "failed" / BUCKET, a="1")
    make(data / "failed" / other, a="1")
    (data / "staging" / BUCKET).write_text("in the way")
    (data / "recovered").mkdir(exist_ok=True)
    (data / "recovered" / "unreadable").write_text("so it cannot be put aside")
    backlog = StagedBacklog(Disk(), str(data))
    backlog.list_failed()
    assert backlog.bring_back(1) == 1
    page = backlog.page(100, set())
    assert [file.bucket for file in page.files] == [other]
    assert page.foreign == ((f"failed/{BUCKET}", "it cannot be moved to staging: File exists"),)


def test_what_comes_back_is_durable(data: Path) -> None:
    """Both stages are synced, once for all that was moved; where they cannot be, it is an error."""
    many(data / "failed", 3)
    disk = DenyingDisk()
    backlog = backlog_of(data, disk)
    backlog.list_failed()
    disk.denied = {"failed"}
    with pytest.raises(OSError, match="Input/output error"):
        backlog.bring_back(3)
