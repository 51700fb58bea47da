"""The data directory as a whole, and whether there is room in it."""

import os
from pathlib import Path

import pytest
from twisted.logger import LogEvent

from axcollector.core.errors import DirectoryInUse, SpoolFailed
from axcollector.core.layout import Stage
from axcollector.disk import Disk
from axcollector.premises import Premises
from axcollector.room import Room


def premises(root: Path) -> Premises:
    """A data directory below `root`."""
    return Premises(Disk(), str(root / "data"), str(root / "data" / "ax"))


def test_the_first_start_makes_everything(tmp_path: Path) -> None:
    """Stages, an id, and a count of starts, for the owner alone."""
    place = premises(tmp_path)
    place.acquire(None, lambda: "made", 0)
    assert (place.instance_id, place.starts) == ("made", 1)
    assert sorted(os.listdir(tmp_path / "data" / "ax")) == sorted(Stage)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "data").rglob("*")}
    assert modes == {0o700, 0o600}
    place.release()


def test_later_starts_are_counted(tmp_path: Path) -> None:
    """The id stays, unless one is configured; the count grows."""
    for starts, configured, expected in ((1, None, "made"), (2, None, "made"), (3, "own", "own"), (4, None, "made")):
        place = premises(tmp_path)
        place.acquire(configured, lambda n=starts: "made" if n == 1 else "other", 0)
        assert (place.instance_id, place.starts) == (expected, starts)
        place.release()


def test_two_owners(tmp_path: Path) -> None:
    """The second is refused, and neither the count nor the first is disturbed."""
    first, second = premises(tmp_path), premises(tmp_path)
    first.acquire(None, lambda: "made", 0)
    with pytest.raises(DirectoryInUse):
        second.acquire(None, lambda: "made", 0)
    first.release()
    second.acquire(None, lambda: "made", 0)
    assert second.starts == 2
    second.release()


@pytest.mark.parametrize("content", ["garbage", ""])
def test_a_damaged_count(tmp_path: Path, content: str, log_events: list[LogEvent]) -> None:
    """A count that cannot be read is replaced by a number larger than any, so that no name is used twice."""
    place = premises(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "starts").write_text(content)
    place.acquire(None, lambda: "made", 1_480_000_000.5)
    assert place.starts == 1_480_000_001
    assert [event["log_level"].name for event in log_events] == ["error"]
    place.release()


def test_a_start_that_fails_gives_the_lock_back(tmp_path: Path) -> None:
    """What cannot be made is raised, and the next try is not refused for the lock."""
    (tmp_path / "data" / "ax").mkdir(parents=True)
    (tmp_path / "data" / "ax" / "staging").write_bytes(b"in the way")
    place = premises(tmp_path)
    for _ in range(2):
        with pytest.raises(FileExistsError):
            place.acquire(None, lambda: "made", 0)


class SmallDisk(Disk):
    """A file system with as much room as is said."""

    free = 1.0

    def free_share(self, path: str) -> float:
        return self.free


def test_a_file_system_that_fills_up(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """Below a tenth of free room batches are refused with what to do about it, until there is more."""
    disk = SmallDisk()
    room = Room(disk, str(tmp_path), 0)
    for free, refused in ((0.5, False), (0.09, True), (0.08, True), (0.1, False)):
        disk.free = free
        room.measure()
        assert (room.lack is not None) == refused
        if refused:
            with pytest.raises(SpoolFailed, match=r"free some, or set spool_quota_bytes"):
                room.check()
        else:
            room.check()
    assert [event["log_level"].name for event in log_events] == ["error", "info"]


def test_a_quota(tmp_path: Path) -> None:
    """With a quota the spool's own size counts, and the file system's free share does not."""
    disk = SmallDisk()
    disk.free = 0.01
    place = premises(tmp_path)
    place.acquire(None, lambda: "made", 0)
    room = Room(disk, str(tmp_path / "data" / "ax"), 1000)
    room.measure()
    room.check()
    (tmp_path / "data" / "ax" / "staging" / "b").mkdir()
    (tmp_path / "data" / "ax" / "staging" / "b" / "f").write_bytes(bytes(999))
    (tmp_path / "data" / "ax" / "tmp" / "j").write_bytes(b"1")
    room.measure()
    with pytest.raises(SpoolFailed, match=r"1000 bytes, its quota \(spool_quota_bytes\) is 1000"):
        room.check()
    place.release()
