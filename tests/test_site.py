"""Our Site: what it limits while a request is still being received, and when it closes connections."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from twisted.internet import defer, endpoints, protocol, reactor
from twisted.internet.task import Clock
from twisted.logger import LogEvent
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from axcollector.conversation import IDLE_SECONDS
from axcollector.site import IngestRequest, IngestSite
from tests.wire import Answer, Connection, answers_in, chunk, chunked, request

LIMIT = 1000
PENDING = 2500
TIMEOUT = 60.0


@dataclass
class Seen:
    """What a resource got to see of a request."""

    method: bytes
    path: bytes
    body: bytes
    oversize: bool
    shed: bool


@dataclass
class Recorder(Resource):
    """Answers with the path, at once or when told to, and remembers what it saw."""

    at_once: bool = True
    seen: list[Seen] = field(default_factory=list)
    waiting: list[IngestRequest] = field(default_factory=list)
    isLeaf = True  # noqa: N815 - Twisted's name

    def __post_init__(self) -> None:
        super().__init__()

    def render(self, request: IngestRequest) -> bytes | int:
        reception = request.reception
        self.seen.append(Seen(request.method, request.path, request.content.read(), reception.oversize, reception.shed))
        if self.at_once:
            return request.path
        self.waiting.append(request)
        return NOT_DONE_YET

    def answer(self) -> None:
        """Answer the request that waits longest."""
        given = self.waiting.pop(0)
        given.setHeader(b"Content-Length", b"%d" % len(given.path))
        given.write(given.path)
        given.finish()


class Door:
    """A site, its resource, its clock and its clients."""

    def __init__(self, parser: str, *, at_once: bool = True) -> None:
        self.clock = Clock()
        self.resource = Recorder(at_once)
        self.site = IngestSite(
            self.resource,
            self.clock,
            max_body_bytes=LIMIT,
            max_pending_bytes=PENDING,
            request_timeout_seconds=TIMEOUT,
            parser=parser,
        )
        self.connections: list[Connection] = []

    def connect(self) -> Connection:
        """A new connection."""
        self.connections.append(Connection(self.site))
        return self.connections[-1]

    def ask(self, data: bytes, piece: int = 0) -> Connection:
        """A new connection on which this is sent."""
        connection = self.connect()
        connection.send(data, piece)
        return connection

    def check_nothing_left(self) -> None:
        """When all have hung up nothing is held, open or scheduled."""
        for connection in self.connections:
            connection.hang_up()
        assert self.clock.getDelayedCalls() == []
        assert (self.site.pending.held, self.site.channels) == (0, set())


PARSERS = ("llhttp", "twisted")


@pytest.fixture(params=PARSERS)
def parser(request: pytest.FixtureRequest) -> str:
    """What parses requests."""
    name: str = request.param
    return name


@pytest.fixture
def door(parser: str) -> Iterator[Door]:
    """A site whose resource answers at once."""
    made = Door(parser)
    yield made
    made.check_nothing_left()


@pytest.fixture
def late(parser: str) -> Iterator[Door]:
    """A site whose resource answers when it is told to."""
    made = Door(parser, at_once=False)
    yield made
    made.check_nothing_left()


def said(connection: Connection) -> list[tuple[int, bytes]]:
    """Status and body of each answer."""
    return [(answer.status, answer.body) for answer in connection.answers()]


def status_and_type(answer: Answer) -> tuple[int, str, str]:
    """What an answer that no resource gave says of itself."""
    return answer.status, answer.headers["content-type"], answer.headers["connection"]


def cut_with(connection: Connection) -> list[int]:
    """The statuses that were answered, the last with a JSON body, before the connection was closed."""
    assert connection.closing
    found = connection.answers()
    assert status_and_type(found[-1])[1:] == ("application/json; charset=utf-8", "close")
    return [answer.status for answer in found]


# Bodies


FRAMINGS = [(chunks, piece) for chunks in (0, 1, 7, 5 * LIMIT) for piece in (0, 1, 13)]
"""How long a body's chunks are (0: one body of announced length), and the pieces in which all arrives (0: at once)."""


@pytest.mark.parametrize("size", [0, 1, LIMIT])
def test_bodies(door: Door, size: int) -> None:
    """A body up to the limit comes whole, however it is framed and in whatever pieces it arrives."""
    body = bytes(i % 251 for i in range(size))
    for chunks, piece in FRAMINGS:
        connection = door.ask(request("POST", "/x", body, chunks=chunks), piece)
        assert door.resource.seen.pop() == Seen(b"POST", b"/x", body, oversize=False, shed=False)
        assert said(connection) == [(200, b"/x")]
        assert not connection.closing


@pytest.mark.parametrize("size", [LIMIT + 1, 2 * LIMIT])
def test_oversize_bodies(door: Door, size: int) -> None:
    """A body over the limit is drained and dropped, and its request goes on to the resource, which is told."""
    for chunks, piece in FRAMINGS:
        connection = door.ask(request("POST", "/x", bytes(size), chunks=chunks), piece)
        assert door.resource.seen.pop() == Seen(b"POST", b"/x", b"", oversize=True, shed=False)
        assert said(connection) == [(200, b"/x")]
        connection.send(request("POST", "/y", b"behind"))
        assert door.resource.seen.pop().body == b"behind"
        assert said(connection) == [(200, b"/y")]


def test_far_too_large_bodies(door: Door) -> None:
    """Past twice the limit the connection is cut, with an answer that no resource gave, and closed in any case."""
    for chunks, piece in FRAMINGS:
        connection = door.ask(request("POST", "/x", bytes(5 * LIMIT), chunks=chunks), piece)
        assert cut_with(connection) == [413]
        assert door.site.pending.held == 0
        connection.send(request("POST", "/y"))
        assert connection.answers() == []
        door.clock.advance(5)
        assert connection.aborted
        connection.hang_up()
    assert door.resource.seen == []


def test_oversize_bodies_are_not_held(door: Door) -> None:
    """What is known to be too large takes no memory: from the start where it was announced, else from then on."""
    announced = door.ask(b"POST /x HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (LIMIT + 1) + bytes(LIMIT))
    assert door.site.pending.held == 0
    found_out = door.ask(b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(bytes(LIMIT)))
    assert door.site.pending.held == LIMIT
    found_out.send(chunk(b"x"))
    assert door.site.pending.held == 0
    found_out.send(chunk(bytes(LIMIT - 1)) + chunk(b""))
    announced.send(b"x")
    assert [(seen.oversize, seen.body) for seen in door.resource.seen] == [(True, b"")] * 2


# Room for bodies


def test_room_for_bodies(late: Door) -> None:
    """All bodies together have a limit; what does not fit is dropped, and fits again when another is answered."""
    for _ in range(2):
        late.ask(request("POST", "/held", bytes(LIMIT)))
    shed = late.ask(request("POST", "/shed", bytes(501)))
    fits = late.ask(request("POST", "/fits", bytes(500)))
    assert late.site.pending.held == 2500
    assert [(seen.path, seen.shed) for seen in late.resource.seen] == [
        (b"/held", False),
        (b"/held", False),
        (b"/shed", True),
        (b"/fits", False),
    ]
    assert [len(seen.body) for seen in late.resource.seen[2:]] == [0, 500]
    late.resource.answer()
    assert late.site.pending.held == 1500
    for _ in range(3):
        late.resource.answer()
    assert [said(shed), said(fits)] == [[(200, b"/shed")], [(200, b"/fits")]]
    assert late.site.pending.held == 0


def test_shed_while_received(late: Door) -> None:
    """A body that stops fitting half-way gives back what it held; it can still turn out too large."""
    for _ in range(2):
        late.ask(request("POST", "/held", bytes(LIMIT)))
    connection = late.ask(b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(bytes(400)))
    assert late.site.pending.held == 2400
    connection.send(chunk(bytes(400)))
    assert late.site.pending.held == 2000
    connection.send(chunk(bytes(100)) + chunk(bytes(400)) + chunk(b""))
    assert Seen(b"POST", b"/x", b"", oversize=True, shed=True) == late.resource.seen[-1]
    assert late.site.pending.held == 2000


@pytest.mark.parametrize("whole", [True, False])
def test_hang_up_gives_room_back(late: Door, whole: bool) -> None:
    """A client that goes, be it amid its body or while it waits, leaves nothing behind."""
    data = request("POST", "/x", bytes(LIMIT))
    connection = late.ask(data if whole else data[:-1])
    assert LIMIT - (not whole) == late.site.pending.held
    connection.hang_up()
    assert late.site.pending.held == 0


def test_nothing_is_held_of_what_was_cut(late: Door) -> None:
    """A chunk that would make a body far too large cuts its connection, and what came before is held no longer."""
    connection = late.ask(b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(bytes(LIMIT - 1)))
    assert late.site.pending.held == LIMIT - 1
    connection.send(chunk(bytes(LIMIT + 2)))
    assert cut_with(connection) == [413]
    assert late.site.pending.held == 0


def test_answer_after_hang_up(late: Door) -> None:
    """An answer that nobody waits for any more gives nothing back twice."""
    connection = late.ask(request("POST", "/x", bytes(LIMIT)))
    told: list[Failure] = []
    late.resource.waiting[0].notifyFinish().addErrback(told.append)
    connection.hang_up()
    with pytest.raises(RuntimeError, match="finish called on a request after its connection was lost"):
        late.resource.answer()
    assert (late.site.pending.held, len(told)) == (0, 1)


@dataclass
class Model:
    """What a connection's present request is believed to hold."""

    connection: Connection
    received: int = 0
    held: int = 0
    dropped: bool = False
    state: str = "idle"


class RoomMachine(RuleBasedStateMachine):
    """Whatever clients do, what is held is what the unanswered bodies that were kept are long."""

    parser = "llhttp"
    connections = Bundle("connections")

    def __init__(self) -> None:
        super().__init__()
        self.door = Door(self.parser, at_once=False)
        self.models: list[Model] = []
        self.asked: list[Model] = []

    @rule(target=connections)
    def connect(self) -> Model:
        model = Model(self.door.connect())
        self.models.append(model)
        return model

    @rule(model=connections)
    def begin(self, model: Model) -> None:
        if model.state == "idle":
            model.connection.send(b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
            model.state, model.received, model.dropped = "receiving", 0, False

    @rule(model=connections, size=st.integers(1, 1200))
    def send(self, model: Model, size: int) -> None:
        if model.state != "receiving":
            return
        room = PENDING - sum(each.held for each in self.models)
        model.connection.send(chunk(bytes(size)))
        model.received += size
        model.dropped = model.dropped or model.received > LIMIT or size > room
        model.held = 0 if model.dropped else model.received
        if model.received > 2 * LIMIT:
            model.state = "cut"
            assert cut_with(model.connection) == [413]

    @rule(model=connections)
    def end(self, model: Model) -> None:
        if model.state == "receiving":
            model.connection.send(chunk(b""))
            model.state = "waiting"
            self.asked.append(model)

    @rule()
    def answer(self) -> None:
        if self.asked:
            model = self.asked.pop(0)
            self.door.resource.answer()
            assert said(model.connection) == [(200, b"/x")]
            model.state, model.held = "idle", 0

    @rule(model=consumes(connections))
    def hang_up(self, model: Model) -> None:
        if model.state == "waiting":
            position = self.asked.index(model)
            self.asked.pop(position)
            self.door.resource.waiting.pop(position)
        model.connection.hang_up()
        model.state, model.held = "gone", 0

    @rule()
    def time_passes(self) -> None:
        self.door.clock.pump([TIMEOUT, 5, 5])
        for model in self.models:
            if model.state == "receiving":
                model.state, model.held = "cut", 0
                assert cut_with(model.connection) == [408]
            if model.state == "idle" and model.connection.closing:
                model.state = "cut"
            if model.state == "cut":
                assert model.connection.aborted
                model.connection.hang_up()

    @invariant()
    def held(self) -> None:
        assert sum(model.held for model in self.models) == self.door.site.pending.held <= PENDING

    def teardown(self) -> None:
        self.door.check_nothing_left()


class TwistedRoomMachine(RoomMachine):
    """The same with Twisted's parser."""

    parser = "twisted"


TestRoom = RoomMachine.TestCase
TestTwistedRoom = TwistedRoomMachine.TestCase


# Time


def test_slow_client(door: Door) -> None:
    """A request that does not come whole in time is cut, however regularly its bytes come."""
    connection = door.connect()
    for byte in request("POST", "/x", bytes(100))[: int(TIMEOUT)]:
        connection.send(bytes([byte]))
        assert not connection.closing
        door.clock.advance(1)
    assert cut_with(connection) == [408]
    connection.send(b"more")
    assert not connection.aborted
    door.clock.advance(5)
    assert connection.aborted
    assert door.resource.seen == []


@pytest.mark.parametrize(
    "begun",
    [
        b"P",
        b"POST /late HTTP/1.1\r\n",
        b"POST /late HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
        b"POST /late HTTP/1.1\r\nContent-Length: 5\r\n\r\nabcd",
        b"POST /late HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
    ],
)
@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"GET /x HTTP/1.1\r\n\r\n",
        request("POST", "/x", b"body"),
        request("POST", "/x", b"body", chunks=3),
    ],
)
def test_request_begun_and_never_ended(parser: str, first: bytes, begun: bytes) -> None:
    """A request of which anything has come is cut in time, also one that came, early, behind another."""
    for at_once, piece in ((True, 0), (True, 1), (False, 0), (False, 1)):
        door = Door(parser, at_once=at_once)
        connection = door.ask(first + begun, piece)
        if first and not at_once:
            door.clock.advance(10 * TIMEOUT)
            assert not connection.closing
            door.resource.answer()
        door.clock.advance(TIMEOUT - 1)
        assert not connection.closing
        door.clock.advance(1)
        assert cut_with(connection) == ([200, 408] if first else [408])
        door.check_nothing_left()


def test_time_while_answering(late: Door) -> None:
    """An answer may take its time; the next request's time begins when it does."""
    connection = late.ask(request("POST", "/x"))
    late.clock.advance(10 * TIMEOUT)
    late.resource.answer()
    late.clock.advance(TIMEOUT)
    assert said(connection) == [(200, b"/x")]
    assert not connection.closing
    connection.send(b"POST /y HTTP/1.1\r\n")
    late.clock.advance(TIMEOUT - 1)
    connection.send(b"Content-Length: 0\r\n\r\n")
    late.clock.advance(TIMEOUT)
    late.resource.answer()
    assert said(connection) == [(200, b"/y")]
    assert not connection.closing


@pytest.mark.parametrize("first", [b"", request("POST", "/x", b"body"), b"GET /x HTTP/1.1\r\n\r\n"])
def test_idle_connections(door: Door, log_events: list[LogEvent], first: bytes) -> None:
    """A connection on which nothing happens is closed, without a word, and aborted where that takes long."""
    connection = door.ask(first)
    door.clock.advance(IDLE_SECONDS - 1)
    assert not connection.closing
    connection.transport.clear()
    door.clock.advance(1)
    assert connection.closing
    assert not connection.aborted
    assert connection.answers() == []
    door.clock.advance(5)
    assert connection.aborted
    assert log_events == []


def test_idle_time_begins_with_the_last_answer(late: Door) -> None:
    """Neither the time an answer took nor that of earlier requests counts as idle."""
    connection = late.connect()
    for _ in range(3):
        connection.send(request("POST", "/x"))
        late.clock.advance(IDLE_SECONDS)
        late.resource.answer()
        late.clock.advance(IDLE_SECONDS - 1)
    assert not connection.closing
    late.clock.advance(1)
    assert connection.closing


def test_stalled_request_with_a_long_timeout(parser: str) -> None:
    """A request that is being received is no idle connection, however long its time is."""
    door = Door(parser)
    door.site.request_timeout_seconds = 10 * IDLE_SECONDS
    connection = door.ask(b"POST /x HTTP/1.1\r\n")
    door.clock.pump([IDLE_SECONDS] * 9)
    assert not connection.closing
    door.clock.advance(IDLE_SECONDS)
    assert cut_with(connection) == [408]
    door.check_nothing_left()


# Connections


@given(
    parser=st.sampled_from(PARSERS),
    bodies=st.lists(st.tuples(st.integers(0, 300), st.sampled_from([0, 1, 50])), min_size=1, max_size=4),
    piece=st.integers(0, 40),
    at_once=st.booleans(),
)
def test_pipelining(parser: str, bodies: list[tuple[int, int]], piece: int, at_once: bool) -> None:
    """Requests sent without waiting are answered one by one, in order, each with its own body."""
    door = Door(parser, at_once=at_once)
    data = b"".join(
        request("POST", f"/{number}", bytes([number]) * size, chunks=chunks)
        for number, (size, chunks) in enumerate(bodies)
    )
    connection = door.ask(data, piece)
    if not at_once:
        for number in range(len(bodies)):
            assert number + 1 == len(door.resource.seen)
            door.resource.answer()
    assert [bytes([number]) * size for number, (size, _) in enumerate(bodies)] == [
        seen.body for seen in door.resource.seen
    ]
    assert [(200, b"/%d" % number) for number in range(len(bodies))] == said(connection)
    assert not connection.closing
    door.check_nothing_left()


def test_pipelined_bytes_are_bounded(late: Door) -> None:
    """While a request is being answered no more than a little is read of those behind it."""
    connection = late.ask(request("POST", "/x"))
    connection.send(request("POST", "/y", bytes(LIMIT)) * 20, 1000)
    assert connection.transport.producerState == "paused"
    late.resource.answer()
    assert connection.transport.producerState == "producing"


@pytest.mark.parametrize("expectation", ["100-continue", "100-Continue"])
def test_expect_continue(door: Door, expectation: str) -> None:
    """A client that waits for leave to send its body gets it."""
    head = f"POST /x HTTP/1.1\r\nExpect: {expectation}\r\nContent-Length: 4\r\n\r\n".encode()
    connection = door.ask(head)
    assert connection.transport.value() == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.transport.clear()
    connection.send(b"body")
    assert said(connection) == [(200, b"/x")]
    assert door.resource.seen[0].body == b"body"


@pytest.mark.parametrize(
    "data",
    [
        request("POST", "/x", b"body", version="1.0"),
        request("POST", "/x", b"body", (("Connection", "keep-alive"),), version="1.0"),
        request("POST", "/x", b"body", (("Connection", "close"),)),
        request("POST", "/x", b"body", (("Connection", "Close"),), chunks=2),
    ],
)
def test_last_requests(door: Door, data: bytes) -> None:
    """After an HTTP/1.0 request, or one that asks for it, the connection is closed; what follows is dropped."""
    connection = door.ask(data + request("POST", "/never"))
    assert connection.closing
    assert said(connection) == [(200, b"/x")]
    connection.send(request("POST", "/never"))
    assert [seen.path for seen in door.resource.seen] == [b"/x"]
    assert not connection.aborted
    door.clock.advance(5)
    assert connection.aborted


def test_http_1_0_without_a_length(door: Door) -> None:
    """A body of unannounced length is no body."""
    connection = door.ask(b"POST /x HTTP/1.0\r\n\r\n")
    assert said(connection) == [(200, b"/x")]
    assert door.resource.seen[0].body == b""


def test_head(late: Door) -> None:
    """The answer to HEAD has no body, and the connection goes on."""
    connection = late.ask(b"HEAD /x HTTP/1.1\r\n\r\nPOST /y HTTP/1.1\r\n\r\n")
    late.resource.answer()
    assert [(a.status, a.headers["content-length"]) for a in connection.answers(heads_only=True)] == [(200, "2")]
    late.resource.answer()
    assert said(connection) == [(200, b"/y")]


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/a/b?c=d", b"/a/b"),
        ("http://example.com:80/a/b?c=d", b"/a/b"),
        ("HTTPS://example.com/a%2Fb", b"/a%2Fb"),
        ("http://example.com", b"/"),
        ("http://example.com?c", b"/"),
        ("*", b"/*"),
        ("example.com:443", b"/example.com:443"),
        ("xanalytics", b"/xanalytics"),
        ("?c", b"/"),
        ("//a//b/", b"//a//b/"),
    ],
)
def test_targets(door: Door, target: str, path: bytes) -> None:
    """A request is for a path, whatever the form in which it is asked for; none is answered by Twisted itself."""
    connection = door.ask(request("OPTIONS", target))
    assert [path] == [seen.path for seen in door.resource.seen]
    assert [(200, path)] == said(connection)


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"nonsense\r\n",
        b"GET /x\r\n",
        b"GET /x y HTTP/1.1\r\n",
        b"GET /x HTTP/2.0\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"G@T /x HTTP/1.1\r\n",
        b"GET /\xff HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n",
        b"POST /x HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /x HTTP/1.1\r\nA header: x\r\n\r\n",
        b"POST /x HTTP/1.1\r\nA: x\0y\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 2000,
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: x\r\n" * 20_000,
    ],
)
def test_what_is_no_http(door: Door, data: bytes) -> None:
    """What is not well-formed gets a 400, in JSON, and the connection is closed."""
    for piece in (0, 1):
        connection = door.ask(data + request("POST", "/never"), piece)
        assert cut_with(connection) == [400]
        connection.send(request("POST", "/never"))
        assert connection.answers() == []
    assert door.resource.seen == []


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /" + b"x" * 20_000, 414),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /" + b"x" * (8192 - 13) + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 20_000, 431),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 20_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"A: xxxxxxxxxx\r\n" * 2000 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"A: x\r\n" * 501 + b"\r\n", 431),
    ],
)
def test_large_heads(door: Door, head: bytes, status: int) -> None:
    """A head over the limits gets a 431, its first line a 414, in JSON, and the connection is closed."""
    for piece in (0, 1000):
        assert cut_with(door.ask(head, piece)) == [status]
        assert cut_with(door.ask(b"GET /first HTTP/1.1\r\n\r\n" + head, piece)) == [200, status]


def test_largest_head(door: Door) -> None:
    """A head at the limits is taken."""
    connection = door.ask(b"GET /x HTTP/1.1\r\n" + b"A: x\r\n" * 500 + b"\r\n")
    connection.send(b"GET /x?" + b"x" * (8192 - 16) + b" HTTP/1.1\r\n\r\n")
    connection.send(b"GET /x HTTP/1.1\r\nA: " + b"x" * (16_384 - 18) + b"\r\n\r\n")
    assert said(connection) == [(200, b"/x")] * 3


FRAGMENTS = [
    b"POST /x HTTP/1.1\r\n",
    b"GET http://host/ HTTP/1.0\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 3000\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Expect: 100-continue\r\n",
    b"Cookie: a; b=c;;\r\n",
    b"\r\n",
    b"5\r\nabcde\r\n",
    b"0\r\n\r\n",
    bytes(LIMIT),
    b" ",
    b"\n",
]


@given(
    parser=st.sampled_from(PARSERS),
    data=st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=9), max_size=12).map(b"".join),
    piece=st.integers(0, 20),
)
def test_any_bytes(parser: str, data: bytes, piece: int) -> None:
    """No bytes bring the door down: they are waited on, or answered, or answered and cut."""
    door = Door(parser)
    connection = door.ask(data, piece)
    door.clock.pump([TIMEOUT, IDLE_SECONDS])
    assert connection.closing
    assert {answer.status for answer in connection.answers()} <= {100, 200, 400, 408, 413, 414, 417, 431}
    door.check_nothing_left()


def test_form_bodies_are_left_alone(door: Door) -> None:
    """A form is a body like any other; nobody parses it, or its Content-Type."""
    for content_type in ("application/x-www-form-urlencoded", "multipart/form-data", "multipart/form-data; boundary=x"):
        door.ask(request("POST", "/x", b"a=b", (("Content-Type", content_type),)))
    assert [seen.body for seen in door.resource.seen] == [b"a=b"] * 3


def test_hang_up_while_waiting(late: Door) -> None:
    """A client that hangs up while it waits is told of to the resource, and others are not touched."""
    gone, stays = late.ask(request("POST", "/x")), late.ask(request("POST", "/y"))
    told: list[object] = []
    for waiting in late.resource.waiting:
        waiting.notifyFinish().addBoth(told.append)
    gone.hang_up()
    assert [isinstance(each, Failure) for each in told] == [True]
    late.resource.waiting.pop(0)
    late.resource.answer()
    assert said(stays) == [(200, b"/y")]
    assert told[1:] == [None]


def test_http_2_is_not_offered(door: Door) -> None:
    """Over TLS only HTTP/1.1 is agreed on, also where Twisted could do more."""
    assert door.site.acceptableProtocols() == [b"http/1.1"]


def test_close_idle(late: Door) -> None:
    """On shutdown idle connections close at once, and those being answered behind their answer, which says so."""
    fresh, used, receiving, answering = (late.connect() for _ in range(4))
    used.send(request("POST", "/x"))
    late.resource.answer()
    receiving.send(b"POST /x HTTP/1.1\r\nContent-Length: 4\r\n\r\n")
    answering.send(request("POST", "/x") + request("POST", "/never"))
    late.site.close_idle()
    assert [each.closing for each in (fresh, used, receiving, answering)] == [True, True, True, False]
    late.site.close_idle()
    late.resource.answer()
    assert answering.closing
    assert [(a.status, a.headers["connection"]) for a in answering.answers()] == [(200, "close")]
    assert len(late.resource.seen) == 2


def test_draining(late: Door) -> None:
    """What ends the process waits until answers have been taken, but not for ever."""
    for hangs_up in (True, False):
        connection = late.connect()
        connection.send(request("POST", "/x"))
        late.site.close_idle()
        late.resource.answer()
        drained = defer.ensureDeferred(late.site.answers_taken())
        late.clock.advance(0.5)
        assert not drained.called
        if hangs_up:
            connection.hang_up()
        late.clock.pump([0.01] * (1 if hangs_up else 100))
        assert drained.called
    connection.hang_up()
    assert defer.ensureDeferred(late.site.answers_taken()).called


def test_close_idle_behind_a_request_being_cut(door: Door) -> None:
    """A connection that is being closed already is closed once."""
    connection = door.ask(b"nonsense\r\n")
    door.clock.advance(4)
    door.site.close_idle()
    door.clock.advance(1)
    assert connection.aborted


# Real connections


class Client(protocol.Protocol):
    """Keeps what it is sent; says when something has come and when the connection is closed."""

    def __init__(self) -> None:
        self.received = b""
        self.first: defer.Deferred[None] = defer.Deferred()
        self.closed: defer.Deferred[bytes] = defer.Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if not self.first.called:
            self.first.callback(None)

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        self.closed.callback(self.received)


class Port:
    """A site on a real port."""

    def __init__(self, parser: str, *, at_once: bool = True, timeout: float = TIMEOUT) -> None:
        self.resource = Recorder(at_once)
        self.site = IngestSite(
            self.resource,
            reactor,
            max_body_bytes=LIMIT,
            max_pending_bytes=PENDING,
            request_timeout_seconds=timeout,
            parser=parser,
        )

    async def __aenter__(self) -> Self:
        self.port = await endpoints.TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(self.site)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.port.stopListening()
        assert set() == self.site.channels

    async def connect(self, data: bytes) -> Client:
        """A new connection on which this is sent."""
        endpoint = endpoints.TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port)
        client = await endpoints.connectProtocol(endpoint, Client())
        client.transport.write(data)
        return client


@pytest_twisted.ensureDeferred
async def test_real_slow_client(parser: str) -> None:
    """A client that stops amid its request reads why it is cut."""
    async with Port(parser, timeout=0.05) as port:
        client = await port.connect(b"POST /x HTTP/1.1\r\n")
        assert [answer.status for answer in answers_in(await client.closed)] == [408]


@pytest_twisted.ensureDeferred
async def test_real_oversize_body(parser: str) -> None:
    """A client whose body is too large reads the answer."""
    async with Port(parser) as port:
        body = chunked(bytes(2 * LIMIT), LIMIT)
        head = b"POST /x HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        client = await port.connect(head + body)
        assert [(answer.status, answer.body) for answer in answers_in(await client.closed)] == [(200, b"/x")]
        assert [seen.oversize for seen in port.resource.seen] == [True]


@pytest_twisted.ensureDeferred
async def test_real_shutdown(parser: str) -> None:
    """On shutdown an idle client sees its connection closed, and one that waits gets its answer first."""
    async with Port(parser, at_once=False) as port:
        idle = await port.connect(request("GET", "/idle"))
        while not port.resource.waiting:
            await tick()
        port.resource.answer()
        await idle.first
        waiting = await port.connect(request("POST", "/waiting", b"body"))
        while not port.resource.waiting:
            await tick()
        port.site.close_idle()
        assert [(answer.status, answer.body) for answer in answers_in(await idle.closed)] == [(200, b"/idle")]
        port.resource.answer()
        assert [(answer.status, answer.body) for answer in answers_in(await waiting.closed)] == [(200, b"/waiting")]


@pytest_twisted.ensureDeferred
async def test_real_hang_up(parser: str) -> None:
    """A client that goes amid its body leaves nothing behind."""
    async with Port(parser) as port:
        client = await port.connect(request("POST", "/x", bytes(LIMIT))[:-1])
        while not port.site.pending.held:
            await tick()
        client.transport.abortConnection()
        await client.closed
        while port.site.channels:
            await tick()
        assert port.site.pending.held == 0


def tick() -> "defer.Deferred[None]":
    """One turn of the reactor."""
    turned: defer.Deferred[None] = defer.Deferred()
    reactor.callLater(0, turned.callback, None)
    return turned
