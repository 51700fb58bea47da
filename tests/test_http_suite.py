"""Every parser of ours: what is taken, refused and cut, over real connections and in pieces; see `http_suite`."""

from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from axcollector.conversation import IDLE_SECONDS, LINGER_SECONDS, State
from tests.http_suite import (
    CUT,
    HIDDEN,
    LAST,
    LIMIT,
    PENDING,
    PROBE,
    REFUSED,
    SITES,
    TAKEN,
    TIMEOUT,
    Door,
    Recorder,
    Seen,
    post,
    tick,
)
from tests.wire import Connection, chunk, chunked

MakeSite = Callable[..., Any]
JSON = "application/json; charset=utf-8"
PIECES = (0, 1, 7)


@pytest.fixture(params=sorted(SITES))
def make_site(request: pytest.FixtureRequest) -> MakeSite:
    """What makes a site with one of the parsers."""
    return SITES[request.param]


class InMemory:
    """A site without a port, with its own time, and what its resource saw."""

    def __init__(self, make_site: MakeSite, *, at_once: bool = True) -> None:
        self.clock = Clock()
        self.resource = Recorder(at_once)
        self.site = make_site(
            self.resource,
            self.clock,
            max_body_bytes=LIMIT,
            max_pending_bytes=PENDING,
            request_timeout_seconds=TIMEOUT,
        )

    def ask(self, data: bytes, piece: int = 0) -> Connection:
        """A new connection on which this is sent."""
        connection = Connection(self.site)
        connection.send(data, piece)
        return connection

    def end(self, connection: Connection) -> None:
        """Hang up; nothing is left."""
        connection.hang_up()
        assert (self.clock.getDelayedCalls(), self.site.pending.held, self.site.channels) == ([], 0, set())


async def check_cut(door: Door, data: bytes, status: int) -> None:
    """What a connection sends is refused with this status, once, and nothing of it, or behind it, is seen."""
    bystander = await door.connect(post(line=b"POST /bystander HTTP/1.1"))
    await bystander.answers(1)
    client = await door.connect(data + PROBE)
    answers = await client.answers(2)  # there is but one, and the end
    assert client.is_closed
    assert [(a.status, a.headers["content-type"], a.headers["connection"]) for a in answers] == [
        (status, JSON, "close")
    ]
    bystander.transport.write(post(line=b"POST /bystander HTTP/1.1"))
    assert [(a.status, a.body) for a in await bystander.answers(2)] == [(200, b"/bystander")] * 2
    assert door.resource.seen == [Seen(b"/bystander", b"")] * 2


@pytest.mark.parametrize("case", REFUSED)
@pytest_twisted.ensureDeferred
async def test_refused(make_site: MakeSite, case: str) -> None:
    """What could be read in two ways is refused and closed; others see nothing of it."""
    async with Door(make_site) as door:
        await check_cut(door, REFUSED[case], 400)


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_pieces(make_site: MakeSite, case: str) -> None:
    """However its bytes come, and also behind another request."""
    for piece in PIECES:
        for before in (b"", PROBE):
            stand = InMemory(make_site)
            connection = stand.ask(before + REFUSED[case] + PROBE, piece)
            assert [a.status for a in connection.answers()] == ([200, 400] if before else [400])
            assert connection.closing
            assert stand.resource.seen == ([Seen(b"/probe", b"probe")] if before else [])
            connection.send(HIDDEN + PROBE)
            assert connection.answers() == []
            stand.end(connection)
            assert b"/smuggled" not in {seen.path for seen in stand.resource.seen}


@pytest.mark.parametrize("case", CUT)
@pytest_twisted.ensureDeferred
async def test_cut(make_site: MakeSite, case: str) -> None:
    """What breaks a limit is answered early; what follows, were it a request, is not read."""
    data, status = CUT[case]
    async with Door(make_site) as door:
        await check_cut_leniently(door, data, status)


async def check_cut_leniently(door: Door, data: bytes, status: int) -> None:
    """The same as `check_cut`, where the client may still be sending: then its connection may be reset."""
    client = await door.connect(data + PROBE)
    answers = await client.answers(2)
    assert client.is_closed
    assert [a.status for a in answers] in ([status], [])
    assert door.resource.seen == []


@pytest.mark.parametrize("case", CUT)
def test_cut_in_pieces(make_site: MakeSite, case: str) -> None:
    """However its bytes come, and also behind another request."""
    data, status = CUT[case]
    for piece in PIECES:
        for before in (b"", PROBE) if piece != 1 else (b"",):  # byte by byte they are long
            stand = InMemory(make_site)
            connection = stand.ask(before + data + PROBE, piece)
            assert [a.status for a in connection.answers()] == ([200, status] if before else [status])
            assert connection.closing
            assert stand.resource.seen == ([Seen(b"/probe", b"probe")] if before else [])
            connection.send(HIDDEN)
            assert stand.resource.seen == ([Seen(b"/probe", b"probe")] if before else [])
            stand.end(connection)


@pytest.mark.parametrize("case", TAKEN)
@pytest_twisted.ensureDeferred
async def test_taken(make_site: MakeSite, case: str) -> None:
    """What can be read in one way is taken so, and the next request is the one that was sent next."""
    data, expected = TAKEN[case]
    async with Door(make_site) as door:
        client = await door.connect(data + PROBE)
        answers = await client.answers(len(expected) + 1)
        assert [(a.status, a.body) for a in answers] == [(200, seen.path) for seen in expected] + [(200, b"/probe")]
        assert door.resource.seen == [*expected, Seen(b"/probe", b"probe")]


@pytest.mark.parametrize("case", TAKEN)
def test_taken_in_pieces(make_site: MakeSite, case: str) -> None:
    """However its bytes come."""
    data, expected = TAKEN[case]
    for piece in PIECES:
        stand = InMemory(make_site)
        connection = stand.ask(data + PROBE, piece)
        assert stand.resource.seen == [*expected, Seen(b"/probe", b"probe")]
        assert not connection.closing
        stand.end(connection)


@pytest.mark.parametrize("case", LAST)
@pytest_twisted.ensureDeferred
async def test_last(make_site: MakeSite, case: str) -> None:
    """A request that is the last one is answered, and what is sent behind it is nobody's."""
    async with Door(make_site) as door:
        client = await door.connect(LAST[case] + HIDDEN)
        assert [(a.status, a.headers["connection"]) for a in await client.answers(2)] in ([(200, "close")], [])
        assert client.is_closed
        assert door.resource.seen == [Seen(b"/x", b"")]


@pytest.mark.parametrize("case", LAST)
def test_last_in_memory(make_site: MakeSite, case: str) -> None:
    """The same where no reset may take the answer away."""
    for piece in PIECES:
        stand = InMemory(make_site)
        connection = stand.ask(LAST[case] + HIDDEN, piece)
        assert [(a.status, a.body) for a in connection.answers()] == [(200, b"/x")]
        assert connection.closing
        assert stand.resource.seen == [Seen(b"/x", b"")]
        stand.end(connection)


def test_a_chunk_beyond_all_numbers(make_site: MakeSite) -> None:
    """A chunk's size is never taken for its last bits."""
    for size in (b"10000000000000005", b"fffffffffffffffff", b"100000005"):
        stand = InMemory(make_site)
        connection = stand.ask(post(b"Transfer-Encoding: chunked", body=size + b"\r\nabcde\r\n0\r\n\r\n" + HIDDEN))
        assert stand.resource.seen == []
        assert [a.status for a in connection.answers()] in ([], [400], [413])
        stand.end(connection)


def test_small_chunks(make_site: MakeSite) -> None:
    """A body may come in small chunks as long as it is small."""
    stand = InMemory(make_site)
    connection = stand.ask(post(b"Transfer-Encoding: chunked", body=chunked(bytes(LIMIT), 1)))
    assert [a.status for a in connection.answers()] == [200]
    stand.end(connection)


# Leave to send


@pytest_twisted.ensureDeferred
async def test_leave_to_send(make_site: MakeSite) -> None:
    """A client that waits for leave to send its body gets it, also for its second request."""
    async with Door(make_site) as door:
        client = await door.connect()
        for count in (1, 3):
            client.transport.write(post(b"Expect: 100-continue", b"Content-Length: 4"))
            assert [a.status for a in await client.answers(count)][-1] == 100
            client.transport.write(b"body")
            assert [a.status for a in await client.answers(count + 1)][-1] == 200
        assert door.resource.seen == [Seen(b"/x", b"body")] * 2


@pytest_twisted.ensureDeferred
async def test_no_leave_to_send(make_site: MakeSite) -> None:
    """A client that waits for leave to send what is too large reads so instead, and sends nothing."""
    async with Door(make_site) as door:
        client = await door.connect(post(b"Expect: 100-continue", b"Content-Length: %d" % (LIMIT + 1)))
        assert [a.status for a in await client.answers(2)] == [413]
        assert (client.is_closed, door.resource.seen) == (True, [])


def test_expectations_of_http_1_0(make_site: MakeSite) -> None:
    """Expectations are of HTTP/1.1; those of older clients are passed over."""
    stand = InMemory(make_site)
    data = post(b"Expect: cow", b"Content-Length: 4", body=b"body", line=b"POST /x HTTP/1.0")
    connection = stand.ask(data)
    assert [a.status for a in connection.answers()] == [200]
    assert stand.resource.seen == [Seen(b"/x", b"body")]
    stand.end(connection)


# Pipelining


@pytest_twisted.ensureDeferred
async def test_pipelining(make_site: MakeSite) -> None:
    """Requests sent without waiting are answered one by one, in order."""
    async with Door(make_site) as door:
        paths = [b"/%d" % number for number in range(300)]
        client = await door.connect(b"".join(post(line=b"GET %b HTTP/1.1" % path) for path in paths))
        while len(door.resource.seen) < len(paths):
            door.clock.advance(0)
            await tick()
        assert [a.body for a in await client.answers(len(paths))] == paths


def test_pipelined_requests_take_turns(make_site: MakeSite) -> None:
    """One read may hold thousands of requests; between a few of them others are answered."""
    stand = InMemory(make_site)
    connection = stand.ask(post() * 100)
    assert len(stand.resource.seen) == 16
    assert connection.transport.producerState == "paused"
    other = stand.ask(PROBE)
    assert [a.body for a in other.answers()] == [b"/probe"]
    other.hang_up()
    by_turn: list[int] = []

    def others_turn() -> None:
        by_turn.append(len(stand.resource.seen) - 1)
        if by_turn[-1] < 100:
            stand.clock.callLater(0, others_turn)

    stand.clock.callLater(0, others_turn)
    stand.clock.advance(0)
    assert by_turn == [32, 48, 64, 80, 96, 100]
    assert connection.transport.producerState == "producing"
    assert [a.status for a in connection.answers()] == [200] * 100
    connection.send(PROBE)
    assert [a.body for a in connection.answers()] == [b"/probe"]
    stand.end(connection)


def test_hanging_up_between_turns(make_site: MakeSite) -> None:
    """A client that goes while its requests wait for their turn leaves nothing behind."""
    stand = InMemory(make_site)
    connection = stand.ask(post() * 100)
    stand.end(connection)
    assert len(stand.resource.seen) == 16


@pytest.mark.parametrize("piece", [1, 1000])
def test_what_waits_behind_is_bounded(make_site: MakeSite, piece: int) -> None:
    """While a request is being answered, the connection is not read from once 16 KiB of others have come."""
    stand = InMemory(make_site, at_once=False)
    connection = stand.ask(post())
    sent = 0
    behind = post(b"Content-Length: 900", body=bytes(900)) * 30
    while connection.transport.producerState == "producing":
        connection.send(behind[sent : sent + piece])
        sent += piece
        assert sent <= 16_384 + piece
    assert sent > 16_384
    stand.resource.answer()
    assert connection.transport.producerState == "producing"
    assert stand.resource.seen[1:] == [Seen(b"/x", bytes(900))]
    stand.end(connection)


def test_who_takes_no_answers_gets_no_more(make_site: MakeSite) -> None:
    """While answers are not taken no request is begun; once they are, all are answered."""
    stand = InMemory(make_site, at_once=False)
    connection = stand.ask(post() * 5)
    connection.transport.producer.pauseProducing()  # the kernel takes no more
    stand.resource.answer()
    assert (len(stand.resource.seen), connection.transport.producerState) == (1, "paused")
    connection.transport.producer.resumeProducing()
    assert (len(stand.resource.seen), connection.transport.producerState) == (2, "producing")
    for _ in range(4):
        stand.resource.answer()
    assert [a.status for a in connection.answers()] == [200] * 5
    stand.end(connection)


@pytest_twisted.ensureDeferred
async def test_who_never_reads_is_cut(make_site: MakeSite) -> None:
    """A client that sends requests and reads no answer is not read from any more, and in time its connection is cut."""
    async with Door(make_site) as door:
        client = await door.connect()
        client.transport.pauseProducing()
        request = post(line=b"GET /" + b"x" * 8000 + b" HTTP/1.1")
        last, quiet = -1, 0
        client.transport.write(request * 2000)  # 16 MB, more than the kernel keeps of both directions
        while quiet < 200:
            quiet = quiet + 1 if len(door.resource.seen) == last else 0
            last = len(door.resource.seen)
            door.clock.advance(0)
            await tick()
        assert 0 < last < 2000
        door.clock.pump([IDLE_SECONDS, LINGER_SECONDS])
        await tick()
        assert (door.site.channels, len(door.resource.seen)) == (set(), last)


# Time


@pytest_twisted.ensureDeferred
async def test_a_byte_a_second(make_site: MakeSite) -> None:
    """A client that sends a byte a second is cut after `request_timeout`, however long its request would take."""
    async with Door(make_site) as door:
        client = await door.connect()
        for byte in post(b"Content-Length: 100", body=bytes(100))[: int(TIMEOUT)]:
            client.transport.write(bytes([byte]))
            while not any(channel.conversation.state is State.RECEIVING for channel in door.site.channels):
                await tick()
            assert not client.is_closed
            door.clock.advance(1)
        assert [a.status for a in await client.answers(2)] == [408]
        assert (client.is_closed, door.resource.seen) == (True, [])


@pytest_twisted.ensureDeferred
async def test_silent_clients(make_site: MakeSite) -> None:
    """A client that says nothing is closed, without a word."""
    async with Door(make_site) as door:
        client = await door.connect()
        while not door.site.channels:
            await tick()
        door.clock.advance(IDLE_SECONDS)
        assert await client.answers(1) == []
        assert client.is_closed


@pytest_twisted.ensureDeferred
async def test_early_close(make_site: MakeSite) -> None:
    """Clients that go amid a head, a body, or before their answer leave nothing behind."""
    async with Door(make_site, at_once=False) as door:
        for data in (b"POST", post(b"Content-Length: 900", body=bytes(400)), post(b"Content-Length: 4", body=b"body")):
            client = await door.connect(data)
            while not door.site.channels:
                await tick()
            client.transport.loseConnection()
            await client.closed
            if data.endswith(b"body"):  # it may have gone, or only send no more
                await door.seen(1)
                door.resource.answer()
            while door.site.channels:
                await tick()
            assert door.site.pending.held == 0


# Clients that send no more, and wait


@pytest_twisted.ensureDeferred
async def test_a_client_that_sends_no_more(make_site: MakeSite) -> None:
    """What it has asked whole is answered, and the connection closed; also what waits for its turn."""
    async with Door(make_site, at_once=False) as door:
        client = await door.connect(post(line=b"GET /1 HTTP/1.1") + post(line=b"GET /2 HTTP/1.1") + b"GET /3")
        client.transport.loseWriteConnection()
        for count in (1, 2):
            await door.seen(count)
            (channel,) = door.site.channels
            while not channel._sends_no_more:
                await tick()
            assert not client.is_closed
            door.resource.answer()
        assert [a.body for a in await client.answers(3)] == [b"/1", b"/2"]
        assert client.is_closed
        assert len(door.resource.seen) == 2


def test_many_requests_of_one_who_sends_no_more(make_site: MakeSite) -> None:
    """They take turns as ever, and all are answered before the connection is closed."""
    stand = InMemory(make_site)
    connection = stand.ask(post() * 40 + b"GET")
    connection.protocol.readConnectionLost()
    connection.protocol.readConnectionLost()  # told again, because it was tried to read more
    assert (len(stand.resource.seen), connection.closing) == (16, False)
    stand.clock.advance(0)
    connection.protocol.writeConnectionLost()  # which is never told, and means nothing
    assert ([a.status for a in connection.answers()], connection.closing) == ([200] * 40, True)
    stand.end(connection)


@pytest.mark.parametrize("data", [b"", b"GET", post(b"Content-Length: 9", body=b"body"), post() + b"GET"])
def test_one_who_sends_no_more_and_asks_nothing(make_site: MakeSite, data: bytes) -> None:
    """Its connection is closed at once."""
    stand = InMemory(make_site)
    connection = stand.ask(data)
    connection.protocol.readConnectionLost()
    assert connection.closing
    stand.end(connection)


def test_one_who_sends_no_more_is_not_waited_for_without_end(make_site: MakeSite) -> None:
    """It may have gone, so its request is to be answered in the time that it would have had to send one."""
    stand = InMemory(make_site, at_once=False)
    connection = stand.ask(PROBE)
    stand.clock.advance(1000)
    connection.protocol.readConnectionLost()
    stand.clock.advance(TIMEOUT - 1)
    assert not connection.aborted
    stand.clock.advance(1)
    assert connection.aborted
    stand.end(connection)


# How many


@pytest_twisted.ensureDeferred
async def test_connections_in_all(make_site: MakeSite) -> None:
    """One connection too many is told so, in JSON, and closed; when another has gone there is room again."""
    async with Door(make_site, max_connections=2) as door:
        clients = [await door.connect(PROBE) for _ in range(2)]
        for client in clients:
            await client.answers(1)
        turned_away = await door.connect(PROBE)
        (answer,) = await turned_away.answers(1)
        said = (
            answer.status,
            answer.headers["content-type"],
            answer.headers["connection"],
            answer.headers["retry-after"],
        )
        assert said == (503, JSON, "close", "5")
        door.clock.advance(1)
        await turned_away.closed
        assert len(door.resource.seen) == 2
        clients[0].transport.loseConnection()
        while len(door.site.channels) == 2:
            await tick()
        again = await door.connect(PROBE)
        assert [a.status for a in await again.answers(1)] == [200]


@pytest_twisted.ensureDeferred
async def test_connections_of_one_address(make_site: MakeSite) -> None:
    """An address has its own limit; connections that have gone do not count."""
    async with Door(make_site, max_connections_per_address=2) as door:
        for _ in range(5):
            client = await door.connect(PROBE)
            await client.answers(1)
            client.transport.loseConnection()
            await client.closed
        while door.site.channels:
            await tick()
        kept = [await door.connect(PROBE) for _ in range(2)]
        for client in kept:
            assert [a.status for a in await client.answers(1)] == [200]
        assert [a.status for a in await (await door.connect(PROBE)).answers(1)] == [503]


@pytest_twisted.ensureDeferred
async def test_many_connections_too_many(make_site: MakeSite) -> None:
    """Those turned away are few at a time; more are closed without a word, and none stays."""
    async with Door(make_site, max_connections=1) as door:
        first = await door.connect(PROBE)
        await first.answers(1)
        others = [await door.connect() for _ in range(80)]
        statuses = [[a.status for a in await other.answers(1)] for other in others]
        assert (statuses.count([503]), statuses.count([])) == (64, 16)
        door.clock.pump([1, 1])
        for other in others:
            if not other.is_closed:
                await other.closed
        first.transport.write(PROBE)
        assert [a.status for a in await first.answers(2)] == [200, 200]


def test_pieces_of_a_chunk(make_site: MakeSite) -> None:
    """Chunks larger than what is taken apart at once come whole, in order, with what is behind them."""
    stand = InMemory(make_site)
    stand.site.max_body_bytes = PENDING
    body = bytes(index % 251 for index in range(50_000))
    for piece in (0, 4095, 4096, 4097):
        data = post(b"Transfer-Encoding: chunked", body=chunk(body[:30_000]) + chunk(body[30_000:]) + chunk(b""))
        connection = stand.ask(data + PROBE + PROBE, piece)
        assert stand.resource.seen == [Seen(b"/x", body), *[Seen(b"/probe", b"probe")] * 2]
        stand.resource.seen.clear()
        stand.end(connection)
