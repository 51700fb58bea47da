"""Metrics: made of a status, named as Prometheus wants it, described, and used by the examples."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector
from twisted.internet.task import Clock
from twisted.web.server import Site

from axcollector.admin.families import families
from axcollector.admin.health import HealthAPI
from axcollector.admin.metrics import add_metrics
from axcollector.core.status import (
    CatalogStatus,
    Check,
    DeliveryStatus,
    Histogram,
    IngestStatus,
    JobStatus,
    Paused,
    RequestCount,
    StageStatus,
    Status,
    WorkerStatus,
)
from tests.docs_blocks import blocks
from tests.promtool import check_config, check_metrics, check_rules, families_in, faults_in, names_in, needs_promtool
from tests.wire import Answer, Connection, request

DOCS: Final = Path(__file__).parent.parent / "docs"
RULES: Final = DOCS / "examples" / "alerts.yml"
DASHBOARD: Final = DOCS / "examples" / "grafana.json"
NAME: Final = re.compile(r"\b(?:axcollector|process)_[a-z0-9_]+")

FULL: Final = Status(
    version="1.2.3",
    instance_id="id",
    now=1000.0,
    started_at=100.0,
    checks={"catalog": Check(ok=True), "store": Check(ok=False, reason="away", required=False)},
    spool_bytes=70,
    spool_quota_bytes=100,
    ingest=IngestStatus(
        requests=[RequestCount("scope", 200, "ACCEPTED", 7), RequestCount("other", 404, "NOT_FOUND", 1)],
        accepted_records=21,
        accepted_bytes=2100,
        quarantined_records=2,
        commits=3,
        commit_seconds=Histogram([0.01, 0.1], [1, 2, 0], 0.13),
        commit_batches=Histogram([1.0, 2.0], [0, 2, 1], 7.0),
        pending_batches=4,
        pending_bytes=400,
        connections=5,
        refused_connections=6,
        open_buckets=8,
    ),
    stages=[StageStatus(name="tmp"), StageStatus(name="staging", buckets=3, bytes=60, oldest_at=900.0)],
    delivery=DeliveryStatus(
        attempts={"delivered": 9, "failed": 1},
        delivered_files=9,
        delivered_bytes=90,
        delivered_records=18,
        delivered_at=990.0,
        upload_seconds=Histogram([1.0], [8, 1], 5.5),
        lag_seconds=6.0,
        under_way=2,
        paused=[Paused("a", "b", 1030.0)],
        paused_count=17,
        paused_until=1040.0,
        salvaged_batches=1,
    ),
    catalog=CatalogStatus(source="registry", rows={"t": 5}, changed_at=400.0, heard_at=999.0, rebuild_seconds=0.5),
    jobs=[JobStatus("room", 5, 1, "why"), JobStatus("tokens", 2), JobStatus("tokens", 0, 3)],
    workers=[WorkerStatus(0, 17, ready=True), WorkerStatus(1, None, ready=False)],
    disk_free_share=0.25,
)
LEAST: Final = Status(
    version="1",
    instance_id="",
    now=1.0,
    started_at=0.0,
    checks={},
    ingest=IngestStatus(commit_seconds=Histogram([1.0], [0, 0]), commit_batches=Histogram([1.0], [0, 0])),
    delivery=DeliveryStatus(upload_seconds=Histogram([1.0], [0, 0])),
    catalog=CatalogStatus(source="none"),
)


class Subject(Collector):
    """Says what it is given, of itself."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def status(self) -> Status:
        return self._status

    def checks(self) -> dict[str, Check]:
        return {}

    def collect(self) -> Iterator[Any]:
        return families(self._status)


def scraped(status: Status) -> bytes:
    """A scrape, without those of the process."""
    registry = CollectorRegistry()
    registry.register(Subject(status))
    return generate_latest(registry)


def ask(target: str, **headers: str) -> Answer:
    """The answer of the admin port to a request."""
    api = HealthAPI(Subject(FULL))
    add_metrics(api.app, Subject(FULL))
    connection = Connection(Site(api.resource(), reactor=Clock()))
    connection.send(request("GET", target, b"", tuple(headers.items())))
    (answer,) = connection.answers()
    connection.hang_up()
    return answer


def value(scrape: bytes, name: str, **labels: str) -> float:
    """What a series has."""
    samples = [sample for family in families_in(scrape).values() for sample in family.samples]
    (found,) = [each.value for each in samples if each.name == name and each.labels == labels]
    return float(found)


@pytest.mark.parametrize("status", [FULL, LEAST], ids=["full", "least"])
def test_the_rules_are_kept(status: Status) -> None:
    """Help and type for all, counters that end in _total, base units, no series twice."""
    assert faults_in(scraped(status)) == []


def test_the_rules_are_looked_at() -> None:
    """What breaks them is found."""
    bad = b"""# HELP a_ms x
# TYPE a_ms gauge
a_ms 1
# TYPE b_total gauge
b_total{x="1"} 1
b_total{x="1"} 1
"""
    assert faults_in(bad) == [
        "a_ms: no base unit",
        "b_total: no help",
        "b_total: a suffix of a counter",
        "b_total: a series twice",
    ]


@needs_promtool
@pytest.mark.parametrize("status", [FULL, LEAST], ids=["full", "least"])
def test_promtool_says_nothing(status: Status) -> None:
    """Prometheus' own check has nothing to say."""
    assert check_metrics(scraped(status)) == ""


def test_values() -> None:
    """Each is what the status says; histograms are cumulated, ages are of this moment, work of one name is added up."""
    scrape = scraped(FULL)
    for name, expected in {
        "ready": 1,
        "accepted_records_total": 21,
        "accepted_bytes_total": 2100,
        "quarantined_records_total": 2,
        "pending_batches": 4,
        "pending_bytes": 400,
        "connections": 5,
        "refused_connections_total": 6,
        "open_buckets": 8,
        "commit_seconds_count": 3,
        "commit_seconds_sum": 0.13,
        "commit_batches_count": 3,
        "spool_bytes": 70,
        "spool_quota_bytes": 100,
        "disk_free_ratio": 0.25,
        "uploads_under_way": 2,
        "delivered_files_total": 9,
        "delivered_bytes_total": 90,
        "delivered_records_total": 18,
        "last_delivery_timestamp_seconds": 990,
        "delivery_lag_seconds": 6,
        "paused_endpoints": 17,
        "pause_remaining_seconds": 40,
        "salvaged_batches_total": 1,
        "catalog_age_seconds": 600,
        "catalog_rebuild_seconds": 0.5,
        "sync_lag_seconds": 1,
        "workers": 2,
        "workers_ready": 1,
        "upload_seconds_count": 9,
    }.items():
        assert (name, value(scrape, f"axcollector_{name}")) == (name, expected)
    for name, labels, expected in (
        ("build_info", {"version": "1.2.3"}, 1),
        ("check_ok", {"check": "catalog"}, 1),
        ("check_ok", {"check": "store"}, 0),
        ("requests_total", {"route": "scope", "status": "200", "code": "ACCEPTED"}, 7),
        ("commit_seconds_bucket", {"le": "0.01"}, 1),
        ("commit_seconds_bucket", {"le": "0.1"}, 3),
        ("commit_batches_bucket", {"le": "+Inf"}, 3),
        ("stage_buckets", {"stage": "staging"}, 3),
        ("stage_bytes", {"stage": "staging"}, 60),
        ("stage_oldest_age_seconds", {"stage": "staging"}, 100),
        ("stage_oldest_age_seconds", {"stage": "tmp"}, 0),
        ("upload_attempts_total", {"result": "failed"}, 1),
        ("catalog_rows", {"table": "t"}, 5),
        ("job_runs_total", {"work": "room"}, 5),
        ("job_failures_total", {"work": "room"}, 1),
        ("job_failures_total", {"work": "tokens"}, 3),
    ):
        assert (name, value(scrape, f"axcollector_{name}", **labels)) == (name, expected)


def test_what_is_not_known_is_not_told() -> None:
    """No quota, no workers, no delivery, no source: no series."""
    told = names_in(scraped(FULL)) - names_in(scraped(LEAST))
    assert {"axcollector_spool_quota_bytes", "axcollector_workers", "axcollector_sync_lag_seconds"} < told
    assert {"axcollector_delivery_lag_seconds", "axcollector_disk_free_ratio"} < told


def test_the_page() -> None:
    """Prometheus' text, or OpenMetrics where that is asked for; with the process's own metrics; never from a cache."""
    answer = ask("/metrics")
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert {"axcollector_ready", "process_resident_memory_bytes", "process_open_fds"} < names_in(answer.body)
    assert faults_in(answer.body) == []
    open_metrics = ask("/metrics", Accept="application/openmetrics-text; version=1.0.0, text/plain")
    assert open_metrics.headers["content-type"].startswith("application/openmetrics-text")
    assert open_metrics.body.endswith(b"# EOF\n")


def exported() -> set[str]:
    """All names that can be asked for."""
    return names_in(scraped(FULL)) | names_in(ask("/metrics").body)


def test_each_metric_is_described() -> None:
    """The page on metrics has every one, and no other."""
    described = set(re.findall(r"``(axcollector_[a-z_]+)``", (DOCS / "metrics.rst").read_text(encoding="utf-8")))
    of_families = {
        family.name + ("_total" if family.type == "counter" else "") for family in families_in(scraped(FULL)).values()
    }
    assert described == of_families


def expressions() -> Iterator[str]:
    """What the examples ask Prometheus."""
    for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (variable["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query")


def test_the_examples_use_what_there_is() -> None:
    """Each metric named in the rules and in the dashboard can be scraped."""
    used = {name for expression in expressions() for name in NAME.findall(expression)}
    assert len(used) > 30
    assert used - exported() == set()


def test_the_rules_warn_of_what_they_should() -> None:
    """Of a backlog, its age, nothing delivered, a full disk, a stale sync, no readiness, and commits that fail."""
    (group,) = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    names = {rule["alert"] for rule in group["rules"]}
    assert {
        f"Axcollector{name}"
        for name in (
            *("BacklogGrows", "OldestStagedTooOld", "NothingDelivered", "DiskNearQuota", "DiskNearlyFull"),
            *("SyncStale", "NotReady", "CommitsFail"),
        )
    } <= names
    assert all({"summary", "description"} == rule["annotations"].keys() for rule in group["rules"])


@needs_promtool
def test_the_page_tells_prometheus_whom_to_ask(tmp_path: Path) -> None:
    """Prometheus takes the configuration that is shown."""
    (block,) = blocks("metrics.rst", "yaml")
    (tmp_path / "prometheus.yml").write_text(block.text)
    status, said = check_config(tmp_path / "prometheus.yml")
    assert (status, "SUCCESS" in said) == (0, True), said


@needs_promtool
def test_the_rules_are_rules() -> None:
    """Prometheus takes them."""
    status, said = check_rules(RULES)
    assert (status, "SUCCESS" in said) == (0, True), said


def test_the_dashboard_is_whole() -> None:
    """Panels have ids of their own, lie beside each other, and say what they show."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["description"] and panel["targets"] for panel in panels if panel["type"] != "row")
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells
