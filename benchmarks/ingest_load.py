"""What the ingest benchmark sends, and the yardstick Y that it is measured by; the same for the same seed.

A record is a call as the demo makes them, of some 820 bytes, but of calls spread over minutes, with addresses, tokens
and sessions as various as real ones; `gzip -6` makes about 140 bytes of it. Requests are made beforehand and lie in
a file, which the client (`benchmarks.ingest_client`) reads.
"""

import gzip
import os
import random
import string
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from axcollector.cli.demo_records import call
from axcollector.core.tables import APPS, DEVELOPERS, MAPPER, PRODUCTS
from axcollector.registry import Registry
from axcollector.registry_bulk import BulkRegistry

KEYS = 10_000
POOL_RECORDS = 20_000
"""So many different records; as 16 MB, nothing that compresses remembers one when it comes again."""
ORGANIZATION, ENVIRONMENT = "acme", "prod"
_LEFT_OUT = ("client_sent_end_timestamp", "target_sent_end_timestamp", "gateway_source", "target_host")
_BEHIND_A_PROXY = 0.5
NOW = 1_700_000_000.0
SPREAD_SECONDS = 600.0
"""Over so long the calls are spread; gateways report late, and several of them to one collector."""
_TOKEN_LETTERS = string.ascii_letters + string.digits


def client_ids(seed: int, count: int = KEYS) -> list[str]:
    """The keys that are in the registry, and in the records."""
    chance = random.Random(f"keys {seed}")
    return [f"{chance.getrandbits(160):032X}"[-32:] for _ in range(count)]


def records(count: int, seed: int) -> list[bytes]:
    """So many records, as JSON."""
    chance, ids = random.Random(seed), client_ids(seed)
    return [msgspec.json.encode(record(chance, ids)) for _ in range(count)]


def record(chance: random.Random, ids: Sequence[str]) -> dict[str, Any]:
    """A call as the demo makes them, with as much that is its own as a call has that no demo made."""
    made = call(chance, NOW + chance.uniform(0, SPREAD_SECONDS), ids)
    for name in _LEFT_OUT:
        made.pop(name, None)
    made["client_ip"] = _address(chance)
    made["request_uri"] += f"{'&' if '?' in made['request_uri'] else '?'}session={chance.getrandbits(64):016x}"
    if "access_token" in made:
        made["access_token"] = "".join(chance.choices(_TOKEN_LETTERS, k=28))
    if chance.random() < _BEHIND_A_PROXY:
        made["x_forwarded_for_ip"] = _address(chance)
    return made


def _address(chance: random.Random) -> str:
    return ".".join(str(chance.randrange(1, 255)) for _ in range(4))


def make_registry(path: Path, seed: int) -> str:
    """Make a registry of one scope and `KEYS` keys, with a fifth as many developers; the scope's id."""
    with Registry.create(str(path)) as registry:
        scope = registry.add_scope(ORGANIZATION, ENVIRONMENT)
    ids, tenant = client_ids(seed), scope.tenant.id
    with BulkRegistry.open(str(path)) as registry, registry.loading() as loading:
        loading.put(PRODUCTS, [(tenant, f"p{n}", f"product-{n}") for n in range(100)])
        loading.put(
            DEVELOPERS, [(tenant, f"d{n}", f"developer-{n}", f"developer-{n}@example.com") for n in range(KEYS // 5)]
        )
        loading.put(APPS, [(tenant, f"a{n}", f"application-{n}", f"d{n // 5}", None) for n in range(KEYS)])
        loading.put(MAPPER, [(tenant, key, f"a{n}", f"p{n % 100}", None) for n, key in enumerate(ids)])
    return scope.id


@dataclass(frozen=True)
class Requests:
    """Requests in a file, one behind the other.

    Attributes:
        path: The file.
        lengths: How long each is, in bytes.
        records: How many records each holds.
    """

    path: str
    lengths: list[int]
    records: int


def request(path: str, body: bytes, *, gzipped: bool) -> bytes:
    """A request that posts this body."""
    coding = "Content-Encoding: gzip\r\n" if gzipped else ""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{coding}"
    return head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def write_requests(file: Path, url_path: str, pool: Sequence[bytes], per_request: int, *, gzipped: bool) -> Requests:
    """The whole pool as requests of so many records each."""
    lengths = []
    with file.open("wb") as out:
        for start in range(0, len(pool) - per_request + 1, per_request):
            body = b'{"records":[%b]}' % b",".join(pool[start : start + per_request])
            made = request(url_path, gzip.compress(body, 6, mtime=0) if gzipped else body, gzipped=gzipped)
            out.write(made)
            lengths.append(len(made))
    return Requests(str(file), lengths, per_request)


@dataclass(frozen=True)
class Yardstick:
    """Records a second that zlib compresses at level 6, 100 at a time with a sync flush after each hundred.

    Attributes:
        per_second: By the clock on the wall: what a service on the same core had to share with others, this had too.
        per_cpu_second: By the CPU's: what this core does when nobody else is there.
    """

    per_second: float
    per_cpu_second: float


def yardstick(pool: Sequence[bytes], cpu: int, seconds: float) -> Yardstick:
    """Measure Y on this core for so long."""
    groups = [b"\n".join(pool[start : start + 100]) + b"\n" for start in range(0, len(pool) - 99, 100)]
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        packer = zlib.compressobj(6)
        done, began, used = 0, time.perf_counter(), time.thread_time()
        while (took := time.perf_counter() - began) < seconds:
            packer.compress(groups[done % len(groups)])
            packer.flush(zlib.Z_SYNC_FLUSH)
            done += 1
        return Yardstick(done * 100 / took, done * 100 / (time.thread_time() - used))
    finally:
        os.sched_setaffinity(0, before)
