"""A progress bar: on a terminal one line that is drawn again, elsewhere a line a quarter of the way.

Where nobody knows how far the way is, there is no bar, and elsewhere than on a terminal nothing.
"""

import shutil
from collections.abc import Callable
from typing import Final, Self, TextIO

from axcollector.cli import shown

_CELLS: Final = 24
_LABEL_CELLS: Final = 12
_REDRAW_SECONDS: Final = 0.1
"""Oftener nobody can read it, and terminals are slow."""
_QUARTERS: Final = 4


class Progress:
    """How far something has come, with its rate; used as a context, so that what is written next has its own line."""

    def __init__(
        self,
        stream: TextIO,
        label: str,
        total: int | None,
        unit: str,
        seconds: Callable[[], float],
        *,
        with_rate: bool = True,
        with_time_left: bool = False,
    ) -> None:
        """Show the beginning.

        Args:
            stream: Where it is shown.
            label: What is under way, in a word.
            total: How many units there are, or None where nobody knows.
            unit: What they are called, in the plural.
            seconds: Tells the time.
            with_rate: Whether the rate says anything.
            with_time_left: Whether to say how long the rest takes at that rate.
        """
        self._stream = stream
        self._label = label
        self._total = total
        self._unit = unit
        self._seconds = seconds
        self._with_rate = with_rate
        self._with_time_left = with_time_left
        self._terminal = stream.isatty()
        self._started = seconds()
        self._ended: float | None = None
        self._drawn_at = self._started
        self._quarters = 0
        self.done = 0
        if self._terminal:
            self._draw()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def elapsed_seconds(self) -> float:
        """From the beginning until it was complete, or until now."""
        return (self._seconds() if self._ended is None else self._ended) - self._started

    @property
    def rate(self) -> float:
        """Units a second, so far."""
        elapsed = self.elapsed_seconds
        return self.done / elapsed if elapsed > 0 else 0.0

    def advance(self, count: int) -> None:
        """So many more are done."""
        self.reach(self.done + count)

    def reach(self, done: int) -> None:
        """So many are done now."""
        self.done = done
        is_complete = self._total is not None and done >= self._total
        if is_complete and self._ended is None:
            self._ended = self._seconds()
        if not self._terminal:
            self._say_quarter()
        elif is_complete or self._seconds() - self._drawn_at >= _REDRAW_SECONDS:
            self._draw()

    def close(self) -> None:
        """Leave the line, at what was reached last."""
        if self._terminal:
            self._draw()
            self._stream.write("\n")
            self._stream.flush()
            self._terminal = False
            self._quarters = _QUARTERS

    def note(self, text: str) -> None:
        """Write a line above the bar."""
        if self._terminal:
            self._stream.write("\r\x1b[K")
        self._stream.write(text + "\n")
        if self._terminal:
            self._draw()
        self._stream.flush()

    def expect(self, total: int) -> None:
        """It is known, or known better, how many units there are."""
        self._total = total

    def _say_quarter(self) -> None:
        quarters = self._share_of(_QUARTERS)
        if quarters > self._quarters:
            self._quarters = quarters
            self._stream.write(self._text("") + "\n")
            self._stream.flush()

    def _draw(self) -> None:
        self._drawn_at = self._seconds()
        columns = shutil.get_terminal_size().columns - 1
        line = self._text(self._bar())[:columns]
        # Back to the line's start, and clear what a longer text left behind.
        self._stream.write(f"\r{line}\x1b[K")
        self._stream.flush()

    def _text(self, bar: str) -> str:
        rate = f"  {self.rate:,.0f}/s" if self.done and self._with_rate else ""
        of = "" if self._total is None else f" of {self._total:,}"
        return f"{self._label:<{_LABEL_CELLS}}{bar}{self.done:,}{of} {self._unit}{rate}{self._time_left()}"

    def _time_left(self) -> str:
        if not self._with_time_left or self._total is None or not 0 < self.done < self._total or not self.rate:
            return ""
        return f"  {shown.left((self._total - self.done) / self.rate)} left"

    def _bar(self) -> str:
        if self._total is None:
            return ""
        full, empty = self._signs()
        filled = self._share_of(_CELLS)
        return full * filled + empty * (_CELLS - filled) + "  "

    def _share_of(self, parts: int) -> int:
        """How many of the parts are done; of nothing, all are."""
        if self._total is None:
            return 0
        return min(parts, self.done * parts // self._total) if self._total else parts

    def _signs(self) -> tuple[str, str]:
        """What stands for done and not done, in what the stream can write."""
        try:
            "█░".encode(self._stream.encoding or "ascii")
        except UnicodeEncodeError:
            return "#", "."
        return "█", "░"
