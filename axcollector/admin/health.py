"""Health on the admin port: `/healthz` (the process answers) and `/readyz` (it would take a batch)."""

from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec
from klein import Klein
from klein.resource import KleinResource
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from werkzeug.exceptions import HTTPException

from axcollector import answers
from axcollector.core.status import Check, is_ready
from axcollector.webapi import NOTHING_HERE, JSONResource, answer_to_failure, not_found


class Patient(Protocol):
    """Whose health it is."""

    def checks(self) -> Mapping[str, Check]:
        """What should be well, by name."""
        ...


class HealthAPI:
    """The health routes of a collector, and whatever routes are added to its app.

    Attributes:
        app: The app.
    """

    _log = Logger()

    def __init__(self, collector: Patient, may_see_reasons: Callable[[IRequest], bool] = lambda _: True) -> None:
        self.app = Klein()
        add_health(self.app, collector, may_see_reasons)

        @self.app.handle_errors(HTTPException)
        def nothing_here(request: IRequest, failure: Failure) -> bytes:
            return not_found(request, failure.value, f"{NOTHING_HERE}: try /healthz or /readyz")

        @self.app.handle_errors(Exception)
        def failed(request: IRequest, failure: Failure) -> bytes:
            return answer_to_failure(request, failure, self._log)

    def resource(self) -> KleinResource:
        """The resource, for a site of its own."""
        return JSONResource(self.app)


def add_health(app: Klein, patient: Patient, may_see_reasons: Callable[[IRequest], bool] = lambda _: True) -> None:
    """Give an app the health routes; who may not see reasons gets yes or no."""

    @app.route("/healthz", methods=["GET"])
    def healthz(request: IRequest) -> bytes:
        """Alive: whoever reads this got an answer."""
        return answers.give(request, 200, b'{"status": "ok"}')

    @app.route("/readyz", methods=["GET"])
    def readyz(request: IRequest) -> bytes:
        """Ready: each check by name; 503 where one fails that readiness needs."""
        checks = patient.checks()
        ready = is_ready(checks)
        if not may_see_reasons(request):
            return answers.give(request, 200 if ready else 503, msgspec.json.encode({"ready": ready}))
        body = msgspec.json.encode({"ready": ready, "checks": checks})
        return answers.give(request, 200 if ready else 503, body)
