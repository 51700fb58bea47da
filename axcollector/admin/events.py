"""The last lines of the log, for the status page: what an operator would see in it, of level info and above.

Each is formatted when it happens, and cleared of what may be a secret (`core.redaction`). Events may come from any
thread; each takes a number and then a place of its own, so that none is waited for, and readers see whole ones.

    GET /events?since=N    {"next": N for next time, "events": [{"number", "at", "level", "source", "text"}, …]}
"""

import itertools
from collections.abc import Sequence
from typing import Final

import msgspec
from klein import Klein
from twisted.application.service import Service
from twisted.logger import ILogObserver, LogEvent, LogLevel, LogPublisher, formatEvent
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from zope.interface import implementer

from axcollector import answers
from axcollector.admin.asked import number_asked
from axcollector.core.redaction import redacted

KEPT: Final = 200
_MOST_CHARACTERS: Final = 2000
"""A text that is longer is cut."""


class Event(msgspec.Struct, frozen=True):
    """A line of the log.

    Attributes:
        number: Its place among all since the start.
        at: When it happened, in seconds since 1970.
        level: `info`, `warn`, `error` or `critical`.
        source: What logged it.
        text: What it says.
    """

    number: int
    at: float
    level: str
    source: str
    text: str


@implementer(ILogObserver)
class Events(Service):
    """Keeps the last events of a log while it runs."""

    def __init__(self, publisher: LogPublisher) -> None:
        self._publisher = publisher
        self._numbers = itertools.count()
        self._places: list[Event | None] = [None] * KEPT

    def startService(self) -> None:
        """Begin to listen."""
        self.running = True
        self._publisher.addObserver(self)

    def stopService(self) -> None:
        """Listen no more; what is kept stays."""
        self.running = False
        self._publisher.removeObserver(self)

    def __call__(self, event: LogEvent) -> None:
        """Keep an event, if it is one for operators."""
        level = event.get("log_level")
        if level is None or level < LogLevel.info:
            return
        text = redacted(text_of(event)[:_MOST_CHARACTERS])
        number = next(self._numbers)
        source = str(event.get("log_namespace", ""))
        self._places[number % KEPT] = Event(number, round(event.get("log_time", 0.0), 3), level.name, source, text)

    def since(self, number: int) -> Sequence[Event]:
        """Those from a number on that are kept, the oldest first."""
        kept = [event for event in list(self._places) if event is not None and event.number >= number]
        return sorted(kept, key=lambda event: event.number)


def text_of(event: LogEvent) -> str:
    """What an event says; of a failure its last line too, which says what failed."""
    text = formatEvent(event)
    failure = event.get("log_failure")
    if isinstance(failure, Failure):
        text = f"{text}: {failure.getErrorMessage()}" if text else failure.getErrorMessage()
    return text


def add_events(app: Klein, events: Events) -> None:
    """Give an app the route of the last events."""

    @app.route("/events", methods=["GET"])
    def last_events(request: IRequest) -> bytes:
        """The events since a number."""
        since = number_asked(request, "since")
        found = events.since(since)
        body = {"next": found[-1].number + 1 if found else since, "events": found}
        return answers.give(request, 200, msgspec.json.encode(body))
