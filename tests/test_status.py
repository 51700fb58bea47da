"""What a collector says of itself: gathered of a real one, and as JSON on the admin port."""

import gc
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest_twisted
import treq
from klein import Klein
from twisted.internet import reactor
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.web.client import Agent
from twisted.web.server import Site

from axcollector.admin.status import TENANTS_A_TURN, add_status
from axcollector.core.status import RequestCount, Status, TenantTraffic
from axcollector.core.traffic import Traffic
from axcollector.webapi import JSONResource
from tests.promtool import PROMTOOL, check_metrics, families_in, faults_in
from tests.running import Running, until
from tests.wire import Connection, request


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


class Subject:
    """Has tenants."""

    def __init__(self, tenants: int) -> None:
        self.traffic = Traffic()
        for number in range(tenants):
            self.traffic.add((f"org-{number}", "Prod"), number, 10 * number, 5.0)

    def status(self) -> Status:
        """Nobody asks."""
        raise AssertionError


class TurningClock(Clock):
    """Counts what is put off to the next turn."""

    turns = 0

    def callLater(self, delay: float, *arguments: Any, **keywords: Any) -> IDelayedCall:
        self.turns += not delay
        return super().callLater(delay, *arguments, **keywords)


def ask_for_tenants(subject: Subject, query: str = "") -> tuple[list[TenantTraffic], int]:
    """What `/tenants` answers, and in how many turns of the reactor."""
    clock = TurningClock()
    api = Klein()
    add_status(api, subject, clock)
    connection = Connection(Site(JSONResource(api), reactor=clock))
    connection.send(request("GET", f"/tenants{query}"))
    clock.advance(0)
    found = connection.answers()
    connection.hang_up()
    assert (found[0].status, found[0].headers["cache-control"]) == (200, "no-store")
    return msgspec.json.decode(found[0].body, type=list[TenantTraffic]), clock.turns


def test_ten_thousand_tenants_are_told_in_turns() -> None:
    """All of them, those with the most records first, without keeping the reactor."""
    tenants, turns = ask_for_tenants(Subject(10_000))
    assert [each.records for each in tenants] == list(range(9999, -1, -1))
    assert tenants[0] == TenantTraffic("org-9999", "Prod", 9999, 99990, 5.0)
    assert turns >= 2 * (10_000 // TENANTS_A_TURN) - 1


def test_nothing_of_tenants_is_looked_at_for_cycles() -> None:
    """However many there are, and whoever asks for them, the garbage collector has no more to look at."""
    traffic = Subject(100).traffic
    (piece,) = traffic.pieces(100)
    of_tenants = [each for each in gc.get_objects() if type(each).__module__ == "axcollector.core.traffic"]
    assert [each for each in piece if gc.is_tracked(each)] == []
    assert {type(each) for each in of_tenants} <= {Traffic}


def test_some_tenants() -> None:
    """The first so many, and those in whose names a text stands, in whatever case."""
    subject = Subject(20)
    assert [each.organization for each in ask_for_tenants(subject, "?limit=2")[0]] == ["org-19", "org-18"]
    assert [each.organization for each in ask_for_tenants(subject, "?search=RG-1&limit=3")[0]] == [
        "org-19",
        "org-18",
        "org-17",
    ]
    assert len(ask_for_tenants(subject, "?search=prod")[0]) == 20
    assert ask_for_tenants(subject, "?limit=0") == ([], 0)
    assert ask_for_tenants(Subject(0)) == ([], 0)
