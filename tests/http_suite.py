"""What every parser of ours has to do, as tables of bytes and what is made of them, and real connections to ask with.

`SITES` names the parsers. Each case is sent as one stream of bytes, with a good request behind it: what is refused is
answered once, with its status, and closed, and no resource sees anything of it; what is taken is seen as it says.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Self

from twisted.internet import defer, endpoints, protocol, reactor
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from axcollector.site import IngestSite
from tests.wire import Answer, answers_in, chunk, chunked

SITES: Final[dict[str, Callable[..., Any]]] = {
    parser: partial(IngestSite, parser=parser) for parser in ("llhttp", "twisted")
}
"""What makes a site, by the name of its parser."""

LIMIT: Final = 1000
PENDING: Final = 100_000
TIMEOUT: Final = 60.0
HIDDEN: Final = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
"""A request that nobody sends; it stands where a body, or garbage, could be taken for one."""
PROBE: Final = b"POST /probe HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nprobe"


@dataclass(frozen=True)
class Seen:
    """What a resource got to see of a request."""

    path: bytes
    body: bytes


@dataclass
class Recorder(Resource):
    """Answers with the path, at once or when told to, and remembers what it saw."""

    at_once: bool = True
    seen: list[Seen] = field(default_factory=list)
    waiting: list[Any] = field(default_factory=list)
    isLeaf = True  # noqa: N815 - Twisted's name

    def __post_init__(self) -> None:
        super().__init__()

    def render(self, request: Any) -> bytes | int:
        self.seen.append(Seen(request.path, request.content.read()))
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


class Client(protocol.Protocol):
    """Keeps what it is sent; says when enough has come and when the connection is closed."""

    def __init__(self) -> None:
        self.received = b""
        self.is_closed = False
        self.closed: defer.Deferred[None] = defer.Deferred()
        self._wanted = 0
        self._came: defer.Deferred[None] | None = None

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._look()

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        self.is_closed = True
        self._look()
        self.closed.callback(None)

    def _look(self) -> None:
        if self._came is not None and (self.is_closed or self.received.count(b"HTTP/1.1 ") >= self._wanted):
            came, self._came = self._came, None
            reactor.callLater(0, came.callback, None)

    async def answers(self, count: int) -> list[Answer]:
        """The answers, once there are so many, or the connection is closed."""
        self._wanted, self._came = count, defer.Deferred()
        came = self._came
        self._look()
        await came
        return answers_in(self.received)


class Door:
    """A site on a real port, with its own time."""

    def __init__(self, make_site: Callable[..., Any], *, at_once: bool = True, **limits: Any) -> None:
        self.clock = Clock()
        self.resource = Recorder(at_once)
        usual = {"max_body_bytes": LIMIT, "max_pending_bytes": PENDING, "request_timeout_seconds": TIMEOUT}
        self.site = make_site(self.resource, self.clock, **{**usual, **limits})
        self._clients: list[Client] = []

    async def __aenter__(self) -> Self:
        self._port = await endpoints.TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(self.site)
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            client.transport.abortConnection()
            if not client.is_closed:
                await client.closed
        await self._port.stopListening()
        while self.site.channels or self.site.connections.turned_away:
            await tick()
        assert (self.clock.getDelayedCalls(), self.site.pending.held) == ([], 0)

    async def connect(self, data: bytes = b"") -> Client:
        """A new connection on which this is sent."""
        endpoint = endpoints.TCP4ClientEndpoint(reactor, "127.0.0.1", self._port.getHost().port)
        client = await endpoints.connectProtocol(endpoint, Client())
        client.transport.setTcpNoDelay(True)
        client.transport.write(data)
        self._clients.append(client)
        return client

    async def seen(self, count: int) -> list[Seen]:
        """What the resource has seen, once that is so much."""
        while len(self.resource.seen) < count:
            await tick()
        return self.resource.seen


def tick() -> "defer.Deferred[None]":
    """One turn of the reactor."""
    turned: defer.Deferred[None] = defer.Deferred()
    reactor.callLater(0, turned.callback, None)
    return turned


def post(*fields: bytes, body: bytes = b"", line: bytes = b"POST /x HTTP/1.1") -> bytes:
    """A request with these lines for header fields, and this behind its head."""
    return b"\r\n".join([line, b"Host: a", *fields, b"", body])


_CHUNKED: Final = b"Transfer-Encoding: chunked"
_LENGTH: Final = b"Content-Length: %d" % len(HIDDEN)
_SMALL: Final = chunk(b"abcde")
_END: Final = chunk(b"")
_BOTH: Final = _END + HIDDEN
"""With a length a body; in chunks, none, and a request."""


def _in_chunks(body: bytes) -> bytes:
    return post(_CHUNKED, body=body + HIDDEN)


REFUSED: Final[dict[str, bytes]] = {
    "lengths that differ": post(b"Content-Length: 0", _LENGTH, body=HIDDEN),
    "lengths that agree": post(_LENGTH, _LENGTH, body=HIDDEN),
    "a list of lengths": post(b"Content-Length: 35, 35", body=HIDDEN),
    "a length and chunks": post(b"Content-Length: 40", _CHUNKED, body=_BOTH),
    "chunks and a length": post(_CHUNKED, b"Content-Length: 40", body=_BOTH),
    "chunks and no length": post(_CHUNKED, b"Content-Length: 0", body=_BOTH),
    "a length and a strange coding": post(b"Content-Length: 40", b"Transfer-Encoding: xchunked", body=_BOTH),
    "a length and identity": post(b"Content-Length: 40", b"Transfer-Encoding: identity", body=_BOTH),
    "xchunked": post(b"Transfer-Encoding: xchunked", body=_BOTH),
    "identity": post(b"Transfer-Encoding: identity", body=_BOTH),
    "chunked twice": post(b"Transfer-Encoding: chunked, chunked", body=_BOTH),
    "two codings": post(_CHUNKED, _CHUNKED, body=_BOTH),
    "two codings, one strange": post(_CHUNKED, b"Transfer-Encoding: cow", body=_BOTH),
    "two codings, the first empty": post(b"Transfer-Encoding:", _CHUNKED, body=_BOTH),
    "identity and chunked": post(b"Transfer-Encoding: identity", _CHUNKED, body=_BOTH),
    "gzip and chunked": post(b"Transfer-Encoding: gzip, chunked", body=_BOTH),
    "chunked with a parameter": post(b"Transfer-Encoding: chunked;q=1", body=_BOTH),
    "chunked in quotes": post(b'Transfer-Encoding: "chunked"', body=_BOTH),
    "chunked with a comma": post(b"Transfer-Encoding: ,chunked", body=_BOTH),
    "an empty coding": post(b"Transfer-Encoding:", body=_BOTH),
    "a vertical tab before chunked": post(b"Transfer-Encoding: \x0bchunked", body=_BOTH),
    "a NUL behind chunked": post(b"Transfer-Encoding: chunked\0", body=_BOTH),
    "a blank before a coding's colon": post(b"Transfer-Encoding : chunked", body=_BOTH),
    "a tab before a coding's colon": post(b"Transfer-Encoding\t: chunked", body=_BOTH),
    "a NUL in a coding's name": post(b"Transfer-Encoding\0: chunked", body=_BOTH),
    "a blank before a coding's name": post(b"A: b", b" Transfer-Encoding: chunked", body=_BOTH),
    "a folded coding": post(b"Transfer-Encoding:", b" chunked", body=_BOTH),
    "a coding behind a bare LF": post(b"A: b\nTransfer-Encoding: chunked", body=_BOTH),
    "a coding behind a bare CR": post(b"A: b\rTransfer-Encoding: chunked", body=_BOTH),
    "a coding before a bare LF": post(b"Transfer-Encoding: chunked\nA: b", body=_BOTH),
    "chunks of HTTP/1.0": post(_CHUNKED, body=_BOTH, line=b"POST /x HTTP/1.0"),
    "a length with plus": post(b"Content-Length: +35", body=HIDDEN),
    "a negative length": post(b"Content-Length: -35", body=HIDDEN),
    "a hexadecimal length": post(b"Content-Length: 0x23", body=HIDDEN),
    "a length of two words": post(b"Content-Length: 3 5", body=HIDDEN),
    "a length with an underscore": post(b"Content-Length: 3_5", body=HIDDEN),
    "a fraction of a length": post(b"Content-Length: 35.0", body=HIDDEN),
    "an Arabic length": post("Content-Length: ٣٥".encode(), body=HIDDEN),
    "an empty length": post(b"Content-Length:", body=HIDDEN),
    "a length with a vertical tab": post(b"Content-Length: 35\x0b", body=HIDDEN),
    "a length of 20 digits": post(b"Content-Length: 18446744073709551651", body=HIDDEN),
    "a length of 5000 digits": post(b"Content-Length: " + b"9" * 5000, body=HIDDEN),
    "a blank before a length's colon": post(b"Content-Length : 35", body=HIDDEN),
    "a folded length": post(b"Content-Length: 3", b"\t5", body=HIDDEN),
    "a folded field": post(b"A: b", b"\tc", body=HIDDEN),
    "a first field that is folded": b"POST /x HTTP/1.1\r\n Host: a\r\n\r\n" + HIDDEN,
    "lines that end in LF": b"POST /x HTTP/1.1\nHost: a\n\n" + HIDDEN,
    "one line that ends in LF": b"POST /x HTTP/1.1\r\nHost: a\nA: b\r\n\r\n" + HIDDEN,
    "a head that ends in LF": b"POST /x HTTP/1.1\r\nHost: a\r\n\n" + HIDDEN,
    "lines that end in CR": b"POST /x HTTP/1.1\rHost: a\r\r" + HIDDEN,
    "a CR more": b"POST /x HTTP/1.1\r\r\nHost: a\r\n\r\n" + HIDDEN,
    "a NUL in a value": post(b"A: b\0c", body=HIDDEN),
    "a NUL in a name": post(b"A\0: b", body=HIDDEN),
    "an empty name": post(b": b", body=HIDDEN),
    "no colon": post(b"A", body=HIDDEN),
    "a blank before the colon": post(b"A : b", body=HIDDEN),
    "two hosts": post(b"Host: b", body=HIDDEN),
    "a blank before the method": post(line=b" POST /x HTTP/1.1", body=HIDDEN),
    "two blanks": post(line=b"POST  /x HTTP/1.1", body=HIDDEN),
    "a tab": post(line=b"POST\t/x HTTP/1.1", body=HIDDEN),
    "a blank in the target": post(line=b"POST /x /y HTTP/1.1", body=HIDDEN),
    "a control character in the target": post(line=b"POST /x\x01 HTTP/1.1", body=HIDDEN),
    "a blank behind the version": post(line=b"POST /x HTTP/1.1 ", body=HIDDEN),
    "a version of three digits": post(line=b"POST /x HTTP/1.10", body=HIDDEN),
    "a version in small letters": post(line=b"POST /x http/1.1", body=HIDDEN),
    "HTTP/0.9": b"GET /x\r\n" + HIDDEN,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n" + HIDDEN,
    "two empty lines": b"\r\n\r\n" + HIDDEN,
    "a chunk of size -5": _in_chunks(b"-5\r\nabcde\r\n" + _END),
    "a chunk of size +5": _in_chunks(b"+5\r\nabcde\r\n" + _END),
    "a chunk of size 0x5": _in_chunks(b"0x5\r\nabcde\r\n" + _END),
    "a chunk of size 1_0": _in_chunks(b"1_0\r\n0123456789abcdef\r\n" + _END),
    "a chunk of no size": _in_chunks(b"\r\nabcde\r\n" + _END),
    "a chunk of size g": _in_chunks(b"g\r\nabcde\r\n" + _END),
    "a blank before a chunk's size": _in_chunks(b" 5\r\nabcde\r\n" + _END),
    "a blank behind a chunk's size": _in_chunks(b"5 \r\nabcde\r\n" + _END),
    "a chunk's size that ends in LF": _in_chunks(b"5\nabcde\r\n" + _END),
    "a chunk's size that ends in CR": _in_chunks(b"5\rabcde\r\n" + _END),
    "a chunk's size of 2000 digits": _in_chunks(b"0" * 1999 + b"5\r\nabcde\r\n" + _END),
    "an LF in a chunk's extension": _in_chunks(b"5;a\nb\r\nabcde\r\n" + _END),
    "a NUL in a chunk's extension": _in_chunks(b"5;a=\0\r\nabcde\r\n" + _END),
    "a chunk's extension of 2000 bytes": _in_chunks(b"5;" + b"a" * 2000 + b"\r\nabcde\r\n" + _END),
    "a chunk without an end": _in_chunks(b"5\r\nabcde" + _END),
    "a chunk that ends in LF": _in_chunks(b"5\r\nabcde\n" + _END),
    "a chunk that is too short": _in_chunks(b"5\r\nabcd\r\n" + _END),
    "a chunk that is too long": _in_chunks(b"5\r\nabcdef\r\n" + _END),
    "an LF in a trailer": _in_chunks(_SMALL + b"0\r\nA: b\nC: d\r\n\r\n"),
    "a trailer that is none": _in_chunks(_SMALL + b"0\r\nA\r\n\r\n"),
    "a folded trailer": _in_chunks(_SMALL + b"0\r\nA: b\r\n c\r\n\r\n"),
}
"""What could be read in two ways, or is no HTTP/1.1: 400."""

TAKEN: Final[dict[str, tuple[bytes, list[Seen]]]] = {
    "a body that looks like a request": (post(_LENGTH, body=HIDDEN), [Seen(b"/x", HIDDEN)]),
    "chunks that look like a request": (post(_CHUNKED, body=chunked(HIDDEN, 9)), [Seen(b"/x", HIDDEN)]),
    "a chunk that looks like an end": (
        post(_CHUNKED, body=chunk(b"0\r\n\r\n" + HIDDEN) + _END),
        [Seen(b"/x", b"0\r\n\r\n" + HIDDEN)],
    ),
    "leading zeros": (post(b"Content-Length: 000035", body=HIDDEN), [Seen(b"/x", HIDDEN)]),
    "blanks around a length": (post(b"Content-Length: \t 35\t ", body=HIDDEN), [Seen(b"/x", HIDDEN)]),
    "a tab before chunked": (post(b"Transfer-Encoding:\tchunked", body=chunked(HIDDEN, 9)), [Seen(b"/x", HIDDEN)]),
    "chunked in capitals": (post(b"TRANSFER-ENCODING: ChunkeD", body=chunked(HIDDEN, 9)), [Seen(b"/x", HIDDEN)]),
    "extensions": (
        post(_CHUNKED, body=b'5;a=b;c="d;e"\r\nabcde\r\n0;f\r\n\r\n'),
        [Seen(b"/x", b"abcde")],
    ),
    "trailers": (
        post(_CHUNKED, body=_SMALL + b"0\r\nContent-Length: 35\r\nTransfer-Encoding: chunked\r\nHost: b\r\n\r\n"),
        [Seen(b"/x", b"abcde")],
    ),
    "a coding by another name": (
        post(b"Transfer_Encoding: chunked", b"Content-Length: 5", body=b"abcde"),
        [Seen(b"/x", b"abcde")],
    ),
    "no body": (post(), [Seen(b"/x", b"")]),
    "an empty line first": (b"\r\n" + post(), [Seen(b"/x", b"")]),
    "an absolute URI": (post(line=b"GET http://elsewhere:80/y?z HTTP/1.1"), [Seen(b"/y", b"")]),
    "an absolute URI of nothing": (post(line=b"GET http://elsewhere HTTP/1.1"), [Seen(b"/", b"")]),
    "an authority": (post(line=b"CONNECT elsewhere:443 HTTP/1.1"), [Seen(b"/elsewhere:443", b"")]),
    "an upgrade": (post(b"Connection: Upgrade", b"Upgrade: h2c"), [Seen(b"/x", b"")]),
    "two requests": (post(_LENGTH, body=HIDDEN) + post(), [Seen(b"/x", HIDDEN), Seen(b"/x", b"")]),
}
"""What can be read in one way only, and how it is."""

LAST: Final[dict[str, bytes]] = {
    "close": post(b"Connection: close"),
    "close among others": post(b"Connection: keep-alive, Close"),
    "close in a second field": post(b"Connection: TE", b"Connection: close"),
    "HTTP/1.0": post(line=b"POST /x HTTP/1.0"),
    "HTTP/1.0 that would go on": post(b"Connection: keep-alive", line=b"POST /x HTTP/1.0"),
}
"""Requests behind whose answer the connection is closed."""

_FAR: Final = 5 * LIMIT
CUT: Final[dict[str, tuple[bytes, int]]] = {
    "a body far too large": (post(b"Content-Length: %d" % _FAR, body=HIDDEN * 200), 413),
    "chunks far too large": (post(_CHUNKED, body=chunked(HIDDEN * 200, 350)), 413),
    "one chunk far too large": (post(_CHUNKED, body=b"10000000000000005\r\n" + HIDDEN * 200), 413),
    "extensions larger than the body": (
        post(_CHUNKED, body=(b"1;" + b"a" * 900 + b"\r\na\r\n") * 50 + _END + HIDDEN),
        400,
    ),
    "an expectation": (post(b"Expect: 200-ok", _LENGTH, body=HIDDEN), 417),
    "an expectation among others": (post(b"Expect: 100-continue, cow", _LENGTH, body=HIDDEN), 417),
    "two expectations": (post(b"Expect: 100-continue", b"Expect: cow", _LENGTH, body=HIDDEN), 417),
    "a body too large to wait for": (
        post(b"Expect: 100-continue", b"Content-Length: %d" % (LIMIT + 1), body=HIDDEN * 50),
        413,
    ),
    "a request line too long": (post(line=b"GET /" + b"x" * 9000 + b" HTTP/1.1") + HIDDEN, 414),
    "a request line that does not end": (b"GET /" + b"x" * 20_000 + HIDDEN, 414),
    "a field too long": (post(b"A: " + b"b" * 17_000, body=HIDDEN), 431),
    "too many fields": (post(*[b"A: b"] * 500, body=HIDDEN), 431),
    "fields too long together": (post(*[b"A: " + b"b" * 1000] * 17, body=HIDDEN), 431),
}
"""What breaks a limit while it is received, and its status."""
