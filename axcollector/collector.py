"""The collector: joins the stations, and starts and stops them in order. A service without a port.

    directory (sync) ─┐
    submit ─► intake ─┴─► spool ─► tmp/ ─► splitter ─► staging/ ─► uploader ─► store
                                   recovered/ ─► splitter ─┘

Downstream is started first and upstream is stopped first, each waited for. Nothing is global: several collectors, each
with a data directory of its own, live in one process.
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

from axcollector.access import Access
from axcollector.bearer import BearerToken
from axcollector.bugs import report
from axcollector.closing import Closing, Recovery
from axcollector.config import Config
from axcollector.core.commit import GroupCommit
from axcollector.core.errors import NotReady, Refusal
from axcollector.core.layout import Stage
from axcollector.core.rates import RateLimits
from axcollector.destination import Bearer, StoreMaker, store_maker
from axcollector.disk import Disk
from axcollector.intake import Intake, Record
from axcollector.journal import Durability, JournalWriter
from axcollector.plans import journal_plan, limits_of, rules_of
from axcollector.premises import Premises
from axcollector.quarantine import Quarantine
from axcollector.reserve import SplitReserve
from axcollector.room import Room
from axcollector.salvager import Salvager
from axcollector.services import InOrder, OnStop, Periodic, WorkThread
from axcollector.splitter import Splitter, take_over
from axcollector.spool import Spool
from axcollector.stores.base import Store
from axcollector.sync.directory import CachedDirectory, Directory, RegistryDirectory
from axcollector.sync.listener import SyncListener
from axcollector.sync.registry_source import RegistrySource
from axcollector.sync.transicator import over_network
from axcollector.sync.transicator_source import TransicatorSource
from axcollector.token_watch import TokenWatch
from axcollector.tokens import Bound
from axcollector.uploader import Uploader

STOP_SECONDS = 8.0
"""What is not done so long after the stop began stays where it is, durable, for the next start."""
ROOM_TICK_SECONDS = 2.0
_THREADS = ("writer", "splitter", "recovery", "staging", "store", "watch", "catalog", "lookups", "bodies", "tokens")
"""One for each kind of work that may block, so that none waits for another; they are idle most of the time."""


class Collector(Service):
    """Takes records and delivers them, from `startService` until the Deferred of `stopService` fires.

    Attributes:
        config: Its configuration.
        sync: The listener to which an embedding program with `sync: none` tells snapshots and changes.
        directory: Knows tenants and developers.
        quarantine: Knows how many records were set aside, and whether there is room for more.
        access: Who may send through its routes, and how much.
    """

    _log = Logger()

    def __init__(self, reactor: Any, config: Config, store: Store | None = None) -> None:  # noqa: ANN401
        """Touch nothing yet.

        Args:
            reactor: Provides time, threads and TCP, as every Twisted reactor does.
            config: What to do.
            store: Where files go, in place of the configured one.

        Raises:
            ConfigError: What the configured store needs is not installed.
        """
        self._reactor = reactor
        self._disk = Disk()
        self._threads = {name: WorkThread(reactor, name) for name in _THREADS}
        self._running: InOrder | None = None
        self._intake: Intake | None = None
        self._spool: Spool | None = None
        self._room: Room | None = None
        self.uploader: Uploader | None = None
        self.config = config
        self._premises = Premises(self._disk, config.local_storage_path, config.data_directory)
        self._reserve = SplitReserve(self._disk, config.data_directory)
        self.quarantine = Quarantine(config.data_directory, config.quarantine_quota_bytes)
        self._transicator: TransicatorSource | None = None
        self._make_store: StoreMaker = (
            store_maker(reactor, self._threads["store"], self._disk, config) if store is None else lambda _: store
        )
        self.sync = SyncListener(reactor, self._threads["catalog"], caching=config.use_caching)
        self._lookups = RegistryDirectory(self.sync, self._threads["lookups"])
        self.directory: Directory = CachedDirectory(reactor, self.sync) if config.use_caching else self._lookups
        tokens = TokenWatch(reactor, self._threads["tokens"], config.tokens_file, Bound.SCOPES)
        self._tokens = tokens if config.ingest_auth == "token" else None
        limits = RateLimits(config.rate_limit_records, config.rate_limit_bytes, config.rate_limit_burst)
        self.access = Access(reactor, self.directory, self._tokens, limits)

    def startService(self) -> None:
        """Take possession of the data directory, take over what a crash left, and start the stations.

        Raises:
            DirectoryInUse: Somebody else works there.
            OSError: It cannot be made or written.
        """
        now = self._reactor.seconds()
        self._premises.acquire(self.config.instance_id, lambda: str(uuid.uuid4()), now)
        try:
            left = take_over(self._disk, self.config.data_directory, now)
            if left:
                self._log.info("recovering {count} journals and directories that the last run left", count=left)
            self._reserve.note_found(os.path.join(self.config.data_directory, Stage.RECOVERED))
            self._running = InOrder([*self._threads.values(), *self._stations()])
            self._running.startService()
        except BaseException:
            self._running = None
            self._premises.release()
            raise
        self.running = True

    def _stations(self) -> Sequence[Service]:
        """Everything that is started and stopped, the most downstream first."""
        config = self.config
        self._room = Room(self._disk, config.data_directory, config.spool_quota_bytes)
        room = Periodic(self._reactor, ROOM_TICK_SECONDS, "room", self._measure_room)
        sources = self._sources()
        store = self._make_store(self._bearer())
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
        )
        salvager = Salvager(self._disk, config.data_directory)
        recovery = Recovery(self._reactor, self._threads["recovery"], self._splitter(Stage.RECOVERED), salvager)
        closing = self._closing()
        tokens = [] if self._tokens is None else [self._tokens]
        up = [self.uploader, self.sync, *sources, self._lookups, *tokens, recovery, room, closing, self.access]
        return [OnStop(store.close), *up]

    def _measure_room(self) -> "defer.Deferred[None]":
        assert self._room is not None
        measured = self._threads["staging"].run(self._room.measure)
        if self._sets_aside:
            measured.addCallback(lambda _: self._threads["staging"].run(self.quarantine.measure))
        return measured

    @property
    def _sets_aside(self) -> bool:
        return self.config.invalid_records == "quarantine"

    def _bearer(self) -> Bearer:
        """The token for the signing service: the configured one, else that of the sync source, if that has one."""
        config = self.config
        if self._transicator is not None and config.bearer_token is None and config.bearer_token_file is None:
            return self._transicator.token
        return BearerToken(config)

    def _splitter(self, stage: Stage) -> Splitter:
        pack_all = self.config.compression == "small"
        return Splitter(
            self._disk,
            self.config.data_directory,
            stage,
            pack_all=pack_all,
            reserve=self._reserve,
            quarantine=self.quarantine,
        )

    def _closing(self) -> Closing:
        """The spool and the way in, and what closes intervals."""
        config = self.config
        plan = journal_plan(config, self._premises)
        writer = JournalWriter(self._disk, plan, self._reserve, self.quarantine)
        self._spool = Spool(
            self._reactor,
            self._threads["writer"],
            writer,
            GroupCommit(config.buffer_channel_size, config.max_pending_bytes),
            self.quarantine,
            wait=plan.durability is not Durability.MEMORY,
        )
        assert self._room is not None
        self._intake = Intake(
            self._reactor,
            self._threads["bodies"],
            self.directory,
            self._spool,
            self._room,
            limits_of(config),
            rules_of(config),
            config.max_pending_bytes,
            sets_aside=self._sets_aside,
        )
        splitter = self._splitter(Stage.TMP)
        return Closing(self._reactor, self._threads["splitter"], self._spool, writer, splitter, config.close_grace)

    def _sources(self) -> Sequence[Service]:
        if self.config.sync == "none":
            return []
        if self.config.sync == "transicator":
            self._transicator = self._make_transicator()
            return [self._transicator]
        return [
            RegistrySource(
                self._reactor,
                self._threads["watch"],
                self.sync,
                self.config.registry_file,
                self.config.cache_refresh_interval,
            )
        ]

    def _make_transicator(self) -> TransicatorSource:
        worker, identity = self._threads["watch"], self._premises.instance_id
        return over_network(self._reactor, worker, self._disk, self.sync, self.config, identity, random.random)

    @property
    def intake(self) -> Intake:
        """The way in.

        Raises:
            NotReady: The collector was not started.
        """
        if self._intake is None:
            raise NotReady
        return self._intake

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

    def problems(self) -> Mapping[str, str | None]:
        """What keeps the collector from being ready, by check; None where all is well."""
        catalog = None if self.directory.ready() else str(NotReady())
        if catalog is not None and self._transicator is not None and self._transicator.trouble:
            catalog = f"no snapshot yet: {self._transicator.trouble}"
        spool: str | None = "The collector is not started"
        if self._intake is not None and self._spool is not None:
            spool = "The last commit failed" if self._spool.failing else None
            try:
                self._intake.check_room()
            except Refusal as exc:
                spool = exc.reason
        tokens = {} if self._tokens is None else {"tokens": self._tokens.problem()}
        return {"catalog": catalog, "spool": spool, **tokens}

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
