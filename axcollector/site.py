"""Our Site: limits that hold while a request is still being received.

The limits are in modules of their own, which know no parser: `heads`, `reception`, `conversation`, `connections`; in
`llhttp_channel` and `twisted_channel` a parser is held to them. What was found is left on the request as `reception`,
for the resource to say it at the right place among its own checks. A resource that is mounted in another program's Site
finds no `reception`; there only its own checks apply.
"""

# mypy: allow-untyped-calls
# (What Twisted's own classes leave without types; mypy's list of exceptions does not reach calls by `super`.)

from collections.abc import Mapping
from typing import Final

from twisted.internet import task
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.web.http import datetimeToString
from twisted.web.resource import IResource
from twisted.web.server import Site, version

from axcollector import answers
from axcollector.answers import CONTENT_TYPE, Answer
from axcollector.channel import BoundedChannel, IngestRequest
from axcollector.connections import Connections, host_of
from axcollector.conversation import IDLE_SECONDS
from axcollector.core.tally import Tally
from axcollector.door import Door
from axcollector.llhttp_channel import LlhttpChannel
from axcollector.reception import Pending
from axcollector.twisted_channel import TwistedChannel

_CHANNELS: Final[Mapping[str, type[BoundedChannel]]] = {"llhttp": LlhttpChannel, "twisted": TwistedChannel}

_MOST_USUAL_ANSWERS: Final = 256
_DRAIN_TURN_SECONDS: Final = 0.01
_DRAIN_TURNS: Final = 100


class IngestSite(Site):
    """A Site that limits what it receives.

    Attributes:
        max_body_bytes: How large a body may be, as sent.
        request_timeout_seconds: How long a request may take to come, whole.
        pending: The bodies held by all connections.
        connections: How many there are, and may be.
        channels: The connections.
        door: What a connection may ask in place of the resource, where its parser can.
        tally: Counts what connections answer in place of the resource.
        is_draining: Whether connections are closed behind their next answers, which say so.
        large_readers: From how many connections more is read at once than from others.
    """

    is_draining = False
    large_readers = 0

    def __init__(
        self,
        resource: IResource,
        clock: IReactorTime,
        *,
        max_body_bytes: int,
        max_pending_bytes: int,
        request_timeout_seconds: float,
        max_connections: int = 0,
        max_connections_per_address: int = 0,
        parser: str = "llhttp",
        door: Door | None = None,
        tally: Tally | None = None,
        limit_name: str = "max_connections",
    ) -> None:
        """No connection is open yet.

        Args:
            resource: What answers.
            clock: Tells and schedules time.
            max_body_bytes: How large a body may be, as sent.
            max_pending_bytes: How large all bodies together may be.
            request_timeout_seconds: How long a request may take to come, whole.
            max_connections: How many there may be; 0: any number.
            max_connections_per_address: How many from one address; 0: any number.
            parser: What parses requests, as `http_parser`.
            door: The ingest routes, if the resource has them: it may be asked in place of the resource.
            tally: Counts what connections answer themselves, and knows of them; None: nobody asks.
            limit_name: What logs call `max_connections`.
        """
        # Form parsing would give every Content-Type to the email package, and no route of ours wants it.
        super().__init__(resource, IngestRequest, timeout=IDLE_SECONDS, reactor=clock, parsePOSTFormSubmission=False)
        self.max_body_bytes = max_body_bytes
        self.request_timeout_seconds = request_timeout_seconds
        self.pending = Pending(max_pending_bytes)
        self.connections = Connections(clock, max_connections, max_connections_per_address, limit_name)
        self.channels: set[BoundedChannel] = set()
        self.door = door
        self.tally = tally or Tally()
        self.tally.connections = self.connections
        self._channel = _CHANNELS[parser]
        self._second = -1
        self._usual_answers: dict[Answer, bytes] = {}
        self._usual_headers = b""

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:  # type: ignore[override]  # None is IFactory's
        """A connection: the channel itself, without Twisted's switch for HTTP/2 around it; or what turns it away."""
        if not self.connections.has_room(host_of(addr)):
            turned_away = self.connections.turn_away()
            if turned_away is not None:
                self.tally.answered("other", 503, "OVERLOADED")
            return turned_away
        channel = self._channel()
        channel.requestFactory = self.requestFactory
        channel.site = channel.factory = self
        return channel

    def acceptableProtocols(self) -> list[bytes]:
        """What to agree on over TLS: HTTP/1.1 only, whatever Twisted could do."""
        return [b"http/1.1"]

    def usual_headers(self) -> bytes:
        """The lines of the headers that every answer has; those with the time are made once a second."""
        second = int(self.reactor.seconds())
        if second != self._second:
            self._second = second
            lines = (b"Server: " + version, b"Date: " + datetimeToString(second), b"Content-Type: " + CONTENT_TYPE, b"")
            self._usual_headers = b"\r\n".join(lines)
            self._usual_answers.clear()
        return self._usual_headers

    def usual_answer(self, answer: Answer) -> bytes:
        """An answer as it is sent over HTTP/1.1 on a connection that stays open; made once a second, most are equal."""
        headers = self.usual_headers()
        whole = self._usual_answers.get(answer)
        if whole is None:
            whole = answers.whole(answer, b"HTTP/1.1", headers, persistent=True)
            if len(self._usual_answers) < _MOST_USUAL_ANSWERS:
                self._usual_answers[answer] = whole
        return whole

    def log(self, request: object) -> None:
        """Write no access log: it costs an eighth of the speed, and the metrics count requests."""

    def drain(self) -> None:
        """Close each connection behind its next answer, which says so."""
        self.is_draining = True

    def close_idle(self) -> None:
        """Close the connections on which nothing is being answered, and the others behind their answers."""
        for channel in list(self.channels):
            channel.close_when_idle()

    async def answers_taken(self) -> None:
        """Wait until the answers that were given are taken, and the connections closed; not for long.

        For when nothing is answered any more: whoever ends the process in the turn in which an answer was written
        takes it back.
        """
        for _ in range(_DRAIN_TURNS):
            if not self.channels:
                return
            await task.deferLater(self.reactor, _DRAIN_TURN_SECONDS)
