"""What lies where only buckets and their files should: said once of each thing; when it has gone and come back, again.

Bounded: a stage full of foreign things fills neither the log nor the memory. Pure.
"""

from typing import Final

Told = tuple[str, str]
"""What it is, below the data directory's stages, and why it is left alone."""

_REMEMBERED: Final = 10_000
"""Places, and things in one place, that are remembered; of more nothing is said."""


class Foreign:
    """What was told, by place: the bucket, or the name in a stage, that it concerns."""

    def __init__(self) -> None:
        self._told: dict[str, dict[str, str]] = {}
        self._news: list[Told] = []

    def note(self, place: str, what: str, why: str) -> None:
        """This is in the way."""
        told = self._told.get(place, {})
        if told.get(what) == why or max(len(told), len(self._told)) >= _REMEMBERED:
            return
        self._told.setdefault(place, {})[what] = why
        self._news.append((what, why))

    def forget(self, place: str) -> None:
        """The place is empty."""
        self._told.pop(place, None)

    def news(self, limit: int) -> tuple[Told, ...]:
        """Up to so many things that were not told yet, and hereby are."""
        news, self._news = tuple(self._news[:limit]), self._news[limit:]
        return news
