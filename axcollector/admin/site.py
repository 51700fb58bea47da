"""The admin pages as one resource, which browsers may be shown and other people's web pages may not use.

A browser sends what any web page tells it to, from inside the network that the admin port is kept for. Two things keep
such a page from using it:

* **Changes** (whatever is not GET or HEAD) need a header that no form can send, and that a script of another origin can
  send only after asking, which is never allowed here. Where the browser says which origin asks, it has to be this one.
* **Names.** A page can give its own name the address of this machine, and is of the same origin then (DNS rebinding).
  With a token that is of no use to it, because a browser keeps passwords by name. Where there is none, the name that
  was asked for has to be one of this machine's own, which no page elsewhere has. A Unix socket is out of its reach.

What opens to everybody without a token, `access.OPEN`, is open here too.
"""

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from klein import Klein, KleinRenderable
from twisted.internet.address import UNIXAddress
from twisted.web.iweb import IRequest

from axcollector import answers
from axcollector.admin.access import OPEN, AdminToken
from axcollector.core.errors import Rejected
from axcollector.webapi import JSONResource, headers_of

CHANGE_HEADER: Final = "X-Axcollector"
"""Every request that changes something has it; which value, does not matter."""

_FOR_ALL: Final = (
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
    (b"Referrer-Policy", b"no-referrer"),
    (b"Cache-Control", b"no-store"),
)


class AdminResource(JSONResource):
    """The routes of an app, for whom they are."""

    def __init__(self, app: Klein, token: AdminToken) -> None:
        super().__init__(app)
        self._token = token

    def render(self, request: IRequest) -> KleinRenderable:
        """Answer, or refuse."""
        for name, value in _FOR_ALL:
            request.setHeader(name, value)
        reason = self._objection(request)
        if reason is None:
            return super().render(request)
        body = answers.refuse(request, Rejected("FORBIDDEN", reason))
        return b"" if request.method == b"HEAD" else body

    def _objection(self, request: IRequest) -> str | None:
        """Why a request is not for its sender to make; None: it is."""
        if request.path in OPEN:
            return None
        hosts = headers_of(request, b"host")
        is_reached_by_name = not isinstance(request.getHost(), UNIXAddress)
        if not self._token.is_needed and is_reached_by_name and not all(map(is_own_name, hosts)):
            return (
                "Without a token (admin_token) the admin pages are shown only under this machine's own names, such as"
                " localhost or 127.0.0.1: ask for one of those, or set a token"
            )
        return None if request.method in {b"GET", b"HEAD"} else objection_to_change(request, hosts)


def is_own_name(host: str) -> bool:
    """Whether a Host header names this machine, as no page elsewhere can: localhost, or an address of its loopback."""
    try:
        name = (urlsplit(f"//{host}").hostname or "").removesuffix(".")
        return name == "localhost" or name.endswith(".localhost") or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def objection_to_change(request: IRequest, hosts: list[str]) -> str | None:
    """Why nothing is changed for a request; None: it may well be."""
    if not headers_of(request, CHANGE_HEADER.encode()):
        return f"Whatever changes something needs the header {CHANGE_HEADER}, with any value"
    if not set(headers_of(request, b"sec-fetch-site")) <= {"same-origin", "none"}:
        return "Nothing is changed for other web pages (Sec-Fetch-Site)"
    named = [host.lower() for host in hosts]
    if any([_authority_of(origin)] != named for origin in headers_of(request, b"origin")):
        return "Nothing is changed for other web pages (Origin)"
    return None


def _authority_of(origin: str) -> str:
    """Host and port of an origin, as they stand in a Host header; nothing, where it has none."""
    return origin.partition("://")[2].lower()
