"""What packing costs and gives: `python -m benchmarks.packing [--seconds 10] [--json FILE]`.

For `compression: fast` and `small`, at 1 and at 100 records a request: fills a journal, lets its interval end, and
prints the latency of a client beside the split (and beside nothing, for comparison), how long the split took, and the
size of the delivered file against `gzip -6` of its lines. Exit status 1 where a bar is missed: 1.25 of gzip's size for
a trickle of single records, 1.1 with `small`; a p99 beside the split of 100 ms.
"""

import argparse
import gzip
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.load import LoadProcess, Plan
from benchmarks.service import Service
from tests.records_made import records

BODIES = 200


def bodies(per_request: int) -> list[str]:
    """Request bodies of realistic records, all different."""
    made = records(min(BODIES * per_request, 20_000), seed=1)
    chance = random.Random(2)
    return [
        json.dumps({"records": [chance.choice(made) for _ in range(per_request)]}, separators=(",", ":"))
        for _ in range(BODIES)
    ]


def measure(compression: str, per_request: int, seconds: float) -> dict[str, Any]:
    """One journal of one tenant, filled and split."""
    interval = int(seconds + 15)
    time.sleep(interval - time.time() % interval)
    service = Service(
        "--collection-interval",
        str(interval),
        "--close-grace",
        "0",
        "--upload-interval",
        "3600",
        "--compression",
        compression,
    )
    with service.registry() as registry:
        path = f"/analytics/{registry.add_scope('acme', 'prod').id}"
    service.start()
    few = bodies(1)[:1]
    load = LoadProcess(Plan(service.port, [path], bodies(per_request), connections=32, seconds=seconds)).result()
    alone = LoadProcess(Plan(service.port, [path], few, connections=1, seconds=2)).result()
    time.sleep(max(0.0, interval - time.time() % interval - 0.3))
    begun = time.time()
    beside = []
    while not any("was split" in line for line in service.lines):
        beside.append(LoadProcess(Plan(service.port, [path], few, connections=1, seconds=2)).result())
    took = time.time() - begun
    (file,) = (service.root / "ax" / "staging").glob("*/*")
    lines = gzip.decompress(file.read_bytes())
    result = {
        "compression": compression,
        "records a request": per_request,
        "records a second": round(load["per_second"] * per_request),
        "p99 alone ms": alone["p99"],
        "p99 beside ms": max(each["p99"] for each in beside),
        "split s, at most": round(took, 1),
        "bytes a record": round(file.stat().st_size / lines.count(b"\n"), 1),
        "of gzip -6": round(file.stat().st_size / len(gzip.compress(lines, 6)), 3),
    }
    service.stop()
    return result


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = [measure(kind, count, options.seconds) for kind in ("fast", "small") for count in (1, 100)]
    missed = False
    for result in results:
        print(", ".join(f"{name}: {value}" for name, value in result.items()))
        bar = {("small", 1): 1.1, ("small", 100): 1.1, ("fast", 1): 1.25}.get(
            (result["compression"], result["records a request"]), float("inf")
        )
        missed = missed or result["of gzip -6"] > bar or result["p99 beside ms"] > 100
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    print("a bar was missed" if missed else "all bars held")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
