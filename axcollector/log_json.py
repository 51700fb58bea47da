"""A log event as a line of JSON, for programs that read logs.

A line has, for any reader, `time`, `level`, `namespace`, `event` (the format, which is the same for all events of a
kind), `text` (what a person would read), `traceback` where there is one, and the event's own fields under their names.
Beside them stand `log_time`, `log_level`, `log_namespace` and `log_format` as `twisted.logger` writes them, so that
`twisted.logger.eventsFromJSONLogFile` reads the file back as events that can be formatted again.

Nothing that an event holds keeps its line from being written: what JSON cannot say is said as text. A line is ASCII,
whatever the encoding of the file.
"""

import json
import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import IO, Any, Final

from twisted.logger import FileLogObserver, LogEvent, LogLevel, eventAsJSON, formatEvent

_OURS: Final = ("time", "level", "namespace", "event", "text", "traceback")
_OF_TWISTED: Final = ("message", "isError", "format", "system", "failure", "self")
"""What Twisted adds for observers in the old style, and what is no keyword of a logger's method."""
RESERVED: Final = frozenset(_OURS + _OF_TWISTED)
"""Names that no event's own fields have."""
_DEEPEST: Final = 4
_LARGEST_INT: Final = 2**63


def json_observer(file: IO[Any]) -> FileLogObserver:
    """Writes events to a file, each as a line of JSON."""
    return FileLogObserver(file, json_line)


def json_line(event: LogEvent) -> str:
    """The line of an event, with its end."""
    level = event.get("log_level") or LogLevel.info
    found = event.get("log_time")
    told = traceback_of(event)
    line: dict[str, Any] = {
        "time": _iso(found) if isinstance(found, int | float) else None,
        "level": level.name,
        "namespace": plain(event.get("log_namespace")),
        "event": plain(event.get("event", event.get("log_format"))),
        "text": plain(formatEvent(event).removesuffix(f"\n{told}")),
        **fields_of(event),
        **{name: plain(event[name]) for name in ("log_text", "log_io") if name in event},
        "log_time": plain(found),
        "log_level": _LEVELS.get(level.name),
        "log_namespace": plain(event.get("log_namespace")),
        "log_format": plain(event.get("log_format")),
    }
    if told is not None:
        line["traceback"] = plain(told)
    return json.dumps(line) + "\n"


def fields_of(event: LogEvent) -> dict[str, Any]:
    """An event's own fields, of such values as JSON has."""
    return {
        str(name): plain(value)
        for name, value in event.items()
        if name not in RESERVED and not str(name).startswith("log_")
    }


def traceback_of(event: LogEvent) -> str | None:
    """The traceback of an event of a failure; None: it has none."""
    failure = event.get("log_failure")
    if failure is None:
        told = event.get("traceback")
        return told if isinstance(told, str) else None
    try:
        return str(failure.getTraceback())
    except Exception as exc:  # noqa: BLE001 - whatever somebody's exception does when it is asked for its words
        return f"(its traceback cannot be told: {type(exc).__name__})"


def plain(value: object, depth: int = _DEEPEST) -> Any:  # noqa: ANN401 - whatever JSON has
    """A value as JSON, and MessagePack, have it; what they have not is its text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and -_LARGEST_INT <= value < _LARGEST_INT:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if depth and isinstance(value, Mapping):
        return {_text(name): plain(each, depth - 1) for name, each in value.items()}
    if depth and isinstance(value, Sequence | AbstractSet) and not isinstance(value, str | bytes | bytearray):
        return [plain(each, depth - 1) for each in value]
    return _text(value)


def _text(value: object) -> str:
    """A text that can be written as UTF-8."""
    if isinstance(value, bytes | bytearray):
        return value.decode(errors="backslashreplace")
    try:
        return str(value).encode(errors="backslashreplace").decode()
    except Exception as exc:  # noqa: BLE001 - as above
        return f"({type(value).__name__}, which cannot be told: {type(exc).__name__})"


def _iso(seconds: float) -> str | None:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return None


_LEVELS: Final = {
    level.name: json.loads(eventAsJSON({"log_level": level}))["log_level"] for level in LogLevel.iterconstants()
}
"""A level as `twisted.logger` writes it."""
