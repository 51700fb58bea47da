"""Gathers what a collector says of itself: its `Status`, and the checks of its health.

Everything here is known already, by whoever has to do with it, so it may be asked at any moment, and as often as one
likes: nothing is read from disk, and no list of all tenants or buckets is made.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from msgspec import structs
from twisted.internet.interfaces import IReactorTime

import axcollector
from axcollector.core.delivery import UploaderStatus
from axcollector.core.layout import QUARANTINE, Stage
from axcollector.core.status import (
    CatalogStatus,
    Check,
    DeliveryStatus,
    FailedBucket,
    JobStatus,
    Paused,
    StageStatus,
    Status,
    required_checks,
)
from axcollector.core.tally import Ranges
from axcollector.outcomes import UPLOAD_SECONDS
from axcollector.premises import Premises
from axcollector.room import Room
from axcollector.services import Job
from axcollector.splitter import Splitter
from axcollector.surveying import Surveying
from axcollector.uploader import Uploader
from axcollector.upstream import Upstream

STUCK_SECONDS: Final = 600.0
"""After so long without an upload's beginning or end while files wait, the uploader is stuck: no pause is as long."""
STUCK_UPLOAD_SECONDS: Final = 3600.0
"""Likewise where uploads are under way: a large file may take long, and whoever sends it gives up sooner."""
SLOW_SECONDS: Final = 120.0
"""After so long without an end the store is said not to answer. Nothing but what people are told depends on it."""
_COUNTED: Final = (Stage.TMP, Stage.RECOVERED, Stage.STAGING, Stage.FAILED)
"""What the quota counts."""


class Busy(Protocol):
    """Whoever does something now and then."""

    @property
    def jobs(self) -> Sequence[Job]:
        """What."""
        ...


class Source(Busy, Protocol):
    """Where tenants and developers come from."""

    @property
    def heard_at(self) -> float | None:
        """When it was last known that there is nothing newer than what was told."""
        ...


@dataclass(frozen=True, slots=True)
class Stations:
    """What is asked, once it is there.

    Attributes:
        uploader: Knows of delivery, and of staging.
        surveying: Knows of the other stages, and of the store.
        splitters: Know what was salvaged.
        sources: Who tells of tenants: one, or nobody.
        busy: Who else does something now and then.
        room: Measures the room.
        started_at: When they were started.
    """

    uploader: Uploader
    surveying: Surveying
    splitters: Sequence[Splitter]
    sources: Sequence[Source]
    busy: Sequence[Busy]
    room: Job
    started_at: float


class Gathering:
    """Asks everybody.

    Attributes:
        stations: Whom to ask beside those who were there from the beginning; None before the start.
    """

    def __init__(
        self,
        clock: IReactorTime,
        premises: Premises,
        upstream: Upstream,
        room: Room,
        *,
        problems: Callable[[], Mapping[str, str | None]],
        source: str,
        quota_bytes: int,
        sweep_seconds: float,
    ) -> None:
        """Prepare.

        Args:
            clock: Tells the wall-clock time.
            premises: Know the instance.
            upstream: Knows of ingest.
            room: Knows how full it is.
            problems: Says what keeps the collector from being ready.
            source: What the source of tenants is called.
            quota_bytes: How large the spool may be; 0: there is no quota.
            sweep_seconds: From one sweep of staging to the next: so long a file may wait though nothing is wrong.
        """
        self._clock = clock
        self._premises = premises
        self._upstream = upstream
        self._room = room
        self._problems = problems
        self._source = source
        self._quota = quota_bytes
        self._sweep_seconds = sweep_seconds
        self.stations: Stations | None = None

    def uploader_problem(self) -> str | None:
        """Why nothing would ever be delivered; None: nothing shows that."""
        if self.stations is None:
            return "The collector is not started"
        uploader = self.stations.uploader
        status = uploader.status()
        seconds = self._clock.seconds() - uploader.outcomes.moved_at
        if seconds <= (STUCK_UPLOAD_SECONDS if status.in_flight else STUCK_SECONDS + self._sweep_seconds):
            return None
        return (
            f"{status.backlog.buckets} buckets wait, {status.in_flight} uploads are under way, and none has ended for"
            f" {seconds:.0f} s: the log may say why; a restart loses nothing"
        )

    def checks(self) -> Mapping[str, Check]:
        """Everything that should be well, by name."""
        return {**required_checks(self._problems()), "store": self._store_check()}

    def _store_check(self) -> Check:
        if self.stations is None:
            return Check(ok=False, reason="The collector is not started", required=False)
        now, outcomes = self._clock.seconds(), self.stations.uploader.outcomes
        surveying = self.stations.surveying
        problem = self._silence(self.stations, now) or surveying.store_problem
        if outcomes.trouble:
            problem = f"No file was delivered for {now - outcomes.trouble_at:.0f} s: {outcomes.trouble}"
        elif problem is None and outcomes.trouble is None and not surveying.store_is_seen:
            problem = "Not known yet: nothing was sent to it since the start"
        if problem is not None:
            return Check(ok=False, reason=problem, required=False)
        status, said = self.stations.uploader.status(), ""
        for first in status.paused[:1]:
            said = f"{status.paused_count} paused, the first: {first.authority} is paused: {first.reason}"
        return Check(ok=True, reason=said, required=False)

    def _silence(self, stations: Stations, now: float) -> str | None:
        """Why the store seems not to answer at all; None: it does, or is not asked."""
        under_way = stations.uploader.status().in_flight
        seconds = now - stations.uploader.outcomes.moved_at
        if under_way:
            said = f"It does not answer: {under_way} uploads are under way, and none has ended for {seconds:.0f} s"
        else:  # else the look waits for its turn behind them
            seconds = now - (stations.surveying.looking_since or now)
            said = f"It does not answer: looking at it has taken {seconds:.0f} s so far"
        return said if seconds > SLOW_SECONDS else None

    def status(self) -> Status:
        """All of it."""
        account = self._upstream.account()
        stations = self.stations
        jobs = [*(_jobs(stations) if stations is not None else ()), *account.jobs]
        stages = _stages(stations)
        quota = self._quota or None
        sizes = [stage.bytes for stage in stages if stage.name in _COUNTED]
        return Status(
            version=axcollector.__version__,
            instance_id=self._premises.instance_id,
            now=self._clock.seconds(),
            started_at=stations.started_at if stations is not None else 0.0,
            checks=self.checks(),
            spool_bytes=self._room.used_bytes if self._room.used_bytes is not None else sum(sizes),
            spool_quota_bytes=quota,
            ingest=account.ingest,
            stages=stages,
            delivery=_delivery(stations),
            catalog=self._catalog(account.catalog),
            jobs=[JobStatus(job.name, job.runs, job.failures, job.reason) for job in jobs],
            workers=account.workers,
            disk_free_share=self._room.free_share,
        )

    def _catalog(self, shown: CatalogStatus) -> CatalogStatus:
        heard = [source.heard_at for source in self.stations.sources] if self.stations is not None else []
        return structs.replace(shown, source=self._source, heard_at=heard[0] if heard else None)


def _jobs(stations: Stations) -> Iterator[Job]:
    """The periodic work of all stations."""
    yield stations.room
    everybody: Sequence[Busy] = (*stations.sources, stations.uploader, *stations.busy, stations.surveying)
    for each in everybody:
        yield from each.jobs


def _stages(stations: Stations | None) -> Sequence[StageStatus]:
    """What lies in each stage, in the order in which data goes."""
    order = (Stage.TMP, Stage.RECOVERED, Stage.STAGING, Stage.FAILED, QUARANTINE)
    if stations is None:
        return [StageStatus(name=name) for name in order]
    backlog = stations.uploader.status().backlog
    oldest_at = None if backlog.oldest_start is None else float(backlog.oldest_start)
    staging = StageStatus(name=Stage.STAGING, buckets=backlog.buckets, bytes=backlog.bytes, oldest_at=oldest_at)
    found = {**stations.surveying.stages.found, Stage.STAGING: staging}
    return [found[name] for name in order]


def _delivery(stations: Stations | None) -> DeliveryStatus:
    """How delivery goes."""
    if stations is None:
        return DeliveryStatus(upload_seconds=Ranges(UPLOAD_SECONDS).histogram())
    uploader = stations.uploader
    status, outcomes = uploader.status(), uploader.outcomes
    failed = stations.surveying.stages.failed
    return DeliveryStatus(
        attempts=_attempts(status),
        delivered_files=status.counts.delivered_files,
        delivered_bytes=status.counts.delivered_bytes,
        delivered_records=status.counts.delivered_records,
        delivered_at=outcomes.delivered_at,
        upload_seconds=outcomes.upload_seconds.histogram(),
        lag_seconds=outcomes.lag_seconds,
        under_way=status.in_flight,
        paused=[Paused(each.authority, each.reason, each.until) for each in status.paused],
        paused_count=status.paused_count,
        paused_until=status.paused_until,
        failed=[FailedBucket(each.bucket, each.bytes, outcomes.reason_of(each.bucket)) for each in failed],
        salvaged_batches=sum(splitter.salvaged for splitter in stations.splitters),
    )


def _attempts(status: UploaderStatus) -> Mapping[str, int]:
    """Uploads that ended, by result."""
    counts = status.counts
    return {
        "delivered": counts.delivered_files,
        "failed": counts.failed_tries,
        "paused": counts.paused_tries,
        "broken_off": counts.broken_off,
        "vanished": counts.vanished_files,
    }
