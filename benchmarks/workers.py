"""What worker processes cost, and how connections fall on them: `python -m benchmarks.workers [--json FILE]`.

Two services, of one process and of several workers, get the same batches over 64 connections, in turn. A client and
the workers share the machine's cores, so that requests a second say little; what counts is the processor time of
parent and workers together for a million records, the splits included. Then 64 connections are made, again and again,
and it is counted how many each worker has (`--only shares`: nothing but that). Exit status 1 where a bar is missed.

Workers hand connections on to who has fewest, so none has more than 60 % in any trial, which is the bar (for two: of
more workers it is met by far). By the kernel's choice alone one in ten trials would be over.
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
"""Of the connections no worker has more."""
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


def load(service: Service, path: str, records: int, connections: int, seconds: float, seed: int) -> dict[str, Any]:
    """One run: what a million records cost, and what the client saw."""
    body = json.dumps({"records": [RECORD] * records})
    before = cpu_seconds(service)
    plan = Plan(service.port, [path], [body], connections=connections, seconds=seconds, seed=seed)
    result = LoadProcess(plan).result()
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


def compare(workers: int, seconds: float, rounds: int) -> list[dict[str, Any]]:
    """What one process and several cost, by the size of batches."""
    one, path_of_one = start(1)
    many, path_of_many = start(workers)
    rows = []
    try:
        for records in (1, 10, 100):
            runs: dict[str, list[dict[str, Any]]] = {"one": [], "many": [], "each": []}
            for seed in range(rounds):
                runs["one"].append(load(one, path_of_one, records, CONNECTIONS, seconds, seed))
                runs["many"].append(load(many, path_of_many, records, CONNECTIONS, seconds, seed))
                runs["each"].append(load(many, path_of_many, records, CONNECTIONS * workers, seconds, seed))
            row: dict[str, Any] = {"records a request": records}
            for name, found in runs.items():
                for key in ("per_second", "p99", "cpu_per_million"):
                    row[f"{name} {key}"] = statistics.median(each[key] for each in found)
            row["growth"] = row["many cpu_per_million"] / row["one cpu_per_million"]
            row["growth, each"] = row["each cpu_per_million"] / row["one cpu_per_million"]
            rows.append(row)
    finally:
        one.stop()
        many.stop()
    return rows


def spread(workers: int, trials: int) -> list[float]:
    """The shares, of a service that does nothing else."""
    service, _ = start(workers)
    try:
        return sorted(shares(service, trials))
    finally:
        service.stop()


def print_rows(rows: list[dict[str, Any]], workers: int) -> None:
    """The table."""
    heads = [
        f"1 process, {CONNECTIONS} connections: req/s, p99 ms, CPU s/10⁶",
        f"{workers} workers: the same",
        "growth",
    ]
    print(
        "|", " | ".join(["records a request", *heads, f"{CONNECTIONS} connections a worker: the same", "growth"]), "|"
    )
    print("|---|---|---|---|---|---|")
    for row in rows:
        cells = [
            f"{row[f'{name} per_second']:,.0f}, {row[f'{name} p99']:.1f}, {row[f'{name} cpu_per_million']:.1f}"
            for name in ("one", "many", "each")
        ]
        growth = (f"{row[name]:.2f}" for name in ("growth", "growth, each"))
        print(
            f"| {row['records a request']} | {cells[0]} | {cells[1]} | {next(growth)} | {cells[2]} | {next(growth)} |"
        )


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind; medians count")
    parser.add_argument("--trials", type=int, default=200, help="of how connections fall")
    parser.add_argument("--only", choices=["shares"], help="no load, just how connections fall")
    parser.add_argument("--json", help="write all figures there")
    options = parser.parse_args()
    rows = [] if options.only else compare(options.workers, options.seconds, options.rounds)
    if rows:
        print_rows(rows, options.workers)
    found = spread(options.workers, options.trials)
    over = sum(share > SHARE for share in found)
    print(
        f"largest share of {CONNECTIONS} connections: median {statistics.median(found):.0%}, most {found[-1]:.0%},"
        f" over {SHARE:.0%} in {over} of {len(found)} trials"
    )
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"workers": options.workers, "rows": rows, "shares": found}, file, indent=2)
    met = all(row["growth"] <= GROWTH for row in rows) and not over
    print("all bars are met" if met else "a bar is missed")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
