"""What a `Disk` does, whichever it is: the same suite for the real one and for the one that crashes.

Then what only the latter promises: what a power loss leaves.
"""

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from axcollector.directories import ensure_directory
from axcollector.disk import AppendFile, Disk, remove_tree, write_durably
from tests.crashable import (
    EMPTIED,
    EVERYTHING,
    NOTHING,
    ZEROED,
    CrashableDisk,
    Loss,
    State,
    losses,
    read_state,
    write_state,
)

DISKS: dict[str, Callable[[str], Disk]] = {"real": lambda _: Disk(), "crashable": CrashableDisk}


@pytest.fixture
def root(tmp_path: Path) -> str:
    """An empty directory."""
    path = tmp_path / "root"
    path.mkdir()
    return str(path)


@pytest.fixture(params=sorted(DISKS))
def disk(request: pytest.FixtureRequest, root: str) -> Disk:
    """Each of the two."""
    return DISKS[request.param](root)


def error_of(function: Callable[..., object], *arguments: object) -> int | None:
    """The number of the error that a call fails with."""
    try:
        function(*arguments)
    except OSError as exc:
        return exc.errno
    return None


def write(disk: Disk, path: str, content: bytes) -> None:
    """A new file, not synced."""
    with disk.create(path) as file:
        file.write(content)


def test_files(disk: Disk, root: str) -> None:
    """Made for their owner alone, appended to, cut back, read, measured, removed."""
    path = os.path.join(root, "f")
    with disk.create(path) as file:
        assert file.path == path
        file.write(b"abc" * 100_000)
        file.write(memoryview(b"def"))
        file.sync()
        file.truncate(4)
        file.write(b"x")
        assert disk.size(path) == 5
    with disk.open(path) as reading:
        assert reading.read() == b"abcax"
        assert os.pread(reading.fileno(), 2, 3) == b"ax"
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert disk.exists(path) is True
    disk.unlink(path)
    assert disk.exists(path) is False


def test_files_that_are_closed(disk: Disk, root: str) -> None:
    """They take nothing more."""
    file = disk.create(os.path.join(root, "f"))
    file.close()
    calls: list[tuple[Callable[..., object], tuple[object, ...]]] = [
        (file.write, (b"x",)), (file.sync, ()), (file.truncate, (0,)), (file.close, ()),
    ]  # fmt: skip
    assert [error_of(function, *arguments) for function, arguments in calls] == [errno.EBADF] * 4
    assert disk.size(file.path) == 0


def test_directories(disk: Disk, root: str) -> None:
    """Made for their owner alone, listed in order, renamed with what is in them, removed when empty."""
    place = os.path.join(root, "d")
    disk.make_directory(place)
    assert os.stat(place).st_mode & 0o777 == 0o700
    for name in ("b", "a", "c"):
        disk.make_directory(os.path.join(place, name))
    assert disk.names(place) == ["a", "b", "c"]
    assert disk.is_directory(place) is True
    disk.rename(place, os.path.join(root, "e"))
    disk.sync_directory(root)
    assert disk.names(root) == ["e"]
    assert disk.names(os.path.join(root, "e")) == ["a", "b", "c"]
    for name in ("a", "b", "c"):
        disk.remove_directory(os.path.join(root, "e", name))
    disk.remove_directory(os.path.join(root, "e"))
    assert disk.names(root) == []
    assert 0 <= disk.free_share(root) <= 1


def test_renames_replace(disk: Disk, root: str) -> None:
    """A file takes a file's place, a directory that of an empty one, and a thing its own."""
    path = {name: os.path.join(root, name) for name in ("f", "g", "d", "e")}
    write(disk, path["f"], b"1")
    write(disk, path["g"], b"2")
    disk.rename(path["f"], path["g"])
    disk.rename(path["g"], path["g"])
    disk.make_directory(path["d"])
    disk.make_directory(path["e"])
    write(disk, os.path.join(path["d"], "x"), b"3")
    disk.rename(path["d"], path["e"])
    assert read_state(root) == {"g": b"1", "e": None, "e/x": b"3"}


def test_links(disk: Disk, root: str) -> None:
    """They are neither followed nor taken for what they point at; they are removed like files."""
    os.symlink(root, os.path.join(root, "d"))
    os.symlink("nothing", os.path.join(root, "f"))
    path = os.path.join(root, "d")
    assert (disk.is_directory(path), disk.exists(os.path.join(root, "f"))) == (False, True)
    assert error_of(disk.open, path) == errno.ELOOP
    assert error_of(disk.create, os.path.join(root, "f")) == errno.EEXIST
    assert error_of(disk.remove_directory, path) == errno.ENOTDIR
    disk.unlink(path)
    assert disk.names(root) == ["f"]


def refusals(disk: Disk, root: str) -> dict[str, int | None]:
    """What each method says to what it cannot do."""
    at = {name: os.path.join(root, name) for name in ("nothing", "f", "d", "nothing/x", "f/x", "d/x")}
    write(disk, at["f"], b"1")
    disk.make_directory(at["d"])
    write(disk, at["d/x"], b"2")
    one: list[Callable[[str], object]] = [
        disk.create, disk.open, disk.make_directory, disk.names, disk.is_directory, disk.exists, disk.size,
        disk.unlink, disk.remove_directory, disk.sync_directory, disk.free_share,
    ]  # fmt: skip
    wrong = [(function, (path,)) for function in one for path in ("nothing/x", "f/x")]
    wrong += [(function, ("nothing",)) for function in one[3:] if function.__name__ != "create"]
    wrong += [(function, ("f",)) for function in (disk.create, disk.make_directory, disk.names, disk.remove_directory)]
    wrong += [(function, ("d",)) for function in (disk.create, disk.make_directory, disk.unlink, disk.remove_directory)]
    wrong += [(disk.sync_directory, ("f",)), (disk.open, ("nothing",))]
    pairs = [("nothing", "f"), ("f", "d"), ("d", "f"), ("f", "nothing/x"), ("d", "d/x"), ("f/x", "nothing")]
    return {
        **{
            f"{function.__name__} {names}": error_of(function, *(at[name] for name in names))
            for function, names in wrong
        },
        **{f"rename {pair}": error_of(disk.rename, *(at[name] for name in pair)) for pair in pairs},
    }


def test_refusals(tmp_path: Path) -> None:
    """Both fail with the same errors, and change nothing then."""
    found = {}
    for kind, make in DISKS.items():
        root = str(tmp_path / kind)
        os.mkdir(root)
        found[kind] = refusals(make(root), root)
        assert read_state(root) == {"f": b"1", "d": None, "d/x": b"2"}
    assert found["crashable"] == found["real"]
    assert set(found["real"].values()) >= {errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENOTEMPTY}


class Walk:
    """Operations at random, sensible or not."""

    def __init__(self, disk: Disk, root: str, seed: int) -> None:
        self.disk = disk
        self.root = root
        self.chance = random.Random(seed)
        self.places = [os.path.join(root, *parts) for parts in ("a", "b", "c", "ab", "ba", "cc", "abc")]
        self.files: dict[str, AppendFile] = {}  # the last one made there, wherever it is now
        self.open: list[AppendFile] = []
        self.operations: list[Callable[[str], object]] = [
            *(self.create, self.create, disk.make_directory, disk.make_directory, self.rename, disk.unlink),
            *(disk.remove_directory, disk.sync_directory, self.sync_root, self.write, self.truncate),
        ]

    def create(self, path: str) -> None:
        self.files[path] = self.disk.create(path)
        self.open.append(self.files[path])

    def rename(self, path: str) -> None:
        self.disk.rename(path, self.chance.choice(self.places))

    def sync_root(self, path: str) -> None:
        self.disk.sync_directory(self.root)

    def write(self, path: str) -> None:
        if path in self.files:
            self.files[path].write(bytes([self.chance.randrange(256)]) * 3)

    def truncate(self, path: str) -> None:
        if path in self.files:
            self.files[path].truncate(self.chance.randrange(8))
            self.files[path].sync()

    def go(self, steps: int) -> list[tuple[str, int | None]]:
        """What was done, and the error it ended in."""
        chosen = [(self.chance.choice(self.operations), self.chance.choice(self.places)) for _ in range(steps)]
        done = [(operation.__name__, error_of(operation, path)) for operation, path in chosen]
        for file in self.open:
            file.close()
        return done


@pytest.mark.parametrize("seed", range(40))
def test_random_walks(tmp_path: Path, seed: int) -> None:
    """Both give the same results, the same errors and the same tree; the log, replayed, gives that tree too."""
    results = {}
    for kind, make in DISKS.items():
        root = str(tmp_path / kind)
        os.mkdir(root)
        disk = make(root)
        results[kind] = Walk(disk, root, seed).go(120), read_state(root)
    assert results["crashable"] == results["real"]
    assert isinstance(disk, CrashableDisk)
    assert disk.state(len(disk.log), NOTHING) == read_state(root)


@pytest.mark.parametrize("seed", range(40))
def test_crash_states_are_trees(tmp_path: Path, seed: int) -> None:
    """Whatever is lost, wherever: a tree is left; a kill leaves all; what was synced above and below is there."""
    root = str(tmp_path / "root")
    os.mkdir(root)
    disk = CrashableDisk(root)
    Walk(disk, root, seed).go(60)
    places = [""]
    for path, content in read_state(root).items():
        places += [path] if content is None else []
    for place in places:
        disk.sync_directory(os.path.join(root, place))
    durable = disk.state(len(disk.log), EVERYTHING)
    assert durable.keys() == read_state(root).keys()
    Walk(disk, root, seed + 1000).go(20)
    for number, step in enumerate(range(0, len(disk.log) + 1, 7)):
        for lost in losses(8, seed):
            into = tmp_path / f"{number} {lost}"
            into.mkdir()
            found = disk.after(step, lost, str(into))
            assert read_state(str(into)) == disk.state(step, lost) == found.state(0, EVERYTHING)
        into = tmp_path / f"{number} killed"
        into.mkdir()
        killed = disk.killed(step, str(into))
        assert read_state(str(into)) == killed.state(step, NOTHING)
        assert killed.state(step, EVERYTHING) == disk.state(step, EVERYTHING)


# What a power loss leaves.


def found_after(disk: CrashableDisk, lost: Loss = EVERYTHING) -> State:
    """The tree after a cut at the end of the log."""
    return disk.state(len(disk.log), lost)


def every_state(disk: CrashableDisk) -> set[tuple[tuple[str, bytes | None], ...]]:
    """All that a cut at the end may leave, as far as chance finds it."""
    return {tuple(sorted(found_after(disk, lost).items())) for lost in losses(1500, 1)}


@pytest.fixture
def crashable(root: str) -> CrashableDisk:
    """A directory that can lose power."""
    return CrashableDisk(root)


def test_content_and_name_are_synced_each_by_itself(crashable: CrashableDisk, root: str) -> None:
    """A synced file without a synced name is gone; a synced name without a synced content is empty."""
    for name in ("f", "g"):
        with crashable.create(os.path.join(root, name)) as file:
            file.write(b"1")
            if name == "f":
                file.sync()
    assert found_after(crashable) == {}
    crashable.sync_directory(root)
    assert found_after(crashable) == {"f": b"1", "g": b""}
    assert found_after(crashable, EMPTIED) == {"f": b"1", "g": b""}
    assert found_after(crashable, ZEROED) == {"f": b"1", "g": b"\0"}
    assert found_after(crashable, NOTHING) == {"f": b"1", "g": b"1"}


def test_the_end_of_a_file_tears(crashable: CrashableDisk, root: str) -> None:
    """What was appended since the sync may be cut anywhere, be zeros, or have a hole; what was before stays."""
    with crashable.create(os.path.join(root, "f")) as file:
        file.write(b"ab")
        file.sync()
        crashable.sync_directory(root)
        file.write(b"cd")
        file.write(b"e")
    found = {dict(state)["f"] for state in every_state(crashable)}
    assert found >= {b"ab", b"abc", b"abcd", b"abcde", b"ab\0", b"ab\0\0", b"ab\0\0\0", b"abc\0", b"ab\0de", b"abc\0e"}
    assert all(content is not None and content.startswith(b"ab") for content in found)


def test_a_cut_back_may_be_lost(crashable: CrashableDisk, root: str) -> None:
    """Until the sync the file may be as it was; bytes written in place of others are not durable yet."""
    with crashable.create(os.path.join(root, "f")) as file:
        file.write(b"abcd")
        file.sync()
        crashable.sync_directory(root)
        file.truncate(2)
        file.write(b"x")
    found = {dict(state)["f"] for state in every_state(crashable)}
    assert found == {b"abcd", b"ab", b"abx", b"ab\0"}


def test_changes_of_names_come_in_any_order(crashable: CrashableDisk, root: str) -> None:
    """Each of two new names may be lost without the other; of one entry's changes only the last ones."""
    for name in ("f", "g"):
        with crashable.create(os.path.join(root, name)) as file:
            file.sync()
    crashable.unlink(os.path.join(root, "f"))
    found = {"".join(name for name, _ in state) for state in every_state(crashable)}
    assert found == {"", "f", "g", "fg"}
    crashable.rename(os.path.join(root, "g"), os.path.join(root, "f"))
    found = {"".join(name for name, _ in state) for state in every_state(crashable)}
    assert found == {"", "f", "g", "fg"}
    crashable.sync_directory(root)
    assert every_state(crashable) == {(("f", b""),)}


def test_renames_are_whole(crashable: CrashableDisk, root: str) -> None:
    """Between directories a thing is in one of them, until both are synced."""
    for name in ("a", "b"):
        crashable.make_directory(os.path.join(root, name))
    write(crashable, os.path.join(root, "a", "f"), b"")
    for name in ("", "a", "b"):
        crashable.sync_directory(os.path.join(root, name))
    crashable.rename(os.path.join(root, "a", "f"), os.path.join(root, "b", "g"))
    both = {(("a", None), ("a/f", b""), ("b", None)), (("a", None), ("b", None), ("b/g", b""))}
    for name in ("", "b"):
        crashable.sync_directory(os.path.join(root, name))
        assert every_state(crashable) == both
    crashable.sync_directory(os.path.join(root, "a"))
    assert len(every_state(crashable)) == 1


def test_what_is_below_a_lost_directory_is_lost(crashable: CrashableDisk, root: str) -> None:
    """However durable it is itself; unless it was moved elsewhere."""
    crashable.make_directory(os.path.join(root, "d"))
    with crashable.create(os.path.join(root, "d", "f")) as file:
        file.sync()
    crashable.sync_directory(os.path.join(root, "d"))
    assert found_after(crashable) == {}
    crashable.sync_directory(root)
    assert found_after(crashable) == {"d": None, "d/f": b""}


def test_an_empty_directory_was_emptied_first(crashable: CrashableDisk, root: str) -> None:
    """A durable rmdir makes the removals in it durable, and the renames out of it."""
    for name in ("d", "e"):
        crashable.make_directory(os.path.join(root, name))
        write(crashable, os.path.join(root, name, "f"), b"")
        write(crashable, os.path.join(root, name, "g"), b"")
    for name in ("d", "e", ""):
        crashable.sync_directory(os.path.join(root, name))
    crashable.rename(os.path.join(root, "d", "g"), os.path.join(root, "h"))
    crashable.unlink(os.path.join(root, "d", "f"))
    crashable.remove_directory(os.path.join(root, "d"))
    crashable.sync_directory(root)
    assert found_after(crashable) == {"e": None, "e/f": b"", "e/g": b"", "h": b""}


def test_the_hands_small_works(crashable: CrashableDisk, root: str) -> None:
    """Whole directories are made durably and removed; a small file is the old or the new one, at every cut."""
    ensure_directory(crashable, os.path.join(root, "a", "b"))
    assert found_after(crashable) == {"a": None, "a/b": None}
    path = os.path.join(root, "a", "f")
    write_durably(crashable, path, b"old")
    begun = len(crashable.log)
    write_durably(crashable, path, b"new")
    found = {crashable.state(step, lost)["a/f"] for step in range(begun, len(crashable.log)) for lost in losses(16, 1)}
    assert found == {b"old", b"new"}
    assert found_after(crashable)["a/f"] == b"new"
    remove_tree(crashable, os.path.join(root, "a"))
    crashable.sync_directory(root)
    assert found_after(crashable) == {}


def test_what_was_there_is_durable(root: str) -> None:
    """The state that a directory is taken up in is its first, and so is what is put there by other means."""
    write_state({"d": None, "d/f": b"1"}, root)
    crashable = CrashableDisk(root)
    write_state({"e": None, "e/g": b"2"}, root)
    crashable.rename(os.path.join(root, "e", "g"), os.path.join(root, "d", "f"))
    assert found_after(crashable) == {"d": None, "d/f": b"1", "e": None, "e/g": b"2"}
    assert found_after(crashable, NOTHING) == {"d": None, "d/f": b"2", "e": None}
