"""Several collectors, of which any will do: who is asked next, and who is left alone for a while.

They are asked in turn. One that fails rests, for as long as it asks, or for longer each time it fails again; then one
request finds out whether it is back (`core.retry.Pauses`). While all of them rest, whoever asks waits for the first.
"""

from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from axcollector.core.errors import Refusal, Unreachable
from axcollector.core.retry import Backoff, Pauses
from axcollector.services import Rest


class Fleet:
    """The collectors' URLs, and which of them rest."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, urls: Sequence[str], backoff: Backoff, chance: Callable[[], float]) -> None:
        """All of them are well.

        Args:
            clock: Tells and schedules time.
            urls: Theirs, each once.
            backoff: How long one that fails is left alone.
            chance: Gives numbers in [0, 1), for the jitter.
        """
        self._clock = clock
        self._urls = tuple(urls)
        self._chance = chance
        self._pauses = Pauses(backoff)
        self._turn = 0
        self._waiting: dict[Rest, None] = {}
        self._last: Refusal = Unreachable("no collector has been asked yet")

    def begin(self, ticket: object) -> str | None:
        """Whom to ask now; None: all rest. Tell how it went with `succeeded` or `failed`, and then `end` it."""
        now = self._clock.seconds()
        for number in range(len(self._urls)):
            url = self._urls[(self._turn + number) % len(self._urls)]
            if self._pauses.let_through((url,), now):
                self._turn = (self._turn + number + 1) % len(self._urls)
                self._pauses.begin(ticket, (url,))
                return url
        return None

    def succeeded(self, ticket: object, url: str) -> None:
        """It has given a proper answer."""
        if self._pauses.answered(ticket, (url,)):
            self._log.info("the collector at {url} is back", url=url)
            self.wake()

    def failed(self, ticket: object, url: str, refusal: Refusal) -> None:
        """It cannot take records at present."""
        self._last = refusal
        if self._pauses.of(url) is None:
            self._log.warn("the collector at {url} rests: {reason}", url=url, reason=refusal.reason)
        asked = refusal.retry_after
        self._pauses.failed(ticket, url, refusal.reason, asked, self._clock.seconds(), self._chance())
        self.wake()

    def end(self, ticket: object) -> None:
        """A request has ended, however it has."""
        if self._pauses.end(ticket):
            self.wake()

    def trouble(self) -> Refusal:
        """Why all rest: what the one said that failed last."""
        return self._last

    async def room(self, limit_seconds: float) -> None:
        """Wait until one of them may be asked, or for so long."""
        now = self._clock.seconds()
        # One that is being tried has no moment to wait for: the end of that wakes us.
        until = min((pause.until for pause in self._pauses.current() if pause.until > now), default=now + limit_seconds)
        rest = Rest(self._clock)
        self._waiting[rest] = None
        try:
            await rest.take(min(limit_seconds, until - now))
        finally:
            del self._waiting[rest]

    def wake(self) -> None:
        """Let those who wait look again."""
        for rest in list(self._waiting):
            rest.end()
