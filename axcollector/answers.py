"""What every door answers: JSON objects, whatever happened."""

import math
from collections.abc import Sequence
from typing import Final

import msgspec
from twisted.web.iweb import IRequest

from axcollector.core.errors import Refusal, Rejected

CONTENT_TYPE: Final = b"application/json; charset=utf-8"


def accepted(count: int, quarantined: int | None = None) -> bytes:
    """The body of a 200: so many records are durable. `rejected` stays 0 (SPEC section 2 says why).

    How many were set aside is said wherever any might be, also when none are.
    """
    if quarantined is None:
        return b'{"accepted": %d, "rejected": 0}' % count
    return b'{"accepted": %d, "rejected": 0, "quarantined": %d}' % (count, quarantined)


def error(code: str, reason: str) -> bytes:
    """The body of any other answer."""
    return msgspec.json.encode({"errorCode": code, "reason": reason.encode(errors="replace").decode()})


def headers_of(refusal: Refusal) -> list[tuple[bytes, bytes]]:
    """The headers that say what to do about a refusal, beside the usual ones."""
    if isinstance(refusal, Rejected) and refusal.code == "UNAUTHORIZED":
        return [(b"WWW-Authenticate", refusal.challenge.encode())]
    if refusal.retry_after is None:
        return []
    return [(b"Retry-After", b"%d" % max(1, math.ceil(refusal.retry_after)))]


def give(request: IRequest, status: int, body: bytes) -> bytes:
    """Set the answer's status and usual headers; the body, for a renderer to return."""
    request.setResponseCode(status)
    request.setHeader(b"Content-Type", CONTENT_TYPE)
    request.setHeader(b"Content-Length", b"%d" % len(body))
    return body


def refuse(request: IRequest, refusal: Refusal) -> bytes:
    """The same for a refusal."""
    for name, value in headers_of(refusal):
        request.setHeader(name, value)
    return give(request, refusal.status, error(refusal.code, refusal.reason))


def raw(status: bytes, code: str, reason: str, headers: Sequence[bytes] = ()) -> bytes:
    """A whole HTTP answer that closes the connection, for requests that no resource gets to see."""
    body = error(code, reason)
    usual = (b"Content-Type: " + CONTENT_TYPE, b"Content-Length: %d" % len(body), b"Connection: close")
    return b"\r\n".join([b"HTTP/1.1 " + status, *usual, *headers, b"", body])
