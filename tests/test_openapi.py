"""The OpenAPI document: complete, served where the routes are, and true of the running service."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.web.resource import Resource

from axcollector import openapi
from axcollector.core import errors
from axcollector.core.errors import STATUS_OF_CODE, Refusal
from tests.test_process import Process, add_scope, processes  # noqa: F401 - a fixture
from tests.test_webapi import Config, Stand
from tests.wire import Answer, Connection, request

PACKAGE = Path(openapi.__file__).parent
MAKERS = {"Rejected", "cut", "error", "raw"}
"""What is called with an `errorCode`."""
CLIENTS = {errors.Unreachable.code}
"""What only a client says."""


def codes_given() -> dict[str, set[int]]:
    """Every `errorCode` that the code can give, with its statuses as far as they are written beside it."""
    given: dict[str, set[int]] = {code: {status} for code, status in STATUS_OF_CODE.items()}
    for each in vars(errors).values():
        if isinstance(each, type) and issubclass(each, Refusal) and "code" in vars(each):
            given.setdefault(each.code, set()).add(each.status)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and (getattr(node.func, "attr", "") or getattr(node.func, "id", "")) in MAKERS
            ):
                texts = [each.value for each in node.args if isinstance(each, ast.Constant)]
                for code in texts[:2]:
                    if isinstance(code, str) and code.replace("_", "").isalpha() and code.isupper():
                        given.setdefault(code, set())
    return given


def test_the_error_codes_are_complete() -> None:
    """What the code can say is what the document lists, with the same statuses."""
    given = {code: statuses for code, statuses in codes_given().items() if code not in CLIENTS}
    assert given.keys() == openapi.ERRORS.keys()
    assert {code: {openapi.ERRORS[code].status} for code, statuses in given.items() if statuses} == {
        code: statuses for code, statuses in given.items() if statuses
    }
    waits = {each.code for each in vars(errors).values() if getattr(each, "DEFAULT_RETRY_AFTER", None)}
    assert (waits - CLIENTS) | {errors.RateLimited.code} == {
        code for code, error in openapi.ERRORS.items() if error.asks_to_wait
    }


def references(value: Any) -> set[str]:
    """All that a document refers to."""
    if isinstance(value, dict):
        found = {value["$ref"]} if "$ref" in value else set()
        return found.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


def test_every_reference_leads_somewhere() -> None:
    """And everything that is there is referred to, but for the answer to a method that no route has."""
    document = openapi.document("/analytics")
    there = {f"#/components/{kind}/{name}" for kind, items in document["components"].items() for name in items}
    assert references(document) == there - {"#/components/responses/Error405"}


def ask(stand: Stand, data: bytes) -> Answer:
    """The answer to one request."""
    connection = Connection(stand.site)
    connection.send(data)
    (answer,) = connection.answers()
    connection.hang_up()
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    return answer


@pytest.mark.parametrize("base_path", ["/analytics", "/a/b.c/d", "/<scope>", "/a:@!$&'()*+,;=~"])
def test_it_is_served_with_the_paths_that_there_are(tmp_path: Path, base_path: str) -> None:
    """The configured base path stands in it, and a POST to the path it names is taken."""
    stand = Stand(tmp_path, config=Config(base_path))
    answer = ask(stand, request("GET", "/openapi.json"))
    document = json.loads(answer.body)
    assert (answer.status, document) == (200, openapi.document(base_path))
    operations = {item.get("post", {}).get("operationId"): path for path, item in document["paths"].items()}
    path = operations["postForScope"]
    body = b'{"records": [{"client_received_start_timestamp": 1}]}'
    assert stand.post(path.replace("{scope}", "s1"), body) == (200, {"accepted": 1, "rejected": 0})


def test_it_is_served_in_another_site(tmp_path: Path) -> None:
    """Below where the routes are mounted; the server's address in it is relative, so it is right there too."""
    stand = Stand(tmp_path)
    root = Resource()
    root.putChild(b"collect", stand.api.resource())
    stand.site.resource = root
    answer = ask(stand, request("GET", "/collect/openapi.json"))
    assert (answer.status, json.loads(answer.body)["servers"]) == (200, [{"url": "."}])


def test_other_methods_of_it(tmp_path: Path) -> None:
    """It is read only."""
    stand = Stand(tmp_path)
    answer = ask(stand, request("POST", "/openapi.json"))
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


def test_the_page_on_http_lists_all(tmp_path: Path) -> None:
    """Every route and every code that this version gives stands in the built page, in the document's words."""
    options = ["-W", "-q", "-b", "text", "-d", str(tmp_path / "trees")]
    command = [sys.executable, "-m", "sphinx", *options, "docs", str(tmp_path / "text"), "docs/http-api.rst"]
    subprocess.run(command, cwd=PACKAGE.parent, check=True)
    page = " ".join((tmp_path / "text" / "http-api.txt").read_text().replace('"', "").split())
    for route in openapi.ROUTES:
        assert f"POST {route.path}" in page
    for code, error in openapi.ERRORS.items():
        assert code in page
        assert str(error.status) in page


@pytest.mark.slow
def test_the_service_does_what_it_says(tmp_path: Path, processes: list[Process]) -> None:  # noqa: F811
    """Schemathesis, which makes requests and wrong requests of the document, finds no answer that it does not allow."""
    service = Process(tmp_path / "service").started()
    processes.append(service)
    scope = add_scope(service.directory)
    body = b'{"records": [{"client_received_start_timestamp": 1}]}'
    while service.post(f"/analytics/{scope}", body)[0] != 200:  # the registry is watched
        pass
    settings = tmp_path / "schemathesis.toml"
    settings.write_text(f'[parameters]\nscope = "{scope}"\norganization = "acme"\nenvironment = "prod"\n')
    service.watchdog.cancel()  # that of the requests' sender is long enough
    bounded = os.environ.get("AXCOLLECTOR_PROOFS") == "bounded"
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
    url = f"http://127.0.0.1:{service.port}"
    options = [
        *("--config-file", str(settings), "run", f"{url}/openapi.json", "--url", url, "--seed", "1"),
        *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),
        *("--phases", "examples,coverage,fuzzing", "--max-examples", "150" if bounded else "1000"),
        *("--no-color", "--generation-database", "none"),
    ]
    done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    _, log = service.end()
    assert "Traceback" not in log
