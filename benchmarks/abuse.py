"""Is a good client served while others abuse the service? `python -m benchmarks.abuse [--seconds 10] [--json FILE]`.

The real service, with its defaults; against it, from a process of their own, 500 connections that send a byte of a
request a second, and 20 that send bombs, each the next when the last was answered: gzip of a gigabyte, of many members,
inside a node Buffer, and 50 MB of JSON that is just not too large. A good client sends batches of 10 records over four
connections, and one a batch of 200 kB of gzip (3 MB of JSON), first without the others and then beside them. The bars:
p99 of the good client's small batches 250 ms, none of them refused; every bomb refused; memory.
"""

import argparse
import gzip
import json
import random
import selectors
import socket
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.load import ROOT, LoadProcess, Plan
from benchmarks.service import Service

START = "client_received_start_timestamp"
P99_MS = 250.0
MEMORY_MEGABYTES = 450
"""What it has at rest, one bomb with what is made of it, the bodies that wait, and what the allocator keeps."""


def small_batch() -> bytes:
    """What a gateway sends most of the time."""
    record = {START: 1_480_000_000_000, "request_path": "/v1/orders", "verb": "GET"}
    return gzip.compress(json.dumps({"records": [record] * 10}).encode(), 6)


def large_batch() -> bytes:
    """What one sends that could send nothing for long: 10,000 records, too much for the reactor's thread."""
    chance = random.Random(1)
    records = [
        {START: 1_480_000_000_000 + i, "path": f"/v1/{chance.getrandbits(60):x}", "f": "x" * 200} for i in range(10_000)
    ]
    return gzip.compress(json.dumps({"records": records}).encode(), 1)


def bombs() -> dict[str, bytes]:
    """What is small as it is sent, and large, or much work, when it is looked at."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = b"".join(packer.compress(bytes(1 << 20)) for _ in range(1 << 10)) + packer.flush()
    members = gzip.compress(bytes(1 << 16), 9) * 20_000
    buffer = b'{"type":"Buffer","data":[' + b",".join(b"%d" % each for each in zeros) + b"]}"
    return {
        "a gigabyte of zeros": zeros,
        "20,000 members": members[: 9 << 20],
        "a node Buffer": buffer,
        "25 million records": gzip.compress(b'{"records":[' + b"0," * (25 << 20 >> 1) + b"0]}", 9),
        "many brackets": gzip.compress(b'{"records":' + b"[" * (45 << 20), 9),
    }


class Abuser:
    """One connection of somebody who means no good; opened again when it is closed."""

    def __init__(self, port: int, payload: bytes, counts: Counter[str]) -> None:
        self._port = port
        self.payload = payload
        self.counts = counts
        self.open()

    def open(self) -> None:
        """Connect, anew."""
        self.socket = socket.create_connection(("127.0.0.1", self._port))
        self.socket.settimeout(0)
        self.position = 0
        self.answer = b""

    def send(self, most: int) -> None:
        """Send so many bytes, or what the kernel takes of them."""
        try:
            self.position += self.socket.send(self.payload[self.position : self.position + most])
        except BlockingIOError:
            return
        except OSError:
            self.again("reset")

    def receive(self) -> bool:
        """Read; whether an answer was whole."""
        try:
            data = self.socket.recv(65_536)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.again("closed")
            return False
        self.answer += data
        head, end, rest = self.answer.partition(b"\r\n\r\n")
        if not end or len(rest) < int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]):
            return False
        self.counts[head[9:12].decode()] += 1
        self.answer, self.position = b"", 0
        return True

    def again(self, why: str) -> None:
        """The connection is gone."""
        self.counts[why] += 1
        self.socket.close()
        self.open()


def abuse(port: int, path: str, slow: int, bombing: int, seconds: float) -> dict[str, Any]:
    """Abuse the service for so long."""
    head = b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n" % path.encode()
    crawl = head + b"Content-Length: 100000\r\n\r\n" + bytes(100_000)
    kinds = list(bombs().items())
    statuses: Counter[str] = Counter()
    crawled: Counter[str] = Counter()
    crawlers = [Abuser(port, crawl, crawled) for _ in range(slow)]
    bombers = []
    for number in range(bombing):
        _, bomb = kinds[number % len(kinds)]
        data = head + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb
        bombers.append(Abuser(port, data, statuses))
    print("ready", flush=True)
    started = time.monotonic()
    next_byte = started
    while (now := time.monotonic()) < started + seconds:
        if now >= next_byte:
            next_byte += 1
            for crawler in crawlers:
                crawler.send(1)
        turn(bombers, 0.05)
    return {"bombs": dict(statuses), "slow": dict(crawled), "slow open": len(crawlers)}


def turn(bombers: list[Abuser], seconds: float) -> None:
    """Send and receive what can be."""
    with selectors.DefaultSelector() as selector:
        for bomber in bombers:
            unsent = bomber.position < len(bomber.payload)
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if unsent else 0)
            selector.register(bomber.socket, events, bomber)
        for key, events in selector.select(seconds):
            if events & selectors.EVENT_WRITE:
                key.data.send(1 << 18)
            if events & selectors.EVENT_READ and key.data.socket is key.fileobj:
                key.data.receive()


class AbuseProcess:
    """Abuse, from a process of its own; ready when all are connected."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-m", "benchmarks.abuse", "--abuse", json.dumps(arguments)]
        self._popen = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self._popen.stdout is not None
        if self._popen.stdout.readline() != "ready\n":
            self._popen.communicate()
            raise SystemExit("the abusing process did not start")

    def result(self) -> dict[str, Any]:
        """What became of it."""
        output, _ = self._popen.communicate()
        result: dict[str, Any] = json.loads(output)
        return result


def measure(seconds: float, slow: int, bombing: int) -> dict[str, Any]:
    """The good client alone, and beside the others."""
    service = Service()
    with service.registry() as registry:
        path = f"/analytics/{registry.add_scope('good', 'prod').id}"
        bad = f"/analytics/{registry.add_scope('bad', 'prod').id}"
    service.start()
    small, large = small_batch().decode("latin-1"), large_batch().decode("latin-1")
    headers = {"Content-Encoding": "gzip"}

    def good(body: str, connections: int) -> Callable[[], dict[str, Any]]:
        return LoadProcess(Plan(service.port, [path], [body], headers, connections=connections, seconds=seconds)).result

    try:
        result: dict[str, Any] = {}
        clients = good(small, 4), good(large, 1)
        result["alone"], result["large alone"] = (client() for client in clients)
        result["memory alone MB"] = round(service.memory_megabytes("VmHWM"))
        abusers = AbuseProcess(service.port, bad, slow, bombing, seconds + 3)
        clients = good(small, 4), good(large, 1)
        result["beside"], result["large beside"] = (client() for client in clients)
        result["abuse"] = abusers.result()
        result["memory MB"] = round(service.memory_megabytes("VmHWM"))
        result["tracebacks"] = sum("Traceback" in line for line in service.lines)
        result["seconds"] = seconds
    finally:
        service.stop()
    return result


def bars(result: dict[str, Any], p99_ms: float = P99_MS) -> dict[str, bool]:
    """What is asked of a result, in words, and whether it is so."""
    beside, abuse_ = result["beside"], result["abuse"]
    refused = set(abuse_["bombs"]) <= {"400", "413", "503"}
    return {
        f"p99 of the good client {beside['p99']} ms (at most {p99_ms:g})": beside["p99"] <= p99_ms,
        f"its answers {beside['statuses']}": set(beside["statuses"]) == {"200"},
        f"bombs' answers {abuse_['bombs']}": refused and sum(abuse_["bombs"].values()) > 0,
        f"slow connections that were closed {abuse_['slow']}": not abuse_["slow"],
        f"peak memory {result['memory MB']} MB (at most {MEMORY_MEGABYTES})": result["memory MB"] <= MEMORY_MEGABYTES,
        f"tracebacks {result['tracebacks']}": result["tracebacks"] == 0,
    }


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--slow", type=int, default=500)
    parser.add_argument("--bombing", type=int, default=20)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--abuse", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.abuse:
        print(json.dumps(abuse(*json.loads(options.abuse))))
        return 0
    result = measure(options.seconds, options.slow, options.bombing)
    print(f"{'':>14} {'requests/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'p99.9 ms':>8} {'max ms':>8}  statuses")
    for name in ("alone", "beside", "large alone", "large beside"):
        row = result[name]
        figures = [row[key] for key in ("per_second", "p50", "p99", "p999", "max")]
        print(f"{name:>14} {figures[0]:>10} " + " ".join(f"{each:>8}" for each in figures[1:]) + f"  {row['statuses']}")
    print(f"{'memory MB':>14} {result['memory alone MB']} alone, {result['memory MB']} beside")
    judged = bars(result)
    for bar, held in judged.items():
        print(f"{'held' if held else 'MISSED':>14}: {bar}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    return 0 if all(judged.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
