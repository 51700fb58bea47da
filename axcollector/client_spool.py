"""The disk spool of a client: records that no collector takes now are made durable here, and sent later.

    submit ─┬─► a collector                                      nothing lies here, and one takes them
            └─► journal ─► sent, scope by scope, in order ─► a collector

It is the collectors' own spool (`spool`, `journal`: frames with CRCs, group commit, fsync), whose journals are read
again here in place of being split (`client_journals`). While anything lies here, everything goes this way, so that the
records of a scope arrive in the order in which they were submitted. Journals are short, and are sent one after the
other, each scope's frames of one beside those of the others.

*Kept until taken.* A frame is noted as sent when a collector has taken it; its journal is deleted when all of it was.
Whoever is killed in between sends those frames twice whose answers were not noted yet. What collectors refuse is set
aside in `refused/`: nobody waits for its answer any more. A journal with damage is, when all else of it was sent, in
`unreadable/`.
"""

import os
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, cast

from twisted.application.service import Service
from twisted.internet import defer
from twisted.logger import Logger
from twisted.python.failure import Failure

from axcollector.bugs import report
from axcollector.client_journals import Quota, Refused, SentJournals, Waiting, order_of
from axcollector.complaints import Complaints
from axcollector.core.bounds import Spooled
from axcollector.core.commit import GroupCommit
from axcollector.core.errors import RateLimited, Refusal, Rejected
from axcollector.core.isolation import OF_RECORDS, Parts, without_index
from axcollector.core.layout import JOURNAL_SUFFIX, Stage, fits
from axcollector.core.model import Batch, Tenant
from axcollector.disk import Disk
from axcollector.journal import JournalPlan, JournalWriter
from axcollector.persistent import GivenUp, Persistent, Target
from axcollector.premises import Premises
from axcollector.services import InOrder, Rest, WorkThread
from axcollector.spool import Spool

JOURNAL_BYTES: Final = 4 << 20
_INTERVAL_SECONDS: Final = 3600
_MAX_WAITING: Final = 1000
_MAX_WAITING_BYTES: Final = 64 << 20
_CONCURRENCY: Final = 16
_AGAIN_SECONDS: Final = 5.0
"""Between two attempts at a disk that cannot be read."""


class ClientSpool(Service):
    """Sends records, or keeps them until they can be sent."""

    _log = Logger()
    _spool: Spool
    _writer: JournalWriter

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401 - time and threads
        directory: str,
        limit_bytes: int,
        target: Target,
        chance: Callable[[], float],
    ) -> None:
        """Touch nothing yet.

        Args:
            reactor: Provides time and threads.
            directory: Where it is; this program's alone.
            limit_bytes: How much may lie there.
            target: Sends records, without trying for long.
            chance: Gives numbers in [0, 1), for the jitter of retries.
        """
        self._reactor = reactor
        self._disk = Disk()
        self._target = target
        self._persistent = Persistent(reactor, target, _CONCURRENCY, chance)
        self._premises = Premises(self._disk, directory, os.path.join(directory, "batches"))
        self._journals_directory = os.path.join(directory, "batches", Stage.TMP)
        self._quota = Quota(self._disk, self._journals_directory, limit_bytes)
        self._journals = SentJournals(self._disk, self._journals_directory, directory, self._quota)
        self._writing_thread = WorkThread(reactor, "client spool")
        self._reading_thread = WorkThread(reactor, "client journals")
        self._threads = InOrder([self._writing_thread, self._reading_thread])
        self._turns: dict[str, defer.DeferredLock] = {}
        self._writing = 0
        self._direct: set[defer.Deferred[int]] = set()
        self._rest = Rest(reactor)
        self._complaints = Complaints(reactor, "records were refused, and are kept in the spool's refused/")
        self._draining: defer.Deferred[None] | None = None
        self._accepted = 0
        self._refused = 0

    @property
    def holds(self) -> bool:
        """Whether anything lies here, or is about to."""
        return bool(self._writing or self._quota.journals)

    @property
    def state(self) -> Spooled:
        """What lies here."""
        return Spooled(self._quota.needed, self._accepted, self._refused)

    def startService(self) -> None:
        """Take possession of the directory, and begin to send what the last run left.

        Raises:
            DirectoryInUse: Somebody else works there.
            UnsafeDirectory: Others could change what lies there.
            OSError: It cannot be made or written.
        """
        self._premises.acquire(None, lambda: str(uuid.uuid4()), self._reactor.seconds())
        try:
            self._journals.prepare()
        except BaseException:
            self._premises.release()
            raise
        self._threads.startService()
        identity = self._premises.identity
        plan = JournalPlan(
            self._journals_directory, identity.instance_id, identity.starts, _INTERVAL_SECONDS, JOURNAL_BYTES
        )
        self._writer = JournalWriter(self._disk, plan, self._quota)
        group = GroupCommit[Any](_MAX_WAITING, _MAX_WAITING_BYTES)
        self._spool = Spool(self._reactor, self._writing_thread, self._writer, group)
        self._persistent.begin()
        self.running = True
        self._draining = defer.Deferred.fromCoroutine(self._drain())

    async def submit(self, scope: str, texts: Sequence[bytes]) -> int:
        """Send records, or keep them: how many were accepted, or are durable here.

        Raises:
            Refusal: Neither.
        """
        tenant = Tenant(scope, scope, "")
        if not fits(tenant):
            raise Rejected("UNKNOWN_SCOPE", f"No tenant found for this scopeuuid: {scope[:300]!r}")
        turn = self._turns.setdefault(scope, defer.DeferredLock())
        await turn.acquire()
        try:
            if not self.holds:
                taken = await self._send_directly(scope, texts)
                if taken is not None:
                    return taken
            return await self._keep(tenant, texts)
        finally:
            turn.release()
            if not (turn.locked or turn.waiting):
                self._turns.pop(scope, None)

    async def _send_directly(self, scope: str, texts: Sequence[bytes]) -> int | None:
        """How many were accepted; None: no collector takes them now."""
        sending = self._target.submit(scope, texts)
        self._direct.add(sending)
        try:
            return await sending
        except (Rejected, RateLimited):
            raise
        except Refusal as exc:
            reason = exc.reason
        except defer.CancelledError:
            if sending in self._direct:  # it was not `hurry`
                raise
            reason = "no answer has come yet"
        finally:
            self._direct.discard(sending)
        self._log.debug("records are kept until a collector takes them: {reason}", reason=reason)
        return None

    def hurry(self) -> None:
        """Wait for no answer any more where records are sent without having been kept: keep them."""
        direct, self._direct = self._direct, set()
        for sending in direct:
            sending.cancel()

    async def _keep(self, tenant: Tenant, texts: Sequence[bytes]) -> int:
        # A newline in valid JSON stands between tokens.
        lines = b"".join(text.replace(b"\n", b" ") + b"\n" for text in texts)
        self._writing += 1
        try:
            await self._spool.submit(Batch(tenant, lines, len(texts)))
        finally:
            self._writing -= 1
            self._rest.end()
        return len(texts)

    async def _drain(self) -> None:
        """Send what lies here, for as long as we run."""
        try:
            while self.running:
                await self._send_next()
        except defer.CancelledError:
            return

    async def _send_next(self) -> None:
        """Send the oldest journal, or wait for one."""
        identities = sorted(self._quota.journals, key=order_of)
        try:
            if identities:
                await self._send_journal(identities[0])
            else:
                await self._rest.take(3600)
        except defer.CancelledError:
            raise
        except Exception as exc:  # noqa: BLE001 - it goes on
            if isinstance(exc, OSError):
                self._log.error("the client's spool cannot be read: {reason}; it is tried again", reason=str(exc))
            else:
                report(self._log, "the client's spool cannot be sent; it is tried again")
            await self._rest.take(_AGAIN_SECONDS)

    async def _send_journal(self, identity: str) -> None:
        """Send all of a journal, and delete it."""
        if self._writer.open_name == identity + JOURNAL_SUFFIX:
            await self._writing_thread.run(self._writer.finish)
        try:
            waiting, damaged = await self._reading_thread.run(self._journals.open, identity)
        except FileNotFoundError:
            self._log.error("{name} is gone, with what was not sent of it yet: somebody removed it", name=identity)
            waiting, damaged = (), 0
        if damaged:
            self._log.error("{count} bytes of {name} are damaged; it goes to unreadable/", count=damaged, name=identity)
        scopes: dict[str, list[Waiting]] = {}
        for each in waiting:
            scopes.setdefault(each.scope, []).append(each)
        sending = [defer.Deferred.fromCoroutine(self._send_scope(identity, frames)) for frames in scopes.values()]
        outcomes = cast("list[tuple[bool, object]]", await defer.DeferredList(sending, consumeErrors=True))
        for _, outcome in outcomes:
            if isinstance(outcome, Failure):
                outcome.raiseException()
        await self._reading_thread.run(partial(self._journals.remove, identity, is_damaged=damaged > 0))

    async def _send_scope(self, identity: str, frames: Sequence[Waiting]) -> None:
        """Send what one journal holds of a scope, in order."""
        for frame in frames:
            parts = Parts(await self._reading_thread.run(frame.texts))
            refused: list[Refused] = []
            while parts:
                refused += await self._send_head(frame.scope, parts)
            await self._finish(identity, frame, refused)

    async def _finish(self, identity: str, frame: Waiting, refused: Sequence[Refused]) -> None:
        """Note that a frame was sent. Where what is refused of it cannot be kept, only that is tried again."""
        is_new = True
        while True:
            try:
                return await self._reading_thread.run(self._journals.finish, identity, frame, refused)
            except OSError as exc:
                if is_new:
                    self._log.error("refused records cannot be kept: {reason}; it is tried again", reason=str(exc))
            is_new = False
            await Rest(self._reactor).take(_AGAIN_SECONDS)

    async def _send_head(self, scope: str, parts: Parts) -> Sequence[Refused]:
        """Send the next part of a batch, or divide it: the records of it that are refused."""
        try:
            await self._persistent.submit(scope, parts.head)
        except Rejected as exc:
            texts = parts.divide(exc.reason) if exc.code in OF_RECORDS else parts.take()
            code, reason = exc.code, without_index(exc)
        except GivenUp as exc:
            texts, code, reason = parts.take(), "FAILED", str(exc.__cause__)
        else:
            self._accepted += len(parts.take())
            return ()
        self._refused += len(texts)
        self._complaints.note(scope, len(texts), f"{code}: {reason}")
        return [Refused(scope, code, reason, text.decode(errors="backslashreplace")) for text in texts]

    def stopService(self) -> "defer.Deferred[None]":
        """Send no more, and finish the journal; nobody submits any more. Fires when the directory is given back."""
        self.running = False
        return defer.Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._persistent.end()
        if self._draining is not None:
            self._draining.cancel()
            self._draining = None
            await self._spool.close()
            await self._reading_thread.run(self._journals.close)
        await self._threads.stopService()
        self._complaints.tell()
        self._premises.release()
