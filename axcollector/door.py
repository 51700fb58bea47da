"""The ingest routes, without HTTP's machinery: a path and a call in, an answer out.

The checks of a request run in the order of SPEC section 2. What refuses is raised as a `Refusal` wherever it is
noticed, and becomes an answer in one place. Two adaptors lead here: the routes of `webapi`, in whatever Site, and the
connections that llhttp parses (`llhttp_channel`), which need nothing else for what nearly every client sends.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

from twisted.logger import Logger
from twisted.python.failure import Failure

from axcollector import answers
from axcollector.access import Access
from axcollector.answers import Answer
from axcollector.bugs import report
from axcollector.core import payload, unpacking
from axcollector.core.errors import NotReady, Overloaded, RateLimited, Refusal, Rejected
from axcollector.core.model import Batch, Tenant
from axcollector.core.payload import Document
from axcollector.core.tally import Tally
from axcollector.core.traces import without_trace
from axcollector.intake import Intake, Taken
from axcollector.reception import Reception
from axcollector.routes import IN_BODY, Asked, Enter, Route, Routes
from axcollector.sync.directory import Directory

_HELD_BACK: Final = frozenset({"RATE_LIMITED", "UNAUTHORIZED", "FORBIDDEN"})
"""The refusals that whoever sends again at once gets again; they may be said after a while."""


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


class Door:
    """The ingest routes of a collector.

    Attributes:
        tally: Counts the answers.
        route: As `Routes.route`.
    """

    _log = Logger()

    def __init__(self, collector: Ingest) -> None:
        """The native routes lie below the collector's `base_path`."""
        self._collector = collector
        self.tally = collector.tally
        self.route = Routes(collector.config.base_path).route

    async def answer(self, route: Route, call: Call) -> Answer:
        """The answer to a request, whatever happens."""
        try:
            answer = await self._post(route, call)
        except Exception as exc:  # noqa: BLE001 - a request's outer edge
            answer = answers.of_problem(exc, self._log)
        return self._said(route, answer)

    def _said(self, route: Route, answer: Answer) -> Answer:
        """Every answer of a request that has come to its end passes here, once, and is counted."""
        self.tally.answered(route.name, answer.status, answer.code)
        return answer

    # What is usual: found without waiting, and said without a coroutine

    def asked(self, route: Route, values_of: Callable[[bytes], Sequence[bytes]]) -> Asked | None:
        """What the head of a request asks that was taken, for `usual_batch`; None where that could tell nothing."""
        if not self._tells_at_once(route):
            return None
        authorization = [value.decode("latin-1") for value in values_of(b"authorization")]
        return Asked(route, _coding(values_of(b"content-encoding")), authorization)

    def asked_like(self, asked: Asked, route: Route) -> Asked | None:
        """The same, of a head that differs from one for which this was `asked` in its path alone."""
        return Asked(route, asked.content_encoding, asked.authorization) if self._tells_at_once(route) else None

    def _tells_at_once(self, route: Route) -> bool:
        collector = self._collector
        at_once = collector.directory.catalog is not None and collector.access.tells_at_once(route.scope)
        return at_once and route != IN_BODY

    def usual_batch(self, asked: Asked, body: bytes) -> Batch | None:
        """The batch of a request about which nothing is to be said but 200; None: `answer` says what is to be.

        The hot path of nearly all small requests: the checks of `_take`, in one go. It waits for nothing, and changes
        nothing, so that `answer` can begin anew.
        """
        collector = self._collector
        route = asked.route
        try:
            catalog = collector.directory.catalog
            if catalog is None:
                return None
            intake = collector.intake
            intake.check_room()
            tenant = collector.access.tenant_at_once(catalog, route.scope, route.names, asked.authorization)
            return None if tenant is None else intake.batch_at_once(body, asked.content_encoding, tenant, catalog)
        except Refusal:
            return None
        except Exception:  # noqa: BLE001 - a request's outer edge
            report(self._log, "a usual request failed in a way nobody foresaw")
            return None

    def keep(self, asked: Asked, batch: Batch, done: Callable[[Answer], bool]) -> None:
        """Make a batch of `usual_batch` durable, which came just now, and call `done` with the request's answer.

        It says whether there was still somebody to send that to: who has hung up is counted as such here, too.
        """
        intake = self._collector.intake
        intake.keep(batch, partial(self._kept, asked.route, intake.taken(batch), done))

    def _kept(self, route: Route, taken: Taken, done: Callable[[Answer], bool], failure: Failure | None) -> None:
        problem = None if failure is None else failure.value
        answer = answers.taken(*taken) if problem is None else answers.of_problem(problem, self._log)
        self._said(route, answer if done(answer) else answers.UNHEARD)

    # What is answered in full

    async def _post(self, route: Route, call: Call) -> Answer:
        """Take a request; where its scope sends too much, or many have no good token, say so after a while."""
        try:
            return await self._take(route, call)
        except (RateLimited, Rejected) as exc:
            if exc.code not in _HELD_BACK:
                raise
            refusal = without_trace(exc)
        call.forget_body()
        access = self._collector.access
        if isinstance(refusal, RateLimited):
            refusal.retry_after -= await access.hold_back()
        else:
            await access.hold_back_stranger()
        raise refusal

    async def _take(self, route: Route, call: Call) -> Answer:
        """Take a request; its tenant is found before its body is looked at, unless only the body names it.

        The hot path: with caching it waits for the commit only. It may not log, nor make a Deferred.
        """
        collector = self._collector
        reception = call.reception
        if not collector.directory.ready():
            raise NotReady
        _check_media_types(call.values_of(b"content-type"))
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
        content_encoding = _coding(call.values_of(b"content-encoding"))
        unpacking.is_gzip(content_encoding)
        if reception.oversize:
            raise unpacking.too_large(intake.limits)
        taken = await intake.take(body, content_encoding, entry.tenant_of, route.scope, entry.whose)
        return answers.taken(*taken)


def _check_media_types(values: Sequence[bytes]) -> None:
    for content_type in values or (b"",):
        unpacking.check_media_type(content_type.decode("latin-1"))


def _coding(values: Sequence[bytes]) -> str:
    return b",".join(values).decode("latin-1")


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

    async def tenant_of(self, document: Document) -> Tenant:
        """The tenant of a body, who may have so many records in it; asked again where it is taken apart anew."""
        tenant = self._tenant or await self._enter_named(document)
        self._visit.unpack(document.count)
        return tenant

    async def _enter_named(self, document: Document) -> Tenant:
        organization = payload.name_in(document.organization, "organization")
        environment = payload.name_in(document.environment, "environment")
        return await self.take(lambda visit: visit.enter_names(organization, environment))
