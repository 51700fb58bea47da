"""The ingesting half of a collector: from a batch to a finished journal, and what ingest has to know for it.

    directory (sync) ─┐
    submit ─► intake ─┴─► spool ─► tmp/

It is a part of a `Collector`, or the whole of a worker process. What becomes of journals is `delivering`'s.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import structs
from twisted.internet import defer
from twisted.logger import Logger

from axcollector.access import Access
from axcollector.config import Config
from axcollector.core.commit import GroupCommit
from axcollector.core.errors import NotReady, Refusal
from axcollector.core.layout import JournalName
from axcollector.core.rates import RateLimits
from axcollector.core.tally import Tally
from axcollector.disk import Disk
from axcollector.intake import Intake
from axcollector.journal import Durability, JournalWriter
from axcollector.plans import journal_plan, limits_of, rules_of, shared_threads
from axcollector.premises import Identity
from axcollector.quarantine import Quarantine
from axcollector.reserve import SplitReserve
from axcollector.room import Lack
from axcollector.services import InOrder, WorkThread
from axcollector.spool import Spool
from axcollector.sync.directory import CachedDirectory, Directory, RegistryDirectory
from axcollector.sync.listener import SyncListener
from axcollector.threads import Threads
from axcollector.token_watch import TokenWatch
from axcollector.tokens import Bound
from axcollector.upstream import Account, Upstream

_SHARING = ("catalog", "lookups", "bodies", "tokens")
"""Kinds of work that share threads (`threads`). The writer does not: no commit waits for other work."""


class Ingesting(Upstream):
    """The ingesting half.

    Attributes:
        config: What to do.
        sync: Is told snapshots and changes.
        directory: Knows tenants and developers.
        access: Who may send through its routes, and how much.
        tally: Counts.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401 - time and threads
        config: Config,
        disk: Disk,
        threads: Threads | None = None,
    ) -> None:
        """Touch nothing yet.

        Args:
            reactor: Provides time and threads.
            config: What to do.
            disk: The hands.
            threads: What all that may wait is done by; by default its own, as many as `work_threads` allows.
        """
        self._reactor = reactor
        self.config = config
        self._disk = disk
        threads = threads or shared_threads(config)
        self._threads = {name: WorkThread(reactor, name, threads) for name in _SHARING}
        self._threads["writer"] = WorkThread(reactor, "writer")
        self.tally = Tally()
        self.traffic = self.tally.traffic
        self._intake: Intake | None = None
        self._spool: Spool | None = None
        self.sync: SyncListener = SyncListener(reactor, self._threads["catalog"], caching=config.use_caching)
        self._lookups = RegistryDirectory(self.sync, self._threads["lookups"])
        self.directory: Directory = CachedDirectory(reactor, self.sync) if config.use_caching else self._lookups
        tokens = TokenWatch(reactor, self._threads["tokens"], config.tokens_file, Bound.SCOPES)
        self._tokens = tokens if config.ingest_auth == "token" else None
        limits = RateLimits(config.rate_limit_records, config.rate_limit_bytes, config.rate_limit_burst)
        self.access = Access(reactor, self.directory, self._tokens, limits)
        watching = [] if self._tokens is None else [self._tokens]
        self._running = InOrder([*self._threads.values(), self.sync, self._lookups, *watching, self.access])

    def prepare(self, identity: Identity, room: Lack, reserve: SplitReserve, quarantine: Quarantine) -> None:
        """Make the spool and the way in; as `Upstream.prepare`."""
        config = self.config
        plan = journal_plan(config, identity)
        self._spool = Spool(
            self._reactor,
            self._threads["writer"],
            JournalWriter(self._disk, plan, reserve, quarantine),
            GroupCommit(config.buffer_channel_size, config.max_pending_bytes),
            quarantine,
            self.tally,
            wait=plan.durability is not Durability.MEMORY,
        )
        self._intake = Intake(
            self._reactor,
            self._threads["bodies"],
            self.directory,
            self._spool,
            room,
            limits_of(config),
            rules_of(config),
            config.max_pending_bytes,
            sets_aside=config.invalid_records == "quarantine",
        )

    @property
    def intake(self) -> Intake:
        """The way in.

        Raises:
            NotReady: Nothing was started.
        """
        if self._intake is None:
            raise NotReady
        return self._intake

    def account(self) -> Account:
        """As `Upstream.account`."""
        spool = self._spool
        waits = () if spool is None else (spool.waiting, spool.waiting_bytes, spool.open_buckets)
        ingest = self.tally.ingest(*waits)
        catalog = self.sync.catalog
        shown = structs.replace(self.sync.state, rows=dict(catalog.counts()) if catalog is not None else {})
        return Account(ingest, shown, () if self._tokens is None else self._tokens.jobs)

    def startService(self) -> None:
        """Begin to take batches."""
        self.running = True
        self._running.startService()

    def finish_due(self) -> "defer.Deferred[None]":
        """Finish the open journal if its interval is over. Fires when that is done."""
        return defer.succeed(None) if self._spool is None else self._spool.finish_due()

    def finish_open(self) -> "defer.Deferred[None]":
        """As `Upstream.finish_open`. Fires when it is done."""
        return defer.succeed(None) if self._spool is None else self._spool.finish_open()

    def is_abandoned(self, journal: JournalName) -> bool:
        """As `closing.Journals.is_abandoned`."""
        return self._spool is not None and self._spool.is_abandoned(journal)

    def close(self) -> "defer.Deferred[None]":
        """Take no more batches. Fires when all that waited are written and answered, and the journal is finished."""
        self.access.stopService()  # whose answers are held back else
        return defer.succeed(None) if self._spool is None else self._spool.close()

    def problems(self) -> Mapping[str, str | None]:
        """What keeps it from being ready, by check; None where all is well."""
        commit: str | None
        spool: str | None
        commit = spool = "The collector is not started"
        if self._intake is not None and self._spool is not None:
            commit, spool = self._spool.problem(), None
            try:
                self._intake.check_room()
            except Refusal as exc:
                spool = exc.reason
        tokens = {} if self._tokens is None else {"tokens": self._tokens.problem()}
        catalog = None if self.directory.ready() else str(NotReady())
        return {"catalog": catalog, "spool": spool, "commit": commit, **tokens}

    def stopService(self) -> "defer.Deferred[None]":
        """Stop what `close` left running. Fires when it has stopped."""
        self.running = False
        return self._running.stopService()
