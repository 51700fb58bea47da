"""Rate limits: how many records and bytes a scope may send, and when there is room again.

A scope has two buckets, of records and of bytes. Each gets its rate a second, holds what comes in so many seconds (the
*burst*), and is full at the beginning. Of a batch the bytes are counted when its body is there, the records once it is
unpacked: `bring`, then `unpack`. Three rules:

* A batch that is larger than a bucket holds needs a full one, and leaves a debt: it passes, and the rate holds.
* A refused batch costs nothing.
* Where records were short, everybody waits until there is room for the batch that was refused. Else a flood of large
  batches would be unpacked, each in vain, as long as there is room for a smaller one; so it is refused before that.

Time may step: backwards it gives nothing, and what had come before stays; forwards it fills buckets, no more.

A scope whose buckets are full is as good as one never seen, and is forgotten. Who asks about known scopes only keeps at
most one entry for each. Pure: the time is an argument.
"""

from dataclasses import dataclass
from typing import Final

from axcollector.core.errors import RateLimited

_TOLERANCE_SECONDS: Final = 1e-6
"""So much may be short: seconds since the epoch have no finer steps, and whoever waited as told is to pass."""

_FORGOTTEN_AT_ONCE: Final = 2
"""So many entries, of those not used for longest, are looked at with each batch; it adds at most one."""


@dataclass(frozen=True, slots=True)
class RateLimits:
    """What each scope may send.

    Attributes:
        records_per_second: Records; 0: any number.
        bytes_per_second: Bytes of bodies, as sent; 0: any number.
        burst_seconds: What comes in so long may be sent at once.
    """

    records_per_second: int = 0
    bytes_per_second: int = 0
    burst_seconds: float = 10.0

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.records_per_second or self.bytes_per_second)


class Bucket:
    """What may be sent now, and how that grows."""

    __slots__ = ("_at", "_capacity", "_level", "_rate")

    def __init__(self, rate: float, burst_seconds: float, now: float) -> None:
        """It is full; with a rate of 0 it always is."""
        self._rate = rate
        self._capacity = rate * burst_seconds
        self._level = self._capacity
        self._at = now

    def wait(self, amount: float, now: float) -> float:
        """Seconds until there is room for so much, or until it is full where it never holds that; 0: there is."""
        if not self._rate:
            return 0.0
        self._level = self._level_at(now)
        self._at = now
        short = min(amount, self._capacity) - self._level
        return short / self._rate if short > self._rate * _TOLERANCE_SECONDS else 0.0

    def take(self, amount: float) -> None:
        """So much is sent."""
        self._level -= amount

    def is_full(self, now: float) -> bool:
        """Whether it is as if nothing had been sent."""
        return self._level_at(now) >= self._capacity

    def _level_at(self, now: float) -> float:
        return min(self._capacity, self._level + max(0.0, now - self._at) * self._rate)


class _Buckets:
    """Those of a scope.

    Attributes:
        records: That of records.
        bytes: That of bytes.
        wanted: For how many records there has to be room before the next batch is unpacked.
    """

    __slots__ = ("bytes", "records", "wanted")

    def __init__(self, limits: RateLimits, now: float) -> None:
        self.records = Bucket(limits.records_per_second, limits.burst_seconds, now)
        self.bytes = Bucket(limits.bytes_per_second, limits.burst_seconds, now)
        self.wanted = 1

    def are_full(self, now: float) -> bool:
        return self.records.is_full(now) and self.bytes.is_full(now)


class Rates:
    """What all scopes have sent.

    Attributes:
        refused: How many batches were too much.
    """

    def __init__(self, limits: RateLimits) -> None:
        """Nothing yet."""
        self._limits = limits
        self._scopes: dict[str, _Buckets] = {}
        self.refused = 0

    def __len__(self) -> int:
        """Of how many scopes something is kept."""
        return len(self._scopes)

    def bring(self, scope: str, size: int, now: float) -> None:
        """A body of so many bytes has come.

        Raises:
            RateLimited: There is no room for it.
        """
        buckets = self._of(scope, now)
        bytes_wait = buckets.bytes.wait(size, now)
        records_wait = buckets.records.wait(buckets.wanted, now)
        if bytes_wait or records_wait:
            raise self._refusal(records_wait, bytes_wait)
        buckets.bytes.take(size)

    def unpack(self, scope: str, size: int, count: int, now: float) -> None:
        """So many records were in a body that was brought.

        Raises:
            RateLimited: There is no room for them; its bytes do not count either.
        """
        buckets = self._of(scope, now)
        wait = buckets.records.wait(count, now)
        if wait:
            buckets.wanted = count
            buckets.bytes.take(-size)
            raise self._refusal(wait, 0.0)
        buckets.wanted = 1
        buckets.records.take(count)

    def _refusal(self, records_wait: float, bytes_wait: float) -> RateLimited:
        self.refused += 1
        limits = self._limits
        if records_wait >= bytes_wait:
            what = f"{limits.records_per_second} records a second (rate_limit_records)"
        else:
            what = f"{limits.bytes_per_second} bytes a second (rate_limit_bytes)"
        return RateLimited(f"The scope has sent more than {what}", max(records_wait, bytes_wait))

    def _of(self, scope: str, now: float) -> _Buckets:
        """The buckets of a scope, which becomes the last; of those that are the first, the full ones are dropped."""
        buckets = self._scopes.pop(scope, None) or _Buckets(self._limits, now)
        for _ in range(_FORGOTTEN_AT_ONCE):
            first = next(iter(self._scopes), None)
            if first is None or not self._scopes[first].are_full(now):
                break
            del self._scopes[first]
        self._scopes[scope] = buckets
        return buckets
