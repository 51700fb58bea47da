"""What a collector says of itself: gathered of a real one, and as JSON on the admin port."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest_twisted
import treq
from twisted.internet import reactor
from twisted.web.client import Agent

from axcollector.core.status import RequestCount, Status
from tests.promtool import PROMTOOL, check_metrics, families_in, faults_in
from tests.running import Running, until


async def ask(url: str) -> tuple[int, Any]:
    """Status and JSON of a page."""
    response = await treq.get(url, agent=Agent(reactor))
    return response.code, json.loads(await response.content())


async def fetch(url: str) -> bytes:
    """The content of a page."""
    response = await treq.get(url, agent=Agent(reactor))
    assert response.code == 200
    return await response.content()


def stages_of(status: Status) -> dict[str, int]:
    """How many buckets lie in each stage."""
    return {stage.name: stage.buckets for stage in status.stages}


@pytest_twisted.ensureDeferred
async def test_the_status_of_a_collector_at_work(tmp_path: Path) -> None:
    """What was sent is counted by route and answer, as accepted, by tenant, and as delivered."""
    service = await Running(tmp_path / "data", collection_interval=2).start()
    try:
        scope = await service.scope("acme", "prod")
        await service.send(scope, ['{"client_received_start_timestamp":1}'] * 3)
        assert (await service.post("/analytics/unknown", b"{}"))[0] == 400
        assert (await service.post("/nowhere", b"{}"))[0] == 404
        await until(lambda: service.stored() == 3)
        await until(lambda: service.collector.status().delivery.delivered_records == 3)
        code, found = await ask(f"{service.admin}/status")
        assert code == 200
        status = msgspec.convert(found, Status)
        assert status.ready
        assert {RequestCount("scope", 200, "ACCEPTED", 1), RequestCount("scope", 400, "UNKNOWN_SCOPE", 1)} < {
            *status.ingest.requests
        }
        assert RequestCount("other", 404, "NOT_FOUND", 1) in status.ingest.requests
        ingest, delivery = status.ingest, status.delivery
        assert (ingest.accepted_records, ingest.commits, sum(ingest.commit_batches.counts)) == (3, 1, 1)
        assert 3 * len('{"client_received_start_timestamp":1}\n') < ingest.accepted_bytes
        assert ingest.connections == 1
        assert (delivery.delivered_files, delivery.attempts["delivered"], delivery.delivered_records) == (1, 1, 3)
        assert delivery.lag_seconds is not None
        assert delivery.delivered_at is not None
        assert (status.catalog.source, status.catalog.rows["edgex.data_scope"]) == ("registry", 1)
        assert status.catalog.heard_at is not None
        assert list(stages_of(status)) == ["tmp", "recovered", "staging", "failed", "quarantine"]
        await until(lambda: not any(stages_of(service.collector.status()).values()))
        assert {"room", "closing", "sweep of staging", "watching the registry"} < {job.name for job in status.jobs}
        assert all(job.failures == 0 for job in status.jobs)
        scrape = await fetch(f"{service.admin}/metrics")
        assert faults_in(scrape) == []
        assert PROMTOOL is None or check_metrics(scrape) == ""
        assert families_in(scrape)["axcollector_delivered_records"].samples[0].value == 3
        code, tenants = await ask(f"{service.admin}/tenants?search=ACM")
        assert [(each["organization"], each["records"]) for each in tenants] == [("acme", 3)]
        assert (await ask(f"{service.admin}/tenants?search=other"))[1] == []
        assert (await ask(f"{service.admin}/tenants?limit=many"))[0] == 400
    finally:
        await service.stop()
