"""The signing service's routes: who gets a signed URL, and what everybody else is told."""

import json
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

import pytest
from twisted.internet import defer
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent

from axcollector.core.errors import EndpointUnavailable, Unavailable
from axcollector.signer.api import SignerAPI
from axcollector.signer.presigner import S3Presigner
from axcollector.site import IngestSite
from axcollector.stores.s3_signing import Credentials, S3Signer
from axcollector.tokens import EVERY_NAME, Token, TokenBook, digest_of
from tests.conftest import LoggedFailures
from tests.test_signing import HOSTILE_PATHS, PATH
from tests.verifying_store import VerifyingStore
from tests.wire import Answer, Connection, request

NOW: Final = 1_800_000_000.0
ACME: Final = "token-of-acme"
EVERYBODY: Final = "token-of-everybody"
LATE: Final = "token-of-yesterday"
SECRETS: Final = (ACME, EVERYBODY, LATE, "open sesame", "X-Amz-Signature")


class Book:
    """The tokens of the tests; `is_unknown`: nobody can be told yes or no."""

    def __init__(self) -> None:
        names = {ACME: {"acme~prod", "acme~test"}, EVERYBODY: {EVERY_NAME}, LATE: {"acme~prod"}}
        self.book = TokenBook(
            {
                digest_of(secret): Token(
                    f"id-of-{secret[9:]}", frozenset(of), "", 0, int(NOW) if secret == LATE else None
                )
                for secret, of in names.items()
            }
        )
        self.is_unknown = False

    def find(self, secret: str) -> Token | None:
        """Look it up."""
        if self.is_unknown:
            raise Unavailable("Tokens cannot be checked at present")
        return self.book.find(secret, NOW)

    def problem(self) -> str | None:
        """As a watch tells it."""
        return "out of order" if self.is_unknown else None


class Stand:
    """The service behind a site of ours, with the real signer and a store that checks what is signed."""

    def __init__(self, expires_seconds: int = 900) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.tokens = Book()
        self.credentials: Callable[[], Any] = lambda: defer.succeed(Credentials("AKIDEXAMPLE", "open sesame"))
        signer = S3Signer("bucket", "pre/fix", "eu-central-1", "http://store.example:81")
        self.presigner = S3Presigner(
            signer, lambda: self.credentials(), self.clock.seconds, expires_seconds=expires_seconds
        )
        self.site = IngestSite(
            SignerAPI(self.tokens, self.presigner).resource(),
            self.clock,
            max_body_bytes=1024,
            max_pending_bytes=4096,
            request_timeout_seconds=60,
        )
        self.store = VerifyingStore(self.clock.seconds)

    def send(self, data: bytes) -> Answer:
        """The answer to one request."""
        connection = Connection(self.site)
        connection.send(data)
        (answer,) = connection.answers()
        connection.hang_up()
        return answer

    def ask(self, token: str | None = ACME, *, method: str = "GET", **parameters: str) -> Answer:
        """Ask as a collector does."""
        query = {"tenant": "acme~prod", "relative_file_path": PATH, **parameters}
        headers = () if token is None else (("Authorization", f"Bearer {token}"),)
        return self.send(request(method, f"/analytics?{urlencode(query, quote_via=quote, safe='')}", headers=headers))

    def url(self, token: str = ACME, **parameters: str) -> str:
        """The URL that is answered."""
        answer = self.ask(token, **parameters)
        assert answer.status == 200, answer
        body = json.loads(answer.body)
        assert list(body) == ["url"]
        return str(body["url"])

    def put(self, url: str, **headers: str) -> str | None:
        """How the store refuses a PUT to a URL, if it does."""
        parts = urlsplit(url)
        named = {"host": parts.netloc, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return self.store.refusal_of("PUT", url.removeprefix(f"{parts.scheme}://{parts.netloc}"), named)


@pytest.fixture
def stand() -> Stand:
    """A fresh one."""
    return Stand()


def error_of(answer: Answer) -> tuple[int, str]:
    """Status and code of a refusal, which has the form of all of them."""
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    body = json.loads(answer.body)
    assert list(body) == ["errorCode", "reason"]
    assert body["reason"]
    return answer.status, body["errorCode"]


def test_a_signed_url(stand: Stand) -> None:
    """It names the tenant's place below the prefix, and the store takes a PUT to it, for as long as was said."""
    url = stand.url(file_content_type="application/x-gzip", encrypt="true")
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc) == ("http", "store.example:81")
    assert unquote(parts.path) == f"/bucket/pre/fix/acme~prod/{PATH}"
    query = parse_qs(parts.query)
    assert query["X-Amz-Expires"] == ["900"]
    assert query["X-Amz-SignedHeaders"] == ["content-type;host;x-amz-server-side-encryption"]
    headers = {"content_type": "application/x-gzip", "x_amz_server_side_encryption": "AES256"}
    assert stand.put(url, **headers) is None
    stand.clock.advance(899)
    assert stand.put(url, **headers) is None
    stand.clock.advance(1)
    assert stand.put(url, **headers) == "AccessDenied"


@pytest.mark.parametrize(
    ("parameters", "signed"),
    [
        ({}, "host"),
        ({"encrypt": "false"}, "host"),
        ({"encrypt": "true"}, "host;x-amz-server-side-encryption"),
        ({"file_content_type": "application/x-gzip"}, "content-type;host"),
    ],
)
def test_what_is_signed(stand: Stand, parameters: dict[str, str], signed: str) -> None:
    """Encryption and content type are signed where they are asked for, so that the PUT has to have them."""
    url = stand.url(**parameters)
    assert parse_qs(urlsplit(url).query)["X-Amz-SignedHeaders"] == [signed]
    assert (stand.put(url) is None) == (signed == "host")


def test_a_url_is_good_for_one_object(stand: Stand) -> None:
    """Whatever is changed in it, the store refuses it."""
    url = stand.url()
    assert stand.put(url) is None
    for old, new in (
        ("acme~prod", "acme~test"),
        ("pre/fix/", ""),
        ("X-Amz-Expires=900", "X-Amz-Expires=9000"),
        ("4f2a", "4f2b"),
    ):
        assert old in url
        assert stand.put(url.replace(old, new)) == "SignatureDoesNotMatch"
    assert stand.put(url, x_amz_acl="public-read") == "AccessDenied"


def test_a_token_that_is_revoked_meanwhile(stand: Stand) -> None:
    """Looking up credentials may take many seconds, and a revocation counts after two."""
    found: defer.Deferred[Credentials] = defer.Deferred()
    stand.credentials = lambda: found
    connection = Connection(stand.site)
    query = urlencode({"tenant": "acme~prod", "relative_file_path": PATH})
    connection.send(request("GET", f"/analytics?{query}", headers=(("Authorization", f"Bearer {ACME}"),)))
    stand.tokens.book = TokenBook({})
    found.callback(Credentials("AKIDEXAMPLE", "open sesame"))
    (answer,) = connection.answers()
    assert answer.status == 401
    connection.hang_up()


def test_answers_are_not_kept(stand: Stand) -> None:
    """No cache on the way may give a URL to anybody else."""
    assert stand.ask().headers["cache-control"] == "no-store"


def test_expiry_is_configured() -> None:
    """Another length of time than the default's."""
    assert parse_qs(urlsplit(Stand(60).url()).query)["X-Amz-Expires"] == ["60"]


def test_whose_token_it_is(stand: Stand) -> None:
    """A token is good for its tenants, in the protocol's words; one of all tenants for each."""
    assert "/acme~test/" in stand.url(tenant="acme~test")
    assert error_of(stand.ask(tenant="other~prod")) == (403, "FORBIDDEN")
    assert error_of(stand.ask(tenant="acme~pro")) == (403, "FORBIDDEN")
    assert error_of(stand.ask(tenant="ACME~prod")) == (403, "FORBIDDEN")
    assert "/other~prod/" in stand.url(EVERYBODY, tenant="other~prod")
    assert (
        unquote(urlsplit(stand.url(EVERYBODY, tenant="a%7Eb%25~ü /c")).path)
        == f"/bucket/pre/fix/a%7Eb%25~%C3%BC%20%2Fc/{PATH}"
    )


def test_a_tenant_in_other_words(stand: Stand) -> None:
    """Another way to write a tenant is refused, whoever asks."""
    for tenant in ("%61cme~prod", "acme%7Eprod", "acme~prod~", "acme~prod/../other~prod", "acme~prod\0"):
        for token in (ACME, EVERYBODY):
            assert error_of(stand.ask(token, tenant=tenant)) == (400, "BAD_DATA")
    for tenant in ("acme~prod/", "acme/~prod", "acme~prod ", "./acme~prod", "acme~pr\u200bod", "acme\u0301~prod"):
        assert error_of(stand.ask(ACME, tenant=tenant)) == (403, "FORBIDDEN")
        assert "/acme~prod/" not in stand.url(EVERYBODY, tenant=tenant)


def test_who_has_no_token(stand: Stand) -> None:
    """A token that is missing, unknown or expired is 401, and the answer says how to give one."""
    for token in (None, "token-of-nobody", LATE, ACME + "x", ACME[:-1], ACME.upper(), digest_of(ACME).hex()):
        answer = stand.ask(token)
        assert error_of(answer) == (401, "UNAUTHORIZED")
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "headers",
    [
        (("Authorization", "Basic dTp0b2tlbi1vZi1hY21l"),),
        (("Authorization", "Bearer"),),
        (("Authorization", "Bearer "),),
        (("Authorization", ACME),),
        (("Authorization", f"Bearer {ACME} {ACME}"),),
        (("Authorization", f"Bearer {ACME}"), ("Authorization", f"Bearer {ACME}")),
        (("Authorization", b"Bearer \xff\xfe"),),
        (("X-Authorization", f"Bearer {ACME}"),),
    ],
)
def test_headers_that_hold_no_token(stand: Stand, headers: tuple[tuple[str, str | bytes], ...]) -> None:
    """Only one header of the right form counts; a token in the query is none."""
    target = f"/analytics?tenant=acme~prod&relative_file_path={PATH}&access_token={ACME}"
    assert error_of(stand.send(request("GET", target, headers=headers))) == (401, "UNAUTHORIZED")


def test_the_scheme_is_written_in_any_case(stand: Stand) -> None:
    """As RFC 9110 has it."""
    target = f"/analytics?tenant=acme~prod&relative_file_path={PATH}"
    assert stand.send(request("GET", target, headers=(("authorization", f"bEARER  {ACME}"),))).status == 200


def test_without_a_token_nothing_else_is_told(stand: Stand) -> None:
    """Whatever is wrong with the rest, 401 comes first."""
    assert error_of(stand.ask(None, tenant="", relative_file_path="..")) == (401, "UNAUTHORIZED")


def test_what_is_missing(stand: Stand) -> None:
    """A request without a tenant or a path says which is missing."""
    answer = stand.send(request("GET", "/analytics", headers=(("Authorization", f"Bearer {ACME}"),)))
    assert error_of(answer) == (400, "MISSING_FIELD")
    assert json.loads(answer.body)["reason"] == "Missing Required field: tenant"
    assert error_of(stand.ask(relative_file_path="")) == (400, "MISSING_FIELD")


def test_hostile_paths(stand: Stand) -> None:
    """No path but a file's at a date and time is signed, not even for a token of all tenants."""
    for path in HOSTILE_PATHS:
        for token in (ACME, EVERYBODY):
            assert error_of(stand.ask(token, relative_file_path=path)) == (400, "BAD_DATA"), path


@pytest.mark.parametrize("target", ["/", "/analytics/x", "/analytic", "/uap/analytics", "/%2e%2e/analytics"])
def test_other_paths(stand: Stand, target: str) -> None:
    """There is nothing there, in JSON."""
    assert error_of(stand.send(request("GET", target))) == (404, "NOT_FOUND")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods(stand: Stand, method: str) -> None:
    """Only GET (and HEAD, which answers no URL) is there; the answer says so, in JSON."""
    answer = stand.ask(method=method)
    assert error_of(answer) == (405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == "GET, HEAD"


def test_a_body(stand: Stand) -> None:
    """A small one is passed over, a large one refused, a very large one cut."""
    target = f"/analytics?tenant=acme~prod&relative_file_path={PATH}"
    headers = (("Authorization", f"Bearer {ACME}"),)
    assert stand.send(request("GET", target, b"x" * 1024, headers)).status == 200
    assert error_of(stand.send(request("GET", target, b"x" * 2000, headers))) == (413, "PAYLOAD_TOO_LARGE")
    assert error_of(stand.send(request("GET", target, b"x" * 5000, headers, chunks=4096))) == (413, "PAYLOAD_TOO_LARGE")


def test_too_much_of_a_header(stand: Stand) -> None:
    """What is too large for Twisted is refused in JSON."""
    assert error_of(stand.ask("x" * 17_000))[0] == 431


def test_while_tokens_cannot_be_checked(stand: Stand) -> None:
    """Nobody is told yes or no; collectors come again."""
    stand.tokens.is_unknown = True
    answer = stand.ask()
    assert error_of(answer) == (503, "STORAGE_UNAVAILABLE")
    assert answer.headers["retry-after"] == "5"
    ready = stand.send(request("GET", "/readyz"))
    assert (ready.status, json.loads(ready.body)["checks"]["tokens"]) == (
        503,
        {"ok": False, "reason": "out of order", "required": True},
    )


def test_without_credentials(stand: Stand, log_events: list[LogEvent]) -> None:
    """Nothing can be signed; the log says why, once, and the answer does not."""
    good = stand.credentials
    stand.credentials = lambda: defer.fail(EndpointUnavailable("axsigner", "there are no credentials in ~/.aws"))
    for _ in range(3):
        answer = stand.ask()
        assert error_of(answer) == (503, "STORAGE_UNAVAILABLE")
        assert b".aws" not in answer.body
    errors = [formatEvent(event) for event in log_events if event["log_level"].name == "error"]
    assert errors == ["nothing can be signed: there are no credentials in ~/.aws"]
    assert json.loads(stand.send(request("GET", "/readyz")).body)["ready"] is False
    stand.credentials = good
    assert stand.url()
    assert json.loads(stand.send(request("GET", "/readyz")).body)["ready"] is True


def test_a_client_that_hangs_up(stand: Stand) -> None:
    """What it waited for is forgotten, without a word in the log."""
    cancelled: list[object] = []
    stand.credentials = lambda: defer.Deferred(cancelled.append)
    connection = Connection(stand.site)
    target = f"/analytics?tenant=acme~prod&relative_file_path={PATH}"
    connection.send(request("GET", target, headers=(("Authorization", f"Bearer {ACME}"),)))
    assert connection.answers() == []
    connection.hang_up()
    assert len(cancelled) == 1


def test_what_nobody_foresaw(stand: Stand, logged_failures: LoggedFailures) -> None:
    """It is logged, and answered in JSON without a traceback."""
    stand.credentials = lambda: 1 / 0
    assert error_of(stand.ask()) == (500, "INTERNAL_SERVER_ERROR")
    assert len(logged_failures.take(ZeroDivisionError)) == 1


def test_health(stand: Stand) -> None:
    """`/healthz` and `/readyz` ask for no token."""
    assert stand.send(request("GET", "/healthz")).body == b'{"status": "ok"}'
    ready = stand.send(request("GET", "/readyz"))
    checks = {key: {"ok": True, "reason": "", "required": True} for key in ("tokens", "credentials")}
    assert (ready.status, json.loads(ready.body)) == (200, {"ready": True, "checks": checks})


def test_secrets_are_never_logged(stand: Stand, log_events: list[LogEvent]) -> None:
    """Neither in a line nor in a field of one: tokens, signed URLs, credentials; refused tenants are told of by id."""
    stand.url()
    stand.ask("token-of-nobody")
    stand.ask(LATE)
    stand.ask(tenant="other~prod")
    stand.ask(relative_file_path="..")
    text = "".join(repr(event) + formatEvent(event) for event in log_events)
    assert [secret for secret in (*SECRETS, "token-of-nobody") if secret in text] == []
    assert "token id-of-acme is not good for tenant other~prod" in [formatEvent(event) for event in log_events]
