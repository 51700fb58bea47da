"""What each tenant has sent: a table as long as there are tenants that sent something since the start.

Pure.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

import msgspec

from axcollector.core.status import TenantTraffic


class _Row(msgspec.Struct, gc=False):
    """Records, bytes, and when the last came: changed in place. There are many, and the garbage collector sees none."""

    records: int = 0
    bytes: int = 0
    last_at: float = 0.0


class Traffic:
    """Counts records and bytes by tenant."""

    def __init__(self) -> None:
        """Nobody has sent anything."""
        self._rows: dict[tuple[str, str], _Row] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, tenant: tuple[str, str], records: int, size: int, now: float) -> None:
        """Records of a tenant, of which organization and environment are given, became durable."""
        row = self._rows.get(tenant)
        if row is None:
            row = self._rows[tenant] = _Row()
        row.records += records
        row.bytes += size
        row.last_at = now

    def add_all(self, traffic: Iterable[TenantTraffic]) -> None:
        """Add what somebody else has counted, and has taken out of its own table."""
        for each in traffic:
            self.add((each.organization, each.environment), each.records, each.bytes, each.last_at)

    def take(self, limit: int) -> tuple[TenantTraffic, ...]:
        """Take up to so many tenants out of the table."""
        taken = [self._rows.popitem() for _ in range(min(limit, len(self._rows)))]
        return tuple(_traffic_of(*each) for each in taken)

    def pieces(self, length: int) -> Iterator[list[TenantTraffic]]:
        """All tenants of this moment, so many at a time, each as it is when its turn comes."""
        rows = iter(list(self._rows.items()))
        while piece := [_traffic_of(*each) for each in islice(rows, length)]:
            yield piece


def _traffic_of(tenant: tuple[str, str], row: _Row) -> TenantTraffic:
    return TenantTraffic(*tenant, row.records, row.bytes, row.last_at)
