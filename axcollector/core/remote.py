"""What the answers of a remote collector mean: the exceptions that one in the same process would have raised."""

from typing import Final

import msgspec

from axcollector.core.errors import (
    STATUS_OF_CODE,
    LookupFailed,
    NotReady,
    Overloaded,
    RateLimited,
    Refusal,
    Rejected,
    SpoolFailed,
    Unreachable,
)

_LONGEST_REASON: Final = 1000
_OF_PROXIES: Final = {401: "UNAUTHORIZED", 403: "FORBIDDEN", 413: "PAYLOAD_TOO_LARGE"}
"""What is final also where something other than a collector says it."""


class _Accepted(msgspec.Struct):
    accepted: int


class _Error(msgspec.Struct):
    error_code: str = msgspec.field(default="", name="errorCode")
    reason: str = ""


_ACCEPTED: Final = msgspec.json.Decoder(_Accepted)
_ERROR: Final = msgspec.json.Decoder(_Error)


def accepted_in(body: bytes, url: str) -> int:
    """How many records a 200 says were accepted.

    Raises:
        Unreachable: It says nothing of the kind.
    """
    try:
        accepted = _ACCEPTED.decode(body).accepted
    except (ValueError, RecursionError):
        accepted = -1
    if accepted < 0:
        raise Unreachable(f"what answers at {url} is no collector: its answer does not say how many it has accepted")
    return accepted


def refusal_of(status: int, body: bytes, retry_after: float | None, url: str) -> Refusal:
    """What any other answer says.

    Args:
        status: Its status.
        body: Its body, or the beginning of it.
        retry_after: The seconds that its `Retry-After` asks for, or None.
        url: Whose answer it is, for the reason.
    """
    try:
        said = _ERROR.decode(body)
    except (ValueError, RecursionError):
        said = _Error()
    code, reason = said.error_code, said.reason[:_LONGEST_REASON]
    if code in STATUS_OF_CODE and 400 <= status < 500:
        return Rejected(code, reason)
    if code == "RATE_LIMITED" or status == 429:
        return RateLimited(reason or f"{url} answered 429", 1.0 if retry_after is None else retry_after)
    if code == "OVERLOADED":
        return Overloaded(reason, Overloaded.DEFAULT_RETRY_AFTER if retry_after is None else retry_after)
    if code == "STORAGE_UNAVAILABLE":
        return SpoolFailed(reason, SpoolFailed.DEFAULT_RETRY_AFTER if retry_after is None else retry_after)
    if code == "INTERNAL_SEARCH_ERROR":
        return LookupFailed(reason)
    if code == NotReady.code and reason == NotReady().reason:
        return NotReady()
    if status in _OF_PROXIES:
        return Rejected(_OF_PROXIES[status], f"{url} answered {status}")
    more = f" ({code}: {reason})" if code else ""
    return Unreachable(
        f"{url} answered {status}{more}", Unreachable.DEFAULT_RETRY_AFTER if retry_after is None else retry_after
    )
