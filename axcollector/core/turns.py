"""In which order the buckets of a long backlog are looked into: tenants take turns, each one's oldest bucket first.

A backlog may be of 100,000 buckets, of one tenant or of as many tenants, and adding to it or taking from it may not
keep anybody waiting. So nothing here is ever sorted, copied or dropped as a whole: each tenant has a heap of its
buckets, and the tenants that have any stand in a heap of their own, those served longest ago (or never) first, and
among these the one with the oldest bucket.

Pure, and for one thread at a time.
"""

from collections import OrderedDict
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from heapq import heappop, heappush
from typing import Final

Entry = tuple[int, str, str, str]
"""A bucket that waits to be looked into: the start of its interval, its name, the name up to which its files have been
handed out, its tenant. A plain tuple, because the garbage collector need not look at those, however many there are."""

_TENANTS_REMEMBERED: Final = 10_000
"""Of so many tenants it is remembered when they were served last."""

_Place = tuple[int, int, str]
"""When a tenant was served last, the start of its oldest bucket, and the tenant."""


class Turns:
    """Entries, each bucket at most once."""

    def __init__(self) -> None:
        self._entries: dict[str, list[Entry]] = {}
        self._places: list[_Place] = []
        self._place_of: dict[str, _Place] = {}
        self._buckets: set[str] = set()
        self._last_turn: OrderedDict[str, int] = OrderedDict()
        self._turn = 0

    def __len__(self) -> int:
        return len(self._buckets)

    def __contains__(self, bucket: object) -> bool:
        return bucket in self._buckets

    def add(self, entry: Entry) -> None:
        """An entry waits, unless one of its bucket does already."""
        _, bucket, _, tenant = entry
        if bucket in self._buckets:
            return
        self._buckets.add(bucket)
        entries = self._entries.setdefault(tenant, [])
        heappush(entries, entry)
        if entries[0] is entry:
            self._stand(tenant)

    def _stand(self, tenant: str) -> None:
        """Give a tenant its place; one that it had before does not count any more."""
        place = self._last_turn.get(tenant, 0), self._entries[tenant][0][0], tenant
        self._place_of[tenant] = place
        heappush(self._places, place)

    def taking(self, skip: AbstractSet[str]) -> Iterator[Entry]:
        """Take one entry after the other, none of the tenants in `skip`. To be closed when no more is wanted."""
        skipped: list[_Place] = []
        try:
            while self._places:
                place = heappop(self._places)
                tenant = place[2]
                if self._place_of.get(tenant) != place:
                    continue
                if tenant in skip:
                    skipped.append(place)
                else:
                    yield self._take(tenant)
        finally:
            for place in skipped:
                heappush(self._places, place)

    def _take(self, tenant: str) -> Entry:
        entries = self._entries[tenant]
        entry = heappop(entries)
        self._buckets.remove(entry[1])
        self._turn += 1
        self._last_turn[tenant] = self._turn
        self._last_turn.move_to_end(tenant)
        if len(self._last_turn) > _TENANTS_REMEMBERED:
            self._last_turn.popitem(last=False)
        if entries:
            self._stand(tenant)
        else:
            del self._entries[tenant], self._place_of[tenant]
        return entry
