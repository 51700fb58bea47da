"""Made-up API calls of several tenants, as gateways report them: Apigee's vocabulary, plausible values.

Everything is drawn from the `Random` that is handed in: the same seed gives the same records.
"""

import gzip
import random
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from axcollector.core import layout

MAX_BATCH_RECORDS: Final = 100

TENANTS: Final = (("acme", "prod"), ("acme", "test"), ("globex", "prod"), ("initech", "eu-west"))
_WEIGHTS: Final = (6, 1, 3, 2)

_PROXIES: Final = (
    # Name, revision, target, base path, resources.
    ("weather", "12", "weather-backend", "/v1/weather", ("/forecast", "/current", "/stations/{}")),
    ("orders", "7", "orders-eu", "/v2/orders", ("", "/{}", "/{}/items", "/{}/invoice")),
    ("oauth", "2", "identity", "/oauth2", ("/token", "/authorize", "/refresh")),
    ("catalog", "31", "catalog-search", "/v1/catalog", ("/search", "/products/{}", "/categories")),
)
_AGENTS: Final = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/129.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "okhttp/4.12.0",
    "python-requests/2.32.3",
    "curl/8.9.1",
    "Zürich-Wetter/3.1 (Android 14)",
)
_QUERIES: Final = (
    "",
    "?q=blue+shoes&page=2",
    "?lat=47.37&lon=8.54&units=metric",
    "?redirect_url=http%3A%2F%2Fexample.com",
)
_VERBS: Final = ("GET", "GET", "GET", "GET", "POST", "POST", "PUT", "DELETE")
_FROM_CACHE: Final = 304
"""What the gateway answers by itself; there is no target then."""
_WITH_A_KEY: Final = 0.9
"""The share of calls that need one; the others are open to everybody."""
_STATUSES: Final = (200,) * 14 + (201, 204, 304, 400, 404, 429, 500, 503)


@dataclass(frozen=True, slots=True)
class Client:
    """Where the records of a tenant come from.

    Attributes:
        organization: The tenant's organization.
        environment: The tenant's environment.
        scope: Its scope id.
        client_ids: The keys of its developers.
    """

    organization: str
    environment: str
    scope: str
    client_ids: tuple[str, ...]

    @property
    def tenant(self) -> str:
        """The tenant, as directories of the store are called."""
        return layout.tenant_directory(self.organization, self.environment)


@dataclass(frozen=True, slots=True)
class Posting:
    """A request's worth of records.

    Attributes:
        client: Who sends them.
        flow_ids: Their `gateway_flow_id`, each of them unique.
        body: The request's body.
        gzipped: Whether the body is gzip.
    """

    client: Client
    flow_ids: tuple[str, ...]
    body: bytes
    gzipped: bool


def postings(clients: Sequence[Client], total: int, chance: random.Random, now: float) -> Iterator[Posting]:
    """`total` records as requests of 1 to 100 of them, of all clients in turn, every other one gzip.

    Args:
        clients: Who sends, in the order of `TENANTS`.
        total: How many records.
        chance: What everything is drawn from.
        now: When the last of them was called, seconds since the epoch.
    """
    gzipped = False
    while total:
        size = min(total, chance.randint(1, MAX_BATCH_RECORDS))
        total -= size
        [client] = chance.choices(clients, _WEIGHTS[: len(clients)])
        yield posting(client, [call(chance, now, client.client_ids) for _ in range(size)], gzipped=gzipped)
        gzipped = not gzipped


def posting(client: Client, records: Sequence[dict[str, Any]], *, gzipped: bool) -> Posting:
    """These records as a request."""
    body = msgspec.json.encode({"records": records})
    flow_ids = tuple(record["gateway_flow_id"] for record in records)
    # No time in the gzip header: the same records are the same bytes.
    return Posting(client, flow_ids, gzip.compress(body, 6, mtime=0) if gzipped else body, gzipped)


def call(chance: random.Random, now: float, client_ids: Sequence[str]) -> dict[str, Any]:
    """One API call that ended within the last second, as the gateway reports it."""
    proxy, revision, target, base, resources = chance.choice(_PROXIES)
    path = base + chance.choice(resources).format(chance.randrange(100_000, 1_000_000))
    status = chance.choice(_STATUSES)
    milliseconds = min(900, int(chance.lognormvariate(3.5, 0.8)))
    started = int(now * 1000) - 1000 + chance.randrange(100)
    record: dict[str, Any] = {
        "client_received_start_timestamp": started,
        "client_received_end_timestamp": started + 1,
        "client_sent_start_timestamp": started + milliseconds,
        "client_sent_end_timestamp": started + milliseconds + 1,
        "recordType": "APIAnalytics",
        "gateway_flow_id": str(uuid.UUID(int=chance.getrandbits(128), version=4)),
        "gateway_source": "microgateway",
        "apiproxy": proxy,
        "apiproxy_revision": revision,
        "request_verb": chance.choice(_VERBS),
        "request_path": path,
        "request_uri": path + chance.choice(_QUERIES),
        "response_status_code": status,
        "client_ip": f"198.51.100.{chance.randrange(1, 255)}",
        "useragent": chance.choice(_AGENTS),
    }
    if status != _FROM_CACHE:
        record |= _target(target, status, started, milliseconds)
    if chance.random() < _WITH_A_KEY:
        record["client_id"] = chance.choice(client_ids)
        record["access_token"] = f"{chance.getrandbits(120):030x}"
    return record


def _target(name: str, status: int, started: int, milliseconds: int) -> dict[str, Any]:
    """What a record says about the service behind the gateway."""
    return {
        "target": name,
        "target_host": f"{name}.internal.example.com",
        "target_response_code": status,
        "target_sent_start_timestamp": started + 1,
        "target_sent_end_timestamp": started + 1,
        "target_received_start_timestamp": started + max(1, milliseconds - 1),
        "target_received_end_timestamp": started + milliseconds,
    }
