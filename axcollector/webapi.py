"""The Klein app: HTTP ↔ calls, nothing else.

The checks of a request run in the order of SPEC section 2. What refuses is raised as a `Refusal` wherever it is
noticed, and becomes an answer in one place.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol
from urllib.parse import quote, unquote

import msgspec
from klein import Klein, KleinRenderable
from klein.resource import KleinResource
from twisted.internet import defer
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from axcollector import answers, openapi
from axcollector.bugs import report
from axcollector.core import payload, unpacking
from axcollector.core.errors import NotReady, Overloaded, Refusal, Rejected
from axcollector.core.model import Tenant
from axcollector.core.payload import Payload
from axcollector.intake import Intake
from axcollector.site import Reception
from axcollector.sync.directory import Directory

_PUBLISHER = "/axpublisher/organization/<organization>/environment/<environment>"


class Settings(Protocol):
    """What the routes ask of a configuration."""

    @property
    def base_path(self) -> str:
        """What the paths of the native routes begin with."""
        ...


class Ingest(Protocol):
    """What the routes ask of a collector."""

    @property
    def config(self) -> Settings:
        """Its configuration."""
        ...

    @property
    def directory(self) -> Directory:
        """Who knows tenants and developers."""
        ...

    @property
    def intake(self) -> Intake:
        """The way in."""
        ...


class AnalyticsAPI:
    """The ingest routes of a collector, as a resource to put anywhere in a site."""

    _log = Logger()

    def __init__(self, collector: Ingest) -> None:
        """The routes lie below the collector's `base_path` (and `/axpublisher`), relative to where they are mounted."""
        self._collector = collector
        self._app = Klein()
        base = quote(collector.config.base_path)
        for path, endpoint in (
            (base, self._post_named_in_body),
            (f"{base}/<scope>", self._post_for_scope),
            (_PUBLISHER, self._post_for_names),
        ):
            self._app.route(path, methods=["POST"], strict_slashes=False)(plain(endpoint))
        self._description = msgspec.json.encode(openapi.document(collector.config.base_path))
        self._app.route(openapi.PATH, methods=["GET"])(plain(self._describe))

        @self._app.handle_errors(Exception)
        def failed(request: IRequest, failure: Failure) -> bytes:
            return answer_to_failure(request, failure, self._log)

    def resource(self) -> KleinResource:
        """The resource; its answers are JSON, errors included."""
        return JSONResource(self._app)

    async def _describe(self, request: IRequest) -> bytes:
        return answers.give(request, 200, self._description)

    async def _post_for_scope(self, request: IRequest, scope: str) -> bytes:
        known_as = _text_of(scope)
        return await self._post(request, lambda: self._collector.directory.tenant_for_scope(known_as))

    async def _post_for_names(self, request: IRequest, organization: str, environment: str) -> bytes:
        names = _text_of(organization), _text_of(environment)
        return await self._post(request, lambda: self._collector.directory.tenant_for_names(*names))

    async def _post_named_in_body(self, request: IRequest) -> bytes:
        return await self._post(request, None)

    async def _post(self, request: IRequest, find_tenant: Callable[[], Awaitable[Tenant]] | None) -> bytes:
        """Take a request; its tenant is found before its body is read, unless only the body names it."""
        collector = self._collector
        reception: Reception = getattr(request, "reception", None) or Reception()
        if not collector.directory.ready():
            raise NotReady
        for content_type in headers_of(request, b"content-type") or [""]:
            unpacking.check_media_type(content_type)
        if reception.shed:
            raise Overloaded("Too many bytes are being received already (max_pending_bytes)")
        intake = collector.intake
        intake.check_room()
        tenant = None if find_tenant is None else await find_tenant()
        content_encoding = ",".join(headers_of(request, b"content-encoding"))
        unpacking.is_gzip(content_encoding)
        if reception.oversize:
            raise unpacking.too_large(intake.limits)

        async def tenant_of(body: Payload) -> Tenant:
            return tenant if tenant is not None else await self._tenant_in(body)

        # Another program's Site may have received more than is allowed, into a file.
        body = request.content.read(intake.limits.max_body_bytes + 1)
        count = await intake.take(body, content_encoding, tenant_of)
        return answers.give(request, 200, answers.accepted(count))

    async def _tenant_in(self, body: Payload) -> Tenant:
        organization = payload.name_in(body.organization, "organization")
        environment = payload.name_in(body.environment, "environment")
        return await self._collector.directory.tenant_for_names(organization, environment)


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
    if isinstance(problem, HTTPException):
        return not_found(request, problem)
    if isinstance(problem, defer.CancelledError):  # a thread that was to work on it has stopped
        problem = Overloaded("The service is stopping")
    if isinstance(problem, Refusal):
        return answers.refuse(request, problem)
    report(log, "a request failed in a way nobody foresaw", failure)
    return answers.give(request, 500, answers.error("INTERNAL_SERVER_ERROR", "The request could not be processed"))


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
