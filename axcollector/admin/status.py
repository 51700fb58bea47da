"""What a collector says of itself, as JSON on the admin port: `/status`, and `/tenants`.

`/status` is a `Status`. `/tenants` is a list of `TenantTraffic`, by records, descending; `?limit=` cuts it off, and
`?search=` leaves those in whose organization or environment the text stands, in whatever case. There may be 10,000 of
them, so it is made in pieces, between which the reactor has its turn.
"""

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec
from klein import Klein
from twisted.internet import task
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IRequest

from axcollector import answers
from axcollector.core.errors import Rejected
from axcollector.core.status import Status, TenantTraffic
from axcollector.core.traffic import Traffic

TENANTS_A_TURN: Final = 1000
"""So many tenants are looked at, or written, before the reactor has its turn: a millisecond or two."""


class Subject(Protocol):
    """Who says it."""

    @property
    def traffic(self) -> Traffic:
        """What tenants have sent."""
        ...

    def status(self) -> Status:
        """How it is."""
        ...


def add_status(app: Klein, subject: Subject, clock: IReactorTime) -> None:
    """Give an app the routes; the clock gives the reactor its turns."""

    @app.route("/status", methods=["GET"])
    def status(request: IRequest) -> bytes:
        """All of it."""
        return _fresh(request, msgspec.json.encode(subject.status()))

    @app.route("/tenants", methods=["GET"])
    async def tenants(request: IRequest) -> bytes:
        """Who has sent how much."""
        limit, search = _limit_of(request), _text_of(request, b"search").casefold()
        found = await _found(subject.traffic, search, clock)
        found.sort(key=lambda each: -each.records)
        return _fresh(request, await _encoded(found[:limit], clock))


async def _found(traffic: Traffic, search: str, clock: IReactorTime) -> list[TenantTraffic]:
    found: list[TenantTraffic] = []
    for piece in traffic.pieces(TENANTS_A_TURN):
        found += [
            each
            for each in piece
            if not search or search in each.organization.casefold() or search in each.environment.casefold()
        ]
        if len(piece) == TENANTS_A_TURN:
            await task.deferLater(clock, 0)
    return found


async def _encoded(found: Sequence[TenantTraffic], clock: IReactorTime) -> bytes:
    pieces: list[bytes] = []
    for at in range(0, len(found), TENANTS_A_TURN):
        if at:
            await task.deferLater(clock, 0)
        pieces.append(msgspec.json.encode(found[at : at + TENANTS_A_TURN])[1:-1])
    return b"[" + b",".join(pieces) + b"]"


def _limit_of(request: IRequest) -> int | None:
    text = _text_of(request, b"limit")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Rejected("BAD_DATA", "limit has to be a number of tenants, like ?limit=100")
    return int(text)


def _text_of(request: IRequest, name: bytes) -> str:
    """The last value of a field of the query, "" where there is none."""
    values: Sequence[bytes] = request.args.get(name, [b""])
    return values[-1].decode(errors="replace")


def _fresh(request: IRequest, body: bytes) -> bytes:
    """An answer that is good for this moment only."""
    request.setHeader(b"Cache-Control", b"no-store")
    return answers.give(request, 200, body)
