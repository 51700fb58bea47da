"""Ages, sizes, moments and numbers as people read them."""

from datetime import UTC, datetime
from typing import Final

_AGES: Final = (("d", 86_400), ("h", 3600), ("min", 60))
_SIZES: Final = ("B", "kB", "MB", "GB", "TB", "PB")
_STEP: Final = 1000


def age(seconds: float) -> str:
    """Such as `3 h`; what lies ahead is `0 s` old."""
    seconds = max(0.0, seconds)
    unit, length = next(((unit, length) for unit, length in _AGES if seconds >= length), ("s", 1))
    return f"{seconds // length:.0f} {unit}"


def size(number: float) -> str:
    """Bytes, such as `1.2 MB`."""
    for unit in _SIZES[:-1]:
        if number < _STEP:
            return f"{number:.0f} {unit}" if unit == _SIZES[0] else f"{number:.1f} {unit}"
        number /= _STEP
    return f"{number:.1f} {_SIZES[-1]}"


def moment(seconds: float) -> str:
    """Such as `2016-11-24T15:08:00Z`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def left(seconds: float) -> str:
    """How long something takes yet, such as `4:05` or `1:02:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
