"""Large files that nobody waits for go to the disk step by step; where a step fails, nothing is taken for durable."""

import errno
import gzip
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import Raw

from axcollector.core.errors import UploadFailed
from axcollector.core.layout import Stage
from axcollector.core.quarantine import Entry
from axcollector.disk import STEP_BYTES, AppendFile
from axcollector.quarantine_files import QuarantineFile
from axcollector.salvager import Salvager
from axcollector.stores.directory import DirectoryStore
from axcollector.takeover import take_over
from tests.crashable import CrashableDisk, CrashableFile, steps
from tests.fakes import SameThread, result_of

NOW = 1_480_000_092.123
BUCKET = "acme~prod~20161124150800"
FILE = "5be1_20161124150800.20161124151000_218e3d99-efaf-4a7b-b3f2-5e4b00c023b7_writer_0.txt.gz"
LINES = [b'{"x":"%s"}\n' % random.Random(number).randbytes(100_000).hex().encode() for number in range(13)]
"""1.3 MB of chance, which no compression makes smaller."""
PACKED = gzip.compress(b"".join(LINES), 1)


class Disk(CrashableDisk):
    """Fails at one sync of a file, told by its number."""

    def __init__(self, root: str, failing: int | None) -> None:
        super().__init__(root)
        self.failing = failing
        self.syncs = 0

    def create(self, path: str) -> AppendFile:
        made = super().create(path)
        assert isinstance(made, CrashableFile)
        made.__class__ = Failing
        return made


class Failing(CrashableFile):
    """A file of it."""

    _disk: Disk

    def sync(self) -> None:
        if self._disk.failing == self._disk.syncs:
            self._disk.failing = None
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._disk.syncs += 1
        super().sync()


def text_of(path: Path) -> bytes:
    """What a file holds."""
    return gzip.decompress(path.read_bytes())


def deliver(root: Path, failing: int | None) -> Disk:
    """A file goes to a store that is a directory."""
    (root / "s").mkdir()
    (root / "f").write_bytes(PACKED)
    disk = Disk(str(root), failing)
    store = DirectoryStore(SameThread(), disk, str(root / "s"))
    sent = store.put("acme~prod", "key.txt.gz", str(root / "f"))
    if failing is not None:
        with pytest.raises(UploadFailed):
            result_of(sent)
        assert [path for path in (root / "s").rglob("*") if path.is_file()] == []
        sent = store.put("acme~prod", "key.txt.gz", str(root / "f"))
    result_of(sent)
    (path,) = (path for path in (root / "s").rglob("*") if path.is_file())
    assert path.read_bytes() == PACKED
    return disk


def salvage(root: Path, failing: int | None) -> Disk:
    """A file of the reference is taken over."""
    for stage in Stage:
        (root / stage).mkdir()
    (root / "tmp" / BUCKET).mkdir()
    (root / "tmp" / BUCKET / FILE).write_bytes(PACKED)
    disk = Disk(str(root), failing)
    take_over(disk, str(root), NOW)
    salvager = Salvager(disk, str(root))
    if failing is not None:
        assert salvager.work(NOW) == 1
        assert list((root / "staging").iterdir()) == []
    assert salvager.work(NOW) == 0
    (path,) = (root / "staging").glob("*/*")
    assert text_of(path) == b"".join(LINES)
    return disk


def rewrite(root: Path, failing: int | None) -> Disk:
    """A file in quarantine is written anew, without what is done with."""
    entries = [
        Entry(1_480_000_000_000, "acme", "prod", None, number, "BAD_DATA", "old", Raw(line.strip()))
        for number, line in enumerate(LINES)
    ]
    (root / BUCKET).mkdir()
    (root / BUCKET / "f.txt.gz").write_bytes(gzip.compress(b"".join(each.line() for each in entries), 1))
    disk = Disk(str(root), None)
    file = QuarantineFile(disk, str(root), f"{BUCKET}/f.txt.gz")
    file.finish_lines([0])
    disk.failing = None if failing is None else disk.syncs + failing
    if failing is not None:
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            file.rewrite({})
        assert [each.index for _, _, each in file.lines()] == list(range(1, 13))
    assert file.rewrite({}) == 12
    assert text_of(root / BUCKET / "f.txt.gz") == b"".join(each.line() for each in entries[1:])
    return disk


@pytest.mark.parametrize("failing", [None, 0])
@pytest.mark.parametrize(("work", "name"), [(deliver, ".new"), (salvage, ".txt.gz"), (rewrite, "f.txt.gz.new")])
def test_step_by_step(tmp_path: Path, work: Callable[[Path, int | None], Disk], name: str, failing: int | None) -> None:
    """Of a large file a step and a piece are left for the disk at most, and its end is durable before its name is."""
    disk = work(tmp_path, failing)
    if failing is None:
        most, syncs = steps(disk.log, name)
        assert STEP_BYTES <= most < STEP_BYTES + (1 << 18) + 1000
        assert syncs == 2
