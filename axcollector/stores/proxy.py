"""Requests through a forward proxy (`upload_proxy`).

For an http URL the proxy is sent the request itself, with the whole URL in its first line (RFC 9112, 3.2.2). For an
https URL it is asked for a tunnel to the host (`CONNECT`, RFC 9110, 9.3.6), and TLS is spoken with the host through it:
the proxy sees the host's name and nothing else, and the certificate that is verified is the host's.

A user name and a password in the proxy's URL are sent to the proxy, as Basic credentials, and never to a host. Neither
appears in a message.

Whatever goes wrong before there is a tunnel is a `ProxyFailed`, which is a `ConnectError`: the host cannot be reached.
"""

import base64
import re
from dataclasses import dataclass, field
from typing import Final, cast
from urllib.parse import unquote, urlsplit

from twisted.internet import defer, error, interfaces, protocol
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool, ProxyAgent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

_PORTS: Final = {"http": 80, "https": 443}
_MAX_ANSWER_BYTES: Final = 1 << 14
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])[ \r]")


class ProxyFailed(error.ConnectError):
    """The proxy cannot be reached, or gives no tunnel."""

    def __init__(self, reason: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # untyped in Twisted
        self._reason = reason

    def __str__(self) -> str:
        return self._reason


@dataclass(frozen=True, slots=True)
class Proxy:
    """A forward proxy.

    Attributes:
        host: Its host's name or address.
        port: Its port.
        is_secure: Whether TLS is spoken with it.
        authorization: The value of `Proxy-Authorization`, or None for none.
    """

    host: str
    port: int
    is_secure: bool = False
    authorization: str | None = field(default=None, repr=False)

    @classmethod
    def from_url(cls, url: str) -> "Proxy":
        """The proxy that a valid `http://[USER:PASSWORD@]HOST[:PORT]` names."""
        parts = urlsplit(url)
        authorization = None
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = f"Basic {base64.b64encode(login.encode()).decode()}"
        port = _PORTS[parts.scheme] if parts.port is None else parts.port
        return cls(parts.hostname or "", port, parts.scheme == "https", authorization)

    def __str__(self) -> str:
        return f"the proxy {self.host}:{self.port}"


@implementer(IAgent)
class ProxiedAgent:
    """Sends requests through a proxy."""

    def __init__(
        self,
        reactor: interfaces.IReactorTime,
        proxy: Proxy,
        pool: HTTPConnectionPool,
        policy: IPolicyForHTTPS,
        timeout_seconds: float,
    ) -> None:
        """Prepare.

        Args:
            reactor: The reactor, with TCP and TLS.
            proxy: Through whom.
            pool: The connections that are kept, to the proxy and through it.
            policy: How certificates are verified.
            timeout_seconds: How long connecting to the proxy may take, and as long again its answer to a `CONNECT`.
        """
        self._proxy = proxy
        tunnels = _Tunnels(reactor, proxy, policy, timeout_seconds)
        self._plain = ProxyAgent(tunnels.to_proxy, reactor, pool)
        self._tunnelled = Agent.usingEndpointFactory(reactor, tunnels, pool)

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,  # noqa: N803 - Twisted's name
    ) -> "defer.Deferred[IResponse]":
        """Send a request; see `IAgent`."""
        agent, sent = self._tunnelled, headers or Headers()
        if not uri.lower().startswith(b"https:"):
            agent, sent = self._plain, sent.copy()
            if self._proxy.authorization is not None:
                sent.setRawHeaders("Proxy-Authorization", [self._proxy.authorization])
        answer: defer.Deferred[IResponse] = agent.request(method, uri, sent, bodyProducer)
        return answer


@implementer(IAgentEndpointFactory)
class _Tunnels:
    """Where the connections for https URLs come from.

    Attributes:
        to_proxy: The proxy.
    """

    def __init__(
        self, reactor: interfaces.IReactorTime, proxy: Proxy, policy: IPolicyForHTTPS, timeout_seconds: float
    ) -> None:
        endpoint: interfaces.IStreamClientEndpoint = HostnameEndpoint(
            reactor, proxy.host, proxy.port, timeout=timeout_seconds
        )
        if proxy.is_secure:
            endpoint = wrapClientTLS(policy.creatorForNetloc(proxy.host.encode(), proxy.port), endpoint)
        self.to_proxy = _ToProxy(proxy, endpoint)
        self._clock = reactor
        self._proxy = proxy
        self._policy = policy
        self._timeout = timeout_seconds

    def endpointForURI(self, uri: URI) -> interfaces.IStreamClientEndpoint:
        """A host, by TLS through the proxy."""
        host = b"[%b]" % uri.host if b":" in uri.host else uri.host
        tunnel = _ThroughProxy(self._clock, self._proxy, self.to_proxy, b"%b:%d" % (host, uri.port), self._timeout)
        return wrapClientTLS(self._policy.creatorForNetloc(uri.host, uri.port), tunnel)


@implementer(interfaces.IStreamClientEndpoint)
class _ToProxy:
    """The proxy itself, whose failures tell that it is the proxy that failed."""

    def __init__(self, proxy: Proxy, endpoint: interfaces.IStreamClientEndpoint) -> None:
        self._proxy = proxy
        self._endpoint = endpoint

    def connect(self, factory: interfaces.IProtocolFactory) -> "defer.Deferred[interfaces.IProtocol]":
        """Connect to the proxy."""
        return self._endpoint.connect(factory).addErrback(self._failed)

    def _failed(self, failure: Failure) -> Failure:
        if not failure.check(error.ConnectError, error.DNSLookupError):
            return failure
        return Failure(ProxyFailed(f"{self._proxy}: {failure.getErrorMessage()}"))


@implementer(interfaces.IStreamClientEndpoint)
class _ThroughProxy:
    """A host behind the proxy."""

    def __init__(
        self, clock: interfaces.IReactorTime, proxy: Proxy, to_proxy: _ToProxy, target: bytes, timeout_seconds: float
    ) -> None:
        self._clock = clock
        self._proxy = proxy
        self._to_proxy = to_proxy
        self._target = target
        self._timeout = timeout_seconds

    def connect(self, factory: interfaces.IProtocolFactory) -> "defer.Deferred[interfaces.IProtocol]":
        """Connect to the host."""
        return defer.Deferred.fromCoroutine(self._connect(factory))

    async def _connect(self, factory: interfaces.IProtocolFactory) -> interfaces.IProtocol:
        def build() -> _Tunnel:
            return _Tunnel(self._proxy, self._target, factory)

        tunnel = await self._to_proxy.connect(protocol.Factory.forProtocol(build))
        assert isinstance(tunnel, _Tunnel)
        late = self._clock.callLater(self._timeout, tunnel.fail, f"it did not answer within {self._timeout:g} s")
        try:
            return await tunnel.opened
        finally:
            if late.active():
                late.cancel()


class _Tunnel(protocol.Protocol):
    """A connection to the proxy that becomes one to the host.

    Attributes:
        opened: Fires with the protocol that the factory made, once it is connected to the host; fails with
            `ProxyFailed`. Cancelling closes the connection.
    """

    def __init__(self, proxy: Proxy, target: bytes, factory: interfaces.IProtocolFactory) -> None:
        self._proxy = proxy
        self._target = target
        self._to_host = factory
        self._answer = b""
        self._inner: interfaces.IProtocol | None = None
        self.opened: defer.Deferred[interfaces.IProtocol] = defer.Deferred(lambda _: self._abort())

    def connectionMade(self) -> None:
        lines = [b"CONNECT %b HTTP/1.1" % self._target, b"Host: %b" % self._target]
        if self._proxy.authorization is not None:
            lines.append(b"Proxy-Authorization: %b" % self._proxy.authorization.encode())
        assert self.transport is not None
        self.transport.write(b"\r\n".join([*lines, b"", b""]))

    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        self._answer += data
        head, end, rest = self._answer.partition(b"\r\n\r\n")
        if end:
            self._answered(head, rest)
        elif len(self._answer) > _MAX_ANSWER_BYTES:
            self.fail("its answer is no HTTP")

    def _answered(self, head: bytes, rest: bytes) -> None:
        match = _STATUS.match(head + b"\r")
        if match is None:
            self.fail("its answer is no HTTP")
        elif match[1][:1] != b"2":
            hint = "; the user name and password in its URL are wrong or missing" if match[1] == b"407" else ""
            self.fail(f"it answered {match[1].decode()}{hint}")
        elif not self.opened.called and self.transport is not None:
            self._open(self._to_host.buildProtocol(self.transport.getPeer()), rest)

    def _open(self, inner: interfaces.IProtocol | None, rest: bytes) -> None:
        assert inner is not None
        assert self.transport is not None
        self._answer = b""
        self._inner = inner
        inner.makeConnection(self.transport)
        self.opened.callback(inner)
        if rest:
            inner.dataReceived(rest)

    def fail(self, reason: str) -> None:
        """There is no tunnel, and will be none."""
        if not self.opened.called:
            self.opened.errback(ProxyFailed(f"{self._proxy} opens no tunnel: {reason}"))
            self._abort()

    def _abort(self) -> None:
        if self.transport is not None:
            cast("interfaces.ITCPTransport", self.transport).abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._inner is not None:
            self._inner.connectionLost(reason)
        else:
            self.fail("it closed the connection")
