"""What the growth benchmark measures: which cells there are, and the registry, requests and backlog of each.

Everything follows from the seed. Of the records of a request each client is a key of the request's tenant; requests
are of all tenants in turn, so that a commit holds as many of them as there are connections: no order is worse.
"""

import gzip
import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from axcollector.core.layout import tenant_directory
from axcollector.core.stamps import stamp
from axcollector.core.tables import APPS, DEVELOPERS, MAPPER, PRODUCTS, SCOPES, Values
from axcollector.registry import Registry
from axcollector.registry_bulk import BulkRegistry
from benchmarks.ingest_load import ENVIRONMENT, POOL_RECORDS, Requests, client_ids, record, request

_ROWS = 10_000
_PRODUCTS = 100
_KEYS_A_DEVELOPER = 5
_WORDS = 2_000
_FIRST = ("client_received_start_timestamp", "client_id", "gateway_flow_id", "request_verb", "response_status_code")
"""What a small record keeps before anything else."""
BACKLOG_TENANTS = 100
BACKLOG_RECORDS = 10
"""In each file that was staged before."""
_BACKLOG_START = 1_600_000_020
_MINUTE = 60


@dataclass(frozen=True)
class Cell:
    """What is measured, one after the other.

    Attributes:
        axis: What grows.
        value: So many, or so large.
        per_request: Records a request.
        tenants: Of the registry, and of the requests.
        keys: Of the registry, of all tenants together.
        connections: Of the client.
        record_bytes: How large each record is; 0: as records are, some 820 bytes.
        backlog: So many buckets lie in staging when the service starts.
    """

    axis: str
    value: int
    per_request: int
    tenants: int = 1
    keys: int = 10_000
    connections: int = 64
    record_bytes: int = 0
    backlog: int = 0


@dataclass(frozen=True)
class Axis:
    """Something that grows.

    Attributes:
        field: What of a cell it is.
        values: So many, one after the other; each is held against the first.
        per_request: Records a request; a series for each.
    """

    field: str
    values: tuple[int, ...]
    per_request: tuple[int, ...] = (10,)


AXES = {
    "tenants": Axis("tenants", (1, 100, 10_000), (1, 10)),
    "keys": Axis("keys", (10_000, 100_000, 1_000_000)),
    "connections": Axis("connections", (1, 64, 1_000), (1,)),
    "size": Axis("record_bytes", (200, 1_000, 20_000)),
    "backlog": Axis("backlog", (0, 10_000)),
}


def series(name: str, values: Sequence[int] | None = None) -> list[list[Cell]]:
    """The series of cells of an axis: of its values, or of others."""
    axis = AXES[name]
    return [
        [Cell(name, value, per_request, **{axis.field: value}) for value in values or axis.values]
        for per_request in axis.per_request
    ]


def scope_id(tenant: int) -> str:
    """The scope of a tenant by its number."""
    return f"00000000-0000-4000-8000-{tenant:012d}"


def keys_of(ids: Sequence[str], tenant: int, tenants: int) -> Sequence[str]:
    """The keys of one tenant: each of the tenants has every so-manieth."""
    return ids[tenant::tenants]


def make_registry(path: Path, cell: Cell, seed: int) -> None:
    """The registry of a cell, as an import makes it."""
    Registry.create(str(path)).close()
    with BulkRegistry.open(str(path)) as registry, registry.loading() as loading:
        for table, rows in _rows(cell, client_ids(seed, cell.keys)):
            loading.put(table, rows)


def _rows(cell: Cell, ids: Sequence[str]) -> Iterator[tuple[str, list[Values]]]:
    """Each tenant's keys, as many apps, a fifth as many developers, and up to a hundred products."""
    tenants, keys = range(cell.tenants), range(cell.keys)
    products = max(1, min(_PRODUCTS, cell.keys // cell.tenants))
    scopes: Iterator[Values] = ((scope_id(t), f"t{t}", f"org-{t}", ENVIRONMENT) for t in tenants)
    yield from _some(SCOPES, scopes)
    yield from _some(PRODUCTS, ((f"t{t}", f"p{p}", f"product-{p}") for t in tenants for p in range(products)))
    per_tenant = -(-cell.keys // cell.tenants)
    developers = range(-(-per_tenant // _KEYS_A_DEVELOPER))
    people: Iterator[Values] = (
        (f"t{t}", f"d{d}", f"developer-{d}", f"developer-{d}@example.com") for t in tenants for d in developers
    )
    yield from _some(DEVELOPERS, people)
    # The n-th key is that of the tenant n modulo their number, as `keys_of` has it.
    places = [(f"t{n % cell.tenants}", n // cell.tenants) for n in keys]
    yield from _some(APPS, ((t, f"a{n}", f"application-{n}", f"d{n // _KEYS_A_DEVELOPER}", None) for t, n in places))
    yield from _some(
        MAPPER, ((t, key, f"a{n}", f"p{n % products}", None) for key, (t, n) in zip(ids, places, strict=True))
    )


def _some(table: str, rows: Iterator[Values]) -> Iterator[tuple[str, list[Values]]]:
    """Rows of a table, as many at a time as are put at once."""
    batch: list[Values] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _ROWS:
            yield table, batch
            batch = []
    if batch:
        yield table, batch


def write_requests(file: Path, cell: Cell, seed: int, pool: int = POOL_RECORDS) -> Requests:
    """At least `pool` records as requests, and one request at least of each tenant."""
    chance, ids = random.Random(seed), client_ids(seed, cell.keys)
    words = ["".join(chance.choices(string.ascii_lowercase, k=chance.randint(3, 9))) for _ in range(_WORDS)]
    if cell.record_bytes:  # not more bytes than with records as they are
        pool = min(pool, max(cell.per_request, pool * 1_000 // cell.record_bytes))
    lengths = []
    with file.open("wb") as out:
        for number in range(max(pool // cell.per_request, cell.tenants)):
            tenant = number % cell.tenants
            own = keys_of(ids, tenant, cell.tenants)
            texts = [sized(record(chance, own), cell.record_bytes, chance, words) for _ in range(cell.per_request)]
            body = b'{"records":[%b]}' % b",".join(texts)
            made = request(f"/analytics/{scope_id(tenant)}", body, gzipped=False)
            out.write(made)
            lengths.append(len(made))
    return Requests(str(file), lengths, cell.per_request)


def sized(made: dict[str, Any], size: int, chance: random.Random, words: Sequence[str]) -> bytes:
    """A record's JSON, of about so many bytes (0: as many as it has): without some fields, or with more of words."""
    if not size:
        return msgspec.json.encode(made)
    ordered = {name: made[name] for name in sorted(made, key=lambda name: (name not in _FIRST, name))}
    text = msgspec.json.encode(ordered)
    while len(text) > size and len(ordered) > 1:
        ordered.popitem()
        text = msgspec.json.encode(ordered)
    at = 0
    while (lack := size - len(text)) > _FIELD_BYTES:
        value = " ".join(chance.choices(words, k=_FIELD_WORDS))
        ordered[f"header_{at}"] = value[: lack - len(f',"header_{at}":""')]
        text = msgspec.json.encode(ordered)
        at += 1
    return text


_FIELD_BYTES, _FIELD_WORDS = 24, 40


def fill_backlog(root: Path, cell: Cell) -> None:
    """Buckets with a file each in staging, of a hundred tenants, before the service starts."""
    staging = root / "ax" / "staging"
    staging.mkdir(mode=0o700, parents=True)
    staging.parent.chmod(0o700)
    content = gzip.compress(b"{}\n" * BACKLOG_RECORDS, mtime=0)
    for number in range(cell.backlog):
        name = tenant_directory(f"before-{number % BACKLOG_TENANTS}", ENVIRONMENT)
        start = stamp(_BACKLOG_START + _MINUTE * (number // BACKLOG_TENANTS))
        bucket = staging / f"{name}~{start}"
        bucket.mkdir(mode=0o700)
        file = bucket / f"{number:04x}.txt.gz"
        file.write_bytes(content)
        file.chmod(0o600)
