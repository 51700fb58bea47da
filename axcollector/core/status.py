"""What a collector says of itself at one moment: what metrics, the status page and `axcollector status` are made of.

A `Status` is frozen and has no behaviour; it is the JSON of `GET /status` on the admin port. Times are seconds, moments
are seconds since 1970, sizes are bytes; totals count from the start of the process. With workers it is the sum of them.
"""

from collections.abc import Mapping, Sequence

import msgspec


class Check(msgspec.Struct, frozen=True):
    """Whether one thing is as it should be, and why not.

    Attributes:
        ok: Whether it is, as far as is known.
        reason: Why not; or what is not known.
        required: Whether readiness needs it. The store is only told of: while it cannot be reached, records are safe
            here, and other collectors could not reach it either.
    """

    ok: bool
    reason: str = ""
    required: bool = True


class Histogram(msgspec.Struct, frozen=True):
    """How often a value fell into which range.

    Attributes:
        bounds: The upper ends of the ranges, ascending, each included; a last range without an end follows.
        counts: How many values fell into each range, one more than `bounds`; not cumulated.
        sum: The sum of all values.
    """

    bounds: Sequence[float]
    counts: Sequence[int]
    sum: float = 0.0


class RequestCount(msgspec.Struct, frozen=True):
    """How many requests were answered so.

    Attributes:
        route: `scope`, `names`, `body`: how the tenant was named; `other` for what no route has.
        status: The answer's HTTP status.
        code: Its `errorCode`; `ACCEPTED` where it was taken.
        count: How many.
    """

    route: str
    status: int
    code: str
    count: int


class IngestStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The way from a request to a durable batch.

    Attributes:
        requests: By route and answer.
        accepted_records: Records of batches that are durable, those set aside not counted.
        accepted_bytes: The bytes of their lines, enriched, before compression.
        quarantined_records: Records that were set aside.
        commits: Commits that succeeded.
        commit_seconds: How long commits took, from the hand-over to the writer to the end of the fsync.
        commit_batches: How many batches a commit held.
        pending_batches: Batches that wait for a commit.
        pending_bytes: The bytes of their lines.
        connections: Open connections.
        refused_connections: Connections that were closed at once, because there were too many.
        open_buckets: Buckets of tenants in the journals that are written now.
    """

    requests: Sequence[RequestCount] = ()
    accepted_records: int = 0
    accepted_bytes: int = 0
    quarantined_records: int = 0
    commits: int = 0
    commit_seconds: Histogram
    commit_batches: Histogram
    pending_batches: int = 0
    pending_bytes: int = 0
    connections: int = 0
    refused_connections: int = 0
    open_buckets: int = 0


class StageStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What lies in one stage: `tmp`, `recovered`, `staging`, `failed`, `quarantine`.

    Attributes:
        name: The stage.
        buckets: How many buckets (in `tmp` and `recovered` journals) lie there.
        bytes: Of all files in them.
        oldest_at: When the interval of the oldest began; None where there is none.
    """

    name: str
    buckets: int = 0
    bytes: int = 0
    oldest_at: float | None = None


class Paused(msgspec.Struct, frozen=True):
    """An authority (host and port) that nothing is sent to until a moment."""

    authority: str
    reason: str
    until: float


class FailedBucket(msgspec.Struct, frozen=True, gc=False):
    """A bucket that was given up, and why its last attempt failed ("" where that is not known any more)."""

    bucket: str
    bytes: int
    reason: str = ""


class DeliveryStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The way from a bucket to the store.

    Attributes:
        attempts: Uploads that ended, by result: `delivered`, `failed`, `paused`, `broken_off`, `vanished`.
        delivered_files: Files that the store has taken.
        delivered_bytes: Their bytes.
        delivered_records: The records in them.
        delivered_at: When the last was; None before the first.
        upload_seconds: How long the uploads of delivered files took.
        lag_seconds: How long after the end of its interval the last delivered file was delivered; None before.
        under_way: Uploads at this moment.
        paused: The authorities that are paused, at most 100.
        paused_count: How many are paused.
        paused_until: Until when the longest pause lasts; None where there is none.
        failed: Buckets in `failed`, the oldest first, at most 1,000.
        salvaged_batches: Batches that were taken out of damaged journals.
    """

    attempts: Mapping[str, int] = {}
    delivered_files: int = 0
    delivered_bytes: int = 0
    delivered_records: int = 0
    delivered_at: float | None = None
    upload_seconds: Histogram
    lag_seconds: float | None = None
    under_way: int = 0
    paused: Sequence[Paused] = ()
    paused_count: int = 0
    paused_until: float | None = None
    failed: Sequence[FailedBucket] = ()
    salvaged_batches: int = 0


class CatalogStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of tenants and developers.

    Attributes:
        source: `registry`, `transicator` or `none`.
        version: Of the last snapshot or change list that it shows; None: there is no catalog yet.
        rows: By table.
        changed_at: When it last changed; None: never.
        heard_at: When the source was last known to have nothing newer; None: never.
        rebuild_seconds: How long the last rebuild took; None: there was none.
    """

    source: str
    version: str | None = None
    rows: Mapping[str, int] = {}
    changed_at: float | None = None
    heard_at: float | None = None
    rebuild_seconds: float | None = None


class JobStatus(msgspec.Struct, frozen=True):
    """A periodic job: how often it ran and failed, and what its last failure said."""

    name: str
    runs: int = 0
    failures: int = 0
    reason: str = ""


class WorkerStatus(msgspec.Struct, frozen=True):
    """A worker process: its number, its pid (None: there is none now), and whether it takes records."""

    number: int
    pid: int | None
    ready: bool


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """All of it.

    Attributes:
        version: Of axcollector.
        instance_id: Of the data directory; "" before the start.
        now: When this was said.
        started_at: When the process began to serve.
        checks: What should be well, by name.
        spool_bytes: What lies in the data directory, as far as the quota counts it.
        spool_quota_bytes: The quota; None: there is none.
        ingest: From requests to durable batches.
        stages: What lies on disk, in the order in which data goes.
        delivery: From buckets to the store.
        catalog: What is known of tenants.
        jobs: The periodic jobs.
        workers: The worker processes; empty where there is one process only.
        disk_free_share: The share of the spool's file system that is free, 0 to 1; None: it was not measured yet.
    """

    version: str
    instance_id: str
    now: float
    started_at: float
    checks: Mapping[str, Check]
    spool_bytes: int = 0
    spool_quota_bytes: int | None = None
    ingest: IngestStatus
    stages: Sequence[StageStatus] = ()
    delivery: DeliveryStatus
    catalog: CatalogStatus
    jobs: Sequence[JobStatus] = ()
    workers: Sequence[WorkerStatus] = ()
    disk_free_share: float | None = None

    @property
    def ready(self) -> bool:
        """Whether a batch would be taken, and be delivered once the store can be reached."""
        return is_ready(self.checks)


def is_ready(checks: Mapping[str, Check]) -> bool:
    """Whether all that is required is well."""
    return all(check.ok or not check.required for check in checks.values())


def required_checks(problems: Mapping[str, str | None]) -> dict[str, Check]:
    """Checks that readiness needs, from what is wrong with each; None where nothing is."""
    return {name: Check(problem is None, problem or "") for name, problem in problems.items()}


class TenantTraffic(msgspec.Struct, frozen=True, gc=False):
    """What one tenant has sent since the start; `GET /tenants` is a list of these, by records, descending."""

    organization: str
    environment: str
    records: int
    bytes: int
    last_at: float
