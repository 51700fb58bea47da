"""What is no plain file or directory inside the stages: nothing is read, written, moved or deleted through it.

Whatever is planted, an interval's records are delivered, and what the link leads to stays as it is.
"""

import gzip
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from twisted.logger import LogEvent, LogLevel, formatEvent

from axcollector.backlog import StagedBacklog
from axcollector.buckets import merge_bucket
from axcollector.core.errors import FileRefused
from axcollector.core.layout import JournalName, Stage, tenant_directory
from axcollector.core.model import Batch, Interval, Tenant
from axcollector.disk import Disk, ensure_within, remove_tree
from axcollector.failed import FailedStage
from axcollector.journal import JournalPlan, JournalWriter
from axcollector.salvager import Salvager
from axcollector.splitter import Splitter
from axcollector.stores.directory import DirectoryStore
from axcollector.takeover import take_over
from tests.fakes import SameThread, result_of

TENANT = Tenant("id", "acme", "test")
BUCKET = f"{tenant_directory('acme', 'test')}~20260102030400"
START = 1767323040
NOW = START + 1000.0
LINE = b'{"secret": "of somebody else"}\n'


class World:
    """A data directory, and beside it what a link in it may lead to."""

    def __init__(self, root: Path) -> None:
        self.data = root / "data"
        for stage in Stage:
            (self.data / stage).mkdir(parents=True)
        self.outside = root / "outside"
        (self.outside / BUCKET).mkdir(parents=True)
        (self.outside / BUCKET / "a.txt.gz").write_bytes(gzip.compress(LINE))
        (self.outside / "a.txt.gz").write_bytes(gzip.compress(LINE))
        (self.outside / "empty.txt.gz").write_bytes(b"")
        self.before = self.seen_outside()

    def seen_outside(self) -> dict[str, bytes | None]:
        """Everything outside: its path, and its content."""
        found = sorted(self.outside.rglob("*"))
        return {str(p.relative_to(self.outside)): p.read_bytes() if p.is_file() else None for p in found}

    def journal(self) -> JournalName:
        """A finished journal in `tmp`, of one record."""
        plan = JournalPlan(str(self.data / "tmp"), "id", 1, 60, 1 << 20)
        writer = JournalWriter(Disk(), plan)
        writer.write([Batch(TENANT, b'{"id": 1}\n', 1)], START + 1)
        writer.finish()
        return JournalName(Interval(START, START + 60), "id", 1, 0, 0)

    def work(self, stage: Stage = Stage.RECOVERED) -> int:
        """One round of the splitter and the salvager; how many things could not be done."""
        splitter = Splitter(Disk(), str(self.data), stage, pack_all=False)
        return splitter.work() + Salvager(Disk(), str(self.data)).work(NOW)

    def staged(self) -> list[bytes]:
        """The lines of all files that would be delivered."""
        backlog = StagedBacklog(Disk(), str(self.data))
        while not backlog.sweep():
            pass
        files = backlog.page(1000, set()).files
        return [line for file in files for line in gzip.decompress(Path(backlog.path(file)).read_bytes()).splitlines()]

    def check(self) -> None:
        """Nobody has touched what is outside."""
        assert self.seen_outside() == self.before


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A data directory and its surroundings."""
    return World(tmp_path)


def to_directory(world: World, place: Path) -> None:
    """A link to a directory with a bucket and files in it."""
    place.symlink_to(world.outside)


def to_bucket(world: World, place: Path) -> None:
    """A link to a directory with files in it."""
    place.symlink_to(world.outside / BUCKET)


def to_file(world: World, place: Path) -> None:
    """A link to a file that looks like one of ours."""
    place.symlink_to(world.outside / "a.txt.gz")


def to_passwords(world: World, place: Path) -> None:
    """A link to a file of the system's."""
    place.symlink_to("/etc/passwd")


def to_nothing(world: World, place: Path) -> None:
    """A link that leads nowhere."""
    place.symlink_to(world.outside / "nowhere")


def pipe(world: World, place: Path) -> None:
    """A named pipe that nobody writes."""
    os.mkfifo(place)


def listening_socket(world: World, place: Path) -> None:
    """A socket."""
    here = os.getcwd()
    os.chdir(place.parent)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(place.name[:100])
        if place.name[:100] != place.name:
            os.rename(place.name[:100], place.name)
    finally:
        os.chdir(here)


Plant = Callable[[World, Path], None]
LINKS: list[Plant] = [to_directory, to_bucket, to_file, to_passwords, to_nothing]
PLANTS: list[Plant] = [*LINKS, pipe, listening_socket]


def errors(events: list[LogEvent]) -> list[str]:
    """What was logged as an error or a warning."""
    return [str(formatEvent(each)) for each in events if each["log_level"] >= LogLevel.warn]


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("kind", ["journal", "split"])
def test_in_the_place_of_a_journal_or_split(world: World, log_events: list[LogEvent], plant: Plant, kind: str) -> None:
    """It is put aside, told once, and other journals are split."""
    good = world.journal()
    other = JournalName(good.interval, "id", 1, 0, 7)
    plant(world, world.data / "tmp" / getattr(other, kind))
    assert [world.work(Stage.TMP) for _ in range(2)] == [0, 0]
    assert world.staged() == [b'{"id": 1}']
    assert os.listdir(world.data / "tmp") == []
    assert os.listdir(world.data / "recovered" / "unreadable") == [getattr(other, kind)]
    assert len(errors(log_events)) == 1
    world.check()


@pytest.mark.parametrize("plant", PLANTS)
def test_in_the_place_of_a_split_beside_its_journal(world: World, plant: Plant) -> None:
    """It is what a broken-off split has left, and is removed; nothing through it. Also when a crash left it."""
    good = world.journal()
    plant(world, world.data / "tmp" / good.split)
    assert take_over(Disk(), str(world.data), NOW) == 1
    plant(world, world.data / "recovered" / good.found(NOW).split)
    assert world.work() == 0
    assert world.staged() == [b'{"id": 1}']
    world.check()


@pytest.mark.parametrize("plant", PLANTS)
def test_inside_a_split(world: World, log_events: list[LogEvent], plant: Plant) -> None:
    """A split whose journal is gone is the truth; what in it is no bucket is put aside, and the rest is delivered."""
    good = world.journal()
    split = world.data / "recovered" / good.found(NOW).split
    (split / BUCKET).mkdir(parents=True)
    (split / BUCKET / "x.txt.gz").write_bytes(gzip.compress(b"1\n"))
    plant(world, split / f"{BUCKET[:-1]}1")
    assert world.work() == 0
    assert world.staged() == [b"1"]
    assert not split.exists()
    assert os.listdir(world.data / "recovered" / "unreadable") == [f"{BUCKET[:-1]}1"]
    assert len(errors(log_events)) == 1
    world.check()


@pytest.mark.parametrize("plant", PLANTS)
def test_strangers_left_in_tmp(world: World, log_events: list[LogEvent], plant: Plant) -> None:
    """What has no name of ours, or that of a reference's bucket, is moved to recovered as it is, and told once."""
    plant(world, world.data / "tmp" / "stranger")
    plant(world, world.data / "tmp" / BUCKET)
    world.journal()
    assert take_over(Disk(), str(world.data), NOW) == 3
    salvager = Salvager(Disk(), str(world.data))
    assert [salvager.work(NOW), salvager.work(NOW)] == [0, 0]
    assert len(errors(log_events)) == 2
    assert world.work() == 0
    assert world.staged() == [b'{"id": 1}']
    world.check()


@pytest.mark.parametrize("plant", PLANTS)
def test_inside_what_the_reference_left(world: World, log_events: list[LogEvent], plant: Plant) -> None:
    """The files are salvaged; what is none is kept for a person, as it is."""
    directory = world.data / "recovered" / BUCKET
    directory.mkdir()
    (directory / "x.txt.gz").write_bytes(gzip.compress(b'{"id": 2}\n'))
    plant(world, directory / "y.txt.gz")
    assert world.work() == 0
    assert world.staged() == [b'{"id": 2}']
    [kept] = (world.data / "recovered" / "unreadable").iterdir()
    assert os.listdir(kept) == ["y.txt.gz"]
    assert len(errors(log_events)) == 1
    world.check()


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("where", ["salvage", "bucket", "unreadable"])
def test_where_the_salvager_writes(world: World, log_events: list[LogEvent], plant: Plant, where: str) -> None:
    """Nothing is written through what lies where its directories should: one directory waits, the others go on."""
    mark = "~recoveredTS~20260102030405.000"
    directory = world.data / "recovered" / f"{BUCKET}{mark}"
    salvage = world.data / "recovered" / f"{BUCKET}.salvage{mark}"
    directory.mkdir()
    (directory / "x.txt.gz").write_bytes(gzip.compress(b'{"id": 2}\n'))
    (directory / "y.txt.gz").write_bytes(b"no gzip")
    if where == "bucket":
        salvage.mkdir()
    plant(
        world,
        {"salvage": salvage, "bucket": salvage / BUCKET, "unreadable": salvage.parent / "unreadable"}[where],
    )
    other = world.data / "recovered" / f"{BUCKET[:-1]}1{mark}"
    other.mkdir()
    (other / "x.txt.gz").write_bytes(gzip.compress(b'{"id": 3}\n'))
    salvager = Salvager(Disk(), str(world.data))
    assert [salvager.work(NOW), salvager.work(NOW)] == [1, 1]
    assert world.staged() == [b'{"id": 3}']
    complaints = [each for each in errors(log_events) if "cannot be taken over yet" in each]
    assert len(complaints) == 1
    world.check()


@pytest.mark.parametrize("plant", PLANTS)
def test_in_staging(world: World, plant: Plant) -> None:
    """Neither a bucket nor a file of a bucket that is none is delivered; both are left, and told once."""
    good = world.data / "staging" / BUCKET
    good.mkdir()
    (good / "x.txt.gz").write_bytes(gzip.compress(b"1\n"))
    plant(world, good / "y.txt.gz")
    plant(world, world.data / "staging" / f"{BUCKET[:-1]}1")
    backlog = StagedBacklog(Disk(), str(world.data))
    told = []
    for _ in range(2):
        while not backlog.sweep():
            pass
        page = backlog.page(1000, set())
        assert [file.name for file in page.files] == ["x.txt.gz"]
        told += [what for what, _ in page.foreign]
    assert sorted(told) == [f"{BUCKET}/y.txt.gz", f"{BUCKET[:-1]}1"]
    assert world.staged() == [b"1"]
    world.check()


@pytest.mark.parametrize("plant", PLANTS)
def test_where_a_bucket_goes(world: World, log_events: list[LogEvent], plant: Plant) -> None:
    """What has its name in the stage is put aside, and the bucket is moved."""
    bucket = world.data / "failed" / BUCKET
    bucket.mkdir()
    (bucket / "x.txt.gz").write_bytes(gzip.compress(b"1\n"))
    plant(world, world.data / "staging" / BUCKET)
    merge_bucket(Disk(), str(bucket), str(world.data / "staging"))
    assert world.staged() == [b"1"]
    assert os.listdir(world.data / "recovered" / "unreadable") == [BUCKET]
    assert len(errors(log_events)) == 1
    world.check()


@pytest.mark.parametrize("plant", PLANTS)
def test_in_failed(world: World, plant: Plant) -> None:
    """It never comes back; what does is what is a bucket."""
    other = world.data / "failed" / f"{BUCKET[:-1]}1"
    other.mkdir()
    (other / "x.txt.gz").write_bytes(gzip.compress(b"1\n"))
    plant(world, world.data / "failed" / BUCKET)
    failed = FailedStage(Disk(), str(world.data / "failed"), 10)
    assert failed.take_in()
    moved, foreign = failed.move(10, str(world.data / "staging"))
    assert moved == [other.name]
    assert foreign == [(f"failed/{BUCKET}", "it is no directory")]
    assert world.staged() == [b"1"]
    world.check()


def test_a_bucket_that_becomes_a_link_meanwhile(world: World) -> None:
    """Between being found and being delivered: the file is neither read nor deleted through it."""
    bucket = world.data / "staging" / BUCKET
    bucket.mkdir()
    (bucket / "a.txt.gz").write_bytes(gzip.compress(b"1\n"))
    backlog = StagedBacklog(Disk(), str(world.data))
    while not backlog.sweep():
        pass
    [file] = backlog.page(10, set()).files
    bucket.rename(world.data / "elsewhere")
    to_bucket(world, bucket)
    store = DirectoryStore(SameThread(), Disk(), str(world.data / "store"))
    with pytest.raises(FileRefused, match="It lies in no directory of ours"):
        result_of(store.put("acme~test", "k", backlog.path(file)))
    assert backlog.discard(file)
    world.check()


def test_a_file_that_becomes_a_pipe_meanwhile(world: World) -> None:
    """Nobody waits for its other end."""
    os.mkfifo(world.data / "tmp" / "p")
    for _ in range(2):
        with pytest.raises(OSError, match="no regular file"):
            Disk().open(str(world.data / "tmp" / "p"))
        writer = os.open(world.data / "tmp" / "p", os.O_RDWR)  # also when somebody has it open
    os.close(writer)


def test_another_name_of_a_file(world: World) -> None:
    """A hard link is a file: it is delivered and its name removed, and the content stays under the other name."""
    bucket = world.data / "staging" / BUCKET
    bucket.mkdir()
    os.link(world.outside / "a.txt.gz", bucket / "a.txt.gz")
    recovered = world.data / "recovered" / f"{BUCKET[:-1]}1"
    recovered.mkdir()
    os.link(world.outside / "a.txt.gz", recovered / "a.txt.gz")
    os.link(world.outside / "empty.txt.gz", recovered / "b.txt.gz")
    assert world.work() == 0
    assert world.staged() == [LINE.strip(), LINE.strip()]
    world.check()


@pytest.mark.parametrize("plant", LINKS)
def test_removing_a_tree(world: World, plant: Plant) -> None:
    """Links in it, and one in its own place, are removed and not followed."""
    tree = world.data / "tree"
    tree.mkdir()
    plant(world, tree / "link")
    remove_tree(Disk(), str(tree))
    plant(world, tree)
    remove_tree(Disk(), str(tree))
    assert not os.path.lexists(tree)
    world.check()


@pytest.mark.parametrize("plant", PLANTS)
def test_making_directories(world: World, plant: Plant) -> None:
    """None is made through what is no directory."""
    plant(world, world.data / "x")
    with pytest.raises(FileExistsError):
        ensure_within(Disk(), str(world.data), "x", "y")
    assert ensure_within(Disk(), str(world.data), "a", "b") == str(world.data / "a" / "b")
    world.check()
