"""Many tenants in one interval: `python -m benchmarks.tenants [--tenants 10000] [--seconds 8] [--json FILE]`.

Sends single records, first of one tenant and then of many, to the real service, and prints for each the requests a
second, latencies, memory and open files; then, while the journal of the many is split into their files, the latencies
of a client beside it. The bars (commits and p99 within 1.5 of one tenant's, 300 MB, 512 files, 100 ms while splitting)
are judged at the end; exit status 1 where one is missed.
"""

import argparse
import json
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.load import LoadProcess, Plan
from benchmarks.service import Service

BODY = json.dumps(
    {"records": [{"client_received_start_timestamp": 1_480_000_000_000, "request_path": "/v1/orders", "verb": "GET"}]}
)


class Watch:
    """Looks at the service's memory and open files a few times a second."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._stop = threading.Event()
        self.files = 0
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._stop.wait(0.05):
            self.files = max(self.files, self._service.open_files())

    def end(self) -> int:
        """The most files that were open."""
        self._stop.set()
        self._thread.join()
        return self.files


def measure(tenants: int, seconds: float, rounds: int) -> dict[str, Any]:
    """One tenant and many in turn, then the split of the many."""
    interval = int(rounds * 2 * seconds + 30)
    # An interval that ends after the measurements; its split is watched then.
    wait = interval - time.time() % interval
    if wait < rounds * 2 * seconds + 10:
        time.sleep(wait)
    service = Service("--collection-interval", str(interval), "--close-grace", "0", "--upload-interval", "3600")
    with service.registry() as registry:
        paths = [f"/analytics/{registry.add_scope(f'org-{i}', 'prod').id}" for i in range(tenants)]
    service.start()
    watch = Watch(service)
    one, many = [], []
    for seed in range(rounds):
        one.append(LoadProcess(Plan(service.port, paths[:1], [BODY], seconds=seconds, seed=seed)).result())
        many.append(LoadProcess(Plan(service.port, paths, [BODY], seconds=seconds, seed=seed)).result())
    beside = _while_splitting(service, paths, interval)
    result = {
        "one": _medians(one),
        "many": _medians(many),
        "while splitting": beside,
        "split files": len(list((service.root / "ax" / "staging").glob("*/*"))),
        "peak memory MB": round(service.memory_megabytes("VmHWM")),
        "open files": watch.end(),
    }
    service.stop()
    return result


def _while_splitting(service: Service, paths: list[str], interval: int) -> dict[str, Any]:
    """Load of one connection from just before the interval's end until its journal is split."""
    time.sleep(max(0.0, interval - time.time() % interval - 1.0))
    results = []
    while not any("was split" in line for line in service.lines):
        results.append(LoadProcess(Plan(service.port, paths[:1], [BODY], connections=8, seconds=5)).result())
    return {"p99": max(r["p99"] for r in results), "max": max(r["max"] for r in results), "seconds": 5 * len(results)}


def _medians(results: list[dict[str, Any]]) -> dict[str, Any]:
    assert all(set(result["statuses"]) == {"200"} for result in results), results
    return {name: statistics.median(result[name] for result in results) for name in ("per_second", "p50", "p99")}


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tenants", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = measure(options.tenants, options.seconds, options.rounds)
    for name, value in result.items():
        print(f"{name:>16}: {value}")
    ratio = result["one"]["per_second"] / result["many"]["per_second"]
    slower = result["many"]["p99"] / result["one"]["p99"]
    bars = {
        f"requests a second, one to many: {ratio:.2f}": ratio <= 1.5,
        f"p99, many to one: {slower:.2f}": slower <= 1.5,
        f"peak memory {result['peak memory MB']} MB": result["peak memory MB"] <= 300,
        f"open files {result['open files']}": result["open files"] <= 512,
        f"p99 while splitting {result['while splitting']['p99']} ms": result["while splitting"]["p99"] <= 100,
    }
    for bar, held in bars.items():
        print(f"{'held' if held else 'MISSED':>16}: {bar}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    return 0 if all(bars.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
