"""What worker processes cost, and how connections fall on them: `python -m benchmarks.workers [--json FILE]`.

Two services, of one process and of several workers, get the same batches over 64 connections, in turn. A client and
the workers share the machine's cores, so that requests a second say little; what counts is the processor time of
parent and workers together for a million records, the splits included. Then 64 connections are made, again and again,
and it is counted how many each worker has. Exit status 1 where a bar is missed.

The kernel gives each connection to a worker by a hash of its addresses: with two workers as if it tossed a coin, so
that one of them gets more than 60 % of 64 in a tenth of the trials. The bar is for the median.
"""

import argparse
import json
import os
import socket
import statistics
import sys
import time
from typing import Any, Final

from benchmarks.load import LoadProcess, Plan
from benchmarks.service import Service

CONNECTIONS: Final = 64
GROWTH: Final = 1.10
SHARE: Final = 0.60
RECORD: Final = {
    "client_received_start_timestamp": 1_480_000_000_000,
    "client_received_end_timestamp": 1_480_000_000_123,
    "request_path": "/v1/orders/4711/positions",
    "verb": "GET",
    "useragent": "benchmark/1.0 (load)",
    "response_status_code": 200,
    "client_id": "k-17",
}


def processes(service: Service) -> list[int]:
    """The service's process, and its workers."""
    pid = service.popen.pid
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:
        return [pid, *map(int, children.read().split())]


def cpu_seconds(service: Service) -> float:
    """What all of them have used."""
    total = 0.0
    for pid in processes(service):
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            fields = file.read().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def sockets_of(pid: int) -> int:
    """How many sockets a process has open."""
    found = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found += os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:")
        except FileNotFoundError:
            continue
    return found


def start(workers: int) -> tuple[Service, str]:
    """A service and the path to send to."""
    service = Service("--workers", str(workers), "--collection-interval", "2", "--close-grace", "0.1")
    with service.registry() as registry:
        path = f"/analytics/{registry.add_scope('acme', 'prod').id}"
    service.start()
    while sum("takes records" in line for line in service.lines) < (workers + 1 if workers > 1 else 1):
        time.sleep(0.05)
    return service, path


def load(service: Service, path: str, records: int, seconds: float, seed: int) -> dict[str, Any]:
    """One run: what a million records cost, and what the client saw."""
    body = json.dumps({"records": [RECORD] * records})
    before = cpu_seconds(service)
    result = LoadProcess(Plan(service.port, [path], [body], seconds=seconds, seed=seed)).result()
    time.sleep(2.5)  # the splits of what came count
    used = cpu_seconds(service) - before
    taken = result["statuses"].get("200", 0) * records
    return {**result, "records": taken, "cpu_per_million": used / taken * 1e6}


def shares(service: Service, trials: int) -> list[float]:
    """The largest share of connections that one worker has, in each trial."""
    workers = processes(service)[1:]
    found = []
    for _ in range(trials):
        before = [sockets_of(pid) for pid in workers]
        clients = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(CONNECTIONS)]
        while sum(map(sockets_of, workers)) - sum(before) < CONNECTIONS:
            time.sleep(0.01)
        counts = [sockets_of(pid) - count for pid, count in zip(workers, before, strict=True)]
        found.append(max(counts) / CONNECTIONS)
        for client in clients:
            client.close()
        while sum(map(sockets_of, workers)) > sum(before):
            time.sleep(0.01)
    return found


def measure(workers: int, seconds: float, rounds: int, trials: int) -> dict[str, Any]:
    """All of it."""
    one, path_of_one = start(1)
    many, path_of_many = start(workers)
    rows = []
    try:
        for records in (1, 10, 100):
            runs: dict[str, list[dict[str, Any]]] = {"one": [], "many": []}
            for seed in range(rounds):
                runs["one"].append(load(one, path_of_one, records, seconds, seed))
                runs["many"].append(load(many, path_of_many, records, seconds, seed))
            row: dict[str, Any] = {"records a request": records}
            for name, found in runs.items():
                for key in ("per_second", "p99", "cpu_per_million"):
                    row[f"{name} {key}"] = statistics.median(each[key] for each in found)
            row["growth"] = row["many cpu_per_million"] / row["one cpu_per_million"]
            rows.append(row)
        spread = shares(many, trials)
    finally:
        one.stop()
        many.stop()
    return {"workers": workers, "rows": rows, "shares": spread}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind; medians count")
    parser.add_argument("--trials", type=int, default=40, help="of how connections fall")
    parser.add_argument("--json", help="write all figures there")
    options = parser.parse_args()
    result = measure(options.workers, options.seconds, options.rounds, options.trials)
    print(f"| records a request | 1 process: req/s, p99 ms, CPU s/10⁶ | {options.workers} workers: the same | growth |")
    print("|---|---|---|---|")
    for row in result["rows"]:
        cells = [
            f"{row[f'{name} per_second']:,.0f}, {row[f'{name} p99']:.1f}, {row[f'{name} cpu_per_million']:.1f}"
            for name in ("one", "many")
        ]
        print(f"| {row['records a request']} | {cells[0]} | {cells[1]} | {row['growth']:.2f} |")
    spread = sorted(result["shares"])
    over = sum(share > SHARE for share in spread)
    print(
        f"largest share of {CONNECTIONS} connections: median {statistics.median(spread):.0%}, most {spread[-1]:.0%},"
        f" over {SHARE:.0%} in {over} of {len(spread)} trials"
    )
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)
    bars = [row["growth"] <= GROWTH for row in result["rows"]] + [statistics.median(spread) <= SHARE]
    print("all bars are met" if all(bars) else "a bar is missed")
    return 0 if all(bars) else 1


if __name__ == "__main__":
    sys.exit(main())
