"""A client of remote collectors, in the shape of a collector: `submit(scope, records)`, and the same exceptions.

    submit ─► one of the collectors ─► accepted
                 └─ it fails: the next one; all of them rest: wait, up to `retry_seconds`

*Retries.* A collector that cannot be reached, gives no proper answer or has no room rests (`fleet`), and another is
asked at once. With one, or where all rest, requests wait: with full jitter, ever longer, or as `Retry-After` asks. What
is final (`Rejected`) is raised at once, and so is `RateLimited` where the pause it asks for is too long.

*At least once.* A collector answers a batch as a whole, so none is kept in part. But where the answer is lost, the
batch may have been taken, and is sent again: those records are there twice then. Nobody who does without such copies
can do without losses.

*Connections* are kept and used again, TLS is verified, and a request that does not get on in time is cut.
"""

import os
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet import defer
from twisted.web.http_headers import Headers
from twisted.web.iweb import IPolicyForHTTPS

from axcollector import __version__
from axcollector.client_requests import Direct, Request, checked_urls, path_of, trusting
from axcollector.client_spool import ClientSpool
from axcollector.core import remote
from axcollector.core.bounds import Spooled
from axcollector.core.errors import (
    NotReady,
    Paused,
    RateLimited,
    Refusal,
    Rejected,
    Unreachable,
    UploadFailed,
)
from axcollector.core.recordtext import Record, texts_of
from axcollector.core.retry import Backoff, parse_date, parse_retry_after
from axcollector.disk import Disk
from axcollector.fleet import Fleet
from axcollector.on_stop import Once
from axcollector.services import Rest, WorkThread
from axcollector.stores.limits import Patience
from axcollector.stores.transfer import Question, Transfer

BACKOFF: Final = Backoff(first_seconds=1.0, ceiling_seconds=30.0, floor_seconds=0.1)
STOP_SECONDS: Final = 5.0
"""So long a stop waits for requests under way."""
_INLINE_BYTES: Final = 1 << 19
"""A larger body is packed in a thread: it would keep the reactor for more than a few milliseconds."""


class Client(Service):
    """Sends records to remote collectors; a service, whose stop ends what is under way."""

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401 - time, threads, TCP and TLS, as every reactor has them
        urls: str | Sequence[str],
        *,
        token: str | Callable[[], str | None] | None = None,
        base_path: str = "/analytics",
        timeout_seconds: float = 30.0,
        retry_seconds: float = 30.0,
        connections: int = 16,
        ca_file: str | None = None,
        policy: IPolicyForHTTPS | None = None,
        gzip: bool = True,
        spool_directory: str | None = None,
        spool_bytes: int = 1 << 30,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Touch nothing yet.

        Args:
            reactor: Provides time, TCP, TLS and threads.
            urls: Where a collector listens, as `https://HOST:PORT`, or several of a fleet.
            token: A bearer token, or what gives the one to use for the next request.
            base_path: The collectors' `base_path`.
            timeout_seconds: No request takes longer.
            retry_seconds: A batch is tried for so long before `submit` fails; 0: with each collector once.
            connections: So many are kept open to each collector.
            ca_file: A PEM file of the authorities that are trusted, in place of the system's.
            policy: How certificates are verified, in place of that; for client certificates, say.
            gzip: Whether bodies are packed.
            spool_directory: Where records that no collector takes now are made durable, to be sent later; None:
                nowhere. It is made where it is missing, and this client's alone.
            spool_bytes: So many bytes, packed, may lie there.
            chance: Gives numbers in [0, 1), for the jitter of retries.

        Raises:
            ConfigError: A URL cannot be used, or there is none.
        """
        self._urls = checked_urls([urls] if isinstance(urls, str) else urls)
        self._reactor = reactor
        self._token = token
        self._base_path = "/" + base_path.strip("/") if base_path.strip("/") else ""
        self._patience = Patience(timeout_seconds, timeout_seconds)
        self._retry_seconds = retry_seconds
        self._connections = connections
        self._ca_file = ca_file
        self._policy = policy
        self._gzip = gzip
        self._fleet = Fleet(reactor, self._urls, BACKOFF, chance)
        self._thread = WorkThread(reactor, "client")
        self._transfer: Transfer | None = None
        self._under_way: set[defer.Deferred[int]] = set()
        self._rests: dict[Rest, None] = {}
        self._idle: defer.Deferred[None] | None = None
        self._stop = Once(self._stop_all)
        self._spool: ClientSpool | None = None
        if spool_directory is not None:
            directory = os.path.abspath(spool_directory)
            self._spool = ClientSpool(reactor, directory, spool_bytes, Direct(self._send), chance)

    def startService(self) -> None:
        """Read the file of authorities, if there is one; connect to nobody yet.

        Raises:
            ConfigError: The file cannot be used.
        """
        self._transfer = Transfer.over_network(
            self._reactor,
            Disk(),
            idle_seconds=self._patience.idle_seconds,
            connections=self._connections,
            policy=self._policy if self._ca_file is None else trusting(self._ca_file),
        )
        if self._spool is not None:
            self._spool.startService()
        self._thread.startService()
        self.running = True

    @property
    def spooled(self) -> Spooled | None:
        """What lies in the spool, and what has become of what lay there; None: there is none."""
        return None if self._spool is None else self._spool.state

    def hurry(self) -> None:
        """Wait no longer for answers of collectors where there is a spool: what was sent to them goes there, too."""
        if self._spool is not None:
            self._spool.hurry()

    def submit(self, scope: str, records: Sequence[Record]) -> "defer.Deferred[int]":
        """Send records of the tenant of `scope`, as one batch: each a dict, or the JSON text of one as bytes.

        Fires with how many were accepted, once they are durable with a collector, or how many are in the spool. Fails
        with what a collector's own `submit` fails with (`Rejected`, `NotReady`, `LookupFailed`, `Overloaded`,
        `SpoolFailed`), with `RateLimited`, or with `Unreachable` where none gives a proper answer; only then some
        collector may have them. Cancelling breaks it off; they may have been taken.
        """
        submitting = defer.Deferred.fromCoroutine(self._submit(scope, records))
        result: defer.Deferred[int] = defer.Deferred(lambda _: submitting.cancel())
        self._under_way.add(submitting)
        submitting.addBoth(self._settle, submitting, result)
        return result

    def _settle(
        self,
        outcome: Any,  # noqa: ANN401 - a number, or a Failure
        submitting: "defer.Deferred[int]",
        result: "defer.Deferred[int]",
    ) -> None:
        self._under_way.discard(submitting)
        if self._idle is not None and not self._under_way:
            self._idle.callback(None)
        if not result.called:  # who cancelled has been told already, and breaking off may take a moment
            result.callback(outcome)

    async def _submit(self, scope: str, records: Sequence[Record]) -> int:
        if not self.running:
            raise NotReady
        texts = texts_of(records)
        if self._spool is not None and texts:
            return await self._spool.submit(scope, texts)
        return await self._send(scope, texts, self._retry_seconds)

    async def _send(self, scope: str, texts: Sequence[bytes], patience_seconds: float) -> int:
        """As `submit`, for so long, and whatever lies in the spool."""
        return await self._ask_all(await self._request(scope, texts), patience_seconds)

    async def _request(self, scope: str, texts: Sequence[bytes]) -> Request:
        path = path_of(self._base_path, scope)
        if not texts:
            raise Rejected("NO_RECORDS", "No analytics records in the payload")
        if sum(map(len, texts)) <= _INLINE_BYTES:
            return Request.of(path, texts, gzip=self._gzip)
        return await self._thread.run(partial(Request.of, path, texts, gzip=self._gzip))

    async def _ask_all(self, request: Request, patience_seconds: float) -> int:
        """Ask one after the other, until one has taken it.

        Raises:
            Refusal: None has, for so long.
        """
        deadline = self._reactor.seconds() + patience_seconds
        tries = 0
        while True:
            is_late = self._reactor.seconds() >= deadline or not self.running
            ticket = object()
            url = None if is_late and tries >= len(self._urls) else self._fleet.begin(ticket)
            if url is None:
                if is_late:
                    raise self._fleet.trouble().with_traceback(None)
                await self._fleet.room(deadline - self._reactor.seconds())
                continue
            tries += 1
            try:
                return await self._ask(url, request, ticket)
            except Rejected:
                raise
            except RateLimited as exc:
                await self._wait(exc, deadline)
            except Refusal as exc:
                self._fleet.failed(ticket, url, exc)
            finally:
                self._fleet.end(ticket)

    async def _wait(self, exc: RateLimited, deadline: float) -> None:
        """Wait for as long as a collector wants a scope to, if that is not too long."""
        if self._reactor.seconds() + exc.retry_after > deadline:
            raise exc
        rest = Rest(self._reactor)
        self._rests[rest] = None
        try:
            await rest.take(exc.retry_after)
        finally:
            del self._rests[rest]
        if not self.running:
            raise exc

    async def _ask(self, url: str, request: Request, ticket: object) -> int:
        assert self._transfer is not None
        question = Question(url, "POST", url + request.path, self._headers(request), asks_for_pauses=False)
        try:
            answer = await self._transfer.ask(question, self._patience, request.body)
        except Paused as exc:
            raise Unreachable(exc.args[0]) from None
        except UploadFailed as exc:
            raise Unreachable(str(exc)) from None
        if answer.status == 200:
            accepted = remote.accepted_in(answer.body, url)
            self._fleet.succeeded(ticket, url)
            return accepted
        now = parse_date(answer.header("Date")) or self._reactor.seconds()
        refusal = remote.refusal_of(
            answer.status, answer.body, parse_retry_after(answer.header("Retry-After"), now), url
        )
        if isinstance(refusal, Rejected | RateLimited):
            self._fleet.succeeded(ticket, url)
        raise refusal

    def _headers(self, request: Request) -> Headers:
        headers: Mapping[str, str] = {
            "Content-Type": "application/json",
            "User-Agent": f"axcollector/{__version__}",
            **({"Content-Encoding": "gzip"} if request.is_packed else {}),
        }
        token = self._token() if callable(self._token) else self._token
        if token:
            headers = {**headers, "Authorization": f"Bearer {token}"}
        return Headers({name: [value] for name, value in headers.items()})

    def stopService(self) -> "defer.Deferred[None]":
        """Wait for no other try any more, and for the requests under way, but not long; then close the connections.

        Fires when that is done. Submits that have not been taken by then fail; with a spool they are in it.
        """
        self.running = False
        return self._stop.run()

    async def _stop_all(self) -> None:
        self._fleet.wake()
        for rest in list(self._rests):
            rest.end()
        due = ((STOP_SECONDS / 2, self.hurry), (STOP_SECONDS, self._break_off))
        late = [self._reactor.callLater(*each) for each in due]
        if self._under_way:
            self._idle = defer.Deferred()
            await self._idle
            self._idle = None
        for each in late:
            if each.active():
                each.cancel()
        if self._spool is not None and self._spool.running:
            await self._spool.stopService()
        if self._transfer is not None:
            await self._transfer.close()
            self._transfer = None
            await self._thread.stopService()

    def _break_off(self) -> None:
        for submitting in list(self._under_way):
            submitting.cancel()
