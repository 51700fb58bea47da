"""The admin pages behind their token: who sees what, and that the token is never shown."""

import base64
import json
import os
from pathlib import Path

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent

from axcollector.admin.access import MOST_CONNECTIONS, AdminSite, AdminToken, GuardedResource, read_token
from axcollector.admin.asked import MOST_BYTES
from axcollector.admin.health import HealthAPI
from axcollector.connections import OWN_DESCRIPTORS, TurnedAway
from axcollector.core.errors import ConfigError
from tests.test_health import FRESH, SICK, WELL, Patient
from tests.wire import Connection, request

TOKEN = "hush-hush"


def basic(user: str, password: str) -> str:
    """An Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def exchange(
    target: str, *authorization: str, token: AdminToken | None = None, patient: Patient = WELL, method: str = "GET"
) -> tuple[int, bytes, bytes]:
    """Status, head and body of an answer."""
    guard = token if token is not None else AdminToken(TOKEN)
    pages = HealthAPI(patient, guard.allows).resource()
    connection = Connection(AdminSite(GuardedResource(pages, guard), Clock()))
    headers = tuple(("Authorization", value) for value in authorization)
    connection.send(request(method, target, headers=headers))
    head, _, body = connection.transport.value().partition(b"\r\n\r\n")
    connection.hang_up()
    return int(head.split(b" ")[1]), head, body


GOOD = [f"Bearer {TOKEN}", f"bearer   {TOKEN} ", basic("", TOKEN), basic("anybody", TOKEN)]
BAD = [
    *("", "Bearer", "Bearer ", "Bearer hush", f"Bearer {TOKEN}x", f"Bearer {TOKEN} {TOKEN}", f"Token {TOKEN}", TOKEN),
    *(basic(TOKEN, ""), basic("a", "hush"), "Basic " + base64.b64encode(TOKEN.encode()).decode(), "Basic hush*hush"),
    *(f"Digest {TOKEN}", "Basic " + TOKEN, "Bearer " + "x" * 9000, "Bearer \xff"),
]


@pytest.mark.parametrize("authorization", GOOD)
@pytest.mark.parametrize("target", ["/", "/metrics", "/healthz/more"])
def test_with_the_token(authorization: str, target: str) -> None:
    """Whoever has the token gets to the pages, as Bearer or as the password of Basic, whatever the user name."""
    status, _, body = exchange(target, authorization)
    assert (status, json.loads(body)["errorCode"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize("authorization", BAD)
def test_with_another_token(authorization: str, log_events: list[LogEvent]) -> None:
    """Whatever is not the token is refused in JSON, with both ways in which it could be sent; nothing repeats it."""
    status, head, body = exchange("/metrics", authorization)
    expected = {"errorCode": "UNAUTHORIZED", "reason": "The admin token is needed (admin_token)"}
    assert (status, json.loads(body)) == (401, expected)
    assert b"Content-Type: application/json; charset=utf-8" in head
    challenges = [line for line in head.split(b"\r\n") if line.startswith(b"WWW-Authenticate: ")]
    assert challenges == [b'WWW-Authenticate: Bearer realm="axcollector", Basic realm="axcollector"']
    assert TOKEN.encode() not in head + body
    assert TOKEN not in str(log_events)


@pytest.mark.parametrize("target", ["/", "/metrics", "/healthz/", "//healthz", "/healthz/x", "/%68ealthz", "/HEALTHZ"])
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_without_a_token(target: str, method: str) -> None:
    """Only the exact paths of health are open; everything else, there or not, is not even said to be there."""
    status, _, body = exchange(target, method=method)
    assert (status, bool(body)) == (401, method != "HEAD")


def test_nothing_is_logged_of_requests(log_events: list[LogEvent]) -> None:
    """No line for each probe, and none for what somebody takes for a way to send the token."""
    pages = HealthAPI(WELL, lambda _: True).resource()
    site = AdminSite(GuardedResource(pages, AdminToken(TOKEN)), Clock())
    site.startFactory()
    connection = Connection(site)
    for target in ("/healthz", f"/readyz?token={TOKEN}"):
        connection.send(request("GET", target, headers=(("Referer", TOKEN),)))
    connection.hang_up()
    assert connection.transport.value().count(b"HTTP/1.1 200 ") == 2
    site.stopFactory()
    assert log_events == []


def test_two_headers() -> None:
    """Two answers to one question are none."""
    assert exchange("/metrics", f"Bearer {TOKEN}", f"Bearer {TOKEN}")[0] == 401


@pytest.mark.parametrize("patient", [WELL, FRESH, SICK])
def test_health_without_a_token(patient: Patient) -> None:
    """A probe gets yes or no; reasons are for those who have the token."""
    assert exchange("/healthz", patient=patient)[0] == 200
    status, _, body = exchange("/readyz?x", patient=patient)
    assert (status, json.loads(body)) == (200 if patient is WELL else 503, {"ready": patient is WELL})
    assert exchange("/readyz", "Bearer wrong", patient=patient)[2] == body
    told = json.loads(exchange("/readyz", f"Bearer {TOKEN}", patient=patient)[2])
    assert set(told) == {"ready", "checks"}


def test_bodies_are_bounded_before_the_token_is_looked_at() -> None:
    """Whoever has none can fill neither memory nor disk, nor send for ever."""
    guard = AdminToken(TOKEN)
    clock = Clock()
    site = AdminSite(GuardedResource(HealthAPI(WELL, guard.allows).resource(), guard), clock)
    connection = Connection(site)
    connection.send(b"POST /retry HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000000\r\n\r\n")
    for _ in range(2 * MOST_BYTES // 1024):
        connection.send(b"x" * 1024)
        assert site.pending.held <= MOST_BYTES
    connection.send(b"x")
    assert [answer.status for answer in connection.answers()] == [413]
    clock.advance(60)
    assert (connection.closing, site.pending.held) == (True, 0)
    connection.hang_up()
    slow = Connection(site)
    slow.send(b"GET / HTTP/1.1\r\n")
    clock.advance(60)
    assert [answer.status for answer in slow.answers()] == [408]
    slow.hang_up()


def test_connections_are_bounded(log_events: list[LogEvent]) -> None:
    """They leave open files to those who bring records; the log does not say that max_connections would help."""
    guard = AdminToken(TOKEN)
    site = AdminSite(GuardedResource(HealthAPI(WELL, guard.allows).resource(), guard), Clock())
    assert MOST_CONNECTIONS < OWN_DESCRIPTORS
    connections = [Connection(site) for _ in range(MOST_CONNECTIONS)]
    assert isinstance(site.buildProtocol(None), TurnedAway)
    connections.pop().hang_up()
    assert not isinstance(site.buildProtocol(None), TurnedAway)
    for connection in connections:
        connection.hang_up()
    (said,) = [formatEvent(event) for event in log_events]
    assert said == f"{MOST_CONNECTIONS} connections are open (the limit of the admin port); more get 503"


def test_where_there_is_no_token() -> None:
    """Nobody needs one, and reasons are for all; one that is put in place later counts at once, as does its end."""
    token = AdminToken(None)
    assert exchange("/metrics", token=token)[0] == 404
    assert b"checks" in exchange("/readyz", token=token)[2]
    token.use(TOKEN)
    assert exchange("/metrics", token=token)[0] == 401
    token.use("another")
    assert exchange("/metrics", f"Bearer {TOKEN}", token=token)[0] == 401
    assert exchange("/metrics", "Bearer another", token=token)[0] == 404
    token.use(None)
    assert exchange("/metrics", token=token)[0] == 404


def test_tokens_in_files(tmp_path: Path) -> None:
    """A file holds one token; what it holds otherwise is not repeated."""
    path = tmp_path / "token"
    path.write_text(f" {TOKEN}\n")
    assert read_token(None, str(path)) == TOKEN
    assert read_token("given", None) == "given"
    assert read_token(None, None) is None
    for given in ("", " ", "two words", "h\xe4sh", "\ud800", "x" * 5000):
        with pytest.raises(ConfigError, match=r"^admin_token is not one token; allowed are visible ASCII characters$"):
            read_token(given, None)
    for text in ("", "\n", f"{TOKEN} {TOKEN}", "h\xe4sh", "x" * 5000):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"admin_token_file: .* does not hold one token") as caught:
            read_token(None, str(path))
        assert not text.strip() or text.strip() not in str(caught.value)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ConfigError, match=r"/token cannot be read: It is no regular file$"):
        read_token(None, str(path))
    path.unlink()
    with pytest.raises(ConfigError, match=r"admin_token_file: .*/token cannot be read: No such file or directory$"):
        read_token(None, str(path))
