"""Heads that come again and again: what is answered and kept is the same, whether they are remembered or not."""

import gzip
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from axcollector.core.catalog import Catalog
from axcollector.core.model import Tenant
from axcollector.core.rates import RateLimits
from axcollector.core.tables import APPS, DEVELOPERS, MAPPER, PRODUCTS, SCOPES
from axcollector.core.unpacking import Limits
from axcollector.llhttp_parts import Message
from axcollector.reception import Incoming, Pending
from axcollector.routes import Asked, Route
from axcollector.tokens import Token
from axcollector.usual import Head, Usual, head_of
from tests.fakes import HeldThread, SameThread
from tests.test_webapi import GZIP, JSON, LINE, PUBLISHER, RECORD, Stand, Tenants, batch
from tests.wire import Connection, request

GOOD = request("POST", "/analytics/s1", batch(), (JSON,))
OTHER = request("POST", "/analytics/s2", batch(RECORD, RECORD), (JSON,))
KNOWN = {"s1": Tenant("s1", "acme", "prod"), "s2": Tenant("s2", "acme", "test")}


def catalog_of_two() -> Catalog:
    """The tenants s1 and s2, with one key each."""
    made = Catalog()
    made.load(SCOPES, [("s1", "s1", "acme", "prod"), ("s2", "s2", "acme", "test")])
    made.load(PRODUCTS, [(scope, "p", "p") for scope in KNOWN])
    made.load(DEVELOPERS, [(scope, "d", "d", "e") for scope in KNOWN])
    made.load(APPS, [(scope, "a", "a", "d", None) for scope in KNOWN])
    made.load(MAPPER, [(scope, "key", "a", "p", None) for scope in KNOWN])
    return made


class Catalogued(Tenants):
    """Knows what the catalog knows, or that nothing can be asked at once; counts who is asked for with patience."""

    def __init__(self, catalog: Catalog | None) -> None:
        super().__init__()
        self.known = dict(KNOWN)
        self.catalog: Any = catalog
        self.asked = 0

    async def tenant_for_scope(self, scope: str) -> Tenant:
        self.asked += 1
        return await super().tenant_for_scope(scope)

    async def tenant_for_names(self, organization: str, environment: str) -> Tenant:
        self.asked += 1
        return await super().tenant_for_names(organization, environment)


def stand(root: Path, *, remembers: bool = True, **others: Any) -> Stand:
    """The routes behind llhttp; without remembering, each head is taken apart."""
    root.mkdir()
    return Stand(root, directory=Catalogued(catalog_of_two() if remembers else None), **others)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Callable[..., Stand]]:
    """Makes a stand; in the end no bytes are held, and no timer runs."""
    made: list[Stand] = []

    def make(**others: Any) -> Stand:
        made.append(stand(tmp_path / str(len(made)), **others))
        return made[-1]

    yield make
    assert [(each.site.pending.held, each.clock.getDelayedCalls()) for each in made] == [(0, [])] * len(made)


def asked(stand: Stand) -> int:
    """How many requests were looked at with patience."""
    assert isinstance(stand.directory, Catalogued)
    return stand.directory.asked


def known(stand: Stand, data: bytes = GOOD) -> Connection:
    """A connection of which the head of this request is remembered."""
    connection = Connection(stand.site)
    connection.send(data)
    connection.send(data)
    assert [answer.status for answer in connection.answers()] == [200, 200]
    return connection


# The same, remembered or not

TARGETS = [
    "/analytics/s1",
    "/analytics/s1?a",
    "/analytics/s2",
    "/analytics/nobody",
    PUBLISHER,
    "/analytics",
    "/%61nalytics/s1",
    "/x",
]
HEADERS = [
    *[(JSON,)] * 4,
    *((JSON, ("Content-Encoding", "gzip")), (JSON, ("Content-Encoding", "br")), (("Content-Type", "text/plain"),)),
    *((JSON, ("Connection", "close")), (JSON, ("Expect", "100-continue")), (JSON, ("X-Length", "Content-Length: 1"))),
    *((JSON, ("Host", "a")), (JSON, ("Authorization", "Bearer x")), (JSON, ("Content-Length", "1"))),
]
BODIES = [
    *[batch()] * 3,
    *(batch(RECORD, RECORD), batch(RECORD | {"x": "é"}), batch(RECORD | {"organization": None}), batch({})),
    *(b"", b"{", b'{"records":[]}', b" " * 4001, batch() + b"x", batch(organization="acme", environment="prod")),
    *(
        batch(RECORD | {"client_received_start_timestamp": 10**30}),
        gzip.compress(batch(), mtime=0),
        batch(*[RECORD] * 6),
    ),
]
REQUESTS = st.tuples(
    st.sampled_from(["POST"] * 9 + ["GET"]),
    st.sampled_from(TARGETS + ["/analytics/s1", "/analytics/s2"] * 3),
    st.sampled_from(BODIES),
    st.sampled_from(HEADERS),
    st.sampled_from(["1.1"] * 5 + ["1.0"]),
    st.sampled_from([0] * 9 + [7]),
)
USUAL = ("POST", "/analytics/s1", batch(), (JSON,), "1.1", 0)


def lines_of(connection: Connection) -> bytes:
    """What a client gets, without the time."""
    return re.sub(rb"\r\nDate: [^\r]+", b"", connection.transport.value())


@given(
    st.lists(st.tuples(REQUESTS, st.integers(1, 4)), min_size=1, max_size=6),
    st.lists(st.integers(1, 400), max_size=12),
    st.booleans(),
    st.booleans(),
)
@example([(USUAL, 4), (("POST", "/analytics/s1", b"{", (JSON,), "1.1", 0), 2), (USUAL, 4)], [], False, True)
@example([(USUAL, 4), (("POST", "/analytics/s1", batch({}), (JSON,), "1.1", 0), 2), (USUAL, 4)], [], False, False)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
def test_what_is_remembered_changes_nothing(
    here: Callable[..., Stand],
    wanted: list[tuple[tuple[Any, ...], int]],
    cuts: list[int],
    waits: bool,
    hangs_up: bool,
) -> None:
    """Whatever is sent on a connection, however it is cut: the same answers, the same end, the same lines kept."""
    requests = [
        request(method, target, body, headers, version=version, chunks=chunks)
        for (method, target, body, headers, version, chunks), count in wanted
        for _ in range(count)
    ]
    pieces = requests
    if cuts:
        whole, pieces = b"".join(requests), []
        for cut in [*cuts, len(whole)]:
            pieces, whole = [*pieces, whole[:cut]], whole[cut:]
    found = []
    for remembers in (True, False):
        thread = HeldThread() if waits else SameThread()
        door = here(remembers=remembers, writer=thread)
        connection, seen = Connection(door.site), []
        for piece in filter(None, pieces):
            connection.send(piece)
            seen.append((lines_of(connection), door.site.pending.held, connection.closing))
            while isinstance(thread, HeldThread) and thread.jobs and not hangs_up:
                thread.step()
            door.clock.advance(0)
        if hangs_up:
            connection.hang_up()
        while isinstance(thread, HeldThread) and thread.jobs:
            thread.step()
        found.append((seen, lines_of(connection), connection.closing, door.kept(), door.spool.waiting))
        connection.hang_up()
    assert found[0] == found[1]


# The same, in whatever pieces, and whatever happens meanwhile

LARGE = Limits(max_body_bytes=30_000, max_decompressed_bytes=40_000, max_batch_records=5)


def sized(size: int) -> bytes:
    """A request with a body of so many bytes; their text is compressed to nothing much, but differs by place."""
    body = batch(RECORD | {"x": ""})
    filler = "".join(map(str, range(size // 4)))[: size - len(body)]
    return request("POST", "/analytics/s1", batch(RECORD | {"x": filler}), (JSON,))


HEAD_SIZE = GOOD.index(b"{")
SENT = [
    *(GOOD, OTHER, sized(4096), sized(4097), sized(9000), sized(12_000), sized(29_990)),
    *(sized(30_001), sized(61_000)),  # too large; far too large
    request("POST", "/analytics/s1", b"x" * 9000, (JSON,)),
    b"\r\n" + sized(9000),
    request("POST", "/analytics/s1", batch({"x": "y" * 9000}), (JSON,)),
    request("POST", "/analytics/s1", batch(RECORD | {"x": "y" * 9000}), (JSON,), chunks=4000),
    request("POST", "/analytics/s1", gzip.compress(batch(RECORD | {"x": "y" * 9000}), 0, mtime=0), (JSON, GZIP)),
]
SIZES = st.sampled_from([1, 2, HEAD_SIZE - 1, HEAD_SIZE, HEAD_SIZE + 1, 4095, 4096, 4097, 8192, 15_000, 65_536])
EVENTS = ["written"] * 4 + [
    "no room",
    "room",
    "unknown",
    "known",
    "failing disk",
    "drain",
    "late",
    "idle",
    "half",
    "gone",
]


class Talk:
    """One client's talk with a stand, and what happens to it meanwhile; what is seen of both, step by step."""

    def __init__(self, stand: Stand) -> None:
        self.stand, self.connection = stand, Connection(stand.site)
        self.seen: list[tuple[object, ...]] = []
        assert isinstance(stand.directory, Catalogued)
        self.catalog = stand.directory.catalog

    def take(self, data: bytes) -> None:
        """More comes."""
        if self.connection.open:
            self.connection.send(data)

    def happen(self, event: str) -> None:
        """Something happens, and what is seen then is noted."""
        getattr(self, "_" + event.replace(" ", "_"), lambda: None)()
        self.stand.clock.advance(0.01)
        site, connection = self.stand.site, self.connection
        self.seen.append((lines_of(connection), site.pending.held, connection.closing, connection.aborted))

    def finish(self) -> None:
        """All is well again, and all is written."""
        for event in ("room", "known", *["written"] * 30):
            self.happen(event)

    def _written(self) -> None:
        thread = self.stand.writer
        assert isinstance(thread, HeldThread)
        if thread.jobs:
            thread.step()

    def _no_room(self) -> None:
        self.stand.site.pending.limit = 5000

    def _room(self) -> None:
        self.stand.site.pending.limit = 1 << 20

    def _unknown(self) -> None:
        self.stand.directory.known = self.stand.directory.catalog = None

    def _known(self) -> None:
        self.stand.directory.known = dict(KNOWN)
        self.stand.directory.catalog = self.catalog

    def _failing_disk(self) -> None:
        self.stand.room.lack = None if self.stand.room.lack else "no room"

    def _drain(self) -> None:
        self.stand.site.drain()

    def _late(self) -> None:
        self.stand.clock.advance(61)

    def _idle(self) -> None:
        self.stand.site.close_idle()

    def _half(self) -> None:
        if self.connection.open:
            self.connection.protocol.readConnectionLost()

    def _gone(self) -> None:
        self.connection.hang_up()


MOMENTS = st.tuples(SIZES, st.sampled_from(["written"] * 12 + EVENTS), st.integers(1, 3))


@given(
    st.lists(st.integers(0, len(SENT) - 1), min_size=1, max_size=5), st.lists(MOMENTS, max_size=30), st.integers(0, 6)
)
@example([6, 6], [(4096, "", 8)] * 3, 0)
@example([6], [(8192, "", 1), (8192, "late", 1)], 0)
@example([6], [(8192, "", 1), (8192, "drain", 1), (65_536, "", 1)], 0)
@example([6], [(8192, "", 1), (8192, "no room", 1), (65_536, "room", 1)], 0)
@example([6], [(8192, "", 1), (8192, "gone", 1)], 0)
@example([6], [(8192, "", 1), (8192, "half", 1)], 0)
@example([6], [(8192, "", 1), (8192, "unknown", 1), (65_536, "", 1)], 0)
@example([10], [(2, "", 1), (5000, "", 1)], 0)
@example([4, 7, 4], [(65_536, "written", 1)], 2)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_pieces_change_nothing(
    here: Callable[..., Stand], requests: list[int], moments: list[tuple[int, str, int]], whole: int
) -> None:
    """However requests are cut, and whatever happens amid them: the same answers, bytes held, end, and lines.

    Of what came nothing is there in the end: each piece is held by this test alone.
    """
    stream = b"".join(SENT[each] for each in requests)
    pieces: list[tuple[bytes, str]] = []
    for size, event, times in moments:
        for _ in range(times):
            pieces.append((stream[:size], event if len(pieces) % times == 0 else ""))
            stream = stream[size:]
    pieces += [(data, "written") for data in (stream[:whole], stream[whole:])]
    found = []
    for remembers in (True, False):
        talk = Talk(here(remembers=remembers, writer=HeldThread(), limits=LARGE))
        for data in (GOOD, GOOD):
            talk.take(data)
            talk.happen("written")
        counts = [sys.getrefcount(data) for data, _ in pieces]
        for data, event in pieces:
            talk.take(data)
            talk.happen(event)
        talk.finish()
        talk.take(GOOD)  # no part of it where one was left unfinished
        talk.finish()
        del data
        if talk.connection.open and not (talk.connection.closing or talk.connection.aborted):
            assert talk.stand.site.pending.held == 0
            left = [sys.getrefcount(data) for data, _ in pieces]
            assert [
                len(data)
                for (data, _), now, then in zip(pieces, left, counts, strict=True)
                if len(data) > 1 and now > then
            ] == []
        talk.connection.hang_up()
        found.append((talk.seen, talk.stand.kept(), talk.stand.spool.waiting))
    assert found[0] == found[1]


def test_it_is_remembered(here: Callable[..., Stand]) -> None:
    """From the third request on nothing is asked with patience, whatever the lengths; a new connection begins anew."""
    door = here()
    connection = known(door)
    assert asked(door) == 2
    connection.send(request("POST", "/analytics/s1", batch(RECORD, RECORD, RECORD), (JSON,)))
    connection.send(GOOD)
    assert [answer.body for answer in connection.answers()] == [b'{"accepted": %d, "rejected": 0}' % n for n in (3, 1)]
    assert asked(door) == 2
    assert door.kept() == [("acme~prod", LINE)] * 6
    connection.hang_up()
    known(door, GOOD).hang_up()
    assert asked(door) == 4


@pytest.mark.parametrize(
    "usual", [request("POST", PUBLISHER, batch(), (JSON,)), GOOD.replace(b"Content-Length", b"content-length")]
)
def test_other_usual_heads(here: Callable[..., Stand], usual: bytes) -> None:
    """A tenant's names in the path, and another spelling of the length, are remembered as well."""
    door = here()
    connection = known(door, usual)
    connection.send(usual)
    assert (connection.answers()[0].status, asked(door)) == (200, 2)
    connection.hang_up()


def test_another_tenant_on_the_same_connection(here: Callable[..., Stand]) -> None:
    """Tenants may take turns on one connection, by scope or by names; none is asked for with patience again."""
    door = here()
    connection = known(door)
    for data in (OTHER, GOOD, request("POST", PUBLISHER, batch(), (JSON,)), OTHER, GOOD):
        connection.send(data)
    assert ([answer.status for answer in connection.answers()], asked(door)) == ([200] * 5, 2)
    kept = [tenant for tenant, _ in door.kept()]
    assert kept == ["acme~prod"] * 2 + ["acme~test"] * 2 + ["acme~prod"] * 2 + ["acme~test"] * 2 + ["acme~prod"]
    connection.hang_up()


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/analytics/nobody", 400),
        ("/analytics", 400),
        ("/analytics/s2?a", 200),
        ("/analytics/%732", 200),
        ("http://localhost/analytics/s2", 200),
        ("/other/s2", 404),
        ("/analytics/s2/", 200),
        ("/analytics/" + "s" * 2000, 400),
    ],
)
def test_other_paths_are_taken_as_ever(here: Callable[..., Stand], target: str, status: int) -> None:
    """What is no ordinary path of a tenant that is known is answered as on any connection."""
    found = []
    for remembers in (True, False):
        connection = known(here(remembers=remembers))
        connection.send(request("POST", target, batch(), (JSON,)))
        (answer,) = connection.answers()
        found.append((answer.status, answer.body))
        connection.hang_up()
    assert found[0] == found[1]
    assert found[0][0] == status


def test_another_tenant_needs_a_token_of_its_own(here: Callable[..., Stand]) -> None:
    """The head that was let in to one scope is refused at another that its token is not for."""
    door = here(tokens=OneToken())
    headers = (JSON, ("Authorization", "Bearer secret"))
    connection = known(door, request("POST", "/analytics/s1", batch(), headers))
    connection.send(request("POST", "/analytics/s2", batch(), headers))
    connection.send(request("POST", PUBLISHER, batch(), headers))
    connection.send(request("POST", "/analytics/s1", batch(), headers))
    assert [answer.status for answer in connection.answers()] == [403, 200, 200]
    connection.hang_up()


def test_what_is_refused_is_told_as_ever(here: Callable[..., Stand]) -> None:
    """A remembered head with a bad body, and what no room is for, get the answers that anybody gets."""
    door = here()
    connection = known(door)
    connection.send(request("POST", "/analytics/s1", batch({}), (JSON,)))
    door.room.lack = "no room"
    connection.send(GOOD)
    door.room.lack = None
    door.directory.catalog = None
    connection.send(GOOD)
    connection.send(GOOD)
    assert [answer.status for answer in connection.answers()] == [400, 503, 200, 200]
    connection.hang_up()


def test_the_catalog_is_asked_each_time(here: Callable[..., Stand]) -> None:
    """A tenant that is gone is gone for whoever's head is remembered, too; and so is the catalog."""
    door = here()
    connection = known(door)
    door.directory.catalog = Catalog()
    door.directory.known = {}
    connection.send(GOOD)
    connection.answers()
    door.directory.known = None
    connection.send(GOOD)
    assert [answer.status for answer in connection.answers()] == [500]
    connection.hang_up()


def test_a_spool_that_is_closed(here: Callable[..., Stand]) -> None:
    """It is answered with 503, as to anybody."""
    door = here()
    connection = known(door)
    door.spool.close()
    connection.send(GOOD)
    assert [(answer.status, "retry-after" in answer.headers) for answer in connection.answers()] == [(503, True)]
    connection.hang_up()


@pytest.mark.parametrize("fails", [False, True])
def test_the_answer_comes_with_the_commit(here: Callable[..., Stand], fails: bool) -> None:
    """Not before; and what comes behind the request waits for it."""
    thread = HeldThread()
    door = here(writer=thread)
    door.clock.advance(60)
    connection = Connection(door.site)
    for _ in range(2):
        connection.send(GOOD)
        thread.step()
    connection.answers()
    if fails:
        door.clock.advance(70)  # another interval, so another journal, which cannot be made
        door.disk.full = True
    connection.send(GOOD)
    assert (connection.answers(), door.site.pending.held) == ([], len(batch()))
    connection.send(GOOD)
    thread.step()
    (answer,) = connection.answers()
    assert (answer.status, "retry-after" in answer.headers) == ((503, True) if fails else (200, False))
    thread.step()
    assert len(connection.answers()) == 1
    connection.hang_up()


def test_hanging_up_before_the_answer(here: Callable[..., Stand]) -> None:
    """The batch is kept, nothing is held, and nobody is told."""
    thread = HeldThread()
    door = here(writer=thread)
    connection = Connection(door.site)
    for _ in range(2):
        connection.send(GOOD)
        thread.step()
    connection.answers()
    connection.send(GOOD)
    connection.hang_up()
    assert door.site.pending.held == 0
    thread.step()
    assert (connection.answers(), len(door.kept()), door.spool.waiting) == ([], 3, 0)


def test_closing_behind_the_answer(here: Callable[..., Stand]) -> None:
    """A connection that is to be closed says so in the answer to a remembered head, too; draining likewise."""
    thread = HeldThread()
    door = here(writer=thread)
    connections = [Connection(door.site), Connection(door.site)]
    for connection in connections * 2:
        connection.send(GOOD)
        thread.step()
    connections[0].send(GOOD)
    door.site.close_idle()
    door.site.drain()
    thread.step()
    assert connections[0].answers()[-1].headers["connection"] == "close"
    assert [connection.closing for connection in connections] == [True, True]
    for connection in connections:
        connection.hang_up()


@pytest.mark.parametrize("usual", [True, False])
def test_a_client_that_sends_no_more(here: Callable[..., Stand], usual: bool) -> None:
    """It gets the answer, once its batch is durable, and those to what it sent behind it; then it is closed."""
    thread = HeldThread()
    held = here(writer=thread)
    connection = Connection(held.site)
    for data in (GOOD, GOOD) if usual else ():
        connection.send(data)
        thread.step()
    assert len(connection.answers()) == (2 if usual else 0)
    connection.send(GOOD)
    connection.send(GOOD + b"POST")
    connection.protocol.readConnectionLost()
    for _ in range(2):
        assert (connection.answers(), connection.closing) == ([], False)
        thread.step()
        assert [answer.status for answer in connection.answers()] == [200]
    assert connection.closing
    connection.hang_up()


def test_draining(here: Callable[..., Stand]) -> None:
    """A remembered head does not keep a connection open that is to end with the next answer."""
    door = here()
    connection = known(door)
    door.site.drain()
    connection.send(GOOD)
    assert (connection.answers()[0].headers["connection"], connection.closing) == ("close", True)
    connection.hang_up()


def test_no_room_for_bodies(here: Callable[..., Stand]) -> None:
    """What would be too much at once is refused, and nothing of it is held."""
    door = here()
    connection = known(door)
    assert door.site.pending.reserve(door.site.pending.limit - 1)
    connection.send(GOOD)
    door.site.pending.held = 0
    assert [answer.status for answer in connection.answers()] == [503]
    connection.hang_up()


class OneToken:
    """Knows one token, as long as it is good."""

    token: Token | None = Token("id", frozenset({"s1"}), "", 0)

    def find(self, secret: str) -> Token | None:
        """It, if it is asked for."""
        return self.token if secret == "secret" else None


def test_tokens_are_asked_each_time(here: Callable[..., Stand]) -> None:
    """Who has been let in is not when the token is good no more; nor is anybody else by the same token's head."""
    tokens = OneToken()
    door = here(tokens=tokens)
    usual = request("POST", "/analytics/s1", batch(), (JSON, ("Authorization", "Bearer secret")))
    connection = known(door, usual)
    connection.send(usual)
    connection.send(usual.replace(b"secret", b"Secret"))
    assert ([answer.status for answer in connection.answers()], asked(door)) == ([200, 401], 2)
    tokens.token = None
    connection.send(usual)
    assert [answer.status for answer in connection.answers()] == [401]
    connection.hang_up()


def test_rates_are_counted(here: Callable[..., Stand]) -> None:
    """Where scopes have limits, each request is counted, so none is taken the short way."""
    door = here(rates=RateLimits(100))
    connection = known(door)
    connection.send(GOOD)
    assert asked(door) == 3
    connection.hang_up()


class Broken(Catalog):
    """A catalog that fails in a way nobody foresaw."""

    def tenant_of_scope(self, scope: str) -> Tenant:
        raise ZeroDivisionError(scope)


def test_a_bug_on_the_short_way(here: Callable[..., Stand], logged_failures: Any) -> None:
    """It is logged, and the request is taken the long way."""
    door = here()
    connection = known(door)
    door.directory.catalog = Broken()
    connection.send(GOOD)
    assert ([answer.status for answer in connection.answers()], asked(door)) == ([200], 3)
    assert len(logged_failures.take(ZeroDivisionError)) == 1
    connection.hang_up()


# Heads

HEAD = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nX: y\r\n"


def head(text: bytes) -> Head | None:
    """What is remembered of a head."""
    return head_of(Message(text, Incoming(100, Pending(100))))


def usual(text: bytes) -> Usual:
    """The same, with its target."""
    found = head(text)
    assert found is not None
    return Usual(found, text.partition(b" HTTP")[0] + found.before, Asked(Route("a"), "", ()))


@pytest.mark.parametrize(
    "text",
    [
        HEAD.replace(b"1.1", b"1.0"),
        HEAD.replace(b"Content-Length: 12\r\n", b""),
        HEAD.replace(b"Content-Length", b"CONTENT-LENGTH"),
        HEAD.replace(b"Content-Length: ", b"Content-Length:"),
        HEAD + b"Expect: 100-continue\r\n",
        HEAD + b"X: %b\r\n" % (b"x" * 1024),
    ],
)
def test_heads_that_are_not_remembered(text: bytes) -> None:
    """What has no plain length, asks for something before its body, or is large."""
    assert head(text) is None


@pytest.mark.parametrize(
    ("data", "body", "length"),
    [
        (HEAD + b"\r\nhello, world", b"hello, world", 12),
        (HEAD.replace(b"12", b"0") + b"\r\n", b"", 0),
        (HEAD.replace(b"12", b"0003") + b"\r\nabc", b"abc", 3),
        (HEAD.replace(b"12", b"999999999") + b"\r\nabc", b"abc", 999_999_999),
        (HEAD + b"\r\n", b"", 12),
        (HEAD + b"\r\nhello, worl", b"hello, worl", 12),
        (HEAD + b"\r\nhello, world!", b"hello, world!", 12),
    ],
)
def test_where_a_body_is(data: bytes, body: bytes, length: int) -> None:
    """Behind a head that is the same, however much of the body has come, or what follows it."""
    start, found = usual(HEAD).places(data)
    assert (data[start:], found) == (body, length)


@pytest.mark.parametrize(
    "data",
    [
        HEAD.replace(b"12", b"+3") + b"\r\nabc",
        HEAD.replace(b"12", b" 3") + b"\r\nabc",
        HEAD.replace(b"12", b"\xb2") + b"\r\nab",
        HEAD.replace(b"12", b"") + b"\r\n",
        HEAD.replace(b"12", b"0000000003") + b"\r\nabc",
        HEAD.replace(b"12", b"3\n") + b"\r\nabc",
        HEAD.replace(b"12\r\n", b"3\r\nContent-Length: 3\r\n") + b"\r\nabc",
        HEAD.replace(b"X: y", b"X: z") + b"\r\nhello, world",
        HEAD.replace(b"Host", b"host") + b"\r\nhello, world",
        HEAD[:-3] + b"\r\n\r\nhello, world",
        HEAD.replace(b"Host: a", b"Host: Content-Length: 2") + b"\r\nhello, world",
        b"\r\n" + HEAD + b"\r\nhello, world",
        *((HEAD + b"\r\n")[:size] for size in range(len(HEAD) + 2)),
    ],
)
def test_other_heads(data: bytes) -> None:
    """Only the same bytes, whole, and a plain length."""
    assert usual(HEAD).places(data) == (0, 0)


def test_a_value_like_a_length() -> None:
    """What looks like a length inside another field is compared, as everything else is."""
    remembered = usual(HEAD.replace(b"Host: a", b"Host: Content-Length: 1"))
    assert remembered.places(HEAD.replace(b"Host: a", b"Host: Content-Length: 2") + b"\r\nhello, world") == (0, 0)


def test_what_is_remembered_is_shown_nowhere() -> None:
    """A head may hold a token."""
    assert "Length" not in repr(head(HEAD)) + repr(usual(HEAD))
