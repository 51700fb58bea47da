"""A signing service and an object store in one, for tests; it misbehaves on command.

`GET /analytics?…` answers a URL below `/objects/`; `PUT` to that URL keeps the bytes. URLs carry a signature that is
good for one key until `expire` is called. `RawServer` is for what a decent HTTP server would not do.
"""

import json
from collections import deque
from collections.abc import Callable
from urllib.parse import quote, unquote

from twisted.internet import defer, protocol
from twisted.internet.interfaces import IListeningPort
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

Misbehaviour = Callable[[Request], bytes | int]


def answer(status: int, body: bytes = b"", **headers: str) -> Misbehaviour:
    """Answer this, whatever is asked; headers are written with `_` for `-`."""

    def answering(request: Request) -> bytes:
        request.setResponseCode(status)
        for name, value in headers.items():
            request.setHeader(name.replace("_", "-"), value)
        return body

    return answering


def never(request: Request) -> int:
    """Never answer."""
    return NOT_DONE_YET


class SigningServer:
    """The signer and the store.

    Attributes:
        objects: What was put: (tenant as asked for, key) to bytes.
        asked: The query of each request to the signer, each argument decoded once.
        headers: The headers of each PUT.
        token: The bearer token that the signer wants.
        signed_headers: What the URLs say was signed.
        next_signs: What becomes of the next requests to the signer; once empty, they are served.
        next_puts: Likewise, of the next PUTs.
        store_base: Where signed URLs point, if not to this server.
        store_of: The same for single tenants.
    """

    def __init__(self, token: str = "secret-token") -> None:
        self.objects: dict[tuple[str, str], bytes] = {}
        self.asked: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.token = token
        self.signed_headers = "host"
        self.next_signs: deque[Misbehaviour] = deque()
        self.next_puts: deque[Misbehaviour] = deque()
        self.store_base: str | None = None
        self.store_of: dict[str, str] = {}
        self._serial = 0
        self._valid_from = 0
        self.resource = Resource()
        self.resource.putChild(b"analytics", _Page(self._sign))
        self.resource.putChild(b"objects", _Page(self._put))

    def site(self) -> Site:
        """To listen with."""
        return Site(self.resource)

    def expire(self) -> None:
        """Let all URLs signed so far be expired."""
        self._valid_from = self._serial + 1

    def _sign(self, request: Request) -> bytes | int:
        if self.next_signs:
            return self.next_signs.popleft()(request)
        if request.getHeader("authorization") != f"Bearer {self.token}":
            return answer(401)(request)
        query = {name.decode(): values[0].decode() for name, values in request.args.items()}
        self.asked.append(query)
        self._serial += 1
        base = self.store_of.get(query["tenant"]) or self.store_base or f"http://{request.getHeader('host')}"
        place = f"{quote(query['tenant'], safe='')}/{quote(query['relative_file_path'])}"
        signature = f"X-Amz-SignedHeaders={quote(self.signed_headers)}&X-Amz-Signature=confidential-{self._serial}"
        return json.dumps({"url": f"{base}/objects/{place}?{signature}"}).encode()

    def _put(self, request: Request) -> bytes | int:
        if self.next_puts:
            return self.next_puts.popleft()(request)
        self.headers.append({k.decode().lower(): v[0].decode() for k, v in request.requestHeaders.getAllRawHeaders()})
        serial = int(request.args[b"X-Amz-Signature"][0].rpartition(b"-")[2])
        is_encrypted = request.getHeader("x-amz-server-side-encryption") == "AES256"
        if serial < self._valid_from or is_encrypted != ("x-amz-server-side-encryption" in self.signed_headers):
            return answer(403, b"<Code>AccessDenied</Code>")(request)
        tenant, _, key = request.path.decode().removeprefix("/objects/").partition("/")
        self.objects[unquote(tenant), unquote(key)] = request.content.read()
        return b""


class _Page(Resource):
    isLeaf = True  # noqa: N815 - as Twisted names it

    def __init__(self, render: Misbehaviour) -> None:
        super().__init__()
        self.render = render


class RawServer(protocol.Factory):
    """Answers the first request on each connection with the same bytes, and then reads no more, or closes.

    Attributes:
        connections: The connections that are open.
        accepted: How many there have been.
    """

    def __init__(self, answer: bytes, *, then_close: bool = False, after_bytes: int = 0, greeting: bytes = b"") -> None:
        """Prepare.

        Args:
            answer: What it says.
            then_close: Whether it then closes the connection.
            after_bytes: How much of a body it reads before that.
            greeting: What it says before it is asked.
        """
        self.answer = answer
        self.then_close = then_close
        self.after_bytes = after_bytes
        self.greeting = greeting
        self.connections: list[RawConnection] = []
        self.accepted = 0

    async def close(self) -> None:
        """Cut what is open."""
        for connection in list(self.connections):
            connection.transport.abortConnection()
            await connection.lost

    def buildProtocol(self, addr: object) -> protocol.Protocol:
        self.accepted += 1
        connection = RawConnection()
        connection.factory = self
        return connection


class RawConnection(protocol.Protocol):
    """One connection; `resumeProducing` of its transport lets it notice how it ends, which `lost` tells."""

    factory: RawServer

    def connectionMade(self) -> None:
        self.received = b""
        self.has_answered = False
        self.lost: defer.Deferred[None] = defer.Deferred()
        self.factory.connections.append(self)
        self.transport.write(self.factory.greeting)

    def dataReceived(self, data: bytes) -> None:
        if self.has_answered:
            return
        self.received += data
        _, end, body = self.received.partition(b"\r\n\r\n")
        if end and len(body) >= self.factory.after_bytes:
            self.has_answered = True
            self.transport.pauseProducing()
            self.transport.write(self.factory.answer)
            if self.factory.then_close:
                self.transport.loseConnection()

    def connectionLost(self, reason: object = None) -> None:
        self.factory.connections.remove(self)
        self.lost.callback(None)


def url_of(port: IListeningPort) -> str:
    """Where a listening port is reached."""
    return f"http://127.0.0.1:{port.getHost().port}"
