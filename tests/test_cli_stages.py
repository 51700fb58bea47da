"""`axcollector ls`, `cat` and `verify`: what lies in the stages, whole, damaged, foreign, or gone meanwhile."""

import gzip
import io
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from axcollector.cli import words_of
from axcollector.core import deflate, frames
from axcollector.core.layout import JournalName, Stage
from axcollector.core.model import Interval
from axcollector.disk import Disk
from axcollector.inspection import Report, examine, name_fault, records
from axcollector.inventory import Inventory
from axcollector.splitter import Splitter
from axcollector.verification import Verification
from tests.commands import run
from tests.test_quarantine_files import entry, put

Capture = pytest.CaptureFixture[str]
INTERVAL = Interval(1_480_000_080, 1_480_000_200)
NAME = JournalName(INTERVAL, "id", 1, 0, 0)
OTHER = JournalName(INTERVAL, "id", 1, 0, 1)
START = "20161124150800"
LINES = [("acme~prod", b'{"id":1}\n'), ("zoo~a%7Eb", b'{"id":2}\n'), ("acme~prod", b'{"id":3}\n{"id":\r4}\n')]
BUCKET = f"acme~prod~{START}"
REFERENCE = f"5be1_{START}.20161124151000_218e3d99-efaf-4a7b-b3f2-5e4b00c023b7_writer_0.txt.gz"


def framed(name: JournalName = NAME) -> list[bytes]:
    """The frames of a journal of the lines above."""
    return [
        frames.write(name.identity, i, tenant, text.count(b"\n"), deflate.member(text))
        for i, (tenant, text) in enumerate(LINES)
    ]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data directory that the commands find without being told: a journal, and another one's split in staging."""
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "axcollector-data" / "ax"
    for stage in Stage:
        (directory / stage).mkdir(parents=True)
    (directory / "tmp" / OTHER.journal).write_bytes(b"".join(framed(OTHER)))
    Splitter(Disk(), str(directory), Stage.TMP, pack_all=False).work()
    (directory / "tmp" / NAME.journal).write_bytes(b"".join(framed()))
    return directory


def only_file(bucket: Path) -> Path:
    """The file of a bucket."""
    (file,) = bucket.iterdir()
    return file


def test_ls(data: Path, capsys: Capture) -> None:
    """Every stage, the oldest first, with tenant, interval, files, size, age; as JSON with all that is known."""
    os.rename(data / "staging" / BUCKET, data / "failed" / BUCKET)
    (data / "staging" / "stray").write_bytes(b"123")
    (data / "recovered" / "unreadable").mkdir()
    (data / "recovered" / "unreadable" / "junk").write_bytes(b"1")
    put(Disk(), str(make(data / "quarantine")), [entry(0)])
    assert run("ls") == 0
    head, *rows = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    assert [text.strip() for text in head if text] == ["stage", "tenant", "interval", "files", "size", "age", "name"]
    cells = [[text.strip() for text in row if text.strip()] for row in rows]
    assert [(row[0], row[1], row[2], row[3]) for row in cells] == [
        ("tmp", "journal", "2016-11-24T15:08:00Z", "1"),
        ("recovered", "unreadable", "-", "1"),
        ("staging", "zoo a~b", "2016-11-24T15:08:00Z", "1"),
        ("staging", "foreign", "-", "1"),
        ("failed", "acme prod", "2016-11-24T15:08:00Z", "1"),
        ("quarantine", "acme prod", "2016-11-24T15:08:00Z", "1"),
    ]
    assert cells[4][5].endswith(" d")
    assert run("ls", "failed", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found.pop("age_seconds") > 10**8
    assert found == {
        "stage": "failed",
        "name": BUCKET,
        "kind": "bucket",
        "organization": "acme",
        "environment": "prod",
        "start": "2016-11-24T15:08:00Z",
        "end": None,
        "files": 1,
        "bytes": only_file(data / "failed" / BUCKET).stat().st_size,
    }
    assert run("ls", "tmp", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["end"] == "2016-11-24T15:10:00Z"


def make(directory: Path) -> Path:
    """A directory."""
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@pytest.mark.parametrize(
    ("argv", "status", "complaint"),
    [
        (["ls", "nowhere"], 2, "'nowhere' is no stage; allowed are tmp, recovered, staging, failed, quarantine"),
        (["ls", "-l", "elsewhere"], 1, "elsewhere/ax; name the place with --config or --local-storage-path"),
        (["verify", "-l", "elsewhere"], 1, "there is no data in "),
        (["cat"], 2, "missing: NAME"),
        (["cat", "nothing"], 1, "there is no 'nothing' in "),
    ],
)
def test_called_wrongly(data: Path, capsys: Capture, argv: list[str], status: int, complaint: str) -> None:
    """One line says what to do."""
    assert run(*argv) == status
    err = capsys.readouterr().err
    assert complaint in err
    assert err.count("\n") == 1


def test_cat(data: Path, capsysbinary: Any) -> None:
    """A bucket, a journal, a file in either way of naming it, and one that lies anywhere: the lines as they are."""
    acme = b'{"id":1}\n{"id":3}\n{"id":\r4}\n'
    file = only_file(data / "staging" / BUCKET)
    (data.parent.parent / "copy.txt.gz").write_bytes(file.read_bytes())
    for name in (BUCKET, f"staging/{BUCKET}", file.name, f"staging/{BUCKET}/{file.name}", f"{BUCKET}/{file.name}"):
        assert (run("cat", name), capsysbinary.readouterr()) == (0, (acme, b""))
    os.symlink("copy.txt.gz", data.parent.parent / "link")
    for name in ("copy.txt.gz", "link"):
        assert (run("cat", name), capsysbinary.readouterr().out) == (0, acme)
    everything = b"".join(text for _, text in LINES)
    assert (run("cat", NAME.journal), capsysbinary.readouterr().out) == (0, everything)
    assert run("cat", NAME.journal, "--json") == 0
    found = json.loads(capsysbinary.readouterr().out)
    assert [(each["organization"], each["environment"], each["record"]["id"]) for each in found] == [
        ("acme", "prod", 1),
        ("zoo", "a~b", 2),
        ("acme", "prod", 3),
        ("acme", "prod", 4),
    ]
    assert {each["file"] for each in found} == {f"tmp/{NAME.journal}"}
    assert run("cat", BUCKET, "--json") == 0
    assert json.loads(capsysbinary.readouterr().out)[0]["organization"] == "acme"
    make(data / "failed" / f"nobody~prod~{START}")
    assert (run("cat", f"nobody~prod~{START}", "--json"), capsysbinary.readouterr().out) == (0, b"[]\n")


def test_cat_of_what_is_damaged(data: Path, capsysbinary: Any) -> None:
    """Whole records are written, what is lost is told, the status is 1; a journal's unfinished end is no damage."""
    file = only_file(data / "staging" / BUCKET)
    file.write_bytes(file.read_bytes()[:-3])
    assert run("cat", BUCKET) == 1
    out, err = capsysbinary.readouterr()
    assert out == b'{"id":1}\n{"id":3}\n{"id":\r4}\n'
    assert b"it is cut off: it does not end as a gzip file does; 3 whole lines before that can be read" in err
    assert err.endswith(b"1 of the files are damaged, see above; what can be read of them was written\n")
    journal = data / "tmp" / NAME.journal
    first, second, third = framed()
    journal.write_bytes(first + second + third[:-5])
    assert run("cat", NAME.journal) == 0
    out, err = capsysbinary.readouterr()
    assert out == b'{"id":1}\n{"id":2}\n'
    assert f"its last {len(third) - 5:,} bytes are no whole frame, or zeros: it is being written".encode() in err
    journal.write_bytes(first + second[:-1] + b"x" + third)
    assert run("cat", NAME.journal, "--json") == 1
    out, err = capsysbinary.readouterr()
    assert [each["record"]["id"] for each in json.loads(out)] == [1, 3, 4]
    assert b"frame 1 is missing: the next whole one is 2" in err
    assert f"{len(second):,} bytes are no whole frames".encode() in err


def test_cat_of_what_is_no_json(data: Path, capsysbinary: Any) -> None:
    """`--json` is JSON whatever a file holds, and however somebody has named it; what is no file is named."""
    name = os.fsencode(data / "staging" / BUCKET) + b"/a\n\xff.txt.gz"
    with open(name, "wb") as file:
        file.write(gzip.compress(b'{"id":5}\ngarbage\n{"a":"\xfe"}\n'))
    os.mkfifo(data / "staging" / BUCKET / "fifo")
    assert run("cat", BUCKET, "--json") == 1
    out, err = capsysbinary.readouterr()
    found = json.loads(out)
    assert sorted(each["record"]["id"] for each in found if "record" in each) == [1, 3, 4, 5]
    assert [each["text"] for each in found if "text" in each] == ["garbage", '{"a":"\ufffd"}']
    assert "a\n\udcff.txt.gz" in {os.path.basename(each["file"]) for each in found}
    assert b"fifo: is no regular file, and nothing of it is shown" in err


def test_who_may_not() -> None:
    """Is told whose user to be."""
    said = words_of(PermissionError(13, "Permission denied", "/d/failed"))
    assert said.startswith("/d/failed: Permission denied; run this as the user whose it is")
    assert words_of(OSError(28, "No space left", "/d")) == "[Errno 28] No space left: '/d'"


def test_cat_of_quarantine(data: Path, capsysbinary: Any) -> None:
    """Records that are dealt with are not shown, though their file was not written anew yet."""
    quarantine = data / "quarantine"
    quarantine.mkdir()
    name = f"{BUCKET}/q.txt.gz"
    file = put(Disk(), str(quarantine), [entry(number) for number in range(4)], name)
    file.finish_lines([0, 2])
    file.close()
    for named in (f"quarantine/{name}", str(quarantine / name)):
        assert run("cat", named) == 0
        out, _ = capsysbinary.readouterr()
        assert [json.loads(line)["index"] for line in out.splitlines()] == [1, 3]


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def test_cat_on_a_terminal(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal obeys nothing of a record."""
    (data / "tmp" / NAME.journal).write_bytes(
        frames.write(NAME.identity, 0, "a~b", 1, deflate.member('{"x":"\x9b31m ü"}\n'.encode()))
    )
    out = Terminal()
    monkeypatch.setattr("sys.stdout", out)
    assert (run("cat", NAME.journal), out.getvalue()) == (0, '{"x":"\\x9b31m ü"}\n')


def test_set_aside_in_journals(data: Path, capsysbinary: Any) -> None:
    """Records that were set aside are told, not shown; those in quarantine are shown while they are not dealt with."""
    bad = entry(7).line()
    frame = frames.write(NAME.identity, 0, "acme~prod", 1, deflate.member(b'{"id":1}\n'), deflate.member(bad), 1)
    (data / "tmp" / NAME.journal).write_bytes(frame)
    assert run("cat", NAME.journal) == 0
    out, err = capsysbinary.readouterr()
    assert (out, b"1 invalid records are not shown" in err) == (b'{"id":1}\n', True)
    file = put(Disk(), str(make(data / "quarantine")), [entry(0), entry(1)])
    file.finish_lines([0])
    assert run("cat", f"quarantine/{BUCKET}") == 0
    assert [json.loads(line)["index"] for line in capsysbinary.readouterr().out.splitlines()] == [1]
    assert run("verify", "quarantine", "--json") == 0
    assert json.loads(capsysbinary.readouterr().out)["records"] == 2


def test_verify(data: Path, capsys: Capture) -> None:
    """All is well: the numbers of each stage, and 0."""
    assert run("verify") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [(row[0], row[1], row[2], row[-1]) for row in lines] == [
        ("stage", "files", "records", "damaged"),
        ("tmp", "1", "4", "0"),
        ("staging", "2", "4", "0"),
    ]
    assert run("verify", "failed") == 0
    assert capsys.readouterr().out.split() == ["stage", "files", "records", "size", "damaged"]


def test_verify_finds(data: Path, capsys: Capture) -> None:
    """Damage, wrong names, and what does not belong there: each is named, and the status is 1."""
    bucket = data / "staging" / BUCKET
    file = only_file(bucket)
    content = file.read_bytes()
    (bucket / "notes.txt").write_bytes(b"x")
    (bucket / REFERENCE).write_bytes(content)
    (bucket / file.name.replace("_id_", "_ie_")).write_bytes(content)
    (bucket / "torn.txt.gz").write_bytes(content[:-1])
    (bucket / "bad.txt.gz").write_bytes(gzip.compress(b"no json\n{}\n"))
    os.symlink("/etc/passwd", bucket / "link.txt.gz")
    (data / "staging" / f"acme~prod~{START[:-2]}30").mkdir()
    (data / "staging" / f"acme~prod~{START[:-2]}30" / file.name).write_bytes(content)
    (data / "staging" / "stray").mkdir()
    make(data / "recovered" / "unreadable" / BUCKET).joinpath("half.txt.gz").write_bytes(content[:-2])
    make(data / "recovered" / f"{BUCKET}~recoveredTS~{START}.000").joinpath(REFERENCE).write_bytes(content[:-2])
    assert run("verify", "--json") == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    damage = {each["file"].partition("/")[2]: each["damage"] for each in found["details"] if each["damage"]}
    assert {os.path.basename(name): len(texts) for name, texts in damage.items()} == {
        "notes.txt": 1,
        file.name.replace("_id_", "_ie_"): 1,
        "torn.txt.gz": 1,
        "bad.txt.gz": 1,
        "link.txt.gz": 1,
        file.name: 1,
        "stray": 1,
        "half.txt.gz": 2,
    }
    said = json.dumps(damage)
    for text in (
        "it is no .txt.gz file, and left alone",
        "its name is another tenant's",
        "its name tells another interval",
        "it is cut off",
        "1 lines are no JSON objects",
        "it is no regular file",
        "it is nothing that belongs here",
        "it was put aside because it is damaged",
    ):
        assert text in said
    notes = [text for each in found["details"] for text in each["notes"]]
    assert any("it is cut off" in text for text in notes)
    assert (found["damaged"], found["vanished"]) == (8, 0)
    assert err.endswith("axcollector: 8 of 13 files are damaged or do not belong where they are\n")
    assert run("verify", "staging") == 1
    assert f"DAMAGED  staging/{BUCKET}/notes.txt: it is no .txt.gz" in capsys.readouterr().out


class Vanishing(Disk):
    """A disk from which a file vanishes as soon as somebody opens it; one that cannot be read is there too."""

    def open(self, path: str) -> Any:
        if path.endswith("bad"):
            raise PermissionError(13, "Permission denied", path)
        raise FileNotFoundError(2, "No such file or directory", path)


def test_what_vanishes(data: Path) -> None:
    """What was split, moved or delivered meanwhile is no fault; what cannot be read is."""
    inventory = Inventory(Disk(), str(data))
    verdicts = [each for item in inventory.items() for each in Verification(Vanishing(), str(data)).verify(item)]
    assert [(each.vanished, each.damage) for each in verdicts] == [(True, ())] * 3
    os.rename(data / "tmp" / NAME.journal, make(data / "recovered" / "unreadable") / "bad")
    (item,) = inventory.items(["recovered"])
    (verdict,) = Verification(Vanishing(), str(data)).verify(item)
    assert verdict.damage == ("it cannot be read: Permission denied",)


def test_splits_under_way(data: Path) -> None:
    """A split beside its journal is a copy that is being made; alone it is all there is."""
    split = data / "tmp" / NAME.split
    make(split / BUCKET).joinpath(NAME.file_of("acme~prod")).write_bytes(gzip.compress(b"{}\n"))
    inventory, verification = Inventory(Disk(), str(data)), Verification(Disk(), str(data))
    (item,) = inventory.find(NAME.split)
    (verdict,) = verification.verify(item)
    assert (verdict.records, len(verdict.notes), verdict.damage) == (0, 1, ())
    assert item.awaits_delivery
    (data / "tmp" / NAME.journal).unlink()
    (verdict,) = verification.verify(item)
    assert (verdict.records, verdict.notes) == (1, ())


def test_frames_that_lie(tmp_path: Path) -> None:
    """CRCs that are right prove what was written, not that it was right: numbers, members and tenants are looked at."""
    path = tmp_path / NAME.journal
    path.write_bytes(
        frames.write(NAME.identity, 0, "a~b", 3, deflate.member(b"{}\n"))
        + frames.write(NAME.identity, 1, "a~b", 1, b"no gzip")
        + frames.write(NAME.identity, 2, "nobody", 1, deflate.member(b"{}\n"))
        + frames.write(NAME.identity, 3, "a~b", 1, deflate.member(b"{}\n")[:-4])
    )
    report = examine(Disk(), str(path))
    assert report.damage[0] == "frame 0 holds 1 lines and says 3"
    assert [text.split(":")[0] for text in report.damage[1:]] == [f"frame {n} cannot be read" for n in (1, 2, 3)]
    path.rename(tmp_path / f"{NAME.journal}_2")  # as it is put aside beside another of its name
    assert examine(Disk(), str(tmp_path / f"{NAME.journal}_2")).damage == report.damage


def test_files_of_all_kinds(tmp_path: Path) -> None:
    """Several members, zeros behind, no last newline, long lines over many reads, nothing at all: as they are."""
    long = b'{"x":"%b"}\n' % os.urandom(3 << 19).hex().encode()
    contents: dict[str, tuple[bytes, bytes]] = {
        "members": (gzip.compress(b"{}\n") + gzip.compress(b'{"a":1}\n'), b'{}\n{"a":1}\n'),
        "zeros": (gzip.compress(b"{}\n") + bytes(5000), b"{}\n"),
        "open": (gzip.compress(b"{}\n{}"), b"{}\n{}\n"),
        "long": (zlib.compress(long, 0, 31) * 2, long * 2),
        "empty": (b"", b""),
        "repeated": (gzip.compress(b"{}\n" * 100_000), b"{}\n" * 100_000),
        "torn": (gzip.compress(long + b"{}\n{}\n")[:-9], long + b"{}\n{}\n"),
    }
    for name, (content, text) in contents.items():
        path = tmp_path / f"{name}.txt.gz"
        path.write_bytes(content)
        report = Report()
        assert b"".join(piece.lines for piece in records(Disk(), str(path), report)) == text, name
        again = examine(Disk(), str(path))
        assert (again.records, bool(again.damage)) == (report.records, bool(report.damage))
        assert (again.records, bool(again.damage)) == (text.count(b"\n"), name == "torn"), name


class Changing(Disk):
    """A disk on which a file is another one each time it is opened."""

    def __init__(self, contents: list[bytes]) -> None:
        self._contents: Iterator[bytes] = iter(contents)

    def open(self, path: str) -> Any:
        Path(path).write_bytes(next(self._contents))
        return super().open(path)


def test_a_file_that_changes(tmp_path: Path) -> None:
    """Somebody who writes a file while it is read is told of, and believed nothing."""
    whole = gzip.compress(b"{}\n" * 100)
    path = str(tmp_path / "x.txt.gz")
    for contents in ([whole, whole[:-5]], [whole[:-5], whole[:-5], b"junk" + whole]):
        with pytest.raises(OSError, match="was changed while it was read"):
            list(records(Disk() if not contents else Changing(contents), path, Report()))


def test_names() -> None:
    """What the name of a file in a bucket says must suit the bucket; names of others are left to them."""
    name = NAME.file_of("acme~prod")
    found = NAME.found(1_480_000_300.5).file_of("acme~prod")
    start = INTERVAL.start
    good = [name, found, name.replace(".txt.gz", "_2.txt.gz"), REFERENCE, "x.txt.gz"]
    assert [name_fault("acme~prod", start, each) for each in good] == [None] * 5
    assert name_fault("acme~prod", start + 60, name) == "its name tells another interval than its bucket's"
    assert name_fault("zoo~test", start, name) == "its name is another tenant's: it was moved here, or renamed"
    assert (
        name_fault("acme~prod", start, name.replace("_1-0-0", "_01-0-0")) == "its name is not as axcollector writes it"
    )
