"""The disk spool of a client: what no collector takes now is durable, and is sent later, in order, at least once."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import defer, reactor
from twisted.logger import LogEvent

from axcollector.api import Client
from axcollector.client_journals import Quota, SentJournals
from axcollector.client_spool import ClientSpool
from axcollector.core.errors import DirectoryInUse, Overloaded, RateLimited, Rejected, SpoolFailed, Unreachable
from axcollector.disk import AppendFile, Disk
from tests.conftest import LoggedFailures
from tests.running import Running, until
from tests.test_buffer import FakeTarget
from tests.test_collector import Reactor

AWAY = Unreachable("away")


class Bench:
    """A spool in a directory, with a time that passes when it is told to."""

    def __init__(self, root: Path, target: FakeTarget | None = None, limit_bytes: int = 1 << 20) -> None:
        self.root = root
        self.target = target or FakeTarget()
        self.reactor = Reactor()
        self.spool = ClientSpool(self.reactor, str(root), limit_bytes, self.target, lambda: 0.0)
        self.spool.startService()

    def submit(self, scope: str, *records: bytes) -> int:
        """Submit, and wait."""
        count = self.reactor.wait(defer.ensureDeferred(self.spool.submit(scope, records)))
        assert isinstance(count, int)
        return count

    def drain(self) -> None:
        """Wait until nothing lies there."""

        def is_done() -> bool:
            self.reactor.advance(2)
            return not self.spool.holds

        self.reactor.turn_until(is_done)

    def stop(self) -> None:
        self.reactor.wait(self.spool.stopService())
        assert self.reactor.getDelayedCalls() == []

    def files(self) -> list[str]:
        """The names of all files with records."""
        return sorted(path.suffix for path in self.root.rglob("*.j*"))


def numbered(numbers: Sequence[int]) -> list[bytes]:
    """Records of these numbers."""
    return [b'{"n":%d}' % number for number in numbers]


def test_only_what_is_not_taken_is_kept(tmp_path: Path) -> None:
    """While a collector takes records nothing is written; then everything is, and sent, and nothing is again."""
    bench = Bench(tmp_path)
    assert bench.submit("a", b'{"n":0}') == 1
    assert bench.files() == []
    bench.target.failing[""] = AWAY
    assert bench.submit("a", b'{"n":1}', b'{\n"n":2}') == 2
    assert bench.submit("b/~", b'{"n":9}') == 1
    assert bench.spool.holds
    assert set(bench.files()) == {".journal"}
    bench.target.failing.clear()
    assert bench.submit("a", b'{"n":3}') == 1
    bench.drain()
    assert bench.target.taken == {"a": [b'{"n":0}', b'{"n":1}', b'{ "n":2}', b'{"n":3}'], "b/~": [b'{"n":9}']}
    assert bench.files() == []
    state = bench.spool.state
    assert (state.bytes, state.accepted, state.refused) == (0, 4, 0)
    assert bench.submit("a", b'{"n":4}') == 1
    assert len(bench.target.taken["a"]) == 5
    bench.stop()


def test_what_is_final_is_not_kept(tmp_path: Path) -> None:
    """Who submits hears of what is his to mend, as long as somebody is there to say so."""
    bench = Bench(tmp_path)
    for problem in (Rejected("BAD_DATA", "x"), RateLimited("x", 1)):
        bench.target.failing[""] = problem
        with pytest.raises(type(problem)):
            bench.submit("a", b"{}")
    with pytest.raises(Rejected, match="No tenant"):
        bench.submit("x" * 300, b"{}")
    assert not bench.spool.holds
    bench.stop()


def test_any_order_of_troubles(tmp_path: Path) -> None:
    """Whatever comes and goes, also the process, each scope's records arrive in order; and, but for kills, once."""
    chance = random.Random(3)
    troubles: list[dict[str, Exception]]
    target = FakeTarget()
    given: dict[str, list[bytes]] = {"a": [], "b": []}
    bench = Bench(tmp_path / "0", target)
    for step in range(120):
        scope = chance.choice("ab")
        texts = numbered(range(step * 3, step * 3 + chance.randrange(1, 4)))
        bench.submit(scope, *texts)
        given[scope] += texts
        troubles = [{}, {"": AWAY}, {"a": Overloaded("x", 1)}]
        if bench.spool.holds:  # else who submits would be told of this one, and nothing be kept
            troubles.append({"": Rejected("UNAUTHORIZED", "a token is needed")})
        target.failing = chance.choice(troubles)
        bench.reactor.advance(chance.random())
        if step % 20 == 19:
            bench.stop()
            shutil.move(bench.root, tmp_path / str(step))
            bench = Bench(tmp_path / str(step), target)
    target.failing.clear()
    bench.drain()
    bench.stop()
    assert target.taken == given


def test_killed(tmp_path: Path) -> None:
    """What a process that is killed leaves is sent by the next; only what was not noted yet comes twice."""
    target = FakeTarget()
    bench = Bench(tmp_path / "first", target)
    target.failing[""] = AWAY
    submitting = [defer.ensureDeferred(bench.spool.submit(scope, numbered(range(3)))) for scope in "ab"]
    bench.reactor.advance(1)  # so long the first write takes: the second follows at once, into the same journal
    assert bench.reactor.wait(defer.gatherResults(submitting)) == [3, 3]  # in one journal
    target.failing = {"a": AWAY}
    bench.reactor.turn_until(lambda: len(target.taken.get("b", [])) == 3)
    bench.reactor.turn_until(lambda: notes_in(bench.root) == 1)
    shutil.copytree(bench.root, tmp_path / "second")
    shutil.copytree(bench.root, tmp_path / "third")
    for path in (tmp_path / "third").rglob("*.sent"):
        path.write_bytes(bytes(path.stat().st_size))  # a power loss: zeros where the notes were
    target.failing.clear()
    for name, expected in (("second", numbered(range(3))), ("third", numbered(range(3)) * 2)):
        target.taken = {"b": numbered(range(3))}
        after = Bench(tmp_path / name, target)
        after.drain()
        assert target.taken == {"a": numbered(range(3)), "b": expected}
        assert after.files() == []
        after.stop()
    bench.stop()


def notes_in(root: Path) -> int:
    """How many frames are noted as sent."""
    return sum(path.stat().st_size for path in root.rglob("*.sent")) // 8


def test_refused_records_are_set_aside(tmp_path: Path, logged_failures: LoggedFailures) -> None:
    """Nobody waits for the answer any more: they lie in a file, with the reason; the others are taken."""
    target = FakeTarget()
    bench = Bench(tmp_path, target)
    target.failing[""] = AWAY
    bench.submit("a", b'{"n":1}', b'{"bad":2}', b"\xff nameless", b'{"n":3}')
    bench.submit("gone", b'{"n":4}')
    bench.submit("buggy", b'{"n":5}')
    target.failing = {"gone": Rejected("UNKNOWN_SCOPE", "No tenant"), "buggy": ZeroDivisionError("x")}
    bench.drain()
    assert target.taken == {"a": [b'{"n":1}', b'{"n":3}']}
    lines = [json.loads(line) for path in tmp_path.glob("refused/*") for line in path.read_text().splitlines()]
    assert sorted((line["scope"], line["code"], line["record"]) for line in lines) == [
        ("a", "BAD_DATA", r"\xff nameless"),
        ("a", "MISSING_FIELD", '{"bad":2}'),
        ("buggy", "FAILED", '{"n":5}'),
        ("gone", "UNKNOWN_SCOPE", '{"n":4}'),
    ]
    assert (bench.spool.state.refused, bench.spool.state.bytes > 0) == (4, True)
    bench.stop()
    again = Bench(tmp_path, target)
    assert again.spool.state.bytes > 0
    again.stop()
    logged_failures.take(ZeroDivisionError)
    logged_failures.take(Exception)


def test_a_full_disk_is_emptied(tmp_path: Path) -> None:
    """Where it cannot be noted what was sent, each record is sent once all the same, while the process lives."""
    bench = Bench(tmp_path)
    bench.target.failing[""] = AWAY
    bench.submit("a", *numbered(range(3)))
    bench.reactor.turn_until(lambda: list(tmp_path.rglob("*.sent")) != [])
    bench.stop()
    (notes,) = tmp_path.rglob("*.sent")
    notes.unlink()
    notes.with_suffix(".sent.new").mkdir()  # so it can be neither removed nor written
    bench = Bench(tmp_path)
    bench.submit("b", b'{"n":3}')
    bench.drain()
    assert bench.target.taken == {"a": numbered(range(3)), "b": [b'{"n":3}']}
    assert bench.files() == []
    bench.stop()


class DiskThatFills(Disk):
    """A disk of which somebody may take all the room."""

    is_full = False

    def create(self, path: str) -> AppendFile:
        file = super().create(path)
        disk = self

        class Checked(AppendFile):
            def write(self, data: bytes | memoryview) -> None:
                if disk.is_full:
                    raise OSError(errno.ENOSPC, "No space left on device")
                file.write(data)

            def close(self) -> None:
                file.close()

        return Checked(path, -1)


def test_notes_end_where_the_disk_is_full(tmp_path: Path) -> None:
    """What was sent before is noted on disk, what is sent then is remembered, and not sent again in this life."""
    bench = Bench(tmp_path)
    bench.target.failing[""] = AWAY
    submitting = [defer.ensureDeferred(bench.spool.submit(scope, numbered(range(3)))) for scope in "ab"]
    bench.reactor.advance(1)  # so long the first write takes: the second follows at once, into the same journal
    bench.reactor.wait(defer.gatherResults(submitting))
    bench.stop()
    disk = DiskThatFills()
    directory = str(tmp_path / "batches" / "tmp")

    def reader() -> SentJournals:
        journals = SentJournals(disk, directory, str(tmp_path), Quota(disk, directory, 1 << 20))
        journals.prepare()
        return journals

    identity = next(tmp_path.rglob("*.journal")).stem
    journals = reader()
    (first, second), damaged = journals.open(identity)
    assert damaged == 0
    journals.finish(identity, first, ())
    disk.is_full = True
    journals.finish(identity, second, ())
    assert journals.open(identity) == ([], 0)
    journals.close()
    disk.is_full = False
    killed = reader()
    assert killed.open(identity)[0] == [second]
    killed.remove(identity)
    assert bench.files() == []


def test_refused_records_that_cannot_be_kept(tmp_path: Path) -> None:
    """They stay where they are until they can be; what was taken beside them is not sent again."""
    target = FakeTarget()
    bench = Bench(tmp_path, target)
    target.failing[""] = AWAY
    bench.submit("a", b'{"n":1}', b'{"bad":2}')
    (tmp_path / "refused").rmdir()
    target.failing.clear()
    bench.reactor.turn_until(lambda: bench.reactor.advance(2) or bench.spool.state.refused == 1)
    for _ in range(5):
        bench.reactor.advance(5)
        bench.reactor.wait(bench.spool._reading_thread.run(int))
    assert (bench.spool.holds, target.taken) == (True, {"a": [b'{"n":1}']})
    (tmp_path / "refused").mkdir()
    bench.drain()
    assert target.taken == {"a": [b'{"n":1}']}
    assert [path.suffix for path in tmp_path.glob("refused/*")] == [".jsonl"]
    bench.stop()


def test_a_journal_that_is_removed(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """It is told, and holds up nothing."""
    bench = Bench(tmp_path)
    bench.target.failing[""] = AWAY
    bench.submit("a", b'{"n":1}')
    bench.reactor.turn_until(lambda: bench.target.asked >= 2)  # the first journal has been read
    bench.submit("a", b'{"n":2}')
    max(tmp_path.rglob("*.journal")).unlink()
    bench.target.failing.clear()
    bench.drain()
    assert bench.target.taken == {"a": [b'{"n":1}']}
    assert [True for event in log_events if "somebody removed it" in (event["log_format"] or "")] == [True]
    bench.stop()


def test_a_damaged_journal(tmp_path: Path) -> None:
    """What is whole of it is sent, and then it is kept, as a part of what may lie there."""
    bench = Bench(tmp_path)
    bench.target.failing[""] = AWAY
    submitting = [defer.ensureDeferred(bench.spool.submit(scope, numbered(range(3)))) for scope in "ab"]
    bench.reactor.advance(1)  # so long the first write takes: the second follows at once, into the same journal
    bench.reactor.wait(defer.gatherResults(submitting))
    bench.stop()
    (journal,) = tmp_path.rglob("*.journal")
    content = bytearray(journal.read_bytes())
    content[len(content) // 4] ^= 0xFF
    journal.write_bytes(content)
    bench = Bench(tmp_path)
    bench.drain()
    assert sum(map(len, bench.target.taken.values())) == 3
    (kept,) = tmp_path.glob("unreadable/*.journal")
    assert (kept.read_bytes(), bench.spool.state.bytes) == (content, len(content))
    bench.stop()
    bench = Bench(tmp_path)
    assert (bench.spool.holds, bench.spool.state.bytes) == (False, len(content))
    bench.stop()


def test_it_is_bounded(tmp_path: Path) -> None:
    """When so much lies there, records are refused, until some has been sent."""
    bench = Bench(tmp_path, limit_bytes=3000)
    bench.target.failing[""] = AWAY
    text = json.dumps({"x": random.Random(1).randbytes(400).hex()}).encode()
    kept = [bench.submit("a", text) for _ in range(4)].count(1)
    with pytest.raises(SpoolFailed, match="spool is full"):
        bench.submit("a", json.dumps({"x": random.Random(2).randbytes(2000).hex()}).encode())
    assert bench.spool.state.bytes <= 3000
    bench.target.failing.clear()
    bench.drain()
    assert bench.submit("a", text) == 1
    assert bench.target.taken["a"] == [text] * (kept + 1)
    bench.stop()


def test_one_owner(tmp_path: Path) -> None:
    """Two clients do not share a directory."""
    bench = Bench(tmp_path)
    with pytest.raises(DirectoryInUse):
        Bench(tmp_path)
    bench.stop()
    Bench(tmp_path).stop()


def test_a_journal_that_cannot_be_read(tmp_path: Path) -> None:
    """It is tried again, and nothing overtakes it."""
    bench = Bench(tmp_path)
    bench.target.failing[""] = AWAY
    bench.submit("a", b'{"n":1}')
    bench.reactor.turn_until(lambda: bench.target.asked >= 2)
    bench.stop()
    (journal,) = tmp_path.rglob("*.journal")
    hidden = journal.with_suffix(".hidden")
    journal.rename(hidden)
    journal.symlink_to(tmp_path)  # which cannot be read as a file
    bench = Bench(tmp_path)
    bench.reactor.turn_until(lambda: bench.reactor.getDelayedCalls() != [])
    bench.stop()
    bench = Bench(tmp_path)
    bench.submit("a", b'{"n":2}')
    bench.reactor.advance(1)
    hidden.rename(journal)
    bench.drain()
    assert bench.target.taken["a"] == [b'{"n":1}', b'{"n":2}']
    bench.stop()


KILLED = """
import sys
from twisted.internet import reactor
from axcollector.api import Client

client = Client(reactor, "http://127.0.0.1:1", spool_directory=sys.argv[1])

async def work():
    number = 0
    while True:
        number += await client.submit(sys.argv[2], [{"client_received_start_timestamp": 1, "id": number}])
        print(number, flush=True)

from twisted.internet import defer
client.startService()
reactor.callWhenRunning(lambda: defer.ensureDeferred(work()))
reactor.run()
"""


@pytest.mark.slow
@pytest_twisted.ensureDeferred
async def test_a_client_that_is_killed(tmp_path: Path) -> None:
    """All that it was told is accepted reaches a collector, by way of the disk, when there is one again."""
    running = await Running(tmp_path / "data").start()
    scope = await running.scope("acme", "prod")
    command = [sys.executable, "-c", KILLED, str(tmp_path / "spool"), scope]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: ASYNC220 - it is quick
        assert process.stdout is not None
        for _ in range(20):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        accepted = 20 + len(process.stdout.read().splitlines())
    client = Client(reactor, running.url, spool_directory=str(tmp_path / "spool"), retry_seconds=0)
    assert client.spooled is not None
    client.startService()
    await until(lambda: client.spooled.accepted >= accepted and not client.spooled.bytes)
    await client.stopService()
    await until(lambda: running.stored() >= accepted)
    await running.stop()
    ids = [json.loads(line)["id"] for lines in running.delivered().values() for line in lines]
    assert set(range(accepted)) <= set(ids)
    assert ids == sorted(ids)
