"""The Klein app: the routes of `door`, for a Site whose requests are Twisted's. HTTP ↔ calls, nothing else."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import quote, unquote

import msgspec
from klein import Klein, KleinRenderable
from klein.resource import KleinResource
from twisted.internet import defer
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.server import NOT_DONE_YET
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from axcollector import answers, openapi
from axcollector.channel import IngestRequest
from axcollector.core.errors import Rejected
from axcollector.door import PUBLISHER, Door, Ingest, Route
from axcollector.reception import Reception


class AnalyticsAPI:
    """The ingest routes of a collector, as a resource to put anywhere in a site.

    Attributes:
        door: What answers behind the routes; our own Site may ask it directly.
    """

    _log = Logger()

    def __init__(self, collector: Ingest) -> None:
        """The routes lie below the collector's `base_path` (and `/axpublisher`), relative to where they are mounted."""
        self.door = Door(collector)
        self._app = Klein()
        base = quote(collector.config.base_path)
        before, between = PUBLISHER
        for path, endpoint in (
            (base, self._post_named_in_body),
            (f"{base}/<scope>", self._post_for_scope),
            (f"{before}<organization>{between}<environment>", self._post_for_names),
        ):
            self._app.route(path, methods=["POST"], strict_slashes=False)(plain(endpoint))
        self._description = msgspec.json.encode(openapi.document(collector.config.base_path))
        self._app.route(openapi.PATH, methods=["GET"])(plain(self._describe))

        @self._app.handle_errors(Exception)
        def failed(request: IRequest, failure: Failure) -> bytes:
            body = answer_to_failure(request, failure, self._log)
            status: int = request.code  # type: ignore[attr-defined]  # not in IRequest
            self.door.tally.answered("other", status, msgspec.json.decode(body)["errorCode"])
            return body

    def resource(self) -> KleinResource:
        """The resource; its answers are JSON, errors included."""
        return _DoorResource(self._app, self.door)

    async def _describe(self, request: IRequest) -> bytes:
        self.door.tally.answered("other", 200, "OK")
        return answers.give(request, 200, self._description)

    async def _post_for_scope(self, request: IRequest, scope: str) -> bytes:
        return await self._post(request, Route(_text_of(scope)))

    async def _post_for_names(self, request: IRequest, organization: str, environment: str) -> bytes:
        return await self._post(request, Route(names=(_text_of(organization), _text_of(environment))))

    async def _post_named_in_body(self, request: IRequest) -> bytes:
        return await self._post(request, Route())

    async def _post(self, request: IRequest, route: Route) -> bytes:
        return answers.give_whole(request, await self.door.answer(route, _RequestCall(request)))


class _RequestCall:
    """A Request as the `Call` that the door answers."""

    def __init__(self, request: IRequest) -> None:
        self._request = request

    @property
    def reception(self) -> Reception:
        """As `Call.reception`; another program's Site finds none."""
        return getattr(self._request, "reception", None) or Reception()

    def values_of(self, name: bytes) -> Sequence[bytes]:
        """As `Call.values_of`."""
        values: Sequence[bytes] = self._request.requestHeaders.getRawHeaders(name, [])
        return values

    def read(self, most: int) -> bytes:
        """As `Call.read`."""
        body: bytes = self._request.content.read(most)
        return body

    def forget_body(self) -> None:
        """As `Call.forget_body`."""
        if isinstance(self._request, IngestRequest):
            self._request.forget_body()


def plain(method: Callable[..., Awaitable[bytes]]) -> Callable[..., Awaitable[bytes]]:
    """A function that calls a bound method: Klein sets attributes on what it is given."""

    def call(*arguments: object, **keywords: object) -> Awaitable[bytes]:
        return method(*arguments, **keywords)

    call.__name__ = method.__name__
    return call


def _text_of(segment: str) -> str:
    """The text of a path's segment."""
    try:
        return unquote(segment, errors="strict")
    except UnicodeDecodeError as exc:
        raise Rejected("NOT_FOUND", NOTHING_HERE) from exc


def headers_of(request: IRequest, name: bytes) -> list[str]:
    """The values of a header, whatever bytes they hold."""
    return [value.decode("latin-1") for value in request.requestHeaders.getRawHeaders(name, [])]


NOTHING_HERE = "There is nothing at this path"


def not_found(request: IRequest, problem: BaseException | None, reason: str = NOTHING_HERE) -> bytes:
    """The answer to a path or method that no route has."""
    if not isinstance(problem, MethodNotAllowed):
        return answers.refuse(request, Rejected("NOT_FOUND", reason))
    allowed = ", ".join(sorted(problem.valid_methods or ()))
    request.setHeader(b"Allow", allowed.encode())
    return answers.refuse(request, Rejected("METHOD_NOT_ALLOWED", f"Only {allowed} is allowed here"))


def answer_to_failure(request: IRequest, failure: Failure, log: Logger) -> bytes:
    """The answer to a request that failed, in whatever way; what nobody foresaw is logged."""
    problem = failure.value
    assert problem is not None
    if isinstance(problem, HTTPException):
        return not_found(request, problem)
    return answers.give_whole(request, answers.of_problem(problem, log))


class JSONResource(KleinResource):
    """A Klein resource to whose routes every request gets, so that they alone answer.

    Klein would refuse in plain text what is no UTF-8, fail on a Host header that is no host name, and take a `%2F` for
    the end of a segment. Routes get the segments of the path percent-encoded.
    """

    def render(self, request: IRequest) -> KleinRenderable:
        """Answer."""
        request.requestHeaders.setRawHeaders(b"host", [b"localhost"])
        for path in (request.prepath, request.postpath):
            path[:] = [quote(segment, safe="").encode() for segment in path]
        return super().render(request)


class _DoorResource(JSONResource):
    """The ingest routes, of which those that nearly every request takes are found without Klein.

    Klein's routing is more than half of what a small request costs. What is not plainly a post of ordinary letters
    goes to Klein; who answers, and how, is the same.
    """

    def __init__(self, app: Klein, door: Door) -> None:
        super().__init__(app)
        self._door = door

    def render(self, request: IRequest) -> KleinRenderable:
        """Answer.

        The hot path of Twisted's parser: it may not look at anything but the method and the path, and it makes one
        Deferred, which is cancelled when the client hangs up.
        """
        path = b"/" + b"/".join(request.postpath)
        route = None
        if request.method == b"POST" and path.count(b"/") == len(request.postpath):  # else a segment holds one
            route = self._door.route(path)
        if route is None:
            return super().render(request)
        answering: defer.Deferred[Any] = defer.ensureDeferred(self._door.answer(route, _RequestCall(request)))
        answering.addCallback(lambda answer: answers.give_whole(request, answer))
        if answering.called and isinstance(answering.result, bytes):
            return answering.result
        hung_up: defer.Deferred[None] = request.notifyFinish()  # type: ignore[attr-defined]  # not in IRequest's types
        hung_up.addErrback(lambda _: answering.cancel())
        answering.addCallback(lambda body: None if hung_up.called else _finish(request, body))
        return NOT_DONE_YET  # type: ignore[return-value]  # what every renderer may return


def _finish(request: IRequest, body: bytes) -> None:
    request.write(body)
    request.finish()
