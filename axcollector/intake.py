"""The way in: from a body to a durable batch. HTTP requests and records from the same process go the same way.

With caching nothing in it waits but the commit, and a large body: that one is taken apart in a thread, so that the
reactor goes on turning.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime

from axcollector.core import payload, records
from axcollector.core.errors import Rejected
from axcollector.core.model import Batch, Tenant
from axcollector.core.payload import Limits, Payload
from axcollector.core.records import Records, Rules
from axcollector.room import Room
from axcollector.services import Worker
from axcollector.spool import Spool
from axcollector.sync.directory import Directory

INLINE_BYTES = 1 << 19
"""Bodies up to this size, after gunzip, are taken apart where they are; it costs a few milliseconds."""

Record = Mapping[str, object] | bytes


class TenantOf(Protocol):
    """How the tenant of a body is found once it has been taken apart."""

    def __call__(self, body: Payload, /) -> Awaitable[Tenant]:
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
        room: Room,
        limits: Limits,
        rules: Rules,
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
        """
        self._clock = clock
        self._worker = worker
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

    async def take(self, body: bytes, content_encoding: str | None, tenant_of: TenantOf) -> int:
        """Make the records of a body durable, all or none. How many they are, once they are (see `durability`).

        Raises:
            Refusal: They are not taken; the kind says why.
        """
        inline = self._inline_limits
        run: Callable[..., defer.Deferred[object]] = defer.maybeDeferred
        try:
            document = payload.decode(body, content_encoding, inline)
        except Rejected as exc:
            if exc.code != "PAYLOAD_TOO_LARGE" or inline == self.limits:
                raise
            run = self._worker.run
            document = await self._worker.run(payload.decode, body, content_encoding, self.limits)
        tenant = await tenant_of(document)
        texts = document.records
        checked = await run(records.check, texts, self._rules, self._clock.seconds())
        assert isinstance(checked, Records)
        known = await self.directory.developers(tenant, checked.client_ids)
        batch = await run(records.enrich, checked, tenant, known, self._rules)
        assert isinstance(batch, Batch)
        await self._spool.submit(batch)
        return len(batch)

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
