"""The salvager: directories of the reference's layout are taken over, whatever was interrupted before."""

import contextlib
import gzip
import os
import shutil
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.logger import LogEvent

from axcollector.core import layout
from axcollector.core.layout import JournalName, ReferenceName, Stage
from axcollector.core.model import BucketName, Interval
from axcollector.disk import Disk
from axcollector.salvager import Salvager
from axcollector.splitter import Splitter
from axcollector.takeover import take_over
from tests.crashable import CrashableDisk, Loss, Named, State, losses, write_state
from tests.fakes import MortalDisk

NOW = 1_480_000_092.123
START = "20161124150800"
MARK = "~recoveredTS~20161124150812.123"
BUCKET = f"acme~prod~{START}"
FILE = f"5be1_{START}.20161124151000_218e3d99-efaf-4a7b-b3f2-5e4b00c023b7_writer_0.txt.gz"
LATER = FILE.replace("5be1", "9a00")
RECOVERED = FILE.removesuffix(".txt.gz") + "_recovered_20161124150812.123.txt.gz"
LINES = [b'{"id":%d,"text":"%d"}\n' % (i, i * 7919) for i in range(20)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with its stages."""
    return made(tmp_path / "data")


def made(directory: Path) -> Path:
    """A directory with the stages in it."""
    for stage in Stage:
        (directory / stage).mkdir(parents=True)
    return directory


def put(directory: Path, files: dict[str, bytes]) -> None:
    """A bucket of these files."""
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_bytes(content)


def torn(lines: list[bytes]) -> bytes:
    """A file as the reference leaves it when it is killed: flushed after each line, and one more begun."""
    writer = zlib.compressobj(6, zlib.DEFLATED, 31)
    text = b"".join(writer.compress(line) + writer.flush(zlib.Z_SYNC_FLUSH) for line in lines)
    return text + (writer.compress(b'{"id":"torn","x":"' + os.urandom(500).hex().encode()) + writer.flush())[:-30]


def damaged(lines: list[bytes]) -> bytes:
    """A file with a wrong CRC, and a line that is no JSON."""
    content = bytearray(gzip.compress(b"".join(lines) + b"no JSON\n"))
    content[-6] ^= 1
    return bytes(content)


def recover(data: Path, disk: Disk | None = None, now: float = NOW) -> int:
    """What a start does with what it finds."""
    disk = disk or MortalDisk()  # which syncs nothing, and is fast
    take_over(disk, str(data), now)
    Splitter(disk, str(data), Stage.RECOVERED, pack_all=False).work()
    return Salvager(disk, str(data)).work(now)


def staged(data: Path) -> dict[str, bytes]:
    """Bucket and file of everything staged, and the lines in it."""
    return {
        str(path.relative_to(data / "staging")): gzip.decompress(path.read_bytes())
        for path in sorted((data / "staging").glob("*/*"))
    }


def unreadable(data: Path) -> list[str]:
    """What is kept for a person."""
    kept = data / "recovered" / "unreadable"
    return sorted(str(path.relative_to(kept)) for path in kept.glob("*/*"))


def levels(log_events: list[LogEvent]) -> list[str]:
    """How loudly the salvager spoke."""
    return [e["log_level"].name for e in log_events if "salvager" in e["log_namespace"]]


@pytest.mark.parametrize("stage", [Stage.TMP, Stage.RECOVERED])
@pytest.mark.parametrize("mark", ["", MARK])
def test_a_torn_file(data: Path, stage: Stage, mark: str, log_events: list[LogEvent]) -> None:
    """Its whole lines go to a whole file of a name that says when it was found, wherever it lay and who marked it."""
    put(data / stage / (BUCKET + mark), {FILE: torn(LINES)})
    assert recover(data) == 0
    assert staged(data) == {f"{BUCKET}/{RECOVERED}": b"".join(LINES)}
    assert {path.stat().st_mode & 0o777 for path in (data / "staging").rglob("*")} == {0o600, 0o700}
    assert list((data / "recovered").iterdir()) == list((data / "tmp").iterdir()) == []
    (event,) = [e for e in log_events if "salvager" in e["log_namespace"]]
    assert (event["log_level"].name, event["files"], event["kept"], event["dropped"]) == ("info", 1, 20, 1)
    assert recover(data, now=NOW + 9) == 0
    assert list(staged(data)) == [f"{BUCKET}/{RECOVERED}"]


def test_several_files(data: Path, log_events: list[LogEvent]) -> None:
    """Whole ones come as they are, blank ones go, a line of 70 kB and a tail of zeros are nothing special."""
    long = b'{"pad":"' + b"x" * 70_000 + b'"}\n'
    put(
        data / "tmp" / BUCKET,
        {
            "a.txt.gz": gzip.compress(b"any\nthing\n"),
            "b.txt.gz": b"",
            "c.txt.gz": bytes(5000),
            "d.txt.gz": gzip.compress(b""),
            "e.txt.gz": torn([long, *LINES]),
            "f.txt.gz": torn(LINES)[:-200] + bytes(9000),
            "g.txt.gz": b"".join(map(gzip.compress, LINES)),
        },
    )
    recover(data)
    assert staged(data) == {
        f"{BUCKET}/{name}_recovered_20161124150812.123.txt.gz": text
        for name, text in {
            "a": b"any\nthing\n",
            "e": long + b"".join(LINES),
            "f": b"".join(LINES),
            "g": b"".join(LINES),
        }.items()
    }
    assert list((data / "recovered").iterdir()) == []
    assert levels(log_events) == ["info"]


def test_nothing_in_it(data: Path, log_events: list[LogEvent]) -> None:
    """Of a directory without a line nothing is staged, and nothing is left."""
    put(data / "tmp" / BUCKET, {FILE: b""})
    put(data / "recovered" / f"acme~test~{START}{MARK}", {})
    recover(data)
    assert [list((data / stage).iterdir()) for stage in Stage] == [[]] * 4
    assert levels(log_events) == ["info", "info"]


def test_what_cannot_be_read_is_kept(data: Path, log_events: list[LogEvent]) -> None:
    """Foreign things, damaged files and those without a line go to `unreadable`, reported once, and block nothing."""
    files = {
        "bad.txt.gz": b"no gzip",
        "cut.txt.gz": torn([])[:40],
        "damaged.txt.gz": damaged(LINES[:2]),
        "nothing.txt.gz": damaged([]),
        "good.txt.gz": torn(LINES),
        "notes.txt": b"?",
    }
    directory = data / "tmp" / BUCKET
    put(directory, files)
    put(directory / "sub", {"x.txt.gz": torn(LINES)})
    (directory / "link.txt.gz").symlink_to(directory / "good.txt.gz")
    (directory / "directory.txt.gz").mkdir()
    assert (recover(data), recover(data)) == (0, 0)
    assert list(staged(data).values()) == [b"".join(LINES[:2]), b"".join(LINES)]
    kept = {*files, "directory.txt.gz", "link.txt.gz", "sub"} - {"good.txt.gz"}
    assert unreadable(data) == sorted(f"{BUCKET}{MARK}/{name}" for name in kept)
    for name in ("bad.txt.gz", "damaged.txt.gz", "notes.txt"):
        assert (data / "recovered" / "unreadable" / (BUCKET + MARK) / name).read_bytes() == files[name]
    assert levels(log_events) == ["info", "error"]
    assert os.listdir(data / "recovered") == ["unreadable"]


def test_nothing_kept_is_overwritten(data: Path) -> None:
    """A second thing of the same name gets one of its own."""
    kept = data / "recovered" / "unreadable" / (BUCKET + MARK)
    kept.mkdir(parents=True)
    (kept / FILE).write_bytes(b"first")
    (kept / f"{FILE}_2").write_bytes(b"second")
    put(data / "recovered" / (BUCKET + MARK), {FILE: b"third"})
    recover(data)
    assert [(kept / name).read_bytes() for name in sorted(os.listdir(kept))] == [b"first", b"second", b"third"]


def test_the_bucket_is_in_staging_already(data: Path) -> None:
    """It gets the files added."""
    put(data / "staging" / BUCKET, {FILE: gzip.compress(b"{}\n"), RECOVERED: gzip.compress(b"{}\n")})
    put(data / "tmp" / BUCKET, {FILE: torn(LINES)})
    recover(data)
    assert staged(data) == {
        f"{BUCKET}/{FILE}": b"{}\n",
        f"{BUCKET}/{RECOVERED}": b"{}\n",
        f"{BUCKET}/{RECOVERED.removesuffix('.txt.gz')}_2.txt.gz": b"".join(LINES),
    }


@pytest.mark.parametrize("copy_name", [RECOVERED, FILE.replace(".txt", "_recovered.txt")])
def test_the_reference_was_broken_off_in_its_own_recovery(data: Path, copy_name: str) -> None:
    """Its copy counts where the file itself is gone or gives nothing, and is no second one where it is there."""
    for organization, files in {
        "a": {FILE: torn(LINES), copy_name: torn(LINES[:5])},
        "b": {FILE: torn([]), copy_name: torn(LINES[:5])},
        "c": {copy_name: torn(LINES[:5])},
        "d": {FILE: b"", copy_name: torn(LINES[:5])},
        "e": {LATER: torn(LINES), copy_name: torn(LINES[:5])},
    }.items():
        put(data / "recovered" / f"{organization}~prod~{START}{MARK}", files)
    recover(data)
    found = [(path[0], text.count(b"\n")) for path, text in staged(data).items()]
    assert found == [("a", 20), ("b", 5), ("c", 5), ("d", 5), ("e", 5), ("e", 20)]
    suffixes = {path.count("_recovered_20161124150812.123.txt.gz") for path in staged(data)}
    assert suffixes == {1}


@pytest.mark.parametrize(
    ("prefix", "organization", "environment", "directory"),
    [
        ("acme~prod~", "acme", "prod", "acme~prod~"),
        ("a b~test~", "a b", "test", "a%20b~test~"),
        ("zürich~prod~", "zürich", "prod", "z%C3%BCrich~prod~"),
        ("a%2fb~50%~", "a%2fb", "50%", "a%252fb~50%25~"),
        ("a%20b~test~", "a b", "test", "a%20b~test~"),
        ("..~.~", "..", ".", "%2E%2E~%2E~"),
    ],
)
def test_names_as_they_are(data: Path, prefix: str, organization: str, environment: str, directory: str) -> None:
    """The reference does not encode names; what we may have encoded is taken for that."""
    found, is_salvage = ReferenceName.parse(prefix + START)
    assert (BucketName(1_480_000_080, organization, environment), False) == (found.bucket, is_salvage)
    assert (found.found(NOW), True) == ReferenceName.parse(found.found(NOW).salvage)
    put(data / "tmp" / (prefix + START), {FILE: torn(LINES)})
    recover(data)
    assert list(staged(data)) == [f"{directory}{START}/{RECOVERED}"]
    assert list((data / "recovered").iterdir()) == []


def test_what_is_nobodys_stays(data: Path, log_events: list[LogEvent]) -> None:
    """What is no bucket's directory, or could be several tenants', is left alone, and reported once."""
    names = [
        "lost+found",
        f"a~b~c~{START}",
        f"acme~{START}",
        "acme~prod~20169924150800",
        f"{BUCKET}~recoveredTS~now",
        f"{BUCKET}.salvage",
        f"{'ü' * 40}~prod~{START}",
        os.fsdecode(b"\xfc~prod~") + START,
    ]
    for name in names:
        put(data / "recovered" / name, {FILE: torn(LINES)})
    (data / "recovered" / BUCKET).write_bytes(b"a file")
    (data / "recovered" / "unreadable").mkdir()
    journal = JournalName(Interval(1_480_000_080, 1_480_000_200), "id", 1, 0, 0).found(NOW)
    (data / "recovered" / journal.journal).write_bytes(b"")
    (data / "recovered" / journal.split).mkdir()
    salvager = Salvager(Disk(), str(data))
    assert (salvager.work(NOW), salvager.work(NOW + 60)) == (0, 0)
    assert sorted(os.listdir(data / "recovered")) == sorted(
        [*names, BUCKET, "unreadable", journal.journal, journal.split]
    )
    assert staged(data) == {}
    assert levels(log_events) == ["warn"] * 9


def test_copies_are_known_by_their_names() -> None:
    """A copy's name tells the file's; other names are no copies'."""
    assert layout.original_of(RECOVERED) == FILE
    assert layout.original_of("x_recovered.txt.gz") == "x.txt.gz"
    for name in (FILE, "x_recovered.txt", "_recovered.txt.gz", "x_recovered_2016.txt.gz"):
        assert layout.original_of(name) is None


class FullDisk(Disk):
    """A disk that has no room for new files, or where a file shrinks while it is read."""

    full = True
    shrinking: Path | None = None

    def create(self, path: str):
        if self.full:
            raise OSError(28, "No space left on device")
        if self.shrinking:
            os.truncate(self.shrinking, 200)
        return super().create(path)


def test_what_fails_is_tried_again(data: Path, log_events: list[LogEvent]) -> None:
    """While the disk is full all stays, which is logged once; nothing else waits for it."""
    put(data / "recovered" / BUCKET, {FILE: torn(LINES)})
    put(data / "recovered" / f"acme~test~{START}", {FILE: b""})
    disk = FullDisk()
    salvager = Salvager(disk, str(data))
    assert [salvager.work(NOW + i) for i in range(3)] == [1, 1, 1]
    assert sorted(os.listdir(data / "recovered")) == [f"{BUCKET}.salvage{MARK}", BUCKET + MARK]
    assert levels(log_events) == ["error", "info"]
    disk.full = False
    disk.shrinking = data / "recovered" / (BUCKET + MARK) / FILE
    assert salvager.work(NOW) == 1
    assert staged(data) == {}
    disk.shrinking = None
    assert salvager.work(NOW) == 0
    assert staged(data) == {f"{BUCKET}/{RECOVERED}": b"".join(LINES[:10])}


def test_a_directory_that_cannot_be_marked(data: Path, log_events: list[LogEvent]) -> None:
    """Where the name is taken the directory waits for another moment."""
    put(data / "recovered" / BUCKET, {FILE: torn(LINES)})
    put(data / "recovered" / (BUCKET + MARK), {FILE: torn(LINES[:3])})
    salvager = Salvager(Disk(), str(data))
    assert (salvager.work(NOW), salvager.work(NOW + 1)) == (1, 0)
    assert sorted(text.count(b"\n") for text in staged(data).values()) == [3, 20]
    assert levels(log_events) == ["error", "info", "info"]


FILES = {
    FILE: torn(LINES[:5]),
    RECOVERED: torn(LINES[:2]),
    "whole.txt.gz": gzip.compress(b"".join(LINES[5:10])),
    "damaged.txt.gz": damaged(LINES[10:15]),
    "empty.txt.gz": b"",
    "notes.txt": b"?",
}
STRIDE = 7
ALL = Counter(LINES[:18])


def fill(data: Path) -> None:
    """All kinds of files, two tenants, both stages, and a bucket that is in staging already."""
    put(data / "tmp" / BUCKET, FILES)
    put(data / "recovered" / f"a b~prod~{START}", {FILE: torn(LINES[15:17])})
    put(data / "staging" / BUCKET, {RECOVERED: gzip.compress(LINES[17])})


def delivered(data: Path) -> Counter[bytes]:
    """How often each line is in staging; those of one tenant are not in the other's bucket."""
    lines = {path: text.splitlines(keepends=True) for path, text in staged(data).items()}
    assert {line for path in lines for line in lines[path] if path.startswith("a%20b")} <= set(LINES[15:17])
    return Counter(line for path in lines for line in lines[path])


@pytest.mark.parametrize("second", [None, 1, 8, 20])
def test_crashes_at_every_step(tmp_path: Path, second: int | None) -> None:
    """Broken off anywhere, once or twice, and started again: each whole line is there once, and nothing else."""
    steps = 0
    finished = False
    while not finished:
        data = made(tmp_path / "data")
        fill(data)
        disk = MortalDisk()
        for left in [steps] if second is None else [steps, second]:
            disk.left = left
            with contextlib.suppress(OSError):
                recover(data, disk, NOW + steps)
            finished |= disk.left > 0 and left == steps
        recover(data, now=NOW + 1)
        assert delivered(data) == ALL, steps
        kept = {os.path.basename(path).partition("_2")[0] for path in unreadable(data)}
        assert kept == {"damaged.txt.gz", "notes.txt"}
        assert os.listdir(data / "recovered") == ["unreadable"]
        shutil.rmtree(data)
        steps += 1
    assert steps > 50


@pytest.mark.parametrize("again", [False, True])
def test_power_lost_at_every_step(tmp_path: Path, again: bool) -> None:
    """Whatever of what was not synced is lost, once or in the next recovery too: each line is there once."""
    disk = recovered_once(tmp_path)
    for step in range(len(disk.log) + 1):
        for loss in losses(12, step)[step % 8 :: 8]:
            state = disk.state(step, loss)
            if again:
                with crashed(tmp_path, state) as data:
                    found = CrashableDisk(str(data))
                    recover(data, found, NOW + 1)
                state = found.state(step * 7 % (len(found.log) + 1), loss)
            check(tmp_path, state, f"{step} {loss}")
    assert step > 50


def test_power_lost_after_a_kill(tmp_path: Path) -> None:
    """What a killed run had done, but not yet synced, the next one syncs before it relies on it."""
    disk = recovered_once(tmp_path)
    unsynced = [i + 1 for i, change in enumerate(disk.log) if isinstance(change, Named)]
    for step in unsynced:
        place = tmp_path / "killed"
        place.mkdir()
        killed = disk.killed(step, str(place))
        recover(place, killed, NOW + 1)
        for cut in range(step + step % STRIDE, len(killed.log) + 1, STRIDE):
            check(tmp_path, killed.state(cut, Loss("one", "all", cut)), f"{step} {cut}")
        shutil.rmtree(place)
    assert len(unsynced) > 20


def recovered_once(tmp_path: Path) -> CrashableDisk:
    """A disk on which all was done."""
    fill(made(tmp_path / "data"))
    disk = CrashableDisk(str(tmp_path / "data"))
    recover(tmp_path / "data", disk)
    return disk


@contextlib.contextmanager
def crashed(tmp_path: Path, state: State) -> Iterator[Path]:
    """A data directory as a crash has left it."""
    place = tmp_path / "crashed"
    place.mkdir()
    write_state(state, str(place))
    yield place
    shutil.rmtree(place)


def check(tmp_path: Path, state: State, about: str) -> None:
    """Of this state, in the end each line is there once."""
    with crashed(tmp_path, state) as data:
        recover(data, now=NOW + 2)
        assert delivered(data) == ALL, about
