"""What stands in a request to the admin pages: a number in its query, a small JSON document in its body."""

from typing import Final, TypeVar

import msgspec
from twisted.web.iweb import IRequest

from axcollector.core.errors import Overloaded, Rejected
from axcollector.reception import Reception

T = TypeVar("T")

_MOST_DIGITS: Final = 15
MOST_BYTES: Final = 4096
"""A body may have so many; of a longer one nothing is kept."""


def number_asked(request: IRequest, name: str) -> int:
    """A whole number of the query, 0 where there is none.

    Raises:
        Rejected: It is none.
    """
    values = request.args.get(name.encode(), [b"0"])
    if len(values) != 1 or not values[0].isdigit() or len(values[0]) > _MOST_DIGITS:
        raise Rejected("BAD_DATA", f"{name} has to be a whole number of up to {_MOST_DIGITS} digits, and be there once")
    return int(values[0])


def document_asked(request: IRequest, kind: type[T]) -> T:
    """The JSON document that a request is.

    Raises:
        Rejected: It is not of its kind.
    """
    reception: Reception = getattr(request, "reception", None) or Reception()
    if reception.shed:
        raise Overloaded("Too many bytes are being received already")
    body = request.content.read(MOST_BYTES + 1)
    if reception.oversize or len(body) > MOST_BYTES:
        raise Rejected("PAYLOAD_TOO_LARGE", f"The body may have {MOST_BYTES} bytes")
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise Rejected("BAD_DATA", f"The body cannot be used: {exc}") from exc
