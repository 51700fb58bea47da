"""The sync listener: whoever feeds us tells it what happened, and it keeps the catalog.

Events wait in one queue and are taken one at a time, in order. A snapshot is read in the worker's thread into a new
catalog, while readers go on with the old one; what comes meanwhile waits behind it. A snapshot that cannot be read
is tried again, ever later; until it can be, nothing behind it is taken, since that builds on it. But a newer
snapshot makes all before it pointless, back to the first snapshot that waits: they are dropped.

Change lists are applied in the reactor's thread, where the readers are, a slice a turn, and shown all at once
(`core.amendment`); invalid ones are given up before that. A replaced catalog is freed in the worker's thread.

Where nobody wants a catalog (`use_caching: false`), snapshots only say which registry file is to be asked.
"""

from collections import deque
from collections.abc import Iterator

from msgspec import structs
from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from axcollector.bugs import report
from axcollector.core.amendment import Amendment
from axcollector.core.catalog import Catalog
from axcollector.core.errors import RegistryError
from axcollector.core.model import Tenant
from axcollector.core.status import CatalogStatus
from axcollector.services import Worker
from axcollector.sync.amending import amend
from axcollector.sync.events import ChangeList, Snapshot, problem_of, problem_of_change
from axcollector.sync.rebuilding import Build, Built, GivenUp, Pace, build, dismantle, examine

CHANGES_A_TURN = 500
"""How many changes are looked at, at most, before the reactor gets its turn: a few milliseconds."""
STEPS_A_TURN = 2000
"""How many cells are written before it does: about as long."""
TURN_SECONDS = 0.005
"""It gets its turn after so long in any case: a key of many products, and names of many scopes, take longer."""

_REMEMBERED_REFUSALS = 10_000
"""Of so many refused tenants it is known that somebody has been told; beyond, it is told once more."""

FIRST_RETRY_SECONDS = 0.5
LAST_RETRY_SECONDS = 30.0
"""A snapshot that cannot be read is tried again after the first, then after twice as long, up to the last."""


class SyncListener(Service):
    """Takes events and keeps the catalog; call `snapshot_received` and `changes_received` from whatever feed there is.

    Both return a Deferred that fires, with True, when the catalog shows the event; with False when it was ignored or
    the listener was stopped before. It never fails. Cancelling it does not cancel the event. Events that come
    before `startService` wait for it.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, worker: Worker, *, caching: bool = True) -> None:
        """Prepare.

        Args:
            clock: What schedules retries and slices.
            worker: Whose thread reads registry files. It is busy for as long as a rebuild lasts.
            caching: Whether a catalog is wanted; without, `catalog` stays None.
        """
        self._clock = clock
        self._worker = worker
        self._build: Build = build if caching else examine
        self._pace = Pace()
        self._catalog: Catalog | None = None
        self._registry: str | None = None
        self._queue: deque[tuple[Snapshot | ChangeList, defer.Deferred[bool]]] = deque()
        self._work: defer.Deferred[None] | None = None
        self._pause: IDelayedCall | None = None
        self._resume: defer.Deferred[None] | None = None
        self._is_retrying = False
        self._has_stopped = False
        self.shown = 0  # how many events have been: another number, another state of the catalog
        self.state = CatalogStatus(source="")
        self._refused: set[tuple[str, str]] = set()
        self._trouble: str | None = None

    @property
    def catalog(self) -> Catalog | None:
        """The catalog, or None before the first snapshot and without caching. Ask each time: an old one is emptied."""
        return self._catalog

    @property
    def registry(self) -> str | None:
        """The registry file of the snapshot that is shown, or None before the first."""
        return self._registry

    def snapshot_received(self, snapshot: Snapshot) -> "defer.Deferred[bool]":
        """Everything is as it is in this registry file: rebuild the catalog."""
        return self._enqueue(snapshot)

    def changes_received(self, changes: ChangeList) -> "defer.Deferred[bool]":
        """Something changed since the last event: amend the catalog."""
        return self._enqueue(changes)

    def startService(self) -> None:
        """Begin to take events."""
        self.running = True
        self._has_stopped = False
        self._pace.resume()
        self._take()

    def stopService(self) -> "defer.Deferred[None]":
        """Take no more events, drop those that wait. Fires when a rebuild under way has given up."""
        self.running = False
        self._has_stopped = True
        self._pace.give_up()
        dropped, self._queue = self._queue, deque()
        self._wake()
        ended: defer.Deferred[None] = defer.Deferred()
        if self._work is None:
            ended.callback(None)
        else:
            self._work.addBoth(lambda _: ended.callback(None))
        for _, shown in dropped:
            shown.callback(result=False)
        return ended

    def _enqueue(self, event: Snapshot | ChangeList) -> "defer.Deferred[bool]":
        problem = problem_of(event)
        if problem is not None:
            self._tell_of_ignored(problem)
            return defer.succeed(result=False)
        if self._has_stopped:
            return defer.succeed(result=False)
        shown: defer.Deferred[bool] = defer.Deferred()
        self._queue.append((event, shown))
        if self._is_retrying and isinstance(event, Snapshot):
            self._wake()
        self._take()
        return shown

    def _take(self) -> None:
        if self.running and self._work is None and self._queue:
            self._work = defer.ensureDeferred(self._run())
            self._work.addErrback(lambda f: report(self._log, "a sync event could not be applied", f))
            self._work.addBoth(lambda _: self._ended())

    def _ended(self) -> None:
        self._work = None
        self._take()

    async def _run(self) -> None:
        while self.running and self._queue:
            event, shown = self._queue.popleft()
            waiting = [shown]
            is_shown = False
            try:
                if isinstance(event, ChangeList):
                    is_shown = await self._apply(event)
                else:
                    is_shown = await self._rebuild(event, waiting)
            finally:
                for each in waiting:
                    each.callback(is_shown)

    async def _apply(self, changes: ChangeList) -> bool:
        if self._registry is None:
            self._log.error("a change list (version {version}) is ignored: no snapshot yet", version=changes.version)
            return False
        catalog = self._catalog
        if catalog is None:
            return True
        amendment = catalog.amend()
        refused: list[Tenant] = []
        problem = await self._stage(amendment, changes, refused)
        if problem is not None:
            await self._in_turns(amendment.abandon())
            if self.running:
                self._tell_of_ignored(problem)
            return False
        catalog.show(amendment)
        self._note_shown(changes.version)
        await self._in_turns(catalog.settle(amendment))
        for tenant in refused:
            self._tell_of_refused(tenant)
        return True

    async def _stage(self, amendment: Amendment, changes: ChangeList, refused: list[Tenant]) -> str | None:
        """Put changes aside, a slice a turn; says what keeps the list from being shown, or None."""
        begun = self._clock.seconds()
        for at, change in enumerate(changes.changes):
            if at and (not at % CHANGES_A_TURN or self._clock.seconds() - begun > TURN_SECONDS):
                await self._sleep(0.0)
                if not self.running:
                    return "the listener stops"
                begun = self._clock.seconds()
            problem = problem_of_change(change)
            if problem is not None:
                return f"{problem} (change {at})"
            amend(amendment, change, refused)
        return None

    async def _in_turns(self, steps: Iterator[None]) -> None:
        """Take all steps, so many a turn of the reactor; at once where the listener stops."""
        begun = self._clock.seconds()
        for at, _ in enumerate(steps, 1):
            if not at % STEPS_A_TURN or self._clock.seconds() - begun > TURN_SECONDS:
                await self._sleep(0.0)
                begun = self._clock.seconds()

    async def _rebuild(self, snapshot: Snapshot, waiting: "list[defer.Deferred[bool]]") -> bool:
        """Show this snapshot, or the newest that comes until that is possible; who waits for those is added."""
        delay = FIRST_RETRY_SECONDS
        while self.running:
            begun = self._clock.seconds()
            newest = self._newest(snapshot, waiting)
            if newest is not snapshot:
                snapshot, delay = newest, FIRST_RETRY_SECONDS
            try:
                built = await self._worker.run(self._build, snapshot.registry, self._pace)
            except (GivenUp, defer.CancelledError):
                return False
            except (RegistryError, MemoryError) as exc:
                self._tell_of_trouble(str(exc) or "there is not enough memory")
                self._is_retrying = True
                await self._sleep(delay)
                self._is_retrying = False
                delay = min(delay * 2, LAST_RETRY_SECONDS)
            else:
                self._show(snapshot, built, self._clock.seconds() - begun)
                return True
        return False

    def _newest(self, snapshot: Snapshot, waiting: "list[defer.Deferred[bool]]") -> Snapshot:
        """The last snapshot in the queue, all before it being dropped; where there is none, this one."""
        last = max((at for at, (event, _) in enumerate(self._queue) if isinstance(event, Snapshot)), default=-1)
        for _ in range(last + 1):
            event, shown = self._queue.popleft()
            waiting.append(shown)
            if isinstance(event, Snapshot):
                snapshot = event
        return snapshot

    def _show(self, snapshot: Snapshot, built: Built, seconds: float) -> None:
        old, self._catalog = self._catalog, built.catalog
        self._note_shown(snapshot.version, rebuild_seconds=seconds)
        self._registry = snapshot.registry
        if self._trouble is not None:
            self._trouble = None
            self._log.info("the registry {path} can be read again", path=snapshot.registry)
        if built.catalog is None:
            self._log.info("{path}, version {version}, is asked", path=snapshot.registry, version=snapshot.version)
        else:
            self._log.info(
                "catalog built from {path}, version {version}: {counts}",
                path=snapshot.registry,
                version=snapshot.version,
                counts=dict(built.catalog.counts()),
            )
        for tenant in built.refused:
            self._tell_of_refused(tenant)
        if old is not None:
            freed = self._worker.run(dismantle, old, self._pace)
            freed.addErrback(lambda f: f.trap(defer.CancelledError) and None)

    def _note_shown(self, version: str, **known: float) -> None:
        self.shown += 1
        self.state = structs.replace(self.state, version=version, changed_at=self._clock.seconds(), **known)

    def _tell_of_ignored(self, problem: str) -> None:
        self._log.error("a sync event is ignored: {problem}", problem=problem)

    def _tell_of_refused(self, tenant: Tenant) -> None:
        """One line a tenant, however often it comes."""
        if (tenant.organization, tenant.environment) in self._refused:
            return
        if len(self._refused) >= _REMEMBERED_REFUSALS:
            self._refused.clear()
        self._refused.add((tenant.organization, tenant.environment))
        self._log.error(
            "tenant {organization}~{environment} is refused: its name is too long for a directory's",
            organization=tenant.organization,
            environment=tenant.environment,
        )

    def _tell_of_trouble(self, trouble: str) -> None:
        """One line a trouble, however often it is met."""
        if trouble != self._trouble:
            self._trouble = trouble
            self._log.error("no new catalog, {trouble}; it is tried again until it can be read", trouble=trouble)

    async def _sleep(self, seconds: float) -> None:
        if self.running:
            self._resume = defer.Deferred()
            self._pause = self._clock.callLater(seconds, self._wake)
            await self._resume

    def _wake(self) -> None:
        if self._pause is not None and self._pause.active():
            self._pause.cancel()
        resume, self._resume, self._pause = self._resume, None, None
        if resume is not None:
            resume.callback(None)
