"""What `benchmarks.catalog` measures, in a process of its own: `python -m benchmarks.catalog_subject KEYS SECONDS`."""

import gc
import json
import random
import re
import sqlite3
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from twisted.internet import defer, endpoints, reactor, task, threads

from axcollector.collector import Collector
from axcollector.config import Config
from axcollector.core.tables import APPS, DEVELOPERS, MAPPER, PRODUCTS
from axcollector.registry import Registry
from axcollector.site import IngestSite
from axcollector.sync.events import Change, ChangeList, Operation, Snapshot
from benchmarks.load import LoadProcess, Plan

PRODUCT_COUNT = 1000
SAMPLE = 100_000
BATCH = 100
RECORD = {"client_received_start_timestamp": 1_480_000_000_000, "request_path": "/v1/orders", "verb": "GET"}


class Rows:
    """The rows of the tables, from a seed."""

    def __init__(self, keys: int) -> None:
        self._chance = random.Random(keys)
        self.products = self._ids(PRODUCT_COUNT)
        self.developers = self._ids(keys // 5)
        self.apps = self._ids(keys)
        self.keys = [f"{self._chance.getrandbits(128):032x}" for _ in range(keys)]

    def _ids(self, count: int) -> list[str]:
        return [str(uuid.UUID(int=self._chance.getrandbits(128))) for _ in range(count)]

    def fill(self, path: Path) -> None:
        """Write them to a registry file."""
        with Registry.create(str(path)) as registry:
            registry.add_scope("acme", "prod", "scope", "t")
        chance = self._chance
        connection = sqlite3.connect(path)
        # Made for an empty file: nobody watches it yet, so nobody needs a log of each row.
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f'DROP TRIGGER "{name}"')
        for statement, rows in (
            (
                "INSERT INTO api_product (id, tenant_id, name) VALUES (?, 't', ?)",
                ((each, f"product-{at}") for at, each in enumerate(self.products)),
            ),
            (
                "INSERT INTO developer (id, tenant_id, username, email) VALUES (?, 't', ?, ?)",
                ((each, f"developer-{at}", f"developer-{at}@example.com") for at, each in enumerate(self.developers)),
            ),
            (
                "INSERT INTO app (id, tenant_id, name, developer_id) VALUES (?, 't', ?, ?)",
                ((each, f"application-{at}", chance.choice(self.developers)) for at, each in enumerate(self.apps)),
            ),
            (
                "INSERT INTO app_credential_apiproduct_mapper VALUES ('t', ?, ?, ?, NULL)",
                ((each, chance.choice(self.apps), chance.choice(self.products)) for each in self.keys),
            ),
        ):
            connection.executemany(statement, rows)
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()


class Watchdog:
    """How late the reactor comes to a call that is due every millisecond."""

    def __init__(self) -> None:
        self._loop = task.LoopingCall(self._tick)
        self._last = 0.0
        self.stalls: list[float] = []

    def start(self) -> None:
        """Begin to watch."""
        self._last = time.monotonic()
        self.stalls = []
        self._loop.start(0.001, now=False)

    def _tick(self) -> None:
        now = time.monotonic()
        self.stalls.append((now - self._last) * 1000)
        self._last = now

    def stop(self) -> float:
        """The longest time, in milliseconds, between two turns."""
        self._tick()
        self._loop.stop()
        return round(max(self.stalls), 1)


def memory_megabytes(what: str = "VmRSS") -> float:
    """Resident memory now, or with `VmHWM` at its peak since it was forgotten."""
    return int(re.search(rf"{what}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def forget_peak() -> None:
    """Let the peak be what is in use now."""
    Path("/proc/self/clear_refs").write_text("5")


def look_up_microseconds(collector: Collector, samples: Callable[[], Iterator[list[str]]]) -> float:
    """The median, over several runs, of the mean time of a look-up, asked for a hundred at a time, as batches do."""
    catalog = collector.sync.catalog
    assert catalog is not None
    times = []
    for client_ids in samples():
        batches = [client_ids[at : at + BATCH] for at in range(0, len(client_ids), BATCH)]
        begun = time.perf_counter()
        for batch in batches:
            catalog.developers("t", batch)
        times.append((time.perf_counter() - begun) / len(client_ids))
    return round(statistics.median(times) * 1e6, 2)


class Subject:
    """A collector with a catalog of so many keys, and what is measured of it."""

    def __init__(self, keys: int, seconds: float, root: Path) -> None:
        self._seconds = seconds
        self._root = root
        self._base = memory_megabytes()
        self._path = root / "rows.db"
        rows = Rows(keys)
        rows.fill(self._path)
        # What is kept of the rows is text that the catalog shares nothing with.
        self._changed = rows.products[0], rows.developers[0], rows.apps[0], rows.apps[:10_000]
        self._sample = [each.encode() for each in random.Random(1).choices(rows.keys, k=SAMPLE)]
        del rows
        config = Config(local_storage_path=str(root / "data"), sync="none", collection_interval=86_400)
        self.collector = Collector(reactor, config)
        self.watchdog = Watchdog()
        self.figures: dict[str, float] = {}

    async def measure(self) -> dict[str, float]:
        """Everything."""
        self.collector.startService()
        gc.collect()
        gc.freeze()  # as `twistd axcollector` does
        await self._rebuild("build")
        self.figures["at rest MB"] = round(memory_megabytes())
        self._look_up()
        await self._change()
        await self._beside_load()
        await defer.maybeDeferred(self.collector.stopService)
        return self.figures

    async def _rebuild(self, name: str) -> None:
        begun = time.monotonic()
        await self.collector.sync.snapshot_received(Snapshot(name, str(self._path)))
        self.figures[f"{name} s"] = round(time.monotonic() - begun, 1)

    def _look_up(self) -> None:
        chance = random.Random(2)

        def cold() -> Iterator[list[str]]:
            for _ in range(5):
                sample = [each.decode() for each in self._sample]
                chance.shuffle(sample)
                yield sample

        def warm() -> Iterator[list[str]]:
            for at in range(5):
                few = self._sample[at * 1000 : (at + 1) * 1000]
                yield [each.decode() for each in few * 20]

        self.figures["look-up cold us"] = look_up_microseconds(self.collector, cold)
        self.figures["look-up warm us"] = look_up_microseconds(self.collector, warm)

    async def _change(self) -> None:
        product, developer, app, apps = self._changed
        times = []
        for at in range(20):
            for table, row in (
                (PRODUCTS, {"id": product, "name": f"renamed {at}"}),
                (DEVELOPERS, {"id": developer, "username": f"renamed {at}"}),
                (APPS, {"id": app, "name": f"renamed {at}", "developer_id": developer}),
                (MAPPER, {"appcred_id": f"new key {at}", "app_id": app, "apiprdt_id": product}),
            ):
                change = Change(Operation.UPDATE, table, {"tenant_id": "t", **row})
                begun = time.monotonic()
                await self.collector.sync.changes_received(ChangeList([change]))
                times.append((time.monotonic() - begun) * 1000)
        self.figures["one row ms"] = round(max(times), 2)
        changes = [Change(Operation.UPDATE, APPS, {"tenant_id": "t", "id": each, "name": "moved"}) for each in apps]
        self.watchdog.start()
        begun = time.monotonic()
        await self.collector.sync.changes_received(ChangeList(changes))
        self.figures["10,000 rows ms"] = round((time.monotonic() - begun) * 1000)
        self.figures["10,000 rows stall ms"] = self.watchdog.stop()

    async def _beside_load(self) -> None:
        from axcollector.webapi import AnalyticsAPI

        site = IngestSite(
            AnalyticsAPI(self.collector).resource(),
            reactor,
            max_body_bytes=1 << 20,
            max_pending_bytes=1 << 27,
            request_timeout_seconds=60,
        )
        port = await endpoints.serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(site)
        number = port.getHost().port
        known = [json.dumps({"records": [{**RECORD, "client_id": each.decode()}]}) for each in self._sample[:1000]]
        self.watchdog.start()
        calm = await self._load(Plan(number, ["/analytics/scope"], known, connections=8, seconds=self._seconds))
        self.figures["no rebuild stall ms"] = self.watchdog.stop()
        self.figures["no rebuild p99.9 ms"] = calm["p999"]
        forget_peak()
        self.watchdog.start()
        await self._while_rebuilding(number, known)
        self.figures["rebuild stall ms"] = self.watchdog.stop()
        self.figures["peak to rest"] = round(memory_megabytes("VmHWM") / self.figures["at rest MB"], 2)
        self.figures["at rest again MB"] = round(memory_megabytes())
        await self._flood(number)
        await defer.maybeDeferred(port.stopListening)
        await defer.maybeDeferred(site.close_idle)

    async def _while_rebuilding(self, port: int, bodies: list[str]) -> None:
        """Rebuild, and take the old catalog apart, while the load lasts; beside it a rebuild takes twice as long."""
        seconds = self.figures["build s"] * 3 + 3
        load = defer.ensureDeferred(
            self._load(Plan(port, ["/analytics/scope"], bodies, connections=8, seconds=seconds))
        )
        await task.deferLater(reactor, 0.5)
        await self._rebuild("rebuild")
        await self.collector.sync._worker.run(int)  # noqa: SLF001 - behind the old catalog's end, in its thread
        assert not load.called, "the load ended before the old catalog did"
        result = await load
        assert set(result["statuses"]) == {"200"}, result
        self.figures["rebuild p50 ms"] = result["p50"]
        self.figures["rebuild p99 ms"] = result["p99"]
        self.figures["rebuild p99.9 ms"] = result["p999"]

    async def _flood(self, port: int) -> None:
        """Made-up scopes against another 400, over the same connections."""
        body = json.dumps({"records": [RECORD]})
        rates = {"scopes": [], "text": []}
        for _ in range(3):
            made_up = [f"/analytics/{uuid.uuid4()}" for _ in range(1000)]
            for name, paths, headers in (
                ("scopes", made_up, {}),
                ("text", ["/analytics/scope"], {"Content-Encoding": "compress"}),
            ):
                result = await self._load(Plan(port, paths, [body], headers, connections=8, seconds=1.5))
                assert set(result["statuses"]) == {"400"}, result
                rates[name].append(result["statuses"]["400"])
        ratio = statistics.median(rates["text"]) / statistics.median(rates["scopes"])
        self.figures["other 400 to made-up scopes"] = round(ratio, 2)

    async def _load(self, plan: Plan) -> dict[str, Any]:
        return await threads.deferToThread(lambda: LoadProcess(plan).result())


def main() -> None:
    """Measure and print one line of JSON."""
    keys, seconds = int(sys.argv[1]), float(sys.argv[2])
    results: list[dict[str, float]] = []

    async def run(_: Any) -> None:
        with tempfile.TemporaryDirectory(prefix="axcollector-benchmark-") as directory:
            results.append(await Subject(keys, seconds, Path(directory)).measure())

    try:
        task.react(lambda _: defer.ensureDeferred(run(_)))
    finally:
        if results:
            print(json.dumps(results[0]))


if __name__ == "__main__":
    main()
