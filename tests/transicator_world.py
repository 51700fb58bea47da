"""A transicator source with its servers and its listener, without a network, on a clock that tests turn."""

import os
import sqlite3
import tempfile
from pathlib import Path
from typing import Any, cast

from treq.testing import RequestTraversalAgent
from twisted.internet import defer
from twisted.internet.task import Clock

from axcollector.core.retry import Backoff
from axcollector.core.tables import COLUMNS, short_name
from axcollector.disk import AppendFile, Disk
from axcollector.services import Worker
from axcollector.stores.transfer import Transfer
from axcollector.sync.events import ChangeList, Snapshot
from axcollector.sync.listener import SyncListener
from axcollector.sync.transicator_client import Servers, TransicatorClient
from axcollector.sync.transicator_files import RegistryFiles
from axcollector.sync.transicator_source import Timing, TransicatorSource
from axcollector.sync.transicator_token import Registration, TokenKeeper
from tests.fakes import SameThread, result_of
from tests.transicator_server import CLUSTER, SELECTOR, Misbehaviour, TransicatorServer

POLL_INTERVAL = 120.0


def quick_directory() -> "tempfile.TemporaryDirectory[str]":
    """A directory in memory, where there is such a thing: what is not about disks need not wait for one."""
    memory = "/dev/shm"
    return tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None)


class Told(SyncListener):
    """A listener that keeps what it is told."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(cast("Any", clock), SameThread())
        self.snapshots: list[Snapshot] = []
        self.lists: list[ChangeList] = []
        self.startService()

    def snapshot_received(self, snapshot: Snapshot) -> "defer.Deferred[bool]":
        self.snapshots.append(snapshot)
        return super().snapshot_received(snapshot)

    def changes_received(self, changes: ChangeList) -> "defer.Deferred[bool]":
        self.lists.append(changes)
        return super().changes_received(changes)


class Ended:
    """A worker that takes no work."""

    def run(self, *_: object) -> "defer.Deferred[Any]":
        return defer.fail(defer.CancelledError())


class Death(BaseException):
    """The process ends here."""


class DyingDisk(Disk):
    """A disk during whose nth change the process ends; what comes later does not happen either.

    Attributes:
        left: How many changes it still makes; None: any number.
    """

    left: int | None = None

    def live(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Death

    def create(self, path: str) -> AppendFile:
        self.live()
        return super().create(path)

    def rename(self, source: str, target: str) -> None:
        self.live()
        super().rename(source, target)

    def unlink(self, path: str) -> None:
        if os.path.exists(path):
            self.live()
        super().unlink(path)

    def sync_file(self, path: str) -> None:
        self.live()
        super().sync_file(path)

    def sync_directory(self, path: str) -> None:
        self.live()
        super().sync_directory(path)


class World:
    """All of it; `start` makes a new process, so to speak, on the same directory."""

    def __init__(self, directory: Path, *, refresh: float = 0.0, disk: Disk | None = None) -> None:
        self.directory = directory
        self.refresh = refresh
        self.disk = disk or Disk()
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.server = TransicatorServer(cast("Any", self.clock))
        self.server.add_scope("scope-1", "tenant-a")
        self.agent = RequestTraversalAgent(self.server.resource)
        self.worker: Worker = SameThread()
        self.listener_class: type[Told] = Told
        self.max_snapshot_bytes = 1 << 30
        self.cluster = CLUSTER
        self.base = "http://sync.test/v1"

    def start(self) -> "World":
        """A new source and a new listener, started."""
        self.make()
        self.source.startService()
        return self.turn()

    def start_with(self, what: str, which: int, *misbehaviours: Misbehaviour) -> "World":
        """Start, where after so many good answers of a kind these are given."""
        self.server.later[what] = (which, list(misbehaviours))
        return self.start()

    def make(self) -> None:
        """A new source and a new listener."""
        clock = cast("Any", self.clock)
        transfer = Transfer(clock, self.agent, self.disk, idle_seconds=60)
        servers = Servers(
            proxy_server_base=self.base,
            snapshot_server_base=self.base,
            change_server_base=self.base,
            cluster_id=self.cluster,
            instance_id="instance-1",
            instance_name="host-1",
            consumer_key="key",
            consumer_secret="secret-consumer",
        )
        client = TransicatorClient(clock, transfer, servers, self.max_snapshot_bytes)
        backoff = Backoff(0.2, POLL_INTERVAL, 0.1)
        registration = Registration(self.disk, str(self.directory / "registered"), "instance-1")
        self.listener = self.listener_class(self.clock)
        self.token = TokenKeeper(clock, self.worker, client, registration, backoff, lambda: 0.5)
        files = RegistryFiles(self.disk, str(self.directory), self.cluster)
        timing = Timing(backoff, lambda: 0.5, self.refresh)
        self.source = TransicatorSource(clock, self.worker, self.listener, client, self.token, files, timing)

    def leftovers(self) -> list[Any]:
        """The delayed calls of ours that are left."""
        return [call for call in self.clock.getDelayedCalls() if "_time_out" not in str(call)]

    def turn(self, seconds: float = 0.0, step: float = 1.0) -> "World":
        """Let so much time pass, and everything happen that happens meanwhile."""
        self.settle()
        while seconds > 0:
            self.clock.advance(min(step, seconds))
            seconds -= step
            self.settle()
        return self

    def settle(self) -> None:
        """Let everything happen that happens at once."""
        quiet = 0
        while quiet < 3:
            before = (len(self.server.asked), self.clock.getDelayedCalls())
            self.clock.advance(0)
            self.agent.flush()
            quiet = quiet + 1 if before == (len(self.server.asked), self.clock.getDelayedCalls()) else 0

    def stop(self) -> None:
        """The end of the process."""
        result_of(self.source.stopService())
        self.settle()
        result_of(self.listener.stopService())

    def die(self) -> None:
        """The end of the process, whatever is under way."""
        for service in (self.source, self.token):
            service.running = False
            work, service._work = service._work, None
            if work is not None:
                work.addErrback(lambda failure: failure.trap(defer.CancelledError, Death) and None)
                work.cancel()
        result_of(self.listener.stopService())

    def files(self) -> list[str]:
        """What lies in the directory, but for SQLite's own."""
        return sorted(path.name for path in self.directory.iterdir() if not path.name.endswith(("-wal", "-shm")))

    def registries(self) -> list[str]:
        """The registry files."""
        return [name for name in self.files() if name.startswith("registry-")]

    def scopes(self) -> set[str]:
        """The selectors that are ours, by the server's tables."""
        rows = [r for r in self.server.tables["edgex.data_scope"].values() if r["apid_cluster_id"] == self.cluster]
        named = {row[column] for row in rows for column in ("scope", "org_scope", "env_scope")}
        return {scope for scope in {*named, self.cluster} if scope}

    def expected(self) -> dict[str, set[tuple[str, ...]]]:
        """What a registry should hold: the server's rows for our scopes; null and empty are one."""
        scopes = self.scopes()
        return {
            table: {
                tuple(row[column] or "" for column in columns)
                for row in self.server.tables[table].values()
                if row[SELECTOR] in scopes
            }
            for table, columns in COLUMNS.items()
        }

    def kept(self) -> dict[str, set[tuple[str, ...]]]:
        """What the registry file that the listener knows holds."""
        assert self.listener.registry is not None
        connection = sqlite3.connect(self.listener.registry)
        try:
            return {
                table: {
                    tuple(value or "" for value in row)
                    for row in connection.execute(f"SELECT {', '.join(columns)} FROM {short_name(table)}")
                }
                for table, columns in COLUMNS.items()
            }
        finally:
            connection.close()
