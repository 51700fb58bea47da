"""Faults: full disks, broken ones, too few descriptors, stages that vanish.

Nobody is told 200 whose batch was not kept, nothing that got its 200 is lost, and when the fault is over the service
goes on by itself. Where the system lets us the faults are real: a file system of a few megabytes, limits set on a
running process, directories taken away.
"""

import errno
import gzip
import http.client
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import pytest_twisted
import treq
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from twisted.internet import defer, reactor, task
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent

from axcollector.closing import PAUSE_SECONDS, Closing
from axcollector.core.commit import GroupCommit
from axcollector.core.errors import SpoolFailed
from axcollector.core.layout import Stage
from axcollector.core.model import Batch, Tenant
from axcollector.delivering import ROOM_TICK_SECONDS
from axcollector.disk import AppendFile, Disk
from axcollector.journal import JournalPlan, JournalWriter
from axcollector.locks import Lock
from axcollector.reserve import SplitReserve
from axcollector.room import Room
from axcollector.services import Periodic
from axcollector.splitter import Splitter
from axcollector.spool import Spool
from axcollector.uploader import Uploader
from tests.conftest import LoggedFailures
from tests.effort import either
from tests.fake_stores import MemoryStore
from tests.fakes import HeldThread, SameThread, result_of
from tests.running import Running, delivered_below, gather, ids_of, until
from tests.signing_server import SigningServer, answer, url_of
from tests.test_process import CLEAN, Process, add_scope, batch

TENANTS = (Tenant("t1", "acme", "prod"), Tenant("t2", "zoo", "test"))
START = 1_480_000_080.0
INTERVAL_SECONDS = 10
GRACE_SECONDS = 1


class FaultyFile(AppendFile):
    """A file of a `FaultyDisk`; a write that fails is torn."""

    disk: "FaultyDisk"

    def write(self, data: bytes | memoryview) -> None:
        if "write" in self.disk.faults:
            super().write(data[: len(data) // 2])
        self.disk.fail("write")
        super().write(data)

    def sync(self) -> None:
        self.disk.fail("sync")
        super().sync()

    def truncate(self, size: int) -> None:
        self.disk.fail("truncate")
        super().truncate(size)


class FaultyDisk(Disk):
    """A real directory on which some operations fail.

    Attributes:
        faults: What fails, and with which error number.
    """

    def __init__(self) -> None:
        self.faults: dict[str, int] = {}

    def fail(self, what: str) -> None:
        """Fail if told to."""
        if what in self.faults:
            raise OSError(self.faults[what], os.strerror(self.faults[what]))

    def create(self, path: str) -> AppendFile:
        self.fail("create")
        file = FaultyFile(path, os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600))
        file.disk = self
        return file

    def make_directory(self, path: str) -> None:
        self.fail("make_directory")
        super().make_directory(path)

    def names(self, directory: str) -> list[str]:
        self.fail("names")
        return super().names(directory)

    def rename(self, source: str, target: str) -> None:
        self.fail("rename")
        super().rename(source, target)

    def unlink(self, path: str) -> None:
        self.fail("unlink")
        super().unlink(path)

    def remove_directory(self, path: str) -> None:
        self.fail("remove_directory")
        super().remove_directory(path)

    def sync_directory(self, path: str) -> None:
        self.fail("sync_directory")
        super().sync_directory(path)


class Plant:
    """All stations from a batch to the store, on one clock: the writer's thread is held, all others are this one."""

    def __init__(self, root: Path) -> None:
        for stage in Stage:
            (root / stage).mkdir()
        self.root = root
        self.clock = Clock()
        self.clock.advance(START)
        self.disk = FaultyDisk()
        self.store = MemoryStore()
        self.thread = HeldThread()
        self.answers: dict[int, bool] = {}
        self._sent = 0
        reserve = SplitReserve(self.disk, str(root))
        plan = JournalPlan(str(root / "tmp"), "id", 1, INTERVAL_SECONDS, 1 << 20)
        writer = JournalWriter(self.disk, plan, reserve)
        self.spool = Spool(self.clock, self.thread, writer, GroupCommit(100, 1 << 20))
        splitter = Splitter(self.disk, str(root), Stage.TMP, pack_all=False, reserve=reserve)
        self.closing = Closing(self.clock, SameThread(), self.spool, splitter, GRACE_SECONDS)
        self.uploader = Uploader(
            self.clock,
            SameThread(),
            self.disk,
            self.store,
            str(root),
            interval_seconds=1,
            concurrency=4,
            max_attempts=3,
            failed_retry_batch=10,
            chance=lambda: 0.5,
        )
        room = Room(self.disk, str(root), 1 << 30)
        self._room = Periodic(self.clock, ROOM_TICK_SECONDS, "room", room.measure)
        self._room.startService()
        self.uploader.startService()
        self.closing.startService()
        self.write()

    def write(self) -> None:
        """Let the writer's thread do all it has to do, also for those who wait for others."""
        while self.thread.jobs or self.spool.waiting:
            if not self.thread.jobs:
                self.clock.advance(0.01)
            self.thread.step()

    def submit(self, count: int = 1) -> list["defer.Deferred[None]"]:
        """So many batches, each of one numbered line, of the tenants in turn; they wait for `write`."""
        waiting = []
        for _ in range(count):
            number, self._sent = self._sent, self._sent + 1
            waiting.append(self.spool.submit(Batch(TENANTS[number % 2], b'{"id":%d}\n' % number, 1)))
            waiting[-1].addBoth(self._answered, number)
        return waiting

    def _answered(self, outcome: object, number: int) -> object:
        assert number not in self.answers
        self.answers[number] = outcome is None
        return outcome

    def pass_seconds(self, seconds: float) -> None:
        """Let time pass."""
        for _ in range(int(seconds * 4)):
            self.clock.advance(0.25)
            self.write()

    def delivered(self) -> Counter[int]:
        """How often each number is in the store; each with the tenant that it was sent for."""
        found: Counter[int] = Counter()
        for (tenant, _), content in self.store.objects.items():
            ids = ids_of(gzip.decompress(content).splitlines())
            assert {("acme~prod", "zoo~test")[number % 2] for number in ids} == {tenant}
            found += ids
        return found

    def stop(self) -> None:
        """Stop in order, and deliver what is left."""
        stopping = self.closing.stopService()
        self.write()
        result_of(stopping)
        self.uploader.sweep()
        result_of(self.uploader.stopService())
        result_of(self._room.stopService())
        assert self.clock.getDelayedCalls() == []


FAULTS = (
    ("create", errno.EMFILE),
    ("create", errno.ENOSPC),
    ("create", errno.EROFS),
    ("write", errno.ENOSPC),
    ("write", errno.EDQUOT),
    ("write", errno.EIO),
    ("sync", errno.EIO),
    ("sync", errno.ENOSPC),
    ("sync_directory", errno.EIO),
    ("sync_directory", errno.EMFILE),
)
"""What may become of a commit."""


@pytest.mark.parametrize(("what", "number"), FAULTS)
@pytest.mark.parametrize("cut", [True, False])
def test_those_who_wait_are_refused(tmp_path: Path, what: str, number: int, cut: bool) -> None:
    """All of a failed commit get the refusal that says when to come again; before and after it all is as ever."""
    plant = Plant(tmp_path)
    plant.pass_seconds(INTERVAL_SECONDS / 2)
    if what not in {"create", "sync_directory"}:  # those are done once a journal
        plant.submit(3)
        plant.write()
    plant.disk.faults = {what: number} if cut else {what: number, "truncate": errno.EIO}
    for refused in plant.submit(3):
        plant.write()
        with pytest.raises(SpoolFailed, match=os.strerror(number)) as refusal:
            result_of(refused)
        assert (refusal.value.status, refusal.value.code, refusal.value.retry_after) == (503, "STORAGE_UNAVAILABLE", 5)
    plant.disk.faults = {}
    for taken in plant.submit(3):
        plant.write()
        result_of(taken)
    plant.pass_seconds(INTERVAL_SECONDS + GRACE_SECONDS + 1)
    plant.stop()
    acknowledged = [number for number, kept in plant.answers.items() if kept]
    assert len(acknowledged) == len(plant.answers) - 3
    delivered = plant.delivered()
    assert {number: delivered[number] for number in acknowledged} == dict.fromkeys(acknowledged, 1)
    assert max(delivered.values()) == 1


ANYTHING = (*FAULTS, *((what, errno.EIO) for what in ("make_directory", "rename", "unlink", "remove_directory")))


class AnyFaults(RuleBasedStateMachine):
    """Batches, time, and faults that come and go, in any order: what got its yes is delivered, once."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory()
        self.root = Path(self._directory.name)
        self.plant = Plant(self.root)

    @rule(count=st.integers(1, 4))
    def send(self, count: int) -> None:
        for waiting in self.plant.submit(count):
            waiting.addErrback(lambda failure: failure.trap(SpoolFailed) and None)
        self.plant.write()

    @rule(seconds=st.sampled_from([0.25, 1, INTERVAL_SECONDS / 2, INTERVAL_SECONDS + GRACE_SECONDS]))
    def wait(self, seconds: float) -> None:
        self.plant.pass_seconds(seconds)

    @rule(faults=st.lists(st.sampled_from(ANYTHING), max_size=3))
    def break_and_mend(self, faults: list[tuple[str, int]]) -> None:
        self.plant.disk.faults = dict(faults)

    @rule(up=st.booleans())
    def store_comes_and_goes(self, up: bool) -> None:
        self.plant.store.up = up

    def teardown(self) -> None:
        plant = self.plant
        assert len(plant.answers) == plant._sent
        plant.disk.faults = {}
        (mended,) = plant.submit()
        plant.write()
        result_of(mended)
        plant.store.up = True
        plant.pass_seconds(INTERVAL_SECONDS + GRACE_SECONDS + PAUSE_SECONDS)
        for _ in range(11):  # what is in failed comes back after ten minutes at the latest
            if any(os.listdir(self.root / stage) for stage in Stage):
                plant.pass_seconds(60)
        plant.stop()
        delivered = plant.delivered()
        lost = [number for number, kept in plant.answers.items() if kept and delivered[number] != 1]
        assert (lost, [number for number, times in delivered.items() if times > 1]) == ([], [])
        assert [path for stage in Stage for path in (self.root / stage).iterdir()] == []
        self._directory.cleanup()


def test_any_faults() -> None:
    """Whatever fails at whatever moment, what was acknowledged is delivered once, and nothing is left behind."""
    run_state_machine_as_test(AnyFaults, settings=settings(max_examples=either(30, 15), stateful_step_count=25))


@pytest.mark.slow
def test_very_many_faults() -> None:
    """The same, for longer."""
    is_bounded = os.environ.get("AXCOLLECTOR_PROOFS") == "bounded"
    run_state_machine_as_test(
        AnyFaults, settings=settings(max_examples=150 if is_bounded else 500, stateful_step_count=40)
    )


def errors_in(log_events: list[LogEvent]) -> list[str]:
    """What was logged as an error or worse."""
    return [formatEvent(event) for event in log_events if event["log_level"].name in {"error", "critical"}]


def test_splits_that_cannot_be_made(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """Batches are taken all the same; it is said once, tried every few seconds, and done when it can be."""
    plant = Plant(tmp_path)
    plant.submit(2)
    plant.write()
    plant.disk.faults = {"make_directory": errno.ENOSPC}
    plant.pass_seconds(INTERVAL_SECONDS + GRACE_SECONDS + 3 * PAUSE_SECONDS)
    plant.submit(2)
    plant.write()
    assert plant.answers == dict.fromkeys(range(4), True)
    assert ["cannot be split yet: [Errno 28]" in text for text in errors_in(log_events)] == [True]
    plant.disk.faults = {}
    plant.pass_seconds(INTERVAL_SECONDS + GRACE_SECONDS + PAUSE_SECONDS)
    assert plant.delivered() == dict.fromkeys(range(4), 1)
    plant.stop()


def test_a_stage_that_cannot_be_read(
    tmp_path: Path, log_events: list[LogEvent], logged_failures: LoggedFailures
) -> None:
    """With no descriptor left, what is due is not seen; that is no bug, and is not said with every tick."""
    plant = Plant(tmp_path)
    plant.submit(2)
    plant.write()
    plant.disk.faults = {"names": errno.EMFILE}
    plant.pass_seconds(20)
    assert logged_failures.take(OSError) == []
    assert len([text for text in errors_in(log_events) if "tmp" in text]) == 1
    plant.disk.faults = {}
    plant.pass_seconds(PAUSE_SECONDS + 1)
    assert plant.delivered() == dict.fromkeys(range(2), 1)
    plant.stop()


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("stage", list(Stage))
def test_a_stage_that_vanishes(tmp_path: Path, stage: Stage, replaced: bool, logged_failures: LoggedFailures) -> None:
    """A stage taken away is made anew; what was acknowledged since is delivered, and before, if it lay elsewhere."""
    plant = Plant(tmp_path)
    plant.submit(2)
    plant.write()
    place = tmp_path / stage
    shutil.rmtree(place)
    if replaced:
        place.write_bytes(b"in the way")
    for _ in range(15):
        for waiting in plant.submit(1):
            waiting.addErrback(lambda failure: failure.trap(SpoolFailed) and None)
        plant.write()
        plant.pass_seconds(1)
    if replaced:
        place.unlink()
        plant.pass_seconds(ROOM_TICK_SECONDS + 0.25)
    assert logged_failures.take(OSError) == []
    assert place.stat().st_mode & 0o777 == 0o700
    plant.submit(2)
    plant.write()
    plant.pass_seconds(2 * INTERVAL_SECONDS)
    plant.stop()
    assert plant.answers[17]
    assert plant.answers[18]
    gone = {0, 1} if stage is Stage.TMP else set()
    kept = [number for number, taken in plant.answers.items() if taken and number not in gone]
    assert plant.delivered() == dict.fromkeys(kept, 1)


# A full disk, a real one.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes of its own."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False) if shutil.which("mount") else None
    if mounted is None or mounted.returncode:
        pytest.skip("no file system can be mounted here; RLIMIT_FSIZE below shows the same, less of it")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


async def ask(service: Running, scope: str, first: int, count: int = 1, size: int = 10) -> tuple[int, str | None, str]:
    """Status, `Retry-After` and reason of the answer to a batch of numbered records, hard to compress, of this size."""
    filler = random.Random(first).randbytes(size // 2).hex()
    records = [{"id": first + i, "client_received_start_timestamp": 1, "filler": filler} for i in range(count)]
    response = await treq.post(
        f"{service.url}/analytics/{scope}",
        json.dumps({"records": records}).encode(),
        headers={"Content-Type": "application/json"},
        agent=service._agent,
    )
    content = json.loads(await response.content())
    (retry_after,) = response.headers.getRawHeaders("Retry-After", [None])
    if response.code != 200:
        assert content["errorCode"] == "STORAGE_UNAVAILABLE"
    return response.code, retry_after, content.get("reason", "")


def in_stage(service: Running, stage: Stage) -> list[str]:
    """What lies in a stage."""
    return os.listdir(service.root / "ax" / stage)


def put_down(server: SigningServer) -> None:
    """Let it be unavailable until its `next_signs` are cleared."""
    server.next_signs.extend([answer(503, Retry_After="1")] * 100_000)


def stored_ids(server: SigningServer) -> Counter[int]:
    """How often each record was put."""
    return ids_of(line for data in server.objects.values() for line in gzip.decompress(data).splitlines())


async def fill(service: Running, scope: str, size: int = 60_000) -> list[int]:
    """Send batches, several at a time, until only refusals come and all journals are split; those acknowledged."""
    acknowledged: list[int] = []
    reasons: set[str] = set()
    number = 0

    async def send_one(first: int) -> bool:
        status, retry_after, reason = await ask(service, scope, first, 2, size // 2)
        if status == 200:
            acknowledged.extend((first, first + 1))
        else:
            reasons.add(reason)
            assert (status, retry_after) == (503, "5")
        return status == 200

    was_idle, taken = False, [True]
    while any(taken) or not was_idle:  # while a split is under way its room is counted twice
        was_idle = not in_stage(service, Stage.TMP)
        taken = await gather(send_one(number + 2 * i) for i in range(8))
        number += 16
    (reason,) = reasons
    assert "No space left but what is kept for splitting journals" in reason
    return acknowledged


@pytest_twisted.ensureDeferred
async def test_a_full_disk_drains(small_disk: Path, log_events: list[LogEvent]) -> None:
    """While the store is down the disk fills up, and all is split all the same; when it is there all is delivered."""
    server = SigningServer()
    put_down(server)
    port = reactor.listenTCP(0, server.site(), interface="127.0.0.1")
    settings = {"uap_server_base": url_of(port), "bearer_token": server.token, "spool_quota_bytes": 1 << 40}
    service = await Running(small_disk / "data", **settings).start()
    try:
        scope = await service.scope("acme", "prod")
        acknowledged = await fill(service, scope)
        assert len(acknowledged) > 30
        assert Disk().free_bytes(str(small_disk)) < 1 << 20
        assert service.collector.problems()["commit"] == "The last commit failed"
        assert server.objects == {}
        server.next_signs.clear()
        await until(lambda: not in_stage(service, Stage.STAGING))
        assert stored_ids(server) == dict.fromkeys(acknowledged, 1)
        assert await ask(service, scope, 1_000_000, 1, 60_000) == (200, None, "")
        assert service.collector.problems()["commit"] is None
        await until(lambda: 1_000_000 in stored_ids(server))
        assert {text.partition(": ")[0] for text in errors_in(log_events)} == {"the spool cannot be written"}
    finally:
        await service.stop()
        await port.stopListening()


def fill_up(path: Path) -> None:
    """Take all that is left of a file system."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as exc:
            assert exc.errno == errno.ENOSPC  # noqa: PT017 - any number of writes comes before it


@pytest_twisted.ensureDeferred
@pytest.mark.slow
async def test_a_disk_filled_by_others(small_disk: Path, log_events: list[LogEvent]) -> None:
    """Even where the room for splits is taken, journals are kept, and split when there is room again, by itself."""
    service = await Running(small_disk / "data", spool_quota_bytes=1 << 40).start()
    try:
        scope = await service.scope("acme", "prod")
        await until(lambda: reactor.seconds() % 1 < 0.3)
        for first in range(10):
            assert (await ask(service, scope, first, 1, 60_000))[0] == 200
        fill_up(small_disk / "foreign")
        assert (await ask(service, scope, 100, 1, 60_000))[:2] == (503, "5")
        await until(lambda: any("cannot be split yet" in text for text in errors_in(log_events)))
        assert service.stored() == 0
        (small_disk / "foreign").unlink()
        assert (await ask(service, scope, 200, 1, 60_000))[0] == 200
        await until(lambda: service.stored() == 11)
        assert ids_of(service.delivered()["acme~prod"]) == dict.fromkeys([*range(10), 200], 1)
        assert len([text for text in errors_in(log_events) if "cannot be split yet" in text]) == 1
    finally:
        await service.stop()


@pytest_twisted.ensureDeferred
async def test_the_quota(tmp_path: Path) -> None:
    """A spool as large as it may be takes no more, and does again when it is drained, by itself."""
    server = SigningServer()
    put_down(server)
    port = reactor.listenTCP(0, server.site(), interface="127.0.0.1")
    settings = {"uap_server_base": url_of(port), "bearer_token": server.token, "spool_quota_bytes": 100_000}
    service = await Running(tmp_path / "data", **settings).start()
    try:
        scope = await service.scope("acme", "prod")
        for first in range(4):
            assert (await ask(service, scope, first, 1, 60_000))[0] == 200
        await until(lambda: service.collector.problems()["spool"] is not None)
        status, retry_after, reason = await ask(service, scope, 100)
        assert (status, retry_after) == (503, "5")
        assert "its quota (spool_quota_bytes) is 100000" in reason
        server.next_signs.clear()
        await until(lambda: service.collector.problems()["spool"] is None)
        assert (await ask(service, scope, 200))[0] == 200
        await until(lambda: len(stored_ids(server)) == 5)
        assert stored_ids(server) == dict.fromkeys([*range(4), 200], 1)
    finally:
        await service.stop()
        await port.stopListening()


# Stages that vanish.


@pytest_twisted.ensureDeferred
@pytest.mark.slow
async def test_all_stages_vanish(tmp_path: Path, logged_failures: LoggedFailures) -> None:
    """All stages taken away under the running service are made anew, and it goes on without a restart."""
    service = await Running(tmp_path / "data").start()
    try:
        scope = await service.scope("acme", "prod")
        for stage in Stage:
            shutil.rmtree(tmp_path / "data" / "ax" / stage)
        await until(lambda: all((tmp_path / "data" / "ax" / stage).is_dir() for stage in Stage))
        await until(lambda: service.collector.problems()["spool"] is None)
        assert logged_failures.take(OSError) == []
        assert (await ask(service, scope, 20))[0] == 200
        await until(lambda: ids_of(service.delivered().get("acme~prod", [])) == {20: 1})
    finally:
        for stage in Stage:
            (tmp_path / "data" / "ax" / stage).mkdir(exist_ok=True)
        logged_failures.take(OSError)
        await service.stop()


def change(place: str, attribute: str) -> bool:
    """Set or clear an attribute of a directory; whether that is possible here."""
    command = ["chattr", attribute, place]
    return bool(shutil.which("chattr")) and not subprocess.run(command, check=False, capture_output=True).returncode


@pytest_twisted.ensureDeferred
@pytest.mark.slow
@pytest.mark.parametrize("stage", [Stage.TMP, Stage.STAGING])
async def test_a_stage_made_read_only(tmp_path: Path, stage: Stage) -> None:
    """While nothing can be made or removed in a stage, what was acknowledged is kept; then it all goes on."""
    service = await Running(tmp_path / "data").start()
    scope = await service.scope("acme", "prod")
    place = str(tmp_path / "data" / "ax" / stage)
    try:
        if not change(place, "+i"):
            pytest.skip("permissions do not bind this user, and chattr is not permitted")
        answers = {}
        for first in range(15):
            answers[first] = (await ask(service, scope, first))[:2]
            await task.deferLater(reactor, 0.1)
        assert set(answers.values()) == ({(503, "5")} if stage is Stage.TMP else {(200, None)})
        assert service.stored() == 0
        assert change(place, "-i")
        assert (await ask(service, scope, 100))[0] == 200
        kept = [first for first, (status, _) in answers.items() if status == 200] + [100]
        await until(lambda: service.stored() == len(kept))
        assert ids_of(service.delivered()["acme~prod"]) == dict.fromkeys(kept, 1)
    finally:
        change(place, "-i")
        await service.stop()


# Limits set on a process that runs: for real, wherever the tests run.


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    """Those started by a test; none is left when it ends."""
    started: list[Process] = []
    yield started
    for process in started:
        if process.popen.poll() is None:
            process.popen.kill()
            process.popen.communicate()


def limit(process: Process, kind: int, value: int | None) -> None:
    """Set a soft limit of a running process, or give it back."""
    _, hard = resource.prlimit(process.popen.pid, kind)
    resource.prlimit(process.popen.pid, kind, (hard if value is None else value, hard))


def begin(directory: Path, *options: str) -> tuple[Process, str]:
    """A service that delivers to a directory after about a second, and a scope."""
    (directory / "axcollector-data").mkdir(mode=0o700)
    scope = add_scope(directory)
    quick = ("--collection-interval", "1", "--close-grace", "0.1", "--upload-interval", "0.1")
    return Process(directory, *quick, *options).started(), f"/analytics/{scope}"


def post(connection: http.client.HTTPConnection, path: str, body: bytes) -> tuple[int, str | None]:
    """Status and `Retry-After` of a POST."""
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    response.read()
    return response.status, response.getheader("Retry-After")


def stored_by(process: Process) -> Counter[int]:
    """How often each record was delivered."""
    lines = delivered_below(process.directory / "axcollector-data" / "store").get("acme~prod", [])
    return ids_of(lines)


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Look again and again."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, condition


def test_files_that_may_not_grow(tmp_path: Path, processes: list[Process]) -> None:
    """A write that the kernel breaks off in the middle is refused and cut away; then all goes on, without a restart."""
    process, path = begin(tmp_path)
    processes.append(process)
    connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=30)
    answers = {}
    for first in range(0, 3000, 100):
        if first in {1000, 2000}:
            limit(process, resource.RLIMIT_FSIZE, first // 10)  # bytes: a journal breaks off in a frame
        if first in {1500, 2500}:
            limit(process, resource.RLIMIT_FSIZE, None)
        answers[first] = post(connection, path, batch(first, 100))
    assert (answers[1400], answers[2400]) == ((503, "5"), (503, "5"))
    assert {answers[first] for first in answers if first // 500 not in {2, 4}} == {(200, None)}
    kept = [first + i for first, (status, _) in answers.items() if status == 200 for i in range(100)]
    wait_for(lambda: len(stored_by(process)) == len(kept))
    assert stored_by(process) == dict.fromkeys(kept, 1)
    connection.close()
    code, log = process.end()
    assert (code, "Traceback" in log) == (CLEAN, False)
    assert log.count("the spool cannot be written: ") == 2


def test_too_few_descriptors(tmp_path: Path, processes: list[Process]) -> None:
    """With no descriptor left, open connections get their answers; with some again, everybody does."""
    process, path = begin(tmp_path)
    processes.append(process)
    open_ones = [http.client.HTTPConnection("127.0.0.1", process.port, timeout=30) for _ in range(20)]
    kept = [i for i, connection in enumerate(open_ones) if post(connection, path, batch(i, 1)) == (200, None)]
    assert len(kept) == 20
    limit(process, resource.RLIMIT_NOFILE, len(os.listdir(f"/proc/{process.popen.pid}/fd")))
    late = [http.client.HTTPConnection("127.0.0.1", process.port, timeout=30) for _ in range(30)]
    for connection in late:
        connection.connect()  # by the kernel; the service cannot accept it yet
    number, statuses = 100, []
    begun = time.monotonic()
    while time.monotonic() - begun < 2.2:  # over several intervals
        for connection in open_ones:
            statuses.append(post(connection, path, batch(number, 1)))
            kept += [number] * (statuses[-1][0] == 200)
            number += 1
    assert set(statuses) <= {(200, None), (503, "5")}
    assert (503, "5") in statuses
    limit(process, resource.RLIMIT_NOFILE, None)
    for connection in (http.client.HTTPConnection("127.0.0.1", process.port, timeout=30), *open_ones):
        assert post(connection, path, batch(number, 1)) == (200, None)
        kept.append(number)
        number += 1
        connection.close()
    for connection in late:
        connection.close()
    wait_for(lambda: len(stored_by(process)) == len(kept))
    assert stored_by(process) == dict.fromkeys(kept, 1)
    assert process.end()[0] == CLEAN


def test_killed_with_durability_write(tmp_path: Path, processes: list[Process]) -> None:
    """What was handed to the kernel survives the process: after a kill all that was acknowledged is delivered."""
    process, path = begin(tmp_path, "--durability", "write")
    processes.append(process)
    for first in range(0, 100, 10):
        assert process.post(path, batch(first, 10)) == (200, {"accepted": 10, "rejected": 0})
    process.end(signal.SIGKILL)
    quick = ("--collection-interval", "1", "--upload-interval", "0.1")
    processes.append(Process(tmp_path, *quick).started())
    wait_for(lambda: len(stored_by(process)) == 100)
    assert stored_by(process) == dict.fromkeys(range(100), 1)


# One owner


def test_a_pid_in_the_lock_file_is_no_lock(tmp_path: Path) -> None:
    """Only who holds the lock is an owner: the pid of a killed process, which another may have now, blocks nobody."""
    path = tmp_path / "lock"
    path.write_text(f"{os.getppid()}\n")
    lock = Lock(str(path))
    lock.acquire()
    assert path.read_text() == f"{os.getpid()}\n"
    lock.release()


def test_children_do_not_inherit_the_lock(tmp_path: Path) -> None:
    """A process that the owner has started, and that outlives it, does not hold the directory."""
    lock = Lock(str(tmp_path / "lock"))
    lock.acquire()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False) as child:
        lock.release()
        other = Lock(str(tmp_path / "lock"))
        other.acquire()
        other.release()
        assert child.poll() is None
