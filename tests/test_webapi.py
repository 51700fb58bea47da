"""The ingest routes: which requests get which answers (SPEC section 2), over HTTP, down to the journal."""

import errno
import gzip
import itertools
import json
import random
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.web.resource import Resource
from twisted.web.server import Site

from axcollector.access import Access, Tokens
from axcollector.core.commit import PACE_SECONDS, GroupCommit
from axcollector.core.errors import LookupFailed, NotReady, Rejected
from axcollector.core.frames import FrameReader
from axcollector.core.layout import JournalName, Stage
from axcollector.core.model import DeveloperInfo, Tenant
from axcollector.core.rates import RateLimits
from axcollector.core.records import Rules
from axcollector.core.tally import Tally
from axcollector.core.unpacking import Limits
from axcollector.disk import AppendFile, Disk
from axcollector.intake import INLINE_BYTES, Intake
from axcollector.journal import Durability, JournalPlan, JournalWriter
from axcollector.room import Room
from axcollector.services import Worker, WorkThread
from axcollector.site import IngestSite
from axcollector.spool import Spool
from axcollector.webapi import AnalyticsAPI
from tests.conftest import LoggedFailures
from tests.effort import either
from tests.fakes import HeldThread, SameThread
from tests.wire import Answer, Connection, request

ACME = Tenant("s1", "acme", "prod")
ODD = Tenant("a/b ü%", "a/b ü%", "..")
LIMITS = Limits(max_body_bytes=4000, max_decompressed_bytes=6000, max_batch_records=5)
RECORD = {"client_received_start_timestamp": 1, "client_id": "key"}
LINE = {**RECORD, "organization": "acme", "environment": "prod"}
LINE |= {"api_product": "p", "developer_app": "a", "developer_email": "e", "developer": "d"}
JSON = ("Content-Type", "application/json")
GZIP = ("Content-Encoding", "gzip")
PUBLISHER = "/axpublisher/organization/acme/environment/prod"


class Tenants:
    """A `Directory` of a few tenants, that can be told to know nothing yet, or to fail."""

    catalog = None

    def __init__(self) -> None:
        self.known: dict[str, Tenant] | None = {tenant.id: tenant for tenant in (ACME, ODD)}
        self.problem: Exception | None = None

    def ready(self) -> bool:
        return self.known is not None

    async def tenant_for_scope(self, scope: str) -> Tenant:
        tenant = self._asked().get(scope)
        if tenant is None:
            raise Rejected("UNKNOWN_SCOPE", f"No tenant found for this scopeuuid: {scope}")
        return tenant

    async def tenant_for_names(self, organization: str, environment: str) -> Tenant:
        for tenant in self._asked().values():
            if (tenant.organization, tenant.environment) == (organization, environment):
                return tenant
        raise Rejected("UNKNOWN_SCOPE", f"No tenant found for this org: {organization} and env: {environment}")

    async def scopes_for_names(self, organization: str, environment: str) -> Sequence[str]:
        names = (organization, environment)
        found = self._asked().items()
        return sorted(scope for scope, each in found if (each.organization, each.environment) == names)

    async def developers(self, tenant: Tenant, client_ids: Collection[str]) -> Mapping[str, DeveloperInfo]:
        return {client_id: DeveloperInfo("p", "a", "e", "d") for client_id in client_ids if client_id == "key"}

    def _asked(self) -> dict[str, Tenant]:
        if self.known is None:
            raise NotReady
        if self.problem is not None:
            raise self.problem
        return self.known


class FullDisk(Disk):
    """A disk on which nothing can be made when it is said to be full."""

    full = False

    def create(self, path: str) -> AppendFile:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().create(path)


@dataclass(frozen=True)
class Config:
    """What the routes ask of a configuration."""

    base_path: str = "/analytics"


class Stand:
    """The routes over a real way in, in the place of a collector; with a site of ours before it."""

    def __init__(
        self,
        root: Path,
        *,
        config: Config = Config(),
        limits: Limits = LIMITS,
        bodies: Worker | None = None,
        writer: Worker | None = None,
        tokens: Tokens | None = None,
        rates: RateLimits | None = None,
        parser: str = "llhttp",
        directory: Tenants | None = None,
    ) -> None:
        for stage in Stage:
            (root / stage).mkdir(exist_ok=True)
        self.tmp = root / Stage.TMP
        self.config = config
        self.clock = Clock()
        self.tally = Tally()
        self.writer = writer or SameThread()
        self.disk = FullDisk()
        self.directory = directory or Tenants()
        self.access = Access(self.clock, self.directory, tokens, rates)
        self.room = Room(self.disk, str(root), quota_bytes=1)
        plan = JournalPlan(str(self.tmp), "id", 1, 120, 1 << 30, Durability.WRITE)
        journal = JournalWriter(self.disk, plan)
        self.spool = Spool(self.clock, self.writer, journal, GroupCommit(3, 1 << 20), tally=self.tally)
        self.intake = Intake(
            self.clock,
            bodies or SameThread(),
            self.directory,
            self.spool,
            self.room,
            limits,
            Rules(overwrite_tenant=True),
            1 << 30,
        )
        self.api = AnalyticsAPI(self)
        self.site = IngestSite(
            self.api.resource(),
            self.clock,
            max_body_bytes=limits.max_body_bytes,
            max_pending_bytes=10 * limits.max_body_bytes,
            request_timeout_seconds=60,
            parser=parser,
            door=self.api.door,
            tally=self.tally,
        )

    def ask(self, data: bytes, piece: int = 0) -> Answer:
        """The answer to one request."""
        connection = Connection(self.site)
        connection.send(data, piece)
        (answer,) = checked(connection)
        connection.hang_up()
        return answer

    def post(
        self, target: str, body: bytes, headers: tuple[tuple[str, str | bytes], ...] = (JSON,), chunks: int = 0
    ) -> tuple[int, dict[str, object]]:
        """Status and content of the answer to a POST."""
        answer = self.ask(request("POST", target, body, headers, chunks=chunks))
        return answer.status, json.loads(answer.body)

    def kept(self) -> list[tuple[str, dict[str, object]]]:
        """Tenant's directory and content of every line in the journals."""
        lines = []
        for path in sorted(self.tmp.iterdir()):
            reader = FrameReader(JournalName.parse(path.name)[0].identity)
            for frame in [*reader.feed(path.read_bytes()), *reader.finish()]:
                lines += [(frame.tenant, json.loads(line)) for line in zlib.decompress(frame.member, 31).splitlines()]
        return lines


def checked(connection: Connection) -> list[Answer]:
    """The answers that have come; each is what every answer is."""
    found = connection.answers()
    for answer in found:
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
        content = json.loads(answer.body)
        if answer.status == 200:
            assert set(content) == {"accepted", "rejected"}
        else:
            assert {name: type(value) for name, value in content.items()} == {"errorCode": str, "reason": str}
        assert ("retry-after" in answer.headers) == (answer.status in {429, 503})
    return found


def batch(*records: object, **members: object) -> bytes:
    """A body."""
    return json.dumps({**members, "records": records or (RECORD,)}).encode()


def error(code: str, reason: str) -> dict[str, object]:
    """The content of an answer that is no 200."""
    return {"errorCode": code, "reason": reason}


@pytest.fixture(params=["llhttp", "twisted"])
def stand(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stand]:
    """The routes, with nothing wrong, behind each of the parsers."""
    made = Stand(tmp_path, parser=request.param)
    yield made
    assert (made.site.pending.held, made.clock.getDelayedCalls()) == (0, [])


@pytest.fixture
def stands(tmp_path: Path) -> Iterator[list[Stand]]:
    """The same for tests that try many requests: they draw one of the two."""
    made = []
    for parser in ("llhttp", "twisted"):
        root = tmp_path / parser
        root.mkdir()
        made.append(Stand(root, parser=parser))
    yield made
    assert [(each.site.pending.held, each.clock.getDelayedCalls()) for each in made] == [(0, [])] * 2


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/analytics/s1", batch()),
        ("/analytics/s1/", batch()),
        ("/analytics/s1?query", batch()),
        ("/%61nalytics/%731", batch()),
        ("http://elsewhere/analytics/s1", batch()),
        ("/analytics", batch(organization="acme", environment="prod")),
        ("/analytics/", batch(organization="acme", environment="prod")),
        (PUBLISHER, batch()),
        (PUBLISHER, batch(organization="zoo", environment=None)),
        (PUBLISHER + "/", batch(organization=1)),
    ],
)
def test_accepted(stand: Stand, target: str, body: bytes) -> None:
    """A batch is durable, enriched, under its tenant's name when its 200 comes; a path's names win over a body's."""
    answer = stand.ask(request("POST", target, body, (JSON,)))
    assert (answer.status, answer.body) == (200, b'{"accepted": 1, "rejected": 0}')
    assert stand.kept() == [("acme~prod", LINE)]


@pytest.mark.parametrize(
    "target",
    [
        "/analytics/a%2Fb%20%C3%BC%25",
        b"/analytics/a%2fb%20%c3%bc%25",
        "/axpublisher/organization/a%2Fb%20%C3%BC%25/environment/..",
        "/axpublisher/organization/a%2Fb%20%C3%BC%25/environment/%2E%2e",
    ],
)
def test_percent_encoded_names(stand: Stand, target: str) -> None:
    """Scopes and names may hold anything, a slash too, when it is percent-encoded."""
    assert stand.post(target, batch()) == (200, {"accepted": 1, "rejected": 0})
    assert [tenant for tenant, _ in stand.kept()] == ["a%2Fb%20%C3%BC%25~%2E%2E"]


@pytest.mark.parametrize(
    ("target", "scope"),
    [
        ("/analytics/nobody", "nobody"),
        ("/analytics/S1", "S1"),
        ("/analytics/%2e%2e%2Fs1", "../s1"),
        ("/analytics/s1%00", "s1\0"),
        ("/analytics/s1%20", "s1 "),
        ("/analytics/%22%7B%3Cscript%3E", '"{<script>'),
        ("/analytics/%25", "%"),
        ("/analytics/a%", "a%"),
        ("/analytics/*", "*"),
        ("/analytics/+", "+"),
        ("/analytics/" + "x" * 8_000, "x" * 8_000),
    ],
)
def test_unknown_scopes(stand: Stand, target: str, scope: str) -> None:
    """Whatever a scope looks like it is named in the answer, as it was meant."""
    expected = error("UNKNOWN_SCOPE", f"No tenant found for this scopeuuid: {scope}")
    assert stand.post(target, batch()) == (400, expected)


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "//",
        "?",
        "/nowhere",
        "/Analytics/s1",
        "/analyticss1",
        "xanalytics/s1",
        "/analytics/s1/more",
        "/analytics/x/../s1",
        "/analytics//s1",
        "/analytics%2Fs1",
        "/analytics/%FF",
        "/analytics/\xa0",
        b"/analytics/\xa0",
        "/analytics/%ED%A0%80",
        "/axpublisher/organization/acme/environment",
        "/axpublisher/organization/acme/environment/%ff",
        "/axpublisher/organization/%80/environment/prod",
        "/axpublisher/organization//environment/prod",
        "/axpublisher/organization/a/b/environment/prod",
        "http://elsewhere",
        "*",
    ],
)
def test_not_found(stand: Stand, target: str | bytes) -> None:
    """What no route has is a 404, before anything else is looked at."""
    target = target if isinstance(target, bytes) else target.encode("latin-1")
    stand.directory.known = None
    answer = stand.ask(request("POST", target, b"anything"))
    assert (answer.status, json.loads(answer.body)) == (404, error("NOT_FOUND", "There is nothing at this path"))


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "WHAT", "!", "*"])
def test_other_methods(stand: Stand, method: str) -> None:
    """What is no POST is a 405 that says so, before anything else is looked at."""
    stand.directory.known = None
    expected = error("METHOD_NOT_ALLOWED", "Only POST is allowed here")
    for target in ("/analytics", "/analytics/", "/analytics/s1", PUBLISHER):
        answer = stand.ask(request(method, target, b"anything"))
        assert (answer.status, json.loads(answer.body)) == (405, expected)
        assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(("target", "status"), [("/analytics/s1", 405), ("/nowhere", 404)])
def test_head(stand: Stand, target: str, status: int) -> None:
    """The answer to HEAD has the others' head and no body."""
    connection = Connection(stand.site)
    connection.send(request("HEAD", target))
    (answer,) = connection.answers(heads_only=True)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/json; charset=utf-8")
    connection.hang_up()


@pytest.mark.parametrize(
    "host",
    ["elsewhere", "", "\xff\xfe", "x" * 70 + ".example.com", "a..b", "[::1]:9000", "[", ":", "a b", "localhost:x"],
)
def test_hosts(stand: Stand, host: str) -> None:
    """What the Host header says matters to nobody, whatever it is."""
    headers = (JSON, ("Host", host.encode("latin-1")))
    assert stand.post("/analytics/s1", batch(), headers) == (200, {"accepted": 1, "rejected": 0})
    assert stand.post("/nowhere", batch(), headers)[0] == 404


@pytest.mark.parametrize(
    "address",
    [
        IPv4Address("TCP", "127.0.0.1", 80),
        IPv6Address("TCP", "::1", 9000),
        UNIXAddress(b"/run/axcollector"),
        UNIXAddress(None),
    ],
)
def test_addresses(stand: Stand, address: IAddress) -> None:
    """Nor does the address that a request came to, where it names no host."""
    connection = Connection(stand.site, address)
    connection.send(request("POST", "/analytics/s1", batch(), (JSON,)))
    assert [answer.status for answer in checked(connection)] == [200]
    connection.hang_up()


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ((), "UNSUPPORTED_CONTENT_TYPE"),
        ((("content-type", "text/plain"),), "UNSUPPORTED_CONTENT_TYPE"),
        ((("content-type", b"application/json\xff"),), "UNSUPPORTED_CONTENT_TYPE"),
        ((("content-type", b"application/json; charset=\xff"),), "UNSUPPORTED_CONTENT_TYPE"),
        ((JSON, ("Content-Type", "text/plain")), "UNSUPPORTED_CONTENT_TYPE"),
        ((("Content-Type", "text/plain"), JSON), "UNSUPPORTED_CONTENT_TYPE"),
        ((("Content-Type", "application/json, application/json"),), "UNSUPPORTED_CONTENT_TYPE"),
        ((("Content-Type", "multipart/form-data"),), "UNSUPPORTED_CONTENT_TYPE"),
        ((("Content-Type", "application/x-www-form-urlencoded"),), "UNSUPPORTED_CONTENT_TYPE"),
        ((JSON, JSON), None),
        ((("CONTENT-TYPE", 'Application/JSON ; charset="UTF-8"; x=y'),), None),
        ((JSON, ("Content-Encoding", b"\xff")), "UNSUPPORTED_CONTENT_ENCODING"),
        ((JSON, ("Content-Encoding", "br")), "UNSUPPORTED_CONTENT_ENCODING"),
        ((JSON, GZIP, GZIP), "UNSUPPORTED_CONTENT_ENCODING"),
        ((JSON, ("Content-Encoding", "identity"), GZIP), "UNSUPPORTED_CONTENT_ENCODING"),
        ((JSON, ("Content-Encoding", "")), None),
        ((JSON, ("Content-Encoding", "identity")), None),
        ((JSON, ("Cookie", b"\xff; =;"), ("Authorization", b"Basic \xff"), ("Accept", "text/html")), None),
    ],
)
def test_headers(stand: Stand, headers: tuple[tuple[str, str | bytes], ...], code: str | None) -> None:
    """Only the two headers that describe the body matter, each time they are repeated."""
    status, content = stand.post("/analytics/s1", batch(), headers)
    assert (status, content.get("errorCode")) == (400 if code else 200, code)


# The table of checks


@dataclass
class Asked:
    """A request, and the state in which a stand is when it comes."""

    target: str
    names: dict[str, object]
    method: str = "POST"
    content_type: str = "application/json"
    content_encoding: str = ""
    records: object = field(default_factory=lambda: [dict(RECORD), dict(RECORD)])
    padding: int = 0
    stored: bool = False
    gzipped: bool = False
    after_json: bytes = b""
    damaged: bool = False
    authorization: str = ""
    states: list[Callable[[Stand], None]] = field(default_factory=list)

    def data(self) -> bytes:
        """Its bytes."""
        body = json.dumps({**self.names, "records": self.records}).encode().ljust(self.padding) + self.after_json
        if self.gzipped:
            body = gzip.compress(body, 0 if self.stored else 9)
            if self.damaged:
                body = body[:-8] + bytes([body[-8] ^ 1]) + body[-7:]
        coding = self.content_encoding or ("gzip" if self.gzipped else "identity")
        headers = [("Content-Type", self.content_type), ("Content-Encoding", coding)]
        headers += [("Authorization", self.authorization)] if self.authorization else []
        return request(self.method, self.target, body, tuple(headers))


@dataclass(frozen=True)
class Flaw:
    """A row of the table: what breaks it, and what is answered."""

    name: str
    status: int
    code: str
    reason: str
    make: Callable[[Asked], object]


def _full(stand: Stand) -> None:
    filler = stand.tmp / "filler"
    filler.write_bytes(b"x")
    stand.room.measure()
    filler.unlink()


def _shed(stand: Stand) -> None:
    stand.site.pending.limit = 0


def _closed(stand: Stand) -> None:
    stand.disk.full = True


def _failing(stand: Stand) -> None:
    stand.directory.problem = LookupFailed("The registry cannot be asked at present")


def _unready(stand: Stand) -> None:
    stand.directory.known = None


def _unknown(asked: Asked) -> None:
    asked.target = asked.target.replace("s1", "nobody").replace("acme", "nobody")
    if "organization" in asked.names:
        asked.names["organization"] = "nobody"


def _oversize(asked: Asked) -> None:
    asked.padding, asked.stored = 4001, True


def _inflated(asked: Asked) -> None:
    asked.padding, asked.gzipped = 7000, True


def _many(asked: Asked) -> None:
    asked.records = [*asked.records, *[dict(RECORD) for _ in range(4)]]


def _damaged(asked: Asked) -> None:
    asked.gzipped = asked.damaged = True


def _no_object(asked: Asked) -> None:
    asked.records[1] = []


def _invalid(asked: Asked) -> None:
    asked.records[0].pop("client_received_start_timestamp")


def _set(name: str, value: object) -> Callable[[Asked], None]:
    return lambda asked: setattr(asked, name, value)


def _in(state: Callable[[Stand], None]) -> Callable[[Asked], None]:
    return lambda asked: asked.states.append(state)


NO_SCOPE = "No tenant found for this scopeuuid: nobody"
NO_NAMES = "No tenant found for this org: nobody and env: prod"
QUOTA = (
    "the spool holds 1 bytes, its quota (spool_quota_bytes) is 1: see why uploads do not drain it, or raise the quota"
)
NOT_STORED = "The batch could not be stored: No space left on device"
TENANT_FLAWS = [
    Flaw("unknown", 400, "UNKNOWN_SCOPE", "", _unknown),
    Flaw("lookup", 500, "INTERNAL_SEARCH_ERROR", "The registry cannot be asked at present", _in(_failing)),
]
FLAWS = [
    Flaw("path", 404, "NOT_FOUND", "There is nothing at this path", _set("target", "/nowhere")),
    Flaw("method", 405, "METHOD_NOT_ALLOWED", "Only POST is allowed here", _set("method", "GET")),
    Flaw("ready", 500, "INTERNAL_SERVER_ERROR", "Service is not initialized completely", _in(_unready)),
    Flaw(
        "type",
        400,
        "UNSUPPORTED_CONTENT_TYPE",
        "Only supported content type is application/json",
        _set("content_type", "text/plain"),
    ),
    Flaw("shed", 503, "OVERLOADED", "Too many bytes are being received already (max_pending_bytes)", _in(_shed)),
    Flaw("quota", 503, "STORAGE_UNAVAILABLE", QUOTA, _in(_full)),
    *TENANT_FLAWS,
    Flaw(
        "encoding",
        400,
        "UNSUPPORTED_CONTENT_ENCODING",
        "Only supported content encoding is gzip",
        _set("content_encoding", "br"),
    ),
    Flaw("size", 413, "PAYLOAD_TOO_LARGE", "The body is larger than 4000 bytes (max_body_bytes)", _oversize),
    Flaw(
        "inflated",
        413,
        "PAYLOAD_TOO_LARGE",
        "The body is larger than 6000 bytes when decompressed (max_decompressed_bytes)",
        _inflated,
    ),
    Flaw("count", 413, "PAYLOAD_TOO_LARGE", "The batch has more than 5 records (max_batch_records)", _many),
    Flaw("gzip", 400, "BAD_DATA", "Gzip Encoded data cannot be read", _damaged),
    Flaw("json", 400, "BAD_DATA", "Not a valid JSON payload", _set("after_json", b"x")),
    Flaw(
        "names",
        400,
        "MISSING_FIELD",
        "Missing Required field: environment",
        lambda asked: asked.names.pop("environment"),
    ),
    Flaw("none", 400, "NO_RECORDS", "No analytics records in the payload", _set("records", [])),
    Flaw("list", 400, "BAD_DATA", "records should be a list of analytics records", _set("records", {})),
    Flaw("object", 400, "BAD_DATA", "Each Analytics record in records should be a json object (record 1)", _no_object),
    Flaw(
        "valid",
        400,
        "MISSING_FIELD",
        "Missing Required field: client_received_start_timestamp (record 0)",
        _invalid,
    ),
    Flaw("commit", 503, "STORAGE_UNAVAILABLE", NOT_STORED, _in(_closed)),
]
"""The rows of the table, in its order."""

APART = [
    {"shed", "quota"},  # one row
    {"shed", "size"},  # what is announced to be too large takes no room
    {"unknown", "lookup"},  # who cannot ask does not know
    {"size", "inflated"},  # one row
    {"count", "gzip"},  # what cannot be read cannot be counted
    {"count", "json"},
    {"none", "list", "count", "object", "valid"},  # what `records` is, it is
]
TOGETHER = [{"count", "object", "valid"}]
"""Flaws that cannot be combined, and which of them can after all."""


def compatible(flaws: Collection[Flaw]) -> bool:
    """Whether a request can have all these flaws."""
    names = {flaw.name for flaw in flaws}
    return all(len(names & apart) < 2 or any(names & apart <= these for these in TOGETHER) for apart in APART)


def rows(route: str) -> list[Flaw]:
    """The rows that a route has, in its order: where the body names the tenant, that is known later."""
    if route != "body":
        return [flaw for flaw in FLAWS if flaw.name != "names"]
    early = [flaw for flaw in FLAWS if flaw not in TENANT_FLAWS]
    position = [flaw.name for flaw in early].index("names") + 1
    return [*early[:position], *TENANT_FLAWS, *early[position:]]


def asked_on(route: str) -> Asked:
    """A good request."""
    targets = {"scope": "/analytics/s1", "names": PUBLISHER, "body": "/analytics"}
    names: dict[str, object] = {"organization": "acme", "environment": "prod"} if route == "body" else {}
    return Asked(targets[route], names)


def check_answer(directory: Path, route: str, flaws: Collection[Flaw]) -> None:
    """A request with these flaws gets the first one's answer, and nothing of it is kept."""
    asked = asked_on(route)
    for flaw in sorted(flaws, key=FLAWS.index):
        flaw.make(asked)
    stand = Stand(directory)
    for state in asked.states:
        state(stand)
    answer = stand.ask(asked.data())
    first = next(flaw for flaw in rows(route) if flaw in flaws)
    reason = first.reason or (NO_SCOPE if route == "scope" else NO_NAMES)
    assert (answer.status, json.loads(answer.body)) == (first.status, error(first.code, reason))
    assert stand.kept() == []


@pytest.mark.parametrize("route", ["scope", "names", "body"])
def test_each_row_and_each_pair(tmp_path: Path, route: str) -> None:
    """Of two rows that a request breaks, the first in the table answers."""
    singles = [(flaw,) for flaw in rows(route)]
    for flaws in [*singles, *itertools.combinations(rows(route), 2)]:
        if compatible(flaws):
            check_answer(tmp_path, route, flaws)


@given(st.sampled_from(["scope", "names", "body"]), st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_rows(tmp_path: Path, route: str, data: st.DataObject) -> None:
    """However many rows a request breaks, the first in the table answers."""
    chosen: list[Flaw] = []
    for flaw in data.draw(st.lists(st.sampled_from(rows(route)), min_size=1, max_size=8, unique_by=id)):
        chosen += [flaw] if compatible([*chosen, flaw]) else []
    check_answer(tmp_path, route, chosen)


# Answers with parts of their own


@pytest.mark.parametrize(
    ("records", "code", "reason"),
    [
        ([RECORD, RECORD, RECORD, {}], "MISSING_FIELD", "Missing Required field: client_received_start_timestamp"),
        ([RECORD, RECORD, RECORD, 3], "BAD_DATA", "Each Analytics record in records should be a json object"),
        (
            [RECORD, RECORD, RECORD, {"client_received_start_timestamp": "1"}],
            "BAD_DATA",
            "client_received_start_timestamp and client_received_end_timestamp has to be number",
        ),
        (
            [RECORD, RECORD, RECORD, {**RECORD, "client_received_end_timestamp": 0}],
            "BAD_DATA",
            "client_received_start_timestamp > client_received_end_timestamp",
        ),
        ([RECORD, RECORD, RECORD, {**RECORD, "client_id": 1}], "BAD_DATA", "client_id has to be a string"),
    ],
)
def test_indices(stand: Stand, records: list[object], code: str, reason: str) -> None:
    """What is wrong with a record is said with its place, counted from zero; nothing of the batch is kept."""
    assert stand.post("/analytics/s1", batch(*records)) == (400, error(code, f"{reason} (record 3)"))
    assert stand.kept() == []


@pytest.mark.parametrize("missing", [{}, {"organization": None}, {"organization": ""}])
def test_missing_organization(stand: Stand, missing: dict[str, object]) -> None:
    """Of the names that a body lacks, the organization is asked for first."""
    expected = error("MISSING_FIELD", "Missing Required field: organization")
    assert stand.post("/analytics", batch(**missing)) == (400, expected)


def test_names_that_are_no_strings(stand: Stand) -> None:
    """A body's names are strings."""
    body = batch(organization="acme", environment=["prod"])
    assert stand.post("/analytics", body) == (400, error("BAD_DATA", "environment has to be a string"))


def test_a_name_that_is_no_utf_8(stand: Stand) -> None:
    """A name that cannot be printed is nobody's, and is printed as far as it can be."""
    body = b'{"organization": "\\ud800", "environment": "prod", "records": [{}]}'
    expected = error("UNKNOWN_SCOPE", "No tenant found for this org: ? and env: prod")
    assert stand.post("/analytics", body) == (400, expected)


def test_waiting_batches(tmp_path: Path) -> None:
    """As many batches as may wait, wait; the next gets a 503 at once, and all others their 200."""
    writer = HeldThread()
    stand = Stand(tmp_path, writer=writer)
    waiting = [Connection(stand.site) for _ in range(3)]
    for connection in waiting:
        connection.send(request("POST", "/analytics/s1", batch(), (JSON,)))
    refused = stand.ask(request("POST", "/analytics/s1", batch(), (JSON,)))
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    reason = "3 batches wait to be written already (buffer_channel_size)"
    assert json.loads(refused.body) == error("OVERLOADED", reason)
    assert [checked(connection) for connection in waiting] == [[], [], []]
    stand.clock.advance(PACE_SECONDS)  # the write takes longer than others would be waited for
    while writer.jobs:
        writer.step()
    assert [[a.status for a in checked(connection)] for connection in waiting] == [[200], [200], [200]]
    assert len(stand.kept()) == 3


def test_hang_up_while_a_commit_runs(tmp_path: Path) -> None:
    """A client that hangs up cancels nobody's commit, be it under way or the next."""
    writer = HeldThread()
    stand = Stand(tmp_path, writer=writer)
    connections = [Connection(stand.site) for _ in range(3)]
    for number, connection in enumerate(connections):
        connection.send(request("POST", "/analytics/s1", batch({**RECORD, "n": number}), (JSON,)))
    connections[0].hang_up()
    connections[1].hang_up()
    stand.clock.advance(PACE_SECONDS)  # the write takes longer than others would be waited for
    while writer.jobs:
        writer.step()
    assert [answer.status for answer in checked(connections[2])] == [200]
    assert [line["n"] for _, line in stand.kept()] == [0, 1, 2]
    connections[2].hang_up()
    assert (stand.site.pending.held, stand.clock.getDelayedCalls()) == (0, [])


def test_stopping(stand: Stand) -> None:
    """While the service stops, clients are told to come again."""
    stand.spool.close()
    answer = stand.ask(request("POST", "/analytics/s1", batch(), (JSON,)))
    assert (answer.status, json.loads(answer.body)) == (503, error("OVERLOADED", "The service is stopping"))
    assert answer.headers["retry-after"] == "1"


def test_storage_fails_and_recovers(stand: Stand) -> None:
    """A failed commit is a 503 that says when to come again, and the next may succeed."""
    stand.disk.full = True
    answer = stand.ask(request("POST", "/analytics/s1", batch(), (JSON,)))
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    stand.disk.full = False
    assert stand.post("/analytics/s1", batch()) == (200, {"accepted": 1, "rejected": 0})


def test_a_bug_of_ours(stand: Stand, logged_failures: LoggedFailures) -> None:
    """What nobody foresaw is logged, and answered in JSON, without a word of what it was."""
    stand.directory.problem = ZeroDivisionError("secret")
    expected = error("INTERNAL_SERVER_ERROR", "The request could not be processed")
    assert stand.post("/analytics/s1", batch()) == (500, expected)
    assert [str(problem) for problem in logged_failures.take(ZeroDivisionError)] == ["secret"]


# Large bodies


LARGE = Limits(max_body_bytes=4_000_000, max_decompressed_bytes=4_000_000, max_batch_records=20_000)


def large_body() -> bytes:
    """More than is taken apart inline."""
    return batch(*[{**RECORD, "filler": "x" * 1000} for _ in range(INLINE_BYTES // 1000)])


@pytest.mark.parametrize("gzipped", [False, True])
def test_large_bodies(tmp_path: Path, gzipped: bool) -> None:
    """A large body, sent or unpacked, is taken apart by the worker, step by step; small ones do not wait for it."""
    bodies = HeldThread()
    stand = Stand(tmp_path, limits=LARGE, bodies=bodies)
    connection = Connection(stand.site)
    body = gzip.compress(large_body()) if gzipped else large_body()
    headers = (JSON, GZIP) if gzipped else (JSON,)
    connection.send(request("POST", "/analytics/s1", body, headers), 65_536)
    assert stand.post("/analytics/s1", batch())[0] == 200
    steps = 0
    while bodies.jobs:
        assert checked(connection) == []
        bodies.step()
        steps += 1
    assert (steps, [answer.status for answer in checked(connection)]) == (3, [200])
    assert len(stand.kept()) == 1 + INLINE_BYTES // 1000


def test_large_bodies_that_are_wrong(tmp_path: Path) -> None:
    """What is wrong with a large body is found by the worker and answered like the same with a small one."""
    stand = Stand(tmp_path, limits=LARGE)
    for body, code in (
        (large_body() + b"x", "BAD_DATA"),
        (b'{"records":[' + b" " * INLINE_BYTES + b"]}", "NO_RECORDS"),
        (b'{"records":{"":' + b" " * INLINE_BYTES + b"[]}}", "BAD_DATA"),
        (batch({"filler": "x" * INLINE_BYTES}), "MISSING_FIELD"),
    ):
        status, content = stand.post("/analytics/s1", body)
        assert (status, content["errorCode"]) == (400, code)
    assert stand.post("/analytics/s1", b"[" + b"1," * 2_100_000)[0] == 413


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_hang_up_while_a_large_body_is_taken_apart(tmp_path: Path, steps: int) -> None:
    """A client that goes while the worker has its body leaves nothing behind, and no word in the log."""
    bodies = HeldThread()
    stand = Stand(tmp_path, limits=LARGE, bodies=bodies)
    connection = Connection(stand.site)
    connection.send(request("POST", "/analytics/s1", large_body(), (JSON,)))
    for _ in range(steps):
        bodies.step()
    connection.hang_up()
    while bodies.jobs:
        bodies.step()
    assert (stand.site.pending.held, stand.kept()) == (0, [])


def test_large_body_while_stopping(tmp_path: Path) -> None:
    """A large body that comes when the worker's thread has stopped already is for the next start."""
    clock = Clock()
    stand = Stand(tmp_path, limits=LARGE, bodies=WorkThread(clock, "bodies"))
    expected = error("OVERLOADED", "The service is stopping")
    assert stand.post("/analytics/s1", large_body()) == (503, expected)


# Real clients


def test_volos(stand: Stand) -> None:
    """Apigee's microgateway, over a connection that it keeps; a Buffer as JSON is what its `compress` sends."""
    connection = Connection(stand.site)
    headers = (
        JSON,
        ("Accept", "application/json"),
        ("Authorization", "Basic a2V5OnNlY3JldA=="),
        ("Connection", "keep-alive"),
    )
    buffer = json.dumps({"type": "Buffer", "data": list(gzip.compress(batch()))}, separators=(",", ":")).encode()
    for body, coding in ((batch(), ()), (buffer, (GZIP,)), (batch(), ())):
        connection.send(request("POST", PUBLISHER, body, (*headers, *coding)))
        assert [answer.body for answer in checked(connection)] == [b'{"accepted": 1, "rejected": 0}']
    assert [line for _, line in stand.kept()] == [LINE] * 3
    connection.hang_up()


@pytest.mark.parametrize("piece", [0, 1, 100])
def test_apid_gateway(stand: Stand, piece: int) -> None:
    """The apid gateway's client: gzip, in chunks, of no announced length."""
    body = gzip.compress(batch(RECORD, RECORD))
    answer = stand.ask(request("POST", "/analytics/s1", body, (JSON, GZIP), chunks=32), piece)
    assert (answer.status, json.loads(answer.body)) == (200, {"accepted": 2, "rejected": 0})
    assert stand.kept() == [("acme~prod", LINE)] * 2


@pytest.mark.parametrize(
    "body",
    [
        b'{"records":[' + json.dumps(RECORD).encode() + b"," + json.dumps(RECORD).encode() + b"]}",
        b'{"records":[\n' + json.dumps(RECORD, indent=1).encode() + b"\n,\n" + json.dumps(RECORD).encode() + b"\n]}\n",
    ],
)
def test_vector_and_syslog_ng(stand: Stand, body: bytes) -> None:
    """What log shippers make with a prefix, a delimiter and a suffix."""
    assert stand.post("/analytics/s1", body) == (200, {"accepted": 2, "rejected": 0})
    assert stand.kept() == [("acme~prod", LINE)] * 2


def test_remote_service(stand: Stand) -> None:
    """apigee-remote-service names the tenant in the path and in the body."""
    body = gzip.compress(batch(organization="acme", environment="prod"))
    assert stand.post(PUBLISHER, body, (JSON, GZIP), chunks=1000) == (200, {"accepted": 1, "rejected": 0})


# Elsewhere


@pytest.mark.parametrize(
    ("scope", "body", "headers"),
    [
        ("s1", batch(), (JSON,)),
        ("s1", b"{", (JSON,)),
        ("s1", b" " * 4001, (JSON,)),
        ("s1", batch(), ()),
        ("s1", batch(), (JSON, ("Content-Encoding", "br"))),
        ("nowhere", batch(), (JSON,)),
    ],
)
def test_who_finds_the_route(stand: Stand, scope: str, body: bytes, headers: tuple[tuple[str, str], ...]) -> None:
    """A scope of ordinary letters is answered as Klein would, who gets the paths that end in a slash."""
    found, klein = (stand.ask(request("POST", f"/analytics/{scope}{end}", body, headers)) for end in ("", "/"))
    assert (found.status, found.body, sorted(found.headers)) == (klein.status, klein.body, sorted(klein.headers))


@pytest.mark.parametrize("base_path", ["/a", "/a/b.c/d", "/<scope>", "/a:@!$&'()*+,;=~"])
def test_base_paths(tmp_path: Path, base_path: str) -> None:
    """The native routes lie below whatever path is configured, and nowhere else."""
    stand = Stand(tmp_path, config=Config(base_path))
    assert stand.post(f"{base_path}/s1", batch())[0] == 200
    assert stand.post(base_path, batch(organization="acme", environment="prod"))[0] == 200
    assert stand.post(PUBLISHER, batch())[0] == 200
    assert stand.post("/analytics/s1", batch())[0] == 404


class Foreign(Connection):
    """A connection to another program's site, which has the routes below `/of/mine`."""

    def __init__(self, stand: Stand) -> None:
        root, between = Resource(), Resource()
        root.putChild(b"of", between)
        between.putChild(b"mine", stand.api.resource())
        super().__init__(Site(root, reactor=stand.clock))


def test_in_another_site(stand: Stand) -> None:
    """The resource works below a path of a plain Twisted site, where only its own check of the size applies."""
    connection = Foreign(stand)
    for target, body, expected in (
        ("/of/mine/analytics/s1", batch(), 200),
        ("/of/mine" + PUBLISHER, batch(), 200),
        ("/of/mine/analytics", batch(organization="acme", environment="prod"), 200),
        ("/of/mine/analytics/a%2Fb%20%C3%BC%25", batch(), 200),
        ("/of/mine/analytics/s1", b" " * 4000, 400),
        ("/of/mine/analytics/s1", b" " * 4001, 413),
        ("/of/mine/analytics/s1", b" " * 400_000, 413),
        ("/of/mine/analytics/%ff", batch(), 404),
        ("/of/mine", batch(), 404),
        ("/of/mine/nowhere", batch(), 404),
    ):
        for chunks in (0, 1000):
            connection.send(request("POST", target, body, (JSON,), chunks=chunks))
            assert [answer.status for answer in checked(connection)] == [expected]
    connection.send(request("GET", "/of/mine/analytics/s1"))
    assert [(answer.status, answer.headers["allow"]) for answer in checked(connection)] == [(405, "POST")]
    connection.hang_up()
    assert len(stand.kept()) == 8


# Anything


ROUTES = st.sampled_from(["/analytics/s1", "/analytics", PUBLISHER])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
KEYS = st.sampled_from([*LINE, "records", "client_received_end_timestamp", "type", "data", "x"])
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
BATCHES = st.fixed_dictionaries(
    {
        "records": st.lists(
            st.fixed_dictionaries({"client_received_start_timestamp": st.integers() | SCALARS}) | DOCUMENTS
        )
    },
    optional={"organization": st.just("acme") | SCALARS, "environment": st.just("prod") | SCALARS},
)
BODIES = st.binary(max_size=60) | (DOCUMENTS | BATCHES).map(lambda value: json.dumps(value).encode())


def answered(stand: Stand, data: bytes, piece: int = 0) -> int:
    """The status of the one answer that there is; the connection is open for more."""
    connection = Connection(stand.site)
    connection.send(data, piece)
    (answer,) = checked(connection)
    assert not connection.closing
    connection.hang_up()
    return answer.status


BEHIND = st.sampled_from([0, 1])
"""Which of the stands."""


@given(BEHIND, ROUTES, BODIES, st.booleans(), st.sampled_from([0, 3, 100]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=either(300, 100))
def test_any_body(stands: list[Stand], behind: int, target: str, body: bytes, gzipped: bool, chunks: int) -> None:
    """Whatever a body holds it is taken or refused, in JSON."""
    stand = stands[behind]
    before = len(stand.kept())
    headers = (JSON, GZIP) if gzipped else (JSON,)
    status = answered(stand, request("POST", target, gzip.compress(body) if gzipped else body, headers, chunks=chunks))
    assert status in {200, 400, 413}
    assert (len(stand.kept()) > before) == (status == 200)


@given(BEHIND, ROUTES, st.randoms(use_true_random=False), st.integers(1, 3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_gzip(stands: list[Stand], behind: int, target: str, chance: random.Random, times: int) -> None:
    """However a gzip is damaged it is never taken for what it was."""
    stand = stands[behind]
    whole = gzip.compress(batch(organization="acme", environment="prod"), mtime=0)
    damaged = bytearray(whole)
    for _ in range(times):
        position = chance.randrange(len(damaged))
        damaged[position : position + chance.choice([0, 1, 5])] = chance.randbytes(chance.choice([0, 1, 5]))
    status = answered(stand, request("POST", target, bytes(damaged), (JSON, GZIP)))
    assert status in {200, 400, 413}
    if status == 200:  # the damage was to what a gzip's header says of its file
        assert gzip.decompress(bytes(damaged)) == gzip.decompress(whole)


TARGETS = st.lists(
    st.sampled_from(
        ["/", "analytics", "s1", "axpublisher", "organization", "%", "%ff", "%2F", "..", "?", "#", "http:", "\xa0"]
    )
    | st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=5),
    min_size=1,
).map("".join)


CONTROLS = bytes(each for each in (*range(32), 127) if each != ord("\t"))
"""What no header's value may hold."""


@given(
    BEHIND,
    st.sampled_from(["GET", "POST", "HEADS", "post", "!"]),
    TARGETS.filter(bool),
    st.binary(max_size=9),
    st.integers(0, 3),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=either(300, 100))
def test_any_request(stands: list[Stand], behind: int, method: str, target: str, header: bytes, piece: int) -> None:
    """Whatever the path, the method and the headers, there is an answer in JSON."""
    stand = stands[behind]
    value = header.translate(None, CONTROLS)
    headers = tuple((name, value) for name in ("Content-Type", "Content-Encoding", "Host", "Cookie", "X-Forwarded-For"))
    data = request(method, target.encode("latin-1"), batch(), headers)
    assert answered(stand, data, piece) in {400, 404, 405}
