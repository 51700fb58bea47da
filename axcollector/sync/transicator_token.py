"""The token of the sync servers and of the upload signer: fetched, renewed in time, fetched anew when it is refused.

A token is renewed a minute before its end, one that lives for less than two minutes at half its life. A token that
somebody refuses (401) is used no more, and a new one is fetched; the more tokens in a row are refused, the longer that
waits. While there is no token, whoever needs one is told so.

Servers want to know of a new instance when it was created: the first success is noted in a marker file.
"""

import contextlib
from collections.abc import Callable
from typing import Final

from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from axcollector.bugs import report
from axcollector.core.errors import NoTokenYet, SyncFailed
from axcollector.core.retry import Backoff, Pace
from axcollector.disk import Disk, write_durably
from axcollector.services import Rest, Worker
from axcollector.sync.transicator_client import Token, TransicatorClient
from axcollector.sync.transicator_trouble import Trouble

RENEWAL_SECONDS: Final = 60.0
"""How long before its end a token is renewed."""
SHORTEST_RENEWAL_SECONDS: Final = 1.0
"""However short a token lives, none is renewed earlier."""
STEADY_SECONDS: Final = 60.0
"""A token refused after so long was good; it is not one of several refused in a row."""


class Registration:
    """The marker file that says which instance has had a token before. Blocking."""

    def __init__(self, disk: Disk, path: str, instance_id: str) -> None:
        self._disk = disk
        self._path = path
        self._content = instance_id.encode() + b"\n"

    def is_done(self) -> bool:
        """Whether this instance has."""
        with contextlib.suppress(FileNotFoundError), self._disk.open(self._path) as file:
            return file.read(1024) == self._content
        return False

    def note(self) -> None:
        """Note that it has."""
        write_durably(self._disk, self._path, self._content)


class TokenKeeper(Service):
    """Keeps the token of the moment; call it for that."""

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        worker: Worker,
        client: TransicatorClient,
        registration: Registration,
        backoff: Backoff,
        chance: Callable[[], float],
    ) -> None:
        """Prepare.

        Args:
            clock: What tells and schedules time.
            worker: Who works on the disk.
            client: Who is asked.
            registration: Whether this instance is new.
            backoff: How long to wait after failures.
            chance: Gives a number in [0, 1), for the jitter.
        """
        self._clock = clock
        self._worker = worker
        self._client = client
        self._registration = registration
        self._backoff = backoff
        self._chance = chance
        self._pace = Pace(backoff)
        self._rest = Rest(clock)
        self._token: Token | None = None
        self._fetched_at = 0.0
        self._refusals = 0
        self._waiting: list[defer.Deferred[None]] = []
        self._work: defer.Deferred[None] | None = None
        self._trouble = Trouble(
            self._log, "there is no new token: {trouble}; it is asked for again", "there is a token again"
        )

    def __call__(self) -> str:
        """The token to use now.

        Raises:
            NoTokenYet: There is none.
        """
        token = self.current()
        if token is None:
            raise NoTokenYet(f"there is no token yet: {self.trouble or 'it is being asked for'}")
        return token

    @property
    def trouble(self) -> str:
        """What keeps it from getting a new one, or ""."""
        return self._trouble.text

    def current(self) -> str | None:
        """The token to use now, or None."""
        token = self._token
        is_good = token is not None and self._clock.seconds() < self._fetched_at + token.lifetime_seconds
        return token.text if is_good and token is not None else None

    def refused(self, token: str | None) -> None:
        """Somebody does not know this token (401): get another one, if it is still this one that is used."""
        if self._token is None or token != self._token.text:
            return
        is_steady = self._clock.seconds() - self._fetched_at >= STEADY_SECONDS
        self._refusals = 1 if is_steady else self._refusals + 1
        self._token = None
        self._rest.end()

    def available(self) -> "defer.Deferred[None]":
        """Fires when there is a token; cancelling forgets it."""
        waiting: defer.Deferred[None] = defer.Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        self._tell_waiting()
        return waiting

    def startService(self) -> None:
        """Fetch a token, and go on with that."""
        self.running = True
        self._work = defer.ensureDeferred(self._run())

    def stopService(self) -> "defer.Deferred[None]":
        """Fetch no more. Fires when a request under way has been broken off."""
        self.running = False
        work, self._work = self._work, None
        if work is None:
            return defer.succeed(None)
        work.cancel()
        return work

    async def _run(self) -> None:
        while self.running:
            begun = self._clock.seconds()
            try:
                await self._fetch()
                rest_seconds = self._until_renewal()
            except defer.CancelledError:
                rest_seconds = self._backoff.ceiling_seconds
            except (SyncFailed, OSError) as exc:
                self._trouble.met(str(exc))
                taken = self._clock.seconds() - begun
                rest_seconds = self._pace.failed(taken, self._chance(), getattr(exc, "retry_after", None))
            except Exception:  # noqa: BLE001 - the edge where a bug is logged, and the loop goes on
                report(self._log, "fetching a token failed; it is tried again")
                rest_seconds = self._pace.failed(0.0, self._chance())
            if self.running:
                with contextlib.suppress(defer.CancelledError):
                    await self._rest.take(rest_seconds)
            if self.running and self._token is None and self._refusals:
                with contextlib.suppress(defer.CancelledError):
                    await self._rest.take(self._backoff.delay(self._refusals, self._chance()))

    async def _fetch(self) -> None:
        is_registered = await self._worker.run(self._registration.is_done)
        asked_at = self._clock.seconds()
        token = await self._client.token(is_registered=is_registered)
        self._token, self._fetched_at = token, asked_at
        self._pace.succeeded()
        self._trouble.over()
        self._tell_waiting()
        if not is_registered:
            await self._note()

    async def _note(self) -> None:
        """Note that there was a token; one is there all the same where that cannot be noted."""
        try:
            await self._worker.run(self._registration.note)
        except OSError as exc:
            self._log.error("that this instance has had a token cannot be noted: {reason}", reason=exc.strerror)

    def _until_renewal(self) -> float:
        if self._token is None:  # it was refused as soon as it was there
            return 0.0
        lifetime = self._token.lifetime_seconds
        seconds = lifetime / 2 if lifetime < 2 * RENEWAL_SECONDS else lifetime - RENEWAL_SECONDS
        return max(seconds, SHORTEST_RENEWAL_SECONDS)

    def _tell_waiting(self) -> None:
        if self.current() is not None:
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.callback(None)
