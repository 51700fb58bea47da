"""The demo: its parts (the progress bar among them), a run of it in this process, and the command as users call it."""

import contextlib
import gzip
import io
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import defer, reactor
from twisted.internet.task import Clock
from twisted.web.resource import Resource
from twisted.web.server import Site

from axcollector.cli import main
from axcollector.cli.demo import DemoOptions, fresh_directory
from axcollector.cli.demo_records import TENANTS, Client, Posting, call, posting, postings
from axcollector.cli.demo_run import Demo, Plan, register, write_settings
from axcollector.cli.demo_sender import Sender
from axcollector.cli.demo_service import DemoFailed, ServiceProcess
from axcollector.cli.demo_store import Ledger
from axcollector.cli.errand import INTERRUPTED, Errand
from axcollector.cli.progress import Progress
from axcollector.config_file import load_config
from axcollector.core.errors import RegistryError
from axcollector.core.records import Rules, check
from axcollector.registry import Registry
from tests.errands import own_reactor
from tests.running import delivered_below, until

ROOT = Path(__file__).parent.parent
CLIENTS = [Client(*names, f"scope-{at}", ("key-1", "key-2")) for at, names in enumerate(TENANTS)]
NOW = 1_700_000_000.5


def made(count: int, seed: int = 1) -> list[Posting]:
    """Requests with so many records."""
    return list(postings(CLIENTS, count, random.Random(seed), NOW))


def test_the_records_are_made_of_a_seed() -> None:
    """The same seed makes the same bytes, every other request gzip, of 1 to 100 records, of all tenants."""
    requests = made(3000)
    assert requests == made(3000)
    assert requests != made(3000, seed=2)
    assert sum(len(each.flow_ids) for each in requests) == 3000
    assert {len(each.flow_ids) for each in requests} <= set(range(1, 101))
    assert [each.gzipped for each in requests] == [at % 2 == 1 for at in range(len(requests))]
    assert {each.client for each in requests} == set(CLIENTS)
    assert len({flow_id for each in requests for flow_id in each.flow_ids}) == 3000


def test_the_records_are_valid() -> None:
    """Each record passes the rules of the service, those on its age included, and its times are in order."""
    chance = random.Random(3)
    records = [call(chance, NOW, ["key-1"]) for _ in range(500)]
    texts = [json.dumps(record).encode() for record in records]
    assert len(check(texts, Rules(max_record_age_seconds=2, max_clock_skew_seconds=0.001), NOW).client_ids) >= 1
    for record in records:
        assert record["client_received_start_timestamp"] < record["client_received_end_timestamp"]
        assert record["client_sent_end_timestamp"] <= NOW * 1000
        assert ("target" in record) == (record["response_status_code"] != 304)


def deliver(root: Path, tenant: str, name: str, records: Sequence[dict[str, Any]]) -> None:
    """Put records into a `file:` store."""
    path = root / tenant / "date=2024-01-01" / "time=00-00-00" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(b"".join(json.dumps(record).encode() + b"\n" for record in records)))


def test_the_ledger_tells_what_is_missing(tmp_path: Path) -> None:
    """It counts what is delivered, and knows a second copy and a record in another tenant's file."""
    ledger = Ledger(str(tmp_path))
    mine, other = (
        posting(CLIENTS[at], [{"gateway_flow_id": f"{at}-{n}"} for n in range(3)], gzipped=False) for at in (0, 2)
    )
    for each in (mine, other):
        ledger.expect(each)
        ledger.acknowledge(each)
    assert (ledger.look(), ledger.complete, ledger.acknowledged) == (0, False, 6)
    deliver(tmp_path, "acme~prod", "one.txt.gz", [{"gateway_flow_id": "0-0"}])
    deliver(tmp_path, "acme~prod", "one.txt.gz.new", [{"gateway_flow_id": "0-1"}])
    assert (ledger.look(), ledger.strays, ledger.sample) == (1, 0, {"gateway_flow_id": "0-0"})
    assert ledger.missing_by_tenant() == {"acme~prod": 2, "globex~prod": 3}
    rich = {"gateway_flow_id": "0-1", "developer": "ada"}
    deliver(tmp_path, "acme~prod", "two.txt.gz", [rich, {"gateway_flow_id": "0-2"}])
    deliver(tmp_path, "globex~prod", "one.txt.gz", [{"gateway_flow_id": f"2-{n}"} for n in range(3)])
    assert (ledger.look(), ledger.complete, ledger.strays, ledger.sample) == (6, True, 0, rich)
    assert (ledger.files, ledger.records) == (
        {"acme~prod": 2, "globex~prod": 1},
        {"acme~prod": 3, "globex~prod": 3},
    )
    deliver(tmp_path, "globex~prod", "two.txt.gz", [{"gateway_flow_id": "2-0"}, {"gateway_flow_id": "0-0"}, {}])
    assert (ledger.look(), ledger.strays) == (6, 3)


class Terminal(io.TextIOWrapper):
    """A terminal of some encoding; what was written to it is in `text`."""

    def __init__(self, encoding: str) -> None:
        self._bytes = io.BytesIO()
        super().__init__(self._bytes, encoding=encoding)

    def isatty(self) -> bool:
        """It is one."""
        return True

    @property
    def text(self) -> str:
        """What was written."""
        return self._bytes.getvalue().decode(self.encoding)


def test_on_a_terminal_one_line_is_drawn_again() -> None:
    """The bar grows in its line, not oftener than can be read, and leaves the line when it is closed."""
    stream, clock = Terminal("utf-8"), Clock()
    with Progress(stream, "sent", 48, "records", clock.seconds) as progress:
        progress.advance(1)
        clock.advance(0.5)
        progress.advance(11)
        clock.advance(1.5)
        progress.reach(48)
    assert stream.text.replace("\x1b[K", "").split("\r") == [
        "",
        f"sent        {'░' * 24}  0 of 48 records",
        f"sent        {'█' * 6}{'░' * 18}  12 of 48 records  24/s",
        *[f"sent        {'█' * 24}  48 of 48 records  24/s"],
        *[f"sent        {'█' * 24}  48 of 48 records  24/s\n"],
    ]


def test_on_a_terminal_without_blocks() -> None:
    """Where the encoding has no blocks, ASCII does; the rate may be left out."""
    stream = Terminal("latin-1")
    progress = Progress(stream, "sent", 2, "records", Clock().seconds, with_rate=False)
    progress.reach(2)
    assert stream.text.endswith(f"\rsent        {'#' * 24}  2 of 2 records\x1b[K")


def test_elsewhere_a_line_a_quarter() -> None:
    """A log gets plain lines, at each quarter of the way at most."""
    stream, clock = io.StringIO(), Clock()
    with Progress(stream, "sent", 2000, "records", clock.seconds) as progress:
        for _ in range(200):
            clock.advance(0.01)
            progress.advance(10)
    assert stream.getvalue().splitlines() == [
        f"sent        {done} of 2,000 records  1,000/s" for done in ("500", "1,000", "1,500", "2,000")
    ]


def test_the_clock_stops_at_the_end() -> None:
    """The rate is that of the work, whatever comes after it."""
    clock = Clock()
    progress = Progress(io.StringIO(), "sent", 10, "records", clock.seconds)
    assert progress.rate == 0.0
    clock.advance(2)
    progress.reach(10)
    clock.advance(8)
    assert (progress.elapsed_seconds, progress.rate) == (2.0, 5.0)


def test_a_fresh_directory(tmp_path: Path) -> None:
    """Without a wish it is a new one under the current; one that is wished for may be there, and empty."""
    with contextlib.chdir(tmp_path):
        names = [fresh_directory(None) for _ in range(3)]
        wished = [fresh_directory("a/b"), fresh_directory("a/b")]
        with pytest.raises(FileExistsError, match=r"something in.*'a'"):
            fresh_directory("a")
    assert names == [str(tmp_path / name) for name in ("axcollector-demo", "axcollector-demo-2", "axcollector-demo-3")]
    assert wished == [str(tmp_path / "a" / "b")] * 2


def test_what_the_command_takes(capsys: pytest.CaptureFixture[str]) -> None:
    """A number of records is checked before anything is done, and the help has an example."""
    for wrong in ("0", "many", "-1", "100001", "1" * 5000):
        with pytest.raises(SystemExit) as ended:
            main(["demo", "--records", wrong])
        assert ended.value.code == 2
        assert "allowed is 1 to 100000" in capsys.readouterr().err
    options = DemoOptions()
    options.parseOptions(["-k", "-n", "7"])
    assert (options["keep-running"], options["records"], options["directory"]) == (1, "7", None)
    assert "Example: axcollector demo" in " ".join(str(options).split())


def test_what_is_registered(tmp_path: Path) -> None:
    """Every tenant has a scope, and keys of developers and of a company."""
    path = str(tmp_path / "data" / "registry.db")
    clients = register(path)
    assert [(each.organization, each.environment) for each in clients] == list(TENANTS)
    with Registry.open(path) as registry:
        tenant = registry.tenant_of_scope(clients[0].scope)
        assert tenant is not None
        known = registry.developers(tenant.id, clients[0].client_ids)
    assert [known[each].developer for each in clients[0].client_ids] == ["ada", "grace", "Umbrella Logistics"]


class Answers(Resource):
    """A collector that gives prepared answers, one after the other, and keeps what it was asked."""

    isLeaf = True  # noqa: N815 - Twisted's name

    def __init__(self, answers: Sequence[tuple[int, dict[str, str], bytes]]) -> None:
        super().__init__()
        self.answers = list(answers)
        self.asked: list[tuple[bytes, str | None, bytes]] = []

    def render_POST(self, request: Any) -> bytes:
        """The next answer."""
        self.asked.append((request.path, request.getHeader("content-encoding"), request.content.read()))
        status, headers, body = self.answers.pop(0)
        request.setResponseCode(status)
        for name, value in headers.items():
            request.setHeader(name, value)
        return body


@pytest_twisted.ensureDeferred
async def test_the_sender_tries_again_while_the_collector_is_busy() -> None:
    """503 means the same request again, when the answer says; nothing else does."""
    request = posting(CLIENTS[0], [{"gateway_flow_id": "1"}], gzipped=True)
    ok = (200, {}, b'{"accepted": 1, "rejected": 0}')
    cases: list[tuple[list[Any], int, str | None]] = [
        ([(503, {"Retry-After": "0"}, b"{}"), ok], 2, None),
        ([(400, {}, b'{"errorCode": "BAD_DATA"}')], 1, r"answered 400: .*BAD_DATA"),
        ([(200, {}, b'{"accepted": 2, "rejected": 0}')], 1, r"acknowledged something else"),
    ]
    for answers, times, problem in cases:
        site = Answers(answers)
        port = reactor.listenTCP(0, Site(site, reactor=reactor), interface="127.0.0.1")
        sender = Sender(reactor, f"http://127.0.0.1:{port.getHost().port}/analytics")
        with pytest.raises(DemoFailed, match=problem) if problem else contextlib.nullcontext():
            await sender.send(request)
        assert site.asked == [(b"/analytics/scope-0", "gzip", request.body)] * times
        await sender.close()
        await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_the_sender_gives_up_on_a_collector_that_is_not_there() -> None:
    """A refused connection ends the sending, that of the other connections too."""
    port = reactor.listenTCP(0, Site(Resource(), reactor=reactor), interface="127.0.0.1")
    number = port.getHost().port
    await port.stopListening()
    sender = Sender(reactor, f"http://127.0.0.1:{number}")
    acknowledged: list[Posting] = []
    with pytest.raises(DemoFailed, match=f"http://127.0.0.1:{number}/scope-. cannot be reached"):
        await sender.send_all(made(1000), acknowledged.append)
    assert acknowledged == []
    await sender.close()


@pytest_twisted.ensureDeferred
async def test_a_service_that_cannot_start(tmp_path: Path) -> None:
    """What keeps it from starting is said, and it is no running process."""
    (tmp_path / "bad.yaml").write_text("workers: many\n")
    service = ServiceProcess(reactor, str(tmp_path / "bad.yaml"), str(tmp_path / "log"))
    assert (service.running, service.pid) == (False, None)
    await service.stop()
    with pytest.raises(DemoFailed, match=r"the service has ended.*workers"):
        await service.start()
    assert not service.running
    await service.stop()


@pytest_twisted.ensureDeferred
async def test_a_service_is_stopped_whatever_happens(tmp_path: Path) -> None:
    """One that does not listen in time is an error; stopping may be cancelled and goes on; what hangs is killed."""
    write_settings(str(tmp_path / "good.yaml"), Plan(str(tmp_path), 1))
    service = ServiceProcess(reactor, str(tmp_path / "good.yaml"), str(tmp_path / "log"))
    with pytest.raises(DemoFailed, match="does not listen after 0 s"):
        await service.start(0)
    assert service.running
    stopping = defer.ensureDeferred(service.stop())
    stopping.cancel()
    await stopping
    assert not service.running
    await service.start()
    assert service.pid is not None
    os.kill(service.pid, signal.SIGSTOP)
    await service.stop(0)
    assert not service.running


def quick(directory: Path, **settings: Any) -> Plan:
    """A plan whose records are delivered after about a second."""
    directory.mkdir()
    return Plan(str(directory), 400, interval_seconds=1, grace_seconds=0, **settings)


@pytest_twisted.ensureDeferred
async def test_a_run(tmp_path: Path) -> None:
    """All records are sent, delivered and counted, an enriched one is shown, and the service ends."""
    out, err = io.StringIO(), io.StringIO()
    demo = Demo(reactor, quick(tmp_path / "demo"), random.Random(5), out, err)
    await demo.run()
    text = out.getvalue()
    assert re.search(r"400 records in \d+ requests, .* [\d,]+ records/s, each on disk before its 200\.", text)
    assert "All 400 are delivered, each once" in text
    assert sum(int(count) for count in re.findall(r"(\d+) records in \d+ files?$", text, re.MULTILINE)) == 400
    record = json.loads(text[text.index("\n{\n") : text.index("\n}\n") + 2])
    added = ["organization", "environment", "api_product", "developer_app", "developer_email", "developer"]
    assert list(record)[-6:] == added
    store = tmp_path / "demo" / "data" / "store"
    assert f"The files:  {store}\n" in text
    assert sum(map(len, delivered_below(store).values())) == 400
    assert err.getvalue().splitlines()[-1] == "delivered   400 of 400 records"
    assert not demo._service.running


@pytest_twisted.ensureDeferred
async def test_a_run_that_is_too_slow(tmp_path: Path) -> None:
    """What is missing by the deadline is said, with where to look."""
    demo = Demo(reactor, quick(tmp_path / "demo", delivery_seconds=0), random.Random(5), io.StringIO(), io.StringIO())
    with pytest.raises(DemoFailed) as failed:
        await demo.run()
    place = re.escape(str(tmp_path / "demo"))
    where = f"the service's log is {place}/service.log, its data is in {place}/data/ax"
    assert re.fullmatch(rf"\d+ of 400 records are delivered; missing are .*; {where}", str(failed.value))
    assert not demo._service.running


def test_a_complaint_about_strays(tmp_path: Path) -> None:
    """What is delivered twice is no success either, and is said."""
    demo = Demo(reactor, quick(tmp_path / "demo"), random.Random(5), io.StringIO(), io.StringIO())
    demo.ledger.strays = 2
    assert demo._complaint() == "0 of 0 records are delivered; 2 are there twice or with the wrong tenant"


@pytest_twisted.ensureDeferred
async def test_a_run_that_goes_on(tmp_path: Path) -> None:
    """It says where to look, sends a trickle, and ends as it should when it is cancelled."""
    out = io.StringIO()
    demo = Demo(reactor, quick(tmp_path / "demo", keep_running=True), random.Random(5), out, io.StringIO())
    running = defer.ensureDeferred(demo.run())
    store = tmp_path / "demo" / "data" / "store"
    await until(lambda: sum(map(len, delivered_below(store).values())) > 400)
    admin = re.search(r"(http://127\.0\.0\.1:\d+)/healthz", out.getvalue())
    assert admin is not None
    sender = Sender(reactor, "")
    assert [await sender.status_of(f"{admin[1]}/{page}") for page in ("healthz", "readyz", "x")] == [200, 200, 404]
    await sender.close()
    scope = re.search(r"^  send one +curl .*/analytics/(\S+) ", out.getvalue(), re.MULTILINE)
    assert scope is not None
    with Registry.open(load_config(str(tmp_path / "demo" / "axcollector.yaml"), {}).registry_file) as registry:
        assert registry.tenant_of_scope(scope[1]) is not None
    running.cancel()
    await running
    assert out.getvalue().endswith("\nStopping.\n")
    assert not demo._service.running


def on_an_errand(work: Callable[[Any], Any], stop_after: float | None = None) -> int:
    """The status of an errand that runs in a reactor of its own."""
    with own_reactor() as own:
        errand = Errand(own, work(own))
        if stop_after is not None:
            own.callLater(stop_after, errand.stop)
            own.callLater(stop_after, errand.stop)
        return errand.run()


def test_an_errand() -> None:
    """A reactor runs until the work is done; what it raises is raised, and being stopped ends it in order."""
    ended = []

    async def nothing(own: Any) -> None:
        pass

    async def failing(own: Any) -> None:
        raise RegistryError("no")

    async def endless(own: Any) -> None:
        try:
            await defer.Deferred()
        finally:
            ended.append(True)

    async def contented(own: Any) -> None:
        with contextlib.suppress(defer.CancelledError):
            await defer.Deferred()

    assert on_an_errand(nothing) == 0
    with pytest.raises(RegistryError):
        on_an_errand(failing)
    assert (on_an_errand(endless, 0), ended) == (INTERRUPTED, [True])
    assert on_an_errand(contented, 0) == 0


def command(*arguments: str) -> "subprocess.Popen[str]":
    """The demo as a user starts it, in the current directory."""
    script = "from axcollector.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", script, "demo", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        # Whoever runs the tests in the background may have had SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_the_command(tmp_path: Path) -> None:
    """In an empty directory it ends with status 0, and all records lie where it says."""
    with contextlib.chdir(tmp_path):
        process = command("--records", "250")
    out, err = process.communicate()
    assert (process.returncode, "All 250 are delivered" in out) == (0, True), err
    assert sum(map(len, delivered_below(tmp_path / "axcollector-demo" / "data" / "store").values())) == 250
    assert_gone(out)


def test_the_command_until_ctrl_c(tmp_path: Path) -> None:
    """With --keep-running it goes on until SIGINT; its curl line works; then it ends with status 0, leaving nothing."""
    process = command("--records", "50", "--keep-running", "--directory", str(tmp_path / "here"))
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("  send one"):
            break
    words = shlex.split(lines[-1])
    assert words[2] == "curl"
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out, "Traceback" in err) == (0, "\nStopping.\n", False), err
    assert_gone("".join(lines))


def test_the_command_interrupted_early(tmp_path: Path) -> None:
    """SIGINT while it is at work ends it with status 130, and leaves nothing running."""
    process = command("--records", "50", "--directory", str(tmp_path / "here"))
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert (process.returncode, "Traceback" in err) == (INTERRUPTED, False), err
    assert_gone(first)


def assert_gone(out: str) -> None:
    """The service that it spoke of has ended."""
    found = re.search(r"as process (\d+),", out)
    assert found is not None
    with pytest.raises(ProcessLookupError):
        os.kill(int(found[1]), 0)
