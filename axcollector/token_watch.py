"""Tokens as they are now: a copy in memory of the file of tokens, renewed when anybody changes it.

Asking SQLite about every request would cost each of them a turn in a thread, and a flood of made-up tokens would queue
up there; so a token is looked up in memory. Every half second a thread asks the file whether somebody has committed
something (`PRAGMA data_version`, which works across processes), or whether another file lies there or was copied over
it, and reads it again if so. A revoked token is therefore good for half a second more, and a little.

That a revocation is seen within two seconds holds without exception: while the file has not been looked at for so long,
for whatever reason, nobody is told yes or no.
"""

import os
from typing import Final

from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from axcollector.core.errors import TokensError, Unavailable
from axcollector.services import Periodic, Worker
from axcollector.tokens import Bound, Token, TokenBook, TokenFile, errors_of

WATCH_SECONDS: Final = 0.5
"""How often the file is looked at."""

STALE_SECONDS: Final = 2.0
"""A copy that was not compared with the file for so long is not used."""

_BUSY_TIMEOUT_SECONDS: Final = 0.5


class TokenWatch(Service):
    """The tokens of one kind in one file; makes the file, empty, when it is missing at the start.

    Attributes:
        jobs: What it does now and then.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, worker: Worker, path: str, kind: Bound) -> None:
        """Prepare.

        Args:
            clock: What tells and schedules time: seconds since the epoch.
            worker: Whose thread looks at the file.
            path: The file.
            kind: Which tokens count.
        """
        self._clock = clock
        self._worker = worker
        self._path = path
        self._kind = kind
        self._file = _WatchedFile(path, kind)
        self._periodic = Periodic(clock, WATCH_SECONDS, "watching the tokens", self._look)
        self.jobs = (self._periodic,)
        self._book = TokenBook({})
        self._compared_at: float | None = None
        self._trouble: str | None = None

    def startService(self) -> None:
        """Look at the file, at once and then every half second.

        Raises:
            TokensError: It cannot be used.
        """
        TokenFile.create(self._path, self._kind).close()
        self.running = True
        self._compared_at = None
        self._periodic.startService()

    def stopService(self) -> "defer.Deferred[None]":
        """Look no more. Fires when a look under way has ended and the file is closed."""
        self.running = False
        return defer.ensureDeferred(self._stop())

    async def _stop(self) -> None:
        await self._periodic.stopService()
        await self._worker.run(self._file.close).addErrback(lambda f: f.trap(defer.CancelledError) and None)

    def problem(self) -> str | None:
        """Why nobody can be told yes or no at present, in a few words; None: all is well."""
        # A look that lies ahead was before the clock was set back, nobody knows how long.
        if self._compared_at is not None and abs(self._clock.seconds() - self._compared_at) <= STALE_SECONDS:
            return None
        return self._trouble or "the tokens have not been read yet"

    def find(self, secret: str) -> Token | None:
        """The token of this text, if it is good for anything.

        Raises:
            Unavailable: That is not known at present.
        """
        if self.problem() is not None:
            raise Unavailable("Tokens cannot be checked at present")
        return self._book.find(secret, self._clock.seconds())

    async def _look(self) -> None:
        began_at = self._clock.seconds()
        try:
            book = await self._worker.run(self._file.look)
        except TokensError as exc:
            self._tell_of_trouble(str(exc))
            return
        self._compared_at = began_at
        if self._trouble is not None:
            self._trouble = None
            self._log.info("{path} can be read again", path=self._path)
        if book is not None:
            self._book = book
            self._log.info("{count} tokens are in {path}", count=len(book), path=self._path)

    def _tell_of_trouble(self, trouble: str) -> None:
        """One line a trouble, however often it is met."""
        if trouble != self._trouble:
            self._trouble = trouble
            self._log.error("tokens cannot be checked: {trouble}", trouble=trouble)


class _WatchedFile:
    """A connection to the file, opened anew when another file lies there; lives in the worker's thread."""

    def __init__(self, path: str, kind: Bound) -> None:
        self._path = path
        self._kind = kind
        self._file: TokenFile | None = None
        self._identity: tuple[int, ...] | None = None
        self._version: int | None = None

    def look(self) -> TokenBook | None:
        """The tokens in the file, or None: the same as at the last look.

        Raises:
            TokensError: It cannot be read.
        """
        try:
            return self._look()
        except TokensError:
            self.close()
            raise

    def _look(self) -> TokenBook | None:
        with errors_of(self._path):
            facts = os.stat(self._path)
        identity = facts.st_dev, facts.st_ino, facts.st_mtime_ns, facts.st_size
        if self._file is None or identity != self._identity:
            self.close()
            self._file = TokenFile.open(self._path, self._kind, _BUSY_TIMEOUT_SECONDS)
            self._identity = identity
        version = self._file.data_version()
        if version == self._version:
            return None
        book = self._file.book()
        self._version = version  # what is committed from here on is another one
        return book

    def close(self) -> None:
        file, self._file, self._version = self._file, None, None
        if file is not None:
            file.close()
