"""A long backlog: `python -m benchmarks.backlog [--buckets 100000] [--tenants 100] [--stage staging failed]`.

For each stage, in a process of its own: so many buckets of one small file each, and an `Uploader` over them with a
store that takes a millisecond and keeps nothing. Prints the time to the first upload, the files a second, the longest
time between two turns of the reactor, and the memory it took; exit status 1 where a bar is missed.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.load import ROOT

BARS = {"stall ms": 10.0, "memory MB": 100.0, "first upload s": 5.0}
START = 1_767_323_040


def fill(stage: Path, buckets: int, tenants: int) -> None:
    """So many buckets with a file each."""
    from axcollector.core.stamps import stamp

    for number in range(buckets):
        bucket = stage / f"org-{number % tenants}~prod~{stamp(START + 60 * (number // tenants))}"
        bucket.mkdir()
        (bucket / f"{number:x}.txt.gz").write_bytes(b"x" * 500)


def measure(stage: str, buckets: int, tenants: int, seconds: float) -> dict[str, Any]:
    """In this process: the figures of a backlog in this stage."""
    from twisted.internet import defer, reactor, task

    from axcollector.disk import Disk
    from axcollector.services import WorkThread
    from axcollector.uploader import Uploader
    from benchmarks.catalog_subject import Watchdog, forget_peak, memory_megabytes

    class Store:
        """Takes everything."""

        def __init__(self) -> None:
            self.times: list[float] = []

        def put(self, tenant: str, key: str, path: str) -> "defer.Deferred[None]":
            self.times.append(time.monotonic())
            return task.deferLater(reactor, 0.001)

        def authorities(self, tenant: str) -> tuple[str, ...]:
            return ("store",)

        def close(self) -> "defer.Deferred[None]":
            return defer.succeed(None)

    with tempfile.TemporaryDirectory(prefix="axcollector-benchmark-") as directory:
        data = Path(directory)
        for name in ("tmp", "staging", "failed", "recovered"):
            (data / name).mkdir()
        fill(data / stage, buckets, tenants)
        if stage == "failed":
            fill(data / "staging", 1, 1)
        os.sync()
        thread, store, watchdog = WorkThread(reactor, "staging"), Store(), Watchdog()
        uploader = Uploader(
            reactor, thread, Disk(), store, directory,
            interval_seconds=5, concurrency=16, max_attempts=3, failed_retry_batch=10, chance=lambda: 0.5,
        )  # fmt: skip
        result: dict[str, Any] = {}

        def begin() -> None:
            gc.collect()
            gc.freeze()
            forget_peak()
            result["memory"] = memory_megabytes()
            result["begun"] = time.monotonic()
            result["cpu"] = time.process_time()
            thread.startService()
            watchdog.start()
            uploader.startService()
            reactor.callLater(seconds, end)

        def watched() -> None:
            result["before"] = watchdog.stop()
            begin()

        def end() -> None:
            stalls = sorted(watchdog.stalls)
            result["stall"] = watchdog.stop()
            result["p999"] = round(stalls[int(len(stalls) * 0.999)], 1)
            result["cpu"] = time.process_time() - result["cpu"]
            result["memory"] = memory_megabytes("VmHWM") - result["memory"]
            stopped = defer.ensureDeferred(stop())
            stopped.addBoth(lambda _: reactor.stop())

        async def stop() -> None:
            await uploader.stopService()
            await thread.stopService()

        reactor.callWhenRunning(watchdog.start)
        reactor.callLater(5, watched)
        reactor.run()
        times = [moment - result["begun"] for moment in store.times]
        return {
            "stage": stage,
            "buckets": buckets,
            "tenants": tenants,
            "first upload s": round(times[0], 2) if times else 1e9,
            "first of failed s": round(times[1], 2) if len(times) > 1 else 1e9,
            "files": len(times),
            "files/s": round((len(times) - 1) / (times[-1] - times[0])) if len(times) > 1 else 0,
            "stall before ms": result["before"],
            "stall ms": result["stall"],
            "stall p99.9 ms": result["p999"],
            "memory MB": round(result["memory"], 1),
            "CPU s": round(result["cpu"], 1),
        }


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--buckets", type=int, default=100_000)
    parser.add_argument("--tenants", type=int, nargs="+", default=[100])
    parser.add_argument("--stage", nargs="+", default=["staging", "failed"], choices=["staging", "failed"])
    parser.add_argument("--seconds", type=float, default=30.0, help="how long each is watched")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(options.stage[0], options.buckets, options.tenants[0], options.seconds)))
        return 0
    results, missed = [], 0
    for stage in options.stage:
        for tenants in options.tenants:
            command = [sys.executable, "-m", "benchmarks.backlog", "--here", "--stage", stage]
            numbers = ["--buckets", options.buckets, "--tenants", tenants, "--seconds", options.seconds]
            run = subprocess.run(
                [*command, *map(str, numbers)], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
            )
            results.append(json.loads(run.stdout.splitlines()[-1]))
            print(", ".join(f"{name}: {value}" for name, value in results[-1].items()), flush=True)
    for name, bar in BARS.items():
        worst = max(result[name] for result in results)
        missed += worst > bar
        print(f"{'held' if worst <= bar else 'MISSED':>8}: {name} {worst} of at most {bar:g}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
