"""`axcollector send`: what it reads, what becomes of each record, and what it says of those that were not accepted."""

import gzip
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import defer
from twisted.internet.threads import deferToThread
from twisted.python.usage import UsageError

from axcollector.cli.interrupts import Interrupted
from axcollector.cli.send import SendOptions
from axcollector.cli.send_input import Input
from axcollector.core.errors import CommandFailed, Overloaded, Rejected, TransferFailed
from axcollector.sending import MOST_REMEMBERED, Batch, Place, Sending
from tests.errands import own_reactor
from tests.fakes import result_of
from tests.running import Running, until
from tests.test_cli_status import serving

Capture = pytest.CaptureFixture[str]
RECORD = b'{"client_received_start_timestamp":%d}'


def read(path: Path, content: bytes, records: int = 3, size: int = 1000) -> list[Batch]:
    """The batches of a file of this content."""
    path.write_bytes(content)
    with Input(str(path), records, size) as source:
        return list(iter(source.next_batch, None))


def told(batches: Sequence[Batch]) -> list[tuple[str, bytes]]:
    """Where the records stand, and their texts."""
    return [(str(p), t) for batch in batches for p, t in zip(batch.places, batch.texts, strict=True)]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_lines(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    """A record a line, in batches of limited number and size, exactly as they are; blank lines do no harm."""
    long = b'{"x":"%b"}' % (b"y" * 600)
    content = b'{"a": 1.10}\r\n\n {"b":"\\ud800"} \n{"c":3}\n{"d":4}\n%b\n%b' % (long, long)
    batches = read(tmp_path / "f", pack(content))
    assert told(batches) == [
        ("line 1", b'{"a": 1.10}'),
        ("line 3", b'{"b":"\\ud800"}'),
        ("line 4", b'{"c":3}'),
        ("line 5", b'{"d":4}'),
        ("line 6", long),
        ("line 7", long),
    ]
    assert [len(batch.texts) for batch in batches] == [3, 2, 1]
    assert [batch.is_last for batch in batches] == [False, False, True]
    assert batches[-1].position == len(pack(content))


def test_a_byte_order_mark(tmp_path: Path) -> None:
    """It is no part of the first record, nor of a document."""
    for content, first in ((b'{"a":1}\n{"b":2}', "line 1"), (b'{"records":[\n{"a":1},{"b":2}\n]}', "record 0")):
        batches = read(tmp_path / "f", b"\xef\xbb\xbf" + content)
        assert [told(batches)[0], batches[0].bad] == [(first, b'{"a":1}'), []]


def test_a_slow_pipe() -> None:
    """What has come is given though the writer pauses; half a line waits for its end, and nothing is lost."""
    reading, writing = os.pipe()
    standard = os.dup(0)
    os.dup2(reading, 0)
    try:
        os.write(writing, b'x\n{"a":1}\n{"b":')
        with Input("-", 500, 1000, linger_seconds=0) as source:
            first = source.next_batch()
            assert first is not None
            assert (told([first]), first.is_last, list(map(str, first.bad))) == (
                [("line 2", b'{"a":1}')],
                False,
                ["line 1"],
            )
            os.write(writing, b"2}\ny\n")
            assert told([source.next_batch() or first]) == [("line 3", b'{"b":2}')]
            bad = source.next_batch()
            assert bad is not None
            assert (bad.texts, list(map(str, bad.bad)), bad.is_last) == ([], ["line 4"], False)
            os.write(writing, b'{"records":[{"c":1},{"c":2}]}\n{"d":4}')
            os.close(writing)
            rest = list(iter(source.next_batch, None))
        assert [place for place, _ in told(rest)] == ["line 5, record 0", "line 5, record 1", "line 6"]
        assert rest[-1].position == 57
    finally:
        os.dup2(standard, 0)
        os.close(standard)
        os.close(reading)


def test_what_is_torn_behind_good_lines(tmp_path: Path) -> None:
    """What was read of a torn file is a batch of its own, and not its last; then it is told that it is torn."""
    lines = b"".join(b'{"n":%d,"r":"%b"}\n' % (n, os.urandom(40).hex().encode()) for n in range(400))
    (tmp_path / "f").write_bytes(gzip.compress(lines)[:-20])
    with Input(str(tmp_path / "f"), 1000, 1_000_000) as source:
        batch = source.next_batch()
        assert batch is not None
        assert not batch.is_last
        assert batch.texts == lines.split(b"\n")[: len(batch.texts)]
        assert len(batch.texts) > 300
        for _ in range(2):
            with pytest.raises(CommandFailed, match=f"no whole gzip file: .*, in line {len(batch.texts) + 1}"):
                source.next_batch()


def test_documents(tmp_path: Path) -> None:
    """A line may be a document, or the whole input; a record with a field of that name is none."""
    content = b'{"records":[{"a":1},{"b":2}]}\n{"c":3}\n{"records":[1],"client_received_start_timestamp":1}\n'
    assert [place for place, _ in told(read(tmp_path / "f", content))] == [
        "line 1, record 0",
        "line 1, record 1",
        "line 2",
        "line 3",
    ]
    content = b'{\n "records": [\n  {"a": 1},\n  {"b":\n 2}\n ]\n}\n'
    assert told(read(tmp_path / "f", content)) == [("record 0", b'{"a": 1}'), ("record 1", b'{"b":  2}')]
    assert read(tmp_path / "f", b"") == []


def test_what_is_no_record(tmp_path: Path) -> None:
    """Lines that are no objects are named, wherever they stand, and the others are taken."""
    for content, bad in (
        (b'{"a":\n{"b":2}\n[]\n', ["line 1", "line 3"]),
        (b'{"b":2}\nx\n{"records":3}\n', ["line 2"]),
        (b"1\n2\n", ["line 1", "line 2"]),
    ):
        batches = read(tmp_path / "f", content)
        assert [str(place) for batch in batches for place in batch.bad] == bad
        assert len(told(batches)) == content.count(b"\n") - len(bad)


def test_input_that_cannot_be_read(tmp_path: Path) -> None:
    """It is named."""
    with pytest.raises(TransferFailed, match="none cannot be read: No such file"):
        Input(str(tmp_path / "none"), 1, 1)
    with pytest.raises(TransferFailed, match="cannot be read: Is a directory"):
        read_directory(tmp_path)
    with pytest.raises(CommandFailed, match=r"is no whole gzip file: .*, in line 1"):
        read(tmp_path / "f", gzip.compress(b"{}\n" * 99)[:-9])
    with pytest.raises(CommandFailed, match="line 1: is longer than 67108864 bytes"):
        read(tmp_path / "f", gzip.compress(bytes(1 << 26), 1))


def read_directory(path: Path) -> None:
    """Opens what is no file."""
    with Input(str(path), 1, 1):
        pass


class Collector:
    """A client that answers by a function of the records; or holds its answers back."""

    def __init__(self, say: Callable[[Sequence[bytes]], int | Exception] | None = None) -> None:
        self.say = say
        self.sent: list[tuple[Sequence[bytes], defer.Deferred[int]]] = []

    def submit(self, scope: str, records: Sequence[bytes]) -> "defer.Deferred[int]":
        assert scope == "s"
        answer: defer.Deferred[int] = defer.Deferred()
        self.sent.append((records, answer))
        if self.say is not None:
            said = self.say(records)
            answer.callback(said) if isinstance(said, int) else answer.errback(said)
        return answer


def batches_of(sizes: Sequence[int]) -> list[Batch]:
    """Batches of so many records, each its own number, a line each."""
    numbers = iter(range(1, sum(sizes) + 1))
    made = []
    for at, size in enumerate(sizes):
        these = [next(numbers) for _ in range(size)]
        places = [Place(number) for number in these]
        made.append(Batch([b"%d" % number for number in these], places, is_last=at == len(sizes) - 1))
    return made


def sending(
    collector: Collector, batches: Sequence[Batch], pending: "defer.Deferred[Batch | None] | None" = None
) -> Sending:
    """Sends these, and then waits for what is pending, if anything is."""
    left = list(batches)

    def given() -> "defer.Deferred[Batch | None]":
        return defer.succeed(left.pop(0)) if left else pending or defer.succeed(None)

    return Sending(collector, "s", given, lambda _: None)


def test_what_is_accepted() -> None:
    """Batches go side by side, no more than so many; what the collector sets aside is counted."""
    collector = Collector()
    work = sending(collector, batches_of([3, 3, 3]))
    running = defer.ensureDeferred(work.run(2))
    assert len(collector.sent) == 2
    collector.sent[1][1].callback(3)
    assert len(collector.sent) == 3
    collector.sent[0][1].callback(3)
    collector.sent[2][1].callback(1)
    result_of(running)
    result = work.result
    assert (result.accepted, result.set_aside, result.refused, result.unsent) == (7, 2, 0, 0)
    assert (result.gaps, result.is_complete, result.problem) == ([], True, None)


def test_bad_records() -> None:
    """They alone are refused, whether their index is told or not, with their places and reasons."""

    def say(records: Sequence[bytes]) -> int | Exception:
        for index, text in enumerate(records):
            if int(text) % 10 == 7:
                return Rejected("MISSING_FIELD", f"no start (record {index})")
            if int(text) == 12:
                return Rejected("BAD_DATA", "Not a valid JSON payload")
        return len(records)

    work = sending(Collector(say), batches_of([20, 8]))
    result_of(defer.ensureDeferred(work.run(1)))
    assert work.result.accepted == 24
    assert [(str(each.place), each.code, each.reason) for each in work.result.refusals] == [
        ("line 7", "MISSING_FIELD", "no start"),
        ("line 12", "BAD_DATA", "Not a valid JSON payload"),
        ("line 17", "MISSING_FIELD", "no start"),
        ("line 27", "MISSING_FIELD", "no start"),
    ]
    many = sending(Collector(lambda _: Rejected("BAD_DATA", "no")), batches_of([MOST_REMEMBERED + 5]))
    result_of(defer.ensureDeferred(many.run(1)))
    assert (many.result.refused, len(many.result.refusals)) == (MOST_REMEMBERED + 5, MOST_REMEMBERED)


@pytest.mark.parametrize("problem", [Rejected("UNKNOWN_SCOPE", "no such scope"), Overloaded("full")])
def test_what_ends_it(problem: Exception) -> None:
    """No new batch is begun, those under way are waited for, nobody waits for a pipe, and what is missing is known."""
    collector = Collector()
    work = sending(collector, batches_of([3, 3, 3])[:2], defer.Deferred())
    running = defer.ensureDeferred(work.run(3))
    collector.sent[0][1].errback(problem)
    assert not running.called
    collector.sent[1][1].callback(3)
    result_of(running)
    result = work.result
    assert (result.accepted, result.unsent, result.problem) == (3, 3, problem)
    assert ([tuple(map(str, gap)) for gap in result.gaps], str(result.last)) == ([("line 1", "line 3")], "line 6")
    assert not result.is_complete


def test_input_that_fails() -> None:
    """The batches under way are waited for, so that nobody sends again what was taken; then it is raised."""
    collector = Collector()
    failing: defer.Deferred[Batch | None] = defer.Deferred()
    work = sending(collector, batches_of([3, 3, 3])[:2], failing)
    running = defer.ensureDeferred(work.run(2))
    collector.sent[0][1].callback(3)
    failing.errback(CommandFailed("torn"))
    assert not running.called
    collector.sent[1][1].callback(3)
    with pytest.raises(CommandFailed, match="torn"):
        result_of(running)
    assert (work.result.accepted, work.result.unsent, work.result.is_complete) == (6, 0, False)


def test_broken_off() -> None:
    """What is under way counts as not accepted; what fails otherwise is raised."""
    collector = Collector()
    work = sending(collector, batches_of([3, 3]))
    running = defer.ensureDeferred(work.run(2))
    running.cancel()
    with pytest.raises(defer.CancelledError):
        result_of(running)
    assert (work.result.unsent, len(work.result.gaps)) == (6, 2)
    work = sending(Collector(), [], defer.fail(CommandFailed("no")))
    with pytest.raises(CommandFailed):
        result_of(defer.ensureDeferred(work.run(1)))
    waiting: defer.Deferred[Batch | None] = defer.Deferred()
    running = defer.ensureDeferred(sending(Collector(), [], waiting).run(1))
    running.cancel()
    with pytest.raises(defer.CancelledError):
        result_of(running)


def options_of(*argv: str) -> SendOptions:
    """The command's options."""
    options = SendOptions()
    options.parseOptions(argv)
    return options


def send(*argv: str) -> None:
    """The command, in a reactor of its own."""
    options = options_of(*argv)
    with own_reactor() as own:
        options.send(own)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Requests with the token, gzip'd, to the scope; 503 with Retry-After is heeded; the numbers at the end."""
    monkeypatch.chdir(tmp_path)
    Path("token").write_text("axt_secret\n")
    Path("f").write_bytes(b"\n".join(RECORD % n for n in range(150)))
    busy = [True]

    def say(_: str, path: str) -> tuple[int, Any]:
        if busy.pop() if busy else False:
            return 503, {"errorCode": "OVERLOADED", "reason": "later"}
        return 200, {"accepted": len(records_of(admin.asked[-1])), "rejected": 0}

    with serving(say) as admin:
        send(
            "a/b",
            "f",
            "--url",
            admin.url,
            "--token-file",
            "token",
            "--batch-records",
            "100",
            "--json",
            "--concurrency",
            "1",
        )
    assert json.loads(capsys.readouterr().out) == {
        "accepted": 150,
        "set_aside": 0,
        "refused": 0,
        "unsent": 0,
        "not_accepted": [],
        "refusals": [],
    }
    assert [asked[1] for asked in admin.asked] == ["/analytics/a%2Fb"] * 3
    assert {asked[2]["Authorization"] for asked in admin.asked} == {"Bearer axt_secret"}
    assert [len(records_of(asked)) for asked in admin.asked] == [100, 100, 50]


def records_of(asked: tuple[str, str, dict[str, str], bytes]) -> list[Any]:
    """The records of a request."""
    body = gzip.decompress(asked[3]) if "Content-Encoding" in asked[2] else asked[3]
    found: list[Any] = json.loads(body)["records"]
    return found


def test_what_the_command_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Each refused line with its reason, not too many of them; what is not accepted for another reason; and 1."""
    monkeypatch.chdir(tmp_path)
    Path("f").write_bytes(b"{}\nx\n" * 30)
    bad = 400, {"errorCode": "BAD_DATA", "reason": "bad (record 0)"}
    with serving(lambda *_: bad) as admin, pytest.raises(CommandFailed, match="60 records were refused, see above"):
        send("s", "f", "--url", admin.url, "--batch-records", "1")
    out, err = capsys.readouterr()
    assert out == "accepted 0\nset aside 0\nrefused 60\nunsent 0\n"
    assert "line 1: BAD_DATA: bad\n" in err
    assert "line 2: BAD_DATA: it is no JSON object, and was not sent\n" in err
    assert "and 40 more were refused; --json names more\n" in err
    no = 403, {"errorCode": "FORBIDDEN", "reason": "no"}
    with serving(lambda *_: no) as admin, pytest.raises(CommandFailed, match=r"takes no more: FORBIDDEN: no$"):
        send("s", "f", "--url", admin.url, "--batch-records", "10", "--concurrency", "1")
    assert "not accepted: line 1 to line 19\nnot accepted: all behind line 19\n" in capsys.readouterr().err
    with pytest.raises(CommandFailed, match=r"takes no more: UNREACHABLE: .*; try the rest again later$"):
        send("s", "f", "--url", "http://127.0.0.1:1", "--retry-seconds", "1", "--concurrency", "1")
    assert "not accepted: line 1 to line 59\n" in capsys.readouterr().err


def test_ctrl_c_while_a_pipe_is_read(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """It ends at once, though nobody writes; what is not accepted is told."""
    reading, writing = os.pipe()
    standard = os.dup(0)
    os.dup2(reading, 0)
    try:
        os.write(writing, b'{"a":')
        with own_reactor() as own:
            own.callLater(0.05, own.stop)
            with pytest.raises(Interrupted):
                options_of("s", "--url", "http://127.0.0.1:1").send(own)
            os.close(writing)
    finally:
        os.dup2(standard, 0)
        os.close(standard)
        os.close(reading)
    assert capsys.readouterr().err.endswith("not accepted: all\n")


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def test_the_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file it is known how long it is."""
    (tmp_path / "f").write_bytes(b"{}\n" * 20)
    err = Terminal()
    monkeypatch.setattr("sys.stderr", err)
    with serving(lambda *_: (200, {"accepted": 5, "rejected": 0})) as admin:
        send("s", str(tmp_path / "f"), "--url", admin.url, "--batch-records", "5")
    assert "60 of 60 bytes" in err.getvalue()


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["s", "--concurrency", "0"], "--concurrency: '0' is not allowed; allowed is 1 to 256"),
        (["s", "f", "--url", "ftp://x"], "--url: 'ftp://x' is not allowed; allowed is a URL such as"),
        (["s", "f", "--config", "unix.yaml"], "the configuration does not tell where the collector can be asked"),
        (["s", "f", "--token-file", "f"], "f does not hold a token"),
        (["s", "none"], "none cannot be read: No such file"),
        ([], "missing: SCOPE"),
    ],
)
def test_called_wrongly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], complaint: str) -> None:
    """One line says what to do."""
    monkeypatch.chdir(tmp_path)
    Path("f").write_text("a b\n")
    Path("unix.yaml").write_text("listen: unix:s\n")
    with pytest.raises((CommandFailed, TransferFailed, UsageError)) as raised:
        send(*argv)
    assert complaint in str(raised.value)


@pytest_twisted.ensureDeferred
async def test_to_the_real_service(tmp_path: Path) -> None:
    """What is accepted is delivered, once, and what is refused is named by the command's own process."""
    running = await Running(tmp_path / "data").start()
    scope = await running.scope("acme", "prod")
    lines = [RECORD % n for n in range(1000)]
    lines[123] = b'{"no":"start"}'
    content = gzip.compress(b"\n".join(lines))
    script = "from axcollector.cli import main; main()"
    command = [
        sys.executable,
        "-c",
        script,
        "send",
        scope,
        "-",
        "--url",
        running.url,
        "--json",
        "--batch-records",
        "90",
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = await deferToThread(
        lambda: subprocess.run(command, input=content, capture_output=True, env=environment, check=False)
    )
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert (found["accepted"], found["refused"], found["not_accepted"]) == (999, 1, [])
    assert found["refusals"] == [
        {
            "place": "line 124",
            "code": "MISSING_FIELD",
            "reason": "Missing Required field: client_received_start_timestamp",
        }
    ]
    await until(lambda: running.stored() >= 999)
    starts = [json.loads(line)["client_received_start_timestamp"] for line in running.delivered()["acme~prod"]]
    assert sorted(starts) == [n for n in range(1000) if n != 123]
    await running.stop()
