"""The way in: from a body to a durable batch. HTTP requests and records from the same process go the same way.

With caching nothing in it waits but the commit, and a large body: that one is taken apart in a thread, so that the
reactor goes on turning.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime

from axcollector.core import enrichment, payload, records
from axcollector.core.errors import Overloaded, Rejected
from axcollector.core.model import Batch, Tenant
from axcollector.core.payload import NeedsCare, Payload
from axcollector.core.records import Rules
from axcollector.core.unpacking import Limits
from axcollector.room import Lack
from axcollector.services import Worker
from axcollector.spool import Spool
from axcollector.sync.directory import Directory

INLINE_BYTES = 1 << 19
"""Bodies up to this size, after gunzip, are taken apart where they are; it costs a few milliseconds."""

T = TypeVar("T")
Record = Mapping[str, object] | bytes


class TenantOf(Protocol):
    """How the tenant of a body is found once it has been taken apart."""

    def __call__(self, body: Payload, /) -> Awaitable[Tenant]:
        """The tenant; raises `Refusal` where there is none."""
        ...


class _Here:
    """A `Worker` that runs everything where it is asked to, at once."""

    def run(self, function: Callable[..., T], *arguments: object) -> "defer.Deferred[T]":
        return defer.maybeDeferred(function, *arguments)


_HERE = _Here()


class _Large:
    """The large bodies that a worker has, also those whose clients have gone: their memory is not free before it is."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._sizes: dict[object, int] = {}

    @property
    def held(self) -> int:
        """How many bytes they have, as sent."""
        return sum(tuple(self._sizes.values()))

    def of(self, size: int) -> Worker:
        """A worker for one body of so many bytes."""
        return _LargeBody(self._worker, self._sizes, size)


class _LargeBody:
    """Runs the steps of one large body; counts it from the moment a step is asked for until it is done."""

    def __init__(self, worker: Worker, sizes: dict[object, int], size: int) -> None:
        self._worker = worker
        self._sizes = sizes
        self._size = size

    def run(self, function: Callable[..., T], *arguments: object) -> "defer.Deferred[T]":
        step = object()
        self._sizes[step] = self._size

        def counted() -> T:
            try:
                return function(*arguments)
            finally:
                self._sizes.pop(step, None)

        result = self._worker.run(counted)
        if result.called:  # it was not begun, or is done already
            self._sizes.pop(step, None)
        return result


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
        """
        self._clock = clock
        self._large = _Large(worker)
        self._turn = defer.DeferredLock()
        self._max_pending_bytes = max_pending_bytes
        self._spool = spool
        self._room = room
        self._rules = rules
        self._inline_limits = replace(
            limits,
            max_body_bytes=min(INLINE_BYTES, limits.max_body_bytes),
            max_decompressed_bytes=min(INLINE_BYTES, limits.max_decompressed_bytes),
        )
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

    async def take(self, body: bytes, content_encoding: str | None, tenant_of: TenantOf) -> int:
        """Make the records of a body durable, all or none. How many they are, once they are (see `durability`).

        Raises:
            Refusal: They are not taken; the kind says why.
        """
        try:
            document = payload.decode(body, content_encoding, self._inline_limits, careful=False)
            batch = await self._batch_of(document, tenant_of, _HERE, careful=False)
        except NeedsCare:
            batch = await self._take_carefully(body, content_encoding, tenant_of)
        except Rejected as exc:
            if exc.code != "PAYLOAD_TOO_LARGE" or self._inline_limits == self.limits:
                raise
            batch = await self._take_carefully(body, content_encoding, tenant_of)
        await self._spool.submit(batch)
        return len(batch)

    async def _take_carefully(self, body: bytes, content_encoding: str | None, tenant_of: TenantOf) -> Batch:
        """The batch that a large or unusual body makes; one such body at a time.

        The others wait as they were sent: one may be a hundred times as large in memory, and in work.
        """
        await self._turn.acquire()
        try:
            worker = self._large.of(len(body))
            document = await worker.run(payload.decode, body, content_encoding, self.limits)
            return await self._batch_of(document, tenant_of, worker, careful=True)
        finally:
            self._turn.release()

    async def _batch_of(self, document: Payload, tenant_of: TenantOf, worker: Worker, *, careful: bool) -> Batch:
        tenant = await tenant_of(document)
        check = partial(records.check, careful=careful)
        checked = await worker.run(check, document.records, self._rules, self._clock.seconds())
        known = await self.directory.developers(tenant, checked.client_ids)
        return await worker.run(partial(enrichment.enrich, careful=careful), checked, tenant, known, self._rules)

    async def take_records(self, scope: str, given: Sequence[Record]) -> int:
        """The same for records of this process: each a dict, or the JSON text of one as bytes."""
        self.check_room()
        tenant = await self.directory.tenant_for_scope(scope)
        body = b'{"records":[%b]}' % b",".join(map(_text_of, given))

        async def known_tenant(_: Payload) -> Tenant:
            return tenant

        return await self.take(body, None, known_tenant)


def _text_of(record: Record) -> bytes:
    """A record's JSON; by the standard library, because others write NaN as null and sets as lists."""
    if isinstance(record, bytes):
        return record
    try:
        return json.dumps(record, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise Rejected("BAD_DATA", f"A record cannot be written as JSON: {exc}") from exc
