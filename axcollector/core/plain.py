"""The hot path: a body of plain records, from its text to its lines in one pass.

A record is plain where it holds no object, no brace in a string, and none of the members that enrichment writes; so
are nearly all that gateways send. If all records of a body are, its braces tell where each begins and ends: when the
decoder has found N records, and there are N + 1 braces of each kind, then none of these stands anywhere else.

So the decoder looks at a body once, and two searches for single bytes divide it. What is not plain, or breaks a
rule, is nothing to this module: it says None, and `payload`, `records` and `enrichment` say what becomes of it.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from axcollector.core import jsontext
from axcollector.core.catalog import Catalog
from axcollector.core.model import Batch, Tenant
from axcollector.core.payload import MAX_DEPTH, has_many_values, present
from axcollector.core.records import Rules, bounds
from axcollector.core.tails import Tails

MOST_BYTES: Final = 1 << 21
"""A larger body is nothing to be taken apart in one go; one of this size takes some milliseconds."""
MOST_RECORDS: Final = 2000
"""Likewise."""
_QUICK_BYTES: Final = 1 << 18
"""No body of this size takes long, whatever it holds."""
_SAMPLED: Final = 31
"""Every so many bytes one is looked at; the name of a record's start has as many."""
_DIGITS_ALIKE: Final = bytes.maketrans(b"123456789", b"000000000")
_SAMPLES: Final = 12
_MANY_DIGITS: Final = b"0" * (_SAMPLED * (_SAMPLES - 1))
"""A number that has `_SAMPLES` samples has at least as many digits as this."""


class _Record(msgspec.Struct, gc=False):
    """What rules look at, and what a plain record does not have."""

    client_received_start_timestamp: int
    client_received_end_timestamp: int | None = None
    client_id: str | None = None
    organization: UnsetType = UNSET
    environment: UnsetType = UNSET
    api_product: UnsetType = UNSET
    developer_app: UnsetType = UNSET
    developer_email: UnsetType = UNSET
    developer: UnsetType = UNSET


class _Body(msgspec.Struct, gc=False):
    records: list[_Record]
    organization: Raw | UnsetType = UNSET
    environment: Raw | UnsetType = UNSET


_decoder: Final = msgspec.json.Decoder(_Body)


class PlainBody(msgspec.Struct, frozen=True, gc=False):
    """A body of plain records.

    Attributes:
        organization: The text of the body's own `organization`, or None where it is absent.
        environment: Likewise.
    """

    organization: bytes | None
    environment: bytes | None
    _records: Sequence[_Record]
    _texts: Sequence[bytes]
    """Each record's members, with the comma behind them."""

    @property
    def count(self) -> int:
        """How many records there are."""
        return len(self._records)

    def batch(self, tenant: Tenant, catalog: Catalog, tails: Tails, rules: Rules, now: float) -> Batch | None:
        """The batch that they make, at the time `now` in seconds since the epoch; None: they break a rule.

        It takes one look at each record, and may call nothing for it.
        """
        found, records = tails.of(tenant, catalog), self._records
        for record in records:
            end = record.client_received_end_timestamp
            if end is not None and record.client_received_start_timestamp > end:
                return None
        if not _are_of_these_days(records, rules, now):
            return None
        try:
            behind = [found[record.client_id] for record in records]
        except KeyError:
            ids = [record.client_id for record in records]
            fresh = tails.missing(tenant, catalog, set(ids).difference(found))
            behind = [fresh[each] if each in fresh else found[each] for each in ids]
        behind[-1] = behind[-1][:-1]  # no record follows
        parts = [b"{", *self._texts, *behind]
        parts[1::2] = self._texts
        parts[2::2] = behind
        return Batch(tenant, b"".join(parts), len(behind))


def _are_of_these_days(records: Sequence[_Record], rules: Rules, now: float) -> bool:
    earliest, latest = bounds(rules, now)
    if earliest is None and latest is None:
        return True
    starts = [record.client_received_start_timestamp for record in records]
    return (earliest is None or min(starts) >= earliest) and (latest is None or max(starts) <= latest)


def parse(text: bytes, most_records: int = MOST_RECORDS) -> PlainBody | None:
    """A body taken apart; None: it is not plain, or has none or too many records, or is no JSON."""
    most = min(most_records, MOST_RECORDS)
    bare = text.replace(b"}", b"", most + 2)  # a body of nothing but braces would take ten times as long
    count = len(text) - len(bare) - 1
    if not 0 < count <= most or _is_broken(text) or _may_take_long(text):
        return None
    try:
        body = _decoder.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    pieces = bare.split(b"{", count + 2)
    if len(body.records) != count or len(pieces) != count + 2 or _may_be_deep(text, pieces):
        return None
    last = text[text.rindex(b"{") + 1 : text.rindex(b"}", 0, text.rindex(b"}"))]
    texts = [*pieces[2:-1], last + b","]
    return PlainBody(present(body.organization), present(body.environment), body.records, texts)


def _is_broken(text: bytes) -> bool:
    """Whether there are several lines, or text that is no UTF-8."""
    return b"\n" in text or b"\r" in text or not jsontext.is_utf8(text)


def _may_be_deep(text: bytes, pieces: Sequence[bytes]) -> bool:
    """Whether so many brackets open in a record, or around them, that they could be too deep in one another."""
    most = MAX_DEPTH - 2  # the body's brace, and a record's
    opened = len(text) - len(text.replace(b"[", b"", most + 1))
    return opened > most and any(piece.count(b"[") >= most for piece in pieces)


def _may_take_long(text: bytes) -> bool:
    """Whether there may be so many values that they are counted first, or numbers that take long to be read.

    A number of 4000 digits takes ten times as long as ten of 400 do, which have twelve samples each. Those of several
    records are no such run: the name of its start, which each record has, parts them.
    """
    if len(text) <= _QUICK_BYTES:
        return False
    sampled = text[::_SAMPLED].translate(_DIGITS_ALIKE)
    if _MANY_DIGITS[:_SAMPLES] in sampled and _MANY_DIGITS in text.translate(_DIGITS_ALIKE):
        return True
    return has_many_values(text)
