"""Handing connections on: a worker that has clearly more than another gives a new one to that, before it reads from it.

The kernel gives a connection to a worker by a hash, or to who asks first. So what comes to a port of a worker is looked
at before a protocol is made for it (`core.loads` has the rule), and may go on, as a descriptor in a message, to another
worker's inbox. That one adopts it for the same endpoint, TLS and all, as if it had come to its own port; it counts it,
holds it to its limits, and never hands it on. Where an inbox is full, or nobody else takes any, who has it keeps it.

Nobody waits for an answer: a message lies in an inbox until it is taken, by the worker or by its successor.
"""

import contextlib
import mmap
import os
import socket
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IReadDescriptor,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from axcollector.bugs import report
from axcollector.connections import Connections
from axcollector.core.loads import Loads, size_bytes
from axcollector.core.messages import Sharing
from axcollector.services import Periodic

REFRESH_SECONDS: Final = 0.25
"""How often a worker says what it keeps, and looks into its inbox: errors in what others see last no longer."""
_AT_ONCE: Final = 32
"""So many are taken from an inbox in a turn of the reactor: with TLS that takes a few milliseconds."""
_NUMBER_BYTES: Final = 2


@implementer(IReadDescriptor)
class Exchange(Service):
    """A worker's part in it: what it sends to others, and its own inbox. To be started when all endpoints listen."""

    _log = Logger()

    def __init__(self, reactor: Any, sharing: Sharing, connections: Connections) -> None:  # noqa: ANN401 - any reactor
        """Take nothing yet.

        Args:
            reactor: What adopts connections.
            sharing: The descriptors, which are this one's from now on.
            connections: Those that this worker keeps.
        """
        self._reactor = reactor
        self._slot = sharing.slot
        self._connections = connections
        self._endpoints: list[_Endpoint] = []
        # Its own entry is open too, so that the inbox never ends.
        self._inbox, *self._entries = [socket.socket(fileno=each) for each in (sharing.inbox, *sharing.entries)]
        for each in (self._inbox, *self._entries):
            each.set_inheritable(False)
        memory = mmap.mmap(sharing.memory, size_bytes(len(self._entries)))
        os.close(sharing.memory)
        self._loads = Loads(memoryview(memory).cast("q"))
        self._refreshing = Periodic(reactor, REFRESH_SECONDS, "sharing connections", self._refresh)

    def endpoint(self, below: IStreamServerEndpoint) -> IStreamServerEndpoint:
        """The next endpoint: its connections may go to others, who have as many, and theirs to the same one here."""
        self._endpoints.append(_Endpoint(self, len(self._endpoints), below))
        return self._endpoints[-1]

    def startService(self) -> None:
        """Say what there is, and take what others hand on."""
        self._connections.changed = self._keeps
        self._reactor.addReader(self)
        self._refreshing.startService()

    def stopService(self) -> None:
        """Take nothing more; to be followed at once by the endpoints' end.

        Who follows in this slot, and is there perhaps, says again that it does.
        """
        self._connections.changed = None
        self._reactor.removeReader(self)
        self._refreshing.stopService()
        self._loads.takes_none(self._slot)
        for each in (self._inbox, *self._entries):
            each.close()

    def _keeps(self, count: int) -> None:
        self._loads.keeps(self._slot, count)

    def _refresh(self) -> None:
        self._keeps(self._connections.count)
        self.doRead()

    def fileno(self) -> int:
        """The inbox, for the reactor."""
        return self._inbox.fileno()

    def logPrefix(self) -> str:
        """What Twisted's log calls it."""
        return "inbox"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has ended, and so does the process."""

    def doRead(self) -> None:
        """Take what lies in the inbox, or some of it; the reactor calls again for the rest."""
        for _ in range(_AT_ONCE):
            try:
                data, given, _, _ = socket.recv_fds(self._inbox, _NUMBER_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                self._loads.all_came(self._slot)
                return
            for descriptor in given:
                with socket.socket(fileno=descriptor) as connection:
                    self.adopt(int.from_bytes(data, "big"), connection)
            self._loads.comes(self._slot, -1)

    def adopt(self, number: int, connection: socket.socket) -> None:
        """Keep a connection of an endpoint; what is given may be closed then."""
        try:
            connection.getpeername()
        except OSError:  # its client has gone
            return
        try:
            factory = self._endpoints[number].factory
            self._reactor.adoptStreamConnection(connection.fileno(), connection.family, factory)
        except Exception:  # noqa: BLE001 - as Twisted's ports do: the next one may be better
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # whatever has a copy of it now
            report(self._log, "a connection could not be taken")

    def taker(self) -> int | None:
        """Who is to have a connection that has come; None: we."""
        return self._loads.taker(self._slot, self._connections.count)

    def hand_on(self, number: int, connection: socket.socket, taker: int) -> None:
        """Send a connection to another, or keep it where that cannot be done; what is given may be closed then."""
        # Added before it is sent: afterwards it might have come already, and the addition would stay.
        self._loads.comes(taker)
        try:
            socket.send_fds(self._entries[taker], [number.to_bytes(_NUMBER_BYTES, "big")], [connection.fileno()])
        except OSError:  # that inbox is full, or there are too many descriptors in inboxes
            self._loads.comes(taker, -1)
            self.adopt(number, connection)


@implementer(IStreamServerEndpoint, IProtocolFactory)
class _Endpoint:
    """Where connections come in that may go to others; before its factory it decides for each.

    Attributes:
        factory: Who makes the protocols of those that stay, and of others'; once this listens.
    """

    factory: IProtocolFactory

    def __init__(self, exchange: Exchange, number: int, below: IStreamServerEndpoint) -> None:
        self._exchange = exchange
        self._number = number
        self._below = below

    def listen(self, protocolFactory: IProtocolFactory) -> "defer.Deferred[IListeningPort]":  # noqa: N803 - Twisted's
        self.factory = protocolFactory
        listening: defer.Deferred[IListeningPort] = self._below.listen(self)
        return listening

    def doStart(self) -> None:
        self.factory.doStart()

    def doStop(self) -> None:
        self.factory.doStop()

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        taker = self._exchange.taker()
        return self.factory.buildProtocol(addr) if taker is None else _HandedOn(self._exchange, self._number, taker)


class _HandedOn(Protocol):
    """What Twisted takes for the protocol of a connection that another worker is to have."""

    def __init__(self, exchange: Exchange, number: int, taker: int) -> None:
        self._exchange = exchange
        self._number = number
        self._taker = taker

    def makeConnection(self, transport: Any) -> None:  # noqa: ANN401 - a transport over a socket
        """Hand it on, and have the reactor forget it.

        Neither `loseConnection` nor `abortConnection` would do: the first shuts the connection down, for the other
        worker too, and the second has it reset when that one closes it.
        """
        transport.stopReading()
        with transport.getHandle() as connection:
            self._exchange.hand_on(self._number, connection, self._taker)
