"""What recording costs a gateway: `python -m benchmarks.gateway [--rounds 5] [--seconds 4] [--json FILE]`.

The example `docs/examples/gateway.py` runs twice, on one core: once as it is, once with its records thrown away. Both
pass calls on to the same target. wrk, or where that is not installed our own client, loads them in turns, so that what
else the machine does hits both alike. Printed are the medians of calls a second, and of the gateway's CPU a call, which
holds the collector's: committing, closing intervals (of two seconds here) and delivering. In the end every call must
have been delivered as a record; exit status 1 where that is not so, or where recording costs more than a tenth.
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
from pathlib import Path
from typing import Any

from axcollector.registry import Registry
from benchmarks.gateway_parts import Part
from benchmarks.load import LoadProcess, Plan
from tests.running import delivered_below

BAR = 0.10
KEY = "a-key"
INTERVAL_SECONDS = 2
WAYS = ("recording", "not recording")


def load(port: int, seconds: float, connections: int, *, with_wrk: bool) -> tuple[int, float]:
    """Calls answered, and in how many seconds."""
    if not with_wrk:
        plan = Plan(port, ["/api/x"], [""], {"X-API-Key": KEY}, connections, seconds)
        result = LoadProcess(plan).result()
        return result["statuses"]["200"], seconds
    url = f"http://127.0.0.1:{port}/api/x"
    command = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds:g}s", "-H", f"X-API-Key: {KEY}", url]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    if "Non-2xx" in output:
        raise SystemExit("the gateway refused calls:\n" + output)
    found = re.search(r"(\d+) requests in ([\d.]+)s", output)
    assert found is not None
    return int(found[1]), float(found[2])


def measure(root: Path, rounds: int, seconds: float, connections: int, *, with_wrk: bool) -> dict[str, Any]:
    """The figures; the gateways' data lies in `root`."""
    target = Part("target")
    parts = {way: _gateway(root / way, target.port, way == "recording") for way in WAYS}
    calls: dict[str, list[int]] = {way: [] for way in WAYS}
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    costs: dict[str, list[float]] = {way: [] for way in WAYS}
    passed_on = 0
    try:
        for number in range(rounds + 1):
            for way in WAYS if number % 2 else reversed(WAYS):
                before, count = parts[way].cpu_seconds(), target.count()
                done, took = load(parts[way].port, seconds, connections, with_wrk=with_wrk)
                time.sleep(INTERVAL_SECONDS)  # what the last interval costs is a part of it
                passed_on += target.count() - count if way == "recording" else 0
                calls[way].append(done)
                if number:  # the first round warms up
                    rates[way].append(done / took)
                    costs[way].append((parts[way].cpu_seconds() - before) / done * 1e6)
        recorded = _settled(root / "recording" / "store")
    finally:
        for part in (*parts.values(), target):
            part.stop()
    return {
        "calls a second": {way: round(statistics.median(rates[way])) for way in WAYS},
        "CPU us a call": {way: round(statistics.median(costs[way])) for way in WAYS},
        "answered": sum(calls["recording"]),
        "passed on": passed_on,
        "recorded": recorded,
        "at most": passed_on + connections * (rounds + 1),
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
    with_records, without = (result["CPU us a call"][way] for way in WAYS)
    if with_records > without * (1 + BAR):
        found.append(f"recording costs {with_records / without - 1:.1%} of the CPU of a call, more than {BAR:.0%}")
    if not max(result["answered"], result["passed on"]) <= result["recorded"] <= result["at most"]:
        found.append(f"{result['passed on']} calls reached the target, {result['recorded']} were recorded")
    return found


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each gateway is loaded in a round")
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
    print(f"{'calls':>15}: {result['passed on']:,} reached the target, {result['recorded']:,} records were delivered")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    missed = verdicts(result)
    for each in missed:
        print(f"MISSED: {each}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
