"""What is counted on the way in, and the sums of several processes."""

import pytest

from axcollector.core.model import Batch, Tenant
from axcollector.core.status import Histogram, RequestCount, TenantTraffic
from axcollector.core.tally import Ranges, Tally, total
from axcollector.core.traffic import Traffic

ACME = Tenant("1", "acme", "prod")
OTHER = Tenant("2", "other", "test")


class Doors:
    """Counts connections."""

    count = 3
    refused = 2


def test_ranges() -> None:
    """A bound belongs to the range that it ends; what is beyond the last is counted too."""
    ranges = Ranges((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 9.0):
        ranges.add(value)
    assert ranges.histogram() == Histogram((1.0, 2.0), (2, 2, 1), 14.0)


def busy() -> Tally:
    """One that has counted."""
    tally = Tally()
    tally.answered("scope", 200, "ACCEPTED")
    tally.answered("scope", 200, "ACCEPTED")
    tally.answered("other", 404, "NOT_FOUND")
    tally.committed([Batch(ACME, b"12345", 2), Batch(OTHER, b"1", 1, b"bad", 4)], 0.002, 50.0)
    tally.committed([Batch(ACME, b"123", 3)], -1.0, 60.0)
    tally.connections = Doors()
    return tally


def test_a_tally() -> None:
    """Requests by route and answer, records, bytes, what was set aside, and commits; a clock set back is no time."""
    ingest = busy().ingest(7, 70, 5)
    assert ingest.requests == [RequestCount("scope", 200, "ACCEPTED", 2), RequestCount("other", 404, "NOT_FOUND", 1)]
    assert (ingest.accepted_records, ingest.accepted_bytes, ingest.quarantined_records) == (6, 9, 4)
    assert (ingest.commits, ingest.commit_seconds.sum, ingest.commit_batches.sum) == (2, 0.002, 3)
    assert (sum(ingest.commit_seconds.counts), ingest.commit_batches.counts[:2]) == (2, (1, 1))
    assert (ingest.pending_batches, ingest.pending_bytes, ingest.open_buckets) == (7, 70, 5)
    assert (ingest.connections, ingest.refused_connections) == (3, 2)


def test_the_sum_of_processes() -> None:
    """Totals of those that have ended count; what waited in them does not."""
    part = busy().ingest(7, 70, 5)
    summed = total([part, part], total([part], Tally().ingest()))
    assert {each.code: each.count for each in summed.requests} == {"ACCEPTED": 6, "NOT_FOUND": 3}
    assert (summed.accepted_records, summed.accepted_bytes, summed.quarantined_records) == (18, 27, 12)
    assert (summed.commits, summed.commit_batches.sum, sum(summed.commit_seconds.counts)) == (6, 9, 6)
    assert (summed.pending_batches, summed.pending_bytes, summed.open_buckets) == (14, 140, 10)
    assert (summed.connections, summed.refused_connections) == (6, 6)
    assert total([], summed).pending_batches == 0


def test_traffic() -> None:
    """Records, bytes and the last time by tenant; pieces of any length hold all of them once."""
    traffic = busy().traffic
    assert [each for piece in traffic.pieces(1) for each in piece] == [
        TenantTraffic("acme", "prod", 5, 8, 60.0),
        TenantTraffic("other", "test", 1, 1, 50.0),
    ]
    assert len(traffic) == 2
    assert list(Traffic().pieces(5)) == []


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_traffic_moves(limit: int) -> None:
    """What is taken out of one table and added to another is there once, whatever comes between."""
    source, target = busy().traffic, Traffic()
    target.add_all(source.take(limit))
    source.add(("acme", "prod"), 1, 2, 70.0)
    while len(source):
        target.add_all(source.take(limit))
    (found,) = target.pieces(10)
    assert {each.organization: (each.records, each.bytes, each.last_at) for each in found} == {
        "acme": (6, 10, 70.0),
        "other": (1, 1, 50.0),
    }
