"""The real service in a process of its own, for benchmarks."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from axcollector.registry import Registry

ROOT = Path(__file__).parent.parent
_LISTENING = re.compile(r"\blisten: listening on .*port=(\d+)")


class Service:
    """`twist axcollector` with its data in a temporary directory, on a port chosen by the system.

    Attributes:
        root: Its data directory.
        port: Where it takes records.
        lines: What it has logged.
    """

    def __init__(self, *options: str, cpu: int | None = None) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="axcollector-benchmark-")
        self.root = Path(self._directory.name)
        self.lines: list[str] = []
        self._options = options
        self._cpu = cpu
        self._port = 0
        self._ready = threading.Event()

    def registry(self) -> Registry:
        """Its registry, to fill before the start."""
        return Registry.create(str(self.root / "registry.db"))

    def start(self) -> "Service":
        """Start it, and wait until it takes records."""
        command = [sys.executable, "-m", "twisted", "--log-format=text", "axcollector"]
        own = ["--local-storage-path", str(self.root), "--listen", "tcp:0:interface=127.0.0.1", "--admin-listen", ""]
        self.popen = subprocess.Popen(
            [*command, *own, *self._options],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if self._cpu is not None:  # it is of one thread still; those that it makes stay on that core too
            os.sched_setaffinity(self.popen.pid, {self._cpu})
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._ready.wait(120) or self.popen.poll() is not None:
            raise SystemExit("the service did not start:\n" + "".join(self.lines))
        return self

    def _read(self) -> None:
        assert self.popen.stdout is not None
        with self.popen.stdout as output:
            for line in output:
                self.lines.append(line)
                if match := _LISTENING.search(line):
                    self._port = int(match[1])
                if "catalog built" in line:
                    self._ready.set()
        self._ready.set()  # it has ended, and nobody is to wait for it

    @property
    def port(self) -> int:
        """Where it takes records."""
        return self._port

    def memory_megabytes(self, what: str = "VmRSS") -> float:
        """Resident memory now, or with `VmHWM` at its peak."""
        status = Path(f"/proc/{self.popen.pid}/status").read_text()
        return int(re.search(rf"{what}:\s+(\d+)", status)[1]) / 1024

    def open_files(self) -> int:
        """How many descriptors are open."""
        return len(os.listdir(f"/proc/{self.popen.pid}/fd"))

    def cpu_seconds(self) -> float:
        """CPU time used so far."""
        fields = Path(f"/proc/{self.popen.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """Stop it in order, and remove its data."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            self.popen.wait(60)
        self._reader.join(60)
        assert self.popen.stdout is not None
        self.popen.stdout.close()
        self._directory.cleanup()
