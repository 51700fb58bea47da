"""`axcollector retry` and `drain`: of a stopped collector in its place, of a running one by its admin port."""

import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_twisted
from twisted.internet import defer, reactor
from twisted.internet.threads import deferToThread
from twisted.web.server import Site

from axcollector import stopped
from axcollector.cli.admin_client import AdminClient
from axcollector.cli.drain import DrainOptions
from axcollector.cli.drain_live import SETTLED_SECONDS, LiveDrain
from axcollector.cli.interrupts import Interrupted
from axcollector.cli.progress import Progress
from axcollector.cli.status_table import table
from axcollector.config import Config
from axcollector.core.errors import CommandFailed, DirectoryInUse, UnsafeDirectory, UploadFailed
from axcollector.core.layout import Stage
from axcollector.core.status import DeliveryStatus, FailedBucket, Histogram, Paused, StageStatus, Status
from axcollector.disk import Disk
from axcollector.emptying import Emptying, Moment, Outcome
from axcollector.inventory import Inventory
from axcollector.locks import Lock
from tests.commands import run
from tests.errands import own_reactor
from tests.fake_stores import MemoryStore
from tests.running import Running, delivered_below, until
from tests.test_cli_stages import BUCKET, LINES, NAME, OTHER, REFERENCE, START, framed, make
from tests.test_cli_status import serving, status_of
from tests.test_transicator_service import Servers, config_of

Capture = pytest.CaptureFixture[str]
ACME = b'{"id":1}\n{"id":3}\n{"id":\r4}\n'


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data directory that the commands find without being told, of a collector that is stopped."""
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "axcollector-data" / "ax"
    for stage in Stage:
        (directory / stage).mkdir(parents=True)
    return directory


def failed(data: Path, *buckets: str) -> None:
    """Buckets in failed, each with a file."""
    for bucket in buckets:
        make(data / "failed" / bucket).joinpath("x.txt.gz").write_bytes(gzip.compress(b"{}\n"))


def names(directory: Path) -> list[str]:
    """What lies in a directory."""
    return sorted(os.listdir(directory))


def test_retry_of_a_stopped_collector(data: Path, capsys: Capture) -> None:
    """One bucket, or all, go to staging; what is there already is added to."""
    failed(data, BUCKET, f"b~c~{START}", f"c~d~{START}")
    make(data / "staging" / f"b~c~{START}").joinpath("y.txt.gz").write_bytes(b"y")
    assert run("retry", BUCKET) == 0
    assert capsys.readouterr().out == "1 bucket goes back to staging; it is delivered when the collector is started\n"
    assert (names(data / "staging"), len(names(data / "failed"))) == ([BUCKET, f"b~c~{START}"], 2)
    assert run("retry", "--all", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"retried": 2, "live": False}
    assert names(data / "failed") == []
    assert names(data / "staging" / f"b~c~{START}") == ["x.txt.gz", "y.txt.gz"]
    failed(data, BUCKET, f"b~c~{START}")
    assert run("retry", "--all") == 0
    assert capsys.readouterr().out == "2 buckets go back to staging; they are delivered when the collector is started\n"
    assert (run("retry", "--all"), capsys.readouterr().out) == (0, "nothing is in failed\n")


@pytest.mark.parametrize(
    ("argv", "status", "complaint"),
    [
        (["retry"], 2, "name one of BUCKET (as `axcollector ls failed` shows it) and --all"),
        (["retry", BUCKET, "--all"], 2, "name one of BUCKET"),
        (["retry", BUCKET], 1, f"there is no '{BUCKET}' in failed; see `axcollector ls failed`"),
        (["retry", "../staging"], 1, "there is no '../staging' in failed"),
        (["retry", f"x/{BUCKET}"], 1, "in failed"),
        (["retry", "--all", "-l", "elsewhere"], 1, "there is no data in "),
        (["drain", "-l", "elsewhere"], 1, "there is no data in "),
        (["drain", "--patience", "0"], 2, "--patience: '0' is not allowed; allowed are seconds"),
        (["drain", "--url", "http://127.0.0.1:1"], 1, "no collector answers"),
    ],
)
def test_called_wrongly(data: Path, capsys: Capture, argv: list[str], status: int, complaint: str) -> None:
    """One line says what to do."""
    assert run(*argv) == status
    err = capsys.readouterr().err
    assert complaint in err
    assert err.count("\n") == 1


def test_retry_of_a_running_collector(data: Path, capsys: Capture) -> None:
    """Whoever holds the data directory is asked at his admin port, which the configuration names."""
    lock = Lock(str(data.parent / "lock"))
    lock.acquire()
    failed(data, BUCKET)

    def say(_: str, path: str) -> tuple[int, Any]:
        return (404, {"errorCode": "NOT_FOUND", "reason": "no such bucket"}) if gone else (200, {"retried": 1})

    gone = False
    with serving(say) as admin:
        Path("c.yaml").write_text(f"admin_listen: tcp:{admin.url.rpartition(':')[2]}:interface=127.0.0.1\n")
        assert run("retry", "--all", "--config", "c.yaml") == 0
        assert capsys.readouterr().out == "1 bucket goes back to staging; it is tried again now\n"
        assert run("retry", BUCKET, "--url", admin.url, "--json") == 0
        assert json.loads(capsys.readouterr().out) == {"retried": 1, "live": True}
        gone = True
        assert run("retry", BUCKET, "--config", "c.yaml") == 1
        assert "no such bucket; see `axcollector ls failed`" in capsys.readouterr().err
        assert run("retry", "--all", "--config", "c.yaml") == 1
    assert [(path, header["X-Axcollector"], json.loads(body)) for _, path, header, body in admin.asked[:2]] == [
        ("/retry", "retry", {"all": True}),
        ("/retry", "retry", {"bucket": BUCKET}),
    ]
    assert names(data / "failed") == [BUCKET]
    lock.release()


class InTheWay(Disk):
    """A disk that renames nothing."""

    def rename(self, source: str, target: str) -> None:
        raise OSError(5, "Input/output error", source)


def test_the_place_of_a_stopped_collector(data: Path) -> None:
    """It is held by one at a time, and by nobody but its user; what cannot be moved is told."""
    root = str(data.parent)
    with stopped.possession(root), pytest.raises(DirectoryInUse), stopped.possession(root):
        pass
    with stopped.possession(root):
        pass
    failed(data, BUCKET)
    with pytest.raises(OSError, match="it cannot be moved to staging"):
        stopped.return_failed(InTheWay(), str(data))
    (data / "failed" / BUCKET / "x.txt.gz").unlink()
    (data / "failed" / BUCKET).rmdir()
    (data / "failed").rmdir()
    assert stopped.return_failed(Disk(), str(data)) == 0
    if os.geteuid() == 0:
        os.chown(root, 12345, -1)
        with pytest.raises(UnsafeDirectory, match="belongs to user 12345, whose collector could not read what you"):
            stopped.check_owner(root)
        os.chown(root, 0, -1)


async def emptied(
    data: Path, store: MemoryStore, patience: float = 30, **settings: Any
) -> tuple[Outcome, list[Moment]]:
    """A data directory, emptied into a store."""
    config = Config(local_storage_path=str(data.parent), upload_interval=0.05, **settings)
    moments: list[Moment] = []
    outcome = await Emptying(reactor, config, Disk(), patience, moments.append, store).run()
    return outcome, moments


def fill(data: Path) -> None:
    """A journal of the last run, a directory of the reference's, a bucket in staging, and one in failed."""
    (data / "tmp" / NAME.journal).write_bytes(b"".join(framed()))
    make(data / "recovered" / f"ref~prod~{START}~recoveredTS~{START}.000").joinpath(REFERENCE).write_bytes(
        gzip.compress(b'{"id":5}\n')
    )
    make(data / "staging" / f"late~prod~{START}").joinpath("y.txt.gz").write_bytes(gzip.compress(b"{}\n"))
    failed(data, BUCKET)


@pytest_twisted.ensureDeferred
async def test_emptying(data: Path) -> None:
    """Whatever a run left, in whatever stage, is delivered, once; the place is given back; the bar knows the end."""
    fill(data)
    store = MemoryStore()
    outcome, moments = await emptied(data, store)
    assert sorted((tenant, gzip.decompress(content)) for (tenant, _), content in store.objects.items()) == [
        ("acme~prod", ACME),
        ("acme~prod", b"{}\n"),
        ("late~prod", b"{}\n"),
        ("ref~prod", b'{"id":5}\n'),
        ("zoo~a%7Eb", LINES[1][1]),
    ]
    assert outcome.left == []
    assert outcome.moment.delivered_files == 5
    assert outcome.moment.delivered_bytes == outcome.moment.total_bytes == sum(map(len, store.objects.values()))
    assert moments[0].total_bytes == moments[-1].total_bytes
    assert store.is_closed
    with stopped.possession(str(data.parent)):
        pass


@pytest_twisted.ensureDeferred
async def test_emptying_what_is_refused(data: Path) -> None:
    """A bucket that the store refuses ends in failed; the others are delivered; what is unreadable is told."""
    fill(data)
    (data / "tmp" / OTHER.journal).write_bytes(b"no frame")
    store = MemoryStore()
    store.refuse = lambda tenant, _: UploadFailed("no") if tenant == "late~prod" else None
    outcome, _ = await emptied(data, store, max_upload_attempts=1, failed_retry_batch=1)
    assert len(store.objects) == 4
    assert [(item.stage, item.kind) for item in outcome.left] == [("recovered", "unreadable"), ("failed", "bucket")]


@pytest_twisted.ensureDeferred
async def test_emptying_without_a_store(data: Path) -> None:
    """Where nobody takes anything it is given up, and who was waited for is told."""
    fill(data)
    store = MemoryStore()
    store.up = False
    outcome, _ = await emptied(data, store, patience=0.2)
    assert [pause.reason for pause in outcome.moment.paused] == ["it is down"]
    assert len([item for item in outcome.left if item.awaits_delivery]) == 4
    assert store.objects == {}


@pytest_twisted.ensureDeferred
async def test_emptying_that_is_broken_off(data: Path) -> None:
    """Uploads are broken off, the place is given back, and everything is there for the next time."""
    fill(data)
    store = MemoryStore()
    store.is_slow = True
    running = defer.ensureDeferred(emptied(data, store))
    begun: defer.Deferred[None] = defer.Deferred()

    def look() -> None:
        begun.callback(None) if store.waiting else reactor.callLater(0.01, look)

    look()
    await begun
    running.cancel()
    with pytest.raises(defer.CancelledError):
        await running
    assert (store.waiting, store.is_closed) == ([], True)
    outcome, _ = await emptied(data, MemoryStore())
    assert (outcome.left, outcome.moment.delivered_files) == ([], 5)


@pytest_twisted.ensureDeferred
async def test_emptying_a_place_that_is_taken(data: Path) -> None:
    """Nothing is touched."""
    fill(data)
    with stopped.possession(str(data.parent)), pytest.raises(DirectoryInUse):
        await emptied(data, MemoryStore())
    assert names(data / "failed") == [BUCKET]


@pytest_twisted.ensureDeferred
async def test_emptying_with_the_token_of_the_sync_servers(data: Path) -> None:
    """Where the signing service wants the token that the sync servers give, that is asked for, and nothing else."""
    servers = Servers()
    sync, signer = servers.listen(Site(servers.sync.resource)), servers.listen(servers.signer.site())
    make(data / "staging" / BUCKET).joinpath("y.txt.gz").write_bytes(gzip.compress(b"{}\n"))
    config = config_of(data.parent, sync, signer)
    outcome = await Emptying(reactor, config, Disk(), 30, lambda _: None).run()
    assert (outcome.left, len(servers.signer.objects)) == ([], 1)
    assert {asked.what for asked in servers.sync.asked} == {"token"}
    await servers.close()


def drain(*argv: str) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own."""
    command = [sys.executable, "-c", "from axcollector.cli import main; main()", "drain", *argv]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_drain_of_a_stopped_collector(data: Path) -> None:
    """0 and the numbers when all is delivered, progress on stderr; 1, and what is left, when not."""
    fill(data)
    make(data / "quarantine" / BUCKET).joinpath("q.txt.gz").write_bytes(b"q")
    done = drain("--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    bytes_delivered = found.pop("delivered_bytes")
    assert found == {"complete": True, "live": False, "delivered_files": 5, "left": {"quarantine": 1}, "problems": []}
    assert f"delivered   {bytes_delivered:,} of {bytes_delivered:,} bytes" in done.stderr
    assert "Invalid records are in quarantine, and are not delivered: see `axcollector quarantine`.\n" in done.stderr
    assert sum(map(len, delivered_below(data.parent / "store").values())) == 8  # one has a carriage return in it


def test_drain_that_cannot(data: Path, capsys: Capture) -> None:
    """What is refused is told while it happens; what is left, and where, at the end; Ctrl-C is 130."""
    fill(data)
    (data / "tmp" / OTHER.journal).write_bytes(b"no frame")
    (data.parent / "nowhere").write_text("")
    Path("c.yaml").write_text(f"store: file:{data.parent}/nowhere/store\nmax_upload_attempts: 1\n")
    options = DrainOptions()
    options.parseOptions(["--config", "c.yaml"])
    with (
        own_reactor() as own,
        pytest.raises(CommandFailed, match="not all is delivered: 1 in unreadable, 4 in failed; look at"),
    ):
        options.drain(own)
    out, err = capsys.readouterr()
    assert out == "delivered 0 files, 0 bytes\n"
    assert "was not delivered: " in err
    assert err.count("moved to failed after 1 attempts") == 4
    with own_reactor() as own:
        own.callLater(0, own.stop)
        with pytest.raises(Interrupted):
            options.drain(own)


class Clock:
    """Time that passes when somebody waits, and what happens meanwhile."""

    def __init__(self, statuses: list[Status]) -> None:
        self.now = 0.0
        self.statuses = statuses

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def say(self, method: str, path: str) -> tuple[int, Any]:
        if method == "POST":
            return (202, {"draining": True}) if path == "/drain" else (200, {"retried": 1})
        return 200, self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]


def live(stages: dict[str, int], delivered: int = 0, accepted: int = 1234, **delivery: Any) -> Status:
    """A status with so many buckets, of 1000 bytes each, in the stages."""
    return status_of(
        stages=[StageStatus(name=name, buckets=count, bytes=1000 * count) for name, count in stages.items()],
        delivery=DeliveryStatus(
            delivered_files=delivered, delivered_bytes=delivered * 1000, upload_seconds=Histogram((), (0,)), **delivery
        ),
        ingest=msgspec.structs.replace(status_of().ingest, accepted_records=accepted),
    )


def drained(statuses: list[Status], patience: float = 60) -> tuple[Any, str, list[str]]:
    """How draining a collector that says this ends; what was shown; what was asked."""
    clock, err = Clock(statuses), io.StringIO()
    with serving(clock.say) as admin:
        progress = Progress(err, "delivered", None, "bytes", lambda: clock.now)
        result = LiveDrain(AdminClient(admin.url), patience, lambda: clock.now, clock.wait, progress).run()
    return result, err.getvalue(), [f"{method} {path}" for method, path, *_ in admin.asked]


def test_drain_of_a_running_collector() -> None:
    """It is asked to try what has failed and to drain, and watched until nothing is left but what is in quarantine."""
    result, shown, asked = drained(
        [
            live({"tmp": 1, "staging": 2, "failed": 1, "quarantine": 3}, 5),
            live({"tmp": 1, "staging": 2, "failed": 1, "quarantine": 3}, 5),
            live({"tmp": 0, "staging": 3, "failed": 0, "quarantine": 3}, 6, accepted=1235),
            live({"tmp": 0, "staging": 0, "failed": 0, "quarantine": 3}, 9, accepted=1236),
        ]
    )
    assert (result.is_live, result.delivered_files, result.delivered_bytes) == (True, 4, 4000)
    assert (result.left, result.problems) == ({"quarantine": 3}, [])
    assert asked == ["GET /status", "POST /retry", "POST /drain", *["GET /status"] * (2 + int(SETTLED_SECONDS))]
    assert shown.count("records are still coming in: take this collector out of the load balancer") == 1
    assert "delivered   4,000 of 4,000 bytes  2,000/s\n" in shown


def test_drain_of_a_running_collector_that_cannot() -> None:
    """When nothing has happened for long it is given up; uploads under way are something; why is told."""
    stuck = live(
        {"staging": 2, "failed": 1}, 0, paused=[Paused("signer", "down", 0.0)], failed=[FailedBucket("b", 1, "no")]
    )
    busy = live({"staging": 2, "failed": 1}, 0, under_way=1)
    result, _, asked = drained([stuck, stuck, busy, busy, stuck], 3)
    assert (result.left, result.delivered_files) == ({"staging": 2, "failed": 1}, 0)
    assert result.problems == ["signer is paused: down", "b: no"]
    assert asked.count("GET /status") == 1 + 3 + 3


def test_drain_asks_whoever_runs(data: Path, capsys: Capture) -> None:
    """Where the place is taken, the configuration's admin port is asked; 1 where not all is delivered."""
    lock = Lock(str(data.parent / "lock"))
    lock.acquire()
    clock = Clock([live({"staging": 2}, 3)])
    with serving(clock.say) as admin:
        Path("c.yaml").write_text(f"admin_listen: tcp:{admin.url.rpartition(':')[2]}:interface=127.0.0.1\n")
        assert run("drain", "--config", "c.yaml", "--patience", "1", "--json") == 1
        out, err = capsys.readouterr()
        assert json.loads(out)["left"] == {"staging": 2}
        assert "not all is delivered: 2 in staging; what is left stays where it is" in err
    lock.release()


@pytest_twisted.ensureDeferred
async def test_against_the_real_service(tmp_path: Path) -> None:
    """Its status is shown; a failed bucket is tried again, and what lies in an open journal delivered, when asked."""
    running = await Running(tmp_path / "data", collection_interval=3600, admin_token="secret").start()
    scope = await running.scope("acme", "prod")
    await running.send(scope, ['{"client_received_start_timestamp":1,"id":1}'])
    failed(running.root / "ax", BUCKET)
    client = AdminClient(running.admin, "secret")
    text = table(await deferToThread(client.get, "/status", Status))
    assert "ready\n" in text
    assert "accepted      1 records\n" in text
    inventory = Inventory(Disk(), str(running.root / "ax"))
    assert ("tmp", "journal") in [(item.stage, item.kind) for item in inventory.items()]
    now = [0.0]

    def wait(seconds: float) -> None:
        now[0] += seconds

    progress = Progress(io.StringIO(), "delivered", None, "bytes", lambda: now[0])
    drained = await deferToThread(LiveDrain(client, 1e9, lambda: now[0], wait, progress).run)
    await until(lambda: running.stored() == 2)
    assert (drained.left, drained.problems) == ({}, [])
    await running.stop()
