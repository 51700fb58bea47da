"""How workers hand connections on to each other, as their parent holds it: an inbox for each, and their numbers.

An inbox is a pair of sockets. Into one, which all workers have, goes a connection with the number of its endpoint; out
of the other the worker whose it is takes it (`handing`). The parent keeps both for as long as it runs, as it keeps
listening sockets: what lies in the inbox of a worker that has ended is there for its successor.
"""

import mmap
import os
import socket
from collections.abc import Callable, Mapping
from typing import Final

from twisted.logger import Logger

from axcollector.core.loads import Loads, size_bytes
from axcollector.core.messages import Sharing

_NAME: Final = "axcollector-loads"


def _shared_memory(size: int) -> int:
    """The descriptor of so much memory, which is shared by who inherits it."""
    descriptor = os.memfd_create(_NAME)
    os.ftruncate(descriptor, size)
    return descriptor


class Inboxes:
    """The inboxes of all workers; none where they cannot hand connections on."""

    _log = Logger()

    def __init__(self, make_memory: Callable[[int], int] = _shared_memory) -> None:
        """There are none yet.

        Args:
            make_memory: Gives the descriptor of so many bytes of memory; may raise `OSError` or `AttributeError`.
        """
        self._make_memory = make_memory
        self._memory = -1
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._loads: Loads | None = None

    def open(self, count: int) -> None:
        """Make them for so many workers. Where the system has no such things that is logged, and workers do without."""
        if count < 2:
            return
        try:
            self._memory = self._make_memory(size_bytes(count))
            self._pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(count)]
            self._loads = Loads(memoryview(mmap.mmap(self._memory, size_bytes(count))).cast("q"))
        except (OSError, AttributeError) as exc:
            self.close()
            self._log.info("workers keep the connections that come to each, however many ({reason})", reason=str(exc))
            return
        for end in (end for pair in self._pairs for end in pair):
            end.setblocking(False)  # noqa: FBT003 - the standard library's signature
        for slot in range(count):
            self._loads.takes_none(slot)

    def of(self, slot: int, first: int) -> tuple[Sharing | None, Mapping[int, int]]:
        """What the worker in a slot is told, and its descriptors, from `first` on, with the parent's for them."""
        if not self._pairs:
            return None, {}
        ours = [self._memory, self._pairs[slot][0].fileno(), *(entry.fileno() for _, entry in self._pairs)]
        theirs = range(first, first + len(ours))
        return Sharing(slot, theirs[0], theirs[1], list(theirs[2:])), dict(zip(theirs, ours, strict=True))

    def has_ended(self, slot: int) -> None:
        """The worker in a slot has ended: nobody sends it anything before the next one is there."""
        if self._loads is not None:
            self._loads.takes_none(slot)

    def close(self) -> None:
        """Close them all."""
        self._loads = None
        for end in (end for pair in self._pairs for end in pair):
            end.close()
        self._pairs = []
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1
