"""A forward proxy, for tests: opens tunnels to this machine whatever the host's name, and passes http requests on."""

from typing import Any

from treq.client import HTTPClient
from twisted.internet import defer, protocol
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http import HTTPFactory, Request


class TunnelProxy(protocol.Factory):
    """Takes `CONNECT` only.

    Attributes:
        heads: The requests' heads, in order.
        answer: What is answered in place of opening a tunnel, if anything; empty: nothing, for ever.
        then_close: Whether the connection is closed after that answer.
        bytes_in: How many bytes went to hosts.
        open: The connections that are open.
    """

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.heads: list[bytes] = []
        self.answer: bytes | None = None
        self.then_close = False
        self.bytes_in = 0
        self.open: set[_FromClient] = set()

    def buildProtocol(self, addr: object) -> protocol.Protocol:
        return _FromClient(self)


class _FromClient(protocol.Protocol):
    def __init__(self, proxy: TunnelProxy) -> None:
        self.proxy = proxy
        self.head = b""
        self.host: _ToHost | None = None

    def connectionMade(self) -> None:
        self.proxy.open.add(self)

    def dataReceived(self, data: bytes) -> None:
        if self.host is not None:
            self.proxy.bytes_in += len(data)
            self.host.transport.write(data)
            return
        self.head += data
        if not self.head.endswith(b"\r\n\r\n"):
            return
        self.proxy.heads.append(self.head)
        if self.proxy.answer is not None:
            self.transport.write(self.proxy.answer)
            if self.proxy.then_close:
                self.transport.loseConnection()
            return
        port = int(self.head.split()[1].rpartition(b":")[2])
        creator = protocol.ClientCreator(self.proxy.reactor, _ToHost, self)
        creator.connectTCP("127.0.0.1", port).addCallbacks(self._opened, lambda _: self.transport.loseConnection())

    def _opened(self, host: "_ToHost") -> None:
        self.host = host
        host.transport.registerProducer(self.transport, True)
        self.transport.registerProducer(host.transport, True)
        self.transport.write(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")

    def connectionLost(self, reason: object = None) -> None:
        self.proxy.open.discard(self)
        if self.host is not None:
            self.host.transport.loseConnection()


class _ToHost(protocol.Protocol):
    def __init__(self, client: _FromClient) -> None:
        self.client = client

    def dataReceived(self, data: bytes) -> None:
        self.client.transport.write(data)

    def connectionLost(self, reason: object = None) -> None:
        self.client.transport.loseConnection()


class PlainProxy(HTTPFactory):
    """Passes http requests on; each is checked for the credentials that it wants.

    Attributes:
        authorization: The value of `Proxy-Authorization` that it wants, or None.
        seen: The URLs that it was asked for.
    """

    def __init__(self, reactor: Any, authorization: str | None = None) -> None:
        super().__init__(reactor=reactor)
        self.authorization = authorization
        self.seen: list[bytes] = []

    def buildProtocol(self, addr: object) -> Any:
        channel = super().buildProtocol(addr)
        channel.requestFactory = lambda *arguments: _PassedOn(self, *arguments)
        return channel


class _PassedOn(Request):
    def __init__(self, proxy: PlainProxy, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.proxy = proxy

    def process(self) -> None:
        self.proxy.seen.append(self.uri)
        if self.getHeader("proxy-authorization") != self.proxy.authorization:
            self.setResponseCode(407)
            self.finish()
        else:
            defer.ensureDeferred(self._pass_on()).addErrback(self._fail)

    def _fail(self, _: object) -> None:
        if not self._disconnected:
            self.setResponseCode(502)
            self.finish()

    async def _pass_on(self) -> None:
        headers = self.requestHeaders.copy()
        for name in (b"proxy-authorization", b"content-length", b"connection"):
            headers.removeHeader(name)
        client = HTTPClient(Agent(self.proxy.reactor, pool=HTTPConnectionPool(self.proxy.reactor, persistent=False)))
        answer = await client.request(
            self.method.decode(), self.uri, headers=headers, data=self.content.read(), reactor=self.proxy.reactor
        )
        self.setResponseCode(answer.code)
        self.write(await answer.content())
        self.finish()
