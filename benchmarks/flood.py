"""One scope's flood beside another's traffic: `python -m benchmarks.flood [--seconds 5] [--rounds 3] [--json FILE]`.

A good scope sends single records over four connections to the real service: alone, then beside another scope that sends
batches of 100 records over 32 connections as fast as it is answered; the latter to a service without limits, and to one
with `rate_limit_records` and `rate_limit_bytes`. Both need tokens. Prints the good scope's latencies and the flood's
answers. The bar: with limits the p99 is at most twice what it is alone (and at least 5 ms, below which machines are
noise); the flood's 200s are within its rate; exit status 1 where one is missed.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from axcollector.tokens import Bound, TokenFile
from benchmarks.load import LoadProcess, Plan
from benchmarks.service import Service

RECORD = {"client_received_start_timestamp": 1_480_000_000_000, "request_path": "/v1/orders", "verb": "GET"}
GOOD_CONNECTIONS = 4
FLOOD_CONNECTIONS = 32
FLOOD_RECORDS = 100
RATE = 4000  # more than four connections can send in single records
BURST = 2
LIMITS = ("--rate-limit-records", str(RATE), "--rate-limit-bytes", "10MB", "--rate-limit-burst", str(BURST))


class Case:
    """A service with two scopes, and the clients of both."""

    def __init__(self, *options: str) -> None:
        self.service = Service("--ingest-auth", "token", *options)
        with self.service.registry() as registry:
            self.scopes = [registry.add_scope(name, "prod").id for name in ("good", "flood")]
        with TokenFile.create(str(self.service.root / "tokens.db"), Bound.SCOPES) as file:
            self.tokens = [file.add([scope], time.time())[1] for scope in self.scopes]
        self.service.start()
        time.sleep(1)  # until the tokens have been read

    def load(self, which: int, records: int, connections: int, seconds: float, seed: int) -> LoadProcess:
        headers = {"Authorization": f"Bearer {self.tokens[which]}"}
        body = json.dumps({"records": [RECORD] * records})
        path = f"/analytics/{self.scopes[which]}"
        return LoadProcess(Plan(self.service.port, [path], [body], headers, connections, seconds, seed))

    def good(self, seconds: float, seed: int) -> dict[str, Any]:
        result = self.load(0, 1, GOOD_CONNECTIONS, seconds, seed).result()
        assert set(result["statuses"]) == {"200"}, result
        return result

    def beside_flood(self, seconds: float, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
        flood = self.load(1, FLOOD_RECORDS, FLOOD_CONNECTIONS, seconds + 2, seed)
        time.sleep(1)  # until it is there
        good = self.good(seconds, seed)
        return good, flood.result()


def measure(seconds: float, rounds: int) -> dict[str, Any]:
    """The good scope's latencies in each case: of several rounds, each case in turn, the medians."""
    free, limited = Case(), Case(*LIMITS)
    found: dict[str, list[dict[str, Any]]] = {"alone": [], "flood without limits": [], "flood with limits": []}
    taken = 0
    refused = 0
    try:
        for seed in range(rounds):
            found["alone"].append(limited.good(seconds, seed))
            found["flood without limits"].append(free.beside_flood(seconds, seed)[0])
            good, flood = limited.beside_flood(seconds, seed)
            found["flood with limits"].append(good)
            taken = max(taken, flood["statuses"].get("200", 0))
            refused = max(refused, flood["statuses"].get("429", 0))
    finally:
        for case in (free, limited):
            case.service.stop()
    result: dict[str, Any] = {
        name: {key: statistics.median(each[key] for each in results) for key in ("per_second", "p50", "p99", "max")}
        for name, results in found.items()
    }
    return {**result, "flood's 200s": taken, "flood's 429s": refused}


def bars(result: dict[str, Any], seconds: float) -> dict[str, bool]:
    """What is asked of a result, in words, and whether it is so."""
    alone, beside = result["alone"]["p99"], result["flood with limits"]["p99"]
    without = result["flood without limits"]["p99"]
    taken, refused = result["flood's 200s"], result["flood's 429s"]
    most = (BURST + seconds + 2 + 1) * RATE / FLOOD_RECORDS + 1
    ratios = f"{beside / alone:.2f} (without limits {without / alone:.2f})"
    return {
        f"p99 beside a flood, to alone: {ratios}": beside <= max(2 * alone, 5.0),
        f"batches of the flood that were taken: {taken}, at most {most:.0f}": 0 < taken <= most,
        f"batches of the flood that were refused: {refused}": refused > 0,
    }


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = measure(options.seconds, options.rounds)
    for name, value in result.items():
        print(f"{name:>21}: {value}")
    judged = bars(result, options.seconds)
    for bar, held in judged.items():
        print(f"{'held' if held else 'MISSED':>21}: {bar}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    return 0 if all(judged.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
