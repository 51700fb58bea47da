"""The service under torture: the real one, a process of its own, killed and started again over one data directory."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

CHECKOUT: Final = Path(__file__).parent.parent
STAGES: Final = ("tmp", "recovered", "failed", "staging")
"""In the order in which things move, so that a look at one after the other cannot overlook one that does."""

_POLL_SECONDS: Final = 0.002
_LISTENING: Final = re.compile(rb"\blisten: listening on IPv4Address\(.*?port=(\d+)\)")
_READY: Final = b"catalog built"
_TAIL_BYTES: Final = 2000
_SETTINGS: Final = {
    "listen": "tcp:0:interface=127.0.0.1",
    "admin_listen": "",
    "collection_interval": 1,
    "close_grace": 0.1,
    "upload_interval": 0.1,
    # Whatever room the disk has, which would decide if this were 0.
    "spool_quota_bytes": 1 << 40,
}


class TortureFailed(Exception):
    """The service did not do what has to go before any judgement: start, stay up, end, deliver."""


class Service:
    """The service's process; one after the other.

    Attributes:
        log_path: What all of them said.
        port: Where the present one listens, once it does; else 0.
        ready: Whether it has read the registry.
    """

    def __init__(self, directory: str, settings: Mapping[str, Any]) -> None:
        """Write its configuration; `directory` is there."""
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._said = b""
        self._looked_at = 0
        self._orphans: set[int] = set()
        self.log_path = os.path.join(directory, "service.log")
        self.storage = os.path.join(directory, "data")
        self.port = 0
        self.ready = False
        with open(os.path.join(directory, "axcollector.yaml"), "w", encoding="utf-8") as file:
            yaml.safe_dump({"local_storage_path": self.storage, **_SETTINGS, **settings}, file)

    def start(self) -> None:
        """Start it. Returns as soon as there is a process that executes it."""
        command = [sys.executable, "-m", "twisted", "--log-format=text", "axcollector", "--config", "axcollector.yaml"]
        self.port, self.ready, self._said = 0, False, b""
        # An interrupt in the midst of it would leave a process that nobody knows.
        with open(self.log_path, "ab") as log, _held_back(signal.SIGINT, signal.SIGTERM):
            self._looked_at = log.tell()
            # A process group of its own: a terminal's Ctrl-C reaches the driver alone.
            self._process = subprocess.Popen(
                command,
                cwd=self._directory,
                env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )

    def watch(self, until: Callable[[], bool], seconds: float) -> bool:
        """Wait for something, and learn meanwhile what the service says. Whether it came in time.

        Raises:
            TortureFailed: The service ended, though nobody had it end.
        """
        deadline = time.monotonic() + seconds
        while not until():
            self._look()
            if self._process is None or self._process.poll() is not None:
                raise TortureFailed(f"the service ended by itself; the last it said:\n{self._tail()}")
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def wait_ready(self, seconds: float) -> None:
        """Wait until it has read the registry, which it does once it listens.

        Raises:
            TortureFailed: It ended, or takes longer.
        """
        if not self.watch(lambda: self.ready, seconds):
            raise TortureFailed(f"the service is not ready after {seconds:g} s; the last it said:\n{self._tail()}")

    def kill(self, *, workers_too: bool = True) -> None:
        """End it with SIGKILL, if it is there. Returns when it is gone; workers that were spared may take a moment.

        Args:
            workers_too: Whether its worker processes, if it has any, are killed as well.
        """
        if self._process is not None:
            self._orphans.update(self.workers())
            with contextlib.suppress(ProcessLookupError):
                if workers_too:
                    os.killpg(self._process.pid, signal.SIGKILL)
                else:
                    self._process.kill()
            self._process.wait()
            self._process = None

    def workers(self) -> list[int]:
        """The process ids of its workers."""
        if self._process is None:
            return []
        pid = self._process.pid
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:
            return [int(child) for child in children.read().split()]
        return []

    def check_orphans(self, seconds: float) -> None:
        """Wait until no worker of a process that was killed is there any more.

        Raises:
            TortureFailed: One is.
        """
        deadline = time.monotonic() + seconds
        while self._orphans:
            self._orphans = {pid for pid in self._orphans if _is_worker(pid)}
            if self._orphans and time.monotonic() >= deadline:
                raise TortureFailed(f"workers outlive their parent by {seconds:g} s: {sorted(self._orphans)}")
            time.sleep(_POLL_SECONDS)

    def terminate(self, seconds: float) -> bool:
        """Ask it with SIGTERM to end. Whether it has ended after so many seconds.

        Raises:
            TortureFailed: It ended otherwise than by that.
        """
        assert self._process is not None
        self._process.terminate()
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        self._process = None
        if status != -signal.SIGTERM:  # Twisted ends a process by the signal that stopped it
            raise TortureFailed(f"the service ended with status {status}; the last it said:\n{self._tail()}")
        return True

    def names(self, stage: str) -> list[str]:
        """What lies in a stage, but for journals that were put away for a person to look at."""
        with contextlib.suppress(FileNotFoundError):
            return [name for name in os.listdir(os.path.join(self.storage, "ax", stage)) if name != "unreadable"]
        return []

    def put_away(self) -> int:
        """How many journals hold something that could not be read: a first frame cut by a kill, at best."""
        return len(self.names(os.path.join("recovered", "unreadable")))

    def left(self) -> Counter[str]:
        """What lies in the stages: journals, unfinished splits (their journals are there), splits, and buckets."""
        found: Counter[str] = Counter()
        for stage in STAGES:
            names = self.names(stage)
            for name in names:
                kind = "split" if ".split" in name else "journal" if ".journal" in name else "bucket"
                unfinished = kind == "split" and name.replace(".split", ".journal") in names
                found[f"{stage}: {'unfinished ' if unfinished else ''}{kind}"] += 1
        return found

    def tracebacks(self) -> int:
        """How many tracebacks the log holds."""
        with contextlib.suppress(FileNotFoundError), open(self.log_path, "rb") as log:
            return sum(b"Traceback (most recent call last)" in line for line in log)
        return 0

    def _look(self) -> None:
        """Read what it said since the last look, until it is ready."""
        if self.ready:
            return
        with open(self.log_path, "rb") as log:
            log.seek(self._looked_at)
            new = log.read()
        self._looked_at += len(new)
        self._said += new
        listening = _LISTENING.search(self._said)
        self.port = int(listening[1]) if listening else 0
        self.ready = bool(self.port) and _READY in self._said

    def _tail(self) -> str:
        with open(self.log_path, "rb") as log:
            log.seek(max(0, os.path.getsize(self.log_path) - _TAIL_BYTES))
            return log.read().decode(errors="replace")


def _is_worker(pid: int) -> bool:
    """Whether that is a worker process, and no zombie."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as command:
        return b"axcollector.worker" in command.read()
    return False


@contextlib.contextmanager
def _held_back(*numbers: signal.Signals) -> Iterator[None]:
    """Let signals that come meanwhile have their effect afterwards. For the main thread."""
    came: list[int] = []
    handlers = {number: signal.signal(number, lambda each, _: came.append(each)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for each in came:
            signal.raise_signal(each)
