"""`axcollector status`: a table of what a collector says of itself, and what is said where it says nothing."""

import contextlib
import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest

from axcollector.cli import shown
from axcollector.cli.admin_client import AdminClient, admin_url
from axcollector.cli.status import WATCH_SECONDS, watch
from axcollector.cli.status_table import table
from axcollector.config import Config
from axcollector.core.errors import CommandFailed
from axcollector.core.status import (
    CatalogStatus,
    Check,
    DeliveryStatus,
    FailedBucket,
    Histogram,
    IngestStatus,
    JobStatus,
    Paused,
    RequestCount,
    StageStatus,
    Status,
    WorkerStatus,
)
from tests.commands import run

Capture = pytest.CaptureFixture[str]


def status_of(**changes: Any) -> Status:
    """A status in which all is well, but for the changes."""
    whole = Status(
        version="1.2.3",
        instance_id="id",
        now=1_000_100.0,
        started_at=1_000_000.0,
        checks={"catalog": Check(True), "spool": Check(True)},
        spool_bytes=5_500_000,
        ingest=IngestStatus(
            accepted_records=1234,
            accepted_bytes=56_000,
            commits=100,
            commit_seconds=Histogram((0.01,), (100, 0), 0.25),
            commit_batches=Histogram((), (100,)),
        ),
        stages=[
            StageStatus(name="tmp", buckets=1, bytes=900, oldest_at=1_000_040.0),
            *(StageStatus(name=name) for name in ("recovered", "staging", "failed", "quarantine")),
        ],
        delivery=DeliveryStatus(
            delivered_files=7, delivered_bytes=7000, delivered_records=70, upload_seconds=Histogram((), (0,))
        ),
        catalog=CatalogStatus(
            source="registry", version="3", rows={"edgex.data_scope": 2, "kms.app": 0}, changed_at=1_000_010.0
        ),
    )
    return msgspec.structs.replace(whole, **changes)


@dataclass
class Admin:
    """An admin port, as far as its clients see it.

    Attributes:
        say: What a request of a method and path is answered: status and JSON document, or bytes.
        asked: Method, path, headers and body of what was asked.
    """

    say: Callable[[str, str], tuple[int, Any]]
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""


class _Server(HTTPServer):
    request_queue_size = 64  # or clients that come together are kept waiting for seconds


class _UnixServer(socketserver.UnixStreamServer):
    def get_request(self) -> Any:
        request, _ = super().get_request()
        return request, ("unix", 0)


@contextlib.contextmanager
def serving(say: Callable[[str, str], tuple[int, Any]], path: str | None = None) -> Iterator[Admin]:
    """An admin port that says this, on a port of this machine, or at a path."""
    admin = Admin(say)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            admin.asked.append((self.command, self.path, dict(self.headers), self.rfile.read(length)))
            status, said = admin.say(self.command, self.path)
            content = said if isinstance(said, bytes) else msgspec.json.encode(said)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815 - as the library wants it

        def log_message(self, *_: object) -> None:
            pass

    server: Any = _Server(("127.0.0.1", 0), Handler) if path is None else _UnixServer(path, Handler)
    admin.url = f"http://127.0.0.1:{server.server_port}" if path is None else f"unix:{path}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield admin
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_ready(capsys: Capture, tmp_path: Path) -> None:
    """A table and 0; with --json everything that the collector says; the token is sent, over a Unix socket too."""
    with serving(lambda *_: (200, status_of())) as admin:
        (tmp_path / "token").write_text("secret\n")
        assert run("status", "--url", admin.url, "--token-file", str(tmp_path / "token")) == 0
        out = capsys.readouterr().out
        assert out.startswith("axcollector   1.2.3, up 1 min, ready\n")
        assert "accepted      1,234 records\n" in out
        assert [(asked[:2], asked[2]["Authorization"]) for asked in admin.asked] == [
            (("GET", "/status"), "Bearer secret")
        ]
        assert run("status", "--url", f"{admin.url}/", "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["ready"], found["ingest"]["accepted_records"]) == (True, 1234)
        assert "Authorization" not in admin.asked[-1][2]
    with serving(lambda *_: (200, status_of()), str(tmp_path / "admin.sock")) as admin:
        (tmp_path / "c.yaml").write_text(
            f"admin_listen: unix:{tmp_path}/admin.sock\nadmin_token_file: {tmp_path}/token\n"
        )
        assert run("status", "--config", str(tmp_path / "c.yaml")) == 0
        assert admin.asked[-1][2]["Authorization"] == "Bearer secret"


def test_not_ready(capsys: Capture) -> None:
    """The table all the same, 1, and what keeps it from being ready."""
    bad = status_of(
        checks={
            "catalog": Check(False, "no snapshot yet"),
            "spool": Check(True),
            "store": Check(False, "down", required=False),
        }
    )
    with serving(lambda *_: (200, bad)) as admin:
        assert run("status", "--url", admin.url) == 1
    out, err = capsys.readouterr()
    assert "NOT READY\n  catalog     no snapshot yet\n  spool       ok\n  store       down\n" in out
    assert err == f"axcollector: the collector at {admin.url} is not ready: catalog: no snapshot yet\n"


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ((401, {"errorCode": "UNAUTHORIZED", "reason": "x"}), "wants its admin token (401 UNAUTHORIZED: x): name the"),
        ((404, b"nothing"), "/status: 404"),
        ((503, {"errorCode": "OVERLOADED", "reason": "later"}), "answers 503 OVERLOADED: later"),
        ((200, b"<html>"), "is no collector of this version"),
    ],
)
def test_other_answers(capsys: Capture, said: Any, complaint: str) -> None:
    """One line says what to do."""
    with serving(lambda *_: said) as admin:
        assert run("status", "--url", admin.url) == 1
    err = capsys.readouterr().err
    assert complaint in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "status", "complaint"),
    [
        (["--url", "http://127.0.0.1:1"], 1, "no collector answers at http://127.0.0.1:1 ("),
        (["--url", "unix:/nowhere/s"], 1, "no collector answers at unix:/nowhere/s ("),
        (["--url", "ftp://x"], 1, "--url: 'ftp://x' is not allowed; allowed is a URL such as http://127.0.0.1:9001"),
        (["--url", "http://x:y"], 1, "--url: 'http://x:y' is not allowed"),
        (["--url", "https://127.0.0.1:1"], 1, "no collector answers at https://127.0.0.1:1 ("),
        (["--url", "https://x", "--ca-file", "none"], 1, "No such file"),
        (["--config", "off.yaml"], 1, "this collector has no admin port (admin_listen is empty)"),
        (["--config", "tls.yaml"], 1, "does not tell where to ask: use --url (and --ca-file for https:)"),
        (["--token-file", "two"], 1, "two does not hold a token"),
        (["-l", "somewhere"], 2, "--local-storage-path says nothing of a running collector; use --config or --url"),
    ],
)
def test_called_wrongly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, argv: list[str], status: int, complaint: str
) -> None:
    """One line says what to do."""
    monkeypatch.chdir(tmp_path)
    Path("off.yaml").write_text("admin_listen:\n")
    Path("tls.yaml").write_text("admin_listen: axtls:9444:certificate=c:key=k:interface=127.0.0.1\n")
    Path("two").write_text("a b")
    assert run("status", *argv) == status
    err = capsys.readouterr().err
    assert complaint in err
    assert err.count("\n") == 1


def test_where_the_admin_port_is() -> None:
    """The configuration tells."""
    assert admin_url(Config()) == "http://127.0.0.1:9001"
    assert admin_url(Config(admin_listen="unix:/run/a.sock")) == "unix:/run/a.sock"


class Enough(Exception):
    """Ends a watch."""


class Terminal(StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def watched(said: list[tuple[int, Any]], monkeypatch: pytest.MonkeyPatch, out: StringIO, *, in_json: bool) -> str:
    """What is shown while a collector says these things, one after the other."""
    monkeypatch.setattr("sys.stdout", out)
    left = list(said)

    def wait(seconds: float) -> None:
        assert seconds == WATCH_SECONDS
        if not left:
            raise Enough

    with serving(lambda *_: left.pop(0)) as admin, pytest.raises(Enough):
        watch(AdminClient(admin.url), out, wait, in_json=in_json)
    return out.getvalue()


def test_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look with the rates since the last; a collector that does not answer, or was started anew, has none."""
    later = status_of(
        now=1_000_102.0,
        ingest=msgspec.structs.replace(
            status_of().ingest,
            accepted_records=3234,
            accepted_bytes=2_056_000,
            commits=200,
            commit_seconds=Histogram((0.01,), (200, 0), 0.45),
        ),
        delivery=msgspec.structs.replace(status_of().delivery, delivered_files=9, delivered_bytes=11_000),
    )
    anew = msgspec.structs.replace(later, started_at=1_000_101.0)
    said: list[tuple[int, Any]] = [(200, status_of()), (200, later), (500, b""), (200, later), (200, anew)]
    shown = watched(said, monkeypatch, Terminal(), in_json=False)
    first, second, failed, third, fourth = shown.split("\x1b[H\x1b[J")[1:]
    assert "/s" not in first + third + fourth
    assert "accepted      3,234 records  1,000/s\n              2.1 MB  1.0 MB/s\n" in second
    assert "commits       200  50/s, 2.0 ms each\n" in second
    assert "delivered     9 files  1/s, 0 under way\n              70 records, 11.0 kB  2.0 kB/s\n" in second
    assert failed.endswith("answers 500\n")
    lines = watched(said[:3], monkeypatch, StringIO(), in_json=True).splitlines()
    assert [json.loads(line)["ready"] for line in lines] == [True, True, False]
    assert "\x1b" not in watched(said[:2], monkeypatch, StringIO(), in_json=False)


def test_everything_there_is_to_tell() -> None:
    """What an operator would act on is named, not too much of it, and a terminal obeys none of it."""
    ingest = msgspec.structs.replace(
        status_of().ingest,
        requests=[RequestCount("scope", 200, "ACCEPTED", 9), RequestCount("scope", 400, "BAD_DATA", 4)],
        quarantined_records=3,
    )
    delivery = msgspec.structs.replace(
        status_of().delivery,
        paused=[Paused("signer", "it is \x1b[31mdown", 1_000_200.0)],
        failed=[FailedBucket(f"b{n}", 1, "" if n else "refused") for n in range(12)],
        lag_seconds=75.0,
    )
    text = table(
        status_of(
            ingest=ingest,
            delivery=delivery,
            spool_quota_bytes=10_000_000,
            jobs=[JobStatus("closing", 5, 0), JobStatus("sweep", 5, 2, "no disk")],
            workers=[WorkerStatus(0, 7, True), WorkerStatus(1, None, False)],
            catalog=CatalogStatus(source="transicator"),
        )
    )
    for line in (
        "spool         5.5 MB of 10.0 MB\n",
        "catalog       none yet (from transicator)\n",
        "workers       1 of 2 take records\n",
        "refused       4 requests  (4 × 400 BAD_DATA)\n",
        "set aside     3 records\n",
        "lag           the last file 1 min after its interval was over\n",
        "tmp         1        900 B  1 min ago\n",
        "paused  signer: it is \\x1b[31mdown\n",
        "failed  b0: refused\n",
        "failed  b9: why is not known any more\n        and 2 more; see `axcollector ls failed`\n",
        "job     sweep failed 2 times: no disk\n",
    ):
        assert line in text
    assert "closing" not in text
    assert "catalog       from registry, changed 1 min ago: 2 data_scope\n" in table(status_of())


def test_the_client_posts(tmp_path: Path) -> None:
    """With the header without which nothing is done."""
    with serving(lambda *_: (202, {"draining": True})) as admin:
        client = AdminClient(admin.url, "t")
        assert client.post("/drain", {}, "drain", dict[str, bool]) == {"draining": True}
    (asked,) = admin.asked
    assert (asked[0], asked[1], asked[2]["X-Axcollector"], asked[3]) == ("POST", "/drain", "drain", b"{}")
    with pytest.raises(CommandFailed, match="is not allowed"):
        AdminClient("http://u:p@x")


def test_how_numbers_are_shown() -> None:
    """Ages, sizes and times left in the units that suit them."""
    assert [shown.age(seconds) for seconds in (-5, 59, 3599, 86_399, 400_000)] == [
        "0 s",
        "59 s",
        "59 min",
        "23 h",
        "4 d",
    ]
    assert [shown.size(number) for number in (0, 999, 1234, 5e9, 3e18)] == [
        "0 B",
        "999 B",
        "1.2 kB",
        "5.0 GB",
        "3000.0 PB",
    ]
    assert [shown.left(seconds) for seconds in (0.4, 65, 3723)] == ["0:00", "1:05", "1:02:03"]
