"""A klein application with a collector inside: `python gateway_klein.py`.

The application's own routes are recorded, a record a call; the collector's routes lie below `/collect`, for those who
send records from elsewhere. Nothing here but the last lines knows of a reactor of its own.
"""

import time
import uuid
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from klein import Klein
from twisted.internet import defer, endpoints
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from twisted.web.server import Site

from axcollector.api import AnalyticsAPI, Collector, Config, RecordBuffer

Handler = Callable[..., Coroutine[Any, Any, bytes]]


class Weather:
    """An application that has nothing to do with records but one line a route."""

    app = Klein()

    def __init__(self, collector: Collector, buffer: RecordBuffer, scope: str) -> None:
        self._collecting = AnalyticsAPI(collector).resource()
        self._buffer = buffer
        self._scope = scope

    @staticmethod
    def recorded(handler: Handler) -> Handler:
        """Add a record when the call is over, whatever became of it."""

        @wraps(handler)
        def called(self: "Weather", request: IRequest, **parts: str) -> "defer.Deferred[bytes]":
            started = int(time.time() * 1000)
            request.notifyFinish().addBoth(self._over, request, started)  # type: ignore[attr-defined]
            return defer.ensureDeferred(handler(self, request, **parts))

        return called  # type: ignore[return-value]  # what a Deferred of bytes is to klein

    def _over(self, result: object, request: Any, started: int) -> None:
        ended = max(started, int(time.time() * 1000))
        record = {
            "recordType": "APIAnalytics",
            "gateway_flow_id": str(uuid.uuid4()),
            "apiproxy": "weather",
            "request_verb": request.method.decode("latin-1"),
            "request_path": request.path.decode("latin-1"),
            "response_status_code": request.code if result is None else 499,  # else the client was gone
            "client_ip": request.client.host,
            "client_received_start_timestamp": started,
            "client_received_end_timestamp": ended,
        }
        key = request.getHeader("x-api-key")
        self._buffer.add(self._scope, record | ({"client_id": key} if key else {}))

    @app.route("/weather/<city>")
    @recorded
    async def weather(self, request: IRequest, city: str) -> bytes:
        """The weather of a city."""
        if city == "atlantis":
            request.setResponseCode(404)
            return b"under water\n"
        return b"fine\n"

    @app.route("/collect/", branch=True)
    def collect(self, request: IRequest) -> IResource:
        """The collector's own routes: /collect/analytics/SCOPE takes records."""
        return self._collecting


def main(scope: str, directory: str = "axcollector-data") -> None:
    """Run it until it is interrupted."""
    from twisted.internet import reactor

    running: Any = reactor
    collector = Collector(running, Config(local_storage_path=directory))
    buffer = RecordBuffer(running, collector)
    buffer.startService()  # and the collector with it
    running.addSystemEventTrigger("before", "shutdown", buffer.stopService)
    site = Site(Weather(collector, buffer, scope).app.resource())
    endpoints.serverFromString(running, "tcp:8080:interface=127.0.0.1").listen(site)
    running.run()


if __name__ == "__main__":
    import sys

    main(*sys.argv[1:])
