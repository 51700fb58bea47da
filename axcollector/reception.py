"""Bodies while they come: kept in memory and counted, whatever parses the requests.

A body that is larger than allowed, or that would make all bodies together larger than allowed, is read and dropped, so
that its client can read the answer; past twice the limit its connection is cut. So is one whose framing (the chunks'
sizes, ends and extensions) outweighs its content: each chunk costs time, and may hold a single byte.
"""

from dataclasses import dataclass
from io import BytesIO
from typing import Final

from axcollector.heads import CHUNKS_TOO_SMALL, FAR_TOO_LARGE, Cut

_FRAMING_BYTES: Final = 16_384
_FRAMING_SHARE: Final = 4
"""The framing may have so many bytes, and one more for each so many of content: chunks of 24 bytes are fine."""


@dataclass(slots=True)
class Pending:
    """The bytes of bodies that are being received or wait for their answer, of all connections together."""

    limit: int
    held: int = 0

    def reserve(self, count: int) -> bool:
        """Whether there is room for `count` bytes more; they are held if so."""
        if self.held + count > self.limit:
            return False
        self.held += count
        return True


@dataclass(slots=True)
class Reception:
    """What was found while a body was received.

    Attributes:
        oversize: It is larger than allowed, and was dropped.
        shed: There was no room for it, and it was dropped.
    """

    oversize: bool = False
    shed: bool = False


class Incoming:
    """One body.

    Attributes:
        reception: What was found.
        content: What was kept.
    """

    def __init__(self, limit_bytes: int, pending: Pending) -> None:
        """Nothing has come yet.

        Args:
            limit_bytes: How large it may be.
            pending: All bodies together.
        """
        self.reception = Reception()
        self.content = BytesIO()
        self._limit = limit_bytes
        self._pending = pending
        self._received = 0
        self._framing = 0
        self._held = 0

    def announce(self, length: int | None) -> None:
        """It will be of this length; None: that shows in the end."""
        self.reception.oversize = length is not None and length > self._limit

    def add(self, data: bytes) -> Cut | None:
        """A piece has come. Why the connection is to be cut, if it is."""
        self._received += len(data)
        if self._received > self._limit:
            self.drop()
            self.reception.oversize = True
            return FAR_TOO_LARGE if self._received > 2 * self._limit else None
        if not (self.reception.oversize or self.reception.shed):
            if self._pending.reserve(len(data)):
                self._held += len(data)
                self.content.write(data)
            else:
                self.drop()
                self.reception.shed = True
        return None

    def announce_chunk(self, size: int) -> Cut | None:
        """A piece of so many bytes will come. Why the connection is to be cut, if it is."""
        return self._cut(FAR_TOO_LARGE) if self._received + size > 2 * self._limit else None

    @property
    def received(self) -> int:
        """How many bytes have come, kept or not."""
        return self._received

    def framed(self, count: int) -> Cut | None:
        """So many bytes have come that were not content. Why the connection is to be cut, if it is."""
        self._framing += count
        too_much = self._framing > _FRAMING_BYTES + self._received // _FRAMING_SHARE
        return self._cut(CHUNKS_TOO_SMALL) if too_much else None

    def _cut(self, why: Cut) -> Cut:
        """Nobody will want what was kept: it is not held for as long as the connection takes to close."""
        self.drop()
        return why

    def drop(self) -> None:
        """Hold it no longer."""
        self._pending.held -= self._held
        self._held = 0
        self.content = BytesIO()
