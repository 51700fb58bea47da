"""Times as they stand in names: `yyyyMMddHHmmss`, in UTC."""

from datetime import UTC, datetime
from typing import Final

STAMP_LENGTH: Final = len("yyyyMMddHHmmss")


def stamp(seconds: int) -> str:
    """`seconds` since the epoch as `yyyyMMddHHmmss` in UTC."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment.year:04d}{moment:%m%d%H%M%S}"  # not %Y, which gives the year 16 two digits


def stamp_milliseconds(now: float) -> str:
    """`now` as `yyyyMMddHHmmss.SSS` in UTC."""
    milliseconds = int(now * 1000)
    return f"{stamp(milliseconds // 1000)}.{milliseconds % 1000:03d}"


def unstamp(text: str) -> int:
    """The seconds since the epoch that `stamp` wrote.

    Raises:
        ValueError: `text` is no such stamp.
    """
    if len(text) != STAMP_LENGTH or not (text.isascii() and text.isdigit()):
        message = f"not a time as yyyyMMddHHmmss: {text!r}"
        raise ValueError(message)
    # Not strptime, which takes five times as long: a stage may hold 100,000 names.
    month, day, hour, minute, second = (int(text[at : at + 2]) for at in range(4, STAMP_LENGTH, 2))
    return int(datetime(int(text[:4]), month, day, hour, minute, second, tzinfo=UTC).timestamp())
