"""The way in: from a body to a durable batch. HTTP requests and records from the same process go the same way.

With caching nothing in it waits but the commit, and a large body: that one is taken apart in a thread, so that the
reactor goes on turning.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple, Protocol

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from axcollector.core import enrichment, payload, plain, quarantine, records, unpacking
from axcollector.core.catalog import Catalog
from axcollector.core.errors import Overloaded, Rejected
from axcollector.core.model import Batch, Tenant
from axcollector.core.payload import Document, JSONText, Payload
from axcollector.core.plain import PlainBody
from axcollector.core.quarantine import Bad
from axcollector.core.records import Records, Rules
from axcollector.core.recordtext import Record, body_from
from axcollector.core.tails import Tails
from axcollector.core.unpacking import Limits, NeedsCare
from axcollector.fairness import FairLock
from axcollector.large import LargeBodies
from axcollector.room import Lack
from axcollector.services import Worker
from axcollector.spool import Spool
from axcollector.sync.directory import IDS_A_TURN, Directory

INLINE_BYTES = 1 << 19
"""Bodies up to this size, after gunzip, are taken apart where they are, in a few milliseconds, whatever they hold.

Those of plain records may have `plain.MOST_BYTES`."""


class Taken(NamedTuple):
    """What became of a batch that was taken.

    Attributes:
        accepted: How many of its records will be delivered.
        quarantined: How many were set aside; None where none ever are (`invalid_records: reject_batch`).
    """

    accepted: int
    quarantined: int | None = None


class TenantOf(Protocol):
    """How the tenant of a body is found once it has been taken apart."""

    def __call__(self, body: Document, /) -> Awaitable[Tenant]:
        """The tenant; raises `Refusal` where there is none."""
        ...


class Intake:
    """Takes bodies apart, validates, enriches and spools them."""

    def __init__(
        self,
        clock: IReactorTime,
        worker: Worker,
        directory: Directory,
        spool: Spool,
        room: Lack,
        limits: Limits,
        rules: Rules,
        max_pending_bytes: int,
        *,
        sets_aside: bool = False,
    ) -> None:
        """Put the parts together.

        Args:
            clock: Tells the wall-clock time.
            worker: Where large bodies are taken apart.
            directory: Knows tenants and developers.
            spool: Makes batches durable.
            room: Knows whether there is room on disk.
            limits: How large a batch may be.
            rules: What is asked of records.
            max_pending_bytes: How many bytes of large bodies may be worked on or wait for that.
            sets_aside: Whether a bad record is set aside, in place of its batch being refused.
        """
        self._clock = clock
        self._large = LargeBodies(worker)
        self._turn = FairLock()
        self._max_pending_bytes = max_pending_bytes
        self._spool = spool
        self._room = room
        self._rules = rules
        self._sets_aside = sets_aside
        self._limits_here = replace(
            limits,
            max_body_bytes=min(plain.MOST_BYTES, limits.max_body_bytes),
            max_decompressed_bytes=min(plain.MOST_BYTES, limits.max_decompressed_bytes),
        )
        self._tails = Tails()
        self.directory = directory
        self.limits = limits

    def check_room(self) -> None:
        """Refuse a batch that could not be kept now.

        Raises:
            Overloaded: Too much waits already.
            SpoolFailed: There is no room on disk.
        """
        self._spool.check_room()
        self._room.check()
        if self._large.held >= self._max_pending_bytes:
            raise Overloaded(f"{self._large.held} bytes of large bodies are being worked on (max_pending_bytes)")

    async def take(
        self,
        body: bytes,
        content_encoding: str | None,
        tenant_of: TenantOf,
        scope: str | None = None,
        whose: str = "",
    ) -> Taken:
        """Make the records of a body durable, all or none. How many they are, once they are (see `durability`).

        Args:
            body: As it was sent.
            content_encoding: Its coding.
            tenant_of: Finds the tenant once the body has been taken apart.
            scope: The scope by which the tenant was named, if it was; kept with records that are set aside.
            whose: Where it is known before, the tenant's id: large bodies take turns by it.

        Raises:
            Refusal: They are not taken; the kind says why.
        """
        batch = await self._take_here(body, content_encoding, tenant_of)
        if batch is None:
            batch = await self._take_carefully(body, content_encoding, tenant_of, scope, whose)
        await self._spool.submit(batch)
        return self.taken(batch)

    def batch_at_once(self, body: bytes, content_encoding: str, tenant: Tenant, catalog: Catalog) -> Batch | None:
        """The batch that a small and usual body makes, of a tenant that is known; None: it cannot be told at once.

        The hot path: it waits for nothing, and changes nothing.

        Raises:
            Refusal: The body is not to be taken, or only with care; `take` says what becomes of it.
        """
        text = self._unpacked_here(body, content_encoding)
        if text is None:
            return None
        document = plain.parse(text, self.limits.max_batch_records)
        batch = None if document is None else self._plain_batch(document, tenant, catalog)
        if batch is not None or len(text) > INLINE_BYTES:
            return batch
        try:
            checked = records.check(self._parsed(text).records, self._rules, self._clock.seconds(), careful=False)
            client_ids = checked.client_ids
            if len(client_ids) > IDS_A_TURN:
                return None
            known = catalog.developers(tenant.id, client_ids)
            return enrichment.enrich(checked, tenant, known, self._rules, careful=False)
        except NeedsCare:
            return None

    def _plain_batch(self, document: PlainBody, tenant: Tenant, catalog: Catalog) -> Batch | None:
        return document.batch(tenant, catalog, self._tails, self._rules, self._clock.seconds())

    def _parsed(self, text: bytes) -> Payload:
        return payload.parse(text, self.limits.max_batch_records, careful=False)

    def _unpacked_here(self, body: bytes, content_encoding: str | None) -> bytes | None:
        """The text of a body, unless that is too large to be taken apart where it is."""
        try:
            return unpacking.unpack(body, content_encoding, self._limits_here, careful=False)
        except NeedsCare:
            return None
        except Rejected as exc:
            if exc.code != "PAYLOAD_TOO_LARGE" or self._limits_here == self.limits:
                raise
            return None

    def keep(self, batch: Batch, waiter: Callable[[Failure | None], None]) -> None:
        """Make a batch durable; as `Spool.put`."""
        self._spool.put(batch, waiter)

    def taken(self, batch: Batch) -> Taken:
        """What becomes of a batch when it is durable."""
        return Taken(batch.count, batch.aside_count if self._sets_aside else None)

    async def _take_here(self, body: bytes, content_encoding: str | None, tenant_of: TenantOf) -> Batch | None:
        """The batch that a small and usual body makes, at once; None: it is neither, and nothing is held of it.

        The hot path of all but a few bodies: with caching it waits for nothing. It may not log or make a Deferred then;
        what it calls takes one pass over the records, or refuses with `NeedsCare`.
        """
        text = self._unpacked_here(body, content_encoding)
        if text is None:
            return None
        if self.directory.catalog is not None and (plain_body := plain.parse(text, self.limits.max_batch_records)):
            tenant = await tenant_of(plain_body)
            catalog = self.directory.catalog  # as it is now
            batch = None if catalog is None else self._plain_batch(plain_body, tenant, catalog)
            if batch is not None:
                return batch
        if len(text) > INLINE_BYTES:
            return None
        try:
            document = self._parsed(text)
            tenant = await tenant_of(document)
            checked, _ = self._check(document.records, self._clock.seconds(), careful=False)
            known = await self.directory.developers(tenant, checked.client_ids)
            return enrichment.enrich(checked, tenant, known, self._rules, careful=False)
        except NeedsCare:
            return None

    async def _take_carefully(
        self, body: bytes, content_encoding: str | None, tenant_of: TenantOf, scope: str | None, whose: str
    ) -> Batch:
        """The batch that a large or unusual body makes, or one with bad records; one such body at a time.

        The others wait as they were sent: one may be a hundred times as large in memory, and in work.
        """
        await self._turn.acquire(whose)
        try:
            worker = self._large.of(len(body))
            document = await worker.run(payload.decode, body, content_encoding, self.limits)
            return await self._batch_of(document, tenant_of, scope, worker)
        finally:
            self._turn.release()

    async def _batch_of(self, document: Payload, tenant_of: TenantOf, scope: str | None, worker: Worker) -> Batch:
        """The batch that a body makes once it has been taken apart, made by a worker."""
        tenant = await tenant_of(document)
        now = self._clock.seconds()
        checked, bad = await worker.run(partial(self._check, careful=True), document.records, now)
        known = await self.directory.developers(tenant, checked.client_ids)
        batch = await worker.run(enrichment.enrich, checked, tenant, known, self._rules)
        if not bad:
            return batch
        lines = await worker.run(quarantine.lines_of, bad, tenant, scope, now)
        return msgspec.structs.replace(batch, aside=lines, aside_count=len(bad))

    def _check(self, texts: Sequence[JSONText], now: float, *, careful: bool) -> tuple[Records, Sequence[Bad]]:
        """The valid records, and those to be set aside; only where there are such are they looked at one by one."""
        if not self._sets_aside:
            return records.check(texts, self._rules, now, careful=careful), ()
        if careful:
            return quarantine.sift(texts, self._rules, now)
        try:
            return records.check(texts, self._rules, now, careful=False), ()
        except Rejected:
            raise NeedsCare from None

    async def take_records(self, scope: str, given: Sequence[Record]) -> int:
        """How many of these records of this process were accepted: each a dict, or the JSON text of one as bytes.

        What JSON cannot say is no record that could be set aside: it refuses them all.
        """
        self.check_room()
        body = body_from(given)  # before anything is waited for: the caller may change them meanwhile
        tenant = await self.directory.tenant_for_scope(scope)

        async def known_tenant(_: Document) -> Tenant:
            return tenant

        return (await self.take(body, None, known_tenant, scope, tenant.id)).accepted
