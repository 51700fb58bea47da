"""Two parsers, and with one of them two ways to the routes: whatever is sent, both answer the same."""

import gzip
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPushProducer
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import directlyProvides

from tests.effort import either
from tests.test_webapi import JSON, PUBLISHER, RECORD, Stand, batch
from tests.wire import Connection, answers_in, request

Headers = tuple[tuple[str, bytes], ...]

TARGETS = st.sampled_from(
    [
        *("/analytics/s1", "/analytics/s1/", "/analytics/s1?a=b", "/%61nalytics/s1", "/analytics/%731"),
        *("/analytics", "/analytics/", PUBLISHER, PUBLISHER + "?", "/analytics%2Fs1", "//analytics/s1"),
        *("http://elsewhere/analytics/s1", "/analytics/nobody", "/analytics/s1/more", "/", "*", "/openapi.json"),
        *("/axpublisher/organization/x/environment/y", "/axpublisher/organization//environment/prod"),
        *("analytics/s1", "/analytics/s1#a", "/analytics/S1", "/analytics/s.1", "/analytics/\xe9"),
    ]
)
METHODS = st.sampled_from(["POST"] * 6 + ["GET", "HEAD", "PUT", "OPTIONS", "post", "FOO", "CONNECT", "PRI", "SOURCE"])
BODIES = st.sampled_from(
    [
        *(batch(), batch(RECORD, RECORD), batch(organization="acme", environment="prod"), batch(organization="acme")),
        *(b"", b"{", b"[]", b"{}", batch({}), batch(7), b'{"records":[]}', b" " * 4001, batch() + b"x"),
    ]
)
FIELDS = st.lists(
    st.sampled_from(
        [
            *[("Content-Type", b"application/json")] * 4,
            *(("content-TYPE", b"application/json; charset=utf-8"), ("Content-Type", b"text/plain")),
            *(("Content-Encoding", b"gzip"), ("Content-Encoding", b"br"), ("Content-Encoding", b"identity")),
            *(("Connection", b"close"), ("Connection", b"keep-alive"), ("Upgrade", b"h2c"), ("Connection", b"Upgrade")),
            *(("Authorization", b"Bearer x"), ("Cookie", b"a=b"), ("Host", b"a"), ("Accept", b"")),
            *(("Expect", b"100-continue"), ("X-Odd", b"\xff\x80"), ("Proxy-Connection", b"close")),
        ]
    ),
    max_size=5,
).map(tuple)


@pytest.fixture
def stands(tmp_path: Path) -> Iterator[tuple[Stand, Stand]]:
    """The same routes behind either parser."""
    roots = [tmp_path / name for name in ("llhttp", "twisted")]
    for root in roots:
        root.mkdir()
    made = Stand(roots[0], parser="llhttp"), Stand(roots[1], parser="twisted")
    yield made
    for stand in made:
        assert (stand.site.pending.held, stand.clock.getDelayedCalls()) == (0, [])


def said(stand: Stand, data: bytes, piece: int) -> tuple[list[bytes], bool]:
    """The lines that a client gets, in the order of the alphabet and without the time; whether it is hung up on."""
    connection = Connection(stand.site)
    connection.send(data, piece)
    lines = re.sub(rb"\r\nDate: [^\r]+", b"\r\nDate: now", connection.transport.value()).split(b"\r\n")
    closing = connection.closing
    connection.hang_up()
    return sorted(lines), closing


@given(
    METHODS,
    TARGETS,
    FIELDS,
    BODIES,
    st.sampled_from(["1.1", "1.1", "1.0"]),
    st.sampled_from([0, 0, 3]),
    st.sampled_from([0, 0, 1, 11]),
    st.booleans(),
)
@example("POST", "/analytics/s1", (("Content-Type", b"application/json"),), batch(), "1.1", 0, 0, False)
@example("POST", "/analytics/s1", (("Content-Type", b"application/json"),), batch(), "1.0", 0, 0, False)
@example("HEAD", "/openapi.json", (), b"", "1.1", 0, 0, False)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=either(300, 100))
def test_both_answer_the_same(
    stands: tuple[Stand, Stand],
    method: str,
    target: str,
    fields: Headers,
    body: bytes,
    version: str,
    chunks: int,
    piece: int,
    gzipped: bool,
) -> None:
    """Status, headers, body and end, whatever the path, method, version, framing and headers."""
    body = gzip.compress(body, mtime=0) if gzipped else body
    data = request(method, target.encode("latin-1"), body, fields, version=version, chunks=chunks)
    llhttp, twisted = (said(stand, data, piece) for stand in stands)
    assert llhttp == twisted


def test_both_keep_the_same(stands: tuple[Stand, Stand]) -> None:
    """What is kept, and what is said of several requests in one read, is the same."""
    data = b"".join(
        [
            request("POST", "/analytics/s1", batch(), (JSON,)),
            request("GET", "/nowhere"),
            request("POST", PUBLISHER, batch(), (JSON,), chunks=7),
            request("POST", "/analytics", batch(organization="acme", environment="prod"), (JSON,)),
            request("POST", "/analytics/%731", batch(), (JSON, ("Connection", "close"))),
        ]
    )
    for piece in (0, 1, 100):
        llhttp, twisted = (said(stand, data, piece) for stand in stands)
        assert llhttp == twisted
        assert sorted(re.findall(rb"HTTP/1.1 (\d+)", b"".join(llhttp[0]))) == [b"200"] * 4 + [b"404"]
    assert stands[0].kept() == stands[1].kept()
    assert len(stands[0].kept()) == 12


def test_date(stands: tuple[Stand, Stand]) -> None:
    """The date of an answer is that of its second."""
    stand = stands[0]
    for seconds, expected in ((0, "Thu, 01 Jan 1970 00:00:00 GMT"), (3.5, "Thu, 01 Jan 1970 00:00:03 GMT")):
        stand.clock.advance(seconds)
        assert stand.ask(request("POST", "/analytics/s1", batch(), (JSON,))).headers["date"] == expected


class Kernel(StringTransport):
    """A connection of which the kernel takes so many bytes at once; -1: it is lost, as shows when it is written to."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.queued = b""

    def writeSomeData(self, data: bytes) -> int | ConnectionLost:
        if self.room < 0:
            return ConnectionLost()
        taken, self.room = min(self.room, len(data)), self.room - min(self.room, len(data))
        self.io.write(bytes(data[:taken]))
        return taken

    def write(self, data: bytes) -> None:
        self.queued += data

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))


class Wrapped:
    """A connection that passes on what it does not have itself, as TLS does."""

    def __init__(self, inner: Kernel) -> None:
        self.inner = inner
        self.written = b""

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def write(self, data: bytes) -> None:
        self.written += data


@pytest.mark.parametrize("room", [-1, 0, 1, 100, 10_000])
def test_what_the_kernel_leaves(stands: tuple[Stand, Stand], room: int) -> None:
    """What the kernel does not take at once is sent behind what it took, and everything else behind that."""
    channel, kernel = stands[0].site.buildProtocol(None), Kernel(room)
    channel.makeConnection(kernel)
    data = request("POST", "/analytics/s1", batch(), (JSON,))
    for each in (data, data, request("GET", "/nowhere"), data):
        channel.dataReceived(each)
    sent = kernel.value() + kernel.queued
    channel.connectionLost(Failure(ConnectionDone()))
    assert [answer.status for answer in answers_in(sent)] == [200, 200, 404, 200]
    assert len(kernel.value()) == (min(max(room, 0), sent.index(b"HTTP/1.1 404")))


def test_nothing_is_sent_past_tls(stands: tuple[Stand, Stand]) -> None:
    """What wraps a connection is written to, not what it wraps, though that would take bytes at once."""
    channel, wrapped = stands[0].site.buildProtocol(None), Wrapped(Kernel(10_000))
    directlyProvides(wrapped, IPushProducer)
    channel.makeConnection(wrapped)
    channel.dataReceived(request("POST", "/analytics/s1", batch(), (JSON,)))
    channel.connectionLost(Failure(ConnectionDone()))
    assert [answer.status for answer in answers_in(wrapped.written)] == [200]
    assert (wrapped.inner.value(), wrapped.inner.queued) == (b"", b"")
