"""Moving buckets between stages, and listing them, whatever others do meanwhile."""

import errno
import itertools
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from axcollector.buckets import Contents, look_into, merge_bucket, parse_bucket, remove_if_empty
from axcollector.core import layout
from axcollector.core.schedule import StagedFile
from axcollector.disk import Disk

BUCKET = "acme~test~20260102030405"
START = 1_767_323_045


class WatchedDisk(Disk):
    """Notes what it is asked, and lets something happen just before a call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.before: dict[str, list[Callable[[], object]]] = {}

    def _note(self, name: str, *paths: str) -> None:
        self.calls.append((name, *(os.path.basename(path) for path in paths)))
        if self.before.get(name):
            self.before[name].pop(0)()

    def rename(self, source: str, target: str) -> None:
        self._note("rename", source, target)
        super().rename(source, target)

    def sync_directory(self, path: str) -> None:
        self._note("sync", path)
        super().sync_directory(path)

    def remove_directory(self, path: str) -> None:
        self._note("rmdir", path)
        super().remove_directory(path)

    def names(self, directory: str) -> list[str]:
        self._note("names", directory)
        return super().names(directory)

    def unlink(self, path: str) -> None:
        self._note("unlink", path)
        super().unlink(path)


def make(directory: Path, **files: str) -> Path:
    """A directory with these files, `.txt.gz` being added to their names."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / f"{name}.txt.gz").write_text(content)
    return directory


def contents(directory: Path) -> dict[str, str]:
    """Files and what is in them."""
    return {path.name.removesuffix(".txt.gz"): path.read_text() for path in directory.iterdir()}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with its stages."""
    for stage in ("staging", "failed", "split"):
        (tmp_path / stage).mkdir()
    return tmp_path


def test_a_bucket_is_renamed_whole(data: Path) -> None:
    """One rename, after which both directories are synced, the new one first."""
    disk = WatchedDisk()
    bucket = make(data / "split" / BUCKET, a="1", b="2")
    merge_bucket(disk, str(bucket), str(data / "staging"))
    assert contents(data / "staging" / BUCKET) == {"a": "1", "b": "2"}
    assert disk.calls == [("rename", BUCKET, BUCKET), ("sync", "staging"), ("sync", "split")]


def test_an_empty_bucket_gives_way(data: Path) -> None:
    """Nothing is lost with it."""
    make(data / "staging" / BUCKET)
    merge_bucket(Disk(), str(make(data / "split" / BUCKET, a="1")), str(data / "staging"))
    assert contents(data / "staging" / BUCKET) == {"a": "1"}


def test_files_are_added_to_a_bucket(data: Path) -> None:
    """None is overwritten: a taken name gets a number, the same content is kept once; all of it is synced."""
    disk = WatchedDisk()
    target = make(data / "staging" / BUCKET, a="old", b="same", c="old", c_2="older")
    bucket = make(data / "split" / BUCKET, a="new", b="same", c="newer", d="4")
    merge_bucket(disk, str(bucket), str(data / "staging"))
    expected = {"a": "old", "a_2": "new", "b": "same", "c": "old", "c_2": "older", "c_3": "newer", "d": "4"}
    assert contents(target) == expected
    assert not bucket.exists()
    assert disk.calls[-4:] == [("sync", BUCKET), ("rmdir", BUCKET), ("sync", "staging"), ("sync", "split")]


def test_what_is_no_file_is_not_compared(data: Path) -> None:
    """Directories and links of the same name are kept beside each other."""
    target = make(data / "staging" / BUCKET, a="1")
    bucket = make(data / "split" / BUCKET)
    (bucket / "a.txt.gz").symlink_to("/nowhere")
    merge_bucket(Disk(), str(bucket), str(data / "staging"))
    assert sorted(os.listdir(target)) == ["a.txt.gz", "a_2.txt.gz"]
    assert (target / "a_2.txt.gz").is_symlink()


def test_the_target_may_vanish(data: Path) -> None:
    """The uploader removes a bucket that it has emptied while files are being added: it is begun anew."""
    disk = WatchedDisk()
    target = make(data / "staging" / BUCKET, a="1")
    bucket = make(data / "split" / BUCKET, b="2")

    def deliver() -> None:
        (target / "a.txt.gz").unlink()
        target.rmdir()

    disk.before["rename"] = [lambda: None, deliver]
    merge_bucket(disk, str(bucket), str(data / "staging"))
    assert contents(target) == {"b": "2"}
    assert not bucket.exists()


def test_the_target_may_vanish_at_the_end(data: Path) -> None:
    """All that was added has been delivered before the directory could be synced."""
    disk = WatchedDisk()
    target = make(data / "staging" / BUCKET, a="1")
    bucket = make(data / "split" / BUCKET, b="2")

    def deliver() -> None:
        for path in target.iterdir():
            path.unlink()
        target.rmdir()

    disk.before["sync"] = [deliver]
    merge_bucket(disk, str(bucket), str(data / "staging"))
    assert os.listdir(data / "staging") == []
    assert not bucket.exists()


def test_the_source_may_get_more(data: Path) -> None:
    """Files that the splitter adds to a bucket that is being moved to failed go with it."""
    disk = WatchedDisk()
    target = make(data / "failed" / BUCKET, a="1")
    bucket = make(data / "staging" / BUCKET, b="2")
    disk.before["rmdir"] = [lambda: make(bucket, c="3")]
    merge_bucket(disk, str(bucket), str(data / "failed"))
    assert contents(target) == {"a": "1", "b": "2", "c": "3"}
    assert not bucket.exists()


def test_two_merges_into_each_other_lose_nothing(data: Path) -> None:
    """The splitter adds to a bucket in staging at the moment at which it is moved to failed."""
    disk = WatchedDisk()
    staged = make(data / "staging" / BUCKET, a="1")
    bucket = make(data / "split" / BUCKET, b="2")
    disk.before["rename"] = [lambda: None, lambda: merge_bucket(Disk(), str(staged), str(data / "failed"))]
    merge_bucket(disk, str(bucket), str(data / "staging"))
    assert contents(data / "failed" / BUCKET) == {"a": "1"}
    assert contents(data / "staging" / BUCKET) == {"b": "2"}


def test_what_cannot_be_moved_is_an_error(data: Path) -> None:
    """A bucket that is not there, a stage that is not there, a file that vanishes."""
    with pytest.raises(FileNotFoundError):
        merge_bucket(Disk(), str(data / "split" / BUCKET), str(data / "staging"))
    bucket = make(data / "split" / BUCKET, a="1")
    with pytest.raises(FileNotFoundError):
        merge_bucket(Disk(), str(bucket), str(data / "nowhere"))
    make(data / "staging" / BUCKET, b="2")
    disk = WatchedDisk()
    disk.before["rename"] = [lambda: None, (bucket / "a.txt.gz").unlink]
    with pytest.raises(FileNotFoundError):
        merge_bucket(disk, str(bucket), str(data / "staging"))


class StoppingDisk(Disk):
    """Works so many changes long, then fails as the machine does that crashes."""

    def __init__(self, changes: int) -> None:
        self.left = changes

    def _change(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.EIO, "crash")

    def rename(self, source: str, target: str) -> None:
        self._change()
        super().rename(source, target)

    def unlink(self, path: str) -> None:
        self._change()
        super().unlink(path)

    def remove_directory(self, path: str) -> None:
        self._change()
        super().remove_directory(path)

    def sync_directory(self, path: str) -> None:
        self._change()
        super().sync_directory(path)


def test_a_merge_that_is_cut_off_can_be_repeated(data: Path) -> None:
    """After any number of steps no file is lost or doubled, and calling again finishes the work."""
    for changes in itertools.count():
        root = data / str(changes)
        target = make(root / "staging" / BUCKET, a="old", b="same")
        bucket = make(root / "split" / BUCKET, a="new", b="same", c="3")
        try:
            merge_bucket(StoppingDisk(changes), str(bucket), str(root / "staging"))
        except OSError:
            if bucket.exists():
                merge_bucket(Disk(), str(bucket), str(root / "staging"))
            assert contents(target) == {"a": "old", "a_2": "new", "b": "same", "c": "3"}
        else:
            break
    assert changes == 8


def test_remove_if_empty(data: Path) -> None:
    """An empty directory goes, one that is gone is gone, one with a file stays; other errors are raised."""
    assert remove_if_empty(Disk(), str(make(data / "x")))
    assert remove_if_empty(Disk(), str(data / "x"))
    assert not remove_if_empty(Disk(), str(make(data / "x", a="1")))
    with pytest.raises(NotADirectoryError):
        remove_if_empty(Disk(), str(data / "x" / "a.txt.gz"))


def test_a_bucket_is_looked_into(data: Path) -> None:
    """Its files by name, with their tenant; a mark of the reference's recovery is ignored."""
    name = "a%7E~e~20260102030405~recoveredTS~20260101000000.000"
    make(data / "staging" / name, y="22", x="1")
    files = (StagedFile(START, name, "x.txt.gz", "a%7E~e", 1), StagedFile(START, name, "y.txt.gz", "a%7E~e", 2))
    assert look_into(Disk(), str(data / "staging"), name) == Contents(files, (), is_whole=True)
    assert look_into(Disk(), str(data / "staging"), name, limit=1) == Contents(files[:1], (), False, "x.txt.gz")
    assert look_into(Disk(), str(data / "staging"), name, "x.txt.gz", 9) == Contents(files[1:], (), is_whole=False)


@pytest.mark.parametrize(
    "name",
    ["a~20260102030405", "a~b~c~20260102030405", "a~b~20261302030405", "a~b~2026010203040", "a b~c~20260102030405"],
)
def test_what_is_no_buckets_name(name: str) -> None:
    """It is refused as `layout` refuses it."""
    for parse in (parse_bucket, layout.parse_bucket_directory):
        with pytest.raises(ValueError, match=r"^not |must be in"):
            parse(name)


def test_what_is_empty_is_tidied(data: Path) -> None:
    """Empty buckets, and files without content, are removed; a part of a bucket says nothing about the rest."""
    staging = data / "staging"
    make(staging / BUCKET)
    make(staging / "a~e~20260102030406", empty="")
    make(staging / "b~e~20260102030406", empty="", full="1")
    make(staging / "c~e~20260102030406", a="", b="", c="")
    for name in (BUCKET, "a~e~20260102030406"):
        assert look_into(Disk(), str(staging), name) == Contents((), (), is_whole=True)
    assert [file.name for file in look_into(Disk(), str(staging), "b~e~20260102030406").files] == ["full.txt.gz"]
    assert look_into(Disk(), str(staging), "c~e~20260102030406", limit=2) == Contents((), (), False, "b.txt.gz")
    assert sorted(os.listdir(staging)) == ["b~e~20260102030406", "c~e~20260102030406"]
    assert os.listdir(staging / "b~e~20260102030406") == ["full.txt.gz"]


def test_what_is_foreign_is_left_alone(data: Path) -> None:
    """Links, pipes, drafts and directories are named, with the reason, and stay; what is no directory is refused."""
    staging = data / "staging"
    bucket = make(staging / BUCKET, good="1")
    (bucket / "draft.txt.gz.new").write_text("x")
    (bucket / "link.txt.gz").symlink_to(bucket / "good.txt.gz")
    os.mkfifo(bucket / "pipe.txt.gz")
    make(bucket / "sub.txt.gz")
    (staging / "a~e~20260102030405").write_text("a file")
    (staging / "l~e~20260102030405").symlink_to(bucket)
    before = sorted(staging.rglob("*"))
    contents = look_into(Disk(), str(staging), BUCKET)
    assert [file.name for file in contents.files] == ["good.txt.gz"]
    names = ["draft.txt.gz.new", "link.txt.gz", "pipe.txt.gz", "sub.txt.gz"]
    assert contents.foreign == tuple((f"{BUCKET}/{name}", "it is no .txt.gz file") for name in names)
    for name in ("a~e~20260102030405", "l~e~20260102030405"):
        with pytest.raises(NotADirectoryError):
            look_into(Disk(), str(staging), name)
    assert before == sorted(staging.rglob("*"))


def test_modes_are_kept(data: Path) -> None:
    """Moving changes no permissions."""
    bucket = make(data / "split" / BUCKET, a="1")
    bucket.chmod(0o700)
    merge_bucket(Disk(), str(bucket), str(data / "staging"))
    assert stat.S_IMODE(os.lstat(data / "staging" / BUCKET).st_mode) == 0o700
