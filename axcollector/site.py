"""Our Site: limits that hold while a request is still being received.

The limits are in modules of their own, which know no parser: `heads`, `reception`, `conversation`, `connections`; in
`channel` Twisted's parser is held to them. What was found is left on the request as `reception`, for the resource to
say it at the right place among its own checks. A resource that is mounted in another program's Site finds no
`reception`; there only its own checks apply.
"""

# mypy: allow-untyped-calls
# (What Twisted's own classes leave without types; mypy's list of exceptions does not reach calls by `super`.)

from typing import Final

from twisted.internet import task
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.web.resource import IResource
from twisted.web.server import Site

from axcollector.channel import IngestChannel, IngestRequest
from axcollector.connections import Connections, host_of
from axcollector.conversation import IDLE_SECONDS
from axcollector.reception import Pending

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
    """

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
    ) -> None:
        # Form parsing would give every Content-Type to the email package, and no route of ours wants it.
        super().__init__(resource, IngestRequest, timeout=IDLE_SECONDS, reactor=clock, parsePOSTFormSubmission=False)
        self.max_body_bytes = max_body_bytes
        self.request_timeout_seconds = request_timeout_seconds
        self.pending = Pending(max_pending_bytes)
        self.connections = Connections(clock, max_connections, max_connections_per_address)
        self.channels: set[IngestChannel] = set()

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:  # type: ignore[override]
        """A connection: the channel itself, without Twisted's switch for HTTP/2 around it; or what turns it away."""
        if not self.connections.has_room(host_of(addr)):
            return self.connections.turn_away()
        channel = IngestChannel()
        channel.requestFactory = self.requestFactory
        channel.site = channel.factory = self
        return channel

    def acceptableProtocols(self) -> list[bytes]:
        """What to agree on over TLS: HTTP/1.1 only, whatever Twisted could do."""
        return [b"http/1.1"]

    def log(self, request: object) -> None:
        """Write no access log: it costs an eighth of the speed, and the metrics count requests."""

    def close_idle(self) -> None:
        """Close the connections on which nothing is being answered, and the others behind their answers."""
        for channel in list(self.channels):
            channel.close_when_idle()

    async def drain(self) -> None:
        """Wait until the answers that were given are taken, and the connections closed; not for long.

        For when nothing is answered any more: whoever ends the process in the turn in which an answer was written
        takes it back.
        """
        for _ in range(_DRAIN_TURNS):
            if not self.channels:
                return
            await task.deferLater(self.reactor, _DRAIN_TURN_SECONDS)
