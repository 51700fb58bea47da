"""The `file:` store: whole files, durable, private; whose fault an error is."""

import errno
import io
import os
import stat
from pathlib import Path
from typing import BinaryIO, NoReturn

import pytest
from twisted.internet import defer

from axcollector.core.errors import EndpointUnavailable, FileRefused, UploadFailed
from axcollector.disk import AppendFile, Disk
from axcollector.stores.base import Store
from axcollector.stores.directory import DirectoryStore
from tests.fakes import SameThread, result_of

TENANT = "acme~test"
KEY = "date=2026-01-02/time=03-04-05/f.txt.gz"


class FailingDisk(Disk):
    """Fails at one thing, in one way; notes what is synced and renamed."""

    def __init__(self, what: str = "", number: int = errno.EIO) -> None:
        self.what = what
        self.number = number
        self.calls: list[tuple[str, str]] = []

    def _meet(self, what: str, path: str) -> None:
        self.calls.append((what, path))
        if what == self.what:
            raise OSError(self.number, os.strerror(self.number), path)

    def make_directory(self, path: str) -> None:
        self._meet("mkdir", path)
        super().make_directory(path)

    def create(self, path: str) -> AppendFile:
        self._meet("create", path)
        file = super().create(path)
        return FullFile(file, self.number) if self.what == "write" else file

    def rename(self, source: str, target: str) -> None:
        self._meet("rename", target)
        super().rename(source, target)

    def sync_directory(self, path: str) -> None:
        self._meet("sync", path)
        super().sync_directory(path)

    def open(self, path: str) -> BinaryIO:
        return BrokenFile(path) if self.what == "read" else super().open(path)


class FullFile(AppendFile):
    """Takes one byte."""

    def __init__(self, file: AppendFile, number: int) -> None:
        super().__init__(file.path, os.dup(file._descriptor))
        file.close()
        self.number = number

    def write(self, data: bytes | memoryview) -> NoReturn:
        super().write(data[:1])
        raise OSError(self.number, os.strerror(self.number))


class BrokenFile(io.FileIO):
    """Cannot be read."""

    def read(self, size: int = -1) -> NoReturn:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file to deliver."""
    path = tmp_path / "source.txt.gz"
    path.write_bytes(b"content" * 100_000)
    return path


def store_at(tmp_path: Path, disk: Disk) -> DirectoryStore:
    """A store that works in this thread."""
    return DirectoryStore(SameThread(), disk, str(tmp_path / "store"))


def test_a_file_is_delivered(tmp_path: Path, source: Path) -> None:
    """It lies below its tenant, whole, for its owner only; the source stays; nothing else is left."""
    store: Store = store_at(tmp_path, Disk())
    assert result_of(store.put(TENANT, KEY, str(source))) is None
    target = tmp_path / "store" / TENANT / KEY
    assert target.read_bytes() == source.read_bytes()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700
    assert os.listdir(target.parent) == ["f.txt.gz"]
    assert store.authorities(TENANT) == (f"file:{tmp_path}/store",)
    assert result_of(store.close()) is None


def test_it_is_durable_when_it_is_done(tmp_path: Path, source: Path) -> None:
    """Each new directory's parent is synced, and the last directory after the rename."""
    disk = FailingDisk()
    store = store_at(tmp_path, disk)
    result_of(store.put(TENANT, KEY, str(source)))
    target = tmp_path / "store" / TENANT / KEY
    made = [path for what, path in disk.calls if what == "mkdir"]
    synced = [path for what, path in disk.calls if what == "sync"]
    assert {os.path.dirname(path) for path in made} <= set(synced)
    assert disk.calls[-2:] == [("rename", str(target)), ("sync", str(target.parent))]
    disk.calls.clear()
    result_of(store.put(TENANT, KEY, str(source)))
    assert [path for what, path in disk.calls if what == "sync"] == [str(target.parent)]


class NotingFile(AppendFile):
    """Notes that it is synced."""

    calls: list[tuple[str, str]]

    def sync(self) -> None:
        self.calls.append(("sync of the file", self.path))
        super().sync()


class NotingDisk(FailingDisk):
    """Makes files that note that they are synced."""

    def create(self, path: str) -> AppendFile:
        with super().create(path) as made:
            file = NotingFile(path, os.dup(made._descriptor))
        file.calls = self.calls
        return file


def test_a_draft_is_synced_and_then_renamed(tmp_path: Path, source: Path) -> None:
    """Under the file's own name there is never less than the whole of it, on stable storage, as are its directories."""
    disk = NotingDisk()
    result_of(store_at(tmp_path, disk).put(TENANT, KEY, str(source)))
    target = str(tmp_path / "store" / TENANT / KEY)
    start = disk.calls.index(("create", f"{target}.new"))
    # Its content first: what a file system has gathered goes with that, and the directories cost next to nothing.
    above = [TENANT, f"{TENANT}/date=2026-01-02"]
    assert disk.calls[start:] == [
        ("create", f"{target}.new"),
        ("sync of the file", f"{target}.new"),
        *(("sync", str(directory)) for directory in reversed(tmp_path.parents)),
        *(("sync", str(directory)) for directory in (tmp_path, tmp_path / "store")),
        *(("sync", str(tmp_path / "store" / name)) for name in above),
        ("rename", target),
        ("sync", os.path.dirname(target)),
    ]


def test_a_second_delivery_replaces_the_first(tmp_path: Path, source: Path) -> None:
    """What a crash left half done is in nobody's way."""
    store = store_at(tmp_path, Disk())
    result_of(store.put(TENANT, KEY, str(source)))
    target = tmp_path / "store" / TENANT / KEY
    target.with_name("f.txt.gz.new").write_text("left by a crash")
    source.write_bytes(b"second")
    result_of(store.put(TENANT, KEY, str(source)))
    assert target.read_bytes() == b"second"
    assert os.listdir(target.parent) == ["f.txt.gz"]


@pytest.mark.parametrize("what", ["mkdir", "create", "write", "rename", "sync"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.EDQUOT])
def test_the_store_is_at_fault(tmp_path: Path, source: Path, what: str, number: int) -> None:
    """What everybody's files would meet pauses the store; no draft is left."""
    store = store_at(tmp_path, FailingDisk(what, number))
    with pytest.raises(EndpointUnavailable, match=os.strerror(number)) as caught:
        result_of(store.put(TENANT, KEY, str(source)))
    assert caught.value.authority == store.authorities(TENANT)[0]
    assert list(tmp_path.rglob("*.new")) == []


def test_one_tenants_place_is_at_fault(tmp_path: Path, source: Path) -> None:
    """A plain file where a directory should be is an attempt, and stops nobody else."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / TENANT).write_text("in the way")
    store = store_at(tmp_path, Disk())
    failure = failure_of(store.put(TENANT, KEY, str(source)))
    assert type(failure) is UploadFailed
    result_of(store.put("other~test", KEY, str(source)))


@pytest.mark.parametrize("kind", ["missing", "link", "unreadable"])
def test_the_file_is_at_fault(tmp_path: Path, source: Path, kind: str) -> None:
    """A file that is gone, is a link, or cannot be read is an attempt; nothing is left of it."""
    path = tmp_path / kind
    if kind == "link":
        path.symlink_to(source)
    store = store_at(tmp_path, FailingDisk("read" if kind == "unreadable" else ""))
    path = source if kind == "unreadable" else path
    failure = failure_of(store.put(TENANT, KEY, str(path)))
    assert type(failure) is FileRefused
    assert str(failure).startswith("the file cannot be read: ")
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []


def failure_of(deferred: "defer.Deferred[None]") -> BaseException:
    """What a Deferred failed with."""
    with pytest.raises(UploadFailed) as caught:
        result_of(deferred)
    return caught.value
