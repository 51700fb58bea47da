"""What the status page's charts show: a few numbers every two seconds, of the last half hour.

A sample is what has happened since the one before, and how long things took meanwhile; it is a row of numbers, some of
which may be missing. Samples are numbered, so that whoever has the first hundred asks for what came since.

    GET /history?since=N    {"run": when the collector began, "first": N or the oldest kept, "next": N for next time,
                             "rows": [[at, records_per_second, …], …], "columns": ["at", …]}
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec
from klein import Klein
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IRequest

from axcollector import answers
from axcollector.admin.asked import number_asked
from axcollector.core.status import Histogram, Status
from axcollector.services import Periodic

SAMPLE_SECONDS: Final = 2.0
KEPT: Final = 900
"""Half an hour."""


class Sample(NamedTuple):
    """What a collector did between two moments.

    Attributes:
        at: The later one, in seconds since 1970.
        records: Records that became durable, a second.
        bytes: The bytes of their lines, a second.
        commit_median: What half of the commits took at most, in seconds; None: there was none.
        commit_slow: What 99 of 100 took at most.
        lag: How long after the end of its interval the last delivered file was delivered, in seconds; None: none was
            delivered meanwhile.
        waiting: How long the oldest bucket in staging has been complete, in seconds; None: nothing waits there.
        delivered: Bytes of files that the store has taken, a second.
    """

    at: float
    records: float
    bytes: float
    commit_median: float | None
    commit_slow: float | None
    lag: float | None
    waiting: float | None
    delivered: float


class History:
    """The samples of the last half hour. Pure."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=KEPT)
        self._before: Status | None = None
        self._next = 0

    def note(self, status: Status) -> None:
        """Take a sample; the first status is only what the second one is compared with."""
        before, self._before = self._before, status
        if before is not None and status.now > before.now:
            self._samples.append(sample_between(before, status))
            self._next += 1

    def since(self, number: int) -> tuple[int, Sequence[Sample]]:
        """The samples from a number on, or from the oldest; and the number of the first of them."""
        first = max(0, number, self._next - len(self._samples))
        samples = list(self._samples)[len(self._samples) - max(0, self._next - first) :]
        return self._next - len(samples), samples

    @property
    def run(self) -> float:
        """When the collector began to serve, which tells one numbering from another."""
        return 0.0 if self._before is None else self._before.started_at


def sample_between(before: Status, after: Status) -> Sample:
    """What happened between two statuses; where a total fell, as that of a worker that has gone may, nothing."""
    seconds = after.now - before.now

    def rate(early: int, late: int) -> float:
        return round(max(0, late - early) / seconds, 3)

    ingest, ingested = before.ingest, after.ingest
    took = [
        late - early for early, late in zip(ingest.commit_seconds.counts, ingested.commit_seconds.counts, strict=False)
    ]
    commits = Histogram(ingested.commit_seconds.bounds, took)
    has_delivered = after.delivery.delivered_files > before.delivery.delivered_files
    staging = next((stage for stage in after.stages if stage.name == "staging"), None)
    oldest = None if staging is None else staging.oldest_at
    return Sample(
        round(after.now, 3),
        rate(ingest.accepted_records, ingested.accepted_records),
        rate(ingest.accepted_bytes, ingested.accepted_bytes),
        quantile(commits, 0.5),
        quantile(commits, 0.99),
        after.delivery.lag_seconds if has_delivered else None,
        None if oldest is None else round(max(0.0, after.now - oldest), 3),
        rate(before.delivery.delivered_bytes, after.delivery.delivered_bytes),
    )


def quantile(histogram: Histogram, share: float) -> float | None:
    """What so large a share of the values is at most, as far as ranges tell: each is taken for evenly filled."""
    counts = [max(0, count) for count in histogram.counts]
    total = sum(counts)
    if not total:
        return None
    rank, lower = share * total, 0.0
    for bound, count in zip(histogram.bounds, counts, strict=False):
        if count and rank <= count:
            return round(lower + (bound - lower) * rank / count, 6)
        rank -= count
        lower = bound
    return lower


class Told(Protocol):
    """Who tells how a collector is."""

    def status(self) -> Status:
        """All of it, at this moment."""
        ...


def sampling(clock: IReactorTime, teller: Told, history: History) -> Periodic:
    """What takes the samples."""
    return Periodic(clock, SAMPLE_SECONDS, "samples for the status page", lambda: history.note(teller.status()))


def add_history(app: Klein, history: History) -> None:
    """Give an app the route of the samples."""
    encode: Callable[[object], bytes] = msgspec.json.Encoder().encode

    @app.route("/history", methods=["GET"])
    def samples(request: IRequest) -> bytes:
        """The samples since a number."""
        first, samples = history.since(number_asked(request, "since"))
        body = {
            "run": history.run,
            "first": first,
            "next": first + len(samples),
            "columns": Sample._fields,
            "rows": samples,
        }
        return answers.give(request, 200, encode(body))
