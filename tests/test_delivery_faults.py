"""Stores that misbehave, over real sockets: what becomes of their tenant's bucket, and that others do not notice.

One tenant's files go to a server that does one thing wrong, another's to one that works. The second's are delivered
while the first's fail; a bucket loses its attempts where that is the rule, and never to a pause.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import defer, protocol
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall, deferLater

from axcollector.core.delivery import Counts, UploaderStatus
from axcollector.core.stamps import stamp
from axcollector.disk import Disk
from axcollector.services import WorkThread
from axcollector.stores.signed import SignedStore
from axcollector.uploader import Uploader
from tests.signing_server import RawServer, SigningServer, answer, never, url_of

START = 1_767_323_045
BAD = f"bad~test~{stamp(START)}"
GOOD_FILES = 12
BIG = 30_000_000
"""More than the buffers on the way hold."""


class Delivery:
    """A data directory, an uploader over real sockets, a signer, a store that works and one that does not.

    Attributes:
        server: The signer, and the store that works.
        bad: The store of the tenant `bad~test`.
    """

    def __init__(self, reactor: Any, root: Path, timeout_seconds: float) -> None:
        self.reactor = reactor
        self.root = root
        for stage in ("staging", "failed"):
            (root / stage).mkdir()
        self.ports: list[IListeningPort] = []
        self.raw_servers: list[RawServer] = []
        self.server = SigningServer("token")
        self.signer = self.listen(self.server.site())
        self.thread = WorkThread(reactor, "staging")
        self.store = SignedStore.over_network(
            reactor, Disk(), self.signer, lambda: "token", timeout_seconds=timeout_seconds, concurrency=4
        )
        self.uploader = self.uploader_of(0.03)

    def uploader_of(self, interval_seconds: float) -> Uploader:
        """An uploader over this directory."""
        return Uploader(
            self.reactor, self.thread, Disk(), self.store, str(self.root),
            interval_seconds=interval_seconds, concurrency=4, max_attempts=2, failed_retry_batch=0,
            chance=lambda: 0.0,
        )  # fmt: skip

    def listen(self, factory: Factory) -> str:
        """Serve; the URL."""
        if isinstance(factory, RawServer):
            self.raw_servers.append(factory)
        self.ports.append(self.reactor.listenTCP(0, factory, interface="127.0.0.1"))
        return url_of(self.ports[-1])

    def start(self, bad: Factory | None, size: int = 10) -> "Delivery":
        """Stage a file for the bad store, and files for the good one; begin."""
        if bad is not None:
            self.server.store_of["bad~test"] = self.listen(bad)
        self.stage(BAD, size)
        for number in range(GOOD_FILES):
            self.stage(f"good~test~{stamp(START + number)}", 10)
        self.thread.startService()
        self.uploader.startService()
        return self

    def stage(self, bucket: str, size: int) -> None:
        """A bucket of one file."""
        (self.root / "staging" / bucket).mkdir()
        (self.root / "staging" / bucket / "f.txt.gz").write_bytes(b"x" * size)

    async def until(self, condition: Callable[[UploaderStatus], bool]) -> UploaderStatus:
        """Wait until it holds; no longer than a slow machine takes."""
        for _ in range(3000):
            if condition(status := self.uploader.status()):
                return status
            await deferLater(self.reactor, 0.01, lambda: None)
        raise AssertionError(f"not so within half a minute: {self.uploader.status()}")

    async def good_ones(self) -> UploaderStatus:
        """All files of the good store are delivered."""
        return await self.until(lambda status: status.counts.delivered_files == GOOD_FILES)

    async def until_given_up(self) -> None:
        """The good ones are delivered; the bad one's bucket has had its attempts, neither more nor less."""
        await self.good_ones()
        status = await self.until(lambda status: status.counts.given_up_buckets == 1)
        expected = Counts(
            delivered_files=GOOD_FILES, delivered_bytes=10 * GOOD_FILES, failed_tries=2, given_up_buckets=1
        )
        assert status.counts == expected
        assert status.paused == ()
        assert [path.name for path in (self.root / "failed").iterdir()] == [BAD]
        assert list((self.root / "staging").iterdir()) == []

    async def until_paused(self, reason: str) -> UploaderStatus:
        """The good ones are delivered, the bad one's authority is paused, its bucket has lost no attempt."""
        await self.good_ones()
        status = await self.until(lambda status: status.counts.paused_tries >= 1)
        assert [reason in pause.reason for pause in status.paused] == [True]
        assert (status.counts.failed_tries, status.counts.given_up_buckets) == (0, 0)
        assert (self.root / "staging" / BAD).is_dir()
        return status

    async def close(self) -> None:
        """Stop all of it."""
        if self.uploader.running:
            await self.uploader.stopService()
        await self.thread.stopService()
        await self.store.close()
        for server in self.raw_servers:
            await server.close()
        for port in self.ports:
            await defer.maybeDeferred(port.stopListening)


OpenDelivery = Callable[..., Delivery]


@pytest.fixture
def delivery(tmp_path: Path) -> Iterator[OpenDelivery]:
    """Makes a delivery, which is closed in the end."""
    from twisted.internet import reactor

    made: list[Delivery] = []

    def make(timeout_seconds: float = 30.0) -> Delivery:
        made.append(Delivery(reactor, tmp_path, timeout_seconds))
        return made[-1]

    yield make
    for each in made:
        pytest_twisted.blockon(defer.Deferred.fromCoroutine(each.close()))


def response(status: int, *headers: str) -> bytes:
    """An answer without a body."""
    return "\r\n".join([f"HTTP/1.1 {status} X", "Content-Length: 0", *headers, "", ""]).encode()


@pytest_twisted.ensureDeferred
async def test_a_store_that_refuses_early(delivery: OpenDelivery) -> None:
    """It answers 400 without reading the body."""
    await delivery().start(RawServer(response(400)), BIG).until_given_up()


@pytest_twisted.ensureDeferred
async def test_a_store_that_never_answers(delivery: OpenDelivery) -> None:
    """It accepts the connection, and that is all; the time limit makes it an attempt."""
    await delivery(timeout_seconds=0.3).start(RawServer(b"", after_bytes=1 << 40)).until_given_up()


@pytest_twisted.ensureDeferred
async def test_a_store_that_fails(delivery: OpenDelivery) -> None:
    """500 is an attempt."""
    await delivery().start(RawServer(response(500), after_bytes=10, then_close=True)).until_given_up()


@pytest_twisted.ensureDeferred
async def test_a_store_that_forbids(delivery: OpenDelivery) -> None:
    """403 may mean that the URL has expired: a new one is asked for, and the second 403 is an attempt."""
    each = delivery().start(RawServer(response(403), after_bytes=10, then_close=True))
    await each.until_given_up()
    assert sum(query["tenant"] == "bad~test" for query in each.server.asked) == 4


@pytest_twisted.ensureDeferred
async def test_a_store_that_knows_no_such_place(delivery: OpenDelivery) -> None:
    """404 is an attempt."""
    await delivery().start(RawServer(response(404), after_bytes=10, then_close=True)).until_given_up()


@pytest_twisted.ensureDeferred
async def test_a_store_that_redirects(delivery: OpenDelivery) -> None:
    """307 is an attempt; nobody goes where it points."""
    elsewhere = RawServer(response(200))
    each = delivery()
    where = each.listen(elsewhere)
    await each.start(RawServer(response(307, f"Location: {where}/x"), after_bytes=10, then_close=True)).until_given_up()
    assert elsewhere.accepted == 0


@pytest_twisted.ensureDeferred
async def test_a_store_that_closes_mid_body(delivery: OpenDelivery) -> None:
    """A connection lost in the middle is an attempt."""
    await delivery().start(RawServer(b"", then_close=True, after_bytes=100_000), BIG).until_given_up()


class Trickle(protocol.Protocol):
    """Answers with 10 bytes each 10 ms."""

    def connectionMade(self) -> None:
        self.loop = LoopingCall(lambda: self.transport.write(b"x" * 10))

    def dataReceived(self, data: bytes) -> None:
        if not self.loop.running:
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 30000\r\n\r\n")
            self.loop.start(0.01)

    def connectionLost(self, reason: object = None) -> None:
        if self.loop.running:
            self.loop.stop()


@pytest_twisted.ensureDeferred
async def test_a_store_that_answers_slowly(delivery: OpenDelivery) -> None:
    """1 kB/s is progress, and would take half a minute; the limit for the whole makes it an attempt."""
    await delivery(timeout_seconds=0.3).start(Factory.forProtocol(Trickle)).until_given_up()


@pytest_twisted.ensureDeferred
async def test_a_store_that_is_overloaded(delivery: OpenDelivery) -> None:
    """503 pauses its host for as long as `Retry-After` says, and costs nothing; then the file is delivered."""
    each = delivery()
    bad = RawServer(response(503, "Retry-After: 1"), after_bytes=10, then_close=True)
    status = await each.start(bad).until_paused("answered 503")
    (pause,) = status.paused
    assert pause.authority == f"store {each.server.store_of['bad~test'].removeprefix('http://')}"
    assert 0 < pause.until - each.reactor.seconds() <= 1
    bad.answer = response(200)
    status = await each.until(lambda status: status.counts.delivered_files == GOOD_FILES + 1)
    assert bad.accepted == 2
    assert status.paused == ()
    assert status.counts.failed_tries == 0


@pytest_twisted.ensureDeferred
async def test_a_store_that_cannot_be_reached(delivery: OpenDelivery) -> None:
    """Nobody listens there: a pause, however often it is tried; nothing goes to failed."""
    each = delivery()
    gone = each.listen(RawServer(b""))
    await defer.maybeDeferred(each.ports.pop().stopListening)
    each.server.store_of["bad~test"] = gone
    await each.start(None).until_paused("cannot be reached")
    status = await each.until(lambda status: status.counts.paused_tries >= 3)
    assert (status.counts.failed_tries, status.counts.given_up_buckets) == (0, 0)


@pytest_twisted.ensureDeferred
async def test_a_signer_that_never_answers(delivery: OpenDelivery) -> None:
    """It is paused, for all; no bucket loses an attempt, and when it answers again all goes on."""
    each = delivery(timeout_seconds=0.2)
    each.server.next_signs.extend([never] * 4)
    each.start(None)
    status = await each.until(lambda status: bool(status.paused))
    assert [pause.authority for pause in status.paused] == ["signer"]
    status = await each.until(lambda status: status.counts.delivered_files == GOOD_FILES + 1)
    assert (status.counts.failed_tries, status.counts.given_up_buckets, status.paused) == (0, 0, ())


@pytest_twisted.ensureDeferred
async def test_a_crash_between_upload_and_deletion(delivery: OpenDelivery) -> None:
    """The next start sends the file again, under the same key."""
    each = delivery()
    received: list[bytes] = []

    def take_in_silence(request: Any) -> int:
        received.append(request.path)
        return never(request)

    each.server.next_puts.append(take_in_silence)
    each.stage(BAD, 10)
    each.thread.startService()
    each.uploader.startService()
    await each.until(lambda status: bool(received))
    await each.uploader.stopService()
    assert each.uploader.status().counts.broken_off == 1
    asked = [query["relative_file_path"] for query in each.server.asked]
    each.uploader = each.uploader_of(0.03)
    each.uploader.startService()
    await each.until(lambda status: status.counts.delivered_files == 1)
    assert [query["relative_file_path"] for query in each.server.asked] == asked * 2
    assert [key for _, key in each.server.objects] == asked


@pytest_twisted.ensureDeferred
async def test_a_refused_tenant(delivery: OpenDelivery) -> None:
    """403 from the signer pauses that tenant and nobody else."""
    each = delivery()
    sign = each.server._sign

    def refuse_one(request: Any) -> Any:
        return answer(403)(request) if request.args[b"tenant"] == [b"bad~test"] else sign(request)

    each.server.resource.children[b"analytics"].render = refuse_one
    status = await each.start(None).until_paused("signs nothing for this tenant")
    assert [pause.authority for pause in status.paused] == ["signer: bad~test"]


@pytest_twisted.ensureDeferred
async def test_a_signer_that_is_back_waits_for_no_store(delivery: OpenDelivery) -> None:
    """The file that probes the signer meets a store that never answers: that is over with its own time limit."""
    place = delivery(timeout_seconds=1.0)
    for number in range(2):
        tenant = f"bad{number}~test"
        place.server.store_of[tenant] = place.listen(RawServer(b""))
        place.stage(f"{tenant}~{stamp(START - 60)}", 10)
    place.server.next_signs.extend([answer(503, Retry_After="1")] * 4)
    place.start(RawServer(b""))
    status = await place.good_ones()
    assert status.counts.failed_tries == 1
    assert status.paused == ()
