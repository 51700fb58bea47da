"""No secret leaves: services run with planted secrets, well and badly, and then all that they wrote is searched.

Servers that are asked send back what they were sent, in status lines, headers and bodies, as broken ones do.
"""

import base64
import io
import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_twisted
import treq
import yaml
from twisted.internet import defer, reactor, threads
from twisted.logger import LogEvent, textFileLogObserver
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import Site

from axcollector.bugs import without_secrets
from axcollector.collector import Collector
from axcollector.config import Config
from axcollector.core.redaction import redacted
from axcollector.registry import Registry
from axcollector.tokens import Bound, TokenFile
from tests.conftest import LoggedFailures
from tests.forward_proxy import PlainProxy
from tests.planted import Watched, files_below, forms, places
from tests.running import QUICK, until
from tests.signing_server import RawServer, SigningServer, answer
from tests.test_transicator_service import Servers, add_key
from tests.test_webapi import Stand
from tests.transicator_server import CLUSTER
from tests.wire import Connection, request

SECRETS = {
    "bearer token": "bearer/pl+nted=1",
    "proxy password": "pr0xy-pl+nted",
    "signature": "confidential-",
    "client token": "client/pl+nted=2",
    "client password": "passw0rd-pl+nted",
    "token in a query": "query-pl4nted",
    "consumer secret": "consumer/pl+nted=3",
    "sync token": "secret-token-",
    "admin token": "admin/pl+nted=6",
    "S3 key": "s3/pl+nted/key=4",
    "S3 session": "s3/pl+nted/session=5",
}
CUT = b"(cut here)"
RECORD = {"client_received_start_timestamp": 1}


@pytest.fixture
def started() -> Iterator[list[Watched]]:
    """Services started by a test; none is left when it ends."""
    processes: list[Watched] = []
    yield processes
    for process in processes:
        process.kill()


class Ports:
    """What listens for a test."""

    def __init__(self) -> None:
        self.ports: list[Any] = []

    def listen(self, factory: Any) -> str:
        """Serve; the URL without its scheme."""
        self.ports.append(reactor.listenTCP(0, factory, interface="127.0.0.1"))  # type: ignore[attr-defined]
        return f"127.0.0.1:{self.ports[-1].getHost().port}"

    async def close(self) -> None:
        """Serve no more."""
        for port in self.ports:
            await defer.maybeDeferred(port.stopListening)


def echo(status: int) -> Callable[[Request], bytes]:
    """Answer with all that was asked, in the status line, in headers and in the body."""

    def answering(request: Request) -> bytes:
        seen = b" ".join([request.uri, (request.getHeader("authorization") or "").encode(), request.content.read(200)])
        seen = seen.replace(b"\r", b"").replace(b"\n", b"")
        request.setResponseCode(status, b"Because of " + seen)
        request.setHeader(b"Location", b"http://127.0.0.1:1" + request.uri)
        request.setHeader(b"X-Echo", seen)
        request.setHeader(b"Content-Type", b"application/json")
        return seen

    return answering


def configured(path: Path, **settings: Any) -> str:
    """A configuration file, apart from what the service writes; its path."""
    path.write_text(yaml.safe_dump({"listen": "tcp:0:interface=127.0.0.1", **settings}))
    return str(path)


def port_of(service: Watched, name: str) -> int:
    """The port that it says it has taken; 0: none yet."""
    found = re.search(rf'"name": "{name}", .*port=(\d+)', service.text())
    return int(found[1]) if found else 0


async def say(port: int, *requests: bytes) -> list[bytes]:
    """What is answered to each of these, each sent on a connection of its own, which is then closed."""

    def one(data: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(data.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            if data.endswith(CUT):
                connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(1 << 16), b""))

    return [await threads.deferToThread(one, data) for data in requests]


def clients_requests(scope: str) -> list[bytes]:
    """Requests that are taken, refused, or no HTTP, all with credentials in them."""
    body = json.dumps({"records": [RECORD]}).encode()
    bearer = ("Authorization", f"Bearer {SECRETS['client token']}")
    both = f"me:{SECRETS['client password']}"
    basic = ("Authorization", "Basic " + base64.b64encode(both.encode()).decode())
    json_type, host = ("Content-Type", "application/json"), ("Host", f"{both}@collector")
    target = f"/analytics/{scope}"
    query = f"?access_token={SECRETS['token in a query']}"
    url = f"http://{quote(both, safe=':')}@collector"
    made = [
        request("POST", path, content, (head, place, json_type), version=version)
        for path in (target, target + query, url + target, "/nothing" + query, "/analytics/unknown" + query)
        for content in (body, b"{", body[:-3])
        for head, place in ((bearer, host), (basic, ("Host", "x")))
        for version in ("1.1", "1.0")
    ]
    long_header = (bearer[0], bearer[1] * 4000)
    odd = [
        request("GET", target, b"", (bearer, host)),
        request("POST", target, body, (bearer, ("Content-Type", f"text/{SECRETS['client token']}"))),
        request("POST", target, body, (json_type, bearer, ("Content-Encoding", SECRETS["client token"]))),
        request("POST", target, body, (json_type, long_header)),
        request("POST", target, body, (json_type, *[bearer] * 1000)),
        request("POST", target, body, (json_type, bearer, ("Content-Length", SECRETS["client token"]))),
        request("POST", target, body, (json_type, bearer), version="7.3"),
        request("POST", target, body, (json_type, bearer))[:-20] + CUT,
        f"Authorization: {bearer[1]}\r\n\r\n".encode(),
        f"{bearer[1]} {both}\r\n\r\n".encode(),
    ]
    return made + odd


async def seen_of(service: Watched, port: int) -> dict[str, bytes]:
    """What the admin port, to whoever has its token or another, and the process table show."""
    shown = service.process()
    for path in ("healthz", "readyz", "nothing", "status", "tenants", "configuration", "events", "quarantine"):
        for token in (SECRETS["admin token"], SECRETS["client token"]):
            headers = {"Authorization": f"Bearer {token}"}
            response = await treq.get(f"http://127.0.0.1:{port}/{path}", headers=headers, persistent=False)
            seen = repr([response.code, *response.headers.getAllRawHeaders()]).encode() + await response.content()
            shown[path] = shown.get(path, b"") + seen
    return shown


async def ended(service: Watched) -> None:
    """Stop it in order."""
    service.popen.terminate()
    await until(lambda: service.popen.poll() is not None)


def secrets_of(*names: str) -> dict[str, str]:
    """Some of the planted secrets."""
    return {name: SECRETS[name] for name in names}


@pytest_twisted.ensureDeferred
async def test_a_collector_with_a_signing_service(tmp_path: Path, started: list[Watched]) -> None:
    """Tokens, the admin port's too, signed URLs, clients' credentials: through working and failing requests."""
    ports = Ports()
    signing = SigningServer(SECRETS["bearer token"])
    raw = RawServer(b"HTTP/1.1 X-Amz-Signature=confidential-1\r\n\r\n", then_close=True)
    bad = ports.listen(raw)
    signing.next_signs += [
        *(echo(status) for status in (401, 403, 400, 500, 302, 429, 200)),
        answer(200, b'{"url": "http://no host/?X-Amz-Signature=confidential-1"}'),
        answer(200, b'{"url": "http://u:confidential-2@127.0.0.1/x"}'),
        answer(200, b'{"url": "confidential-3"'),
        answer(200, f'{{"url": "http://{bad}/x?X-Amz-Signature=confidential-4"}}'.encode()),
        answer(200, b'{"url": "http://127.0.0.1:1/x?X-Amz-Signature=confidential-5"}'),
        answer(200, b'{"url": "https://127.0.0.1:1/x?X-Amz-Signature=confidential-6"}'),
    ]
    signing.next_puts += [echo(status) for status in (400, 403, 404, 413, 500, 302, 503)]
    signer = ports.listen(signing.site())
    config = configured(
        tmp_path / "axcollector.yaml",
        local_storage_path=str(tmp_path / "run" / "data"),
        admin_listen="tcp:0:interface=127.0.0.1",
        uap_server_base=f"http://{signer}",
        bearer_token=SECRETS["bearer token"],
        admin_token=SECRETS["admin token"],
        max_upload_attempts=1,
        **QUICK,
    )
    (tmp_path / "run").mkdir(mode=0o700)
    with Registry.create(str(tmp_path / "run" / "data" / "registry.db")) as registry:
        scopes = [registry.add_scope("acme", f"e{number}").id for number in range(30)]
    service = Watched(tmp_path / "run", "axcollector", config)
    started.append(service)
    await until(lambda: port_of(service, "listen") and "catalog built" in service.text())
    answers = await say(port_of(service, "listen"), *clients_requests(scopes[0]))
    assert {each.split()[1] for each in answers if each.startswith(b"HTTP/1.1 ")} >= {b"200", b"400", b"404", b"405"}
    for scope in scopes:
        body = json.dumps({"records": [RECORD]}).encode()
        await say(
            port_of(service, "listen"),
            request("POST", f"/analytics/{scope}", body, (("Content-Type", "application/json"),)),
        )
    await until(lambda: len(signing.objects) >= 20 and not signing.next_puts, 100)
    shown = await seen_of(service, port_of(service, "admin_listen"))
    await ended(service)
    names = ("bearer token", "admin token", "signature", "client token", "client password", "token in a query")
    planted = secrets_of(*names)
    assert (b"[404," in shown["nothing"], b"[401," in shown["nothing"]) == (True, True)
    written = {**files_below(tmp_path / "run"), **shown, **{f"answer {n}": each for n, each in enumerate(answers)}}
    assert "was not delivered" in service.text()
    assert places(planted, written) == []
    assert places(planted, {"its own": files_below(tmp_path)[config]}) == [
        "its own: bearer token",
        "its own: admin token",
    ]
    await raw.close()
    await ports.close()


@pytest_twisted.ensureDeferred
async def test_a_collector_behind_a_proxy(tmp_path: Path, started: list[Watched]) -> None:
    """The password of `upload_proxy`, which it refuses at first, to uploads and to sync."""
    ports, servers = Ports(), Servers()
    servers.sync.add_scope("scope-1", "tenant-a")
    proxy = PlainProxy(reactor, "Basic never")
    sync, signer = ports.listen(Site(servers.sync.resource)), ports.listen(servers.signer.site())
    config = configured(
        tmp_path / "axcollector.yaml",
        local_storage_path=str(tmp_path / "run" / "data"),
        upload_proxy=f"http://me:{quote(SECRETS['proxy password'])}@{ports.listen(proxy)}",
        **synced(sync, signer),
    )
    service = Watched(tmp_path / "run", "axcollector", config)
    started.append(service)
    await until(lambda: "the proxy wants a user name and password" in service.text())
    both = f"me:{SECRETS['proxy password']}"
    proxy.authorization = good = "Basic " + base64.b64encode(both.encode()).decode()
    await until(lambda: "catalog built" in service.text())
    proxy.authorization = "Basic never"
    body = json.dumps({"records": [RECORD]}).encode()
    posted = request("POST", "/analytics/scope-1", body, (("Content-Type", "application/json"),))
    await say(port_of(service, "listen"), posted)
    await until(lambda: "signer is paused" in service.text() or '"authority": "signer"' in service.text())
    proxy.authorization = good
    await until(lambda: servers.signer.objects)
    shown = await seen_of(service, port_of(service, "admin_listen"))
    await ended(service)
    planted = secrets_of("proxy password", "consumer secret", "sync token", "signature")
    assert places(planted, {**files_below(tmp_path / "run"), **shown}) == []
    await ports.close()


def synced(sync: str, signer: str) -> dict[str, Any]:
    """Settings of a collector that follows sync servers, and asks a signer."""
    return {
        "admin_listen": "tcp:0:interface=127.0.0.1",
        "sync": "transicator",
        **{f"apigeesync_{name}_server_base": f"http://{sync}" for name in ("proxy", "snapshot", "change")},
        "apigeesync_consumer_key": "key",
        "apigeesync_consumer_secret": SECRETS["consumer secret"],
        "apigeesync_cluster_id": CLUSTER,
        "apigeesync_poll_interval": "1s",
        "uap_server_base": f"http://{signer}",
        **QUICK,
    }


@pytest_twisted.ensureDeferred
async def test_a_collector_with_sync_servers(tmp_path: Path, started: list[Watched]) -> None:
    """The consumer's secret and the tokens that the sync servers give; also those of answers that are none."""
    ports, servers = Ports(), Servers()
    servers.sync.add_scope("scope-1", "tenant-a")
    for what in ("token", "snapshots", "data", "changes"):
        servers.sync.next[what] += [echo(status) for status in (401, 302, 200)]
    sync, signer = ports.listen(Site(servers.sync.resource)), ports.listen(servers.signer.site())
    config = configured(
        tmp_path / "axcollector.yaml",
        local_storage_path=str(tmp_path / "run" / "data"),
        **synced(sync, signer),
    )
    service = Watched(tmp_path / "run", "axcollector", config)
    started.append(service)
    await until(lambda: "catalog built" in service.text())
    add_key(servers.sync)
    body = json.dumps({"records": [RECORD]}).encode()
    posted = request("POST", "/analytics/scope-1", body, (("Content-Type", "application/json"),))
    await say(port_of(service, "listen"), posted)
    await until(lambda: servers.signer.objects and not any(servers.sync.next.values()), 100)
    shown = await seen_of(service, port_of(service, "admin_listen"))
    await ended(service)
    assert places(secrets_of("consumer secret", "sync token"), {**files_below(tmp_path / "run"), **shown}) == []
    await ports.close()


@pytest_twisted.ensureDeferred
async def test_a_collector_with_s3(tmp_path: Path, started: list[Watched]) -> None:
    """The credentials of the environment, with a store that refuses them in many ways."""
    ports = Ports()
    answers = [echo(status) for status in (400, 403, 404, 500, 302, 503)] * 3

    class Store(Resource):
        isLeaf = True  # noqa: N815 - as Twisted names it
        asked = 0

        def render(self, request: Request) -> bytes:
            self.asked += 1
            return answers[self.asked % len(answers)](request)

    store = Store()
    config = configured(
        tmp_path / "axcollector.yaml",
        local_storage_path=str(tmp_path / "run" / "data"),
        admin_listen="tcp:0:interface=127.0.0.1",
        store="s3://bucket/prefix",
        s3_endpoint_url=f"http://{ports.listen(Site(store))}",
        max_upload_attempts=2,
        **QUICK,
    )
    (tmp_path / "run").mkdir(mode=0o700)
    with Registry.create(str(tmp_path / "run" / "data" / "registry.db")) as registry:
        scopes = [registry.add_scope("acme", f"e{number}").id for number in range(10)]
    credentials = {
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": SECRETS["S3 key"],
        "AWS_SESSION_TOKEN": SECRETS["S3 session"],
    }
    service = Watched(tmp_path / "run", "axcollector", config, **credentials)
    started.append(service)
    await until(lambda: "catalog built" in service.text())
    body = json.dumps({"records": [RECORD]}).encode()
    for scope in scopes:
        posted = request("POST", f"/analytics/{scope}", body, (("Content-Type", "application/json"),))
        await say(port_of(service, "listen"), posted)
    await until(lambda: store.asked >= 8, 100)
    shown = await seen_of(service, port_of(service, "admin_listen"))
    await ended(service)
    assert places(secrets_of("S3 key", "S3 session"), {**files_below(tmp_path / "run"), **shown}) == []
    await ports.close()


@pytest_twisted.ensureDeferred
async def test_a_signing_service(tmp_path: Path, started: list[Watched]) -> None:
    """Its own credentials, good tokens and wrong ones, and what it signs; the token is not even in its file."""
    config = configured(tmp_path / "axsigner.yaml", s3_url="s3://analytics/records")
    (tmp_path / "run").mkdir(mode=0o700)
    with TokenFile.create(str(tmp_path / "run" / "axsigner-data" / "tokens.db"), Bound.TENANTS) as file:
        _, token = file.add(["acme~prod"], 0)
    service = Watched(
        tmp_path / "run",
        "axsigner",
        config,
        AWS_ACCESS_KEY_ID="AKIDEXAMPLE",
        AWS_SECRET_ACCESS_KEY=SECRETS["S3 key"],
        AWS_SESSION_TOKEN=SECRETS["S3 session"],
    )
    started.append(service)
    await until(lambda: port_of(service, "listen"))
    path = "date=2026-01-02/time=03-04-05/f.txt.gz"
    question = f"/analytics?tenant=acme~prod&relative_file_path={quote(path)}&file_content_type=application/x-gzip"

    def ask(target: str, authorization: str) -> bytes:
        return request("GET", target, b"", (("Host", "x"), ("Authorization", authorization)))

    wrong = SECRETS["client token"]
    both = base64.b64encode(f"me:{token}".encode()).decode()
    good = b""
    while b'{"url":' not in good:  # tokens are watched
        (good,) = await say(port_of(service, "listen"), ask(question, f"Bearer {token}"))
    signature = re.search(rb"X-Amz-Signature=(\w+)", good)
    assert signature
    others = await say(
        port_of(service, "listen"),
        ask(question, f"Bearer {wrong}"),
        ask(question, f"Basic {both}"),
        ask(question.replace("acme~prod", "other~prod"), f"Bearer {token}"),
        ask(question + f"&token={token}", f"Bearer {token}"),
        ask(f"/nothing?token={token}", f"Bearer {token}"),
        f"GET {question} HTTP/1.1\r\nAuthorization Bearer {token}\r\n\r\n".encode(),
        f"Bearer {token}\r\n\r\n".encode(),
    )
    shown = service.process()
    await ended(service)
    assert b'{"url":' in others.pop(3)
    planted = {**secrets_of("S3 key", "S3 session", "client token"), "the token": token}
    written = {**files_below(tmp_path / "run"), **shown, **{f"answer {n}": each for n, each in enumerate(others)}}
    assert places({**planted, "the signature": signature[1].decode()}, written) == []
    assert places(secrets_of("S3 key"), {"the good answer": good}) == []


URL = f"https://me:{SECRETS['proxy password']}@store.example.com:8443/b/k?X-Amz-Signature={SECRETS['signature']}9#x"


class TalkativeStore:
    """A store that fails as no store should."""

    def __init__(self) -> None:
        self.asked = 0

    def put(self, tenant: str, key: str, path: str) -> "defer.Deferred[None]":
        self.asked += 1
        problem = ValueError(f"PUT {URL} failed with Authorization: Bearer {SECRETS['bearer token']}")
        return defer.fail(problem)

    def authorities(self, tenant: str) -> tuple[str, ...]:
        return ()

    def close(self) -> "defer.Deferred[None]":
        return defer.succeed(None)


def as_text(events: list[LogEvent]) -> bytes:
    """The events as a log file shows them, with tracebacks."""
    file = io.StringIO()
    observer = textFileLogObserver(file)
    for event in events:
        observer(event)
    return file.getvalue().encode()


@pytest_twisted.ensureDeferred
async def test_a_store_that_raises_what_it_was_asked(
    tmp_path: Path, log_events: list[LogEvent], logged_failures: LoggedFailures
) -> None:
    """The traceback is in the log, the URL's user and query and the token are not."""
    with Registry.create(str(tmp_path / "data" / "registry.db")) as registry:
        scope = registry.add_scope("acme", "prod").id
    store = TalkativeStore()
    collector = Collector(reactor, Config(local_storage_path=str(tmp_path / "data"), **QUICK), store)
    collector.startService()
    await until(collector.directory.ready)
    await collector.submit(scope, [RECORD])
    await until(lambda: store.asked)
    await collector.stopService()
    assert len(logged_failures.take(Exception)) == store.asked
    text = as_text(log_events)
    assert b"met a bug" in text
    assert b"builtins.ValueError: PUT https://store.example.com:8443/b/k?" in text
    assert places(secrets_of("bearer token", "proxy password", "signature"), {"the log": text}) == []


def test_a_request_that_meets_a_bug(
    tmp_path: Path, log_events: list[LogEvent], logged_failures: LoggedFailures
) -> None:
    """Neither the log nor the answer has what the bug's exception quotes."""
    stand = Stand(tmp_path)

    def broken() -> bool:
        raise ValueError(f"{URL} with Basic {SECRETS['client password']}")

    stand.directory.ready = broken
    connection = Connection(stand.site)
    connection.send(request("POST", "/analytics/s1", b"{}", (("Content-Type", "application/json"),)))
    data = connection.transport.value()
    connection.hang_up()
    assert b" 500 " in data
    assert len(logged_failures.take(ValueError)) == 1
    written = {"the log": as_text(log_events), "the answer": data}
    assert b"builtins.ValueError: https://store.example.com" in written["the log"]
    assert places(secrets_of("client password", "proxy password", "signature"), written) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no secret: 5 of https://a.example.com/b/c", "no secret: … of https://a.example.com/b/c"),
        ("plain words, a:b and 1+1=2", "plain words, a:b and 1+1=2"),
        ("GET http://me:pw@h/p?q=1#f now", "GET http://h/p?… now"),
        ("http://h/p#f", "http://h/p#…"),
        ("b'https://h/?X-Amz-Signature=1&b=2'", "b'https://h/?…"),
        ("Authorization: Bearer abc.def", "Authorization: … …"),
        ("proxy-authorization=Basic YTpi", "proxy-authorization=… …"),
        ("sent 'Basic YTpi' twice", "sent 'Basic …"),
        ("{'bearer_token': 'x y', 'n': 1}", "{'bearer_token': …, 'n': 1}"),
        ("sig=abc&X-Amz-Credential=d/e&c=1", "sig=…&X-Amz-Credential=…&c=1"),
        ("token axt_abc-DEF_1 refused", "token … refused"),
        ("http://me:p@ss@h:1/x", "http://h:1/x"),
        ("proxy http://me:pa/ss?w#ord@h:1/x is down", "proxy http://h:1/x is down"),
        ("{'x-api-key': 'abc'}", "{'x-api-key': …}"),
        ("access_key=abc&private-key=def", "access_key=…&private-key=…"),
        ("passphrase: abc, pwd=a;b", "passphrase: …, pwd=…"),
        ("password=b'it is', n=1", "password=…, n=1"),
        ("{b'x-token': [b'abc']}", "{b'x-token': …]}"),
        ('"client_secret": "a\\"b", "n": 1', '"client_secret": …, "n": 1'),
        ("Set-Cookie: a=b; c=d\nnext", "Set-Cookie: …\nnext"),
        (
            "of -----BEGIN EC PRIVATE KEY-----\nMHc\n-----END EC PRIVATE KEY----- at",
            "of -----BEGIN EC PRIVATE KEY-----… at",
        ),
        ("b'-----BEGIN PRIVATE KEY-----\\nMHc", "b'-----BEGIN PRIVATE KEY-----…"),
    ],
)
def test_redaction(text: str, shown: str) -> None:
    """Rather too much than too little."""
    assert redacted(text) == shown


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "a-",
        "a:",
        "://a:",
        "bearer ",
        "password",
        "pwd=",
        "cookie:",
        "cookie ",
        'token="\\',
        "token='b",
        "axt_",
        "x_key \t",
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN ",
    ],
)
def test_redaction_of_long_texts(unit: str) -> None:
    """It takes time in proportion to the text, whatever the text: else this would take hours."""
    text = unit * (300_000 // len(unit))
    assert len(redacted(text)) <= len(text)


def test_long_words_are_cut() -> None:
    """What an exception quotes of a body is not logged at any length, nor what is secret at the cut."""
    text = "token='" + "x y" * 1000 + "z" * 20_000
    told = without_secrets(Failure(ValueError(text)))
    assert str(told.value) == "token=…"
    assert len(str(without_secrets(Failure(ValueError("z" * 20_000))).value)) == 16_384


def test_exceptions_that_do_not_speak(logged_failures: LoggedFailures) -> None:
    """An exception whose words cannot be had is told all the same; the failure itself stays as it was."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError(URL)

    failure = Failure(Mute())
    told = without_secrets(failure)
    assert told.check(Mute)
    assert "it does not say what it is" in told.getTraceback()
    assert isinstance(failure.value, Mute)


def test_what_is_looked_for() -> None:
    """A secret is found however it is written down, and not where it is not."""
    secret = "pl+nted/token=1"
    raw = secret.encode()
    ways = [raw, quote(secret).encode(), quote(secret, safe="").encode(), repr(secret).encode(), raw.hex().encode()]
    ways += [base64.b64encode(b"x" * n + raw + b"y" * m) for n in range(4) for m in range(4)]
    ways += [base64.urlsafe_b64encode(b"x" * n + raw + b"y" * m) for n in range(4) for m in range(4)]
    ways.append(json.dumps({"a": secret}).encode())
    assert [way for way in ways if places({"it": secret}, {"here": b"a" + way + b"b"}) != ["here: it"]] == []
    assert places({"it": secret}, {"here": raw[:-1] + b" " + raw[1:]}) == []
    assert all(len(form) > 12 for form in forms(secret))
