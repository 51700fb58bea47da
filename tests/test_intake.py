"""The way in: from a body to a durable batch."""

import gzip
import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from random import Random

import pytest
from twisted.internet import defer
from twisted.internet.task import Clock

from axcollector.core import plain
from axcollector.core.catalog import Catalog
from axcollector.core.errors import Overloaded, Rejected, SpoolFailed
from axcollector.core.model import Batch, DeveloperInfo, Tenant
from axcollector.core.payload import Document
from axcollector.core.records import Rules
from axcollector.core.unpacking import Limits
from axcollector.intake import INLINE_BYTES, Intake, Taken
from axcollector.sync.directory import IDS_A_TURN
from tests.fakes import HeldThread, result_of

ACME = Tenant("t1", "acme", "prod")
LIMITS = Limits(10 << 20, 50 << 20, 20_000)
RULES = Rules()


class KnownTenant:
    """A directory of one tenant, with a catalog or without one.

    Where the tenant has to be looked up, `looking_up` says when that is done.
    """

    def __init__(self, catalog: Catalog | None = None) -> None:
        self.catalog = catalog

    looking_up: "defer.Deferred[None] | None" = None

    def ready(self) -> bool:
        return True

    async def tenant_for_scope(self, scope: str) -> Tenant:
        if self.looking_up is not None:
            await self.looking_up
        return ACME

    async def tenant_for_names(self, organization: str, environment: str) -> Tenant:
        return ACME

    async def developers(self, tenant: Tenant, client_ids: Collection[str]) -> Mapping[str, DeveloperInfo]:
        if self.catalog is not None:
            return self.catalog.developers(tenant.id, client_ids)
        return {client_id: DeveloperInfo(developer="d-" + client_id) for client_id in client_ids}


class Kept:
    """A spool and the room for it, in memory."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.full = self.no_room = False

    def submit(self, batch: Batch) -> "defer.Deferred[None]":
        self.batches.append(batch)
        return defer.succeed(None)

    def check_room(self) -> None:
        if self.full:
            raise Overloaded("full")

    def check(self) -> None:
        if self.no_room:
            raise SpoolFailed("no room")


class Fixture:
    def __init__(
        self, limits: Limits = LIMITS, catalog: Catalog | None = None, rules: Rules = RULES, *, sets_aside: bool = False
    ) -> None:
        self.thread = HeldThread()
        self.kept = Kept()
        self.directory = KnownTenant(catalog)
        self.asked = 0
        self.intake = Intake(
            Clock(),
            self.thread,
            self.directory,
            self.kept,
            self.kept,
            limits,
            rules,
            INLINE_BYTES * 3,
            sets_aside=sets_aside,
        )

    def take(self, body: bytes, encoding: str | None = None) -> "defer.Deferred[Taken]":
        async def tenant_of(document: Document) -> Tenant:
            self.asked += 1
            if document.organization == b'"nobody"':
                raise Rejected("UNKNOWN_SCOPE", "nobody")
            return ACME

        return defer.ensureDeferred(self.intake.take(body, encoding, tenant_of))

    def take_records(self, *records: object) -> "defer.Deferred[int]":
        return defer.ensureDeferred(self.intake.take_records("scope", records))

    def lines(self) -> list[bytes]:
        return [line for batch in self.kept.batches for line in batch.lines.splitlines()]


def body(count: int, size: int = 10) -> bytes:
    """A body of so many records of about that size."""
    record = b'{"client_received_start_timestamp":1,"client_id":"k","x":"%b"}' % (b"x" * size)
    return b'{"records":[%b]}' % b",".join([record] * count)


def test_small_bodies_need_no_thread() -> None:
    """What is small is taken apart where it is."""
    f = Fixture()
    assert result_of(f.take(body(3))) == Taken(3)
    assert result_of(f.take(gzip.compress(body(3)), "gzip")) == Taken(3)
    assert [json.loads(line)["developer"] for line in f.lines()] == ["d-k"] * 6
    assert (f.thread.jobs, f.asked) == ([], 2)


@pytest.mark.parametrize("encoding", [None, "gzip"])
def test_large_bodies_go_to_a_thread(encoding: str | None) -> None:
    """What is large, before or after gunzip, is taken apart elsewhere, and taken all the same."""
    f = Fixture()
    large = body(2000, INLINE_BYTES // 1000)
    taken = f.take(gzip.compress(large) if encoding else large, encoding)
    steps = 0
    while f.thread.jobs:
        assert not taken.called
        f.thread.step()
        steps += 1
    assert (result_of(taken), steps) == (Taken(2000), 3)
    assert len(f.lines()) == 2000


@pytest.mark.parametrize("encoding", [None, "gzip"])
def test_limits_beyond_what_is_large(encoding: str | None) -> None:
    """A large body that breaks a limit is refused, with that limit named."""
    most = plain.MOST_BYTES + 1
    f = Fixture(replace(LIMITS, max_body_bytes=most, max_decompressed_bytes=most))
    huge = body(1, most)
    taken = f.take(gzip.compress(huge) if encoding else huge, encoding)
    f.thread.step()
    with pytest.raises(Rejected, match=str(most)):
        result_of(taken)


def test_small_limits() -> None:
    """With limits below what is large, nothing is tried twice."""
    for most in (100, INLINE_BYTES, plain.MOST_BYTES):
        f = Fixture(Limits(most, most, 1))
        with pytest.raises(Rejected, match=rf"larger than {most} bytes \(max_body_bytes\)"):
            result_of(f.take(body(1, most)))
        with pytest.raises(Rejected, match=rf"larger than {most} bytes when decompressed"):
            result_of(f.take(gzip.compress(body(1, most))[:most], "gzip"))
        assert f.thread.jobs == []


def test_records_of_this_process() -> None:
    """Dicts, and JSON texts, whatever numbers and strings they hold."""
    f = Fixture()
    given = [
        {"client_received_start_timestamp": 1, "n": 2**70, "s": "\ud800"},
        {"client_received_start_timestamp": 1, "s": "ü", "nested": {"a": [1, None, True]}},
        b'{"client_received_start_timestamp":1,"n":1.10}',
    ]
    taken = f.take_records(*given)
    while f.thread.jobs:  # a lone surrogate, a number of over 64 bits: no ordinary bodies
        f.thread.step()
    assert result_of(taken) == 3
    first, second, third = f.lines()
    assert {key: json.loads(first)[key] for key in given[0]} == given[0]
    assert {key: json.loads(second)[key] for key in given[1]} == given[1]
    assert b'"n":1.10' in third


@pytest.mark.parametrize("value", [float("nan"), object(), [float("inf")]])
def test_records_that_are_no_json(value: object) -> None:
    """What JSON cannot say is refused, and nothing is kept."""
    f = Fixture()
    with pytest.raises(Rejected) as refusal:
        result_of(f.take_records({"client_received_start_timestamp": 1, "x": value}))
    assert refusal.value.code == "BAD_DATA"
    assert f.kept.batches == []


def test_endless_records() -> None:
    """A record that holds itself is refused."""
    endless: dict[str, object] = {"client_received_start_timestamp": 1}
    endless["self"] = endless
    with pytest.raises(Rejected, match="cannot be written as JSON"):
        result_of(Fixture().take_records(endless))


def test_records_that_are_changed_meanwhile() -> None:
    """What the caller does with them after `submit` is nothing to us, also where a tenant has to be looked up."""
    f = Fixture()
    f.directory.looking_up = defer.Deferred()
    record = {"client_received_start_timestamp": 1, "status": 200}
    taken = f.take_records(record)
    record["status"] = 500
    assert f.kept.batches == []
    f.directory.looking_up.callback(None)
    assert result_of(taken) == 1
    assert b'"status":200' in f.lines()[0]


def test_no_room() -> None:
    """Too much waiting, or a full disk, refuses before anything is looked at."""
    f = Fixture()
    f.kept.no_room = True
    with pytest.raises(SpoolFailed):
        result_of(f.take_records({}))
    f.kept.full = True
    with pytest.raises(Overloaded):
        f.intake.check_room()


def test_large_bodies_are_counted_until_the_thread_is_done_with_them() -> None:
    """Clients that hang up do not make room for more large bodies than may be held."""
    f = Fixture()
    large = body(2, INLINE_BYTES)
    for _ in range(2):
        f.intake.check_room()
        taken = f.take(large)
        taken.addErrback(lambda failure: failure.trap(defer.CancelledError) and None)
        taken.cancel()
    with pytest.raises(Overloaded, match="max_pending_bytes"):
        f.intake.check_room()
    f.thread.step()
    f.intake.check_room()
    f.thread.step()
    assert f.kept.batches == []


@pytest.mark.parametrize(("count", "at_once"), [(IDS_A_TURN, True), (IDS_A_TURN + 1, False)])
def test_many_client_ids_are_not_looked_up_at_once(count: int, at_once: bool) -> None:
    """A batch of more than one turn's is not made at once, however small it was as it was sent."""
    record = '{"client_received_start_timestamp":1,"client_id":"%d"}'
    text = '{"records":[' + ",".join(record % number for number in range(count)) + "]}"
    batch = Fixture().intake.batch_at_once(gzip.compress(text.encode()), "gzip", ACME, Catalog())
    assert (batch is not None and len(batch) == count) is at_once


def test_one_careful_body_at_a_time() -> None:
    """What may be a hundred times as large as it was sent is unpacked when those before it are done."""
    f = Fixture()
    odd = b'{"records":[{"client_received_start_timestamp":1,"x":"\\ud800"}]}'
    first, second = f.take(odd), f.take(odd)
    assert len(f.thread.jobs) == 1
    f.thread.step()
    f.thread.step()
    assert len(f.thread.jobs) == 1
    f.thread.step()
    assert (first.called, second.called) == (True, False)
    while f.thread.jobs:
        f.thread.step()
    assert [result_of(first), result_of(second)] == [Taken(1), Taken(1)]


def finish(f: Fixture) -> int:
    """Do all that a thread has to do; says how many steps that was."""
    steps = 0
    while f.thread.jobs:
        f.thread.step()
        steps += 1
    return steps


LARGE = body(1000, 1000)
MEMBERS = b"".join(map(gzip.compress, [LARGE[:300], LARGE[300:], *[b""] * 4000]))
HEX = b'{"records":[{"client_received_start_timestamp":1,"x":"%b"}]}' % Random(1).randbytes(700_000).hex().encode()
NESTED = b"},".join([b'{"client_received_start_timestamp":1,"x":{}'] * 2001)


@pytest.mark.parametrize(
    ("sent", "encoding", "steps"),
    [
        (LARGE, None, 0),
        (gzip.compress(LARGE), "gzip", 0),
        (body(2000, 900), None, 0),
        (LARGE.replace(b'"x"', b'"organization":"acme","x"'), None, 3),
        (LARGE.replace(b'"x"', b'"\\ud800"'), None, 3),
        (body(1, plain.MOST_BYTES), None, 3),
        (gzip.compress(body(1, plain.MOST_BYTES)), "gzip", 3),
        (body(2001, INLINE_BYTES // 1000), None, 3),
        (body(2001), None, 0),
        (b'{"records":[%b}]}' % NESTED, None, 0),
        (MEMBERS, "gzip", 3),
        (b"".join(map(gzip.compress, [LARGE[:300], LARGE[300:]])), "gzip", 0),
        (gzip.compress(HEX), "gzip", 3),
        (HEX, None, 0),
        (b'{"records":[{"client_received_start_timestamp":1,"x":"\\ud800"}]}', None, 3),
    ],
    ids=[
        *("large", "large, gzip'd", "as many as may be", "with members that are written", "with a lone surrogate"),
        *("too large", "too large once unpacked", "many and large", "many, but small", "many, small and nested"),
        *("many gzip members", "two gzip members", "large as gzip", "the same, not gzip'd", "small and odd"),
    ],
)
def test_plain_bodies_are_taken_where_they_are(sent: bytes, encoding: str | None, steps: int) -> None:
    """Up to a size, where there is a catalog; what is not plain, or may take long, goes to a thread. All are taken."""
    f, elsewhere = Fixture(catalog=Catalog()), Fixture(catalog=None)
    taken = f.take(sent, encoding)
    at_once = f.intake.batch_at_once(sent, encoding or "", ACME, Catalog())
    assert (finish(f), at_once is not None) == (steps, not steps)
    assert elsewhere.take(sent, encoding).called is (finish(elsewhere) == 0)
    (batch,), (other,) = f.kept.batches, elsewhere.kept.batches
    assert (result_of(taken).accepted, batch.count) == (other.count, other.count)
    assert at_once is None or at_once.lines == batch.lines
    sizes = [line.count(b'"x":') for line in bytes(batch.lines).splitlines()]
    assert sizes == [line.count(b'"x":') for line in bytes(other.lines).splitlines()]


BAD = b'{"client_received_start_timestamp":9,"client_received_end_timestamp":1}'


@pytest.mark.parametrize("size", [10, 1000])
def test_bad_records_among_plain_ones(size: int) -> None:
    """They refuse the batch, with their index, or are set aside; as when nothing is taken in one pass."""
    good = body(1000, size)
    sent = good[:-2] + b"," + BAD + b"," + good[12:]
    f = Fixture(catalog=Catalog())
    taken = f.take(sent)
    assert (finish(f) > 0) is (len(sent) > INLINE_BYTES)
    with pytest.raises(Rejected, match=r"end_timestamp \(record 1000\)"):
        result_of(taken)
    assert f.kept.batches == []
    f = Fixture(catalog=Catalog(), sets_aside=True)
    taken = f.take(sent)
    assert finish(f) > 0
    assert result_of(taken) == Taken(2000, 1)
    assert [(each.count, each.aside_count) for each in f.kept.batches] == [(2000, 1)]
    assert result_of(f.take(good)) == Taken(1000, 0)


@pytest.mark.parametrize("catalog", [None, Catalog()], ids=["no catalog", "a catalog"])
def test_the_order_of_refusals(catalog: Catalog | None) -> None:
    """Coding, size, JSON, how many records, whose they are, the records: what is wrong first is told."""
    unknown = b'{"organization":"nobody","records":[%b]}'
    small = Limits(30_000, 30_000, 2)
    for sent, encoding, reason in (
        (unknown % BAD, "br", "content encoding"),
        (unknown % b",".join([BAD] * 1000), None, "max_body_bytes"),
        (unknown % b",".join([BAD] * 3), None, "more than 2 records"),
        (unknown % (BAD + b","), None, "Not a valid JSON"),
        (unknown % BAD, None, "nobody"),
        (unknown.replace(b"nobody", b"acme") % BAD, None, "record 0"),
    ):
        f = Fixture(small, catalog)
        taken = f.take(sent, encoding)
        finish(f)
        with pytest.raises(Rejected, match=reason):
            result_of(taken)
        assert f.kept.batches == []


def test_a_catalog_that_comes_while_the_tenant_is_looked_up() -> None:
    """Developers are those of the catalog that counts once the tenant is known; without one they are asked for."""
    for before, after, developer in ((Catalog(), None, "d-k"), (Catalog(), Catalog(), ""), (None, Catalog(), "")):
        f = Fixture(catalog=before)
        looked_up: defer.Deferred[Tenant] = defer.Deferred()

        async def tenant_of(_: Document, waits: "defer.Deferred[Tenant]" = looked_up) -> Tenant:
            return ACME if waits.called else await waits

        taken = defer.ensureDeferred(f.intake.take(body(2), None, tenant_of))
        f.directory.catalog = after
        looked_up.callback(ACME)
        assert result_of(taken) == Taken(2)
        assert [json.loads(line)["developer"] for line in f.lines()] == [developer] * 2
