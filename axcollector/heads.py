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


ValuesOf = Callable[[bytes], Sequence[bytes]]
"""The values of a header, by its name in small letters, blanks around them removed; none where it is absent."""


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
_REQUEST_LINE: Final = re.compile(_TOKEN + rb" [!-~\x80-\xb0]+ HTTP/1\.[01]")
"""Of the bytes over 127, which no URI has, Twisted's parser takes these; every parser takes the same."""
_FIELD: Final = re.compile(rb"(" + _TOKEN + rb"):([\t -~\x80-\xff]*)")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_PLAIN_HEAD: Final = re.compile(
    _REQUEST_LINE.pattern
    + rb"\r\n(?:(?!(?i:content-length):(?![ \t]*[0-9]{1,18}[ \t]*\r\n))"
    + _TOKEN
    + rb":[\t -~\x80-\xff]*\r\n)*"
)
"""A head of lines that are all right; the others are looked at one by one, to tell which is wrong and how."""
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]+)(?:;[\t -~\x80-\xff]*)?")
MAX_CHUNK_LINE_BYTES: Final = 1024


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


def lines_problem(head: bytes) -> Cut | None:
    """What is wrong with the lines of a head, given with their ends; the first has to be the request's.

    The hot path, where all is right: it takes no line apart.
    """
    if len(head) <= MAX_REQUEST_LINE_BYTES and _PLAIN_HEAD.fullmatch(head):
        found = None
    else:
        line, *fields = head.removesuffix(b"\r\n").split(b"\r\n")
        found = line_problem(line) or next(filter(None, map(field_problem, fields)), None)
    return HEAD_TOO_LARGE if found in {None, NO_HTTP} and _is_large(head) else found


def _is_large(head: bytes) -> bool:
    """Whether a head, with its lines' ends, which do not count, is more than is taken."""
    if len(head) <= MAX_HEAD_BYTES and len(head) < 2 * MAX_FIELDS:
        return False
    lines = head.count(b"\r\n")
    return lines > MAX_FIELDS + 1 or len(head) - 2 * lines > MAX_HEAD_BYTES


def unfinished_problem(head: bytes) -> Cut | None:
    """What is wrong already with a head of which more is to come; of its last line only the length."""
    done, end, rest = head.rpartition(b"\r\n")
    if b"\n" in rest:
        return NO_HTTP
    if end:
        return lines_problem(done + end) or (HEAD_TOO_LARGE if _is_large(head) else None)
    return LINE_TOO_LONG if len(rest) > MAX_REQUEST_LINE_BYTES + 1 else None


def chunk_size(line: bytes) -> int | None:
    """The size that the line before a chunk tells, given without its end; None where it is none."""
    found = _CHUNK.fullmatch(line) if len(line) < MAX_CHUNK_LINE_BYTES else None
    return None if found is None else int(found[1], 16)


def problem(version: bytes, values_of: ValuesOf) -> Cut | None:
    """What is wrong with a head of which each line is right.

    Args:
        version: The protocol's, `HTTP/1.1` or `HTTP/1.0`.
        values_of: The values of its headers.
    """
    lengths, codings = values_of(b"content-length"), values_of(b"transfer-encoding")
    if len(lengths) + len(codings) > 1:
        return _AMBIGUOUS
    if codings and (version != b"HTTP/1.1" or codings[0].lower() != b"chunked"):
        return _AMBIGUOUS
    if len(values_of(b"host")) > 1:
        return NO_HTTP
    if version == b"HTTP/1.1" and any(each.lower() != b"100-continue" for each in values_of(b"expect")):
        return UNKNOWN_EXPECTATION
    return None


def persists(version: bytes, values_of: ValuesOf) -> bool:
    """Whether the connection stays open behind the answer."""
    options = {option.strip().lower() for value in values_of(b"connection") for option in value.split(b",")}
    return version == b"HTTP/1.1" and b"close" not in options
