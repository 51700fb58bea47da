"""Who may see the admin pages: whoever has the token, where there is one.

It is sent as `Authorization: Bearer …`, or as the password of Basic (with any user name), which is what a browser asks
for. `/healthz` and `/readyz` answer everybody, because load balancers and kubelets have no token, but `/readyz` names
reasons only to those who have it. Every other path, also one that does not exist, is 401 without it.
"""

import hashlib
import hmac
import re
from typing import Any, Final

from klein import KleinRenderable
from klein.resource import KleinResource
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource

from axcollector import answers
from axcollector.admin.asked import MOST_BYTES
from axcollector.core.authorization import BEARER_OR_BASIC, token_in
from axcollector.core.errors import ConfigError, Rejected
from axcollector.regular import regular
from axcollector.site import IngestSite

OPEN: Final = frozenset({b"/healthz", b"/readyz"})
MOST_CONNECTIONS: Final = 128
"""Fewer than the open files that connections for records leave to the rest of the process."""
_MOST_PENDING_BYTES: Final = 1 << 18
_REQUEST_SECONDS: Final = 30.0
_TOKEN: Final = re.compile(rb"\s*([!-~]{1,4096})\s*")


class AdminToken:
    """The token in force, as its digest; it can be exchanged."""

    def __init__(self, token: str | None) -> None:
        self._digest = b""
        self.use(token)

    def use(self, token: str | None) -> None:
        """From now on this is the token; None: nobody needs one."""
        self._digest = b"" if token is None else _digest(token.encode())

    @property
    def is_needed(self) -> bool:
        """Whether anybody needs one."""
        return bool(self._digest)

    def allows(self, request: IRequest) -> bool:
        """Whether a request may see everything."""
        if not self._digest:
            return True
        given = request.requestHeaders.getRawHeaders(b"authorization", [])
        token = token_in([value.decode("latin-1") for value in given], as_password=True)
        return token is not None and hmac.compare_digest(_digest(token.encode()), self._digest)


def read_token(token: str | None, path: str | None) -> str | None:
    """The token that the configuration names: itself, or that in a file. Blocking.

    Raises:
        ConfigError: The file cannot be read, or either is not one token; the message holds nothing of it.
    """
    if path is None:
        if token is not None and not _TOKEN.fullmatch(token.encode(errors="surrogatepass")):
            raise ConfigError("admin_token is not one token; allowed are visible ASCII characters")
        return token and token.strip()
    try:
        with open(path, "rb", opener=regular) as file:
            match = _TOKEN.fullmatch(file.read(1 << 13))
    except OSError as exc:
        raise ConfigError(f"admin_token_file: {path} cannot be read: {exc.strerror}") from exc
    if match is None:
        raise ConfigError(f"admin_token_file: {path} does not hold one token; allowed are visible ASCII characters")
    return match[1].decode("ascii")


class GuardedResource(Resource):
    """The admin pages behind their token."""

    isLeaf = True  # noqa: N815 - Twisted's name

    def __init__(self, pages: KleinResource, token: AdminToken) -> None:
        make: Any = super().__init__  # has no types
        make()
        self._pages = pages
        self._token = token

    def render(self, request: IRequest) -> KleinRenderable:
        """Answer, or ask for the token."""
        if request.path in OPEN or self._token.allows(request):
            return self._pages.render(request)
        refusal = Rejected("UNAUTHORIZED", "The admin token is needed (admin_token)", BEARER_OR_BASIC)
        body = answers.refuse(request, refusal)
        return b"" if request.method == b"HEAD" else body


class AdminSite(IngestSite):
    """Where the admin pages are served, to whoever gets that far: what comes is bounded before the token is looked at.

    It writes no access log: a probe comes every few seconds, and what stands in a path or query may be a secret.
    """

    def __init__(self, pages: GuardedResource, clock: IReactorTime) -> None:
        super().__init__(
            pages,
            clock,
            max_body_bytes=MOST_BYTES,
            max_pending_bytes=_MOST_PENDING_BYTES,
            request_timeout_seconds=_REQUEST_SECONDS,
            max_connections=MOST_CONNECTIONS,
            limit_name="the limit of the admin port",
        )


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
