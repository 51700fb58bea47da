"""What one process counts on the way from a request to a durable batch.

The hot path adds to numbers that are there already, and nothing else: what becomes of them (a `Status`, metrics) is
made when somebody asks. Workers tell their parent the totals, and what tenants have sent since they last told it.

Pure.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from axcollector.core.model import Batch
from axcollector.core.status import Histogram, IngestStatus, RequestCount
from axcollector.core.traffic import Traffic

COMMIT_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
COMMIT_BATCHES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)


class Ranges:
    """Counts into which of some ranges values fall.

    Attributes:
        sum: The sum of all values.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        """None yet; the upper ends of the ranges, ascending, are included in them."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def histogram(self) -> Histogram:
        """What was counted so far."""
        return Histogram(self._bounds, tuple(self._counts), self.sum)


class Connected(Protocol):
    """Whoever counts connections."""

    count: int
    refused: int


class Tally:
    """The counts of one process.

    Attributes:
        traffic: What tenants have sent.
        connections: Who counts connections; None where nobody does, as in another program's site.
    """

    def __init__(self) -> None:
        """Nothing was counted yet."""
        self._requests: defaultdict[tuple[str, int, str], int] = defaultdict(int)
        self._records = self._bytes = self._quarantined = self._commits = 0
        self._commit_seconds = Ranges(COMMIT_SECONDS)
        self._commit_batches = Ranges(COMMIT_BATCHES)
        self.traffic = Traffic()
        self.connections: Connected | None = None

    def answered(self, route: str, status: int, code: str) -> None:
        """A request was answered so; see `RequestCount`."""
        self._requests[route, status, code] += 1

    def committed(self, batches: Sequence[Batch], seconds: float, now: float) -> None:
        """Batches became durable together, after so many seconds."""
        self._commits += 1
        self._commit_seconds.add(max(0.0, seconds))  # the clock may have been set back
        self._commit_batches.add(len(batches))
        records = total_size = quarantined = 0
        add = self.traffic.add
        for batch in batches:
            tenant, count, size = batch.tenant, batch.count, len(batch.lines)
            records += count
            total_size += size
            quarantined += batch.aside_count
            add((tenant.organization, tenant.environment), count, size, now)
        self._records += records
        self._bytes += total_size
        self._quarantined += quarantined

    def ingest(self, pending_batches: int = 0, pending_bytes: int = 0, open_buckets: int = 0) -> IngestStatus:
        """All of it, given what waits for a commit, and how many buckets the open journal will make."""
        return IngestStatus(
            requests=[RequestCount(*key, count) for key, count in self._requests.items()],
            accepted_records=self._records,
            accepted_bytes=self._bytes,
            quarantined_records=self._quarantined,
            commits=self._commits,
            commit_seconds=self._commit_seconds.histogram(),
            commit_batches=self._commit_batches.histogram(),
            pending_batches=pending_batches,
            pending_bytes=pending_bytes,
            connections=self.connections.count if self.connections is not None else 0,
            refused_connections=self.connections.refused if self.connections is not None else 0,
            open_buckets=open_buckets,
        )


def total(parts: Iterable[IngestStatus], ended: IngestStatus) -> IngestStatus:
    """The sum of what processes that are there say, and of what those that have ended said last.

    Args:
        parts: Of each that is there.
        ended: The sum of the others, as this function makes it; only its totals count.
    """
    living = list(parts)
    everybody = [ended, *living]
    requests: defaultdict[tuple[str, int, str], int] = defaultdict(int)
    for each in everybody:
        for request in each.requests:
            requests[request.route, request.status, request.code] += request.count
    return IngestStatus(
        requests=[RequestCount(*key, count) for key, count in requests.items()],
        accepted_records=sum(each.accepted_records for each in everybody),
        accepted_bytes=sum(each.accepted_bytes for each in everybody),
        quarantined_records=sum(each.quarantined_records for each in everybody),
        commits=sum(each.commits for each in everybody),
        commit_seconds=_added([each.commit_seconds for each in everybody]),
        commit_batches=_added([each.commit_batches for each in everybody]),
        pending_batches=sum(each.pending_batches for each in living),
        pending_bytes=sum(each.pending_bytes for each in living),
        connections=sum(each.connections for each in living),
        refused_connections=sum(each.refused_connections for each in everybody),
        open_buckets=sum(each.open_buckets for each in living),
    )


def _added(histograms: Sequence[Histogram]) -> Histogram:
    """The sum of histograms with the same ranges."""
    counts = [sum(column) for column in zip(*(each.counts for each in histograms), strict=True)]
    return Histogram(histograms[0].bounds, counts, sum(each.sum for each in histograms))
