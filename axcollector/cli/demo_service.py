"""The service as the demo runs it: the real one, in a process of its own, `python -m twisted axcollector`.

It listens on ports that the kernel chooses, and says in its log which those are.
"""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Final

from twisted.internet import defer
from twisted.internet.task import deferLater

from axcollector.core.errors import AxcollectorError
from axcollector.disk import open_private

POLL_SECONDS: Final = 0.05
START_SECONDS: Final = 30.0
"""A start takes a second; a busy machine may take longer."""
STOP_SECONDS: Final = 12.0
"""The service itself takes at most 10 s to stop."""
_TAIL_LINES: Final = 3

LISTEN: Final = "tcp:0:interface=127.0.0.1"
ADMIN_LISTEN: Final = "tcp:port=0:interface=127.0.0.1"
_LISTENING: Final = re.compile(rb"\b(listen|admin_listen): listening on IPv4Address\(.*?port=(\d+)\)")


class DemoFailed(AxcollectorError):
    """The demo cannot go on; the message says why, and where to look."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the service listens, on 127.0.0.1."""

    ingest: int
    admin: int


async def until(reactor: Any, condition: Callable[[], bool], seconds: float) -> bool:  # noqa: ANN401 - any reactor
    """Wait for a condition; whether it came true in time."""
    deadline = reactor.seconds() + seconds
    while not condition():
        if reactor.seconds() >= deadline:
            return False
        await deferLater(reactor, POLL_SECONDS)
    return True


class ServiceProcess:
    """The service, from `start` until `stop` has returned.

    Attributes:
        log_path: The file that its output goes to.
        ports: Where it listens, once it has started.
    """

    def __init__(self, reactor: Any, config_path: str, log_path: str) -> None:  # noqa: ANN401 - any reactor
        """Start nothing yet; `config_path` names its configuration."""
        self._reactor = reactor
        self._config_path = config_path
        self._process: subprocess.Popen[bytes] | None = None
        self.log_path = log_path
        self.ports = Ports(0, 0)

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Its process id, while there is one."""
        return self._process.pid if self._process is not None else None

    async def start(self, seconds: float = START_SECONDS) -> None:
        """Start it. Returns when it listens.

        Raises:
            DemoFailed: It ended, or did not listen in time.
        """
        self._process = self._launch()
        listening = await until(self._reactor, lambda: self._listens() or not self.running, seconds)
        self.check()
        if not listening:
            raise DemoFailed(f"the service does not listen after {seconds:g} s")

    def check(self) -> None:
        """Raise `DemoFailed` if it is not running any more."""
        if not self.running:
            raise DemoFailed(f"the service has ended; the last it said: {self._tail()}")

    async def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Stop it, in order while that takes no longer than `seconds`. Returns when it has ended.

        Cancelling changes nothing: whoever does wants an end, and that is what comes.
        """
        if self._process is None:
            return
        self._process.terminate()
        deadline = self._reactor.seconds() + seconds
        while self.running:
            if self._reactor.seconds() >= deadline:
                self._process.kill()
            with contextlib.suppress(defer.CancelledError):
                await deferLater(self._reactor, POLL_SECONDS)

    def _launch(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "twisted", "--log-format=text", "axcollector", "--config", self._config_path]
        with contextlib.suppress(FileExistsError):
            os.close(open_private(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC))
        with open(self.log_path, "ab") as log:
            # A process group of its own: a terminal's Ctrl-C reaches us alone, and we stop it in order.
            return subprocess.Popen(  # noqa: S603 - our own command
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, process_group=0
            )

    def _listens(self) -> bool:
        found = {name: int(port) for name, port in _LISTENING.findall(self._log())}
        if len(found) < len(fields(Ports)):
            return False
        self.ports = Ports(found[b"listen"], found[b"admin_listen"])
        return True

    def _log(self) -> bytes:
        with open(self.log_path, "rb") as file:
            return file.read()

    def _tail(self) -> str:
        lines = self._log().decode(errors="replace").split("\n")
        return " | ".join([line.strip() for line in lines if line.strip()][-_TAIL_LINES:])
