"""The catalog at three sizes: `python -m benchmarks.catalog [--keys 10000 100000 1000000] [--json FILE]`.

For each number of keys, in a process of its own: as many apps, a fifth as many developers, a thousand products; a real
collector that reads them from a registry file, with a watchdog on its reactor and a load client beside it. Prints how
long look-ups, single changes, change lists and a rebuild take, how long they keep the reactor, and the memory; then
whether the bars are held; exit status 1 where one is missed. `benchmarks/README.md` says how to read it.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.load import ROOT

BARS = {
    "look-up warm us": 2.0,
    "look-up cold us": 2.0,
    "one row ms": 10.0,
    "rebuild stall ms": 25.0,
    "rebuild p99.9 ms": 50.0,
    "at rest MB": 700.0,
    "peak to rest": 2.0,
    "other 400 to made-up scopes": 1.5,
}
"""The most that is allowed, at any size."""


def measure(keys: int, seconds: float) -> dict[str, Any]:
    """The figures of a catalog of so many keys."""
    command = [sys.executable, "-m", "benchmarks.catalog_subject", str(keys), str(seconds)]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--seconds", type=float, default=5.0, help="how long the load without a rebuild lasts")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = {}
    for keys in options.keys:
        print(f"{keys:,} keys ...", file=sys.stderr, flush=True)
        results[keys] = measure(keys, options.seconds)
    names = list(next(iter(results.values())))
    print(f"{'keys':>28}" + "".join(f"{keys:>12,}" for keys in results))
    for name in names:
        print(f"{name:>28}" + "".join(f"{result[name]:>12,}" for result in results.values()))
    missed = 0
    for name, bar in BARS.items():
        worst = max(result[name] for result in results.values())
        missed += worst > bar
        print(f"{'held' if worst <= bar else 'MISSED':>28}: {name} {worst} of at most {bar:g}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
