"""The ingest routes, without HTTP's machinery: a path and a call in, an answer out.

The checks of a request run in the order of SPEC section 2. What refuses is raised as a `Refusal` wherever it is
noticed, and becomes an answer in one place. Two adaptors lead here: the routes of `webapi`, in whatever Site, and the
connections that llhttp parses (`llhttp_channel`), which need nothing else for what nearly every client sends.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, Protocol

from twisted.logger import Logger

from axcollector import answers
from axcollector.access import Access, Visit
from axcollector.answers import Answer
from axcollector.core import payload, unpacking
from axcollector.core.errors import NotReady, Overloaded, RateLimited
from axcollector.core.model import Tenant
from axcollector.core.payload import Payload
from axcollector.core.tally import Tally
from axcollector.intake import Intake
from axcollector.reception import Reception
from axcollector.sync.directory import Directory

PUBLISHER: Final = ("/axpublisher/organization/", "/environment/")
"""What stands before an organization, and between it and an environment."""
_PLAIN: Final = rb"([A-Za-z0-9_-]+)"
"""A segment that is the same, however it is quoted."""


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
    def tally(self) -> Tally:
        """Who counts."""
        ...

    @property
    def intake(self) -> Intake:
        """The way in."""
        ...


class Call(Protocol):
    """A request, as far as the routes look at it, once it is there, whole."""

    @property
    def reception(self) -> Reception:
        """What was found while its body was received."""
        ...

    def values_of(self, name: bytes, /) -> Sequence[bytes]:
        """The values of a header, by its name in small letters."""
        ...

    def read(self, most: int, /) -> bytes:
        """The body, or so much of it; asked for once."""
        ...

    def forget_body(self) -> None:
        """The body is of no use any more, though its answer takes a while yet."""
        ...


class Route(NamedTuple):
    """Whose records a path says are sent; neither: that stands in the body.

    Attributes:
        scope: The scope.
        names: Organization and environment.
    """

    scope: str | None = None
    names: tuple[str, str] | None = None

    @property
    def name(self) -> str:
        """What its requests are counted as."""
        return "scope" if self.scope is not None else "names" if self.names is not None else "body"

    @property
    def enter(self) -> "Enter | None":
        """What finds the tenant."""
        scope, names = self.scope, self.names
        if scope is not None:
            return lambda visit: visit.enter_scope(scope)
        if names is not None:
            return lambda visit: visit.enter_names(*names)
        return None


Enter = Callable[[Visit], Awaitable[Tenant]]
_IN_BODY: Final = Route()


class Door:
    """The ingest routes of a collector.

    Attributes:
        tally: Counts the answers.
    """

    _log = Logger()

    def __init__(self, collector: Ingest) -> None:
        """The native routes lie below the collector's `base_path`."""
        self._collector = collector
        self.tally = collector.tally
        base = re.escape(collector.config.base_path.rstrip("/").encode())
        before, between = (part.encode() for part in PUBLISHER)
        self._paths = re.compile(b"%b/%b|%b%b%b%b|(%b)" % (base, _PLAIN, before, _PLAIN, between, _PLAIN, base or b"/"))

    def route(self, path: bytes) -> Route | None:
        """The route of a POST to an ordinary path; None: it is none, or Klein has to look closer."""
        found = self._paths.fullmatch(path)
        if found is None:
            return None
        scope, organization, environment, _ = found.groups()
        if scope is not None:
            return Route(scope.decode("ascii"))
        if organization is not None:
            return Route(names=(organization.decode("ascii"), environment.decode("ascii")))
        return _IN_BODY

    async def answer(self, route: Route, call: Call) -> Answer:
        """The answer to a request, whatever happens."""
        try:
            answer = await self._post(route, call)
        except Exception as exc:  # noqa: BLE001 - a request's outer edge
            answer = answers.of_problem(exc, self._log)
        self.tally.answered(route.name, answer.status, answer.code)
        return answer

    async def _post(self, route: Route, call: Call) -> Answer:
        """Take a request; where its scope sends too much, say so after a while."""
        try:
            return await self._take(route, call)
        except RateLimited as exc:
            # The exception itself is not kept: the frames in its traceback hold the body.
            reason, retry_after = exc.reason, exc.retry_after
        call.forget_body()
        waited = await self._collector.access.hold_back()
        raise RateLimited(reason, retry_after - waited)

    async def _take(self, route: Route, call: Call) -> Answer:
        """Take a request; its tenant is found before its body is looked at, unless only the body names it.

        The hot path: with caching it waits for the commit only. It may not log, nor make a Deferred.
        """
        collector = self._collector
        reception = call.reception
        if not collector.directory.ready():
            raise NotReady
        for content_type in call.values_of(b"content-type") or (b"",):
            unpacking.check_media_type(content_type.decode("latin-1"))
        if reception.shed:
            raise Overloaded("Too many bytes are being received already (max_pending_bytes)")
        intake = collector.intake
        intake.check_room()
        # Another program's Site may have received more than is allowed, into a file.
        body = call.read(intake.limits.max_body_bytes + 1)
        entry = _Entry(collector.access, call, intake.limits.max_body_bytes if reception.oversize else len(body))
        enter = route.enter
        if enter is not None:
            await entry.take(enter)
        content_encoding = b",".join(call.values_of(b"content-encoding")).decode("latin-1")
        unpacking.is_gzip(content_encoding)
        if reception.oversize:
            raise unpacking.too_large(intake.limits)
        taken = await intake.take(body, content_encoding, entry.tenant_of, route.scope, entry.whose)
        return Answer(200, answers.accepted(*taken))


class _Entry:
    """How one request gets in: once its tenant is known, its bytes are counted, and then its records."""

    def __init__(self, access: Access, call: Call, size: int) -> None:
        self._visit = access.visit([value.decode("latin-1") for value in call.values_of(b"authorization")])
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
        """The tenant's id, once it is known: large bodies take turns by it."""
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
