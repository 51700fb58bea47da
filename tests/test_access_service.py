"""Tokens and limits in the whole service: its real file of tokens, its registry, its restarts."""

import base64
import contextlib
import http.client
import io
import json
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
import pytest_twisted

from axcollector.cli import main
from axcollector.registry import Registry
from axcollector.token_watch import STALE_SECONDS
from axcollector.tokens import Bound, TokenFile
from tests.running import Running, delivered_below, ids_of, until
from tests.test_process import CLEAN, ROOT, Process, batch, processes  # noqa: F401 - a fixture

SEEN_WITHIN_SECONDS = 2.0


def command(directory: Path, *argv: str) -> str:
    """What the `axcollector` command prints, run in a directory."""
    printed = io.StringIO()
    with contextlib.chdir(directory), contextlib.redirect_stdout(printed):
        main(argv)
    return printed.getvalue().strip()


class Guarded(Process):
    """A service that wants tokens."""

    def send(self, path: str, body: bytes, *authorization: str) -> int:
        """The status of the answer to a POST."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.putrequest("POST", path)
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(len(body)))
        for value in authorization:
            connection.putheader("Authorization", value)
        connection.endheaders(body)
        response = connection.getresponse()
        json.loads(response.read())
        connection.close()
        return response.status

    def until_status(self, status: int, path: str, *authorization: str) -> "Counter[int]":
        """Ask until that is the answer; which others came to what was asked later than a change has to be seen."""
        begun = time.monotonic()
        late: Counter[int] = Counter()
        while time.monotonic() - begun < 60:
            asked = time.monotonic()
            answer = self.send(path, b"", *authorization)
            if answer == status:
                return late
            if asked - begun > SEEN_WITHIN_SECONDS:
                late[answer] += 1
            time.sleep(0.02)
        raise AssertionError(late)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where a service works, and what is there at first."""
    (tmp_path / "axcollector-data").mkdir(mode=0o700)
    (tmp_path / "axcollector.yaml").write_text("ingest_auth: token\n")
    return tmp_path


def started(directory: Path, processes: list[Process], *options: str) -> Guarded:  # noqa: F811
    """A service in this directory, which has read its tokens."""
    process = Guarded(directory, "--config", "axcollector.yaml", *options)
    processes.append(process)
    process.started()
    process.wait_for_lines("tokens are in", 1)
    return process


def test_tokens_from_the_command_line(directory: Path, processes: list[Process]) -> None:  # noqa: F811
    """Made, used, revoked within two seconds, kept over kill -9; records are the scope's; no secret gets out."""
    scope = command(directory, "scope", "add", "acme", "prod", "--config", "axcollector.yaml")
    other = command(directory, "scope", "add", "zoo", "prod", "--config", "axcollector.yaml")
    first, second = (command(directory, "token", "new", scope, "--label", label) for label in "ab")
    stranger = command(directory, "token", "new", other)
    basic = base64.b64encode(f"key:{second}".encode()).decode()
    path, named = f"/analytics/{scope}", "/axpublisher/organization/acme/environment/prod"

    service = started(directory, processes, "--collection-interval", "3600")
    bearer, password = f"Bearer {first}", f"Basic {basic}"
    lying = {"client_received_start_timestamp": 1, "id": 100, "organization": "zoo", "environment": "prod"}
    assert service.send(path, batch(0, 10), bearer) == 200
    assert service.send(named, batch(10, 10), password) == 200
    assert service.send(path, json.dumps({"records": [lying]}).encode(), bearer) == 200
    assert service.send(path, batch(900, 1)) == 401
    assert service.send(path, batch(900, 1), f"Bearer {stranger}") == 403
    assert service.send(named, batch(900, 1), f"Bearer {stranger}") == 403
    assert service.send("/analytics/nobody", batch(900, 1), f"Bearer {stranger}") == 403

    tokens = json.loads(command(directory, "token", "list", "--json"))
    (id_of_first,) = (token["id"] for token in tokens if token["label"] == "a")
    command(directory, "token", "revoke", id_of_first)
    assert service.until_status(401, path, bearer) == {}
    assert service.send(path, batch(900, 1), bearer) == 401
    assert service.end(signal.SIGKILL)[0] == -signal.SIGKILL

    again = started(directory, processes, "--upload-interval", "0.1")
    assert again.send(path, batch(900, 1), bearer) == 401
    assert again.send(path, batch(20, 10), password) == 200
    late = command(directory, "token", "new", scope)
    again.until_status(400, path, f"Bearer {late}")
    command(directory, "scope", "remove", scope)
    assert again.until_status(403, path, f"Bearer {late}") == {}
    assert again.send(named, batch(900, 1), password) == 403
    store = directory / "axcollector-data" / "store"
    assert again.end()[0] == CLEAN
    last = started(directory, processes, "--upload-interval", "0.1")
    while sum(map(len, delivered_below(store).values())) < 31:
        last.wait_for("delivered")
    assert ids_of(delivered_below(store)["acme~prod"]) == {**dict.fromkeys(range(30), 1), 100: 1}
    assert list(delivered_below(store)) == ["acme~prod"]
    assert last.end()[0] == CLEAN
    log = "".join(line for process in processes for line in process.lines)
    for secret in (first, second, stranger, late, basic):
        assert secret not in log
        for file in (directory / "axcollector-data").rglob("*"):
            assert not file.is_file() or secret.encode() not in file.read_bytes()


def test_a_file_of_tokens_that_cannot_be_read(directory: Path, processes: list[Process]) -> None:  # noqa: F811
    """Nobody gets in for longer than two seconds; with the file back everything is as before."""
    scope = command(directory, "scope", "add", "acme", "prod")
    bearer = f"Bearer {command(directory, 'token', 'new', scope)}"
    service = started(directory, processes)
    path = f"/analytics/{scope}"
    assert service.send(path, batch(0, 1), bearer) == 200
    file = directory / "axcollector-data" / "tokens.db"
    shutil.copy(file, directory / "kept.db")
    file.write_bytes(b"no database" * 1000)
    assert set(service.until_status(503, path, bearer)) <= {400}
    assert service.send(path, batch(0, 1), bearer) == 503
    assert service.send(path, batch(0, 1)) == 401
    shutil.copy(directory / "kept.db", directory / "back.db")
    (directory / "back.db").rename(file)
    service.until_status(400, path, bearer)
    assert service.send(path, batch(1, 1), bearer) == 200
    status, log = service.end()
    assert (status, log.count("tokens cannot be checked: "), "Traceback" in log) == (CLEAN, 1, False)


def test_it_does_not_start_with_a_file_that_is_none(directory: Path, processes: list[Process]) -> None:  # noqa: F811
    """One line says which file, and what is wrong with it."""
    (directory / "axcollector-data" / "tokens.db").write_bytes(b"no database" * 1000)
    process = Guarded(directory, "--config", "axcollector.yaml")
    processes.append(process)
    output, _ = process.popen.communicate(timeout=60)
    assert process.popen.returncode == 1
    assert "axcollector cannot start: the file of tokens " in output
    assert "tokens.db cannot be used: file is not a database" in output


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("caching", [True, False])
async def test_with_and_without_caching(tmp_path: Path, caching: bool) -> None:
    """The registry itself tells which scopes a tenant has, when nothing is cached; limits are those of the scope."""
    root = tmp_path / "data"
    service = await Running(
        root, use_caching=caching, ingest_auth="token", rate_limit_records=1, rate_limit_burst=60
    ).start()
    scopes = [await service.scope("acme", "prod") for _ in range(2)] + [await service.scope("zoo", "prod")]
    with TokenFile.open(str(root / "tokens.db"), Bound.SCOPES) as file:
        tokens = [file.add([scope], time.time())[1] for scope in scopes]
    watch = service.collector._ingesting._tokens
    assert watch is not None
    await until(lambda: watch.problem() is None and watch.find(tokens[2]) is not None)
    assert service.collector.problems()["tokens"] is None
    named = batch(0, 10).replace(b"{", b'{"organization": "acme", "environment": "prod", ', 1)
    routes = [("/axpublisher/organization/acme/environment/prod", batch(0, 10)), ("/analytics", named)]
    for path, body in routes:
        answers = [(await service.post(path, body, Authorization=f"Bearer {token}"))[0] for token in tokens]
        assert answers == [200, 200, 403]
    lowest = min(scopes[:2])
    token = tokens[scopes.index(lowest)]
    answer = await service.post(f"/analytics/{lowest}", batch(0, 60), Authorization=f"Bearer {token}")
    assert (answer[0], answer[1]["errorCode"]) == (429, "RATE_LIMITED")
    with Registry.open(str(root / "registry.db")) as registry:
        registry.remove_scope(scopes[0])
    await until(lambda: not caching or service.collector.sync.catalog.tenant_of_scope(scopes[0]) is None)
    for path, body in routes:
        answer = await service.post(path, body, Authorization=f"Bearer {tokens[0]}")
        assert answer[0] == 403
        assert answer == await service.post("/analytics/nobody", body, Authorization=f"Bearer {tokens[0]}")
    await service.stop()


@pytest_twisted.ensureDeferred
async def test_records_of_the_same_process(tmp_path: Path) -> None:
    """They need no token and have no limit; whose they are is not theirs to say."""
    service = await Running(tmp_path / "data", ingest_auth="token", rate_limit_records=1).start()
    scope = await service.scope("acme", "prod")
    records = [{"id": number, "client_received_start_timestamp": 1, "organization": "zoo"} for number in range(50)]
    assert await service.collector.submit(scope, records) == 50
    await until(lambda: service.stored() == 50)
    assert list(service.delivered()) == ["acme~prod"]
    assert {json.loads(line)["organization"] for line in service.delivered()["acme~prod"]} == {"acme"}
    await service.stop()


def test_a_copy_is_old_after_two_seconds() -> None:
    """What these tests rely on: nobody is told yes by a copy that is older."""
    assert STALE_SECONDS <= SEEN_WITHIN_SECONDS
