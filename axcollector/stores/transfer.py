"""HTTP as stores need it: one request within its limits, a file's body streamed, what goes wrong mapped once.

*Limits.* A request is broken off when nothing has moved for so long (no piece of the body sent, no byte of the
answer received), and when all of it takes longer than its size allows; see `limits`.

*Connections* are kept and used again, see `connections`.

*Errors.* Name resolution, connecting (through a proxy or not) and TLS: `EndpointUnavailable`, as for an answer of 429
or 503. A limit that was passed: `TimedOut`. Everything else without a proper answer: `UploadFailed`. Messages name the
authority, never a URL, because URLs hold signatures; for the same reason no exception of the libraries is kept as a
cause.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Final, Self

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet import defer, error
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Cooperator
from twisted.python.failure import Failure
from twisted.web import client, http
from twisted.web.error import SchemeNotSupported
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IPolicyForHTTPS, IResponse

from axcollector.core.errors import EndpointUnavailable, FileRefused, TimedOut, UploadFailed
from axcollector.core.retry import parse_date, parse_retry_after
from axcollector.disk import Disk
from axcollector.stores.client import PlainClient
from axcollector.stores.connections import Connections, FileBody, was_new, was_without_tls
from axcollector.stores.limits import Limits, Patience
from axcollector.stores.proxy import ProxiedAgent, Proxy
from axcollector.stores.receiving import Sink, received

SLOWEST_BYTES_PER_SECOND: Final = 100_000
"""An upload may take the idle limit and, on top, its size at this rate."""
MAX_ANSWER_BYTES: Final = 1 << 16
"""No answer of a store is longer; of a longer one the rest is not read."""

_PAUSING: Final = frozenset({429, 503})
_CANCELLED = (defer.CancelledError, error.ConnectingCancelledError)
_UNREACHABLE = (error.DNSLookupError, error.ConnectError, SSL.Error, VerificationError)
_WITHOUT_ANSWER = (
    client.ResponseNeverReceived,
    client.RequestTransmissionFailed,
    client.RequestNotSent,  # type: ignore[attr-defined]  # Twisted does not list it
)
_ALL = (
    *(*_CANCELLED, *_UNREACHABLE, *_WITHOUT_ANSWER, client.ResponseFailed, client.RequestGenerationFailed),
    *(error.ConnectionClosed, SchemeNotSupported, OSError),
)
"""What a request can fail with."""
_QUOTING_NOTHING = (*_UNREACHABLE, error.ConnectionClosed, SchemeNotSupported, OSError)
"""What speaks of the connection or of our file, and never of what came."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        status: The HTTP status.
        body: At most so much of the body as was wanted; it may hold a signed URL.
        is_whole: Whether that is all of the body.
        is_in_time: Whether the whole request had been sent when the answer came.
        headers: Of the answer; they may hold a signed URL too.
    """

    status: int
    body: bytes = field(repr=False)
    is_whole: bool
    is_in_time: bool
    headers: Headers = field(repr=False)

    def header(self, name: str) -> str:
        """The first header of this name; "" where there is none."""
        return _header(self.headers, name)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of whom.

    Attributes:
        authority: Who is asked, for errors.
        method: Such as GET.
        url: The URL, valid and absolute.
        headers: Of the request.
        limit_bytes: How much of an answer of 200 is wanted.
        sink: Who takes the body of an answer of 200; what it fails with, other than an `OSError`, is raised on.
            None: the body is kept.
        asks_for_pauses: Whether an answer of 429 or 503 is an `EndpointUnavailable`; else it is an answer.
    """

    authority: str
    method: str
    url: str = field(repr=False)
    headers: Headers = field(repr=False)
    limit_bytes: int = MAX_ANSWER_BYTES
    sink: Sink | None = None
    asks_for_pauses: bool = True


class Transfer:
    """Sends requests; one for each store, whose connections it keeps."""

    def __init__(
        self,
        clock: IReactorTime,
        agent: IAgent,
        disk: Disk,
        *,
        idle_seconds: float,
        pool: client.HTTPConnectionPool | None = None,
    ) -> None:
        """Use an agent that is there; `over_network` makes one.

        Args:
            clock: What tells and schedules time.
            agent: What sends a request.
            disk: What opens files.
            idle_seconds: How long nothing may move.
            pool: The connections that the agent keeps, or None where it keeps none.
        """
        self._clock = clock
        self._disk = disk
        self._idle_seconds = idle_seconds
        self._pool = pool
        self._client = PlainClient(clock, agent)
        self._cooperator = Cooperator(scheduler=lambda work: clock.callLater(0, work))

    @classmethod
    def over_network(
        cls,
        reactor: IReactorTime,
        disk: Disk,
        *,
        idle_seconds: float,
        connections: int,
        proxy: str | None = None,
        policy: IPolicyForHTTPS | None = None,
    ) -> Self:
        """Send over TCP and TLS.

        Args:
            reactor: The reactor, with TCP and TLS.
            disk: What opens files.
            idle_seconds: How long nothing may move.
            connections: How many are kept open to each host.
            proxy: The forward proxy's URL (`upload_proxy`), or None: hosts are connected to directly.
            policy: How certificates are verified; by default as browsers do, with what the system trusts.
        """
        pool = Connections(reactor, connections)
        policy = policy or client.BrowserLikePolicyForHTTPS()
        timeout = min(30.0, idle_seconds / 2)
        agent: IAgent
        if proxy is None:
            agent = client.Agent(reactor, policy, connectTimeout=timeout, pool=pool)
        else:
            agent = ProxiedAgent(reactor, Proxy.from_url(proxy), pool, policy, timeout)
        return cls(reactor, agent, disk, idle_seconds=idle_seconds, pool=pool)

    async def get(self, authority: str, url: str, headers: Headers) -> Answer:
        """Fetch what a URL names.

        Args:
            authority: Who is asked, for errors.
            url: The URL, valid and absolute.
            headers: Of the request.

        Raises:
            EndpointUnavailable: It cannot be reached, or asks for a pause.
            UploadFailed: There is no proper answer.
        """
        return await self.ask(
            Question(authority, "GET", url, headers), Patience(self._idle_seconds, self._idle_seconds)
        )

    async def put(self, authority: str, url: str, headers: Headers, path: str) -> Answer:
        """Send a file to a URL; arguments and errors are those of `get`, with the file's path."""
        try:
            file = self._disk.open_within(path)
        except OSError as exc:
            message = f"the file cannot be read: {exc.strerror}"
            raise FileRefused(message) from exc
        with file:
            overall = self._idle_seconds + file.seek(0, io.SEEK_END) / SLOWEST_BYTES_PER_SECOND
            file.seek(0)
            patience = Patience(self._idle_seconds, overall)
            return await self._ask_with(Question(authority, "PUT", url, headers), patience, file)

    async def ask(self, question: Question, patience: Patience, body: bytes | None = None) -> Answer:
        """Send a request, with a body or without; errors are those of `get`, and what its sink fails with."""
        if body is not None:
            return await self._ask_with(question, patience, io.BytesIO(body))
        with Limits(self._clock, patience) as limits:
            return await self._exchange(question, limits, None)

    async def _ask_with(self, question: Question, patience: Patience, file: BinaryIO) -> Answer:
        with Limits(self._clock, patience) as limits:
            body = FileBody(file, self._cooperator, limits.moved)
            try:
                return await self._exchange(question, limits, body)
            finally:
                body.end()

    async def _exchange(self, question: Question, limits: Limits, body: FileBody | None) -> Answer:
        authority = question.authority
        try:
            response = await limits.watch(defer.Deferred.fromCoroutine(self._send(question, body)))
            is_in_time = body is None or body.is_sent
            if body is not None and not is_in_time:
                body.cut()
            is_200 = response.code == 200
            limit, sink = (question.limit_bytes, question.sink) if is_200 else (MAX_ANSWER_BYTES, None)
            content, is_whole = await limits.watch(received(response, limits.moved, limit, sink))
        except _ALL as exc:
            raise _mapped(authority, exc, limits.expired) from None
        if response.code in _PAUSING and question.asks_for_pauses:
            raise EndpointUnavailable(
                authority, f"{authority} answered {response.code}", _retry_after(response, self._clock.seconds())
            )
        if response.code == http.PROXY_AUTH_REQUIRED:
            message = f"{authority} cannot be reached: the proxy wants a user name and password (it answered 407)"
            raise EndpointUnavailable(authority, message)
        return Answer(response.code, content, is_whole, is_in_time, response.headers)

    async def _send(self, question: Question, body: FileBody | None) -> IResponse:
        def request() -> "defer.Deferred[IResponse]":
            return self._client.request(question.method, question.url, question.headers, body)

        try:
            return await request()
        except ValueError:  # it may hold the URL
            message = f"{question.authority} cannot be reached: its URL or host name is not valid"
            raise EndpointUnavailable(question.authority, message) from None
        except _WITHOUT_ANSWER as exc:
            # A kept connection may just have been closed at the other end. A file cannot be sent again from here.
            if body is not None or was_new(exc) or _is_cancelled(exc):
                raise
            return await request()

    def close(self) -> "defer.Deferred[None]":
        """Close the connections that are kept. Fires when they are closed."""
        return defer.succeed(None) if self._pool is None else self._pool.closeCachedConnections()


def _reasons(exc: BaseException) -> Iterator[BaseException]:
    """An exception and, where it is one of Twisted's wrappers, all that caused it."""
    yield exc
    failures: list[Failure] = getattr(exc, "reasons", [])
    for failure in failures:
        if failure.value is not None:
            yield from _reasons(failure.value)


def _mapped(authority: str, exc: BaseException, expired: str) -> Exception:
    """What an exception means to whoever uploads; one that comes of cancelling is just that."""
    if expired:
        return TimedOut(f"{authority}: {expired}", authority)
    if _is_cancelled(exc):
        return defer.CancelledError()
    reasons = list(_reasons(exc))
    for reason in reasons:
        if isinstance(reason, _UNREACHABLE):
            return EndpointUnavailable(authority, f"{authority} cannot be reached: {_in_words(reason)}")
    if was_without_tls(exc):
        return EndpointUnavailable(authority, f"{authority} cannot be reached: it closed before TLS was established")
    return UploadFailed(f"{authority} gave no proper answer: {_in_words(reasons[-1])}", authority)


def _is_cancelled(exc: BaseException) -> bool:
    return any(isinstance(reason, _CANCELLED) for reason in _reasons(exc))


def _in_words(exc: BaseException) -> str:
    """What it says, unless it may quote what came, which may be what we sent: a server can send our URL back."""
    return (str(exc) if isinstance(exc, _QUOTING_NOTHING) else "") or type(exc).__name__.lstrip("_")


def _header(headers: Headers, name: str) -> str:
    return headers.getRawHeaders(name.encode(), [b""])[0].decode("latin-1")


def _retry_after(response: IResponse, now: float) -> float | None:
    moment = parse_date(_header(response.headers, "date")) or now
    return parse_retry_after(_header(response.headers, "retry-after"), moment)
