"""Setting invalid records aside: which they are, how they are kept, and that nothing of a batch is lost or doubled."""

import errno
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import defer
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent

from axcollector.core import payload, quarantine
from axcollector.core.commit import GroupCommit
from axcollector.core.errors import Overloaded, Rejected, SpoolFailed
from axcollector.core.frames import VERSION, VERSION_ASIDE, FrameReader
from axcollector.core.layout import QUARANTINE, JournalName, Stage
from axcollector.core.model import Batch, Tenant
from axcollector.core.payload import Payload
from axcollector.core.records import CHUNK_RECORDS, Rules
from axcollector.core.unpacking import Limits
from axcollector.disk import AppendFile, Disk
from axcollector.intake import INLINE_BYTES, Intake, Taken
from axcollector.journal import JournalPlan, JournalWriter
from axcollector.quarantine import Quarantine
from axcollector.splitter import Splitter
from axcollector.spool import Spool
from axcollector.takeover import take_over
from tests.fakes import SameThread, result_of
from tests.json_texts import likely_records, oracle, values
from tests.test_intake import Kept, KnownTenant
from tests.test_records import expected_fault, parse

START = 1_480_000_080.0
LIMITS = Limits(10 << 20, 50 << 20, 20_000)
GOOD = b'{"client_received_start_timestamp":1}'
ACME = Tenant("t1", "acme", "prod")


def body_of(texts: list[bytes]) -> bytes:
    """A body of these records."""
    return b'{"records":[%b]}' % b",".join(texts)


class Door:
    """The way in, with nothing behind it."""

    def __init__(self, rules: Rules = Rules(), limits: Limits = LIMITS, now: float = START) -> None:  # noqa: B008
        clock = Clock()
        clock.rightNow = now
        self.kept = Kept()
        self.intake = Intake(
            clock, SameThread(), KnownTenant(), self.kept, self.kept, limits, rules, INLINE_BYTES * 3, sets_aside=True
        )

    def take(self, body: bytes, encoding: str | None = None, scope: str | None = "a-scope") -> Taken:
        async def tenant_of(_: Payload) -> Tenant:
            return ACME

        return result_of(defer.ensureDeferred(self.intake.take(body, encoding, tenant_of, scope)))

    def entries(self) -> list[quarantine.Entry]:
        return [quarantine.parse(line) for batch in self.kept.batches for line in batch.aside.splitlines()]

    def lines(self) -> list[bytes]:
        return [line for batch in self.kept.batches for line in batch.lines.splitlines()]


BAD: dict[bytes, tuple[str, str]] = {
    b"null": ("BAD_DATA", "Each Analytics record in records should be a json object"),
    b"[1, 2]": ("BAD_DATA", "Each Analytics record in records should be a json object"),
    b'"\\ud800"': ("BAD_DATA", "Each Analytics record in records should be a json object"),
    b"{}": ("MISSING_FIELD", "Missing Required field: client_received_start_timestamp"),
    b'{"x":"\\udfff"}': ("MISSING_FIELD", "Missing Required field: client_received_start_timestamp"),
    b'{"client_received_start_timestamp":1,"client_received_start_timestamp":null}': (
        "MISSING_FIELD",
        "Missing Required field: client_received_start_timestamp",
    ),
    b'{"client_received_start_timestamp":1.0}': (
        "BAD_DATA",
        "client_received_start_timestamp and client_received_end_timestamp has to be number",
    ),
    b'{"client_received_start_timestamp":%b,"client_received_end_timestamp":2}' % (b"9" * 5000): (
        "BAD_DATA",
        "client_received_start_timestamp > client_received_end_timestamp",
    ),
    b'{"client_received_start_timestamp":1,"client_id":' + b"[" * 197 + b"]" * 197 + b"}": (
        "BAD_DATA",
        "client_id has to be a string",
    ),
}


def test_bad_records_are_set_aside() -> None:
    """Each with its exact text, its reason, its place in the batch, its tenant and the time; the others are kept."""
    door = Door(now=1_480_000_080.1234)
    texts = [text for bad in BAD for text in (bad, GOOD)]
    assert door.take(body_of(texts)) == Taken(len(BAD), len(BAD))
    assert [
        (e.quarantined_at, e.organization, e.environment, e.scope, e.index, bytes(e.record), (e.code, e.reason))
        for e in door.entries()
    ] == [
        (1_480_000_080_123, "acme", "prod", "a-scope", 2 * i, text, reason)
        for i, (text, reason) in enumerate(BAD.items())
    ]
    assert len(door.lines()) == len(BAD)


def test_nothing_good_in_it() -> None:
    """A batch of bad records only is taken too."""
    door = Door()
    assert door.take(body_of([b"{}"]), scope=None) == Taken(0, 1)
    (batch,) = door.kept.batches
    assert (batch.lines, len(batch), batch.aside_count) == (b"", 0, 1)
    assert door.entries()[0].scope is None


def test_nothing_bad_in_it() -> None:
    """A batch of good records needs no second look, and says that none was set aside."""
    door = Door()
    assert door.take(body_of([GOOD] * 3)) == Taken(3, 0)
    assert door.kept.batches[0].aside == b""


def test_newlines_between_tokens() -> None:
    """A record that is written over several lines is kept as one."""
    door = Door()
    door.take(body_of([b'{\r\n"x"\n:\n[1,\n2]}']))
    assert [bytes(e.record) for e in door.entries()] == [b'{  "x" : [1, 2]}']


@pytest.mark.parametrize(("age", "start"), [(60, START - 61), (60, START + 31)])
def test_rules_on_time(age: int, start: float) -> None:
    """What is too old or too new, which the fast way finds, is set aside like all else."""
    door = Door(Rules(age, 30))
    good = b'{"client_received_start_timestamp":%d}' % (START * 1000)
    bad = b'{"client_received_start_timestamp":%d}' % (start * 1000)
    assert door.take(body_of([good, bad, good])) == Taken(2, 1)
    assert [(e.index, e.code) for e in door.entries()] == [(1, "BAD_DATA")]
    assert "cannot be" in door.entries()[0].reason


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "BAD_DATA"),
        (b'{"records":[{}]} x', "BAD_DATA"),
        (b'{"records":[' + GOOD + b",]}", "BAD_DATA"),
        (b'{"records":[{"x":NaN}]}', "BAD_DATA"),
        (b'{"records":["\xff"]}', "BAD_DATA"),
        (b'{"records":[' + b"[" * 200 + b"]" * 200 + b"]}", "BAD_DATA"),
        (b'{"records":{}}', "BAD_DATA"),
        (b'{"records":[]}', "NO_RECORDS"),
        (b'{"records":null}', "NO_RECORDS"),
        (b"{}", "NO_RECORDS"),
        (body_of([b"1"] * 20_001), "PAYLOAD_TOO_LARGE"),
    ],
)
def test_what_refuses_the_whole_body(body: bytes, code: str) -> None:
    """A body of which no records can be told is refused, and nothing of it is kept."""
    door = Door()
    with pytest.raises(Rejected) as refusal:
        door.take(body)
    assert refusal.value.code == code
    assert door.kept.batches == []


def test_large_batches() -> None:
    """Of many chunks, only those with a bad record are looked at one by one, and each index is the batch's."""
    door = Door()
    bad = {0, CHUNK_RECORDS - 1, 3 * CHUNK_RECORDS, 3 * CHUNK_RECORDS + 1, 19_999}
    texts = [b'{"n":%d}' % i if i in bad else b'{"client_received_start_timestamp":%d}' % i for i in range(20_000)]
    assert door.take(gzip.compress(body_of(texts)), "gzip") == Taken(19_995, 5)
    assert [(e.index, bytes(e.record)) for e in door.entries()] == [(i, b'{"n":%d}' % i) for i in sorted(bad)]
    kept = [json.loads(line)["client_received_start_timestamp"] for line in door.lines()]
    assert kept == [i for i in range(20_000) if i not in bad]


@given(st.lists(st.one_of(likely_records, values), min_size=1, max_size=6))
def test_each_record_goes_one_way(texts: list[str]) -> None:
    """For any JSON: valid records are kept in their order, all others set aside in theirs, as an oracle tells them."""
    raw = [text.encode() for text in texts]
    door = Door()
    taken = door.take(body_of(raw))
    faults: dict[int, str] = {}
    good: list[dict[str, Any]] = []
    for index, text in enumerate(raw):
        record: Any = parse(text)
        is_object = text.startswith(b"{")
        fault = expected_fault(record) if is_object else "Each Analytics record in records should be a json object"
        if fault is None:
            good.append(record)
        else:
            faults[index] = fault
    assert taken == (len(good), len(faults))
    assert [parse(line)["client_received_start_timestamp"] for line in door.lines()] == [
        record["client_received_start_timestamp"] for record in good
    ]
    assert len(door.lines()) == len(good)
    for line, record in zip(door.lines(), good, strict=True):
        assert {key: value for key, value in parse(line).items() if key in record} == {
            key: value if value or key not in {"organization", "environment"} else parse(line)[key]
            for key, value in record.items()
        }
    assert {e.index: e.reason for e in door.entries()} == faults
    for entry, line in zip(door.entries(), door.kept.batches[0].aside.splitlines(), strict=True):
        sent = raw[entry.index].replace(b"\n", b" ").replace(b"\r", b" ")
        assert bytes(entry.record) == sent
        assert oracle(line)["record"] == oracle(sent)
        assert entry.line() == line + b"\n"


def test_lines_that_are_none() -> None:
    """What is no line of ours is said to be none."""
    for line in (b"", b"{}", b"1", b'{"record":1}', b'{"record":"\\ud800"}', b"[" * 10_000):
        with pytest.raises(ValueError, match="not a line"):
            quarantine.parse(line)


def test_records_of_this_process() -> None:
    """`submit` tells how many were accepted; what JSON cannot say refuses them all."""
    door = Door()
    given_records = [{}, {"client_received_start_timestamp": 1}, b"7"]
    assert result_of(defer.ensureDeferred(door.intake.take_records("s", given_records))) == 1
    assert [(e.index, e.scope, bytes(e.record)) for e in door.entries()] == [(0, "s", b"{}"), (2, "s", b"7")]
    with pytest.raises(Rejected):
        result_of(defer.ensureDeferred(door.intake.take_records("s", [{}, {"x": float("nan")}])))
    assert len(door.kept.batches) == 1


# From the spool to the files.


class FaultyFile(AppendFile):
    disk: "FaultyDisk"

    def write(self, data: bytes | memoryview) -> None:
        if self.disk.full:
            super().write(data[: len(data) - 5])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(data)


class FaultyDisk(Disk):
    """A disk that can be full."""

    full = False

    def create(self, path: str) -> AppendFile:
        file = super().create(path)
        file.__class__ = FaultyFile
        assert isinstance(file, FaultyFile)
        file.disk = self
        return file


class Stations:
    """A spool and a splitter on a real directory."""

    def __init__(self, root: Path, quota: int = 0, disk: Disk | None = None) -> None:
        self.root = root
        for stage in Stage:
            (root / stage).mkdir(exist_ok=True)
        self.disk = disk or Disk()
        self.clock = Clock()
        self.clock.rightNow = START
        self.quarantine = Quarantine(str(root), quota)
        plan = JournalPlan(str(root / Stage.TMP), "id", 1, 120, 1 << 20)
        self.writer = JournalWriter(self.disk, plan, None, self.quarantine)
        group: GroupCommit[Any] = GroupCommit(100, 1 << 20)
        self.spool = Spool(self.clock, SameThread(), self.writer, group, self.quarantine)

    def submit(self, lines: bytes, aside: bytes, tenant: Tenant = ACME) -> "defer.Deferred[None]":
        return self.spool.submit(Batch(tenant, lines, lines.count(b"\n"), aside, aside.count(b"\n")))

    def split(self, stage: Stage = Stage.TMP) -> int:
        self.writer.finish()
        splitter = Splitter(self.disk, str(self.root), stage, pack_all=False, quarantine=self.quarantine)
        return splitter.work()

    def found(self, stage: str) -> dict[str, bytes]:
        return {
            path.parent.name.rpartition("~")[0]: gzip.decompress(path.read_bytes())
            for path in sorted((self.root / stage).glob("*/*"))
        }

    def versions(self) -> list[int]:
        (path,) = (self.root / Stage.TMP).glob("*.journal")
        data = path.read_bytes()
        reader = FrameReader(JournalName.parse(path.name)[0].identity)
        return [data[data.rindex(b"\xabAXF", 0, frame.offset) + 4] for frame in [*reader.feed(data), *reader.finish()]]


def test_from_a_commit_to_files(tmp_path: Path) -> None:
    """What was set aside goes to quarantine/, a file a tenant, and nothing of it to staging/; nobody else may read."""
    s = Stations(tmp_path)
    zoo = Tenant("t2", "zoo", "test")
    waiting = [s.submit(b"1\n", b"a\n"), s.submit(b"", b"b\nc\n"), s.submit(b"2\n", b""), s.submit(b"3\n", b"", zoo)]
    waiting.append(s.submit(b"", b"d\n", zoo))
    assert [result_of(each) for each in waiting] == [None] * 5
    assert s.versions() == [VERSION_ASIDE, VERSION_ASIDE, VERSION, VERSION, VERSION_ASIDE]
    assert s.quarantine.records == 4
    assert s.split() == 0
    assert s.found("staging") == {"acme~prod": b"1\n2\n", "zoo~test": b"3\n"}
    assert s.found(QUARANTINE) == {"acme~prod": b"a\nb\nc\n", "zoo~test": b"d\n"}
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / QUARANTINE).rglob("*")} == {0o600, 0o700}
    assert (tmp_path / QUARANTINE).stat().st_mode & 0o777 == 0o700
    assert list((tmp_path / "tmp").iterdir()) == []


def test_what_counts_against_the_quota(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """All commits of a journal; to the byte; and there is room again only when there is some."""
    quarantine = Quarantine(str(tmp_path), 100)
    quarantine.note("journal", 30)
    quarantine.note("journal", 40)
    quarantine.hold(30)
    assert quarantine.used_bytes == 100
    with pytest.raises(SpoolFailed):
        quarantine.hold(1)
    quarantine.measure()
    assert "there is room in the quarantine again" not in map(formatEvent, log_events)
    quarantine.settle(30, 1)
    quarantine.measure()
    assert "there is room in the quarantine again" in map(formatEvent, log_events)


def test_no_directory_where_nothing_is_set_aside(tmp_path: Path) -> None:
    """Without bad records there is no quarantine/."""
    s = Stations(tmp_path)
    result_of(s.submit(b"1\n", b""))
    s.split()
    assert not (tmp_path / QUARANTINE).exists()


def test_what_a_crash_left(tmp_path: Path) -> None:
    """A journal that is found after a crash gives the same; a frame that was cut short gives neither of its parts."""
    s = Stations(tmp_path)
    result_of(s.submit(b"1\n", b"a\n"))
    result_of(s.submit(b"2\n", b"b\n"))
    (path,) = (tmp_path / "tmp").glob("*.journal")
    path.write_bytes(path.read_bytes()[:-1])
    take_over(s.disk, str(tmp_path), START)
    assert s.split(Stage.RECOVERED) == 0
    assert (s.found("staging"), s.found(QUARANTINE)) == ({"acme~prod": b"1\n"}, {"acme~prod": b"a\n"})


@pytest.mark.parametrize("other", ["file", "link"])
def test_something_else_in_its_place(tmp_path: Path, other: str) -> None:
    """Where quarantine/ is no directory nothing is lost: it is kept beside tmp/'s journals, and tried again."""
    s = Stations(tmp_path)
    result_of(s.submit(b"", b"a\n"))
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.mkdir()
    place = tmp_path / QUARANTINE
    place.symlink_to(elsewhere) if other == "link" else place.write_bytes(b"")
    assert (s.split(), list(elsewhere.iterdir())) == (1, [])
    place.unlink()
    assert (s.split(), s.found(QUARANTINE)) == (0, {"acme~prod": b"a\n"})


def test_disk_full(tmp_path: Path) -> None:
    """A commit that fails keeps neither part, counts nothing, and gives its room back."""
    disk = FaultyDisk()
    s = Stations(tmp_path, 1000, disk)
    result_of(s.submit(b"1\n", b"a\n"))
    used = s.quarantine.used_bytes
    disk.full = True
    with pytest.raises(SpoolFailed):
        result_of(s.submit(b"2\n", b"b\n" * 100))
    disk.full = False
    assert (s.quarantine.used_bytes, s.quarantine.records) == (used, 1)
    result_of(s.submit(b"3\n", b"c\n"))
    s.split()
    for stage, lines in (("staging", [b"1\n", b"3\n"]), (QUARANTINE, [b"a\n", b"c\n"])):
        assert sorted(gzip.decompress(path.read_bytes()) for path in (tmp_path / stage).glob("*/*")) == lines


def test_quota(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """When it is full, batches with bad records get 503, others are taken; nothing that was acknowledged goes."""
    s = Stations(tmp_path, 400)
    result_of(s.submit(b"1\n", b"a" * 299 + b"\n"))
    assert 0 < s.quarantine.used_bytes < 100  # compressed
    with pytest.raises(SpoolFailed, match="quarantine_quota_bytes"):
        result_of(s.submit(b"2\n", b"b" * 399 + b"\n"))
    with pytest.raises(SpoolFailed):
        result_of(s.submit(b"2\n", b"b" * 399 + b"\n"))
    assert s.quarantine.refused == 2
    result_of(s.submit(b"3\n", b""))
    s.quarantine.measure()
    before = s.quarantine.used_bytes
    s.split()
    assert s.quarantine.used_bytes == before  # published, and not yet measured
    s.quarantine.measure()
    assert s.quarantine.used_bytes == sum(p.stat().st_size for p in (tmp_path / QUARANTINE).glob("*/*"))
    assert (s.found("staging"), s.found(QUARANTINE)) == (
        {"acme~prod": b"1\n3\n"},
        {"acme~prod": b"a" * 299 + b"\n"},
    )
    texts = [e["log_format"] for e in log_events if e["log_namespace"] == "axcollector.quarantine.Quarantine"]
    assert [text.partition(" ")[0] for text in texts] == ["the", "there"]  # full, once; room again


def test_what_waits_counts_against_the_quota(tmp_path: Path) -> None:
    """Batches that wait for a commit cannot together pass the quota; one refused for other reasons holds nothing."""
    s = Stations(tmp_path, 100)
    s.quarantine.hold(60)
    with pytest.raises(SpoolFailed):
        s.quarantine.hold(60)
    s.quarantine.settle(60, 1)
    s.quarantine.hold(60)
    s.quarantine.settle(60, 1)
    result_of(s.spool.close())
    with pytest.raises(Overloaded):
        result_of(s.submit(b"1\n", b"a\n"))
    assert s.quarantine.used_bytes == 0


def test_many_small_batches_are_packed(tmp_path: Path) -> None:
    """A file of many small members becomes one, as in staging/."""
    s = Stations(tmp_path)
    for i in range(300):
        result_of(s.submit(b"", b'{"n":%d}\n' % i))
    s.split()
    (path,) = (tmp_path / QUARANTINE).glob("*/*")
    content = b"".join(b'{"n":%d}\n' % i for i in range(300))
    assert gzip.decompress(path.read_bytes()) == content
    assert path.stat().st_size < 3 * len(gzip.compress(content))


def test_payload_gives_every_kind_of_element() -> None:
    """What the sifting relies on: elements of any type come out of a body as their own text."""
    texts = [b"1", b'"x"', b"null", b"[]", b"{}", b"true"]
    assert [bytes(text) for text in payload.decode(body_of(texts), None, LIMITS).records] == texts


def test_what_volos_sends() -> None:
    """A node Buffer printed as JSON, which its gzip option makes, is sifted like any other body."""
    packed = gzip.compress(body_of([GOOD, b"{}"]))
    printed = json.dumps({"type": "Buffer", "data": list(packed)}).encode()
    door = Door()
    assert door.take(printed, "gzip") == Taken(1, 1)
    assert [(e.index, bytes(e.record)) for e in door.entries()] == [(1, b"{}")]


def test_what_others_measure(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """A process that does not measure counts what it has set aside until a measurement must have seen it."""
    full = Quarantine(str(tmp_path), 100)
    full.told(60, 1)
    full.note("journal", 30)
    assert (full.used_bytes, full.held_bytes) == (90, 30)
    with pytest.raises(SpoolFailed):
        full.hold(11)
    (tmp_path / "journal.journal").write_bytes(b"")
    full.publish_gone(Disk(), str(tmp_path))
    full.told(60, 2)
    full.told(60, 3)
    assert full.held_bytes == 30
    (tmp_path / "journal.journal").unlink()
    full.publish_gone(Disk(), str(tmp_path))
    full.told(60, 3)
    full.told(60, 4)  # may have begun before it came there
    assert full.held_bytes == 30
    full.told(90, 5)
    assert (full.used_bytes, full.held_bytes) == (90, 0)
    assert [event["log_format"] for event in log_events][-1] == "there is room in the quarantine again"
    full.hold(10)
