"""The ingest routes by their paths: whose records a request brings, and what its head asks."""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from axcollector.access import Visit
from axcollector.core.model import Tenant

PUBLISHER: Final = ("/axpublisher/organization/", "/environment/")
"""What stands before an organization, and between it and an environment."""
_PLAIN: Final = rb"([A-Za-z0-9_-]+)"
"""A segment that is the same, however it is quoted."""


class Route(NamedTuple):
    """Whose records a path says are sent; neither: that stands in the body.

    Attributes:
        scope: The scope.
        names: Organization and environment.
    """

    scope: str | None = None
    names: tuple[str, str] | None = None

    @property
    def name(self) -> str:
        """What its requests are counted as."""
        return "scope" if self.scope is not None else "names" if self.names is not None else "body"

    @property
    def enter(self) -> "Enter | None":
        """What finds the tenant."""
        scope, names = self.scope, self.names
        if scope is not None:
            return lambda visit: visit.enter_scope(scope)
        if names is not None:
            return lambda visit: visit.enter_names(*names)
        return None


@dataclass(frozen=True, slots=True, repr=False)
class Asked:
    """What a head asks of the ingest routes, nothing being wrong with it; it follows from the head's bytes alone.

    It may hold a token, so it is shown nowhere.

    Attributes:
        route: Whose records are sent.
        content_encoding: How the body is coded.
        authorization: The values of `Authorization`.
    """

    route: Route
    content_encoding: str
    authorization: Sequence[str]


Enter = Callable[[Visit], Awaitable[Tenant]]
IN_BODY: Final = Route()


class Routes:
    """The routes of a collector."""

    def __init__(self, base_path: str) -> None:
        """The native ones lie below `base_path`."""
        base = re.escape(base_path.rstrip("/").encode())
        before, between = (part.encode() for part in PUBLISHER)
        self._paths = re.compile(b"%b/%b|%b%b%b%b|(%b)" % (base, _PLAIN, before, _PLAIN, between, _PLAIN, base or b"/"))

    def route(self, path: bytes) -> Route | None:
        """The route of a POST to an ordinary path; None: it is none, or Klein has to look closer."""
        found = self._paths.fullmatch(path)
        if found is None:
            return None
        scope, organization, environment, _ = found.groups()
        if scope is not None:
            return Route(scope.decode("ascii"))
        if organization is not None:
            return Route(names=(organization.decode("ascii"), environment.decode("ascii")))
        return IN_BODY
