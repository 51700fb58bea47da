"""The whole job, from a POST to a delivered file, with real ports, threads and files.

Each test is asked of the service and of an embedded collector, and, among the slow ones, of the program itself.
"""

import gzip
import json
import random
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor, task
from twisted.web.resource import Resource
from twisted.web.server import Site

from axcollector.collector import Collector
from axcollector.config import Config
from axcollector.webapi import AnalyticsAPI
from tests.pipelines import PIPELINES, Pipeline
from tests.running import QUICK, Running, gather, ids_of, until
from tests.signing_server import SigningServer, answer


@pytest.fixture(params=[pytest.param(each, marks=[pytest.mark.slow] * (each == "process")) for each in PIPELINES])
def pipeline(request: pytest.FixtureRequest) -> Pipeline:
    """A way in which a collector runs."""
    return PIPELINES[request.param]


TWO_TENANTS = [("acme", "prod"), ("zoo", "te~st")]


def record(number: int, **more: object) -> str:
    """A small valid record."""
    return json.dumps({"id": number, "client_received_start_timestamp": 1_480_000_000_000, **more})


@pytest_twisted.ensureDeferred
async def test_two_tenants_in_one_interval(pipeline: Pipeline, tmp_path: Path) -> None:
    """Two directories, two files, no record in the other's."""
    service = await pipeline.start(tmp_path / "data", collection_interval=2)
    scopes = [await service.scope(*names) for names in TWO_TENANTS]
    await gather(service.send(scopes[i % 2], [record(i)], gzipped=i % 3 == 0) for i in range(20))
    await until(lambda: service.stored() == 20)
    found = service.delivered()
    assert sorted(found) == ["acme~prod", "zoo~te%7Est"]
    assert ids_of(found["acme~prod"]) == dict.fromkeys(range(0, 20, 2), 1)
    assert ids_of(found["zoo~te%7Est"]) == dict.fromkeys(range(1, 20, 2), 1)
    await service.stop()


@pytest_twisted.ensureDeferred
async def test_very_many_records(pipeline: Pipeline, tmp_path: Path) -> None:
    """Eight clients, intervals of a second rolling over: each record once, equal to what was sent plus enrichment."""
    service = await pipeline.start(tmp_path / "data")
    scopes = [await service.scope(*names, "key-1") for names in TWO_TENANTS]
    total, batch = pipeline.records, pipeline.batch
    made = random.Random(7)
    numbers = ["12345678901234567890", "1.10", "1e400", "-0", "0.1e-7", str(made.random())]
    sent: list[dict[int, str]] = [{}, {}]

    async def client(first: int) -> None:
        for start in range(first * batch, total, 8 * batch):
            which = (start // batch) % 2
            texts = []
            for i in range(start, start + batch):
                key = '"client_id":"key-1",' if i % 3 else ""
                texts.append(f'{{"id":{i},{key}"n":{numbers[i % 6]},"client_received_start_timestamp":{i}}}')
                sent[which][i] = texts[-1]
            await service.send(scopes[which], texts, gzipped=start % 3 == 0)
            await task.deferLater(reactor, 0.07)  # so that it lasts for several intervals

    await gather(client(i) for i in range(8))
    await until(lambda: service.stored() == total)
    enriched = (
        b',"api_product":"p-key-1","developer_app":"a-key-1","developer_email":"key-1@x.y","developer":"d-key-1"}'
    )
    for which, (tenant, lines) in enumerate(sorted(service.delivered().items())):
        organization, environment = (json.dumps(name).encode() for name in TWO_TENANTS[which])
        tail = b',"organization":%b,"environment":%b' % (organization, environment)
        assert len(lines) == len(sent[which]), tenant
        for line in lines:
            text = sent[which].pop(json.loads(line)["id"]).encode()
            assert text[:-1] + tail + (enriched if b"client_id" in text else b"}") == line
    assert sent == [{}, {}]
    starts = {path.parent for path in (tmp_path / "data" / "store").glob("*/date=*/time=*/*")}
    assert len(starts) > 2
    await service.stop()


@pytest_twisted.ensureDeferred
async def test_restarts_inside_an_interval(pipeline: Pipeline, tmp_path: Path) -> None:
    """Clean restarts lose nothing and collide with nothing: a file for each start, each with all its records."""
    sent, scope = 0, ""
    for _ in range(4):
        service = await pipeline.start(tmp_path / "data", collection_interval=3600, upload_interval=3600)
        scope = scope or await service.scope("acme", "prod")
        await gather(service.send(scope, [record(sent + i)]) for i in range(10))
        sent += 10
        await service.stop()
    service = await pipeline.start(tmp_path / "data", collection_interval=3600)
    await until(lambda: service.stored() == sent)
    assert ids_of(service.delivered()["acme~prod"]) == dict.fromkeys(range(sent), 1)
    assert len(list((tmp_path / "data" / "store").glob("*/*/*/*.txt.gz"))) >= 4
    await service.stop()


@pytest_twisted.ensureDeferred
async def test_a_store_that_is_down_for_many_intervals(pipeline: Pipeline, tmp_path: Path) -> None:
    """The signer and store are away for many intervals, then come: all is delivered, nothing under two names."""
    server = SigningServer()
    port = reactor.listenTCP(0, server.site(), interface="127.0.0.1")
    base = f"http://127.0.0.1:{port.getHost().port}"
    server.next_signs.extend([answer(503, Retry_After="1")] * 1000)
    service = await pipeline.start(tmp_path / "data", uap_server_base=base, bearer_token=server.token)
    scopes = [await service.scope(*names) for names in TWO_TENANTS]
    for number in range(pipeline.outage):
        await service.send(scopes[number % 2], [record(number)])
        await task.deferLater(reactor, 0.5)
    assert server.objects == {}
    server.next_signs.clear()
    await until(
        lambda: sum(len(gzip.decompress(data).splitlines()) for data in server.objects.values()) >= pipeline.outage
    )
    await until(lambda: not list((tmp_path / "data" / "ax" / "staging").iterdir()))
    lines = [line for data in server.objects.values() for line in gzip.decompress(data).splitlines()]
    assert ids_of(lines) == dict.fromkeys(range(pipeline.outage), 1)
    assert len({key for _, key in server.objects}) == len(server.objects)
    assert {tenant for tenant, _ in server.objects} == {"acme~prod", "zoo~te%7Est"}
    assert list((tmp_path / "data" / "ax" / "failed").iterdir()) == []
    await service.stop()
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_two_collectors_inside_a_foreign_site(tmp_path: Path) -> None:
    """Two collectors live in one process, behind another program's Site, and share nothing."""
    collectors = [Collector(reactor, Config(local_storage_path=str(tmp_path / name), **QUICK)) for name in "ab"]
    root = Resource()
    for name, collector in zip((b"a", b"b"), collectors, strict=True):
        collector.startService()
        root.putChild(name, AnalyticsAPI(collector).resource())
    port = reactor.listenTCP(0, Site(root), interface="127.0.0.1")
    clients = []
    for name, collector in zip("ab", collectors, strict=True):
        client = Running(tmp_path / name)
        client.collector, client.url = collector, f"http://127.0.0.1:{port.getHost().port}/{name}"
        await until(collector.directory.ready)
        clients.append((client, await client.scope("org", name)))
    for number, (client, scope) in enumerate(clients):
        await client.send(scope, [record(number)])
        assert await client.collector.submit(scope, [{"id": 10 + number, "client_received_start_timestamp": 1}]) == 1
    other = await clients[0][0].post(f"/analytics/{clients[1][1]}", b'{"records":[]}')
    assert (other[0], other[1]["errorCode"]) == (400, "UNKNOWN_SCOPE")
    for number, (client, _) in enumerate(clients):
        await until(lambda client=client: client.stored() == 2)
        assert ids_of(client.delivered()["org~" + "ab"[number]]) == {number: 1, 10 + number: 1}
    await port.stopListening()
    for client, _ in clients:
        await client._pool.closeCachedConnections()
    for collector in collectors:
        await collector.stopService()


@pytest_twisted.ensureDeferred
async def test_keys_added_by_others_are_seen(pipeline: Pipeline, tmp_path: Path) -> None:
    """A key that another program adds to the registry enriches records within two seconds."""
    service = await pipeline.start(tmp_path / "data")
    scope = await service.scope("acme", "prod", "key-9")
    await service.send(scope, [record(1, client_id="key-9"), record(2, client_id="nobody")])
    await until(lambda: service.stored() == 2)
    first, second = (json.loads(line) for line in service.delivered()["acme~prod"])
    assert (first["developer"], first["api_product"]) == ("d-key-9", "p-key-9")
    assert (second["developer"], second["api_product"]) == ("", "")
    await service.stop()


@pytest_twisted.ensureDeferred
async def test_without_caching(pipeline: Pipeline, tmp_path: Path) -> None:
    """With `use_caching: false` the registry is asked, and the answers are the same."""
    service = await pipeline.start(tmp_path / "data", use_caching=False)
    scope = await service.scope("acme", "prod", "key-1")
    await service.send(scope, [record(1, client_id="key-1")])
    unknown = await service.post("/analytics/nothing", b"{}")
    assert unknown == (400, {"errorCode": "UNKNOWN_SCOPE", "reason": "No tenant found for this scopeuuid: nothing"})
    await until(lambda: service.stored() == 1)
    assert json.loads(service.delivered()["acme~prod"][0])["developer"] == "d-key-1"
    await service.stop()
