"""A request's body and headers → the records' own JSON text: bounded gunzip, exact JSON.

What is taken and refused is in SPEC section 2; the checks run in its order. The texts that come out are the bytes that
were sent, except that newlines between tokens are blanks, so that each can stand in one line.
"""

import itertools
import json
from typing import Final, Protocol

import msgspec
from msgspec import UNSET, Raw, UnsetType

from axcollector.core import jsontext
from axcollector.core.errors import Rejected
from axcollector.core.unpacking import Limits, NeedsCare, payload_too_large, unpack

JSONText = bytes | Raw
"""One JSON value as it was sent; both kinds are buffers."""

MAX_DEPTH: Final = 200
MAX_VALUES_A_RECORD: Final = 200
"""A body may have so many values for each record that it may have: 4 million, with the defaults."""
_LONGEST_NAME_BYTES: Final = 2048
"""No tenant has a name that is longer as JSON, be each of its letters an escape: it would make no directory."""
_SHOWN_NAME_BYTES: Final = 300
_MANY_VALUES: Final = 1_000_000
"""Of a body with more values, the records are counted before anything is made of them."""
_COUNTED_BYTES: Final = 1 << 22
"""So much is looked at in one call, which holds the interpreter."""
_SCANNED_BYTES: Final = 1 << 20
"""Likewise, by a call that takes some nanoseconds for each thing it finds."""


class Document(Protocol):
    """A body that is taken apart, as far as it tells whose it is."""

    @property
    def organization(self) -> bytes | None:
        """The text of the body's own `organization`, or None where it is absent."""
        ...

    @property
    def environment(self) -> bytes | None:
        """Likewise."""
        ...

    @property
    def count(self) -> int:
        """How many records there are; may raise `Rejected`."""
        ...


class Payload(msgspec.Struct, frozen=True):
    """A body taken apart.

    Attributes:
        organization: The text of the body's own `organization`, or None where it is absent.
        environment: Likewise.
    """

    organization: bytes | None
    environment: bytes | None
    _records: list[JSONText] | Rejected

    @property
    def records(self) -> list[JSONText]:
        """The text of each element of `records`, at least one; not yet known to be objects.

        Raises:
            Rejected: There are none. Known since the body was taken apart, but said only when somebody asks, because
                a route that reads the tenant's names from the body checks those first.
        """
        if isinstance(self._records, Rejected):
            raise self._records
        return self._records

    @property
    def count(self) -> int:
        """How many they are; raises as `records`."""
        return len(self.records)


def decode(body: bytes, content_encoding: str | None, limits: Limits, *, careful: bool = True) -> Payload:
    """Take a body apart.

    Raises:
        NeedsCare: It is no ordinary body, and `careful` is false.
        Rejected: It breaks a rule of SPEC section 2 from `Content-Encoding` to `records should be a list`.
    """
    text = unpack(body, content_encoding, limits)
    return parse(text, limits.max_batch_records, careful=careful)


def name_in(text: bytes | None, key: str) -> str:
    """A tenant's name as the body has it; of one that is longer than any tenant's, only so much that it stays longer.

    It is told in the answer, and logged: the body may be 50 MB, where some 50 kB were sent.

    Raises:
        Rejected: `MISSING_FIELD` where it is absent, null or empty, `BAD_DATA` where it is no string.
    """
    if text is None or text in {b"null", b'""'}:
        raise Rejected("MISSING_FIELD", f"Missing Required field: {key}")
    if not text.startswith(b'"'):
        raise Rejected("BAD_DATA", f"{key} has to be a string")
    if len(text) > _LONGEST_NAME_BYTES:
        return text[1 : _SHOWN_NAME_BYTES + 1].decode(errors="replace") + "…"
    name: str = json.loads(text)
    return name


def _bad_json() -> Rejected:
    return Rejected("BAD_DATA", "Not a valid JSON payload")


class _Body(msgspec.Struct, gc=False):
    """A body whose `records` are what they should be."""

    records: list[Raw]
    organization: Raw | UnsetType = UNSET
    environment: Raw | UnsetType = UNSET


class _AnyBody(msgspec.Struct, gc=False):
    """A body whose `records` may be anything."""

    records: Raw | UnsetType = UNSET
    organization: Raw | UnsetType = UNSET
    environment: Raw | UnsetType = UNSET


_body = msgspec.json.Decoder(_Body)
_any_body = msgspec.json.Decoder(_AnyBody)


def parse(text: bytes, max_records: int, *, careful: bool = True) -> Payload:
    """Take a body apart whose coding is undone; as `decode`."""
    if not jsontext.is_utf8(text):
        raise _bad_json()
    records: list[JSONText] | Rejected
    try:
        if has_many_values(text):
            if not careful:
                raise NeedsCare
            _check_count(text, max_records)
        body = _body.decode(text)
        records = [*body.records]
        organization = None if body.organization is UNSET else present(body.organization)
        environment = None if body.environment is UNSET else present(body.environment)
    except (msgspec.DecodeError, RecursionError):
        if not careful:
            raise NeedsCare from None
        organization, environment, records = _parse_carefully(text, max_records)
    there = [] if isinstance(records, Rejected) else records
    if len(there) > max_records:
        raise _too_many(max_records)
    if (brackets := _brackets(text)) > MAX_DEPTH:
        _check_depth(text, there, brackets, careful=careful)
    if isinstance(records, Rejected):
        return Payload(organization, environment, records)
    return Payload(organization, environment, _in_lines(text, records) if records else _no_records())


def has_many_values(text: bytes) -> bool:
    """Whether the records of a body are to be counted before anything is made of them."""
    return len(text) > _MANY_VALUES and _commas(text) > _MANY_VALUES


def _in_lines(text: bytes, records: list[JSONText]) -> list[JSONText]:
    """The records of this body, such that each can stand in one line."""
    if b"\n" in text or b"\r" in text:  # JSON's strings hold none: these stand between tokens
        return [bytes(record).replace(b"\n", b" ").replace(b"\r", b" ") for record in records]
    return records


def _no_records() -> Rejected:
    return Rejected("NO_RECORDS", "No analytics records in the payload")


def present(text: Raw | UnsetType) -> bytes | None:
    """The text of a member that may be absent."""
    return None if isinstance(text, UnsetType) else bytes(text)


def _parse_carefully(text: bytes, max_records: int) -> tuple[bytes | None, bytes | None, list[JSONText] | Rejected]:
    """Organization, environment and records of a body that the fast way did not take; one record too many at most."""
    masked = jsontext.mask_surrogates(text)
    try:
        body = _any_body.decode(masked)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise _bad_json() from exc
    organization, environment, records = map(present, (body.organization, body.environment, body.records))
    if masked != text:  # what was masked is to be kept as it was sent
        values = {member.key: member.value for member in jsontext.members(text)}
        organization, environment, records = map(values.get, ("organization", "environment", "records"))
    if records is None or records == b"null":
        return organization, environment, _no_records()
    if not records.startswith(b"["):
        return organization, environment, Rejected("BAD_DATA", "records should be a list of analytics records")
    return organization, environment, [*itertools.islice(jsontext.elements(records), max_records + 1)]


def _check_count(text: bytes, max_records: int) -> None:
    """Refuse too many records without making anything of them: a body of 50 MB may have 25 million."""
    if _commas(text) > MAX_VALUES_A_RECORD * max_records:
        raise payload_too_large(f"The body has more than {MAX_VALUES_A_RECORD * max_records} values")
    body = _any_body.decode(text)
    if not isinstance(body.records, UnsetType) and bytes(body.records)[:1] == b"[":
        counted = itertools.islice(jsontext.elements(bytes(body.records)), max_records + 1)
        if sum(1 for _ in counted) > max_records:
            raise _too_many(max_records)


def _too_many(max_records: int) -> Rejected:
    return payload_too_large(f"The batch has more than {max_records} records (max_batch_records)")


def _commas(text: bytes) -> int:
    return sum(text.count(b",", i, i + _COUNTED_BYTES) for i in range(0, len(text), _COUNTED_BYTES))


def _check_depth(text: bytes, records: list[JSONText], brackets: int, *, careful: bool) -> None:
    """Refuse a body of more than `MAX_DEPTH` levels, which has so many brackets that it could have as many."""
    opened = sum(memoryview(record)[0] in b"{[" for record in records)
    if brackets - opened + 1 <= MAX_DEPTH:  # of the records' own brackets only one counts
        return
    counts = [_brackets(bytes(record)) for record in records]
    outside = brackets - sum(counts)
    if max(outside, *counts, 0) + 2 > MAX_DEPTH:
        if not careful:
            raise NeedsCare
        if jsontext.depth(text) > MAX_DEPTH:
            raise _bad_json()


def _brackets(text: bytes) -> int:
    """How many brackets open. They are few, and `replace` finds what is rare ten times as fast as `count` does."""
    if len(text) <= _SCANNED_BYTES:
        return 2 * len(text) - len(text.replace(b"{", b"")) - len(text.replace(b"[", b""))
    opened = 0
    for start in range(0, len(text), _SCANNED_BYTES):
        piece = text[start : start + _SCANNED_BYTES]
        opened += 2 * len(piece) - len(piece.replace(b"{", b"")) - len(piece.replace(b"[", b""))
    return opened
