"""The smaller examples of embedding: in a klein application, and started again until it runs."""

import json
from collections import Counter
from pathlib import Path

import pytest
import pytest_twisted
import treq
from twisted.internet import reactor
from twisted.logger import LogEvent
from twisted.web.server import Site

from axcollector.api import Collector, Config, ConfigError, NotReady, RecordBuffer
from axcollector.registry import Registry
from tests.examples import load
from tests.running import QUICK, delivered_below, until

RECORD = {"client_received_start_timestamp": 1}


def config_in(root: Path) -> Config:
    """A quick collector's."""
    return Config(local_storage_path=str(root), **QUICK)  # type: ignore[arg-type]


def scope_in(root: Path) -> str:
    """A scope, with a key."""
    with Registry.create(config_in(root).registry_file) as registry:
        scope = registry.add_scope("acme", "prod").id
        registry.add_key(scope, "key", product="p", app="a", developer="d")
    return scope


def delivered(root: Path) -> list[bytes]:
    """All lines."""
    return [line for lines in delivered_below(root / "store").values() for line in lines]


@pytest_twisted.ensureDeferred
async def test_the_klein_application(tmp_path: Path) -> None:
    """Its calls become records, and the collector's routes work below /collect."""
    example = load("gateway_klein")
    scope, collector = scope_in(tmp_path), Collector(reactor, config_in(tmp_path))
    buffer = RecordBuffer(reactor, collector, batch_seconds=0.05)
    buffer.startService()
    site = Site(example.Weather(collector, buffer, scope).app.resource())
    port = reactor.listenTCP(0, site, interface="127.0.0.1")
    url = f"http://127.0.0.1:{port.getHost().port}"
    await until(collector.directory.ready)
    for path, body in (("/weather/oslo", b"fine\n"), ("/weather/atlantis", b"under water\n")):
        response = await treq.get(url + path, headers={"X-API-Key": "key"}, persistent=False)
        assert await response.content() == body
    collect = f"{url}/collect/analytics/{scope}"
    headers = {"Content-Type": "application/json"}
    response = await treq.post(collect, json.dumps({"records": [RECORD]}).encode(), headers=headers, persistent=False)
    assert await response.json() == {"accepted": 1, "rejected": 0}
    await until(lambda: len(delivered(tmp_path)) == 3)
    records = [json.loads(line) for line in delivered(tmp_path)]
    assert Counter(record.get("response_status_code") for record in records) == {200: 1, 404: 1, None: 1}
    assert Counter(record.get("developer") for record in records) == {"d": 2, None: 1}
    await port.stopListening()
    await buffer.stopService()


@pytest_twisted.ensureDeferred
async def test_restarting_until_the_directory_is_free(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """It waits for another collector to end, longer each time; records wait in the buffer and are delivered."""
    restarting = load("restarting").Restarting
    scope, old = scope_in(tmp_path), Collector(reactor, config_in(tmp_path))
    old.startService()
    waits: list[int] = []
    service = restarting(
        reactor, lambda: Collector(reactor, config_in(tmp_path)), lambda failures: (waits.append(failures), 0.01)[1]
    )
    buffer = RecordBuffer(reactor, service, batch_seconds=0.01)
    buffer.startService()
    buffer.add(scope, RECORD)
    with pytest.raises(NotReady):
        await service.submit(scope, [RECORD])
    await until(lambda: len(waits) >= 3)
    assert (waits[:3], service.collector) == ([1, 2, 3], None)
    await old.stopService()
    await until(lambda: service.collector is not None)
    await until(lambda: buffer.counts.accepted == 1)
    first = service.collector
    await service.restart()
    assert service.collector not in {None, first}
    await until(lambda: service.collector.directory.ready())
    assert await service.submit(scope, [RECORD, RECORD]) == 2
    await until(lambda: len(delivered(tmp_path)) == 3)
    await buffer.stopService()
    assert (service.collector, service.running) == (None, False)
    warnings = [event for event in log_events if "next try" in event["log_format"]]
    assert len(warnings) == len(waits)
    assert "already works in this data directory" in str(warnings[0]["problem"])


@pytest_twisted.ensureDeferred
async def test_stopped_before_it_ran(tmp_path: Path) -> None:
    """No try is left; and what no pause cures is raised."""
    restarting = load("restarting").Restarting
    old = Collector(reactor, config_in(tmp_path))
    old.startService()
    service = restarting(reactor, lambda: Collector(reactor, config_in(tmp_path)))
    service.startService()
    await service.stopService()
    await old.stopService()
    with pytest.raises(ConfigError):
        restarting(reactor, lambda: Collector(reactor, Config(workers=2))).startService()
