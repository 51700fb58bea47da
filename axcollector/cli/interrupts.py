"""Ctrl-C and its like as an exception, once, until the work must not be given up any more.

A signal is seen between two steps of the interpreter. Without `hold`, one that comes while SQLite commits, or while the
finished file is renamed, would be seen after that, and somebody would be told that nothing had happened.
"""

import signal
from types import FrameType
from typing import Final, Self

_SIGNALS: Final = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
}
"""The signals, and what they do where nobody has decided otherwise (as with nohup)."""


class Interrupted(KeyboardInterrupt):
    """A signal asked for the end.

    Attributes:
        number: The signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__("interrupted")
        self.number = number


class Interrupts:
    """A context in which signals raise `Interrupted`."""

    def __enter__(self) -> Self:
        self._held = False
        self._before = {
            number: signal.signal(number, self._interrupt)
            for number, default in _SIGNALS.items()
            if signal.getsignal(number) is default
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def hold(self) -> None:
        """From now on a signal does nothing: the work is as good as done."""
        self._held = True

    def _interrupt(self, number: int, _: FrameType | None) -> None:
        if not self._held:
            self._held = True  # whoever is impatient must not disturb the clearing up
            raise Interrupted(number)
