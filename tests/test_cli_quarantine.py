"""`axcollector quarantine`: records that were set aside listed, shown, sent again, dropped; what fails or is wrong."""

import json
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from axcollector.cli import main
from axcollector.cli.interrupts import Interrupted
from axcollector.cli.quarantine_client import Client, url_of
from axcollector.cli.quarantine_retry import GROUP_RECORDS, MAX_WAITS, Patience, Retry
from axcollector.core.errors import QuarantineError
from axcollector.core.layout import QUARANTINE
from axcollector.core.quarantine import Entry
from axcollector.disk import Disk
from axcollector.quarantine_files import QuarantineFile, files_in, taking_out
from tests.test_quarantine_files import NAME, Raw, entry, put

Capture = pytest.CaptureFixture[str]
GOOD = b'{"client_received_start_timestamp":%d}'
Said = tuple[int, dict[str, object], dict[str, str]]


def run(*argv: str) -> int:
    """The exit status of `axcollector quarantine` with these arguments."""
    try:
        main(["quarantine", *argv])
    except SystemExit as exc:
        return int(exc.code or 0)
    return 0


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The quarantine of the data directory that the command finds without being told."""
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "axcollector-data" / "ax" / QUARANTINE
    place.mkdir(parents=True)
    return place


def scoped(number: int, record: bytes, scope: str | None = "s", tenant: tuple[str, str] = ("acme", "prod")) -> Entry:
    """A record that was sent to a scope."""
    return Entry(1_480_000_000_000, *tenant, scope, number, "BAD_DATA", "too old", Raw(record))


def good(count: int, scope: str | None = "s") -> list[Entry]:
    """Records that are valid by now."""
    return [scoped(i, GOOD % i, scope) for i in range(count)]


def left(directory: Path) -> list[tuple[bytes, str]]:
    """Records and reasons that are in quarantine."""
    return [
        (bytes(e.record), e.reason) for file in files_in(Disk(), str(directory)) for _, _, e in file.lines()
    ]  # fmt: skip


class Collector:
    """A collector as far as this client sees it: what it is sent, and what it answers, by a function of both."""

    def __init__(self, say: Callable[[str, list[Any]], Said]) -> None:
        self.requests: list[tuple[str, list[Any], str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                records = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["records"]
                outer.requests.append((self.path, records, self.headers["Authorization"]))
                status, body, headers = say(self.path, records)
                content = json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def collector() -> Iterator[Callable[[Callable[[str, list[Any]], Said]], Collector]]:
    """Makes them."""
    made: list[Collector] = []

    def make(say: Callable[[str, list[Any]], Said]) -> Collector:
        made.append(Collector(say))
        return made[-1]

    yield make
    for each in made:
        each.stop()


def takes_all(_: str, records: list[Any]) -> Said:
    """A collector that takes everything."""
    return 200, {"accepted": len(records), "rejected": 0}, {}


def error(status: int, code: str, reason: str, **headers: str) -> Said:
    """A refusal."""
    return status, {"errorCode": code, "reason": reason}, {name.replace("_", "-"): v for name, v in headers.items()}


def test_list(directory: Path, capsys: Capture) -> None:
    """Tenant, number, age, reasons and file; nothing where nothing was ever set aside."""
    put(Disk(), str(directory), [entry(0), entry(1), scoped(2, b"{}")])
    assert run("list") == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["tenant", "records", "oldest", "reasons", "file"]
    assert re.fullmatch(rf"acme prod +3 +\d+ d ago +2 × old; 1 × too old +{re.escape(NAME)}", row)
    assert run("list", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found.pop("age_seconds") > 10**8
    assert found == {
        "organization": "acme",
        "environment": "prod",
        "records": 3,
        "oldest": "2016-11-24T15:06:40Z",
        "reasons": [
            {"code": "BAD_DATA", "reason": "old", "records": 2},
            {"code": "BAD_DATA", "reason": "too old", "records": 1},
        ],
        "file": NAME,
    }
    assert (run("list", "--json", "-l", "elsewhere"), capsys.readouterr().out) == (0, "[]\n")


def test_show(directory: Path, capsys: Capture) -> None:
    """The records exactly as they were sent; a terminal obeys none of them."""
    records = [b'{"n": 1.10, "n":1e400}', '{"x":"\x9b31m ü"}'.encode(), b'"\\ud800"']
    put(Disk(), str(directory), [entry(i, record) for i, record in enumerate(records)])
    put(Disk(), str(directory), [entry(7, b"7", ("zoo", "a~b"))], "zoo~a%7Eb~20161124150900/1.txt.gz")
    assert run("show", NAME) == 0
    assert capsys.readouterr().out == (
        '# acme prod, record 0, BAD_DATA: old\n{"n": 1.10, "n":1e400}\n'
        '# acme prod, record 1, BAD_DATA: old\n{"x":"\\x9b31m ü"}\n'
        '# acme prod, record 2, BAD_DATA: old\n"\\ud800"\n'
    )
    assert run("show", "--tenant", "zoo~a%7Eb") == 0
    assert capsys.readouterr().out == "# zoo a~b, record 7, BAD_DATA: old\n7\n"
    assert run("show", "--json") == 0
    out = capsys.readouterr().out
    found = json.loads(out)
    assert [each["index"] for each in found] == [0, 1, 2, 7]
    assert found[0]["file"] == NAME
    assert all(f'"record":{record.decode()}}}' in out for record in records)
    assert (run("show", "--json", "--tenant", "no~body"), capsys.readouterr().out) == (0, "[]\n")


def test_retry(directory: Path, capsys: Capture, collector: Any) -> None:
    """What is taken leaves, by the scope that it was sent to, in large groups, and with the token."""
    put(Disk(), str(directory), [*good(GROUP_RECORDS + 1), scoped(0, GOOD % 7, None), scoped(1, GOOD % 8, "a/ü")])
    served = collector(takes_all)
    Path("token").write_text("axt_secret\n")
    assert run("retry", "--all", "--url", served.url, "--token-file", "token") == 0
    assert capsys.readouterr().out == f"accepted {GROUP_RECORDS + 3}\nquarantined 0\nstayed 0\n"
    assert [(path, len(records), token) for path, records, token in served.requests] == [
        ("/analytics/s", GROUP_RECORDS, "Bearer axt_secret"),
        ("/analytics/s", 1, "Bearer axt_secret"),
        ("/axpublisher/organization/acme/environment/prod", 1, "Bearer axt_secret"),
        ("/analytics/a%2F%C3%BC", 1, "Bearer axt_secret"),
    ]
    assert list(directory.iterdir()) == []


def test_what_fails_again_stays(directory: Path, capsys: Capture, collector: Any) -> None:
    """What can never be valid is not sent; what the collector names stays with its new reason; the rest is taken."""

    def say(_: str, records: list[Any]) -> Said:
        for index, record in enumerate(records):
            if record["client_received_start_timestamp"] % 3 == 1:
                return error(400, "BAD_DATA", f"cannot be older than 9 seconds (record {index})")
        return takes_all(_, records)

    put(Disk(), str(directory), [*good(6), scoped(6, b"{}"), scoped(7, GOOD % 9)])
    served = collector(say)
    assert run("retry", NAME, "--url", served.url, "--json") == 1
    out, err = capsys.readouterr()
    assert json.loads(out) == {"accepted": 5, "quarantined": 0, "stayed": 3}
    assert err.endswith("axcollector: 3 records failed again and stay in quarantine; `list` tells their reasons\n")
    assert left(directory) == [
        (GOOD % 1, "cannot be older than 9 seconds"),
        (GOOD % 4, "cannot be older than 9 seconds"),
        (b"{}", "Missing Required field: client_received_start_timestamp"),
    ]
    assert [len(records) for _, records, _ in served.requests] == [7, 6, 5]


def test_what_the_collector_sets_aside_again(directory: Path, capsys: Capture, collector: Any) -> None:
    """It is the collector's from then on, and leaves the file; but it is told, and no success."""
    put(Disk(), str(directory), good(3))
    served = collector(lambda _, records: (200, {"accepted": 1, "rejected": 0, "quarantined": len(records) - 1}, {}))
    assert run("retry", "--tenant", "acme~prod", "--url", served.url) == 1
    out, err = capsys.readouterr()
    assert out == "accepted 1\nquarantined 2\nstayed 0\n"
    assert "2 records failed again" in err
    assert left(directory) == []


@pytest.mark.parametrize(("status", "code"), [(400, "UNKNOWN_SCOPE"), (403, "FORBIDDEN")])
def test_an_unknown_scope(directory: Path, capsys: Capture, collector: Any, status: int, code: str) -> None:
    """A scope that was removed: its tenant is tried by name, then stays as it is, and others go on."""

    def say(path: str, records: list[Any]) -> Said:
        if path.endswith("/gone"):
            return error(status, code, "No tenant found for this scopeuuid: gone")
        if "zoo" in path:
            return error(status, code, "No tenant found for this org: zoo")
        return takes_all(path, records)

    zoo = scoped(0, GOOD % 1, "gone", ("zoo", "a"))
    put(Disk(), str(directory), [*good(2, "gone"), zoo, *good(1)])
    served = collector(say)
    assert run("retry", "--all", "--url", served.url) == 1
    out, err = capsys.readouterr()
    assert out == "accepted 3\nquarantined 0\nstayed 1\n"
    assert f"records of zoo a were not taken: {status} {code}: No tenant found for this org: zoo\n" in err
    assert left(directory) == [(GOOD % 1, "too old")]


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (error(401, "UNAUTHORIZED", "who?"), r"wants a token \(401 UNAUTHORIZED: who\?\): name one with --token-file"),
        (error(500, "INTERNAL_SERVER_ERROR", "no snapshot"), "answers 500 INTERNAL_SERVER_ERROR: no snapshot; try"),
        (error(404, "NOT_FOUND", "nothing"), "answers 404 NOT_FOUND"),
        (error(403, "FORBIDDEN", "not yours"), "2 records failed again"),
        ((200, {}, {}), "is no collector; no record has left"),
        ((200, {"accepted": 1, "rejected": 0}, {}), "is no collector"),
        ((200, {"accepted": "2"}, {}), "is no collector"),
    ],
)
def test_answers_that_take_nothing(
    directory: Path, capsys: Capture, collector: Any, said: Said, complaint: str
) -> None:
    """All stays as it is, and what to do is said."""
    put(Disk(), str(directory), good(2))
    served = collector(lambda _path, _records: said)
    assert run("retry", "--all", "--url", served.url) == 1
    assert re.search(complaint, capsys.readouterr().err)
    assert left(directory) == [(GOOD % i, "too old") for i in range(2)]


def test_no_collector(directory: Path, capsys: Capture) -> None:
    """Where none runs, that is said, and nothing is changed; without --url it is the configured one."""
    put(Disk(), str(directory), good(2))
    Path("c.yaml").write_text("listen: ['unix:/x', 'tcp:9:interface=127.0.0.1']\n")
    assert run("retry", "--all", "--config", "c.yaml") == 1
    err = capsys.readouterr().err
    assert "no collector answers at http://127.0.0.1:9 (" in err
    assert "start it, or say with --url where it listens" in err
    assert len(left(directory)) == 2
    Path("c.yaml").write_text("listen: ['unix:/x', 'tcp:0']\n")
    assert run("retry", "--all", "--config", "c.yaml") == 2
    assert "use --url" in capsys.readouterr().err


class Scripted(Client):
    """A client that is told what comes back."""

    def __init__(self, *said: Said | Exception) -> None:
        super().__init__("http://127.0.0.1:1", "/analytics")
        self.said = list(said)
        self.sizes: list[int] = []

    def post(self, path: str, body: bytes) -> Any:
        from axcollector.cli.quarantine_client import _answer

        self.sizes.append(len(json.loads(body)["records"]))
        said = self.said.pop(0)
        if isinstance(said, Exception):
            raise said
        status, content, headers = said
        return _answer(status, json.dumps(content).encode(), headers.get("Retry-After"))


def retry_of(client: Client, waits: list[float] | None = None, check: Callable[[], object] = lambda: None) -> Retry:
    """What sends with a client, and notes how long it would wait."""
    return Retry(client, 1.0, (waits if waits is not None else []).append, check, lambda _: None)


def test_a_busy_collector(directory: Path) -> None:
    """It is given the time that it asks for, but not for ever."""
    file = put(Disk(), str(directory), good(1))
    busy = error(503, "OVERLOADED", "later", Retry_After="3")
    waits: list[float] = []
    retry = retry_of(Scripted(busy, error(429, "RATE_LIMITED", "x", Retry_After="999"), takes_all("", [1])), waits)
    retry.send(file)
    assert (waits, retry.outcome.accepted, left(directory)) == ([3.0, 60.0], 1, [])
    file = put(Disk(), str(directory), good(1))
    with pytest.raises(QuarantineError, match="answers 503 OVERLOADED: later; try again later"):
        retry_of(Scripted(*[busy] * (MAX_WAITS + 1))).send(file)
    assert len(left(directory)) == 1


def test_groups_that_are_too_large(directory: Path) -> None:
    """They are halved; a record that is too large alone stays, with that reason."""
    file = put(Disk(), str(directory), good(3))
    too_large = error(413, "PAYLOAD_TOO_LARGE", "too large")
    client = Scripted(too_large, too_large, too_large, takes_all("", [1]), takes_all("", [1]))
    client.said.insert(1, takes_all("", [1]))
    client.said[2:] = [too_large, too_large, takes_all("", [1])]
    retry = retry_of(client)
    retry.send(file)
    assert client.sizes == [3, 1, 2, 1, 1]
    assert left(directory) == [(GOOD % 1, "too large")]
    assert (retry.outcome.accepted, retry.outcome.stayed) == (2, 1)


def test_broken_off_between_groups(directory: Path) -> None:
    """What was taken until then has left; the rest is sent the next time, and nothing twice."""
    file = put(Disk(), str(directory), good(2 * GROUP_RECORDS + 1))
    client = Scripted(takes_all("", [1] * GROUP_RECORDS), QuarantineError("gone"))
    with pytest.raises(QuarantineError, match="gone"):
        retry_of(client).send(file)
    assert [text for text, _ in left(directory)] == [GOOD % i for i in range(GROUP_RECORDS, 2 * GROUP_RECORDS + 1)]
    client = Scripted(takes_all("", [1] * GROUP_RECORDS), takes_all("", [1]))
    retry_of(client).send(QuarantineFile(Disk(), str(directory), NAME))
    assert (client.sizes, left(directory)) == ([GROUP_RECORDS, 1], [])


def test_signals() -> None:
    """The first is heeded between two requests, so that no answer is missed; the second at once."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with Patience() as patience:
            patience.check()
            signal.raise_signal(signal.SIGTERM)
            with pytest.raises(Interrupted):
                patience.check()
            with pytest.raises(Interrupted):
                signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_damaged_file(directory: Path, capsys: Capture, collector: Any) -> None:
    """Nothing of it is sent, the others are; list and show go on, and all three say which it is."""
    put(Disk(), str(directory), good(2))
    content = (directory / NAME).read_bytes()
    (directory / NAME).write_bytes(content[:-9])
    put(Disk(), str(directory), good(1), "zoo~a~20161124150900/1.txt.gz")
    served = collector(takes_all)
    for command, found in (
        (["show"], "record 0"),
        (["list"], "zoo a"),
        (["retry", "--all", "--url", served.url], "d 1"),
    ):
        assert run(*command) == 1
        out, err = capsys.readouterr()
        assert found in out
        assert f"{directory}/{NAME} is damaged: " in err
    assert [len(records) for _, records, _ in served.requests] == [1]
    assert (directory / NAME).read_bytes() == content[:-9]


def test_drop(directory: Path, capsys: Capture) -> None:
    """They are gone; other tenants' are not."""
    put(Disk(), str(directory), good(2))
    put(Disk(), str(directory), good(1), "zoo~a~20161124150900/1.txt.gz")
    assert (run("drop", "--tenant", "acme~prod"), capsys.readouterr().out) == (0, "1\n")
    assert left(directory) == [(GOOD % 0, "too old")]
    with taking_out(str(directory)):
        assert run("drop", "--all") == 1
    assert "another command takes records out" in capsys.readouterr().err
    assert (run("drop", "--all"), capsys.readouterr().out) == (0, "1\n")
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "status", "complaint"),
    [
        (["retry"], 2, "name one of FILE (as `list` shows it), --tenant and --all"),
        (["drop", "x", "--all"], 2, "name one of FILE"),
        (["show", "x", "--tenant", "a~b"], 2, "name one of FILE"),
        (["show", "nothing"], 1, "there is no 'nothing' in quarantine; see `axcollector quarantine list`"),
        (["show", "--tenant", "acme"], 2, "--tenant 'acme' is not allowed; it has to be {organization}~{environment}"),
        (["retry", "--all", "--url", "ftp://x"], 1, "--url: 'ftp://x' is not allowed"),
        (["retry", "--all", "--url", "http://x:y"], 1, "--url: 'http://x:y' is not allowed"),
        (["retry", "--all", "--token-file", "none"], 1, "No such file or directory: 'none'"),
        (["retry", "--all", "--token-file", "two"], 1, "two does not hold a token"),
        (["list", "--config", "none.yaml"], 1, "none.yaml"),
        (["retry", "--all", "--url", "https://x", "--ca-file", "none"], 1, "No such file"),
    ],
)
def test_called_wrongly(directory: Path, capsys: Capture, argv: list[str], status: int, complaint: str) -> None:
    """One line says what to do."""
    Path("two").write_text("a b\n")
    assert run(*argv) == status
    err = capsys.readouterr().err
    assert complaint in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("tcp:9000:interface=127.0.0.1", "http://127.0.0.1:9000"),
        ("tcp:9000", "http://127.0.0.1:9000"),
        ("tcp:port=9000:interface=10.0.0.1", "http://10.0.0.1:9000"),
        ("tcp:9000:0.0.0.0", "http://127.0.0.1:9000"),
        ("tcp6:9000", "http://[::1]:9000"),
        (r"tcp:9000:interface=\:\:1", "http://[::1]:9000"),
        ("tcp:0", None),
        ("unix:/run/x", None),
        ("ssl:443", None),
    ],
)
def test_where_a_collector_listens(listen: str, url: str | None) -> None:
    """What an endpoint says of where a client finds it."""
    assert url_of(listen) == url


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (b"", "gave no answer (Remote end closed connection without response): the last records that were sent may"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "is no collector"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "is no collector"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://x/\r\nContent-Length: 0\r\n\r\n", "answers 302 : "),
    ],
)
def test_answers_of_others(directory: Path, capsys: Capture, answer: bytes, complaint: str) -> None:
    """Who hangs up, or is no collector, has taken nothing as far as anybody knows."""
    put(Disk(), str(directory), good(1))
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                while not connection.recv(65_536).endswith(b"}"):
                    pass
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert run("retry", "--all", "--url", f"http://127.0.0.1:{server.getsockname()[1]}") == 1
        thread.join()
    assert complaint in capsys.readouterr().err
    assert len(left(directory)) == 1
