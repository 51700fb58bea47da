"""What every door answers: JSON objects, whatever happened."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec
from twisted.internet import defer
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import RESPONSES
from twisted.web.iweb import IRequest

from axcollector.bugs import report
from axcollector.core.errors import Overloaded, Refusal, Rejected
from axcollector.core.traces import without_trace

CONTENT_TYPE: Final = b"application/json; charset=utf-8"
BROKEN_OFF: Final = "BROKEN_OFF"
"""What requests are counted as whose clients hung up before the answer, or that a stop has broken off."""


class Answer(NamedTuple):
    """An answer; answers are kept by what they are (`IngestSite.usual_answer`), so nothing in one can be changed.

    Attributes:
        status: Its status.
        body: Its body.
        headers: Its headers, beside the usual ones.
        code: What it is counted as: the `errorCode` in its body, or that it was taken.
    """

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    code: str = "ACCEPTED"


UNHEARD: Final = Answer(503, b"", code=BROKEN_OFF)
"""What a request is counted as whose client has hung up; nobody is sent it."""


@lru_cache(maxsize=256)
def taken(count: int, quarantined: int | None = None) -> Answer:
    """The 200 that says so many records are durable; most say one of a few numbers."""
    return Answer(200, accepted(count, quarantined))


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


def headers_of(refusal: Refusal) -> tuple[tuple[bytes, bytes], ...]:
    """The headers that say what to do about a refusal, beside the usual ones."""
    if isinstance(refusal, Rejected) and refusal.code == "UNAUTHORIZED":
        return ((b"WWW-Authenticate", refusal.challenge.encode()),)
    if refusal.retry_after is None:
        return ()
    return ((b"Retry-After", b"%d" % max(1, math.ceil(refusal.retry_after))),)


def of_refusal(refusal: Refusal) -> Answer:
    """The answer that says why a request is refused."""
    return Answer(refusal.status, error(refusal.code, refusal.reason), headers_of(refusal), refusal.code)


def of_problem(problem: BaseException, log: Logger) -> Answer:
    """The answer to a request that failed, in whatever way; what nobody foresaw is logged."""
    if isinstance(problem, defer.CancelledError):  # a thread that was to work on it has stopped, or nobody listens
        return of_refusal(Overloaded("The service is stopping"))._replace(code=BROKEN_OFF)
    if isinstance(problem, Refusal):
        return of_refusal(without_trace(problem))
    report(log, "a request failed in a way nobody foresaw", Failure(problem))
    code = "INTERNAL_SERVER_ERROR"
    return Answer(500, error(code, "The request could not be processed"), code=code)


def whole(answer: Answer, version: bytes, usual_headers: bytes, *, persistent: bool) -> bytes:
    """An answer as it is sent, with the headers that Twisted would send.

    Args:
        answer: The answer.
        version: The protocol's.
        usual_headers: The lines of the headers that every answer has.
        persistent: Whether the connection stays open behind it.
    """
    status, body, headers, _ = answer
    parts = [b"%b %d %b\r\n" % (version, status, RESPONSES.get(status, b"Unknown Status")), usual_headers]
    if not persistent:
        parts.append(b"Connection: close\r\n")
    parts += [b"%b: %b\r\n" % header for header in headers]
    parts.append(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
    return b"".join(parts)


def give(request: IRequest, status: int, body: bytes) -> bytes:
    """Set the answer's status and usual headers; the body, for a renderer to return."""
    request.setResponseCode(status)
    request.setHeader(b"Content-Type", CONTENT_TYPE)
    request.setHeader(b"Content-Length", b"%d" % len(body))
    return body


def give_whole(request: IRequest, answer: Answer) -> bytes:
    """The same for an answer with headers of its own."""
    for name, value in answer.headers:
        request.setHeader(name, value)
    return give(request, answer.status, answer.body)


def refuse(request: IRequest, refusal: Refusal) -> bytes:
    """The same for a refusal."""
    return give_whole(request, of_refusal(refusal))


def raw(status: bytes, code: str, reason: str, headers: Sequence[bytes] = ()) -> bytes:
    """A whole HTTP answer that closes the connection, for requests that no resource gets to see."""
    body = error(code, reason)
    usual = (b"Content-Type: " + CONTENT_TYPE, b"Content-Length: %d" % len(body), b"Connection: close")
    return b"\r\n".join([b"HTTP/1.1 " + status, *usual, *headers, b"", body])
