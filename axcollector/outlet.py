"""Answers on their way out: given to the kernel at once, as long as it takes all of them.

`transport.write` asks the reactor to tell when the socket takes bytes, and then not to: two system calls an answer.
"""

from typing import Any


class Outlet:
    """The way out of one connection."""

    __slots__ = ("_at_once", "_transport")

    def __init__(self, transport: Any) -> None:  # noqa: ANN401 - a transport, or what wraps one
        """Nothing was sent yet."""
        self._transport = transport
        # Of the class itself: what wraps a transport, as TLS does, may let all but what it has itself through.
        self._at_once = hasattr(type(transport), "writeSomeData") and not getattr(transport, "TLS", False)

    def send(self, data: bytes) -> None:
        """Send bytes behind what was sent before.

        As long as the kernel takes everything nothing is queued. What it leaves is the transport's care, from then on.
        """
        if self._at_once:
            sent = self._transport.writeSomeData(data)
            if sent == len(data):
                return
            self._at_once = False
            if isinstance(sent, int):
                data = data[sent:]
        self._transport.write(data)

    def others_write(self) -> None:
        """Somebody else writes to the transport, or will: from now on it alone knows what is behind what."""
        self._at_once = False
