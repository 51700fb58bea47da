"""What recording costs a gateway: `python -m benchmarks.gateway [--rounds 15] [--seconds 2] [--json FILE]`.

The example `docs/examples/gateway.py` runs twice, on one core: once as it is, once with its records thrown away. Both
pass calls on to the same target. wrk, or where that is not installed our own client, loads them in turns, so that what
else the machine does hits both alike. Printed are the medians of calls a second, and the gateway's CPU a call, from the
first call until the last record was delivered: committing, closing intervals (of twenty seconds here, a sixth of the
default) and delivering are in it. Every call must have been delivered as a record; exit status 1 where that is not so,
or where recording costs more than a tenth of the CPU of a call.
"""

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axcollector.registry import Registry
from benchmarks.gateway_parts import Part
from benchmarks.load import LoadProcess, Plan
from tests.running import delivered_below

BAR = 0.10
KEY = "a-key"
INTERVAL_SECONDS = 20
WAYS = ("recording", "not recording")


def load(port: int, seconds: int, connections: int, *, with_wrk: bool) -> tuple[int, float]:
    """Calls answered, and in how many seconds."""
    if not with_wrk:
        plan = Plan(port, ["/api/x"], [""], {"X-API-Key": KEY}, connections, seconds)
        result = LoadProcess(plan).result()
        return result["statuses"]["200"], seconds
    url = f"http://127.0.0.1:{port}/api/x"
    command = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "-H", f"X-API-Key: {KEY}", url]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    if "Non-2xx" in output:
        raise SystemExit("the gateway refused calls:\n" + output)
    found = re.search(r"(\d+) requests in ([\d.]+)s", output)
    assert found is not None
    return int(found[1]), float(found[2])


@dataclass
class Totals:
    """What a gateway did and used from its first call until its last record was delivered."""

    answered: int = 0
    passed_on: int = 0
    cpu_seconds: float = 0.0
    rates: list[float] = field(default_factory=list)


def measure(root: Path, rounds: int, seconds: int, connections: int, *, with_wrk: bool) -> dict[str, Any]:
    """The figures; the gateways' data lies in `root`."""
    target = Part("target")
    parts = {way: _gateway(root / way, target.port, way == "recording") for way in WAYS}
    before = {way: part.cpu_seconds() for way, part in parts.items()}
    totals = {way: Totals() for way in WAYS}
    try:
        for number in range(rounds):
            for way in WAYS if number % 2 else reversed(WAYS):
                count, total = target.count(), totals[way]
                done, took = load(parts[way].port, seconds, connections, with_wrk=with_wrk)
                total.answered += done
                total.passed_on += target.count() - count
                total.rates.append(done / took)
        recorded = _settled(root / "recording" / "store")
        for way, part in parts.items():
            totals[way].cpu_seconds = part.cpu_seconds() - before[way]
    finally:
        for part in (*parts.values(), target):
            part.stop()
    costs = {way: total.cpu_seconds / total.answered * 1e6 for way, total in totals.items()}
    return {
        "calls a second": {way: round(statistics.median(total.rates)) for way, total in totals.items()},
        "CPU us a call": {way: round(cost, 1) for way, cost in costs.items()},
        "cost": round(costs["recording"] / costs["not recording"] - 1, 4),
        "answered": totals["recording"].answered,
        "passed on": totals["recording"].passed_on,
        "recorded": recorded,
        "at most": totals["recording"].passed_on + connections * rounds,
    }


def _gateway(root: Path, target: int, recording: bool) -> Part:  # noqa: FBT001 - one of two ways
    with Registry.create(str(root / "registry.db")) as registry:
        scope = registry.add_scope("acme", "prod").id
        registry.add_key(scope, KEY, product="p", app="a", developer="d")
    where = ["--listen", "tcp:0:interface=127.0.0.1", "--collect", "tcp:0:interface=127.0.0.1"]
    more = ["--directory", str(root), "--interval", str(INTERVAL_SECONDS), f"/api=http://127.0.0.1:{target}"]
    return Part("recording" if recording else "gateway", "--scope", scope, *where, *more)


def _settled(store: Path) -> int:
    """How many records were delivered, once there come no more."""
    found, since = -1, time.monotonic()
    while time.monotonic() - since < 10 + INTERVAL_SECONDS:
        count = sum(map(len, delivered_below(store).values()))
        if count != found:
            found, since = count, time.monotonic()
        time.sleep(0.5)
    return found


def verdicts(result: dict[str, Any]) -> list[str]:
    """What is not as it has to be."""
    found = []
    if result["cost"] > BAR:
        found.append(f"recording costs {result['cost']:.1%} of the CPU of a call, more than {BAR:.0%}")
    if not max(result["answered"], result["passed on"]) <= result["recorded"] <= result["at most"]:
        found.append(f"{result['passed on']} calls reached the target, {result['recorded']} were recorded")
    return found


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=int, default=2, help="how long each gateway is loaded in a round")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--client", choices=("wrk", "own"), default="wrk" if shutil.which("wrk") else "own")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="axcollector-gateway-") as root:
        result = measure(
            Path(root), options.rounds, options.seconds, options.connections, with_wrk=options.client == "wrk"
        )
    for name in ("calls a second", "CPU us a call"):
        recording, plain = (result[name][way] for way in WAYS)
        print(f"{name:>15}: {recording:,} recording, {plain:,} not recording ({recording / plain - 1:+.1%})")
    print(f"{'recording costs':>15}: {result['cost']:+.1%} of the CPU of a call")
    print(f"{'calls':>15}: {result['passed on']:,} reached the target, {result['recorded']:,} records were delivered")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    missed = verdicts(result)
    for each in missed:
        print(f"MISSED: {each}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
