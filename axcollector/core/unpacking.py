"""A body as it was sent → its text: what may be sent, how large, and bounded gunzip (SPEC section 2)."""

from dataclasses import dataclass
from io import BytesIO
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from axcollector.core import deflate
from axcollector.core.errors import Rejected

_GZIP_SLICE_BYTES: Final = 1 << 13
"""So much is given to the decompressor at once: what it leaves over at a member's end is copied, and a body may have
half a million members."""
_GZIP_AT_ONCE_BYTES: Final = 1 << 19
"""A body of this size is mostly one member, as nearly all are, and taken as that first."""
_MEMBERS_AT_ONCE_BYTES: Final = 1 << 16
"""A body of several members takes a hundred times as long as one of one, if each holds nothing."""


class NeedsCare(Exception):
    """The body or a record is one of the rare ones that take long; raised where the caller would not wait for them."""


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


def check_media_type(content_type: str | None) -> None:
    """Refuse what does not call itself JSON in UTF-8.

    Raises:
        Rejected: `UNSUPPORTED_CONTENT_TYPE`.
    """
    if content_type == "application/json":  # as nearly all say
        return
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
    if not content_encoding:  # as with most bodies
        return False
    coding = content_encoding.strip().lower()
    if coding not in {"", "identity", "gzip"}:
        raise Rejected("UNSUPPORTED_CONTENT_ENCODING", "Only supported content encoding is gzip")
    return coding == "gzip"


def too_large(limits: Limits) -> Rejected:
    """The refusal of a body that is larger than `max_body_bytes`, whoever notices it."""
    return payload_too_large(f"The body is larger than {limits.max_body_bytes} bytes (max_body_bytes)")


def unpack(body: bytes, content_encoding: str | None, limits: Limits, *, careful: bool = True) -> bytes:
    """The text of a body, with its coding undone.

    Raises:
        NeedsCare: It is gzip'd, and so large or so made that this may take long, and `careful` is false.
        Rejected: The coding is another, the body is too large, or it does not gunzip whole.
    """
    gzipped = is_gzip(content_encoding)
    if len(body) > limits.max_body_bytes:
        raise too_large(limits)
    if not gzipped:
        return body
    if not careful and len(body) > _GZIP_AT_ONCE_BYTES:
        raise NeedsCare
    return _gunzip(_unwrap_buffer(body), limits.max_decompressed_bytes, careful=careful)


def payload_too_large(reason: str) -> Rejected:
    """The refusal of a body that is too large in whatever way."""
    return Rejected("PAYLOAD_TOO_LARGE", reason)


def _too_large_decompressed(limit: int) -> Rejected:
    return payload_too_large(f"The body is larger than {limit} bytes when decompressed (max_decompressed_bytes)")


def _bad_gzip() -> Rejected:
    return Rejected("BAD_DATA", "Gzip Encoded data cannot be read")


class _NodeBuffer(msgspec.Struct, forbid_unknown_fields=True):
    """How node prints a Buffer as JSON."""

    type: Literal["Buffer"]
    data: list[Annotated[int, Meta(ge=0, le=255)]]


def _unwrap_buffer(body: bytes) -> bytes:
    """The gzip that `volos-analytics-apigee` sends as a node Buffer's JSON (SPEC section 12); else `body` itself."""
    if not body.startswith(b"{"):
        return body
    try:
        return bytes(msgspec.json.decode(body, type=_NodeBuffer).data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise _bad_gzip() from exc


def _gunzip(body: bytes, limit: int, *, careful: bool) -> bytes:
    """All members of `body`, whole and nothing after them, of at most `limit` bytes."""
    if len(body) > _GZIP_AT_ONCE_BYTES:
        return _gunzip_in_slices(body, limit)
    reader = deflate.decompressor()
    try:
        text = reader.decompress(body, limit + 1)
    except deflate.ERRORS as exc:
        raise _bad_gzip() from exc
    if len(text) > limit:
        raise _too_large_decompressed(limit)
    if not reader.eof:
        raise _bad_gzip()
    if not reader.unused_data:
        return text
    if not careful and len(body) > _MEMBERS_AT_ONCE_BYTES:
        raise NeedsCare
    return _gunzip_in_slices(body, limit)


def _gunzip_in_slices(body: bytes, limit: int) -> bytes:
    """The same, however many members there are."""
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
                if part:
                    parts.append(part)
                    total += len(part)
                if total > limit:
                    raise _too_large_decompressed(limit)
                data = reader.unused_data if reader.eof else reader.unconsumed_tail
    except deflate.ERRORS as exc:
        raise _bad_gzip() from exc
    if not reader.eof:
        raise _bad_gzip()
    return _joined(parts, total)


def _joined(parts: list[bytes], size: int) -> bytes:
    """The parts, which are gone then: each is let go when it was copied, so that there are never two of everything."""
    text = BytesIO(bytes(size))  # zeros that nobody has written yet take no memory
    parts.reverse()
    while parts:
        text.write(parts.pop())
    return text.getvalue()  # not a copy
