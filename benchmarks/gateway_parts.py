"""The processes of `benchmarks.gateway`: a target, and the example of a gateway, with and without recording."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.load import ROOT

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 300\r\n\r\n" + b"x" * 300


class Part:
    """A process on the first core (the target: on the last), which ends when its input does.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, what: str, *arguments: str) -> None:
        command = [sys.executable, "-m", "benchmarks.gateway_parts", what, *arguments]
        self._popen = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(self._popen.pid, {cores[-1] if what == "target" else cores[0]})
        found = re.search(r"port=(\d+)", self._line())
        if found is None:
            raise SystemExit(f"the {what} did not start")
        self.port = int(found[1])

    def _line(self) -> str:
        assert self._popen.stdout is not None
        return self._popen.stdout.readline()

    def count(self) -> int:
        """Of the target: how many calls have reached it."""
        assert self._popen.stdin is not None
        self._popen.stdin.write("\n")
        self._popen.stdin.flush()
        return int(self._line())

    def cpu_seconds(self) -> float:
        """CPU time used so far."""
        fields = Path(f"/proc/{self._popen.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """Stop it in order."""
        self._popen.communicate(timeout=60)


def _target(reactor: Any) -> None:
    """Answers each call at once; a line of input asks how many there were."""
    from twisted.internet import protocol, stdio

    calls = 0

    class Connection(protocol.Protocol):
        rest = b""

        def dataReceived(self, data: bytes) -> None:
            nonlocal calls
            *heads, self.rest = (self.rest + data).split(b"\r\n\r\n")
            calls += len(heads)
            self.transport.write(ANSWER * len(heads))

    class Asked(protocol.Protocol):
        def dataReceived(self, data: bytes) -> None:
            self.transport.write(b"%d\n" % calls)

        def connectionLost(self, reason: Any = protocol.connectionDone) -> None:
            reactor.stop()

    port = reactor.listenTCP(0, protocol.Factory.forProtocol(Connection), interface="127.0.0.1")
    stdio.StandardIO(Asked())
    print(port.getHost(), flush=True)


def _gateway(reactor: Any, arguments: list[str], *, recording: bool) -> None:
    """The example, until the input ends."""
    from twisted.internet import defer, protocol, stdio

    from tests.examples import load

    class Asked(protocol.Protocol):
        def connectionLost(self, reason: Any = protocol.connectionDone) -> None:
            reactor.stop()

    example = load("gateway")
    record = None if recording else lambda made: None
    started = defer.ensureDeferred(example.start(reactor, example.options_of(arguments), record))
    started.addCallback(lambda stop: reactor.addSystemEventTrigger("before", "shutdown", stop))
    started.addErrback(lambda failure: (failure.printTraceback(), reactor.stop()))
    reactor.callWhenRunning(stdio.StandardIO, Asked())


if __name__ == "__main__":
    from twisted.internet import reactor as running

    if sys.argv[1] == "target":
        _target(running)
    else:
        _gateway(running, sys.argv[2:], recording=sys.argv[1] == "recording")
    running.run()  # type: ignore[attr-defined]
