"""When to try again: backoff, pauses, and who may probe.

An *authority* is whoever can make files wait: the signer, a tenant at the signer, a store host. It is

* *free*, which is the rule and needs no entry here;
* *paused* from a failure until a moment that it chose (`Retry-After`) or that the backoff chose;
* *waiting for a probe* once that moment has come: one file goes, the others go on waiting;
* *being probed* until that file's upload has ended: free again if the authority answered, paused anew if it failed,
  waiting for the next probe if the outcome says nothing about it.

Uploads under way when a pause begins are not called back. What they say afterwards is news of the same outage: it
may prolong the pause, but neither ends it nor makes the next one longer.

Pure: time and chance are arguments.
"""

import email.utils
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from itertools import islice

MAX_PAUSE_SECONDS = 300.0
"""No pause is longer, whatever an authority asks for."""

_TABLE_LIMIT = 1000
_FORGET_AFTER_SECONDS = 3600.0
"""Where the table is long, what nobody has asked about for an hour is dropped from it."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait after so many failures in a row: exponential, with full jitter, but never not at all.

    Attributes:
        first_seconds: The longest wait after one failure; it doubles with each further one.
        ceiling_seconds: No wait is longer.
        floor_seconds: No wait is shorter.
    """

    first_seconds: float = 1.0
    ceiling_seconds: float = MAX_PAUSE_SECONDS
    floor_seconds: float = 0.5

    def delay(self, failures: int, chance: float) -> float:
        """Seconds to wait after `failures` (at least 1) in a row; `chance` in [0, 1) chooses from what is allowed."""
        doublings = min(failures - 1, 64)
        longest = min(self.first_seconds * 2.0**doublings, self.ceiling_seconds)
        return self.floor_seconds + chance * (longest - self.floor_seconds)


class Pace:
    """How long to wait between the attempts of one who tries the same thing until it works."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._failures = 0

    def succeeded(self) -> None:
        """It has worked: the next failure is the first."""
        self._failures = 0

    def failed(self, taken_seconds: float, chance: float, asked_seconds: float | None = None) -> float:
        """Seconds to wait after an attempt that failed.

        Args:
            taken_seconds: How long it took; one that took a second or more has been waiting enough.
            chance: In [0, 1), for the jitter.
            asked_seconds: How long whoever was asked wants to be left alone, or None.
        """
        self._failures = 1 if taken_seconds >= 1 else self._failures + 1
        delay = self._backoff.delay(self._failures, chance)
        return delay if asked_seconds is None else max(delay, min(asked_seconds, MAX_PAUSE_SECONDS))


@dataclass(frozen=True, slots=True)
class Pause:
    """An authority that files wait for.

    Attributes:
        authority: Who it is.
        until: Seconds since the epoch; from then on one file may probe.
        reason: Why, in a few words.
        failures: How often in a row it has failed, late news of the same outage not counted.
    """

    authority: str
    until: float
    reason: str
    failures: int


def parse_retry_after(text: str, now: float) -> float | None:
    """The seconds that a `Retry-After` header (RFC 9110, 10.2.3) asks for, or None where it makes no sense.

    Args:
        text: The header's value: seconds, or a date.
        now: What the date is compared with: best the answer's own date.
    """
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    moment = parse_date(text)
    return None if moment is None else max(0.0, moment - now)


def parse_date(text: str) -> float | None:
    """The moment, in seconds since the epoch, that an HTTP date names, or None where it names none."""
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None


class Pauses:
    """Which authorities are paused, and who probes them. A *ticket* is whatever identifies one upload."""

    def __init__(self, backoff: Backoff | None = None) -> None:
        self._backoff = backoff or Backoff()
        self._pauses: dict[str, Pause] = {}
        self._prober: dict[str, Hashable] = {}

    def let_through(self, authorities: Iterable[str], now: float) -> bool:
        """Whether an upload that needs all of these may begin: each is free, or waits for a probe."""
        return all(
            pause is None or (not now < pause.until <= now + MAX_PAUSE_SECONDS and pause.authority not in self._prober)
            for pause in map(self._pauses.get, authorities)
        )

    def begin(self, ticket: Hashable, authorities: Iterable[str]) -> None:
        """An upload that was let through begins: it probes those of its authorities that wait for one."""
        for authority in authorities:
            if authority in self._pauses:
                self._prober[authority] = ticket

    def answered(self, ticket: Hashable, authorities: Iterable[str], before: str | None = None) -> tuple[str, ...]:
        """Authorities have done their part of an upload: those that it probed are free.

        Args:
            ticket: The upload.
            authorities: What it needs, in the order in which it asks them.
            before: The one that failed, so that those after it were not asked; None where none did.

        Returns:
            Those that are free again.
        """
        free = []
        for authority in authorities:
            if authority == before:
                break
            if self._prober.get(authority) == ticket:
                del self._prober[authority], self._pauses[authority]
                free.append(authority)
        return tuple(free)

    def failed(
        self, ticket: Hashable, authority: str, reason: str, retry_after: float | None, now: float, chance: float
    ) -> Pause:
        """An authority is unavailable: pause it.

        Args:
            ticket: The upload that found out; where it was the probe, it is no more.
            authority: Who.
            reason: Why.
            retry_after: Seconds that it asked for, or None.
            now: Seconds since the epoch.
            chance: In [0, 1), for the jitter.

        Returns:
            The pause as it stands now.
        """
        asked = None if retry_after is None else self._bounded(retry_after)
        pause = self._pauses.get(authority)
        prober = self._prober.get(authority)
        if pause is not None and prober != ticket and (prober is not None or now < pause.until):
            pause = replace(pause, until=max(pause.until, now + (asked or 0.0)))
        else:
            failures = 1 if pause is None else pause.failures + 1
            delay = self._backoff.delay(failures, chance) if asked is None else asked
            pause = Pause(authority, now + delay, reason, failures)
            self._prober.pop(authority, None)
        self._forget_old(now)
        self._pauses[authority] = pause
        return pause

    def end(self, ticket: Hashable) -> bool:
        """An upload has ended: what it probed without an outcome waits for the next probe; whether there is any."""
        probed = [authority for authority, prober in self._prober.items() if prober == ticket]
        for authority in probed:
            del self._prober[authority]
        return bool(probed)

    def of(self, authority: str) -> Pause | None:
        """The pause of an authority, until it is free again."""
        return self._pauses.get(authority)

    def __len__(self) -> int:
        """How many are paused, waiting for a probe or being probed."""
        return len(self._pauses)

    def current(self, limit: int | None = None) -> tuple[Pause, ...]:
        """These, or of so many those that were paused first, by name."""
        return tuple(self._pauses[authority] for authority in sorted(islice(self._pauses, limit)))

    def longest(self) -> float | None:
        """Until when the longest pause lasts; None where there is none."""
        return max([pause.until for pause in self._pauses.values()], default=None)

    def _bounded(self, seconds: float) -> float:
        return min(max(seconds, self._backoff.floor_seconds), MAX_PAUSE_SECONDS)

    def _forget_old(self, now: float) -> None:
        if len(self._pauses) >= _TABLE_LIMIT:
            old = [a for a, p in self._pauses.items() if p.until + _FORGET_AFTER_SECONDS < now]
            for authority in old:
                if authority not in self._prober:
                    del self._pauses[authority]
