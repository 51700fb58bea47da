"""Realistic records for tests and benchmarks: made-up API calls in Apigee's vocabulary, the same for the same seed.

What makes them is what the demo sends; here are the shapes in which tests and benchmarks want them.
"""

import gzip
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from axcollector.cli.demo_records import call

CLIENT_IDS = ("key-1", "key-2", "key-3", "key-nobody-knows")
NOW = 1_700_000_000.0
"""When all of them were called, unless something else is said: seconds since the epoch."""


def records(
    count: int, seed: int = 0, now: float = NOW, client_ids: Sequence[str] = CLIENT_IDS
) -> list[dict[str, Any]]:
    """So many records; each has a `gateway_flow_id` of its own."""
    chance = random.Random(seed)
    return [call(chance, now, client_ids) for _ in range(count)]


def batches(
    count: int, size: int, seed: int = 0, now: float = NOW, client_ids: Sequence[str] = CLIENT_IDS
) -> Iterator[list[dict[str, Any]]]:
    """So many batches of `size` records; no record is in two of them."""
    chance = random.Random(seed)
    for _ in range(count):
        yield [call(chance, now, client_ids) for _ in range(size)]


def body(batch: Sequence[Mapping[str, Any]], *, gzipped: bool = False) -> bytes:
    """The body of a request that sends this batch."""
    text = msgspec.json.encode({"records": batch})
    return gzip.compress(text, 6, mtime=0) if gzipped else text
