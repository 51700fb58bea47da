"""A request's body and headers → the records' own JSON text: bounded gunzip, exact JSON.

What is taken and refused is in SPEC section 2; the checks run in its order. The texts that come out are the bytes that
were sent, except that newlines between tokens are blanks, so that each can stand in one line.
"""

import json
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from axcollector.core import deflate, jsontext
from axcollector.core.errors import Rejected

JSONText = bytes | Raw
"""One JSON value as it was sent; both kinds are buffers."""

MAX_DEPTH: Final = 200
_GZIP_SLICE_BYTES: Final = 1 << 13
"""So much is given to the decompressor at once: what it leaves over at a member's end is copied, and a body may have
half a million members."""


_COUNTED_BYTES: Final = 1 << 22
"""So much is looked at in one call, which holds the interpreter."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a batch may be.

    Attributes:
        max_body_bytes: As sent.
        max_decompressed_bytes: After gunzip.
        max_batch_records: Records in one batch.
    """

    max_body_bytes: int
    max_decompressed_bytes: int
    max_batch_records: int


@dataclass(frozen=True, slots=True)
class Payload:
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


def check_media_type(content_type: str | None) -> None:
    """Refuse what does not call itself JSON in UTF-8.

    Raises:
        Rejected: `UNSUPPORTED_CONTENT_TYPE`.
    """
    media_type, *parameters = (content_type or "").split(";")
    charsets = [
        value.strip().strip('"').lower()
        for name, _, value in (parameter.partition("=") for parameter in parameters)
        if name.strip().lower() == "charset"
    ]
    if media_type.strip().lower() != "application/json" or any(c not in {"utf-8", "utf8"} for c in charsets):
        raise Rejected("UNSUPPORTED_CONTENT_TYPE", "Only supported content type is application/json")


def is_gzip(content_encoding: str | None) -> bool:
    """Whether a body with this `Content-Encoding` (None: absent) is gzip'd.

    Raises:
        Rejected: `UNSUPPORTED_CONTENT_ENCODING`.
    """
    coding = (content_encoding or "identity").strip().lower()
    if coding not in {"", "identity", "gzip"}:
        raise Rejected("UNSUPPORTED_CONTENT_ENCODING", "Only supported content encoding is gzip")
    return coding == "gzip"


def too_large(limits: Limits) -> Rejected:
    """The refusal of a body that is larger than `max_body_bytes`, whoever notices it."""
    return _too_large(f"The body is larger than {limits.max_body_bytes} bytes (max_body_bytes)")


def decode(body: bytes, content_encoding: str | None, limits: Limits) -> Payload:
    """Take a body apart.

    Raises:
        Rejected: It breaks a rule of SPEC section 2 from `Content-Encoding` to `records should be a list`.
    """
    gzipped = is_gzip(content_encoding)
    if len(body) > limits.max_body_bytes:
        raise too_large(limits)
    text = _gunzip(_unwrap_buffer(body), limits.max_decompressed_bytes) if gzipped else body
    return _parse(text, limits.max_batch_records)


def name_in(text: bytes | None, key: str) -> str:
    """A tenant's name as the body has it.

    Raises:
        Rejected: `MISSING_FIELD` where it is absent, null or empty, `BAD_DATA` where it is no string.
    """
    if text is None or text in {b"null", b'""'}:
        raise Rejected("MISSING_FIELD", f"Missing Required field: {key}")
    if not text.startswith(b'"'):
        raise Rejected("BAD_DATA", f"{key} has to be a string")
    name: str = json.loads(text)
    return name


def _too_large(reason: str) -> Rejected:
    return Rejected("PAYLOAD_TOO_LARGE", reason)


def _too_large_decompressed(limit: int) -> Rejected:
    return _too_large(f"The body is larger than {limit} bytes when decompressed (max_decompressed_bytes)")


def _bad_gzip() -> Rejected:
    return Rejected("BAD_DATA", "Gzip Encoded data cannot be read")


def _bad_json() -> Rejected:
    return Rejected("BAD_DATA", "Not a valid JSON payload")


class _NodeBuffer(msgspec.Struct, forbid_unknown_fields=True):
    """How node prints a Buffer as JSON."""

    type: Literal["Buffer"]
    data: list[int]


def _unwrap_buffer(body: bytes) -> bytes:
    """The gzip that `volos-analytics-apigee` sends as a node Buffer's JSON (SPEC section 12); else `body` itself."""
    if not body.startswith(b"{"):
        return body
    try:
        return bytes(msgspec.json.decode(body, type=_NodeBuffer).data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise _bad_gzip() from exc


def _gunzip(body: bytes, limit: int) -> bytes:
    """All members of `body`, whole and nothing after them, of at most `limit` bytes."""
    if not body:
        raise _bad_gzip()
    parts: list[bytes] = []
    total = 0
    reader = deflate.decompressor()
    try:
        for start in range(0, len(body), _GZIP_SLICE_BYTES):
            data = body[start : start + _GZIP_SLICE_BYTES]
            while data:
                if reader.eof:
                    reader = deflate.decompressor()
                part = reader.decompress(data, limit - total + 1)
                parts.append(part)
                total += len(part)
                if total > limit:
                    raise _too_large_decompressed(limit)
                data = reader.unused_data if reader.eof else reader.unconsumed_tail
    except deflate.ERRORS as exc:
        raise _bad_gzip() from exc
    if not reader.eof:
        raise _bad_gzip()
    return b"".join(parts)


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
_array = msgspec.json.Decoder(list[Raw])


def _parse(text: bytes, max_records: int) -> Payload:
    """What a body that is one JSON object holds."""
    if not jsontext.is_utf8(text):
        raise _bad_json()
    records: list[JSONText] | Rejected
    try:
        body = _body.decode(text)
        organization, environment, records = _present(body.organization), _present(body.environment), [*body.records]
    except (msgspec.DecodeError, RecursionError):
        organization, environment, records = _parse_carefully(text)
    _check_depth(text, [] if isinstance(records, Rejected) else records)
    if isinstance(records, Rejected):
        return Payload(organization, environment, records)
    if not records:
        return Payload(organization, environment, _no_records())
    if len(records) > max_records:
        raise _too_large(f"The batch has more than {max_records} records (max_batch_records)")
    if b"\n" in text or b"\r" in text:  # JSON's strings hold none: these stand between tokens
        records = [bytes(record).replace(b"\n", b" ").replace(b"\r", b" ") for record in records]
    return Payload(organization, environment, records)


def _no_records() -> Rejected:
    return Rejected("NO_RECORDS", "No analytics records in the payload")


def _present(text: Raw | UnsetType) -> bytes | None:
    return None if isinstance(text, UnsetType) else bytes(text)


def _parse_carefully(text: bytes) -> tuple[bytes | None, bytes | None, list[JSONText] | Rejected]:
    """Organization, environment and records of a body that the fast way did not take."""
    masked = jsontext.mask_surrogates(text)
    try:
        body = _any_body.decode(masked)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise _bad_json() from exc
    organization, environment, records = map(_present, (body.organization, body.environment, body.records))
    if masked != text:  # what was masked is to be kept as it was sent
        values = {member.key: member.value for member in jsontext.members(text)}
        organization, environment, records = map(values.get, ("organization", "environment", "records"))
    if records is None or records == b"null":
        return organization, environment, _no_records()
    if not records.startswith(b"["):
        return organization, environment, Rejected("BAD_DATA", "records should be a list of analytics records")
    elements = _array.decode(records) if masked == text else jsontext.elements(records)
    return organization, environment, [*elements]


def _check_depth(text: bytes, records: list[JSONText]) -> None:
    """Refuse a body of more than `MAX_DEPTH` levels; looks closer only where there are enough brackets for that."""
    brackets = _brackets(text)
    if brackets - len(records) + 1 <= MAX_DEPTH:  # of the records' own brackets only one counts
        return
    counts = [_brackets(bytes(record)) for record in records]
    outside = brackets - sum(counts)
    if max(outside, *counts, 0) + 2 > MAX_DEPTH and jsontext.depth(text) > MAX_DEPTH:
        raise _bad_json()


def _brackets(text: bytes) -> int:
    slices = range(0, len(text), _COUNTED_BYTES)
    return sum(text.count(bracket, i, i + _COUNTED_BYTES) for bracket in (b"{", b"[") for i in slices)
