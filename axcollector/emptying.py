"""Emptying a data directory whose collector is stopped: everything in it is delivered now, whatever its interval.

What the last run left in `tmp/` and `recovered/` is split, or salvaged, what had failed gets another chance, and all of
staging is uploaded, by the same parts that a collector has, and no other. It ends when nothing is left to deliver, or
when the store has refused what is left: a bucket by going to `failed/` anew, or all of them because nothing happens any
more, mostly because somebody is paused. Whatever ends it, what is not delivered stays where it is, durable.
"""

import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from twisted.internet import defer
from twisted.internet.task import deferLater

from axcollector.bearer import BearerToken
from axcollector.config import Config
from axcollector.core.delivery import Counts
from axcollector.core.layout import Stage
from axcollector.core.retry import Pause
from axcollector.destination import Bearer, store_maker
from axcollector.disk import Disk
from axcollector.inventory import STAGES, Inventory, Item
from axcollector.premises import Premises
from axcollector.salvager import Salvager
from axcollector.services import WorkThread
from axcollector.splitter import Splitter
from axcollector.stopped import return_failed
from axcollector.stores.base import Store
from axcollector.sync.events import ChangeList, Snapshot
from axcollector.sync.transicator import over_network
from axcollector.takeover import take_over
from axcollector.uploader import Uploader

LOOK_SECONDS: Final = 0.2
_SWEEP_SECONDS: Final = 1.0
"""Nothing else comes to staging, so a file that failed may be tried again soon."""
_SURVEY_SECONDS: Final = 600.0
"""For so long nothing may happen before staging has been looked at for the first time."""


@dataclass(frozen=True, slots=True)
class Moment:
    """How far it has come.

    Attributes:
        total_bytes: What there was to deliver, once that is known.
        delivered_bytes: What is delivered.
        delivered_files: In so many files.
        paused: Who is waited for.
    """

    total_bytes: int
    delivered_bytes: int
    delivered_files: int
    paused: tuple[Pause, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it has ended.

    Attributes:
        moment: What was delivered, and who was waited for in vain.
        left: What lies in the data directory yet.
    """

    moment: Moment
    left: Sequence[Item]


class Emptying:
    """Empties one data directory, once."""

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401 - time, threads and TCP, as every reactor has them
        config: Config,
        disk: Disk,
        patience_seconds: float,
        watch: Callable[[Moment], object],
        store: Store | None = None,
    ) -> None:
        """Touch nothing yet.

        Args:
            reactor: Provides time, threads and TCP.
            config: Where the data is, and where it goes.
            disk: The hands.
            patience_seconds: It is given up when nothing happens for so long: nothing delivered, nothing refused.
            watch: Is told how far it has come, several times a second.
            store: Where files go, in place of the configured one.

        Raises:
            ConfigError: What the configured store needs is not installed.
        """
        self._reactor = reactor
        self._config = config
        self._disk = disk
        self._patience = patience_seconds
        self._watch = watch
        self._premises = Premises(disk, config.local_storage_path, config.data_directory)
        self._inventory = Inventory(disk, config.data_directory)
        self._staging, self._thread, self._store_thread = (
            WorkThread(reactor, name) for name in ("staging", "splitter", "store")
        )
        self._make_store = store_maker(reactor, self._store_thread, disk, config) if store is None else lambda _: store
        self._total = 0

    async def run(self) -> Outcome:
        """Do it. Cancelling breaks uploads off, and ends it when that is done.

        Raises:
            DirectoryInUse: A collector works there.
            UnsafeDirectory: Others could change what lies there.
            OSError: It cannot be made or written.
        """
        now = self._reactor.seconds()
        self._premises.acquire(self._config.instance_id, lambda: str(uuid.uuid4()), now)
        threads = self._staging, self._thread, self._store_thread
        try:
            for thread in threads:
                thread.startService()
            try:
                await self._thread.run(self._prepare, now)
                moment = await self._deliver()
                left = await self._thread.run(self._left)
            finally:
                for thread in threads:
                    await thread.stopService()
        finally:
            self._premises.release()
        return Outcome(moment, left)

    def _prepare(self, now: float) -> None:
        """Bring everything to staging. Blocking."""
        directory = self._config.data_directory
        take_over(self._disk, directory, now)
        Splitter(self._disk, directory, Stage.RECOVERED, pack_all=self._config.compression == "small").work()
        Salvager(self._disk, directory).work(now)
        return_failed(self._disk, directory)
        self._total = sum(item.size for item in self._inventory.items([Stage.STAGING]))

    def _left(self) -> list[Item]:
        return [item for item in self._inventory.items(STAGES) if item.files]

    async def _deliver(self) -> Moment:
        config = self._config
        keeper, bearer = self._bearer()
        store = self._make_store(bearer)
        uploader = Uploader(
            self._reactor,
            self._staging,
            self._disk,
            store,
            config.data_directory,
            interval_seconds=min(config.upload_interval, _SWEEP_SECONDS),
            concurrency=config.upload_concurrency,
            max_attempts=config.max_upload_attempts,
            failed_retry_batch=config.failed_retry_batch,
            chance=random.random,
        )
        if keeper is not None:
            keeper.token.startService()
        uploader.startService()
        try:
            return await self._watched(uploader)
        finally:
            await uploader.stopService()
            await store.close()
            if keeper is not None:
                await keeper.stopService()

    def _bearer(self) -> "tuple[Any, Bearer]":
        """The token for the signing service, and whose it is, where the sync servers give it."""
        config = self._config
        if config.sync != "transicator" or config.bearer_token is not None or config.bearer_token_file is not None:
            return None, BearerToken(config)
        source = over_network(
            self._reactor, self._thread, self._disk, _Nobody(), config, self._premises.instance_id, random.random
        )
        return source, source.token

    async def _watched(self, uploader: Uploader) -> Moment:
        """Wait until there is nothing to deliver, or nobody to deliver it to."""
        ended: list[object] = []
        drained = uploader.drained()
        drained.addBoth(ended.append)
        since, before = self._reactor.seconds(), Counts()
        while True:
            status = uploader.status()
            counts = status.counts
            moment = Moment(self._total, counts.delivered_bytes, counts.delivered_files, status.paused)
            self._watch(moment)
            happened = replace(counts, paused_tries=0)  # a probe in vain is nothing new
            if status.in_flight or happened != before:
                since, before = self._reactor.seconds(), happened
            has_begun = status.backlog.buckets > 0 or happened != Counts()
            patience = self._patience if has_begun else max(self._patience, _SURVEY_SECONDS)
            if ended or self._reactor.seconds() - since >= patience:
                return moment
            await deferLater(self._reactor, LOOK_SECONDS)


class _Nobody:
    """Listens to no events: only the source's token is wanted."""

    def snapshot_received(self, _: Snapshot) -> "defer.Deferred[bool]":
        """It is not shown."""
        return defer.succeed(False)  # noqa: FBT003 - a Deferred's result has no name - the protocol's answer

    def changes_received(self, _: ChangeList) -> "defer.Deferred[bool]":
        """They are not shown."""
        return defer.succeed(False)  # noqa: FBT003
