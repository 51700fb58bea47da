"""The Klein app: HTTP ↔ calls, nothing else.

The checks of a request run in the order of SPEC section 2. What refuses is raised as a `Refusal` wherever it is
noticed, and becomes an answer in one place.
"""

import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol
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
from axcollector.access import Access, Visit
from axcollector.bugs import report
from axcollector.channel import IngestRequest
from axcollector.core import payload, unpacking
from axcollector.core.errors import NotReady, Overloaded, RateLimited, Refusal, Rejected
from axcollector.core.model import Tenant
from axcollector.core.payload import Payload
from axcollector.intake import Intake
from axcollector.reception import Reception
from axcollector.sync.directory import Directory

Enter = Callable[[Visit], Awaitable[Tenant]]
PostForScope = Callable[[IRequest, str], Coroutine["defer.Deferred[Any]", Any, bytes]]
_PLAIN = re.compile(rb"[A-Za-z0-9_-]+")
"""A scope that is the same, however it is quoted."""
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
    def access(self) -> Access:
        """Who may send, and how much."""
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
        return _ScopeResource(self._app, self._collector.config.base_path.encode(), self._post_for_scope, self._log)

    async def _describe(self, request: IRequest) -> bytes:
        return answers.give(request, 200, self._description)

    async def _post_for_scope(self, request: IRequest, scope: str) -> bytes:
        known_as = _text_of(scope)
        return await self._post(request, lambda visit: visit.enter_scope(known_as), known_as)

    async def _post_for_names(self, request: IRequest, organization: str, environment: str) -> bytes:
        names = _text_of(organization), _text_of(environment)
        return await self._post(request, lambda visit: visit.enter_names(*names))

    async def _post_named_in_body(self, request: IRequest) -> bytes:
        return await self._post(request, None)

    async def _post(self, request: IRequest, enter: Enter | None, scope: str | None = None) -> bytes:
        """Take a request; where its scope sends too much, say so after a while."""
        try:
            return await self._take(request, enter, scope)
        except RateLimited as exc:
            # The exception itself is not kept: the frames in its traceback hold the body.
            reason, retry_after = exc.reason, exc.retry_after
        if isinstance(request, IngestRequest):
            request.forget_body()
        waited = await self._collector.access.hold_back()
        raise RateLimited(reason, retry_after - waited)

    async def _take(self, request: IRequest, enter: Enter | None, scope: str | None) -> bytes:
        """Take a request; its tenant is found before its body is looked at, unless only the body names it."""
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
        # Another program's Site may have received more than is allowed, into a file.
        body = request.content.read(intake.limits.max_body_bytes + 1)
        entry = _Entry(collector.access, request, intake.limits.max_body_bytes if reception.oversize else len(body))
        if enter is not None:
            await entry.take(enter)
        content_encoding = ",".join(headers_of(request, b"content-encoding"))
        unpacking.is_gzip(content_encoding)
        if reception.oversize:
            raise unpacking.too_large(intake.limits)
        taken = await intake.take(body, content_encoding, entry.tenant_of, scope, entry.whose)
        return answers.give(request, 200, answers.accepted(*taken))


class _Entry:
    """How one request gets in: once its tenant is known, its bytes are counted, and then its records."""

    def __init__(self, access: Access, request: IRequest, size: int) -> None:
        self._visit = access.visit(headers_of(request, b"authorization"))
        self._size = size
        self._tenant: Tenant | None = None

    async def take(self, enter: Enter) -> Tenant:
        """The tenant, who may bring a body of this size."""
        tenant = await enter(self._visit)
        self._visit.bring(self._size)
        self._tenant = tenant
        return tenant

    @property
    def whose(self) -> str:
        """The tenant's id, where it is known."""
        return "" if self._tenant is None else self._tenant.id

    async def tenant_of(self, document: Payload) -> Tenant:
        """The tenant of a body, who may have so many records in it; asked again where it is taken apart anew."""
        tenant = self._tenant or await self._enter_named(document)
        self._visit.unpack(len(document.records))
        return tenant

    async def _enter_named(self, document: Payload) -> Tenant:
        organization = payload.name_in(document.organization, "organization")
        environment = payload.name_in(document.environment, "environment")
        return await self.take(lambda visit: visit.enter_names(organization, environment))


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


class _ScopeResource(JSONResource):
    """The ingest routes, of which the one that nearly every request takes is found without Klein.

    Klein's routing is more than half of what a small request costs. What is not plainly a post for a scope of ordinary
    letters goes to Klein; who answers, and how, is the same.
    """

    def __init__(self, app: Klein, base_path: bytes, post: PostForScope, log: Logger) -> None:
        super().__init__(app)
        self._base = base_path.strip(b"/").split(b"/") if base_path.strip(b"/") else []
        self._post = post
        self._log = log

    def render(self, request: IRequest) -> KleinRenderable:
        """Answer.

        The hot path: it may not look at anything but the method and the path, and it makes one Deferred, which is
        cancelled when the client hangs up.
        """
        *base, scope = request.postpath or [b""]
        if request.method != b"POST" or base != self._base or not _PLAIN.fullmatch(scope):
            return super().render(request)
        answering: defer.Deferred[bytes] = defer.ensureDeferred(self._post(request, scope.decode("ascii")))
        answering.addErrback(lambda failure: answer_to_failure(request, failure, self._log))
        if answering.called and isinstance(answering.result, bytes):
            return answering.result
        hung_up: defer.Deferred[None] = request.notifyFinish()  # type: ignore[attr-defined]
        hung_up.addErrback(lambda _: answering.cancel())
        answering.addCallback(lambda body: None if hung_up.called else _finish(request, body))
        return NOT_DONE_YET  # type: ignore[return-value]  # what every renderer may return


def _finish(request: IRequest, body: bytes) -> None:
    request.write(body)
    request.finish()
