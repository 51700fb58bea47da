"""One run of one cell of the ingest benchmark: the service on one core, the load on another, until all is delivered.

What is said of a run counts the whole way: `records/s` is what was accepted by the time of the load *and* of the CPU
that the service still needed behind it until all of it was in the store, so splitting and uploading are paid for,
however the intervals fell. A run in which a record is missing from the store, or stands there twice, is no run.
"""

import gzip
import json
import os
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import ingest_wrk
from benchmarks.ingest_client import Plan
from benchmarks.ingest_load import Requests, Yardstick, yardstick
from benchmarks.service import ROOT, Service

_STAGES = ("tmp", "staging", "failed", "recovered")
_DELIVERY_SECONDS = 600.0
_SAMPLE_BYTES = 32 << 20
"""So much of a delivered file is compressed by `gzip -6` for comparison."""
_SLICE_BYTES = 1 << 22
BUSY = 0.85
"""A client that takes more of its core than this is suspected of being what was measured."""


@dataclass(frozen=True)
class Conditions:
    """Under which every run is made.

    Attributes:
        registry: A registry file, copied for each run.
        pool: The records, for the yardstick.
        connections: Of the client.
        seconds: How long the load is.
        interval: `collection_interval`, shorter than the load.
        service_cpu: The core of the service.
        client_cpu: The core of the client.
        yardstick_seconds: How long Y is measured, before and after each run.
        options: More options of the service.
        wrk: The program that sends plain bodies as fast as they are taken, in place of our own client.
    """

    registry: Path
    pool: Sequence[bytes]
    connections: int = 64
    seconds: float = 8.0
    interval: int = 3
    service_cpu: int = 0
    client_cpu: int = 1
    yardstick_seconds: float = 1.0
    options: tuple[str, ...] = ()
    wrk: str | None = None


def service_of(conditions: Conditions, compression: str, prepare: Callable[[Path], object] = lambda _: None) -> Service:
    """The service, started. Production defaults but for the short intervals, at whose ends all is done at once.

    `prepare` is given its data directory before the start.
    """
    service = Service(
        *("--collection-interval", str(conditions.interval), "--close-grace", "0.5", "--upload-interval", "1"),
        *("--compression", compression, *conditions.options),
        cpu=conditions.service_cpu,
    )
    shutil.copyfile(conditions.registry, service.root / "registry.db")
    prepare(service.root)
    return service.start()


def measure(conditions: Conditions, requests: Requests, compression: str = "fast", pace: float = 0.0) -> dict[str, Any]:
    """One run; see `figures` for what it gives. `pace`: requests a second, 0 for as many as are answered."""
    before = yardstick(conditions.pool, conditions.service_cpu, conditions.yardstick_seconds)
    service = service_of(conditions, compression)
    try:
        run = load(service, conditions, requests, pace)
    finally:
        service.stop()
    after = yardstick(conditions.pool, conditions.service_cpu, conditions.yardstick_seconds)
    return figures(run, requests.records, before, after)


def load(service: Service, conditions: Conditions, requests: Requests, pace: float) -> dict[str, Any]:
    """What the client saw, and what of it lies in the store."""
    port, path = service.port, requests.path
    plan = Plan(port, path, requests.lengths, conditions.connections, conditions.seconds, pace, conditions.client_cpu)
    began = service.cpu_seconds()
    run = ingest_wrk.run(conditions.wrk, plan) if conditions.wrk and not pace else run_client(plan)
    loaded = service.cpu_seconds()
    run["sent MB"] = sum(requests.lengths) / len(requests.lengths) * sum(run["statuses"].values()) / 1e6
    wait_for_delivery(service)
    delivered = service.cpu_seconds()
    run |= {"cpu": delivered - began, "cpu behind": delivered - loaded}
    run["service share"] = (loaded - began) / run["seconds"]
    run["peak MB"] = service.memory_megabytes("VmHWM")
    return run | delivered_bytes(sorted((service.root / "store").glob("**/*.gz")))


def run_client(plan: Plan) -> dict[str, Any]:
    """What a client in a process of its own says."""
    command = [sys.executable, "-m", "benchmarks.ingest_client"]
    text = json.dumps(vars(plan))
    done = subprocess.run(command, cwd=ROOT, input=text, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def wait_for_delivery(service: Service) -> None:
    """Until no stage holds a file, and one more look says so too."""
    deadline, empty = time.monotonic() + _DELIVERY_SECONDS, 0
    while empty < 2:
        if service.popen.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("the service did not deliver:\n" + "".join(service.lines[-20:]))
        time.sleep(0.1)
        left = [name for stage in _STAGES for _, _, names in os.walk(service.root / "ax" / stage) for name in names]
        empty = 0 if left else empty + 1


def delivered_bytes(files: Sequence[Path]) -> dict[str, Any]:
    """How many records these files hold, in how many bytes; and in how many `gzip -6` would have put them."""
    count = size = longest = 0
    largest: Path | None = None
    for file in files:
        length = 0
        with gzip.open(file) as lines:
            while part := lines.read(_SLICE_BYTES):
                length += len(part)
                count += part.count(b"\n")
        size += file.stat().st_size
        if length > longest:
            longest, largest = length, file
    if largest is None:
        return {"delivered": 0, "bytes a record": 0.0, "of gzip -6": 0.0}
    with gzip.open(largest) as lines:
        sample = lines.read(_SAMPLE_BYTES)
    packed = len(zlib.compress(sample, 6, 31)) * longest / len(sample)
    return {"delivered": count, "bytes a record": size / count, "of gzip -6": largest.stat().st_size / packed}


def figures(run: dict[str, Any], per_request: int, before: Yardstick, after: Yardstick) -> dict[str, Any]:
    """What a run comes to.

    Raises:
        SystemExit: Not every accepted record was delivered once.
    """
    accepted = run["statuses"].get("200", 0) * per_request
    if not 0 <= run["delivered"] - accepted <= run.get("unread", 0) * per_request:
        raise SystemExit(f"{accepted} records were accepted, {run['delivered']} lie in the store")
    y = (before.per_second + after.per_second) / 2
    y_cpu = (before.per_cpu_second + after.per_cpu_second) / 2
    seconds = run["seconds"] + run["cpu behind"]
    rate = accepted / seconds
    return {
        "records": accepted,
        "records/s": rate,
        "Y": y,
        "of Y": rate / y,
        "of Y by CPU": accepted / run["cpu"] / y_cpu,
        "MB/s": run["sent MB"] / seconds,
        "CPU s a million": run["cpu"] / accepted * 1e6 if accepted else 0.0,
        "other answers": {status: count for status, count in run["statuses"].items() if status != "200"},
        "client is the bottleneck": run["cpu share"] > BUSY and run["service share"] < BUSY,
        "requests/s": run["statuses"].get("200", 0) / run["seconds"],
        **{
            name: run[name]
            for name in (
                *("p50 ms", "p99 ms", "max ms", "stall ms", "peak MB", "bytes a record", "of gzip -6"),
                *("cpu share", "service share"),
            )
        },
    }
