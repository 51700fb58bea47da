"""Sending the demo's records over HTTP, as a well-behaved client does: what is not acknowledged is sent again."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeVar

import msgspec
from twisted.internet import defer
from twisted.internet.error import ConnectError, ConnectionLost
from twisted.internet.interfaces import IConsumer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    HTTPConnectionPool,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseFailed,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IResponse
from zope.interface import implementer

from axcollector.cli.demo_records import Posting
from axcollector.cli.demo_service import DemoFailed

T = TypeVar("T")

CONNECTIONS: Final = 8
REQUEST_SECONDS: Final = 20.0
"""A request that takes longer has failed; a commit takes milliseconds."""
MAX_RETRY_SECONDS: Final = 5.0
_OK: Final = 200
_BUSY: Final = 503
_NETWORK_ERRORS: Final = (
    *(ConnectError, ConnectionLost, defer.TimeoutError),
    *(RequestTransmissionFailed, ResponseFailed),
)


class Sender:
    """A client of one collector, with a few connections that are kept open."""

    def __init__(self, reactor: Any, base_url: str, connections: int = CONNECTIONS) -> None:  # noqa: ANN401 - any reactor
        """Connect to nothing yet.

        Args:
            reactor: What connects.
            base_url: The ingest URL, without the scope.
            connections: How many requests may be under way at once.
        """
        self._reactor = reactor
        self._base_url = base_url
        self._connections = connections
        self._pool = HTTPConnectionPool(reactor)
        self._pool.maxPersistentPerHost = connections
        self._agent = Agent(reactor, connectTimeout=REQUEST_SECONDS, pool=self._pool)

    async def send_all(self, postings: Iterable[Posting], acknowledged: Callable[[Posting], None]) -> None:
        """Send them over all connections; `acknowledged` is told of each.

        Raises:
            DemoFailed: One was refused, or the collector cannot be reached. The others under way are cut off.
        """
        shared = iter(postings)
        senders = [defer.ensureDeferred(self._send_from(shared, acknowledged)) for _ in range(self._connections)]
        try:
            await defer.gatherResults(senders, consumeErrors=True)
        except defer.FirstError as exc:
            exc.subFailure.raiseException()
        finally:
            for each in senders:
                each.cancel()

    async def _send_from(self, postings: Iterator[Posting], acknowledged: Callable[[Posting], None]) -> None:
        for posting in postings:
            await self.send(posting)
            acknowledged(posting)

    async def send(self, posting: Posting) -> None:
        """Send one until it is acknowledged: while the collector is busy, again, when it says.

        Raises:
            DemoFailed: It was refused, or the collector cannot be reached.
        """
        url = f"{self._base_url}/{posting.client.scope}"
        headers = Headers({"Content-Type": ["application/json"]})
        if posting.gzipped:
            headers.addRawHeader("Content-Encoding", "gzip")
        while True:
            response, content = await self._request(b"POST", url, headers, _Body(posting.body))
            if response.code == _OK:
                break
            if response.code != _BUSY:
                raise DemoFailed(f"{url} answered {response.code}: {content.decode(errors='replace')}")
            await deferLater(self._reactor, _retry_after(response))
        if msgspec.json.decode(content) != {"accepted": len(posting.flow_ids), "rejected": 0}:
            raise DemoFailed(f"{url} acknowledged something else: {content.decode(errors='replace')}")

    async def status_of(self, url: str) -> int:
        """The status that a GET of a URL is answered with.

        Raises:
            DemoFailed: It cannot be reached.
        """
        response, _ = await self._request(b"GET", url, Headers(), None)
        return int(response.code)

    async def _request(
        self, method: bytes, url: str, headers: Headers, body: IBodyProducer | None
    ) -> tuple[IResponse, bytes]:
        try:
            requested = _cancellable(self._agent.request(method, url.encode(), headers, body))
            response = await requested.addTimeout(REQUEST_SECONDS, self._reactor)
            collected = _Content()
            response.deliverBody(collected)
            return response, await collected.whole.addTimeout(REQUEST_SECONDS, self._reactor)
        except _NETWORK_ERRORS as exc:
            raise DemoFailed(f"{url} cannot be reached: {exc or type(exc).__name__}") from exc

    async def close(self) -> None:
        """Close the connections. Returns when they are closed."""
        await self._pool.closeCachedConnections()


def _retry_after(response: IResponse) -> float:
    [text] = response.headers.getRawHeaders("Retry-After", ["1"])[:1]
    return min(MAX_RETRY_SECONDS, float(text)) if text.isdigit() else 1.0


def _cancellable(requested: "defer.Deferred[T]") -> "defer.Deferred[T]":
    """Fires as `requested` does; when it is cancelled, so is that, and however that ends, this fails as cancelled."""

    def cancel(cancelled: "defer.Deferred[T]") -> None:
        cancelled.errback(defer.CancelledError())
        requested.cancel()

    def end(result: "T | Failure") -> None:
        if not answered.called:
            answered.callback(result)

    answered: defer.Deferred[T] = defer.Deferred(cancel)
    requested.addBoth(end)
    return answered


class _Content(Protocol):
    """The content of a response.

    Attributes:
        whole: Fires with it when it is there. Fails with what kept it from coming. Cancelling closes the connection.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.whole: defer.Deferred[bytes] = defer.Deferred(self._cancel)

    def dataReceived(self, data: bytes) -> None:
        self._parts.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.whole.called:
            self.whole.callback(b"".join(self._parts)) if reason.check(ResponseDone) else self.whole.errback(reason)

    def _cancel(self, _: object) -> None:
        self.whole.errback(defer.CancelledError())
        if self.transport is not None:
            self.transport.loseConnection()


@implementer(IBodyProducer)
class _Body:
    """A body that is in memory, written at once."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: IConsumer) -> "defer.Deferred[None]":
        consumer.write(self._body)
        return defer.succeed(None)

    def pauseProducing(self) -> None:
        """There is nothing to pause."""

    def resumeProducing(self) -> None:
        """There is nothing to resume."""

    def stopProducing(self) -> None:
        """There is nothing to stop."""
