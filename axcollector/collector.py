"""The collector: its two halves in one process. A service without a port.

    directory (sync) ─┐
    submit ─► intake ─┴─► spool ─► tmp/ ─► splitter ─► staging/ ─► uploader ─► store
              ingesting ──────────┘   └────────────── delivering
                                   recovered/ ─► splitter ─┘

Nothing is global: several collectors, each with a data directory of its own, live in one process.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet import defer

from axcollector.access import Access
from axcollector.config import Config
from axcollector.core.errors import ConfigError
from axcollector.core.recordtext import Record
from axcollector.core.status import Check, Status
from axcollector.core.tally import Tally
from axcollector.core.traffic import Traffic
from axcollector.delivering import Delivering
from axcollector.disk import Disk
from axcollector.ingesting import Ingesting
from axcollector.intake import Intake
from axcollector.on_stop import Once
from axcollector.plans import shared_threads
from axcollector.premises import Premises
from axcollector.quarantine import Quarantine
from axcollector.stores.base import Store
from axcollector.sync.directory import Directory
from axcollector.sync.listener import SyncListener
from axcollector.uploader import Uploader


class Collector(Service):
    """Takes records and delivers them, from `startService` until the Deferred of `stopService` fires.

    Attributes:
        config: Its configuration.
    """

    def __init__(self, reactor: Any, config: Config, store: Store | None = None) -> None:  # noqa: ANN401 - any reactor
        """Touch nothing yet.

        Args:
            reactor: Provides time, threads and TCP, as every Twisted reactor does.
            config: What to do.
            store: Where files go, in place of the configured one.

        Raises:
            ConfigError: What the configured store needs is not installed, or worker processes are asked for.
        """
        if config.workers != 1:
            raise ConfigError(
                f"workers: {config.workers} is for twistd axcollector, which starts processes of its own;"
                " a collector in another program is one process, so allowed is 1"
            )
        self.config = config
        disk, threads = Disk(), shared_threads(config)
        self._ingesting = Ingesting(reactor, config, disk, threads)
        self._premises = Premises(disk, config.local_storage_path, config.data_directory)
        self._delivering = Delivering(reactor, config, disk, self._premises, self._ingesting, store, threads)
        self._stop = Once(self._stop_delivering)

    @property
    def sync(self) -> SyncListener:
        """The listener to which an embedding program with `sync: none` tells snapshots and changes."""
        return self._ingesting.sync

    @property
    def directory(self) -> Directory:
        """Knows tenants and developers."""
        return self._ingesting.directory

    @property
    def quarantine(self) -> Quarantine:
        """Knows how many records were set aside, and whether there is room for more."""
        return self._delivering.quarantine

    @property
    def access(self) -> Access:
        """Who may send through its routes, and how much."""
        return self._ingesting.access

    @property
    def intake(self) -> Intake:
        """The way in.

        Raises:
            NotReady: The collector was not started.
        """
        return self._ingesting.intake

    @property
    def uploader(self) -> Uploader | None:
        """Sweeps staging; None before the start."""
        return self._delivering.uploader

    def startService(self) -> None:
        """Take possession of the data directory, take over what a crash left, and start the stations.

        Raises:
            DirectoryInUse: Somebody else works there.
            OSError: It cannot be made or written.
        """
        self._delivering.startService()
        self.running = True

    def submit(self, scope: str, records: Sequence[Record]) -> "defer.Deferred[int]":
        """Take records from this process, for the tenant of `scope`: each a dict, or the JSON text of one as bytes.

        Fires with how many are accepted, once they are durable (see `durability`): all, or, with `invalid_records:
        quarantine`, those that were not set aside, which are as durable. Fails with `Rejected`, `NotReady`,
        `LookupFailed`, `Overloaded` or `SpoolFailed`; then none of them is kept. Cancelling forgets the result; the
        records may be kept.
        """
        return defer.ensureDeferred(self._submit(scope, records))

    async def _submit(self, scope: str, records: Sequence[Record]) -> int:
        return await self.intake.take_records(scope, records)

    def status(self) -> Status:
        """All that it says of itself at this moment; it costs little, and touches no disk."""
        return self._delivering.status()

    @property
    def traffic(self) -> Traffic:
        """What tenants have sent since it was made."""
        return self._delivering.traffic

    @property
    def tally(self) -> Tally:
        """Counts what goes through its routes."""
        return self._ingesting.tally

    def checks(self) -> Mapping[str, Check]:
        """Everything that should be well, by name, also what readiness does not need."""
        return self._delivering.checks()

    def retry_failed(self, bucket: str | None = None) -> "defer.Deferred[int]":
        """Move a bucket of failed, or all of them, back to staging, and begin to deliver them.

        Fires with how many were moved; 0 where there is no such bucket. Fails with `OSError` where that cannot be done,
        with `Overloaded` where the collector does not run. Cancelling forgets the result; they are moved all the same.
        """
        return self._delivering.retry_failed(bucket)

    def drain(self) -> None:
        """Begin to deliver all that was taken so far, without waiting for the ends of intervals; the collector goes on.

        Raises:
            Overloaded: The collector does not run.
        """
        self._delivering.drain()

    def problems(self) -> Mapping[str, str | None]:
        """What keeps the collector from being ready, by check; None where all is well."""
        return self._delivering.problems()

    def stopService(self) -> "defer.Deferred[None]":
        """Commit and answer what waits, split all journals, break uploads off, and give the directory back.

        Fires when that is done, at the latest after `delivering.STOP_SECONDS`; what is not done by then goes on in the
        background (or, where the process ends, at the next start), and the directory is given back when it is.
        """
        self.running = False
        return self._stop.run()

    async def _stop_delivering(self) -> None:
        await self._delivering.stopService()
