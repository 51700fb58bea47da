"""The real service on real ports of this machine, and clients for it."""

import gzip
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import treq
from twisted.internet import defer, reactor, task
from twisted.web.client import Agent, HTTPConnectionPool

from axcollector.assembly import make_service
from axcollector.collector import Collector
from axcollector.config import Config
from axcollector.listening import Listeners
from axcollector.registry import Registry
from axcollector.services import InOrder

QUICK = {"collection_interval": 1, "close_grace": 0.1, "upload_interval": 0.1}
"""Settings with which a record is delivered after about a second."""


async def until(condition: Any, seconds: float = 60) -> None:
    """Turn the reactor until the condition, a function, holds."""
    for _ in range(int(seconds * 50)):
        if condition():
            return
        await task.deferLater(reactor, 0.02)
    raise AssertionError(f"not so within {seconds} s: {condition}")


class Running:
    """A collector with its doors, made as the launcher makes it, on ports chosen by the system.

    Attributes:
        root: Its data directory.
        collector: The collector itself.
        url: Where it takes records.
        admin: Where it tells of its health.
    """

    def __init__(self, root: Path, **settings: Any) -> None:
        self.root = root
        ports = {"listen": ["tcp:0:interface=127.0.0.1"], "admin_listen": "tcp:port=0:interface=127.0.0.1"}
        self.config = Config(**{"local_storage_path": str(root), **ports, **QUICK, **settings})
        self._pool = HTTPConnectionPool(reactor)
        self._pool.maxPersistentPerHost = 64
        self._agent = Agent(reactor, pool=self._pool)

    async def start(self) -> "Running":
        """Start it, and wait for its first snapshot."""
        self.service = make_service(reactor, self.config)
        assert isinstance(self.service, InOrder)
        self.service.startService()
        parts = self.service._services
        self.collector = next(part for part in parts if isinstance(part, Collector))
        ports = [part.addresses[0].port for part in parts if isinstance(part, Listeners)]
        names = [part.name for part in parts if isinstance(part, Listeners)]
        self.url, self.admin = (f"http://127.0.0.1:{ports[names.index(n)]}" for n in ("listen", "admin_listen"))
        await until(self.collector.directory.ready)
        return self

    async def stop(self) -> None:
        """Stop it as a shutdown does."""
        await self.service.stopService()
        await self._pool.closeCachedConnections()

    async def scope(self, organization: str, environment: str, *keys: str) -> str:
        """A scope of a tenant with these client ids, added to the registry as the command line does, and seen."""
        scope = self._add_scope(organization, environment, *keys)
        await until(lambda: self._knows(scope))
        return scope

    def _add_scope(self, organization: str, environment: str, *keys: str) -> str:
        registry = Registry.open(self.config.registry_file)
        scope = registry.add_scope(organization, environment).id
        for key in keys:
            registry.add_key(scope, key, product=f"p-{key}", app=f"a-{key}", developer=f"d-{key}", email=f"{key}@x.y")
        registry.close()
        return scope

    def _knows(self, scope: str) -> bool:
        catalog = self.collector.sync.catalog
        # Without caching the registry is asked each time, and knows what was just added.
        return not self.config.use_caching or (catalog is not None and catalog.tenant_of_scope(scope) is not None)

    async def post(self, path: str, body: bytes, *, gzipped: bool = False, **headers: str) -> tuple[int, Any]:
        """Status and JSON answer of a POST."""
        all_headers = {"Content-Type": "application/json", **headers}
        if gzipped:
            body, all_headers["Content-Encoding"] = gzip.compress(body, 1), "gzip"
        response = await treq.post(self.url + path, body, headers=all_headers, agent=self._agent)
        return response.code, json.loads(await response.content())

    async def send(self, scope: str, records: Sequence[str], *, gzipped: bool = False) -> None:
        """A batch that must be taken."""
        body = b'{"records":[%b]}' % ",".join(records).encode()
        answer = await self.post(f"/analytics/{scope}", body, gzipped=gzipped)
        assert answer == (200, {"accepted": len(records), "rejected": 0})

    def delivered(self) -> dict[str, list[bytes]]:
        """The lines delivered to the `file:` store, by tenant."""
        return delivered_below(self.root / "store")

    def stored(self) -> int:
        """How many lines were delivered."""
        return sum(map(len, self.delivered().values()))


def delivered_below(store: Path) -> dict[str, list[bytes]]:
    """The lines of all files of a `file:` store, by tenant; files under way are not looked at."""
    found: dict[str, list[bytes]] = {}
    for path in sorted(store.glob("*/date=*/time=*/*.txt.gz")):
        tenant = path.relative_to(store).parts[0]
        found.setdefault(tenant, []).extend(gzip.decompress(path.read_bytes()).splitlines())
    return found


def ids_of(lines: Iterable[bytes]) -> Counter[Any]:
    """How often each record's `id` is there."""
    return Counter(json.loads(line)["id"] for line in lines)


async def gather(work: Iterable[Any]) -> list[Any]:
    """Run coroutines side by side."""
    return list(await defer.gatherResults([defer.ensureDeferred(each) for each in work], consumeErrors=True))
