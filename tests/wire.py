"""A client's side of HTTP connections in memory: bytes in, answers out."""

from dataclasses import dataclass

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IProtocolFactory
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes


def answers_in(data: bytes, *, heads_only: bool = False) -> list[Answer]:
    """The answers that these bytes are; each has a Content-Length, and nothing is left over."""
    found = []
    while data:
        head, separator, data = data.partition(b"\r\n\r\n")
        assert separator, f"a cut head: {head!r}"
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status = first.split(" ")[:2]
        assert version in {"HTTP/1.1", "HTTP/1.0"}
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        assert len(lines) == len(headers), f"a repeated header: {lines!r}"
        length = 0 if status == "100" or heads_only else int(headers["content-length"])
        assert length <= len(data), f"a cut body: {data!r}"
        found.append(Answer(int(status), headers, data[:length]))
        data = data[length:]
    return found


def request(
    method: str = "POST",
    target: str | bytes = "/",
    body: bytes = b"",
    headers: tuple[tuple[str, str | bytes], ...] = (),
    *,
    version: str = "1.1",
    chunks: int = 0,
) -> bytes:
    """The bytes of a request; with a `Content-Length`, or in chunks of so many bytes."""
    lines = [b" ".join([method.encode(), _bytes(target), b"HTTP/" + version.encode()])]
    lines += [name.encode() + b": " + _bytes(value) for name, value in headers]
    if chunks:
        lines.append(b"Transfer-Encoding: chunked")
        body = chunked(body, chunks)
    else:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", body])


def chunk(data: bytes) -> bytes:
    """One chunk of the chunked transfer coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def chunked(body: bytes, size: int) -> bytes:
    """A body in the chunked transfer coding."""
    pieces = [chunk(body[start : start + size]) for start in range(0, len(body), size)]
    return b"".join([*pieces, chunk(b"")])


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


class Connection:
    """A connection to a factory of protocols, which it reaches at an address."""

    def __init__(self, factory: IProtocolFactory, address: IAddress | None = None) -> None:
        self.transport = StringTransport(address)
        self.protocol = factory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)
        self.open = True

    def send(self, data: bytes, piece: int = 0) -> None:
        """Send bytes, at once or in pieces, as a network would bring them: none after the connection is aborted."""
        for start in range(0, len(data), piece or len(data) or 1):
            if not self.transport.disconnected:
                self.protocol.dataReceived(data[start : start + (piece or len(data))])

    def answers(self, *, heads_only: bool = False) -> list[Answer]:
        """The answers since the last call."""
        data = self.transport.value()
        self.transport.clear()
        return answers_in(data, heads_only=heads_only)

    @property
    def closing(self) -> bool:
        """Whether the server closes the connection."""
        return bool(self.transport.disconnecting)

    @property
    def aborted(self) -> bool:
        """Whether the server did so without waiting for anything."""
        return bool(self.transport.disconnected)

    def hang_up(self) -> None:
        """Close it, or see it closed."""
        if self.open:
            self.open = False
            self.protocol.connectionLost(Failure(ConnectionDone()))
