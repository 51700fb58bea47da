"""The transicator source: registry files from a snapshot server, kept up to date from a change server.

One loop takes one step after the other:

1. What the last run left is shown at once, without any network.
2. Without a file, or when only a snapshot can tell how things stand (`SyncState.due`), a snapshot is taken.
3. Else changes are waited for (a long poll), applied to the file together with how far it has got, and shown.

The sequence is read *before* the snapshot is taken, and changes are asked for from there: what happened in between is
told twice, which does no harm, and nothing is missed. An event is shown before the next step begins, so that a change
list is never applied to a catalog that was built from a later state.

A step that fails is tried again, ever later; so is a snapshot that is out of date as soon as it has been taken.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from axcollector.bugs import report
from axcollector.core.errors import AnswerTooLong, RegistryError, SnapshotTooOld, SyncFailed, TokenRefused
from axcollector.core.retry import Backoff, Pace
from axcollector.services import Rest, Worker
from axcollector.sync.events import ChangeList, Listener, Snapshot
from axcollector.sync.transicator_client import TransicatorClient
from axcollector.sync.transicator_files import LiveFile, RegistryFiles
from axcollector.sync.transicator_protocol import decode_page, is_selector
from axcollector.sync.transicator_snapshots import CHANGES_A_PAGE, SnapshotTaker
from axcollector.sync.transicator_token import TokenKeeper
from axcollector.sync.transicator_trouble import Trouble

BLOCK_SECONDS: Final = 45
"""How long the change server is to wait for a change."""
IDLE_REST_SECONDS: Final = 1.0
"""A server that does not wait although there is nothing new is not asked more often."""
LOST_CHECK_SECONDS: Final = 30.0
"""How often, at the least, it is looked whether a file that the catalog does not show yet is there and sound."""
TOKEN_CHECK_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Timing:
    """When to do things.

    Attributes:
        backoff: How long to wait after failures.
        chance: Gives a number in [0, 1), for the jitter.
        refresh_interval_seconds: After so long without one a snapshot is sent in any case; 0 for never.
    """

    backoff: Backoff
    chance: Callable[[], float]
    refresh_interval_seconds: float = 0.0


class TransicatorSource(Service):
    """Keeps the listener, and a registry file for the next start, as the servers' tables are.

    Attributes:
        token: The token of the moment; also for the upload signer.
        heard_at: When the servers had last told all there was to tell; None: never.
    """

    _log = Logger()
    heard_at: float | None = None
    jobs: tuple[()] = ()  # one loop does all of it

    def __init__(
        self,
        clock: IReactorTime,
        worker: Worker,
        listener: Listener,
        client: TransicatorClient,
        token: TokenKeeper,
        files: RegistryFiles,
        timing: Timing,
    ) -> None:
        """Prepare.

        Args:
            clock: What tells and schedules time.
            worker: Whose thread reads and writes files; best one that has nothing else to do.
            listener: Who gets the events.
            client: Who asks the servers.
            token: Started and stopped with this service.
            files: Where the registry files are.
            timing: When to do things.
        """
        self._clock = clock
        self._worker = worker
        self._listener = listener
        self._client = client
        self._files = files
        self._timing = timing
        self._snapshots = SnapshotTaker(worker, client, files)
        self._pace = Pace(timing.backoff)
        self._rest = Rest(clock)
        self._work: defer.Deferred[None] | None = None
        self._live: LiveFile | None = None
        self._outdated: tuple[str, ...] = ()
        self._is_shown = False
        self._is_doubtful = False
        self._sent_at = 0.0
        self._due = ""
        self._fruitless = 0
        self._limit = CHANGES_A_PAGE
        self._trouble = Trouble(
            self._log, "the sync does not get on: {trouble}; it is tried again", "the sync gets on again"
        )
        self.token = token

    @property
    def trouble(self) -> str:
        """What keeps it from getting on, or ""."""
        return self._trouble.text or self.token.trouble

    def startService(self) -> None:
        """Show what there is, and begin to ask."""
        self.running = True
        self._files.is_given_up = False
        self._live, self._is_shown = None, False
        self._work = defer.ensureDeferred(self._run())
        self.token.startService()

    def stopService(self) -> "defer.Deferred[None]":
        """Break off what is under way. Fires when that has ended and connections are closed."""
        self.running = False
        self._files.is_given_up = True
        return defer.ensureDeferred(self._stop())

    async def _stop(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            work.cancel()
            await work
        await self.token.stopService()
        await self._client.close()

    async def _run(self) -> None:
        while self.running:
            delay = await self._attempt()
            if self.running and delay:
                with contextlib.suppress(defer.CancelledError):
                    await self._rest.take(delay)

    async def _attempt(self) -> float:
        """Take a step; says how long to wait before the next one."""
        begun = self._clock.seconds()
        try:
            await self._step()
        except defer.CancelledError:  # we stop, or the worker does not run
            return self._timing.backoff.ceiling_seconds
        except (SyncFailed, RegistryError, OSError) as exc:
            self._is_doubtful = not isinstance(exc, SyncFailed)
            self._trouble.met(str(exc))
            asked = exc.retry_after if isinstance(exc, SyncFailed) else None
            return self._pace.failed(self._clock.seconds() - begun, self._timing.chance(), asked)
        except Exception:  # noqa: BLE001 - the edge where a bug is logged, and the loop goes on
            report(self._log, "a step of the sync failed; it is tried again")
            return self._pace.failed(0.0, self._timing.chance())
        return 0.0

    async def _step(self) -> None:
        if self._is_doubtful and self._live is not None and not await self._is_sound(self._live):
            self._live = None
        self._is_doubtful = False
        if self._live is None:
            found = await self._worker.run(self._files.look)
            self._live, self._outdated, self._is_shown = found.live, found.outdated, False
        if self._live is not None and (not self._is_shown or self._until_refresh() <= 0):
            await self._show(self._live)
        token = self.token.current()
        if token is None:
            await self._wait_for_token()
            return
        try:
            if self._live is None or self._due or self._live.state.due:
                await self._take_snapshot(token)
            else:
                await self._poll(token, self._live)
        except TokenRefused:
            self.token.refused(token)
            raise

    async def _wait_for_token(self) -> None:
        """Until there is one; not for ever, since there may be other things to do."""
        available = self.token.available()
        limit = self._until_refresh() if self._live is not None else TOKEN_CHECK_SECONDS
        try:
            await self._pause_until(available, min(max(limit, IDLE_REST_SECONDS), TOKEN_CHECK_SECONDS))
        finally:
            available.addErrback(lambda f: f.trap(defer.CancelledError) and None)
            available.cancel()

    async def _is_sound(self, live: LiveFile) -> bool:
        return await self._worker.run(self._files.is_sound, live)

    async def _show(self, live: LiveFile) -> None:
        """Tell the listener of the file, wait until the catalog shows it, and delete those before it."""
        self._is_shown = False
        self._sent_at = self._clock.seconds()
        shown = self._listener.snapshot_received(Snapshot(live.version, live.path))
        pause = IDLE_REST_SECONDS
        while not shown.called:
            await self._pause_until(shown, pause)
            pause = min(2 * pause, LOST_CHECK_SECONDS)
            if not shown.called and not await self._is_sound(live):
                raise RegistryError(f"the registry {live.path} has gone or is damaged")
        if not await shown:
            raise SyncFailed("the catalog did not take a snapshot")
        self._is_shown = True
        outdated, self._outdated = self._outdated, ()
        for path in outdated:
            await self._worker.run(self._files.remove, path)

    async def _take_snapshot(self, token: str) -> None:
        reason = self._due or (self._live.state.due if self._live else "there is none yet")
        if self._fruitless > 1:
            await self._rest.take(self._timing.backoff.delay(self._fruitless - 1, self._timing.chance()))
        self._log.info("a snapshot is taken: {reason}", reason=reason)
        live = await self._snapshots.take(token)
        if self._live is not None:
            self._outdated = (*self._outdated, self._live.path)
        self._live, self._due = live, ""
        self._fruitless += 1
        self._log.info(
            "snapshot {version} is in {path}; changes follow from {sequence}",
            version=live.state.version,
            path=live.path,
            sequence=str(live.state.sequence),
        )
        self._got_on()
        await self._show(live)

    async def _poll(self, token: str, live: LiveFile) -> None:
        begun = self._clock.seconds()
        state = live.state
        scopes = tuple(filter(is_selector, state.scopes))
        try:
            body = await self._client.changes(
                token,
                scopes,
                limit=self._limit,
                block_seconds=BLOCK_SECONDS,
                since=str(state.sequence),
                version=state.version,
            )
        except SnapshotTooOld as exc:
            self._due = str(exc)
            return
        except AnswerTooLong as exc:
            self._due = str(exc) if self._limit == 1 else ""
            self._limit = max(1, self._limit // 8)
            raise
        page = await self._worker.run(decode_page, body)
        self._limit = CHANGES_A_PAGE
        if page.first > state.sequence:
            self._got_on()
            self._due = "the change server has forgotten what happened since the last one"
        elif page.last > state.sequence:
            applied = await self._worker.run(self._files.apply, live, page)
            self._got_on()
            self._live = replace(live, state=applied.state)
            if not applied.state.due:
                self._fruitless = 0
            if applied.changes:
                changes = ChangeList(applied.changes, self._live.version)
                self._is_shown = await self._listener.changes_received(changes)
        else:
            self._got_on()
            self._fruitless = 0
        is_idle = not page.changes or page.last <= state.sequence
        if is_idle and self._clock.seconds() - begun < IDLE_REST_SECONDS:
            await self._rest.take(IDLE_REST_SECONDS)

    def _until_refresh(self) -> float:
        interval = self._timing.refresh_interval_seconds
        return self._sent_at + interval - self._clock.seconds() if interval > 0 else float("inf")

    async def _pause_until(self, awaited: "defer.Deferred[Any]", seconds: float) -> None:
        """Until a Deferred has fired, and no longer than so long."""
        pause = self._rest.take(seconds)

        def settled(result: object) -> object:
            self._rest.end(pause)
            return result

        awaited.addBoth(settled)
        await pause

    def _got_on(self) -> None:
        self.heard_at = self._clock.seconds()
        self._pace.succeeded()
        self._trouble.over()
