"""The load client of the ingest benchmark: `python -m benchmarks.ingest_client`, with a `Plan` as JSON on its input.

One thread, one epoll, requests made beforehand; of an answer only the status and `Content-Length` are read. So it is
not what is measured, and it says how much of its core it took, for whoever wants to be sure.

Closed loop: each connection sends its next request when it has the answer to the last. Open loop (`per_second`):
requests are due at a steady pace whatever the answers do, a latency counts from when the request was due, so what
waits behind a stall is counted too. A probe asks for a path that is not there every few milliseconds, which the reactor
answers at once, without a commit: the longest it had to wait is the reactor's longest stall.
"""

import gc
import json
import os
import select
import socket
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

_PROBE = b"GET /not/there HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
_PROBE_SECONDS = 0.003
_PATIENCE_SECONDS = 30.0


@dataclass
class Plan:
    """What to send.

    Attributes:
        port: Of the service, on this machine.
        path: A file of requests.
        lengths: How long each of them is.
        connections: How many.
        seconds: For how long.
        per_second: Requests; 0: as many as are answered (closed loop).
        cpu: The core to run on.
    """

    port: int
    path: str
    lengths: list[int]
    connections: int
    seconds: float
    per_second: float
    cpu: int


def length_of(answer: bytes | bytearray) -> int:
    """How long a whole answer is that begins so; 0 where that cannot be told yet."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return 0
    head = bytes(answer[:end]).lower()
    return end + 4 + int(head.partition(b"content-length:")[2].partition(b"\r")[0])


def percentile(ordered: list[float], share: float) -> float:
    """The value that so many of these do not exceed."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


class Peer:
    """One connection."""

    __slots__ = ("buffer", "due", "left", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(0)
        self.buffer = bytearray()
        self.left: memoryview | None = None
        self.due = 0.0

    def send(self, request: memoryview, due: float) -> bool:
        """Begin to send a request; whether all of it is on its way."""
        self.left, self.due = request, due
        return self.go_on()

    def go_on(self) -> bool:
        """Send more of it; whether all of it is on its way."""
        while self.left is not None and len(self.left):
            try:
                self.left = self.left[self.socket.send(self.left) :]
            except BlockingIOError:
                return False
        self.left = None
        return True

    def receive(self) -> int:
        """The status of the answer, once it is whole; else 0."""
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the service closed a connection")
        self.buffer += data
        length = length_of(self.buffer)
        if not length or len(self.buffer) < length:
            return 0
        status = int(self.buffer[9:12])
        del self.buffer[:length]
        return status


class Load:
    """All connections, and what they were answered."""

    def __init__(self, plan: Plan, requests: list[memoryview]) -> None:
        self._plan = plan
        self._requests = requests
        self._epoll = select.epoll()
        self._peers: dict[int, Peer] = {}
        self._idle = deque(self._connect() for _ in range(plan.connections))
        self._probe = self._connect() if plan.per_second else None
        self._probe_waits = False
        self._begun = self._ended = 0.0
        self._sent = 0
        self.statuses: Counter[int] = Counter()
        self.latencies: list[float] = []
        self.stalls: list[float] = []

    def _connect(self) -> Peer:
        peer = Peer(self._plan.port)
        self._peers[peer.socket.fileno()] = peer
        self._epoll.register(peer.socket, select.EPOLLIN)
        return peer

    def run(self) -> float:
        """Send for as long as planned, and wait for the last answer; the seconds until then."""
        self._begun = self._ended = time.perf_counter()
        over = self._begun + self._plan.seconds
        while (now := time.perf_counter()) < over:
            self._send_due(now)
            self._answer(self._epoll.poll(self._until_next(now)), sending=True)
        while len(self._idle) < self._plan.connections:
            if time.perf_counter() > over + _PATIENCE_SECONDS:
                raise SystemExit("the service does not answer")
            self._answer(self._epoll.poll(1.0), sending=False)
        return self._ended - self._begun

    def _until_next(self, now: float) -> float:
        if not self._plan.per_second:
            return 0.1
        due = self._begun + self._sent / self._plan.per_second
        return min(_PROBE_SECONDS, max(0.0, due - now)) if self._idle else _PROBE_SECONDS

    def _send_due(self, now: float) -> None:
        """Give idle connections the requests that are due; where none is idle, those wait."""
        pace = self._plan.per_second
        while self._idle and (not pace or self._begun + self._sent / pace <= now):
            due = self._begun + self._sent / pace if pace else time.perf_counter()
            self._send(self._idle.popleft(), self._next(), due)
        if self._probe is not None and not self._probe_waits and now > self._probe.due + _PROBE_SECONDS:
            self._probe_waits = True
            self._send(self._probe, memoryview(_PROBE), now)

    def _next(self) -> memoryview:
        request = self._requests[self._sent % len(self._requests)]
        self._sent += 1
        return request

    def _send(self, peer: Peer, request: memoryview, due: float) -> None:
        if not peer.send(request, due):
            self._epoll.modify(peer.socket, select.EPOLLIN | select.EPOLLOUT)

    def _answer(self, events: list[tuple[int, int]], *, sending: bool) -> None:
        for number, event in events:
            peer = self._peers[number]
            if event & select.EPOLLOUT and peer.go_on():
                self._epoll.modify(peer.socket, select.EPOLLIN)
            if not event & ~select.EPOLLOUT or not (status := peer.receive()):
                continue
            now = time.perf_counter()
            if peer is self._probe:
                self._probe_waits = False
                self.stalls.append(now - peer.due)
                continue
            self.statuses[status] += 1
            self.latencies.append(now - peer.due)
            self._ended = now
            if sending and not self._plan.per_second:
                self._send(peer, self._next(), now)
            else:
                self._idle.append(peer)

    def close(self) -> None:
        """Hang up."""
        for peer in self._peers.values():
            peer.socket.close()
        self._epoll.close()


def read_requests(path: str, lengths: list[int]) -> list[memoryview]:
    """The requests of a file."""
    with open(path, "rb") as file:
        whole = memoryview(file.read())
    made, start = [], 0
    for length in lengths:
        made.append(whole[start : start + length])
        start += length
    return made


def run(plan: Plan) -> dict[str, Any]:
    """Load a service; statuses, seconds, latencies in milliseconds, and what it took of this process's core."""
    load = Load(plan, read_requests(plan.path, plan.lengths))
    gc.disable()
    used = time.process_time()
    seconds = load.run()
    used = time.process_time() - used
    load.close()
    ordered = sorted(load.latencies)
    return {
        "statuses": {str(status): count for status, count in load.statuses.items()},
        "seconds": seconds,
        "cpu share": used / seconds,
        "p50 ms": percentile(ordered, 0.5) * 1000,
        "p99 ms": percentile(ordered, 0.99) * 1000,
        "max ms": percentile(ordered, 1.0) * 1000,
        "stall ms": max(load.stalls, default=0.0) * 1000,
    }


def main() -> None:
    """Run as the plan on standard input says."""
    plan = Plan(**json.load(sys.stdin))
    os.sched_setaffinity(0, {plan.cpu})
    json.dump(run(plan), sys.stdout)


if __name__ == "__main__":
    main()
