"""The metrics of a collector, made of its `Status` and of nothing else, so that they cannot contradict it.

Each is described here, in `docs/metrics.rst` and, where it warns of something, in `docs/examples/alerts.yml`; tests
hold the three together. No metric has a label whose values come from outside: of 10,000 tenants each would be a
series, in every scrape and for every collector. `/tenants` tells of them.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from axcollector.core.status import CatalogStatus, DeliveryStatus, Histogram, IngestStatus, Status

_PREFIX: Final = "axcollector_"


def families(status: Status) -> Iterator[Metric]:
    """All of them."""
    yield from _of_health(status)
    yield from _of_ingest(status.ingest)
    yield from _of_stages(status)
    yield from _of_delivery(status.delivery, status.now)
    yield from _of_catalog(status.catalog, status.now)
    yield from _of_jobs(status)


def _of_health(status: Status) -> Iterator[Metric]:
    yield _gauges("build_info", "The version that runs; its value is always 1.", "version", {status.version: 1})
    yield _gauge("ready", "Whether /readyz answers 200.", status.ready)
    checks = {name: check.ok for name, check in status.checks.items()}
    yield _gauges("check_ok", "Whether a check of /readyz is well; store does not decide.", "check", checks)
    if status.workers:
        ready = sum(worker.ready for worker in status.workers)
        yield _gauge("workers", "Worker processes that there are.", len(status.workers))
        yield _gauge("workers_ready", "Worker processes that take records.", ready)


def _of_ingest(ingest: IngestStatus) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        _PREFIX + "requests", "Requests that were answered.", labels=["route", "status", "code"]
    )
    for each in ingest.requests:
        requests.add_metric([each.route, str(each.status), each.code], each.count)
    yield requests
    yield _counter("accepted_records", "Records that became durable, without those set aside.", ingest.accepted_records)
    yield _counter("accepted_bytes", "Bytes of their lines, uncompressed.", ingest.accepted_bytes)
    yield _counter("quarantined_records", "Invalid records that were set aside.", ingest.quarantined_records)
    yield _histogram("commit_seconds", "How long commits took, fsync included.", ingest.commit_seconds)
    yield _histogram("commit_batches", "How many batches a commit held.", ingest.commit_batches)
    yield _gauge("pending_batches", "Batches that wait for a commit.", ingest.pending_batches)
    yield _gauge("pending_bytes", "Bytes of the lines of batches that wait for a commit.", ingest.pending_bytes)
    yield _gauge("open_buckets", "Buckets of tenants in the journals that are written now.", ingest.open_buckets)
    yield _gauge("connections", "Open connections on the ingest port.", ingest.connections)
    refused = "Connections that were closed at once, because there were too many."
    yield _counter("refused_connections", refused, ingest.refused_connections)


def _of_stages(status: Status) -> Iterator[Metric]:
    stages = status.stages
    ages = {each.name: 0.0 if each.oldest_at is None else max(0.0, status.now - each.oldest_at) for each in stages}
    counts = {each.name: each.buckets for each in stages}
    yield _gauges("stage_buckets", "Buckets that lie in a stage; in tmp and recovered journals.", "stage", counts)
    yield _gauges("stage_bytes", "Bytes that lie in a stage.", "stage", {each.name: each.bytes for each in stages})
    about = "Age of the interval of the oldest bucket in a stage, since it began; 0 where there is none."
    yield _gauges("stage_oldest_age_seconds", about, "stage", ages)
    yield _gauge("spool_bytes", "Bytes that count against spool_quota_bytes.", status.spool_bytes)
    if status.spool_quota_bytes is not None:
        yield _gauge("spool_quota_bytes", "The quota of the spool, where one is set.", status.spool_quota_bytes)
    if status.disk_free_share is not None:
        yield _gauge("disk_free_ratio", "The free share of the spool's file system, 0 to 1.", status.disk_free_share)


def _of_delivery(delivery: DeliveryStatus, now: float) -> Iterator[Metric]:
    attempts = CounterMetricFamily(_PREFIX + "upload_attempts", "Uploads that ended, by result.", labels=["result"])
    for result, count in delivery.attempts.items():
        attempts.add_metric([result], count)
    yield attempts
    yield _histogram("upload_seconds", "How long uploads of delivered files took.", delivery.upload_seconds)
    yield _gauge("uploads_under_way", "Uploads at this moment.", delivery.under_way)
    yield _counter("delivered_files", "Files that the store has taken.", delivery.delivered_files)
    yield _counter("delivered_bytes", "Bytes of the files that the store has taken.", delivery.delivered_bytes)
    yield _counter("delivered_records", "Records in the files that the store has taken.", delivery.delivered_records)
    delivered_at = delivery.delivered_at or 0.0
    yield _gauge("last_delivery_timestamp_seconds", "When the last file was delivered; 0: none was yet.", delivered_at)
    if delivery.lag_seconds is not None:
        about = "How long after the end of its interval the last delivered file was delivered."
        yield _gauge("delivery_lag_seconds", about, delivery.lag_seconds)
    yield _gauge("paused_endpoints", "Stores, signers or tenants at a signer that are paused.", delivery.paused_count)
    remaining = 0.0 if delivery.paused_until is None else max(0.0, delivery.paused_until - now)
    yield _gauge("pause_remaining_seconds", "How long the longest pause goes on; 0: none.", remaining)
    yield _counter("salvaged_batches", "Batches taken out of torn or damaged journals.", delivery.salvaged_batches)


def _of_catalog(catalog: CatalogStatus, now: float) -> Iterator[Metric]:
    yield _gauges("catalog_rows", "Rows of the catalog, by table.", "table", catalog.rows)
    if catalog.changed_at is not None:
        age = max(0.0, now - catalog.changed_at)
        yield _gauge("catalog_age_seconds", "How long ago the catalog last changed.", age)
    if catalog.rebuild_seconds is not None:
        yield _gauge("catalog_rebuild_seconds", "How long its last rebuild took.", catalog.rebuild_seconds)
    if catalog.heard_at is not None:
        lag = max(0.0, now - catalog.heard_at)
        yield _gauge("sync_lag_seconds", "How long ago the source was last known to have nothing newer.", lag)


def _of_jobs(status: Status) -> Iterator[Metric]:
    runs = CounterMetricFamily(_PREFIX + "job_runs", "How often periodic work was done.", labels=["work"])
    failures = CounterMetricFamily(_PREFIX + "job_failures", "How often periodic work failed.", labels=["work"])
    for job in _by_name(status):
        runs.add_metric([job[0]], job[1])
        failures.add_metric([job[0]], job[2])
    yield runs
    yield failures


def _by_name(status: Status) -> Iterable[tuple[str, int, int]]:
    """Periodic work, that of one name added up: no two series may be the same."""
    found: dict[str, tuple[int, int]] = {}
    for job in status.jobs:
        runs, failures = found.get(job.name, (0, 0))
        found[job.name] = runs + job.runs, failures + job.failures
    return [(name, *counts) for name, counts in found.items()]


def _counter(name: str, about: str, value: float) -> Metric:
    return CounterMetricFamily(_PREFIX + name, about, value=value)


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, about, value=value)


def _gauges(name: str, about: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(_PREFIX + name, about, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _histogram(name: str, about: str, histogram: Histogram) -> Metric:
    """Cumulated, as Prometheus has them."""
    buckets: list[tuple[str, float]] = []
    below = 0
    for bound, count in zip([*map(repr, map(float, histogram.bounds)), "+Inf"], histogram.counts, strict=True):
        below += count
        buckets.append((bound, below))
    return HistogramMetricFamily(_PREFIX + name, about, buckets=buckets, sum_value=histogram.sum)
