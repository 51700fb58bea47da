"""Health on the admin port: `/healthz` (the process answers) and `/readyz` (it would take a batch)."""

from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec
from klein import Klein
from klein.resource import KleinResource
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from werkzeug.exceptions import HTTPException

from axcollector import answers
from axcollector.webapi import NOTHING_HERE, JSONResource, not_found


class Patient(Protocol):
    """Whose health it is."""

    def problems(self) -> Mapping[str, str | None]:
        """What keeps it from being ready, by check; None where all is well."""
        ...


class HealthAPI:
    """The health routes of a collector."""

    def __init__(self, collector: Patient, may_see_reasons: Callable[[IRequest], bool] = lambda _: True) -> None:
        self._app = Klein()
        add_health(self._app, collector, may_see_reasons)

        @self._app.handle_errors(HTTPException)
        def nothing_here(request: IRequest, failure: Failure) -> bytes:
            return not_found(request, failure.value, f"{NOTHING_HERE}: try /healthz or /readyz")

    def resource(self) -> KleinResource:
        """The resource, for a site of its own."""
        return JSONResource(self._app)


def add_health(app: Klein, patient: Patient, may_see_reasons: Callable[[IRequest], bool] = lambda _: True) -> None:
    """Give an app the health routes; who may not see reasons gets yes or no."""

    @app.route("/healthz", methods=["GET"])
    def healthz(request: IRequest) -> bytes:
        """Alive: whoever reads this got an answer."""
        return answers.give(request, 200, b'{"status": "ok"}')

    @app.route("/readyz", methods=["GET"])
    def readyz(request: IRequest) -> bytes:
        """Ready: each check by name; 503 where one fails."""
        problems = patient.problems()
        ready = all(problem is None for problem in problems.values())
        if not may_see_reasons(request):
            return answers.give(request, 200 if ready else 503, msgspec.json.encode({"ready": ready}))
        checks = {name: {"ok": problem is None, "reason": problem or ""} for name, problem in problems.items()}
        body = msgspec.json.encode({"ready": ready, "checks": checks})
        return answers.give(request, 200 if ready else 503, body)
