"""Health, as an operator's tools ask for it."""

import json

import pytest
from twisted.internet.task import Clock
from twisted.web.server import Site

from axcollector.admin.health import HealthAPI
from axcollector.core.status import Check, required_checks
from tests.wire import Answer, Connection, request


class Patient:
    """A collector's view of itself."""

    def __init__(self, **problems: str | None) -> None:
        self._problems = problems

    def checks(self) -> dict[str, Check]:
        return required_checks(self._problems)


WELL = Patient(catalog=None, spool=None)
FRESH = Patient(catalog="Service is not initialized completely", spool=None)
SICK = Patient(catalog=None, spool="The last commit failed")
HINT = "There is nothing at this path: try /healthz or /readyz"


def ask(patient: Patient, target: str | bytes, method: str = "GET") -> Answer:
    """The answer to a request."""
    connection = Connection(Site(HealthAPI(patient).resource(), reactor=Clock()))
    connection.send(request(method, target))
    (answer,) = connection.answers(heads_only=method == "HEAD")
    connection.hang_up()
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    return answer


def check(reason: str = "") -> dict[str, object]:
    """What is said of one check."""
    return {"ok": not reason, "reason": reason, "required": True}


@pytest.mark.parametrize("patient", [WELL, FRESH, SICK])
def test_alive(patient: Patient) -> None:
    """Whoever can answer is alive, whatever else is wrong."""
    answer = ask(patient, "/healthz")
    assert (answer.status, json.loads(answer.body)) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("patient", "status", "checks"),
    [
        (WELL, 200, {"catalog": check(), "spool": check()}),
        (FRESH, 503, {"catalog": check("Service is not initialized completely"), "spool": check()}),
        (SICK, 503, {"catalog": check(), "spool": check("The last commit failed")}),
    ],
)
def test_ready(patient: Patient, status: int, checks: dict[str, object]) -> None:
    """Ready is whose every check is well; each is named, with what is wrong."""
    answer = ask(patient, "/readyz?verbose")
    assert (answer.status, json.loads(answer.body)) == (status, {"ready": status == 200, "checks": checks})


@pytest.mark.parametrize("target", ["/", "/nowhere", "/healthz/more", "/metrics", "/%ff", b"/\xa0", "//healthz/x"])
def test_not_found(target: str | bytes) -> None:
    """Elsewhere there is nothing, and the answer says where to look."""
    answer = ask(WELL, target)
    assert (answer.status, json.loads(answer.body)) == (404, {"errorCode": "NOT_FOUND", "reason": HINT})


@pytest.mark.parametrize("method", ["POST", "DELETE", "WHAT"])
@pytest.mark.parametrize("target", ["/healthz", "/readyz"])
def test_other_methods(method: str, target: str) -> None:
    """Health is only asked for."""
    answer = ask(WELL, target, method)
    expected = {"errorCode": "METHOD_NOT_ALLOWED", "reason": "Only GET, HEAD is allowed here"}
    assert (answer.status, json.loads(answer.body)) == (405, expected)
    assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(("patient", "status"), [(WELL, 200), (SICK, 503)])
def test_head(patient: Patient, status: int) -> None:
    """A probe may ask for the head only."""
    assert ask(patient, "/readyz", "HEAD").status == status
