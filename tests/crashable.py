"""A directory that can lose power: it records every change, and gives what may be found after a cut at any step.

Changes are made to a real directory, so that whatever reads it by other means sees them too, and are written to a log.
From the log, any state that a power loss may leave is computed and written to another real directory. Syncs reach no
disk: they are steps of the log like the rest. What was made beside this class (a lock) is on no disk after a cut,
unless it is touched through it; then it counts as having been there, durable, from the beginning.

The model is what POSIX promises and no more, but for what every journaling file system gives (ext4, XFS, btrfs, F2FS);
its method, and what file systems were seen to do, are those of Pillai et al., "All File Systems Are Not Created Equal"
(OSDI 2014, the tool ALICE).

* A file's content is durable up to its last `sync`. Of what was done to it since, any first part may have been
  done; and of bytes written since, the last ones may be missing, be zeros (the size reached the disk and the data did
  not), or be zeros with good bytes behind them (pages are written in any order).
* A file's `sync` says nothing about its name, a directory's nothing about the files in it nor about its own name. ext4
  and XFS would write those as well; they need not.
* A change of names is durable when all the directories whose entries it changes have been synced since: one for
  create, mkdir, unlink and rmdir, up to two for rename. It happens wholly or not at all: renames are atomic.
* Of changes of names that are not durable, any subset may have happened that keeps the tree one: a change of an entry
  needs the changes of that entry before it, and the removal of a directory (also by a rename over it) all changes of
  entries in it. Journals that commit in order (ext4, XFS) lose a last part of all changes only, which is one of the
  subsets; POSIX promises no order, and btrfs was seen to keep none between directories, so any subset may come.
* What is below a directory whose own name is lost, is lost.
* A change cannot be half done otherwise, and what was synced never changes.
"""

import os
import random
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, Literal

from axcollector.disk import DIRECTORY_MODE, FILE_MODE, AppendFile, Disk

State = dict[str, bytes | None]
"""A tree: path below its root to a file's content, or to None for a directory."""

_Entry = tuple[int, str]
"""Number of a directory, and a name in it."""
_TOP: Final = 0


@dataclass(frozen=True, slots=True)
class Named:
    """Entries of directories now name other things, or nothing.

    Attributes:
        what: The operation.
        paths: What it was asked for, below the root.
        entries: What each of them names from now on: a number, or None.
        directories: Whose entries they are.
        needs: The steps without which this one cannot have happened.
    """

    what: str
    paths: tuple[str, ...]
    entries: tuple[tuple[_Entry, int | None], ...]
    directories: frozenset[int]
    needs: frozenset[int]


@dataclass(frozen=True, slots=True)
class Written:
    """Bytes now stand at the end of a file, made at that path."""

    file: int
    path: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Cut:
    """A file was cut back to its first `size` bytes, or made so long with zeros."""

    file: int
    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Synced:
    """A file's content, or a directory's entries, are durable."""

    what: int
    path: str


Change = Named | Written | Cut | Synced

_Names = tuple[dict[int, Named], AbstractSet[int]]
"""The changes of names by number, and the numbers of those that are durable."""
_Files = tuple[dict[int, bytes], dict[int, list[Written | Cut]]]
"""Each file's durable content, and what was done to it since."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What a power loss takes of that which was not synced.

    Attributes:
        names: Of the changes of names: none, all, the last ones, one, all but one, any, or those at these steps; and
            what cannot have happened without them.
        data: Of what was done to files: nothing, all, its bytes but not the size, or any part in any way.
        seed: Chooses, where there is a choice.
    """

    names: Literal["none", "all", "last", "one", "all but one", "any"] | frozenset[int] | range
    data: Literal["nothing", "all", "zeroed", "any"]
    seed: int = 0

    def chance(self, step: int) -> random.Random:
        """What chooses at a cut there."""
        return random.Random(f"{self.seed} {step}")


NOTHING: Final = Loss("none", "nothing")
EVERYTHING: Final = Loss("all", "all")
ZEROED: Final = Loss("none", "zeroed")
EMPTIED: Final = Loss("none", "all")


def losses(count: int, seed: int) -> list[Loss]:
    """The four that are no matter of chance, and `count` that are."""
    kinds = [(names, data) for names in ("any", "one", "all but one", "last") for data in ("nothing", "any")]
    chances = (Loss(*kinds[each % len(kinds)], each) for each in range(seed, seed + count))
    return [NOTHING, EVERYTHING, ZEROED, EMPTIED, *chances]


class CrashableFile(AppendFile):
    """A file of a `CrashableDisk`."""

    def __init__(self, path: str, descriptor: int, disk: "CrashableDisk", number: int) -> None:
        super().__init__(path, descriptor)
        self._disk = disk
        self._number = number

    def write(self, data: bytes | memoryview) -> None:
        """Append, one step for each system call."""
        rest = memoryview(data)
        while rest:
            count = os.write(self._descriptor, rest)
            self._disk.log.append(Written(self._number, self._disk.below(self.path), bytes(rest[:count])))
            rest = rest[count:]

    def sync(self) -> None:
        """Note it."""
        os.fstat(self._descriptor)  # refuses a closed file, as the real one does
        self._disk.log.append(Synced(self._number, self._disk.below(self.path)))

    def truncate(self, size: int) -> None:
        """Cut it back."""
        super().truncate(size)
        self._disk.log.append(Cut(self._number, self._disk.below(self.path), size))


class CrashableDisk(Disk):
    """A real directory, and what happened in it.

    Attributes:
        root: The directory. What lies in it at the beginning is durable.
        log: What was changed, in order; its length is the number of the next step.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.log: list[Change] = []
        self._directories = {_TOP}
        self._contents: dict[int, bytes] = {}  # of files that were there at the beginning
        self._found: dict[_Entry, int] = {}  # entries likewise
        self._entries: dict[_Entry, int | None] = {}
        self._changed_at: dict[_Entry, int] = {}
        self._numbers = 1
        self._looked_at: tuple[tuple[int, int], _Names, _Files] | None = None
        self._adopt_all(_TOP, root)

    # What may be found after a cut.

    def after(self, step: int, lost: Loss, into: str) -> "CrashableDisk":
        """The directory as it may be found when the power goes with the first `step` steps done.

        Args:
            step: 0 to the length of the log.
            lost: What is lost.
            into: An empty directory to make it in.
        """
        write_state(self.state(step, lost), into)
        return CrashableDisk(into)

    def killed(self, step: int, into: str) -> "CrashableDisk":
        """The directory as the next process finds it when one is killed there: all is seen, and as durable as it was.

        Args:
            step: 0 to the length of the log.
            into: An empty directory to make it in.
        """
        write_state(self.state(step, NOTHING), into)
        copy = CrashableDisk.__new__(CrashableDisk)
        copy.root, copy.log = into, self.log[:step]
        copy._directories, copy._contents, copy._found = (
            self._directories.copy(),
            self._contents.copy(),
            self._found.copy(),
        )
        copy._entries, copy._changed_at, copy._numbers = {**self._found}, {}, self._numbers
        copy._looked_at = None
        for number, change in enumerate(copy.log):
            if isinstance(change, Named):
                copy._apply(number, change)
        return copy

    def state(self, step: int, lost: Loss) -> State:
        """What `after` makes, as a value."""
        chance = lost.chance(step)
        names, (durable, pending) = self._at(step)
        entries: dict[_Entry, int | None] = {**self._found}
        for number in sorted(_names_kept(*names, lost, chance)):
            change = self.log[number]
            assert isinstance(change, Named)
            entries.update(change.entries)
        below: dict[int, list[tuple[str, int]]] = {}
        for (directory, name), what in sorted(entries.items()):
            if what is not None:
                below.setdefault(directory, []).append((name, what))
        state: State = {}
        waiting = [("", _TOP)]
        for path, number in waiting:
            for name, what in below.get(number, ()):
                place = path + name
                if what in self._directories:
                    state[place] = None
                    waiting.append((place + os.sep, what))
                else:
                    state[place] = _found_content(durable.get(what, b""), pending.get(what, ()), lost, chance)
        return state

    def is_pending(self, number: int, step: int) -> bool:
        """Whether what was done at that number can still be lost in a cut at `step`."""
        change = self.log[number]
        assert not isinstance(change, Synced)
        if isinstance(change, Named):
            named, durable = self._names(step)
            return number in named and number not in durable
        return number < step and not any(
            isinstance(later, Synced) and later.what == change.file for later in self.log[number:step]
        )

    def _at(self, step: int) -> tuple[_Names, _Files]:
        """What is known of a cut there, whatever it loses; several losses at one step are asked for in a row."""
        cut = step, len(self._contents)  # what was made beside this class may have been taken up meanwhile
        if self._looked_at is None or self._looked_at[0] != cut:
            self._looked_at = cut, self._names(step), self._files(step)
        return self._looked_at[1:]

    def _names(self, step: int) -> _Names:
        named: dict[int, Named] = {}
        synced: dict[int, int] = {}
        for number, change in enumerate(self.log[:step]):
            if isinstance(change, Named):
                named[number] = change
            elif isinstance(change, Synced):
                synced[change.what] = number
        done = [n for n, change in named.items() if all(synced.get(d, -1) > n for d in change.directories)]
        return named, _with_needs(named, done)

    def _files(self, step: int) -> _Files:
        durable = dict(self._contents)
        pending: dict[int, list[Written | Cut]] = {}
        for change in self.log[:step]:
            if isinstance(change, Written | Cut):
                pending.setdefault(change.file, []).append(change)
            elif isinstance(change, Synced) and change.what not in self._directories:
                durable[change.what] = _changed(durable.get(change.what, b""), pending.pop(change.what, ()))
        return durable, pending

    # What happens.

    def create(self, path: str) -> AppendFile:
        """A new, empty file."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, FILE_MODE)
        number = self._next_number()
        self._note("create", [path], {self._entry(path): number})
        return CrashableFile(path, descriptor, self, number)

    def make_directory(self, path: str) -> None:
        """A new directory."""
        super().make_directory(path)
        number = self._next_number()
        self._directories.add(number)
        self._note("mkdir", [path], {self._entry(path): number})

    def rename(self, source: str, target: str) -> None:
        """Rename a file or a directory."""
        moved = self._look(source)
        replaced = self._look(target)
        super().rename(source, target)
        if moved is not None and moved != replaced:
            gone = [replaced] if replaced in self._directories else []
            self._note("rename", [source, target], {self._entry(source): None, self._entry(target): moved}, gone)

    def unlink(self, path: str) -> None:
        """Remove a file."""
        self._look(path)
        super().unlink(path)
        self._note("unlink", [path], {self._entry(path): None})

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        gone = self._look(path)
        super().remove_directory(path)
        self._note("rmdir", [path], {self._entry(path): None}, [gone])

    def sync_directory(self, path: str) -> None:
        """Note it; directories above the root are somebody else's."""
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))  # refuses what the real one refuses
        if self.root.startswith(path) and path != self.root:
            return
        number = self._look(path)
        assert number is not None
        self.log.append(Synced(number, self.below(path)))

    def _note(
        self, what: str, paths: Sequence[str], entries: dict[_Entry, int | None], gone: Sequence[int | None] = ()
    ) -> None:
        """Append a change of names; `gone` are directories that were removed by it."""
        needs = {self._changed_at[entry] for entry in entries if entry in self._changed_at}
        needs.update(number for (directory, _), number in self._changed_at.items() if directory in gone)
        directories = frozenset(directory for directory, _ in entries)
        change = Named(what, tuple(map(self.below, paths)), tuple(entries.items()), directories, frozenset(needs))
        self._apply(len(self.log), change)
        self.log.append(change)

    def _apply(self, number: int, change: Named) -> None:
        for entry, what in change.entries:
            self._entries[entry] = what
            self._changed_at[entry] = number

    # Which is which: things have numbers, because their paths change.

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _entry(self, path: str) -> _Entry:
        """Where a path ends; everything above it is there."""
        directory, name = os.path.split(path)
        parent = self._look(directory)
        assert parent is not None
        return parent, name

    def below(self, path: str) -> str:
        """A path from the root on."""
        return path.removeprefix(self.root).strip(os.sep)

    def _look(self, path: str) -> int | None:
        """The number of what lies there, or None."""
        below = path.removeprefix(self.root)
        assert path == self.root + below, f"{path} is not below {self.root}"
        number, place = _TOP, self.root
        for name in filter(None, below.split(os.sep)):
            place = f"{place}{os.sep}{name}"
            found = self._entries.get((number, name))
            if found is None and not os.path.lexists(place):
                return None
            number = self._adopt((number, name), place) if found is None else found
        return number

    def _adopt(self, entry: _Entry, path: str) -> int:
        """Take up what was made beside this class, as having been there from the beginning."""
        number = self._next_number()
        self._found[entry] = self._entries[entry] = number
        if self.is_directory(path):
            self._directories.add(number)
            self._adopt_all(number, path)
        elif os.path.isfile(path) and not os.path.islink(path):
            with self.open(path) as file:
                self._contents[number] = file.read()
        return number

    def _adopt_all(self, directory: int, path: str) -> None:
        for name in self.names(path):
            self._adopt((directory, name), os.path.join(path, name))


def _names_kept(
    named: dict[int, Named], durable: AbstractSet[int], lost: Loss, chance: random.Random
) -> AbstractSet[int]:
    """The steps that changed names and are not lost."""
    pending = [number for number in named if number not in durable]
    return durable | _with_needs(named, _chosen(named, pending, lost, chance))


def _chosen(named: dict[int, Named], pending: Sequence[int], lost: Loss, chance: random.Random) -> Sequence[int]:
    """Which of the changes of names that are not durable have happened."""
    if lost.names == "none" or not pending:
        return pending
    if lost.names == "last":
        return pending[: chance.randrange(len(pending))]
    if lost.names == "one":
        return _without(named, pending, {chance.choice(pending)})
    if isinstance(lost.names, frozenset | range):
        return _without(named, pending, set(lost.names))
    if lost.names == "all but one":
        return [chance.choice(pending)]
    return [number for number in pending if lost.names == "any" and chance.random() < 0.5]


def _with_needs(named: dict[int, Named], numbers: Iterable[int]) -> set[int]:
    done: set[int] = set()
    waiting = list(numbers)
    while waiting:
        number = waiting.pop()
        if number not in done:
            done.add(number)
            waiting.extend(named[number].needs)
    return done


def _without(named: dict[int, Named], numbers: Sequence[int], lost: AbstractSet[int]) -> list[int]:
    gone = set(lost)
    for number in numbers:  # in order, so that whatever needs a lost one is found in one pass
        if named[number].needs & gone:
            gone.add(number)
    return [number for number in numbers if number not in gone]


def _changed(content: bytes, changes: Iterable[Written | Cut]) -> bytes:
    for change in changes:
        if isinstance(change, Written):
            content += change.data
        else:
            content = content[: change.size].ljust(change.size, b"\0")
    return content


def _found_content(durable: bytes, pending: Sequence[Written | Cut], lost: Loss, chance: random.Random) -> bytes:
    """A file's content after the loss."""
    if not pending or lost.data == "all":
        return durable
    if lost.data == "any":
        pending = pending[: chance.randint(0, len(pending))]
    whole = _changed(durable, pending)
    safe = min([len(durable), *(change.size for change in pending if isinstance(change, Cut))])
    if lost.data == "nothing":
        return whole
    if lost.data == "zeroed":
        return whole[:safe] + bytes(len(whole) - safe)
    first, last = sorted((chance.randint(safe, len(whole)), chance.randint(safe, len(whole))))
    zeros = bytes(last - first)
    return chance.choice([whole, whole[:first], whole[:first] + zeros, whole[:first] + zeros + whole[last:]])


def write_state(state: State, into: str) -> None:
    """Make this tree in an empty directory."""
    for path, content in state.items():  # a directory comes before what is in it
        place = os.path.join(into, path)
        if content is None:
            os.mkdir(place, DIRECTORY_MODE)
        else:
            with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "wb") as file:
                file.write(content)


def read_state(root: str) -> State:
    """The tree that lies in a directory."""
    state: State = {}
    for here, directories, files in os.walk(root):
        place = os.path.relpath(here, root)
        for name in sorted(directories):
            state[os.path.normpath(os.path.join(place, name))] = None
        for name in sorted(files):
            with open(os.path.join(here, name), "rb") as file:
                state[os.path.normpath(os.path.join(place, name))] = file.read()
    return state


def steps(log: Sequence[Change], name: str) -> tuple[int, int]:
    """How much of a file the disk had to write at once at most, by the end of its name, and how often it was synced."""
    waiting = most = syncs = 0
    for change in log:
        if isinstance(change, Written) and change.path.endswith(name):
            waiting += len(change.data)
            most = max(most, waiting)
        elif isinstance(change, Synced) and change.path.endswith(name):
            waiting, syncs = 0, syncs + 1
    assert waiting == 0, "its end was not synced"
    return most, syncs
