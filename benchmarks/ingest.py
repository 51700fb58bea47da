"""How fast records come in: `python -m benchmarks.ingest`.

For 1, 10, 100 and 1000 records a request, plain and gzip: the real service on one core, `durability: fsync`, enrichment
from 10,000 cached keys, and a client of 64 connections on another core. Prints, as medians of several runs: records a
second, the same in Y, the bar, MB a second as sent, CPU seconds a million records, latencies, peak memory, and the
bytes a record takes in the delivered file against `gzip -6`. Y is what zlib compresses on the service's core before
and after each run. benchmarks/README.md says how to read it.

    python -m benchmarks.ingest                                  the whole table, some 15 minutes
    python -m benchmarks.ingest --quick --cells 1,100 --encoding plain
    python -m benchmarks.ingest --quick --latency                at half of the reached rate
    python -m benchmarks.ingest --quick --cells 1 --profile /tmp/profiles

Exit status 1 where a bar is missed by more than a tenth, or where the client was the bottleneck.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.ingest_cell import Conditions, load, measure, service_of
from benchmarks.ingest_load import POOL_RECORDS, Requests, make_registry, records, write_requests
from benchmarks.ingest_profile import Profiling, py_spy, tops
from benchmarks.ingest_wrk import wrk

SIZES = (1, 10, 100, 1000)
BARS = {
    (1, "plain"): 0.22,
    (10, "plain"): 0.9,
    (100, "plain"): 1.8,
    (1000, "plain"): 2.1,
    (1, "gzip"): 0.16,
    (10, "gzip"): 0.75,
    (100, "gzip"): 1.5,
    (1000, "gzip"): 1.8,
}
"""Of Y, at the least."""
BYTES_BARS = {"fast": 1.4, "small": 1.1}
"""Bytes of a delivered record at 100 a request, of what `gzip -6` makes of it, at the most."""
MEMORY_BAR_MB, P50_BAR_MS, P99_BAR_MS, STALL_BAR_MS = 150.0, 5.0, 25.0, 100.0
TOLERANCE = 0.1
_HEADS = (
    *("records/req", "coding", "pack", "records/s", "of Y", "bar", "by CPU", "MB/s", "CPU s/M"),
    *("p50 ms", "p99 ms", "peak MB", "B/record", "of gzip"),
)
_LATENCY_HEADS = (
    *("records/req", "coding", "p50 ms", "p99 ms", "max ms", "stall ms"),
    *("rebuilding: p50 ms", "p99 ms", "max ms", "stall ms"),
)
_REBUILD_SECONDS = "2"
"""How often the catalog is rebuilt under `--latency`."""


def medians(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """One run in the middle of several, value by value; what must not happen counts wherever it did."""
    middle = {
        name: statistics.median(run[name] for run in runs)
        for name, value in runs[0].items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return middle | joined(*runs) | {"runs": len(runs)}


def joined(*runs: dict[str, Any]) -> dict[str, Any]:
    """What must not happen, wherever it did."""
    others: dict[str, int] = {}
    for run in runs:
        for status, count in run["other answers"].items():
            others[status] = others.get(status, 0) + count
    return {"other answers": others, "client is the bottleneck": any(run["client is the bottleneck"] for run in runs)}


def misses(cell: dict[str, Any]) -> list[str]:
    """What is wrong with a cell, in words."""
    per_request, coding, pack = cell["records a request"], cell["coding"], cell["compression"]
    found = []
    if cell["other answers"]:
        found.append(f"answers other than 200: {cell['other answers']}")
    if cell["client is the bottleneck"]:
        found.append("the client was the bottleneck: this is no figure of the service")
    if cell["paced"]:
        limits = {"p50 ms": P50_BAR_MS, "p99 ms": P99_BAR_MS, "stall ms": STALL_BAR_MS}
        limits["stall ms rebuilding"] = STALL_BAR_MS
        return found + [f"{name} {cell[name]:.1f} > {bar:g}" for name, bar in limits.items() if cell[name] > bar]
    bar = BARS.get((per_request, coding))
    if bar is not None and pack == "fast" and cell["of Y"] < bar * (1 - TOLERANCE):
        found.append(f"{cell['of Y']:.2f} Y < {bar} Y")
    if per_request == 100 and cell["peak MB"] > MEMORY_BAR_MB:
        found.append(f"peak memory {cell['peak MB']:.0f} MB > {MEMORY_BAR_MB:g} MB")
    if per_request == 100 and cell["of gzip -6"] > BYTES_BARS[pack]:
        found.append(f"{cell['of gzip -6']:.2f} of gzip's bytes > {BYTES_BARS[pack]}")
    return found


def row(cell: dict[str, Any]) -> list[str]:
    """A cell as the table shows it."""
    bar = BARS.get((cell["records a request"], cell["coding"])) if cell["compression"] == "fast" else None
    return [
        *(str(cell["records a request"]), cell["coding"], cell["compression"], f"{cell['records/s']:,.0f}"),
        *(f"{cell['of Y']:.3f}", "" if bar is None or cell["paced"] else str(bar), f"{cell['of Y by CPU']:.3f}"),
        *(f"{cell['MB/s']:.1f}", f"{cell['CPU s a million']:.1f}", f"{cell['p50 ms']:.1f}", f"{cell['p99 ms']:.1f}"),
        *(f"{cell['peak MB']:.0f}", f"{cell['bytes a record']:.0f}", f"{cell['of gzip -6']:.2f}"),
    ]


def latency_row(cell: dict[str, Any]) -> list[str]:
    """A paced cell as the second table shows it."""
    names = ("p50 ms", "p99 ms", "max ms", "stall ms")
    figures = [cell[name] for name in names] + [cell[f"{name} rebuilding"] for name in names]
    return [str(cell["records a request"]), cell["coding"], *(f"{each:.1f}" for each in figures)]


def table(rows: Iterable[Iterable[str]]) -> str:
    """Rows in columns, each as wide as it must be."""
    whole = [list(each) for each in rows]
    widths = [max(len(each[at]) for each in whole) for at in range(len(whole[0]))]
    return "\n".join("  ".join(text.rjust(width) for text, width in zip(each, widths, strict=True)) for each in whole)


def say(text: str) -> None:
    """A line of progress, apart from the results."""
    print(text, file=sys.stderr, flush=True)


class Bench:
    """The records, and the requests made of them so far."""

    def __init__(self, directory: Path, options: argparse.Namespace) -> None:
        self._directory = directory
        self._options = options
        say(f"making {options.pool} records")
        self._pool = records(options.pool, options.seed)
        registry = directory / "registry.db"
        self._path = f"/analytics/{make_registry(registry, options.seed)}"
        service_cpu, client_cpu = options.cpus
        self.conditions = Conditions(
            *(registry, self._pool, options.connections, options.seconds, options.interval, service_cpu, client_cpu),
            yardstick_seconds=options.yardstick_seconds,
        )

    def requests(self, per_request: int, coding: str) -> Requests:
        """The requests of a cell."""
        file = self._directory / f"{per_request}.{coding}"
        return write_requests(file, self._path, self._pool, per_request, gzipped=coding == "gzip")

    def cell(self, per_request: int, coding: str, compression: str, share: float | None = None) -> dict[str, Any]:
        """A cell's runs, one after the other; with a share, so much of the rate that a first run without reaches."""
        requests = self.requests(per_request, coding)
        conditions = replace(self.conditions, wrk=client_of(self._options.client, coding))
        named = {"records a request": per_request, "coding": coding, "compression": compression}
        what = f"{per_request} {coding} {compression}"
        if share is None:
            return named | {"paced": False} | self._runs(conditions, requests, what, compression)
        pace = share * self._run(conditions, requests, "reaching for the rate", compression, 0.0)["requests/s"]
        steady = self._runs(conditions, requests, what, compression, pace)
        rebuilding = replace(conditions, options=("--cache-refresh-interval", _REBUILD_SECONDS))
        beside = self._runs(rebuilding, requests, f"{what}, rebuilding", compression, pace)
        worse = {f"{name} rebuilding": beside[name] for name in ("p50 ms", "p99 ms", "max ms", "stall ms")}
        return named | {"paced": True} | steady | worse | joined(steady, beside)

    def _runs(
        self, conditions: Conditions, requests: Requests, what: str, compression: str, pace: float = 0.0
    ) -> dict[str, Any]:
        """The middle of as many runs as are asked for."""
        count = self._options.runs
        return medians(
            [
                self._run(conditions, requests, f"{what}: run {number} of {count}", compression, pace)
                for number in range(1, count + 1)
            ]
        )

    def _run(
        self, conditions: Conditions, requests: Requests, what: str, compression: str, pace: float
    ) -> dict[str, Any]:
        run = measure(conditions, requests, compression, pace)
        say(
            f"{what}: {run['records/s']:,.0f} records/s, {run['of Y']:.3f} Y ({run['Y']:,.0f}), {run['p99 ms']:.1f} ms;"
            f" of their cores the service took {run['service share']:.0%}, the client {run['cpu share']:.0%}"
        )
        return run

    def profile(self, per_request: int, coding: str, directory: Path) -> None:
        """A run with somebody looking on; its figures are not the service's."""
        requests = self.requests(per_request, coding)
        file = directory / f"{per_request}-{coding}.txt"
        service = service_of(self.conditions, "fast")
        try:
            seconds = self.conditions.seconds - 1
            profiling = Profiling(
                *(service.popen.pid, file, seconds, self.conditions.client_cpu), holder_only=self._options.gil
            )
            load(service, self.conditions, requests, 0.0)
            print(f"\n{per_request} records a request, {coding} (stacks in {file}, for speedscope or flamegraph.pl)")
            print("\n".join(tops(profiling.shares(), self._options.top)), flush=True)
        finally:
            service.stop()


def client_of(wanted: str, coding: str) -> str | None:
    """The wrk program, for what it is to send; None: our own client does it.

    Raises:
        SystemExit: It is wanted, and is not there.
    """
    found = wrk() if wanted != "own" and coding == "plain" else None
    if wanted == "wrk" and found is None and coding == "plain":
        raise SystemExit("--client wrk: wrk is not installed")
    return found


def numbers(least: int) -> Callable[[str], list[int]]:
    """What parses whole numbers with commas between them."""

    def parsed(text: str) -> list[int]:
        values = [int(part) for part in text.split(",")]
        if min(values) < least:
            raise ValueError(text)
        return values

    parsed.__name__ = "list of whole numbers"
    return parsed


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--cells", type=numbers(1), default=list(SIZES), metavar="N,N", help="records a request")
    made.add_argument("--encoding", choices=("plain", "gzip", "both"), default="both", help="of the requests' bodies")
    made.add_argument(
        "--compression", choices=("fast", "small", "both"), default="both", help="both: small at 100 plain"
    )
    made.add_argument("--runs", type=int, default=5, help="of each cell (5)")
    made.add_argument("--quick", action="store_true", help="one short run of each cell")
    made.add_argument("--latency", action="store_true", help="at half of the reached rate, while catalogs are rebuilt")
    made.add_argument("--profile", type=Path, metavar="DIRECTORY", help="look where the time goes, with py-spy")
    made.add_argument("--gil", action="store_true", help="profile only the thread that holds the interpreter")
    made.add_argument("--top", type=int, default=25, help="so many functions of a profile (25)")
    made.add_argument("--seconds", type=float, help="how long the load of a run is (8; quick: 5)")
    made.add_argument("--interval", type=int, help="collection_interval, shorter than that (3; quick: 2)")
    made.add_argument("--connections", type=int, default=64)
    made.add_argument(
        "--client",
        choices=("auto", "own", "wrk"),
        default="auto",
        help="who sends plain bodies as fast as they are taken; auto: wrk, where it is installed",
    )
    made.add_argument("--pool", type=int, default=POOL_RECORDS, help="how many different records there are")
    made.add_argument("--yardstick-seconds", type=float, default=1.0, help="how long Y is measured")
    made.add_argument("--cpus", type=numbers(0), help="cores of the service and of the client (0,1)")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return made


def cells_of(options: argparse.Namespace) -> list[tuple[int, str, str]]:
    """What is to be measured: records a request, coding, compression."""
    codings = ("plain", "gzip") if options.encoding == "both" else (options.encoding,)
    first = "small" if options.compression == "small" else "fast"
    cells = [(size, coding, first) for coding in codings for size in options.cells]
    if options.compression == "both" and (100, "plain", "fast") in cells and not (options.latency or options.profile):
        cells.append((100, "plain", "small"))
    return cells


def checked(arguments: list[str] | None) -> argparse.Namespace:
    """The options, whole."""
    made = parser()
    options = made.parse_args(arguments)
    if options.quick:
        options.runs = 1
    options.seconds = options.seconds or (5.0 if options.quick else 8.0)
    options.interval = options.interval or (2 if options.quick else 3)
    cores = sorted(os.sched_getaffinity(0))
    options.cpus = options.cpus or [cores[0], cores[-1]]
    if len(options.cpus) != 2 or not set(options.cpus) <= set(cores):
        made.error(f"--cpus: two of {cores}, such as {cores[0]},{cores[-1]}")
    if options.pool < max(100, *options.cells):
        made.error("--pool: at least 100 records, and enough for one request")
    if options.interval >= options.seconds or min(options.runs, options.connections) < 1:
        made.error("--seconds must be longer than --interval; --runs and --connections at least 1")
    if options.profile and (options.json or options.latency):
        made.error("--profile makes no figures: leave --json and --latency out")
    if options.profile:
        py_spy()
        options.profile.mkdir(parents=True, exist_ok=True)
    if options.json and not options.json.parent.is_dir():
        made.error(f"--json: there is no directory {options.json.parent}")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, judge."""
    options = checked(arguments)
    with tempfile.TemporaryDirectory(prefix="axcollector-benchmark-") as directory:
        bench = Bench(Path(directory), options)
        if options.profile:
            for per_request, coding, _ in cells_of(options):
                bench.profile(per_request, coding, options.profile)
            return 0
        share = 0.5 if options.latency else None
        cells = [bench.cell(*cell, share) for cell in cells_of(options)]
    if options.cpus[0] == options.cpus[1]:
        print("the service and the client shared one core: these are no figures of the service")
    print(table([_HEADS, *map(row, cells)]))
    if options.latency:
        print(table([_LATENCY_HEADS, *map(latency_row, cells)]))
    found = [f"MISSED {c['records a request']} {c['coding']} {c['compression']}: {m}" for c in cells for m in misses(c)]
    print("\n".join(found) or "all bars held")
    if options.json:
        options.json.write_text(json.dumps({"seed": options.seed, "cells": cells}, indent=1))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
