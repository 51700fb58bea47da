"""The delivering half of a collector: it owns the data directory, and brings what journals hold to the store.

    tmp/ ─► splitter ─► staging/ ─► uploader ─► store
    recovered/ ─► splitter ─┘

Journals come from whoever is upstream: the ingesting half in the same process (`Collector`), or worker processes. That
one is told which names to give, whether there is room, and what the sync source has seen.

Downstream is started first and upstream is stopped first, each waited for.
"""

import os
import random
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet import defer
from twisted.logger import Logger
from twisted.python.failure import Failure

from axcollector.apart import apart
from axcollector.bearer import BearerToken
from axcollector.bugs import report
from axcollector.closing import Closing, Recovery
from axcollector.config import Config
from axcollector.core.errors import Overloaded
from axcollector.core.layout import Stage
from axcollector.core.status import Check, Status
from axcollector.core.traffic import Traffic
from axcollector.destination import Bearer, StoreMaker, store_maker
from axcollector.disk import Disk
from axcollector.draining import Draining
from axcollector.gathering import Gathering, Stations
from axcollector.on_stop import OnStop
from axcollector.plans import shared_threads
from axcollector.premises import Premises
from axcollector.quarantine import Quarantine
from axcollector.record_counts import RecordCounts
from axcollector.reserve import SplitReserve
from axcollector.room import Room
from axcollector.salvager import Salvager
from axcollector.services import InOrder, Periodic, WorkThread
from axcollector.splitter import Splitter
from axcollector.stages import Stages
from axcollector.stores.base import Store
from axcollector.stores.directory import DirectoryStore
from axcollector.surveying import Surveying
from axcollector.sync.registry_source import RegistrySource
from axcollector.sync.transicator import over_network
from axcollector.sync.transicator_source import TransicatorSource
from axcollector.takeover import take_over
from axcollector.threads import Threads
from axcollector.uploader import Uploader
from axcollector.upstream import Upstream

STOP_SECONDS = 8.0
"""What is not done so long after the stop began stays where it is, durable, for the next start."""
ROOM_TICK_SECONDS = 2.0
_NOT_RUNNING = "The collector does not run"
_SHARING = ("splitter", "recovery", "staging", "store", "watch", "survey")
"""Kinds of work that share threads (`threads`)."""


class Delivering(Service):
    """Has journals written and delivers them, from `startService` until the Deferred of `stopService` fires.

    Attributes:
        uploader: Sweeps staging; None before the start.
        quarantine: Knows how many records were set aside, and whether there is room for more.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401 - time, threads and TCP, as every reactor has them
        config: Config,
        disk: Disk,
        premises: Premises,
        upstream: Upstream,
        store: Store | None = None,
        threads: Threads | None = None,
    ) -> None:
        """Touch nothing yet.

        Args:
            reactor: Provides time, threads and TCP.
            config: What to do.
            disk: The hands.
            premises: The data directory.
            upstream: Who takes batches.
            store: Where files go, in place of the configured one.
            threads: What all that may wait is done by; by default its own, as many as `work_threads` allows.

        Raises:
            ConfigError: What the configured store needs is not installed.
        """
        self._reactor = reactor
        self._config = config
        self._disk = disk
        self._premises = premises
        self._upstream = upstream
        threads = threads or shared_threads(config)
        self._threads = {name: WorkThread(reactor, name, threads) for name in _SHARING}
        self._running: InOrder | None = None
        self._reserve = SplitReserve(disk, config.data_directory)
        self._room = Room(disk, config.data_directory, config.spool_quota_bytes)
        self.quarantine = Quarantine(config.data_directory, config.quarantine_quota_bytes)
        self._transicator: TransicatorSource | None = None
        self._make_store: StoreMaker = (
            store_maker(reactor, self._threads["store"], disk, config) if store is None else lambda _: store
        )
        self.uploader: Uploader | None = None
        self._draining: Draining | None = None
        self._gathering = Gathering(
            reactor,
            premises,
            upstream,
            self._room,
            problems=self.problems,
            source=config.sync,
            quota_bytes=config.spool_quota_bytes,
            sweep_seconds=config.upload_interval,
        )

    def startService(self) -> None:
        """Take possession of the data directory, take over what a crash left, and start the stations.

        Raises:
            DirectoryInUse: Somebody else works there.
            OSError: It cannot be made or written.
        """
        now = self._reactor.seconds()
        self._premises.acquire(self._config.instance_id, lambda: str(uuid.uuid4()), now)
        try:
            left = take_over(self._disk, self._config.data_directory, now)
            if left:
                self._log.info("recovering {count} journals and directories that the last run left", count=left)
            self._reserve.note_found(os.path.join(self._config.data_directory, Stage.RECOVERED))
            self._running = InOrder([*self._threads.values(), *self._stations()])
            self._running.startService()
        except BaseException:
            self._running = None
            self._premises.release()
            raise
        self.running = True

    def _stations(self) -> Sequence[Service]:
        """Everything that is started and stopped, the most downstream first."""
        config = self._config
        self._upstream.prepare(self._premises.identity, self._room, self._reserve, self.quarantine)
        room = Periodic(self._reactor, ROOM_TICK_SECONDS, "room", self._measure_room)
        sources = self._sources()
        store = self._make_store(self._bearer())
        records = RecordCounts(self._disk)
        self.uploader = Uploader(
            self._reactor,
            self._threads["staging"],
            self._disk,
            store,
            config.data_directory,
            interval_seconds=config.upload_interval,
            concurrency=config.upload_concurrency,
            max_attempts=config.max_upload_attempts,
            failed_retry_batch=config.failed_retry_batch,
            chance=random.random,
            records=records,
        )
        splitters = [self._splitter(stage, records) for stage in (Stage.RECOVERED, Stage.TMP)]
        salvager = Salvager(self._disk, config.data_directory)
        recovery = Recovery(self._reactor, self._threads["recovery"], splitters[0], salvager)
        splits, grace_seconds = self._threads["splitter"], config.close_grace
        closing = Closing(self._reactor, splits, self._upstream, splitters[1], grace_seconds)
        self._draining = Draining(self._reactor, splits, self._upstream, splitters[1], self.uploader)
        look = store.problem if isinstance(store, DirectoryStore) else None
        stages = Stages(self._disk, config.data_directory)
        surveying = Surveying(self._reactor, self._threads["survey"], stages, self._threads["store"], look)
        now = self._reactor.seconds()
        self._gathering.stations = Stations(
            self.uploader, surveying, splitters, sources, (recovery, closing), room, now
        )
        closings = (closing, self._draining)
        return [OnStop(store.close), self.uploader, self._upstream, *sources, recovery, room, surveying, *closings]

    def retry_failed(self, bucket: str | None = None) -> "defer.Deferred[int]":
        """Move a bucket of failed, or all of them, back to staging, and begin to deliver them.

        Fires with how many were moved; 0 where there is no such bucket. Fails with `OSError` where that cannot be done,
        with `Overloaded` where the collector does not run. Cancelling forgets the result; they are moved all the same.
        """
        if self.uploader is None or not self.running:
            return defer.fail(Overloaded(_NOT_RUNNING))
        return apart(self.uploader.retry_failed(bucket))

    def drain(self) -> None:
        """Begin to deliver all that was taken so far, without waiting for the ends of intervals.

        Raises:
            Overloaded: The collector does not run.
        """
        if self._draining is None or not self.running:
            raise Overloaded(_NOT_RUNNING)
        self._draining.drain()

    def _measure_room(self) -> "defer.Deferred[None]":
        measured = self._threads["staging"].run(self._room.measure)
        if self._config.invalid_records == "quarantine":
            measured.addCallback(lambda _: self._threads["staging"].run(self.quarantine.measure))
        return measured

    def _bearer(self) -> Bearer:
        """The token for the signing service: the configured one, else that of the sync source, if that has one."""
        config = self._config
        if self._transicator is not None and config.bearer_token is None and config.bearer_token_file is None:
            return self._transicator.token
        return BearerToken(config)

    def _splitter(self, stage: Stage, records: RecordCounts) -> Splitter:
        pack_all = self._config.compression == "small"
        return Splitter(
            self._disk,
            self._config.data_directory,
            stage,
            pack_all=pack_all,
            reserve=self._reserve,
            quarantine=self.quarantine,
            records=records,
        )

    def _sources(self) -> "Sequence[RegistrySource | TransicatorSource]":
        config = self._config
        if config.sync == "none":
            return []
        if config.sync == "transicator":
            self._transicator = self._make_transicator()
            return [self._transicator]
        refresh = config.cache_refresh_interval
        watch = self._threads["watch"]
        return [RegistrySource(self._reactor, watch, self._upstream.sync, config.registry_file, refresh)]

    def _make_transicator(self) -> TransicatorSource:
        worker, identity = self._threads["watch"], self._premises.instance_id
        listener = self._upstream.sync
        return over_network(self._reactor, worker, self._disk, listener, self._config, identity, random.random)

    def problems(self) -> Mapping[str, str | None]:
        """What keeps the collector from being ready, by check; None where all is well."""
        problems = dict(self._upstream.problems())
        if problems["catalog"] is not None and self._transicator is not None and self._transicator.trouble:
            problems["catalog"] = f"no snapshot yet: {self._transicator.trouble}"
        if not self._room.is_measured:
            problems["spool"] = problems["spool"] or "Whether there is room is not known yet: it is being measured"
        return {**problems, "uploader": self._gathering.uploader_problem()}

    def checks(self) -> Mapping[str, Check]:
        """Everything that should be well, by name, also what readiness does not need."""
        return self._gathering.checks()

    def status(self) -> Status:
        """All that it says of itself, with workers of all of them."""
        return self._gathering.status()

    @property
    def traffic(self) -> Traffic:
        """What tenants have sent since the start."""
        return self._upstream.traffic

    def stopService(self) -> "defer.Deferred[None]":
        """Commit and answer what waits, split all journals, break uploads off, and give the directory back.

        Fires when that is done, at the latest after `STOP_SECONDS`; what is not done by then goes on in the background
        (or, where the process ends, at the next start), and the directory is given back when it is.
        """
        self.running = False
        running, self._running = self._running, None
        if running is None:
            return defer.succeed(None)
        finished = running.stopService()
        told: defer.Deferred[None] = defer.Deferred()
        late = self._reactor.callLater(STOP_SECONDS, self._give_up_waiting, told)

        def stopped(result: Failure | None) -> None:
            self._premises.release()
            if late.active():
                late.cancel()
                told.callback(None)
            if result is not None:
                report(self._log, "stopping went wrong", result)

        finished.addBoth(stopped)
        return told

    def _give_up_waiting(self, told: "defer.Deferred[None]") -> None:
        self._log.warn("not all is split and put away yet; the next start goes on with it")
        told.callback(None)
