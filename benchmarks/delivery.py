"""Delivery to a local store: `python -m benchmarks.delivery [--small 10000] [--large 20] [--megabytes 64]`.

Through a signing service and a store that discard what they get (`benchmarks.sink`, a process of its own): so many
small files of 50 tenants, then so many large ones of four, each by an `Uploader` as the service has it, in a process of
its own, and the large ones by one `curl` process as well. Prints files/s, MB/s and CPU seconds; exit status 1 where a
bar is missed: 300 small files a second; 0.8 of curl's MB/s, the best of each of the rounds, which take turns.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.load import ROOT

START = 1_767_323_040
SMALL_BYTES = 2000
BARS = {"small files/s": 300.0, "large, of curl": 0.8}


def fill(data: Path, files: int, size: int, tenants: int) -> None:
    """A data directory with so many staged files, ten a bucket."""
    from axcollector.core.stamps import stamp

    for stage in ("tmp", "staging", "failed", "recovered"):
        (data / stage).mkdir(parents=True)
    content = os.urandom(1 << 20)
    for number in range(files):
        tenant, round_ = number % tenants, number // tenants // 10
        bucket = data / "staging" / f"org-{tenant}~prod~{stamp(START + 60 * round_)}"
        bucket.mkdir(exist_ok=True)
        with (bucket / f"{number:06x}.txt.gz").open("wb") as file:
            for at in range(0, size, len(content)):
                file.write(content[: size - at])


def deliver(data: Path, signer: str) -> dict[str, Any]:
    """In this process: deliver all that is staged; seconds, CPU seconds, and the peak of memory."""
    import gc

    from twisted.internet import defer, reactor, task

    from axcollector.disk import Disk
    from axcollector.services import WorkThread
    from axcollector.stores.signed import SignedStore
    from axcollector.uploader import Uploader

    files = sum(1 for _ in (data / "staging").glob("*/*"))
    thread = WorkThread(reactor, "staging")
    store = SignedStore.over_network(reactor, Disk(), signer, lambda: "token", timeout_seconds=60, concurrency=16)
    uploader = Uploader(
        reactor, thread, Disk(), store, str(data),
        interval_seconds=5, concurrency=16, max_attempts=3, failed_retry_batch=10, chance=lambda: 0.5,
    )  # fmt: skip
    result: dict[str, Any] = {}

    async def run() -> None:
        begun, cpu = time.monotonic(), time.process_time()
        thread.startService()
        uploader.startService()
        while uploader.status().counts.delivered_files < files:
            await task.deferLater(reactor, 0.002)
        result.update(seconds=time.monotonic() - begun, cpu=time.process_time() - cpu)
        counts = uploader.status().counts
        assert counts.failed_tries == counts.paused_tries == counts.given_up_buckets == 0, counts
        result["files"] = counts.delivered_files
        await uploader.stopService()
        await thread.stopService()
        await store.close()

    def begin() -> None:
        gc.collect()
        gc.freeze()
        defer.ensureDeferred(run()).addBoth(lambda failure: (failure and print(failure), reactor.stop()))

    reactor.callWhenRunning(begin)
    reactor.run()
    return result | {"peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def delivered_by_service(data: Path, signer: str) -> dict[str, Any]:
    """What `deliver` says, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.delivery", "--here", str(data), signer]
    run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return result


def delivered_by_curl(data: Path, signer: str) -> dict[str, Any]:
    """The same files, by one curl process that keeps its connection; the time of its transfers, not of its start."""
    files = sorted((data / "staging").glob("*/*"))
    command = ["curl", "-s", "-S", "-w", "%{time_total}\n", "-H", "Expect:", "-H", "Content-Type: application/x-gzip"]
    for number, file in enumerate(files):
        command += ["-T", str(file), f"{signer}/objects/{number}"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    times = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    seconds = sum(map(float, times))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"seconds": seconds, "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def measure(options: argparse.Namespace, signer: str, directory: Path) -> dict[str, Any]:
    """All figures."""
    small, large = directory / "small", directory / "large"
    fill(small, options.small, SMALL_BYTES, 50)
    ours = delivered_by_service(small, signer)
    assert ours["files"] == options.small, ours
    result = {
        "small files/s": round(ours["files"] / ours["seconds"]),
        "small CPU s": round(ours["cpu"], 1),
        "small peak MB": round(ours["peak MB"]),
    }
    megabytes = options.large * options.megabytes
    best: dict[str, dict[str, Any]] = {}
    for _ in range(options.rounds):
        shutil.rmtree(large, ignore_errors=True)
        fill(large, options.large, options.megabytes * 1_000_000, 4)
        if options.curl:
            run = delivered_by_curl(large, signer)
            best["curl"] = min(best.get("curl", run), run, key=lambda each: each["seconds"])
        run = delivered_by_service(large, signer)
        assert run["files"] == options.large, run
        best["ours"] = min(best.get("ours", run), run, key=lambda each: each["seconds"])
    for name, run in best.items():
        result[f"large MB/s, {name}"] = round(megabytes / run["seconds"])
        result[f"large CPU s, {name}"] = round(run["cpu"], 2)
    result["large peak MB"] = round(best["ours"]["peak MB"])
    if options.curl:
        result["large, of curl"] = round(best["curl"]["seconds"] / best["ours"]["seconds"], 2)
    return result


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=int, default=10_000, help="how many small files")
    parser.add_argument("--large", type=int, default=20, help="how many large ones")
    parser.add_argument("--megabytes", type=int, default=64, help="the size of each")
    parser.add_argument("--rounds", type=int, default=3, help="how often the large ones are delivered")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--here", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(deliver(Path(options.here[0]), options.here[1])))
        return 0
    options.curl = shutil.which("curl") is not None
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.sink"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as sink:
        assert sink.stdin is not None
        assert sink.stdout is not None
        signer = f"http://127.0.0.1:{int(sink.stdout.readline())}"
        with tempfile.TemporaryDirectory(prefix="axcollector-benchmark-") as directory:
            result = measure(options, signer, Path(directory))
        sink.stdin.close()
    for name, value in result.items():
        print(f"{name:>20}: {value}")
    if not options.curl:
        print("curl is not installed on this machine: nothing to compare the large files with")
    missed = 0
    for name, bar in BARS.items():
        if name in result:
            missed += result[name] < bar
            print(f"{'held' if result[name] >= bar else 'MISSED':>8}: {name} {result[name]} of at least {bar:g}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
