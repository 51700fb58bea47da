"""A collector's status as a table for people. Pure."""

from collections.abc import Iterator, Sequence
from typing import Final

from axcollector.cli import shown
from axcollector.cli.options import printable
from axcollector.core.status import Histogram, RequestCount, Status

_LABEL_CELLS: Final = 14
_ERRORS: Final = 400
_MOST: Final = 10
"""So many failed buckets, pauses and jobs are named; there may be a thousand."""


def table(status: Status, before: Status | None = None) -> str:
    """The table; with rates, where an earlier status of the same process is given."""
    if before is not None and (before.started_at != status.started_at or before.now >= status.now):
        before = None
    lines = [*_head(status), "", *_flow(status, before), "", *_stages(status), *_troubles(status)]
    return "".join(printable(line).rstrip() + "\n" for line in lines)


def _row(label: str, text: str) -> str:
    return f"{label:<{_LABEL_CELLS}}{text}"


def _head(status: Status) -> Iterator[str]:
    ready = "ready" if status.ready else "NOT READY"
    up = shown.age(status.now - status.started_at)
    yield _row("axcollector", f"{status.version}, up {up}, {ready}")
    for name, check in status.checks.items():
        yield _row(f"  {name}", "ok" if check.ok else check.reason)
    quota = "" if status.spool_quota_bytes is None else f" of {shown.size(status.spool_quota_bytes)}"
    yield _row("spool", f"{shown.size(status.spool_bytes)}{quota}")
    catalog = status.catalog
    if catalog.version is None:
        yield _row("catalog", f"none yet (from {catalog.source})")
    else:
        rows = ", ".join(f"{count:,} {name.rpartition('.')[2]}" for name, count in catalog.rows.items() if count)
        changed = "" if catalog.changed_at is None else f", changed {shown.age(status.now - catalog.changed_at)} ago"
        yield _row("catalog", f"from {catalog.source}{changed}{': ' if rows else ''}{rows}")
    if status.workers:
        ready_workers = sum(each.ready for each in status.workers)
        yield _row("workers", f"{ready_workers} of {len(status.workers)} take records")


def _flow(status: Status, before: Status | None) -> Iterator[str]:
    ingest, delivery = status.ingest, status.delivery
    seconds = None if before is None else status.now - before.now

    def rate(now: int, then: int) -> str:
        return "" if seconds is None else f"  {(now - then) / seconds:,.0f}/s"

    def bytes_rate(now: int, then: int) -> str:
        return "" if seconds is None else f"  {shown.size(max(0.0, (now - then) / seconds))}/s"

    was = before or status
    refused = _refused(status)
    yield _row(
        "accepted", f"{ingest.accepted_records:,} records{rate(ingest.accepted_records, was.ingest.accepted_records)}"
    )
    yield _row("", f"{shown.size(ingest.accepted_bytes)}{bytes_rate(ingest.accepted_bytes, was.ingest.accepted_bytes)}")
    yield _row("refused", f"{refused:,} requests{rate(refused, _refused(was))}{_most_refused(status)}")
    if ingest.quarantined_records:
        yield _row("set aside", f"{ingest.quarantined_records:,} records")
    yield _row("commits", f"{ingest.commits:,}{rate(ingest.commits, was.ingest.commits)}{_mean(status, before)}")
    yield _row("pending", f"{ingest.pending_batches:,} batches, {shown.size(ingest.pending_bytes)}")
    yield _row("connections", f"{ingest.connections:,}")
    files = f"{delivery.delivered_files:,} files{rate(delivery.delivered_files, was.delivery.delivered_files)}"
    yield _row("delivered", f"{files}, {delivery.under_way} under way")
    done, then = delivery.delivered_bytes, was.delivery.delivered_bytes
    yield _row("", f"{delivery.delivered_records:,} records, {shown.size(done)}{bytes_rate(done, then)}")
    if delivery.lag_seconds is not None:
        yield _row("lag", f"the last file {shown.age(delivery.lag_seconds)} after its interval was over")


def _refusals(status: Status) -> Sequence[RequestCount]:
    return [each for each in status.ingest.requests if each.status >= _ERRORS]


def _refused(status: Status) -> int:
    return sum(each.count for each in _refusals(status))


def _most_refused(status: Status) -> str:
    worst = sorted(_refusals(status), key=lambda each: -each.count)
    named = ", ".join(f"{each.count:,} × {each.status} {each.code}" for each in worst[:3] if each.count)
    return f"  ({named})" if named else ""


def _mean(status: Status, before: Status | None) -> str:
    """How long a commit takes on average, since the last time if there was one."""
    now = status.ingest.commit_seconds
    then = before.ingest.commit_seconds if before is not None else Histogram((), (0,))
    count = sum(now.counts) - sum(then.counts)
    return f", {(now.sum - then.sum) / count * 1000:.1f} ms each" if count > 0 else ""


def _stages(status: Status) -> Iterator[str]:
    rows: list[Sequence[str]] = [("stage", "buckets", "size", "oldest")]
    for stage in status.stages:
        oldest = "-" if stage.oldest_at is None else f"{shown.age(status.now - stage.oldest_at)} ago"
        rows.append((stage.name, f"{stage.buckets:,}", shown.size(stage.bytes), oldest))
    widths = [max(map(len, texts)) for texts in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))


def _troubles(status: Status) -> Iterator[str]:
    """What an operator would want to act on."""
    delivery = status.delivery
    lines = [f"paused  {each.authority}: {each.reason}" for each in delivery.paused[:_MOST]]
    if delivery.paused_count > len(lines):
        lines.append(f"        and {delivery.paused_count - len(lines):,} more that are paused")
    lines += [
        f"failed  {each.bucket}: {each.reason or 'why is not known any more'}" for each in delivery.failed[:_MOST]
    ]
    if len(delivery.failed) > _MOST:
        lines.append(f"        and {len(delivery.failed) - _MOST:,} more; see `axcollector ls failed`")
    lines += [
        f"job     {each.name} failed {each.failures:,} times: {each.reason}" for each in status.jobs if each.failures
    ]
    if lines:
        yield ""
        yield from lines
