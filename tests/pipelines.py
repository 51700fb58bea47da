"""The ways in which a collector runs, behind one face, so that the same tests ask each of them for the whole job.

`service` is `running.Running`: what `twistd axcollector` makes, in the tests' process. `embedded` is a collector in a
program of somebody else's: a child of its `MultiService`, whose resource hangs in its site. `process` is the program
itself, started and stopped from outside.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.application.service import MultiService
from twisted.internet import reactor, task
from twisted.internet.threads import deferToThread
from twisted.web.resource import Resource
from twisted.web.server import Site

from axcollector.collector import Collector
from axcollector.config import KEYS
from axcollector.webapi import AnalyticsAPI
from tests.running import Running, until

ROOT = Path(__file__).parent.parent
LISTENING = re.compile(r"\blisten: listening on .*port=(\d+)")


class Embedded(Running):
    """A collector in another program."""

    async def start(self) -> "Embedded":
        """Start the program, and wait for the first snapshot."""
        self.application = MultiService()
        self.collector = Collector(reactor, self.config)
        self.collector.setServiceParent(self.application)
        self.application.startService()
        root = Resource()
        root.putChild(b"below", AnalyticsAPI(self.collector).resource())
        self.port = reactor.listenTCP(0, Site(root, reactor=reactor), interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self.port.getHost().port}/below"
        await until(self.collector.directory.ready)
        return self

    async def stop(self) -> None:
        """Stop the program."""
        await self.port.stopListening()
        await self._pool.closeCachedConnections()
        await self.application.stopService()


class Process(Running):
    """The program itself."""

    async def start(self) -> "Process":
        """Start it, and wait until it takes records."""
        options = []
        for name, key in KEYS.items():
            value = getattr(self.config, name)
            if key.secret or value is None or name == "listen" or value == key.default:
                continue
            options += [f"--{name.replace('_', '-')}", str(value).lower() if isinstance(value, bool) else str(value)]
        secrets = {name: getattr(self.config, name) for name, key in KEYS.items() if key.secret}
        self.root.mkdir(exist_ok=True, parents=True)
        file = self.root.parent / "secrets.yaml"
        file.write_text(json.dumps({name: value for name, value in secrets.items() if value is not None}))
        file.chmod(0o600)
        where = ["--config", str(file), "--listen", "tcp:0:interface=127.0.0.1"]
        self.popen = subprocess.Popen(  # noqa: ASYNC220 - it does not block
            [sys.executable, "-m", "twisted", "--log-format=text", "axcollector", *where, *options],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        await until(self._found)
        self.url = f"http://127.0.0.1:{self._found()}"
        while (await self.post("/analytics/nothing", b"{}"))[0] == 500:  # there was no snapshot yet
            await task.deferLater(reactor, 0.05)
        return self

    def _read(self) -> None:
        assert self.popen.stdout is not None
        with self.popen.stdout as output:
            self.lines.extend(output)

    def _found(self) -> str:
        assert self.popen.poll() is None, "".join(self.lines)
        return next((found[1] for line in self.lines if (found := LISTENING.search(line))), "")

    async def scope(self, organization: str, environment: str, *keys: str) -> str:
        """As `Running.scope`; the program is asked until it knows it."""
        scope = self._add_scope(organization, environment, *keys)
        while (await self.post(f"/analytics/{scope}", b"{}"))[1]["errorCode"] != "NO_RECORDS":
            await task.deferLater(reactor, 0.05)
        return scope

    async def stop(self) -> None:
        """Stop it as an init system does."""
        await self._pool.closeCachedConnections()
        self.popen.send_signal(signal.SIGTERM)
        status = await deferToThread(self.popen.wait, 60)
        await deferToThread(self._reader.join, 60)
        assert status in {0, -signal.SIGTERM}, "".join(self.lines)
        assert not [line for line in self.lines if "Traceback" in line], "".join(self.lines)


@dataclass(frozen=True)
class Pipeline:
    """A way, and how much it is asked for.

    Attributes:
        kind: Makes one, which is yet to be started.
        records: How many records a long run has.
        batch: How many of them are sent at a time.
        outage: How many batches come while the store is down, two a second.
    """

    kind: type[Running]
    records: int
    batch: int
    outage: int

    async def start(self, root: Path, **settings: Any) -> Running:
        """Start one with its data in this directory."""
        return await self.kind(root, **settings).start()


PIPELINES = {
    "service": Pipeline(Running, 100_000, 250, 14),
    "embedded": Pipeline(Embedded, 20_000, 50, 8),
    "process": Pipeline(Process, 20_000, 50, 8),
}
if os.environ.get("AXCOLLECTOR_PROOFS") == "bounded":
    del PIPELINES["process"]  # what is its own is asked by test_process, for less
