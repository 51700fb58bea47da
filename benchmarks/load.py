"""A load client: connections that are kept, each sending its next request when it has the answer to the last.

It runs in a process of its own (see `LoadProcess`), so that the service has a core to itself, and speaks HTTP/1.1 by
hand: requests are made beforehand, and of an answer only the status and the length are read.
"""

import json
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


@dataclass
class Plan:
    """What to send.

    Attributes:
        port: Of the service, on this machine.
        paths: Where to POST; each request goes to one of them, chosen at random with the seed.
        bodies: What to POST, likewise.
        headers: Of each request, beside the length.
        connections: How many.
        seconds: For how long.
        seed: Of the choices.
    """

    port: int
    paths: list[str]
    bodies: list[str]
    headers: dict[str, str] = field(default_factory=dict)
    connections: int = 64
    seconds: float = 5.0
    seed: int = 0


class LoadProcess:
    """A load client in a process of its own."""

    def __init__(self, plan: Plan) -> None:
        command = [sys.executable, "-m", "benchmarks.load"]
        self._popen = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._popen.stdin is not None
        self._popen.stdin.write(json.dumps(vars(plan)))
        self._popen.stdin.close()
        self._popen.stdin = None

    def result(self) -> dict[str, Any]:
        """Requests answered, by status; requests a second; latencies in milliseconds."""
        output, _ = self._popen.communicate()
        result: dict[str, Any] = json.loads(output)
        return result


def percentile(values: list[float], share: float) -> float:
    """The value that so many of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def _run(plan: Plan) -> dict[str, Any]:
    from twisted.internet import protocol, reactor

    chance = random.Random(plan.seed)
    head = "".join(
        f"{name}: {value}\r\n" for name, value in {"Content-Type": "application/json", **plan.headers}.items()
    )
    bodies = [body.encode("latin-1") for body in plan.bodies]
    latencies: list[float] = []
    statuses: Counter[str] = Counter()
    started = time.monotonic()

    class Connection(protocol.Protocol):
        def connectionMade(self) -> None:
            self.transport.setTcpNoDelay(True)
            self.buffer = b""
            self.send()

        def send(self) -> None:
            self.sent = time.monotonic()
            if self.sent - started > plan.seconds:
                self.transport.loseConnection()
                return
            body = chance.choice(bodies)
            path = chance.choice(plan.paths)
            line = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{head}Content-Length: {len(body)}\r\n\r\n"
            self.transport.write(line.encode() + body)

        def dataReceived(self, data: bytes) -> None:
            self.buffer += data
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            headers = self.buffer[:end].lower()
            length = int(headers.partition(b"content-length:")[2].partition(b"\r")[0])
            if len(self.buffer) < end + 4 + length:
                return
            statuses[headers[9:12].decode()] += 1
            latencies.append((time.monotonic() - self.sent) * 1000)
            self.buffer = b""
            self.send()

        def connectionLost(self, reason: Any = protocol.connectionDone) -> None:
            left.discard(self)
            if not left:
                reactor.stop()

    factory = protocol.ClientFactory()
    left: set[Connection] = set()

    def build(_: Any) -> Connection:
        connection = Connection()
        left.add(connection)
        return connection

    factory.buildProtocol = build
    factory.noisy = False
    for _ in range(plan.connections):
        reactor.connectTCP("127.0.0.1", plan.port, factory)
    reactor.callLater(plan.seconds + 30, reactor.stop)
    reactor.run()
    seconds = time.monotonic() - started
    return {
        "statuses": dict(statuses),
        "per_second": round(statuses["200"] / min(seconds, plan.seconds), 1),
        **{
            name: round(percentile(latencies, share), 2)
            for name, share in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))
        },
        "max": round(max(latencies, default=0), 2),
    }


if __name__ == "__main__":
    json.dump(_run(Plan(**json.load(sys.stdin))), sys.stdout)
