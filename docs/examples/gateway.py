"""A small API gateway that records every call: `python gateway.py --help`.

    client ─► key check ─► proxy ─► target        a call's record, in Apigee's vocabulary,
                 │           │                     is added to a buffer when the call is over,
                 └───────────┴─► record ─► buffer ─► collector ─► files, for each tenant and interval

Bodies are streamed both ways, and a slow reader slows the sender down. Connections to targets are kept. A call is
recorded whatever becomes of it: no key (401), an unknown one (403), no such API (404), a target that cannot be reached
(502) or does not go on (504), a client that hangs up (499). The collector's own resource is served on a port beside it,
for gateways elsewhere.

Keys are the client ids of the collector's registry: `axcollector scope add ORG ENV` makes the scope that the gateway is
started with, `axcollector key add SCOPE …` a key for it.
"""

import argparse
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from twisted.application.service import Service
from twisted.internet import defer, error, task
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.client import Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer, IResponse
from twisted.web.server import Site
from zope.interface import implementer

from axcollector.api import AnalyticsAPI, Collector, Config, RecordBuffer, Refusal

Record = dict[str, object]

OWN_HEADERS = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding"
    b" upgrade content-length expect host x-api-key".split()
)
"""What concerns one connection only; and the key, which is no business of the target."""

HUNG_UP = 499
"""The status of a call whose client was gone before the end of its answer, as other gateways have it."""


class Keys:
    """Whom the collector's registry knows."""

    def __init__(self, collector: Collector, scope: str) -> None:
        self._directory = collector.directory
        self._scope = scope

    async def ready(self, reactor: Any) -> None:
        """Return when keys can be checked: when the registry has been read."""
        while not self._directory.ready():
            await task.deferLater(reactor, 0.05)

    async def check(self, key: str) -> tuple[int, str] | None:
        """None: the key is good. Else the status and the text of the answer."""
        if not key:
            return 401, "send your key as X-API-Key"
        try:
            tenant = await self._directory.tenant_for_scope(self._scope)
            known = await self._directory.developers(tenant, [key])
        except Refusal as problem:
            return 503, str(problem)
        return None if key in known and known[key].api_product else (403, "this key is not known here")


class Gateway(Service):
    """Listens; has calls checked, passed on and recorded.

    Attributes:
        port: Where it listens; None while it does not.
        calls: Those under way.
    """

    def __init__(
        self,
        reactor: Any,
        listen: str,
        targets: Mapping[str, str],
        keys: Keys,
        record: Callable[[Record], object],
        patience_seconds: float = 30.0,
    ) -> None:
        """Touch nothing yet.

        Args:
            reactor: Provides time and TCP.
            listen: The endpoint to listen at.
            targets: What lies behind which path: `{"/weather": "http://127.0.0.1:8000/v1"}`.
            keys: Who may call.
            record: Given the record of each call, when it is over; it may not raise, and is not waited for.
            patience_seconds: A call that makes no progress for so long is given up.
        """
        self.reactor = reactor
        self.patience_seconds = patience_seconds
        self.keys = keys
        self.record = record
        self.port: Any = None
        self.calls: set[Call] = set()
        self._listen = listen
        self._targets = [(path.rstrip("/"), url.rstrip("/")) for path, url in targets.items()]
        self._pool = HTTPConnectionPool(reactor)
        self._pool.maxPersistentPerHost = 256
        self.agent = Agent(reactor, connectTimeout=5, pool=self._pool)

    async def start(self) -> None:
        """Listen; return when that is so."""
        self.running = True
        factory: Any = http.HTTPFactory(reactor=self.reactor)
        factory.log = lambda request: None  # each call becomes a record instead
        build = factory.buildProtocol

        def build_for_calls(address: object) -> object:
            channel = build(address)
            channel.requestFactory = lambda channel, _: Call(channel, self)
            return channel

        factory.buildProtocol = build_for_calls
        self.port = await serverFromString(self.reactor, self._listen).listen(factory)

    async def stop(self, grace_seconds: float = 5.0) -> None:
        """Listen no more; return when no call is under way. Those that take longer than the grace are broken off."""
        self.running = False
        await self.port.stopListening()
        late = self.reactor.callLater(grace_seconds, self._break_off)
        while self.calls:
            await next(iter(self.calls)).over()
        if late.active():
            late.cancel()
        await self._pool.closeCachedConnections()

    def _break_off(self) -> None:
        for call in set(self.calls):
            call.break_off(504)

    def target_of(self, path: str) -> tuple[str, str] | None:
        """The path that an API has here, and the URL that it has behind."""
        return max((each for each in self._targets if (path + "/").startswith(each[0] + "/")), default=None)


class Call(http.Request):
    """A call: from its head until it has been answered, or its client has gone; then it is recorded."""

    _log = Logger()

    def __init__(self, channel: http.HTTPChannel, gateway: Gateway) -> None:
        super().__init__(channel)
        self._gateway = gateway
        self._client: Any = channel.transport
        self._record: Record = {}
        self._body: Body | None = None
        self._body_whole: defer.Deferred[None] = defer.Deferred()
        self._asking: defer.Deferred[IResponse] | None = None
        self._given_up = self._is_over = False
        self._status: int | None = None
        self._last_time = 0
        self._waiting: list[defer.Deferred[None]] = []

    # Twisted makes a request known when its body is whole. A gateway begins before, as soon as it has the head.

    def gotLength(self, length: int | None) -> None:
        """The head is there: the call begins."""
        channel: Any = self.channel
        # Where Twisted keeps them until the body is whole.
        self.method, self.uri, self.clientproto = channel._command, channel._path, channel._version  # noqa: SLF001
        self.path = self.uri.partition(b"?")[0]
        self.note_time("client_received_start")
        self._gateway.calls.add(self)
        self.notifyFinish().addBoth(self._ended)
        self._late = self._gateway.reactor.callLater(self._gateway.patience_seconds, self._out_of_patience)
        if length != 0:
            self._body = Body(self, length, self._client)
        defer.ensureDeferred(self._serve()).addErrback(self._failed)

    def handleContentChunk(self, data: bytes) -> None:
        """More of the body is there."""
        self.progress()
        if self._body is not None:
            self._body.more(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """The body is whole."""
        self.note_time("client_received_end")
        if self._body is not None:
            self._body.end()
        self._body_whole.callback(None)

    # What a gateway does with it.

    async def _serve(self) -> None:
        key = (self.requestHeaders.getRawHeaders("x-api-key") or [""])[0]
        self._record |= self._head(key)
        problem = await self._gateway.keys.check(key)
        target = self._gateway.target_of(self.path.decode("latin-1"))
        if problem is None:
            problem = (404, "there is no API at this path") if target is None else await self._pass_on(*target)
        if problem is not None and not self._is_over:
            await self._refuse(*problem)

    def _head(self, key: str) -> Record:
        """What a record says of the client and its request."""
        return {
            "recordType": "APIAnalytics",
            "gateway_flow_id": str(uuid.uuid4()),
            "gateway_source": "twisted-gateway",
            "request_verb": self.method.decode("latin-1"),
            "request_path": self.path.decode("latin-1"),
            "request_uri": self.uri.decode("latin-1"),
            "useragent": (self.requestHeaders.getRawHeaders("user-agent") or [""])[0],
            "client_ip": self.client.host,
            **({"client_id": key} if key else {}),
        }

    async def _pass_on(self, path: str, url: str) -> tuple[int, str] | None:
        """Ask the target, and pass its answer on. Where there is none: what is to be answered instead."""
        self._record |= {"apiproxy": path.strip("/"), "target": url}
        self.note_time("target_sent_start")
        try:
            asked = url.encode() + self.uri[len(path) :]
            self._asking = self._gateway.agent.request(self.method, asked, self._passed_headers(), self._body)
            if self._body is None:
                self.note_time("target_sent_end")
            response = await self._asking
        except ValueError:
            return 400, "this path or method cannot be passed on"
        except Exception as problem:  # noqa: BLE001 - whatever it is, there is no answer
            late = self._given_up or isinstance(problem, error.TimeoutError)
            return (504, "the target does not answer") if late else (502, "the target cannot be reached")
        self.note_time("target_received_start")
        self._record["target_response_code"] = response.code
        await self._answer(response)
        return None

    def _passed_headers(self) -> Headers:
        named = b",".join(self.requestHeaders.getRawHeaders(b"connection", [])).lower().split(b",")
        own = OWN_HEADERS.union(each.strip() for each in named)
        sent = self.requestHeaders.getAllRawHeaders()
        headers = Headers({name: values for name, values in sent if name.lower() not in own})
        headers.addRawHeader(b"x-forwarded-for", self.client.host.encode())
        return headers

    async def _answer(self, response: IResponse) -> None:
        """Pass an answer on as it comes."""
        self.setResponseCode(response.code, response.phrase)
        for name, values in response.headers.getAllRawHeaders():
            if name.lower() not in OWN_HEADERS:
                self.responseHeaders.setRawHeaders(name, values)
        if response.length is not UNKNOWN_LENGTH and self.method != b"HEAD":
            self.responseHeaders.setRawHeaders(b"content-length", [b"%d" % response.length])
        self.note_time("client_sent_start")
        whole: defer.Deferred[None] = defer.Deferred()
        response.deliverBody(Answer(self, whole))
        await whole
        self.note_time("target_received_end")
        await self._finish()

    async def _refuse(self, status: int, text: str) -> None:
        """Answer without a target."""
        self.setResponseCode(status)
        self.responseHeaders.setRawHeaders(b"content-type", [b"text/plain; charset=utf-8"])
        self.responseHeaders.setRawHeaders(b"content-length", [b"%d" % (len(text) + 1)])
        self.note_time("client_sent_start")
        self.write(text.encode() + b"\n")
        await self._finish()

    async def _finish(self) -> None:
        """End the answer; not before the body has come, or its rest would be taken for the next request."""
        if self._body is not None:
            self._body.stopProducing()
        await self._body_whole
        if not self._is_over:
            self.finish()

    # How it ends, and what is told of it.

    def progress(self) -> None:
        """It goes on."""
        if self._late.active():
            self._late.reset(self._gateway.patience_seconds)

    def _out_of_patience(self) -> None:
        if self._given_up or self.startedWriting or self._asking is None:
            self.break_off(504)
            return
        self._given_up = True
        self._late = self._gateway.reactor.callLater(self._gateway.patience_seconds, self._out_of_patience)
        self._asking.cancel()

    def break_off(self, status: int) -> None:
        """End it without an answer, or in the midst of one."""
        if not self._is_over:
            self._status = status
            self._client.abortConnection()

    def _failed(self, failure: Failure) -> None:
        self._log.failure("a call failed", failure)
        self.break_off(500)

    def _ended(self, result: object) -> None:
        """It has been answered, or the connection was lost."""
        self._is_over = True
        self._late.cancel() if self._late.active() else None
        if isinstance(result, Failure):
            self._status = self._status or HUNG_UP
            if self._asking is not None:
                self._asking.cancel()
        self.note_time("client_sent_end")
        self._gateway.record({**self._record, "response_status_code": self._status or self.code})
        self._gateway.calls.discard(self)
        for waiter in self._waiting:
            waiter.callback(None)

    def over(self) -> "defer.Deferred[None]":
        """Fires when it is over."""
        self._waiting.append(defer.Deferred())
        return self._waiting[-1]

    def note_time(self, what: str) -> None:
        """It is now that this happens. A record's times never run backwards, even where the clock is set back."""
        self._last_time = max(self._last_time, int(self._gateway.reactor.seconds() * 1000))
        self._record[f"{what}_timestamp"] = self._last_time


class Answer(Protocol):
    """Passes the body of a target's answer on to the client, as fast as that reads."""

    def __init__(self, call: Call, whole: "defer.Deferred[None]") -> None:
        self._call = call
        self._whole = whole

    def connectionMade(self) -> None:
        """It begins."""
        self._call.registerProducer(self.transport, True)
        self._call.write(b"")  # the head, without waiting for more

    def dataReceived(self, data: bytes) -> None:
        """More is there."""
        self._call.progress()
        self._call.write(data)

    def connectionLost(self, reason: Failure = Failure(ResponseDone())) -> None:  # noqa: B008 - as Twisted has it
        """That was all; or the target went away in the midst of it, and then the client must see that too."""
        if self._call.channel is not None:
            self._call.unregisterProducer()
        if not reason.check(ResponseDone, http.PotentialDataLoss):
            self._call.break_off(502)
        self._whole.callback(None)


@implementer(IBodyProducer)
class Body:
    """The body of a client's request on its way to the target, as fast as that reads."""

    def __init__(self, call: Call, length: int | None, client: Any) -> None:
        self.length = UNKNOWN_LENGTH if length is None else length
        self._call = call
        self._client = client
        self._target: Any = None
        self._early: list[bytes] = []
        self._is_whole = self._is_unwanted = False
        self._sent: defer.Deferred[None] = defer.Deferred()

    def more(self, data: bytes) -> None:
        """The client has sent more. Before there is a connection to the target it is asked to wait."""
        if self._target is not None:
            self._target.write(data)
        elif not self._is_unwanted:
            self._early.append(data)
            self._client.pauseProducing()

    def end(self) -> None:
        """The client has sent all."""
        self._is_whole = True
        if self._target is not None:
            self._finish()

    def _finish(self) -> None:
        self._target = None
        self._call.note_time("target_sent_end")
        self._sent.callback(None)

    def startProducing(self, consumer: Any) -> "defer.Deferred[None]":
        """There is a connection to the target. Fires when it has been given everything."""
        self._target = consumer
        for data in self._early:
            consumer.write(data)
        self._early = []
        self._client.resumeProducing()
        if self._is_whole:
            self._finish()
        return self._sent

    def pauseProducing(self) -> None:
        """The target cannot take more for now."""
        self._client.pauseProducing()

    def resumeProducing(self) -> None:
        """It can again."""
        self._client.resumeProducing()

    def stopProducing(self) -> None:
        """Nobody wants the rest; it is read all the same, to find the end of it."""
        self._target, self._is_unwanted = None, True
        self._early = []
        self._client.resumeProducing()


async def start(
    reactor: Any, options: argparse.Namespace, record: Callable[[Record], object] | None = None
) -> Callable[[], "defer.Deferred[None]"]:
    """Start everything; returns what stops it, in order. With `record` records go there, and not to the buffer."""
    collector = Collector(reactor, Config(local_storage_path=options.directory, collection_interval=options.interval))
    buffer = RecordBuffer(reactor, collector)
    keys = Keys(collector, options.scope)
    targets = dict(each.split("=", 1) for each in options.target)
    record = record or partial(buffer.add, options.scope)
    gateway = Gateway(reactor, options.listen, targets, keys, record, options.patience)
    buffer.startService()  # which starts the collector, and stops it when it is stopped itself
    await keys.ready(reactor)
    await gateway.start()
    site = Site(AnalyticsAPI(collector).resource(), reactor=reactor)
    collecting = await serverFromString(reactor, options.collect).listen(site)
    print(f"calls are taken at {gateway.port.getHost()}, records at {collecting.getHost()}", flush=True)

    async def stop() -> None:
        await gateway.stop()
        await collecting.stopListening()
        await buffer.stopService()

    return lambda: defer.ensureDeferred(stop())


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("target", nargs="+", metavar="PATH=URL", help="an API: /weather=http://127.0.0.1:8000/v1")
    add("--scope", required=True, help="of the records; as `axcollector scope add` printed it")
    add("--directory", default="axcollector-data", help="the collector's; its registry.db knows the keys")
    add("--listen", default="tcp:8080:interface=127.0.0.1", help="where calls are taken")
    add("--collect", default="tcp:9000:interface=127.0.0.1", help="where other gateways send their records")
    add("--interval", type=int, default=120, help="the collector's collection_interval, in seconds")
    add("--patience", type=float, default=30.0, help="a call without progress for so many seconds is given up")
    return parser.parse_args(arguments)


def main() -> None:
    """Run it until it is interrupted."""
    from twisted.internet import reactor

    options = options_of()
    running: Any = reactor
    started = defer.ensureDeferred(start(running, options))
    started.addCallback(lambda stop: running.addSystemEventTrigger("before", "shutdown", stop))
    started.addErrback(lambda failure: (print(failure.getErrorMessage()), running.stop()))
    running.run()


if __name__ == "__main__":
    main()
