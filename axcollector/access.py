"""Who may send, and how much: what the door asks of a request, at the places that SPEC section 2 gives these checks.

With tokens, a request for a scope is refused before anybody looks whether there is such a scope, and one for a tenant's
names after the one look-up of which scopes have them, be it none. So what a stranger is told, and how long it takes,
is the same for what exists and for what does not: 403. Only the holder of a scope's token learns that it is gone, by
the same answer.

Tokens are looked up in memory and scopes, with caching, in the catalog: it costs microseconds.

The refusal of a scope that sends too much is held back for a second. Clients that send the next batch as soon as they
have their answer would else ask thousands of times a second, and though each question costs little, the clients of
other scopes would wait behind them all. The same goes for those without a good token, once they are many: a few a
second are told at once, because some clients ask first without the credentials that they have.
"""

from collections.abc import Awaitable, Sequence
from typing import Final, Protocol

from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from axcollector.core.authorization import BEARER_OR_BASIC, token_in
from axcollector.core.catalog import Catalog
from axcollector.core.errors import Rejected
from axcollector.core.model import Tenant
from axcollector.core.rates import RateLimits, Rates
from axcollector.sync.directory import Directory
from axcollector.tokens import Token

HOLD_BACK_SECONDS: Final = 1.0
"""So long the refusal of a scope that sends too much is held back; none is told to come again sooner."""

MOST_HELD_BACK: Final = 500
"""So many refusals are held back at a time; half as many of strangers, who are not to take all places."""

STRANGERS_A_SECOND: Final = 50
"""So many who have no token that is good for what they ask are told so at once."""


class Tokens(Protocol):
    """Who knows tokens."""

    def find(self, secret: str, /) -> Token | None:
        """The token of this text, if it is good for anything; raises `Unavailable` where that is not known."""
        ...


class Access(Service):
    """The rules of one door. While it runs, refusals are held back.

    Attributes:
        clock: Tells the time.
        directory: Knows scopes and tenants.
        tokens: Knows tokens; None: nobody needs one.
        rates: What scopes have sent; None: as much as they like.
    """

    def __init__(
        self,
        clock: IReactorTime,
        directory: Directory,
        tokens: Tokens | None = None,
        limits: RateLimits | None = None,
    ) -> None:
        """Nobody has come yet."""
        self.clock = clock
        self.directory = directory
        self.tokens = tokens
        self.rates = Rates(limits) if limits else None
        self._held: set[defer.Deferred[None]] = set()
        self._second = 0
        self._strangers = 0

    def stopService(self) -> None:
        """Hold nothing back any more."""
        self.running = False
        for held in list(self._held):
            held.callback(None)

    def tenant_at_once(
        self, catalog: Catalog, scope: str | None, names: tuple[str, str] | None, authorization: Sequence[str]
    ) -> Tenant | None:
        """The tenant of a scope or of names, for one who may enter; None where that is not so, or cannot be told so.

        It changes nothing: where rates are limited, what comes has to be counted, by a `visit`.
        """
        if not self.tells_at_once(scope):
            return None
        if scope is None:
            return None if names is None else catalog.tenant_of_names(*names)
        if self.tokens is not None:
            secret = token_in(authorization, as_password=True)
            token = None if secret is None else self.tokens.find(secret)
            if token is None or not token.covers(scope):
                return None
        return catalog.tenant_of_scope(scope)

    def tells_at_once(self, scope: str | None) -> bool:
        """Whether `tenant_at_once` can tell anything: of a scope, or, with None, of names."""
        return self.rates is None and (scope is not None or self.tokens is None)

    def visit(self, authorization: Sequence[str]) -> "Visit":
        """A request has come, with these values of `Authorization` headers."""
        return Visit(self, authorization)

    async def hold_back_stranger(self) -> float:
        """As `hold_back`, for one who has no good token; only where there are many."""
        second = int(self.clock.seconds())
        if second != self._second:
            self._second, self._strangers = second, 0
        self._strangers += 1
        return await self.hold_back(MOST_HELD_BACK // 2) if self._strangers > STRANGERS_A_SECOND else 0.0

    async def hold_back(self, most: int = MOST_HELD_BACK) -> float:
        """Wait with a refusal, unless so many wait already that their connections would be missed. For how long."""
        if not self.running or len(self._held) >= most:
            return 0.0
        begun = self.clock.seconds()
        held: defer.Deferred[None] = defer.Deferred()
        self._held.add(held)
        late = self.clock.callLater(HOLD_BACK_SECONDS, held.callback, None)
        try:
            await held
        finally:
            self._held.discard(held)
            if late.active():
                late.cancel()
        return min(HOLD_BACK_SECONDS, max(0.0, self.clock.seconds() - begun))


class Visit:
    """One request: it enters for a scope or for a tenant's names, brings a body, unpacks records.

    Whatever refuses it is a `Refusal`. The token is in no attribute's repr, nor in any exception.
    """

    _log = Logger()

    def __init__(self, access: Access, authorization: Sequence[str]) -> None:
        """Nothing is checked yet."""
        self._access = access
        self._authorization = authorization
        self._scope: str | None = None
        self._size = 0
        self._is_unpacked = False

    async def enter_scope(self, scope: str) -> Tenant:
        """The tenant of a scope, for one who may send for it."""
        token = self._token()
        if token is not None and not token.covers(scope):
            raise self._forbidden(token, scope)
        tenant = await self._known(token, scope, self._access.directory.tenant_for_scope(scope))
        self._scope = scope
        return tenant

    async def enter_names(self, organization: str, environment: str) -> Tenant:
        """The tenant of these names, for one who may send for one of its scopes."""
        access = self._access
        token = self._token()
        if token is not None or access.rates is not None:
            names = f"{organization}~{environment}"
            scopes = await access.directory.scopes_for_names(organization, environment)
            if token is not None and not token.covers_one_of(scopes):
                raise self._forbidden(token, names)
            self._scope = scopes[0] if scopes else None
            return await self._known(token, names, access.directory.tenant_for_names(organization, environment))
        return await access.directory.tenant_for_names(organization, environment)

    def bring(self, size: int) -> None:
        """It has a body of so many bytes.

        Raises:
            RateLimited: That is too much at present.
        """
        rates = self._access.rates
        if rates is not None and self._scope is not None:
            rates.bring(self._scope, size, self._access.clock.seconds())
            self._size = size

    def unpack(self, count: int) -> None:
        """So many records are in it; what is said again, because a body is taken apart anew, counts once.

        Raises:
            RateLimited: They are too many at present.
        """
        rates = self._access.rates
        if rates is not None and self._scope is not None and not self._is_unpacked:
            rates.unpack(self._scope, self._size, count, self._access.clock.seconds())
            self._is_unpacked = True

    def _token(self) -> Token | None:
        """The token that it has; None: it needs none."""
        tokens = self._access.tokens
        if tokens is None:
            return None
        secret = token_in(self._authorization, as_password=True)
        if secret is None:
            raise _unauthorized("A token is needed, as a bearer token or as the password of basic authentication")
        token = tokens.find(secret)
        if token is None:
            raise _unauthorized("The token is not known: it may be expired or revoked")
        return token

    async def _known(self, token: Token | None, name: str, tenant: Awaitable[Tenant]) -> Tenant:
        """The tenant; to the holder of a token, one that does not exist is one that it is not good for."""
        try:
            return await tenant
        except Rejected:
            if token is None:
                raise
        raise self._forbidden(token, name)

    def _forbidden(self, token: Token, name: str) -> Rejected:
        self._log.debug("token {id} is not good for {name!r}, or there is no such scope", id=token.id, name=name)
        return Rejected("FORBIDDEN", "The token is not good for this scope, or there is no such scope")


def _unauthorized(reason: str) -> Rejected:
    return Rejected("UNAUTHORIZED", reason, BEARER_OR_BASIC)
