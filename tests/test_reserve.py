"""The room that splits will need is left free."""

import errno
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from axcollector.core.commit import GroupCommit
from axcollector.core.errors import SpoolFailed
from axcollector.core.layout import JournalName, Stage
from axcollector.core.model import Batch, Interval, Tenant
from axcollector.disk import Disk
from axcollector.journal import JournalPlan, JournalWriter
from axcollector.reserve import MARGIN_BYTES, TENANT_BYTES, SplitReserve
from axcollector.splitter import Splitter
from axcollector.spool import Spool
from tests.fakes import SameThread, result_of


class SmallDisk(Disk):
    """A real directory on a file system with as much room as is said."""

    free = 0

    def free_bytes(self, path: str) -> int:
        return self.free


def test_what_is_needed(tmp_path: Path) -> None:
    """A journal needs its own size and a block or two for each tenant, until it is split."""
    disk = SmallDisk()
    reserve = SplitReserve(disk, str(tmp_path))
    reserve.note("a", 100, 1)
    reserve.note("b", 1000, 2)
    reserve.note("a", 200, 1)
    needed = 1200 + 3 * TENANT_BYTES
    assert reserve.needed == needed
    disk.free = needed + MARGIN_BYTES + 2 * 10 + TENANT_BYTES
    reserve.check(10, 1)
    with pytest.raises(OSError, match="kept for splitting") as problem:
        reserve.check(11, 1)
    assert problem.value.errno == errno.ENOSPC
    reserve.forget("b")
    reserve.forget("unknown")
    assert reserve.needed == 200 + TENANT_BYTES


def test_journals_found_after_a_crash(tmp_path: Path) -> None:
    """They count by their size, as if of as many tenants as fit into it; what is no journal does not."""
    name = JournalName(Interval(1_480_000_080, 1_480_000_200), "id", 1, 0, 0).found(1_480_000_092)
    (tmp_path / name.journal).write_bytes(bytes(1024))
    (tmp_path / name.split).mkdir()
    (tmp_path / "unreadable").mkdir()
    reserve = SplitReserve(Disk(), str(tmp_path))
    reserve.note_found(str(tmp_path))
    assert reserve.needed == 1024 + 4 * TENANT_BYTES


def test_batches_are_refused_before_the_split_would_fail(tmp_path: Path) -> None:
    """The journal stays open and whole; after the split, or with more room, batches are taken again."""
    for stage in Stage:
        (tmp_path / stage).mkdir()
    disk = SmallDisk()
    disk.free = 1 << 20
    reserve = SplitReserve(disk, str(tmp_path))
    clock = Clock()
    clock.advance(1_480_000_080)
    plan = JournalPlan(str(tmp_path / "tmp"), "id", 1, 120, 1 << 20)
    writer = JournalWriter(disk, plan, reserve)
    spool = Spool(clock, SameThread(), writer, GroupCommit(10, 1 << 20))
    batch = Batch(Tenant("t", "acme", "prod"), b"{}\n", 1)
    result_of(spool.submit(batch))
    needed = reserve.needed
    assert needed > TENANT_BYTES
    disk.free = needed + MARGIN_BYTES
    with pytest.raises(SpoolFailed, match="kept for splitting"):
        result_of(spool.submit(batch))
    opened = writer.open_name
    assert opened is not None
    disk.free = 1 << 20
    result_of(spool.submit(batch))
    assert writer.open_name == opened
    writer.finish()
    assert Splitter(disk, str(tmp_path), Stage.TMP, pack_all=False, reserve=reserve).work() == 0
    assert reserve.needed == 0
