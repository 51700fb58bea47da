"""What becomes of throughput, latency and memory as things grow: `python -m benchmarks.growth`.

The real service on one core with `durability: fsync`, and the client of `benchmarks.ingest` on another. What grows:
tenants (at 1 and at 10 records a request), keys, connections, the size of records, and the backlog in staging while
uploads run; all else is as in the ingest benchmark. Only 200s count, and a run in which not every accepted record
lies in the store once is none. The values of a series take turns, so that what the machine does otherwise meets all.

    python -m benchmarks.growth                                all of it, some 25 minutes
    python -m benchmarks.growth --quick --only tenants,keys    one short run of each value
    python -m benchmarks.growth --only connections --profile /tmp/profiles

A rate below half of the first value's of its series is marked with `!`, and the exit status is 1. Rates are held
against each other in Y; of `size` it is bytes a second, because a record of 20 kB is a hundred of 200 bytes to parse,
to compress and to write. benchmarks/README.md says how to read the table.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.growth_world import AXES, BACKLOG_RECORDS, Cell, fill_backlog, make_registry, series, write_requests
from benchmarks.ingest import medians, numbers, say, table
from benchmarks.ingest_cell import Conditions, figures, load, service_of
from benchmarks.ingest_load import POOL_RECORDS, Requests, records, yardstick
from benchmarks.ingest_profile import Profiling, py_spy, tops

LEAST = 0.5
"""Of the rate of a series' first value."""
_AFTER_ITS_START, _BEFORE_ITS_END = 0.2, 3.0
"""Seconds; the load of many tenants lies in one interval, so each of them has one file, as in production."""
_BEHIND = 20.0
"""Seconds that a profile goes on behind the load of many tenants, whose split and delivery come then."""
_HEADS = (
    *("growing", "value", "rec/req", "records/s", "of Y", "MB/s", "to first", "", "by CPU", "CPU s/M", "p50 ms"),
    *("p99 ms", "to first", "peak MB"),
)


def rate_of(cell: dict[str, Any]) -> float:
    """What is held against the first value: by Y, records or (`size`) bytes a second."""
    rate: float = cell["MB/s"] / cell["Y"] if cell["axis"] == "size" else cell["of Y"]
    return rate


def by_cpu_of(cell: dict[str, Any]) -> float:
    """The same by CPU seconds, from which what others did on the machine falls out."""
    per_record: float = cell["MB/s"] / cell["records/s"] if cell["axis"] == "size" else 1.0
    rate: float = cell["of Y by CPU"] * per_record
    return rate


def judged(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells of a series, each with how it stands to the first, and whether it fell too low."""
    first = found[0]
    return [
        cell
        | {
            "rate to first": rate_of(cell) / rate_of(first),
            "by CPU to first": by_cpu_of(cell) / by_cpu_of(first),
            "p99 to first": cell["p99 ms"] / first["p99 ms"],
            "fell": rate_of(cell) < LEAST * rate_of(first),
        }
        for cell in found
    ]


def problems(cell: dict[str, Any]) -> list[str]:
    """What is wrong with a cell, in words."""
    found = []
    if cell["fell"]:
        what = "bytes" if cell["axis"] == "size" else "records"
        found.append(f"! {what} a second are {cell['rate to first']:.2f} of the first value's")
    if cell["other answers"]:
        found.append(f"answers other than 200: {cell['other answers']}")
    if cell["client is the bottleneck"]:
        found.append("the client was the bottleneck: this is no figure of the service")
    return [f"{cell['axis']} {cell['value']:,} at {cell['records a request']}: {each}" for each in found]


def row(cell: dict[str, Any]) -> list[str]:
    """A cell as the table shows it."""
    return [
        *(cell["axis"], f"{cell['value']:,}", str(cell["records a request"]), f"{cell['records/s']:,.0f}"),
        *(f"{cell['of Y']:.3f}", f"{cell['MB/s']:.1f}", f"{cell['rate to first']:.2f}", "!" if cell["fell"] else ""),
        *(f"{cell['by CPU to first']:.2f}", f"{cell['CPU s a million']:.1f}", f"{cell['p50 ms']:.1f}"),
        *(f"{cell['p99 ms']:.1f}", f"{cell['p99 to first']:.1f}", f"{cell['peak MB']:.0f}"),
    ]


class World:
    """A cell's registry and requests, made once, and what is measured with them."""

    def __init__(self, directory: Path, cell: Cell, options: argparse.Namespace, pool: list[bytes]) -> None:
        self.cell = cell
        self._options = options
        registry = directory / f"{cell.tenants}-{cell.keys}.db"
        if not registry.exists():
            say(f"making a registry of {cell.tenants:,} tenants and {cell.keys:,} keys")
            make_registry(registry, cell, options.seed)
        file = directory / f"{cell.tenants}-{cell.keys}-{cell.record_bytes}-{cell.per_request}.requests"
        self._requests: Requests = write_requests(file, cell, options.seed, options.pool)
        service_cpu, client_cpu = options.cpus
        seconds, interval = options.seconds, options.interval
        if cell.axis == "tenants":
            seconds, interval = options.tenants_interval - _BEFORE_ITS_END, options.tenants_interval
        self._conditions = Conditions(
            *(registry, pool, cell.connections, seconds, interval, service_cpu, client_cpu),
            yardstick_seconds=options.yardstick_seconds,
        )

    def run(self) -> dict[str, Any]:
        """One run."""
        conditions, cell = self._conditions, self.cell
        before = yardstick(conditions.pool, conditions.service_cpu, conditions.yardstick_seconds)
        service = service_of(conditions, "fast", self._prepare)
        try:
            if cell.axis == "tenants":
                wait_for_interval(conditions.interval)
            begun = time.time()
            run = load(service, conditions, self._requests, 0.0)
            beside = delivered_between(service.root / "store", begun, begun + run["seconds"])
        finally:
            service.stop()
        after = yardstick(conditions.pool, conditions.service_cpu, conditions.yardstick_seconds)
        run["delivered"] -= cell.backlog * BACKLOG_RECORDS
        if cell.axis == "backlog":  # its own delivery is the load beside which is measured, and no cost of the records
            run |= {"cpu": run["cpu"] - run["cpu behind"], "cpu behind": 0.0}
        found = figures(run, cell.per_request, before, after) | {"files/s beside": beside / run["seconds"]}
        say(
            f"{cell.axis} {cell.value:,} at {cell.per_request}: {found['records/s']:,.0f} records/s,"
            f" {found['of Y']:.3f} Y ({found['Y']:,.0f}), {found['p99 ms']:.1f} ms, {found['peak MB']:.0f} MB,"
            f" {found['CPU s a million']:.1f} CPU s/M ({run['cpu behind']:.1f} s behind)"
        )
        return found

    def _prepare(self, root: Path) -> None:
        if self.cell.backlog:
            fill_backlog(root, self.cell)

    def profile(self, directory: Path) -> None:
        """A run with somebody looking on; its figures are not the service's."""
        cell, conditions = self.cell, self._conditions
        file = directory / f"{cell.axis}-{cell.value}-{cell.per_request}.txt"
        service = service_of(conditions, "fast", self._prepare)
        try:
            seconds = conditions.seconds + (_BEHIND if cell.axis == "tenants" else -1)
            look = Profiling(service.popen.pid, file, seconds, conditions.client_cpu)
            load(service, conditions, self._requests, 0.0)
            print(f"\n{cell.axis} {cell.value:,}, {cell.per_request} records a request (stacks in {file})")
            print("\n".join(tops(look.shares(), self._options.top)), flush=True)
        finally:
            service.stop()


def wait_for_interval(interval: int) -> None:
    """Until one has just begun, so that a load that is shorter lies in one."""
    time.sleep(interval - time.time() % interval + _AFTER_ITS_START)


def delivered_between(store: Path, begun: float, over: float) -> int:
    """How many files came into a store meanwhile."""
    return sum(begun <= file.stat().st_mtime <= over for file in store.glob("**/*.gz"))


def names(text: str) -> list[str]:
    """What of the axes is wanted."""
    wanted = text.split(",")
    if not set(wanted) <= set(AXES):
        raise argparse.ArgumentTypeError(f"{text!r}: of {','.join(AXES)}")
    return wanted


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--only", type=names, default=list(AXES), metavar="NAME,NAME", help=f"of {','.join(AXES)}")
    made.add_argument(
        "--values", type=numbers(0), metavar="N,N", help="other values than the usual, of each that grows"
    )
    made.add_argument("--runs", type=int, default=3, help="of each value (3)")
    made.add_argument("--quick", action="store_true", help="one short run of each value")
    made.add_argument("--profile", type=Path, metavar="DIRECTORY", help="look where the time goes, with py-spy")
    made.add_argument("--top", type=int, default=25, help="so many functions of a profile (25)")
    made.add_argument("--seconds", type=float, help="how long the load of a run is (12; quick: 6)")
    made.add_argument("--interval", type=int, help="collection_interval, shorter than that (10; quick: 5)")
    made.add_argument(
        "--tenants-interval", type=int, help="the same for `tenants`, whose load lies in one interval (60; quick: 20)"
    )
    made.add_argument("--pool", type=int, default=POOL_RECORDS, help="so many different records at least")
    made.add_argument("--yardstick-seconds", type=float, default=1.0, help="how long Y is measured")
    made.add_argument("--cpus", type=numbers(0), help="cores of the service and of the client (0,1)")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return made


def checked(arguments: list[str] | None) -> argparse.Namespace:
    """The options, whole."""
    made = parser()
    options = made.parse_args(arguments)
    if options.quick:
        options.runs = 1
    options.seconds = options.seconds or (6.0 if options.quick else 12.0)
    options.interval = options.interval or (5 if options.quick else 10)
    options.tenants_interval = options.tenants_interval or (20 if options.quick else 60)
    cores = sorted(os.sched_getaffinity(0))
    options.cpus = options.cpus or [cores[0], cores[-1]]
    if len(options.cpus) != 2 or not set(options.cpus) <= set(cores):
        made.error(f"--cpus: two of {cores}, such as {cores[0]},{cores[-1]}")
    if options.interval >= options.seconds or options.runs < 1:
        made.error("--seconds must be longer than --interval; --runs at least 1")
    if options.tenants_interval <= _AFTER_ITS_START + _BEFORE_ITS_END:
        made.error("--tenants-interval: at least 4 seconds")
    if options.pool < 100:
        made.error("--pool: at least 100 records")
    if options.json and not options.json.parent.is_dir():
        made.error(f"--json: there is no directory {options.json.parent}")
    if options.values and 0 in options.values and options.only != ["backlog"]:
        made.error("--values: only a backlog can be 0")
    if options.profile:
        py_spy()
        options.profile.mkdir(parents=True, exist_ok=True)
    return options


def series_of(options: argparse.Namespace) -> list[list[Cell]]:
    """What is to be measured."""
    return [each for name in options.only for each in series(name, options.values)]


def measure(worlds: list[World], runs: int) -> list[dict[str, Any]]:
    """A series, judged."""
    found: list[list[dict[str, Any]]] = [[] for _ in worlds]
    for _ in range(runs):
        for world, own in zip(worlds, found, strict=True):
            own.append(world.run())
    return judged(
        [
            {"axis": world.cell.axis, "value": world.cell.value, "records a request": world.cell.per_request}
            | medians(own)
            for world, own in zip(worlds, found, strict=True)
        ]
    )


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, judge."""
    options = checked(arguments)
    cells: list[dict[str, Any]] = []
    say(f"making {options.pool:,} records")
    pool = records(options.pool, options.seed)
    for cells_of_series in series_of(options):
        with tempfile.TemporaryDirectory(prefix="axcollector-benchmark-") as directory:
            worlds = [World(Path(directory), cell, options, pool) for cell in cells_of_series]
            if options.profile:
                for world in worlds:
                    world.profile(options.profile)
            else:
                cells += measure(worlds, options.runs)
    if options.profile:
        return 0
    if options.cpus[0] == options.cpus[1]:
        print("the service and the client shared one core: these are no figures of the service")
    print(table([_HEADS, *map(row, cells)]))
    found = [each for cell in cells for each in problems(cell)]
    print("\n".join(found) or f"nothing fell below {LEAST:g} of its first value")
    if options.json:
        options.json.write_text(json.dumps({"seed": options.seed, "cells": cells}, indent=1))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
