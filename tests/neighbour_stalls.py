"""How long the reactor is kept while everything happens at a time: a run for `tests.neighbour`.

A watchdog's call is due every two milliseconds. What it is late by is wall-clock time, in which other programs of the
machine had their share. What *we* kept the reactor for is counted in CPU time, which others cannot take: what the
reactor's thread used between two of those calls, exactly; and with it what our other threads used, of which nobody
knows how much it was for the interpreter's lock that the reactor waited. That is an upper bound, and the wall clock is
another: the lesser counts.

What is collected by Python of the whole program is the program's business (`gc.freeze`), so this one does as
`twistd axcollector` does.
"""

import contextlib
import gc
import gzip
import json
import os
import random
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from axcollector.core.tables import APPS, DEVELOPERS, MAPPER, PRODUCTS
from axcollector.registry import Registry
from axcollector.registry_bulk import BulkRegistry
from axcollector.sqlite_file import connect
from tests.neighbour import QUICK, until

TENANTS = 100
KEYS = 20_000
TICK_SECONDS = 0.002


def cpu_clock(thread: int) -> int:
    """The kernel's clock of a thread's CPU time, by its native id (as `pthread_getcpuclockid`, but safe)."""
    return (~thread << 3) | 6


class Watchdog:
    """How late the reactor comes to what is due."""

    def __init__(self, reactor: Any) -> None:
        from twisted.internet import task

        self._loop = task.LoopingCall(self._tick)
        self._loop.clock = reactor
        self._phase = ""
        self._used: dict[int, float] = {}
        self._last = 0.0
        self._reactor_used = 0.0
        self.gaps: dict[str, list[tuple[float, float, float]]] = {}

    def start(self) -> None:
        """Begin to watch."""
        self._last = time.monotonic()
        self._loop.start(TICK_SECONDS, now=False)

    def phase(self, name: str) -> None:
        """What follows is of this phase."""
        self._tick()
        self._phase = name

    def _spent(self) -> float:
        """The CPU time that our threads have used since this was last asked."""
        before, self._used = self._used, {}
        for thread in threading.enumerate():
            if thread.native_id is not None:
                with contextlib.suppress(OSError):  # it has ended
                    self._used[thread.native_id] = time.clock_gettime(cpu_clock(thread.native_id))
        return sum(used - before.get(thread, 0.0) for thread, used in self._used.items())

    def _tick(self) -> None:
        now, spent, used = time.monotonic(), self._spent(), time.thread_time()
        late = now - self._last - TICK_SECONDS
        gap = late * 1000, (used - self._reactor_used) * 1000, min(late, spent) * 1000
        self.gaps.setdefault(self._phase, []).append(gap)
        self._last, self._reactor_used = now, used

    def stop(self) -> dict[str, Any]:
        """Of each phase, in milliseconds: how late it was, what the reactor's thread used, and what all of ours did."""
        self.phase("")
        self._loop.stop()
        found = {}
        for phase in filter(None, self.gaps):
            late, reactor, ours = (sorted(values) for values in zip(*self.gaps[phase], strict=True))
            found[phase] = {
                "turns": len(late),
                "late": round(late[-1], 1),
                "reactor": round(reactor[-1], 1),
                "ours": round(ours[-1], 1),
                "ours, p99": round(ours[int(len(ours) * 0.99)], 1),
            }
        return found


def record(chance: random.Random) -> bytes:
    """A record of some 400 bytes."""
    text = {
        "client_received_start_timestamp": 1,
        "client_id": f"key-{chance.randrange(KEYS)}",
        "x": f"{chance.random()}" * 15,
    }
    return json.dumps(text).encode()


async def stalls(reactor: Any, root: str, seconds: float) -> dict[str, Any]:
    """Ingest, closing, recovery, sync and uploads, then large bodies and rebuilds; how long each kept the reactor."""
    from twisted.internet import defer, task
    from twisted.internet.threads import deferToThread
    from twisted.web.server import Site

    from axcollector.api import AnalyticsAPI, Collector, Config
    from tests.neighbour import post

    config = Config(local_storage_path=root, **QUICK)  # type: ignore[arg-type]
    scopes = _fill(config.registry_file)
    chance = random.Random(1)
    pool = [record(chance) for _ in range(20_000)]
    body = gzip.compress(b'{"records":[%b]}' % b",".join(pool), 1)
    await _leave_journals(reactor, config, scopes, chance)
    collector = Collector(reactor, config)
    collector.startService()
    port = reactor.listenTCP(0, Site(AnalyticsAPI(collector).resource(), reactor=reactor), interface="127.0.0.1")
    url = f"http://127.0.0.1:{port.getHost().port}/analytics/"
    watchdog = Watchdog(reactor)
    watchdog.start()
    await until(reactor, collector.directory.ready)
    await deferToThread(post, url + scopes[0], b'{"records":[%b]}' % pool[0])  # what is loaded once is loaded now
    gc.collect()
    gc.freeze()
    watchdog.phase("everything")
    sent = 0
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        at = sent % len(pool)
        await collector.submit(chance.choice(scopes), pool[at : at + 20])
        sent += 20
        if sent % 2000 == 0:  # an edit of the registry, which the watch sees
            await deferToThread(_edit, config.registry_file, sent)
        await task.deferLater(reactor, 0.002)
    watchdog.phase("large bodies and rebuilds")
    for number in range(max(2, int(seconds / 3))):
        posted = deferToThread(post, url + scopes[number], body, {"Content-Encoding": "gzip"})
        rebuilt = deferToThread(_replace, config.registry_file)
        assert (await defer.gatherResults([posted, rebuilt]))[0] == 200
        await task.deferLater(reactor, 0.5)
    found = watchdog.stop()
    await port.stopListening()
    await collector.stopService()
    return {"records": sent, "phases": found}


async def _leave_journals(reactor: Any, config: Any, scopes: list[str], chance: random.Random) -> None:
    """Have a start find what a crash would have left: journals of every tenant."""
    from axcollector.api import Collector

    collector = Collector(reactor, replace(config, collection_interval=3600))  # none is closed meanwhile
    collector.startService()
    await until(reactor, collector.directory.ready)
    for scope in scopes:
        await collector.submit(scope, [record(chance) for _ in range(20)])
    tmp, aside = Path(config.data_directory, "tmp"), Path(config.local_storage_path, "aside")
    shutil.copytree(tmp, aside)
    await collector.stopService()
    shutil.copytree(aside, tmp, dirs_exist_ok=True)


def _fill(path: str) -> list[str]:
    """Make a registry of so many tenants and keys; the tenants' scopes."""
    with Registry.create(path) as registry:
        scopes = [registry.add_scope(f"org-{number}", "prod") for number in range(TENANTS)]
    tenants = [scope.tenant.id for scope in scopes]
    keys = [(number, tenants[number % TENANTS]) for number in range(KEYS)]
    with BulkRegistry.open(path) as registry, registry.loading() as loading:
        loading.put(PRODUCTS, [(tenant, "p", "product") for tenant in tenants])
        loading.put(DEVELOPERS, [(tenant, "d", "developer", "d@example.com") for tenant in tenants])
        loading.put(APPS, [(tenant, f"a{number}", f"app-{number}", "d", None) for number, tenant in keys])
        loading.put(MAPPER, [(tenant, f"key-{number}", f"a{number}", "p", None) for number, tenant in keys])
    return [scope.id for scope in scopes]


def _edit(path: str, number: int) -> None:
    with Registry.open(path) as registry:
        registry.add_scope("more", f"e{number}")


def _replace(path: str) -> None:
    """Put another file in the registry's place, of the same content: the catalog is built anew."""
    with connect(path) as connection:
        connection.execute("VACUUM INTO ?", (f"{path}.new",))
    os.chmod(f"{path}.new", 0o600)
    os.replace(f"{path}.new", path)
