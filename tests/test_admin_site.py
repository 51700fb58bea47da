"""The admin pages against other people's web pages; and the routes that the status page is made of."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from twisted.internet import defer
from twisted.internet.address import UNIXAddress
from twisted.internet.task import Clock

from axcollector.admin.access import AdminSite, AdminToken, GuardedResource
from axcollector.admin.actions import add_actions
from axcollector.admin.health import HealthAPI
from axcollector.admin.page import add_page, static_files
from axcollector.admin.quarantined import add_quarantine, look
from axcollector.admin.site import AdminResource, is_own_name
from axcollector.core.errors import Overloaded
from axcollector.disk import Disk
from tests.conftest import LoggedFailures
from tests.fakes import SameThread
from tests.page_world import HOSTILE, World, set_aside
from tests.wire import Answer, Connection, answers_in, request

NOW = 1_767_323_045.0
OWN = ("Host", "localhost:9001")
CHANGE = ("X-Axcollector", "retry")
POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


class Pages:
    """The admin pages of a world, over a connection in memory."""

    def __init__(self, root: Path = Path("/nowhere"), token: str | None = None, *, unix: bool = False) -> None:
        self.world = World(NOW, failed=3)
        self.token = AdminToken(token)
        self.address = UNIXAddress("/run/admin") if unix else None
        self._root = root
        app = HealthAPI(self.world).app
        add_page(app)
        add_actions(app, self.world)
        add_quarantine(app, SameThread(), str(root))
        self._site = AdminSite(GuardedResource(AdminResource(app, self.token), self.token), Clock())

    def ask(self, method: str, target: str, *headers: tuple[str, str], body: bytes = b"") -> Answer:
        """The answer to a request."""
        (answer,) = answers_in(self.exchange(method, target, *headers, body=body), heads_only=method == "HEAD")
        return answer

    def exchange(self, method: str, target: str, *headers: tuple[str, str], body: bytes = b"") -> bytes:
        """The bytes of the answer."""
        connection = Connection(self._site)
        connection.transport.hostAddr = self.address or connection.transport.hostAddr
        connection.send(request(method, target, body, headers))
        connection.hang_up()
        return connection.transport.value()

    def change(self, target: str, body: bytes, *headers: tuple[str, str]) -> tuple[int, dict[str, object]]:
        """Status and document of what a change is answered."""
        answer = self.ask("POST", target, *headers, body=body)
        return answer.status, json.loads(answer.body)


OWN_NAMES = ["localhost", "LOCALHOST:1", "a.localhost:9001", "localhost.", "127.0.0.1:9001", "127.9.8.7", "[::1]:9001"]
OTHER_NAMES = [
    *("", "evil.example", "evil.example:9001", "10.0.0.1", "0.0.0.0", "[::2]:9001", "localhost.evil.example"),
    *("127.0.0.1.evil.example", "evil.example@127.0.0.1.x", "[", "[::1", "xlocalhost", "127.0.0.1@evil.example"),
]  # fmt: skip


@pytest.mark.parametrize("host", OWN_NAMES)
def test_own_names(host: str) -> None:
    """Under these nobody else can be found."""
    assert is_own_name(host)
    assert Pages().ask("GET", "/", ("Host", host)).status == 200


@pytest.mark.parametrize("host", OTHER_NAMES)
def test_other_names(host: str) -> None:
    """Whose name was given this machine's address is shown nothing where there is no token, and changes nothing."""
    pages = Pages()
    assert not is_own_name(host)
    for method in ("GET", "HEAD", "POST"):
        answer = pages.ask(method, "/retry" if method == "POST" else "/", ("Host", host), CHANGE, body=b'{"all": true}')
        assert answer.status == 403
        assert method == "HEAD" or "admin_token" in json.loads(answer.body)["reason"]
    assert len(pages.world.failed) == 3


def test_where_any_name_will_do() -> None:
    """With a token, which a browser keeps by name; on a Unix socket, which it cannot reach; and without any name."""
    bearer = ("Authorization", "Bearer hush")
    assert Pages(token="hush").ask("GET", "/", ("Host", "admin.example"), bearer).status == 200
    assert Pages(token="hush").ask("GET", "/", ("Host", "admin.example")).status == 401
    assert Pages(unix=True).ask("GET", "/", ("Host", "admin.example")).status == 200
    assert Pages().ask("GET", "/").status == 200
    assert Pages().ask("GET", "/healthz", ("Host", "probe.example")).status == 200


REFUSED = [
    ((), "header X-Axcollector"),
    ((CHANGE, ("Sec-Fetch-Site", "cross-site")), "Sec-Fetch-Site"),
    ((CHANGE, ("Sec-Fetch-Site", "same-site")), "Sec-Fetch-Site"),
    ((CHANGE, ("Origin", "https://evil.example")), "Origin"),
    ((CHANGE, ("Origin", "http://localhost:8080")), "Origin"),
    ((CHANGE, ("Origin", "null")), "Origin"),
]


@pytest.mark.parametrize(("headers", "reason"), REFUSED)
@pytest.mark.parametrize(("target", "body"), [("/retry", b'{"all": true}'), ("/drain", b"{}")])
def test_changes_for_other_pages(headers: tuple[tuple[str, str], ...], reason: str, target: str, body: bytes) -> None:
    """What a form, or a script of another origin, can send changes nothing."""
    pages = Pages()
    status, document = pages.change(target, body, OWN, *headers)
    assert (status, document["errorCode"]) == (403, "FORBIDDEN")
    assert reason in str(document["reason"])
    assert (len(pages.world.failed), pages.world.drained) == (3, 0)


@pytest.mark.parametrize(
    "headers",
    [(), (("Sec-Fetch-Site", "same-origin"), ("Origin", "http://LOCALHOST:9001")), (("Sec-Fetch-Site", "none"),)],
)
def test_changes_for_the_page_itself(headers: tuple[tuple[str, str], ...]) -> None:
    """And for whoever is no browser."""
    pages = Pages()
    assert pages.change("/retry", b'{"all": true}', OWN, CHANGE, *headers) == (200, {"retried": 3})


def test_no_other_origin_is_told_that_it_may() -> None:
    """A browser that asks before it sends the header is given nothing that lets it."""
    answer = Pages().ask("OPTIONS", "/retry", OWN, CHANGE)
    assert answer.status == 405
    assert [name for name in answer.headers if name.startswith("access-control")] == []


def test_retry() -> None:
    """One bucket, by its name; then there is none of that name; then all."""
    pages = Pages()
    name = next(iter(pages.world.failed))
    body = json.dumps({"bucket": name}).encode()
    assert pages.change("/retry", body, OWN, CHANGE) == (200, {"retried": 1})
    assert pages.change("/retry", body, OWN, CHANGE)[0] == 404
    assert pages.change("/retry", b'{"all": true}', OWN, CHANGE) == (200, {"retried": 2})
    assert pages.change("/retry", b'{"all": true}', OWN, CHANGE) == (200, {"retried": 0})


@pytest.mark.parametrize(
    ("target", "body", "status"),
    [
        ("/retry", b"{}", 400),
        ("/retry", b'{"bucket": "a", "all": true}', 400),
        ("/retry", b'{"bucket": 1}', 400),
        ("/retry", b'{"buckets": "a"}', 400),
        ("/retry", b"all=true", 400),
        ("/retry", b"[" * 4000, 400),
        ("/retry", b" " * 5000, 413),
        ("/drain", b'{"all": true}', 400),
        ("/drain", b"", 400),
    ],
)
def test_documents_that_are_none(target: str, body: bytes, status: int) -> None:
    """What was not understood does nothing."""
    pages = Pages()
    assert pages.change(target, body, OWN, CHANGE)[0] == status
    assert (len(pages.world.failed), pages.world.drained) == (3, 0)


def test_drain() -> None:
    """It is begun, and not waited for."""
    pages = Pages()
    assert pages.change("/drain", b"{}", OWN, CHANGE) == (202, {"draining": True})
    assert pages.world.drained == 1


@pytest.mark.parametrize(
    ("problem", "status", "code"),
    [
        (OSError(5, "Input/output error"), 503, "STORAGE_UNAVAILABLE"),
        (Overloaded("The collector does not run"), 503, "OVERLOADED"),
        (ZeroDivisionError("hush"), 500, "INTERNAL_SERVER_ERROR"),
    ],
)
def test_what_cannot_be_done(problem: Exception, status: int, code: str, logged_failures: LoggedFailures) -> None:
    """Is said, without more than the answer needs."""
    pages = Pages()
    pages.world.retry_failed = lambda bucket=None: defer.fail(problem)
    answered, document = pages.change("/retry", b'{"all": true}', OWN, CHANGE)
    assert (answered, document["errorCode"]) == (status, code)
    assert "hush" not in str(document)
    assert len(logged_failures.take(Exception)) == (1 if status == 500 else 0)


def test_the_page() -> None:
    """With what keeps it from being put into a frame, or from running anything else; nothing in it is inline."""
    answer = Pages().ask("GET", "/", OWN)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    text = answer.body.decode()
    assert "<script>" not in text
    assert "style=" not in text
    assert " on" not in text.replace(" only", "").replace(" one", "")
    for part in static_files():
        assert part == "index.html" or Pages().ask("GET", f"/static/{part}", OWN).status == 200


def test_a_browser_keeps_the_parts() -> None:
    """Until they are others, which it asks each time."""
    pages = Pages()
    answer = pages.ask("GET", "/static/main.js", OWN)
    assert answer.headers["cache-control"] == "no-cache"
    again = pages.exchange("GET", "/static/main.js", OWN, ("If-None-Match", answer.headers["etag"]))
    assert again.startswith(b"HTTP/1.1 304 ")
    assert again.endswith(b"\r\n\r\n")
    assert pages.ask("GET", "/static/main.js", OWN, ("If-None-Match", '"another"')).body == answer.body


@pytest.mark.parametrize("name", ["nothing.js", "..%2fpage.py", "vendor%2f..%2fmain.js", "vendor/uPlot.LICENSE", "%00"])
def test_other_files(name: str) -> None:
    """What is no part of the page is not there."""
    assert Pages().ask("GET", f"/static/{name}", OWN).status == 404


def test_what_is_not_there() -> None:
    """An answer in JSON, as everywhere, that is not kept."""
    answer = Pages().ask("GET", "/nowhere", OWN)
    assert (answer.status, json.loads(answer.body)["errorCode"]) == (404, "NOT_FOUND")
    assert answer.headers["cache-control"] == "no-store"


def test_quarantine(tmp_path: Path) -> None:
    """What lies there, by bucket, with the reasons; nothing, where nobody set anything aside."""
    assert json.loads(Pages(tmp_path).ask("GET", "/quarantine", OWN).body) == {"buckets": [], "more": False}
    set_aside(tmp_path)
    (bucket,) = json.loads(Pages(tmp_path).ask("GET", "/quarantine", OWN).body)["buckets"]
    reason = f"client_id has to be a string {HOSTILE}"
    assert bucket["bucket"] == "acme~prod~20260102030400"
    assert (bucket["records"], bucket["is_whole"], bucket["problem"]) == (17, True, "")
    assert bucket["reasons"] == [{"reason": reason, "records": 17}]


def damage(root: Path) -> None:
    """The file is cut short."""
    path = next(root.rglob("*.txt.gz"))
    path.write_bytes(path.read_bytes()[:-9])


def lock_out(root: Path) -> None:
    """The bucket is a file."""
    bucket = next(root.glob("quarantine/acme*"))
    next(bucket.iterdir()).unlink()
    bucket.rmdir()
    bucket.write_text("no directory")


@pytest.mark.parametrize(
    ("change", "problem"), [(damage, "it is damaged"), (lock_out, "it cannot be read: Not a directory")]
)
def test_quarantine_that_cannot_be_read(tmp_path: Path, change: Callable[[Path], None], problem: str) -> None:
    """It is said of which bucket that is so."""
    set_aside(tmp_path)
    (tmp_path / "quarantine" / "no bucket").mkdir()
    change(tmp_path)
    (bucket,), more = look(Disk(), str(tmp_path / "quarantine"))
    assert (bucket.problem, bucket.is_whole, more) == (problem, False, False)
