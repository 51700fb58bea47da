"""The hands, on a real directory."""

import errno
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axcollector.core.errors import DirectoryInUse
from axcollector.directories import DurableDirectories, ensure_directory
from axcollector.disk import STEP_BYTES, AppendFile, Disk, open_private, read_slices, remove_tree, write_durably
from axcollector.locks import Lock
from tests.crashable import EVERYTHING, CrashableDisk


@pytest.fixture
def disk() -> Disk:
    """The real one."""
    return Disk()


def test_files_are_written_at_their_end(disk: Disk, tmp_path: Path) -> None:
    """Created anew for their owner alone, appended to, cut back, synced."""
    path = str(tmp_path / "f")
    with disk.create(path) as file:
        file.write(b"abc" * 100_000)
        file.write(memoryview(b"def"))
        file.sync()
        file.truncate(4)
        file.write(b"x")
    assert Path(path).read_bytes() == b"abcax"
    assert (os.stat(path).st_mode & 0o777, disk.size(path)) == (0o600, 5)
    with pytest.raises(FileExistsError):
        disk.create(path)
    with disk.open(path) as reading:
        assert list(read_slices(reading, 2)) == [b"ab", b"ca", b"x"]


class SyncsCounted(AppendFile):
    """Counts its syncs."""

    syncs = 0

    def sync(self) -> None:
        super().sync()
        self.syncs += 1


@given(st.lists(st.sampled_from([0, 1, 100_000, STEP_BYTES - 1, STEP_BYTES, 2 * STEP_BYTES]), max_size=8))
def test_steps_of_a_large_file(sizes: list[int]) -> None:
    """All is written, in order; each step is synced once it is full, and whoever writes learns when he has waited."""
    with TemporaryDirectory() as directory:
        path = os.path.join(directory, "f")
        with SyncsCounted(path, open_private(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)) as file:
            waiting = 0
            for number, size in enumerate(sizes):
                before = file.syncs
                waiting += size
                is_full = waiting >= STEP_BYTES
                assert file.write_in_steps(memoryview(bytes([number]) * size)) is is_full
                assert file.syncs - before == is_full
                waiting = 0 if is_full else waiting
        content = b"".join(bytes([number]) * size for number, size in enumerate(sizes))
        assert Path(path).read_bytes() == content


def test_a_crash_between_steps(tmp_path: Path) -> None:
    """What a step has brought to stable storage survives the loss of all the rest."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "after").mkdir()
    crashable = CrashableDisk(str(tmp_path / "disk"))
    with crashable.create(str(tmp_path / "disk" / "f")) as file:
        crashable.sync_directory(crashable.root)
        assert [file.write_in_steps(bytes([number]) * (STEP_BYTES // 2)) for number in range(3)] == [False, True, False]
        found = crashable.after(len(crashable.log), EVERYTHING, str(tmp_path / "after"))
    content = Path(found.root, "f").read_bytes()
    assert content == bytes(STEP_BYTES // 2) + b"\1" * (STEP_BYTES // 2)


def test_links_are_not_followed(disk: Disk, tmp_path: Path) -> None:
    """Whatever a link points at is neither read nor written nor taken for a directory."""
    (tmp_path / "real").mkdir()
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "link2").symlink_to(tmp_path / "file")
    assert (disk.is_directory(str(tmp_path / "real")), disk.is_directory(str(tmp_path / "link"))) == (True, False)
    assert disk.is_directory(str(tmp_path / "nothing")) is False
    with pytest.raises(OSError) as problem:  # noqa: PT011 - its number is checked
        disk.open(str(tmp_path / "link2"))
    assert problem.value.errno == errno.ELOOP


def test_trees_are_removed(disk: Disk, tmp_path: Path) -> None:
    """All below goes; what a link points at stays."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"1")
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "f").write_bytes(b"1")
    (tree / "link").symlink_to(outside)
    remove_tree(disk, str(tree))
    assert not disk.exists(str(tree))
    assert (outside / "kept").exists()


def test_directories_are_made_with_those_above(disk: Disk, tmp_path: Path) -> None:
    """Missing ones are made for their owner alone; one that is there stays as it is."""
    ensure_directory(disk, str(tmp_path / "a" / "b"))
    ensure_directory(disk, str(tmp_path / "a" / "b"))
    assert [(tmp_path / p).stat().st_mode & 0o777 for p in ("a", "a/b")] == [0o700, 0o700]
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError):  # noqa: PT011 - FileExistsError or NotADirectoryError, as the system has it
        ensure_directory(disk, str(tmp_path / "file" / "below"))


class Syncs(Disk):
    """Notes which directories are synced, and may not read some."""

    def __init__(self, *forbidden: str) -> None:
        self.synced: list[str] = []
        self.forbidden = forbidden

    def sync_directory(self, path: str) -> None:
        if path in self.forbidden:
            raise PermissionError(13, "Permission denied", path)
        self.synced.append(path)
        super().sync_directory(path)


def test_names_that_others_made_are_made_durable_once(tmp_path: Path) -> None:
    """A directory that is there already may not be durable yet: it is synced, once by each object."""
    (tmp_path / "a").mkdir()
    disk = Syncs("/")
    directories = DurableDirectories(disk)
    directories.ensure(str(tmp_path / "a"))
    assert disk.synced[-1] == str(tmp_path)
    disk.synced.clear()
    directories.ensure(str(tmp_path / "a" / "b"))
    assert disk.synced == [str(tmp_path / "a")]
    directories.ensure(str(tmp_path / "a" / "b"))
    assert disk.synced == [str(tmp_path / "a")]
    (tmp_path / "a" / "b").rmdir()
    directories.ensure(str(tmp_path / "a" / "b"))
    assert disk.synced == [str(tmp_path / "a")] * 2


def test_what_is_made_is_synced_from_above(tmp_path: Path) -> None:
    """First all are made, then each parent is synced, the uppermost first; only then is anything taken for durable."""
    disk = Syncs("/")
    directories = DurableDirectories(disk)
    directories.ensure(str(tmp_path))
    disk.synced.clear()
    directories.make(str(tmp_path / "a" / "b"))
    assert ((tmp_path / "a" / "b").is_dir(), disk.synced) == (True, [])
    directories.sync(str(tmp_path / "a" / "b"))
    assert disk.synced == [str(tmp_path), str(tmp_path / "a")]
    directories.sync(str(tmp_path / "a" / "b"))
    assert disk.synced == [str(tmp_path), str(tmp_path / "a")]


def test_a_sync_is_only_begun(tmp_path: Path) -> None:
    """It is advice: what was written is there before and after, and a file that takes no advice raises nothing."""
    with Disk().create(str(tmp_path / "a")) as file:
        file.write(b"some")
        file.begin_sync()
        file.write(b"thing")
        file.sync()
    assert (tmp_path / "a").read_bytes() == b"something"
    reader, writer = os.pipe()
    os.close(reader)
    with AppendFile("a pipe", writer) as pipe:
        pipe.begin_sync()


def test_what_is_made_must_be_durable(tmp_path: Path) -> None:
    """Where the parent of a new directory cannot be synced, that is raised."""
    with pytest.raises(PermissionError):
        DurableDirectories(Syncs(str(tmp_path))).ensure(str(tmp_path / "a"))


def test_few_names_are_kept(tmp_path: Path) -> None:
    """Memory is bounded: beyond the limit all are forgotten, and synced anew."""
    directories = DurableDirectories(Disk())
    directories._durable = {str(i) for i in range(DurableDirectories._LIMIT)}
    directories.ensure(str(tmp_path / "a"))
    assert len(directories._durable) < 20


def test_small_files_are_replaced_whole(disk: Disk, tmp_path: Path) -> None:
    """The new content is there, also when an earlier attempt left its draft behind."""
    path = tmp_path / "f"
    path.write_bytes(b"old")
    (tmp_path / "f.new").write_bytes(b"left behind")
    write_durably(disk, str(path), b"new")
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"new", ["f"])


def test_free_share(disk: Disk, tmp_path: Path) -> None:
    """A share is between nothing and all."""
    assert 0 <= disk.free_share(str(tmp_path)) <= 1


def test_one_owner(tmp_path: Path) -> None:
    """The second is told who holds the directory; after the release it gets it."""
    path = str(tmp_path / "lock")
    first, second = Lock(path), Lock(path)
    first.acquire()
    with pytest.raises(DirectoryInUse, match=f"process {os.getpid()} already works in this data directory") as problem:
        second.acquire()
    assert (problem.value.path, problem.value.pid) == (path, os.getpid())
    first.release()
    first.release()
    second.acquire()
    second.release()


def test_a_lock_without_a_pid(tmp_path: Path) -> None:
    """A holder that did not write its pid is another process."""
    path = str(tmp_path / "lock")
    first = Lock(path)
    first.acquire()
    Path(path).write_text("")
    with pytest.raises(DirectoryInUse, match="another process already works"):
        Lock(path).acquire()
    first.release()


def test_a_lock_that_cannot_be_written(tmp_path: Path) -> None:
    """What is wrong with the lock file itself is said as it is."""
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        Lock(str(tmp_path / "lock")).acquire()
