"""The rules for what stands before a body: the request line, the header fields, and what both say of the body's end.

Whatever a proxy in front of us and we could take differently is refused, and its connection closed: two readings of one
head are how a request is smuggled in the body of another (RFC 9112, section 11.2). So a line ends in CRLF, a field is
never folded, a length is digits, and there is one way to know where a body ends. A parser hands over lines and fields
as it finds them; what is lax in it does not matter then.

Pure: lines and fields in, a `Cut` or None out.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

MAX_REQUEST_LINE_BYTES: Final = 8192
"""As RFC 9112 (section 3) wants at least; our own paths have less than 300."""
MAX_HEAD_BYTES: Final = 16_384
MAX_FIELDS: Final = 500


@dataclass(frozen=True, slots=True)
class Cut:
    """Why a connection is cut: the answer in place of any resource's, behind which nothing more is read.

    Attributes:
        status: The status line's code and phrase.
        code: The answer's `errorCode`.
        reason: Its `reason`.
    """

    status: bytes
    code: str
    reason: str


NO_HTTP: Final = Cut(b"400 Bad Request", "BAD_DATA", "The request is not well-formed HTTP/1.1")
LINE_TOO_LONG: Final = Cut(
    b"414 URI Too Long", "BAD_DATA", f"The request line is longer than {MAX_REQUEST_LINE_BYTES} bytes"
)
HEAD_TOO_LARGE: Final = Cut(
    b"431 Request Header Fields Too Large",
    "BAD_DATA",
    f"The headers are more than {MAX_HEAD_BYTES} bytes, or more than {MAX_FIELDS}",
)
TOO_SLOW: Final = Cut(
    b"408 Request Timeout", "BAD_DATA", "The request was not received whole in time (request_timeout)"
)
FAR_TOO_LARGE: Final = Cut(b"413 Content Too Large", "PAYLOAD_TOO_LARGE", "The body is far too large (max_body_bytes)")
NOT_WANTED: Final = Cut(b"413 Content Too Large", "PAYLOAD_TOO_LARGE", "The body is too large (max_body_bytes)")
CHUNKS_TOO_SMALL: Final = Cut(
    b"400 Bad Request",
    "BAD_DATA",
    "The chunks of the body are too small, or their extensions too long: send larger ones",
)
UNKNOWN_EXPECTATION: Final = Cut(b"417 Expectation Failed", "BAD_DATA", "The only expectation met is 100-continue")
_AMBIGUOUS: Final = Cut(
    b"400 Bad Request", "BAD_DATA", "Where the body ends is not clear: send one Content-Length, or chunks, not both"
)

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE: Final = re.compile(_TOKEN + rb" [!-~\x80-\xff]+ HTTP/1\.[01]")
_FIELD: Final = re.compile(rb"(" + _TOKEN + rb"):([\t -~\x80-\xff]*)")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")


def line_problem(line: bytes) -> Cut | None:
    """What is wrong with a request line, given without its end."""
    if len(line) > MAX_REQUEST_LINE_BYTES:
        return LINE_TOO_LONG
    return None if _REQUEST_LINE.fullmatch(line) else NO_HTTP


def field_problem(line: bytes) -> Cut | None:
    """What is wrong with the line of a header field, or of a trailer's, given without its end; also a folded one is."""
    field = _FIELD.fullmatch(line)
    if field is None:
        return NO_HTTP
    if field[1].lower() == b"content-length" and not _LENGTH.fullmatch(field[2].strip(b" \t")):
        return NO_HTTP
    return None


def problem(version: bytes, values_of: Callable[[bytes], Sequence[bytes]]) -> Cut | None:
    """What is wrong with a head of which each line is right.

    Args:
        version: The protocol's, `HTTP/1.1` or `HTTP/1.0`.
        values_of: The values of a header, by its name, blanks around them removed; none where it is absent.
    """
    lengths, codings = values_of(b"Content-Length"), values_of(b"Transfer-Encoding")
    if len(lengths) + len(codings) > 1:
        return _AMBIGUOUS
    if codings and (version != b"HTTP/1.1" or codings[0].lower() != b"chunked"):
        return _AMBIGUOUS
    if len(values_of(b"Host")) > 1:
        return NO_HTTP
    if version == b"HTTP/1.1" and any(each.lower() != b"100-continue" for each in values_of(b"Expect")):
        return UNKNOWN_EXPECTATION
    return None


def persists(version: bytes, values_of: Callable[[bytes], Sequence[bytes]]) -> bool:
    """Whether the connection stays open behind the answer."""
    options = {option.strip().lower() for value in values_of(b"Connection") for option in value.split(b",")}
    return version == b"HTTP/1.1" and b"close" not in options
