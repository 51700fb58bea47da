"""Taking records out of quarantine: what is done with stays gone, what is not stays, whatever breaks off."""

import gzip
import os
from pathlib import Path

import pytest
from msgspec import Raw

from axcollector.core.errors import QuarantineDamaged, QuarantineError
from axcollector.core.quarantine import Entry
from axcollector.disk import Disk
from axcollector.quarantine_files import QuarantineFile, files_in, taking_out
from tests.crashable import EVERYTHING, NOTHING, CrashableDisk, losses

BUCKET = "acme~prod~20161124150800"
NAME = f"{BUCKET}/0000_x.txt.gz"


def entry(number: int, record: bytes = b"{}", tenant: tuple[str, str] = ("acme", "prod")) -> Entry:
    """A record that was set aside, and its place."""
    return Entry(1_480_000_000_000 + number, *tenant, None, number, "BAD_DATA", "old", Raw(record))


def put(disk: Disk, directory: str, entries: list[Entry], name: str = NAME) -> QuarantineFile:
    """A file of these entries, durable."""
    bucket = os.path.dirname(os.path.join(directory, name))
    if not disk.exists(bucket):
        disk.make_directory(bucket)
    with disk.create(os.path.join(directory, name)) as file:
        file.write(b"".join(gzip.compress(each.line()) for each in entries))
        file.sync()
    disk.sync_directory(bucket)
    disk.sync_directory(directory)
    return QuarantineFile(disk, directory, name)


def numbers(file: QuarantineFile) -> list[tuple[int, str]]:
    """Which entries are there, and their reasons."""
    return [(each.index, each.reason) for _, _, each in file.lines()]


def test_lines_that_are_done_with(tmp_path: Path) -> None:
    """They are gone at once for whoever reads, also before the file is written anew; reasons are replaced then."""
    file = put(Disk(), str(tmp_path), [entry(i, b'{"s":"\\ud800"}') for i in range(5)])
    assert file.was_changed is False
    file.finish_lines([0, 3])
    again = QuarantineFile(Disk(), str(tmp_path), NAME)
    assert again.was_changed is True
    assert numbers(again) == [(1, "old"), (2, "old"), (4, "old")]
    file.close()
    again.finish_lines([1])  # by another process, after the first was killed
    assert again.rewrite({2: ("BAD_DATA", "new")}) == 2
    assert numbers(again) == [(2, "new"), (4, "old")]
    assert [bytes(e.record) for _, _, e in again.lines()] == [b'{"s":"\\ud800"}'] * 2
    assert sorted(p.name for p in (tmp_path / BUCKET).iterdir()) == ["0000_x.txt.gz"]
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
    again.finish_lines([0, 1])
    assert again.rewrite({}) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_bucket_with_other_files_stays(tmp_path: Path) -> None:
    """Only an empty bucket's directory is removed."""
    disk = Disk()
    file = put(disk, str(tmp_path), [entry(0)])
    put(disk, str(tmp_path), [entry(1)], f"{BUCKET}/0001_x.txt.gz")
    file.drop()
    assert [file.name for file in files_in(disk, str(tmp_path))] == [f"{BUCKET}/0001_x.txt.gz"]


def test_a_note_about_another_content(tmp_path: Path) -> None:
    """A list of lines that are done with says nothing of a file that has been written anew since."""
    file = put(Disk(), str(tmp_path), [entry(i) for i in range(3)])
    file.finish_lines([0])
    notes = (tmp_path / (NAME + ".done")).read_bytes()
    file.rewrite({})
    (tmp_path / (NAME + ".done")).write_bytes(notes)
    assert numbers(file) == [(1, "old"), (2, "old")]
    file.finish_lines([0])
    assert numbers(file) == [(2, "old")]
    file.close()


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_torn_note(tmp_path: Path, cut: int) -> None:
    """A number that was cut short is none: 12 is not taken for 1."""
    file = put(Disk(), str(tmp_path), [entry(i) for i in range(13)])
    file.finish_lines([0])
    file.finish_lines([12])
    file.close()
    notes = tmp_path / (NAME + ".done")
    notes.write_bytes(notes.read_bytes()[:-cut])
    assert [number for number, _ in numbers(file)] == list(range(1, 13))


def test_power_lost_at_every_step(tmp_path: Path) -> None:
    """Wherever it is cut off: what was noted as done with stays gone, everything else is there once."""
    (tmp_path / "disk").mkdir()
    disk = CrashableDisk(str(tmp_path / "disk"))
    quarantine = os.path.join(disk.root, "quarantine")
    disk.make_directory(quarantine)
    disk.sync_directory(disk.root)
    file = put(disk, quarantine, [entry(i) for i in range(6)])
    begun = len(disk.log)
    known: list[tuple[int, set[int]]] = [(begun, set())]

    def done(*lines: int, indexes: set[int]) -> None:
        known.append((len(disk.log), known[-1][1] | indexes))  # from here on it may be
        file.finish_lines(lines)
        known.append((len(disk.log), known[-1][1]))

    done(1, indexes={1})
    done(2, 5, indexes={2, 5})
    file.rewrite({3: ("BAD_DATA", "new")})
    done(0, indexes={0})
    file.close()
    file = QuarantineFile(disk, quarantine, NAME)
    file.rewrite({})
    done(0, 1, indexes={3, 4})
    file.rewrite({})
    states = 0
    for step in range(begun, len(disk.log) + 1):
        may = [gone for at, gone in known if at <= step][-1]
        begun_by = [i for i, (at, _) in enumerate(known) if at <= step][-1]
        must = known[begun_by][1] if begun_by % 2 == 0 else known[begun_by - 1][1]
        for lost in [NOTHING, EVERYTHING, *losses(6, step)]:
            states += 1
            place = tmp_path / str(states)
            place.mkdir()
            disk.after(step, lost, str(place))
            found = [n for f in files_in(Disk(), str(place / "quarantine")) for n, _ in numbers(f)]
            assert len(found) == len(set(found))
            assert set(range(6)) - may <= set(found) <= set(range(6)) - must, (step, lost, disk.log[:step])
    assert states > 100


@pytest.mark.parametrize("damage", ["cut", "flipped", "no gzip", "no lines"])
def test_damage(tmp_path: Path, damage: str) -> None:
    """A damaged file is said to be, and is not written anew."""
    file = put(Disk(), str(tmp_path), [entry(i) for i in range(3)])
    content = (tmp_path / NAME).read_bytes()
    changed = {
        "cut": content[:-3],
        "flipped": content[:40] + bytes([content[40] ^ 1]) + content[41:],
        "no gzip": b"x" * 100,
        "no lines": gzip.compress(b"{}\n"),
    }[damage]
    (tmp_path / NAME).write_bytes(changed)
    with pytest.raises(QuarantineDamaged, match="is damaged"):
        list(file.lines())
    with pytest.raises(QuarantineDamaged):
        file.rewrite({})
    assert (tmp_path / NAME).read_bytes() == changed


def test_what_is_none_of_ours(tmp_path: Path) -> None:
    """Other things in the directory are passed over; the oldest bucket comes first, whoever's it is."""
    disk = Disk()
    for tenant, start in (("zoo~a", "20161124150800"), ("acme~prod", "20161124151000")):
        put(disk, str(tmp_path), [entry(0)], f"{tenant}~{start}/1.txt.gz")
    (tmp_path / "zoo~a~20161124150800" / "2.txt.gz.done").write_bytes(b"")
    (tmp_path / "x").write_bytes(b"")
    (tmp_path / "acme~prod~20161124150800").write_bytes(b"")
    found = files_in(disk, str(tmp_path))
    assert [file.name for file in found] == ["zoo~a~20161124150800/1.txt.gz", "acme~prod~20161124151000/1.txt.gz"]
    assert [file.tenant for file in found] == ["zoo~a", "acme~prod"]
    assert files_in(disk, str(tmp_path / "nowhere")) == []


def test_one_at_a_time(tmp_path: Path) -> None:
    """Two commands do not take records out at once."""
    with taking_out(str(tmp_path)):
        with pytest.raises(QuarantineError, match="another command"), taking_out(str(tmp_path)):
            raise AssertionError
        assert files_in(Disk(), str(tmp_path)) == []
    with taking_out(str(tmp_path)), taking_out(str(tmp_path / "nowhere")):
        pass
