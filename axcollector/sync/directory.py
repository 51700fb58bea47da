"""The directory: who a request's tenant is and whose its client ids are, asked by ingest.

Two of one interface. `CachedDirectory` looks into the catalog, and waits for nothing. `RegistryDirectory` asks the
registry file of the last snapshot each time, in a worker's thread, for those who want no cache.
"""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import islice
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from twisted.application.service import Service
from twisted.internet import defer, task
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from axcollector.core.catalog import Catalog
from axcollector.core.errors import LookupFailed, NotReady, RegistryError, Rejected
from axcollector.core.model import DeveloperInfo, Tenant
from axcollector.registry import Registry
from axcollector.registry_file import remove_wal_of_the_replaced
from axcollector.services import Worker
from axcollector.sync.listener import SyncListener

T = TypeVar("T")
P = ParamSpec("P")

IDS_A_TURN = 2000
"""So many client ids are looked up before the reactor gets its turn: some milliseconds, where memory is slow."""

_TRIES = 3
"""As often a batch begins anew because the catalog has changed between its turns; then it has one turn for all."""

_BUSY_TIMEOUT_SECONDS = 1.0
"""How long a question waits for somebody who locks the file; all others wait behind it, and their clients with them."""


class Directory(Protocol):
    """What ingest asks. Every coroutine raises `NotReady` before the first snapshot."""

    @property
    def catalog(self) -> Catalog | None:
        """What can be asked without waiting; None: nothing can. Ask each time: an old one is emptied."""
        ...

    def ready(self) -> bool:
        """Whether there was a snapshot."""
        ...

    async def tenant_for_scope(self, scope: str) -> Tenant:
        """The tenant of a scope.

        Raises:
            Rejected: There is no such scope.
            LookupFailed: The registry could not be asked.
        """
        ...

    async def tenant_for_names(self, organization: str, environment: str) -> Tenant:
        """The tenant of these names.

        Raises:
            Rejected: There is no such tenant.
            LookupFailed: The registry could not be asked.
        """
        ...

    async def scopes_for_names(self, organization: str, environment: str) -> Sequence[str]:
        """The ids of the scopes that have these names, the lowest first; none where there is no such tenant.

        Raises:
            LookupFailed: The registry could not be asked.
        """
        ...

    async def developers(self, tenant: Tenant, client_ids: Collection[str]) -> Mapping[str, DeveloperInfo]:
        """The developer info of each of the client ids.

        Raises:
            LookupFailed: The registry could not be asked.
        """
        ...


class CachedDirectory:
    """Answers from the listener's catalog: at once, but for batches of very many client ids, which take some turns."""

    def __init__(self, clock: IReactorTime, listener: SyncListener) -> None:
        """Prepare.

        Args:
            clock: What gives the reactor its turn.
            listener: Keeps the catalog.
        """
        self._clock = clock
        self._listener = listener

    @property
    def catalog(self) -> Catalog | None:
        """As `Directory.catalog`."""
        return self._listener.catalog

    def ready(self) -> bool:
        """As `Directory.ready`."""
        return self._listener.catalog is not None

    async def tenant_for_scope(self, scope: str) -> Tenant:
        """As `Directory.tenant_for_scope`."""
        return _known_scope(scope, self._catalog().tenant_of_scope(scope))

    async def tenant_for_names(self, organization: str, environment: str) -> Tenant:
        """As `Directory.tenant_for_names`."""
        tenant = self._catalog().tenant_of_names(organization, environment)
        return _known_names(organization, environment, tenant)

    async def scopes_for_names(self, organization: str, environment: str) -> Sequence[str]:
        """As `Directory.scopes_for_names`."""
        return self._catalog().scopes_of_names(organization, environment)

    async def developers(self, tenant: Tenant, client_ids: Collection[str]) -> Mapping[str, DeveloperInfo]:
        """As `Directory.developers`."""
        if len(client_ids) <= IDS_A_TURN:
            return self._catalog().developers(tenant.id, client_ids)
        for _ in range(_TRIES):
            known = await self._in_turns(tenant, client_ids)
            if known is not None:
                return known
        return self._catalog().developers(tenant.id, client_ids)

    async def _in_turns(self, tenant: Tenant, client_ids: Collection[str]) -> dict[str, DeveloperInfo] | None:
        """All of them, of one state of the catalog; None where it was another before the last had its turn."""
        shown = self._listener.shown
        known: dict[str, DeveloperInfo] = {}
        ids = iter(client_ids)
        while piece := list(islice(ids, IDS_A_TURN)):
            if known:
                await task.deferLater(self._clock, 0)
            if self._listener.shown != shown:
                return None
            known.update(self._catalog().developers(tenant.id, piece))
        return known

    def _catalog(self) -> Catalog:
        catalog = self._listener.catalog
        if catalog is None:
            raise NotReady
        return catalog


class RegistryDirectory(Service):
    """Asks the registry file of the listener's last snapshot. It keeps a connection, which `stopService` closes.

    Attributes:
        catalog: As `Directory.catalog`: asking takes a while.
    """

    _log = Logger()
    catalog = None

    def __init__(self, listener: SyncListener, worker: Worker) -> None:
        """Prepare.

        Args:
            listener: Knows the file.
            worker: Whose thread asks; best one that has nothing else to do, since requests wait for it.
        """
        self._listener = listener
        self._worker = worker
        self._connection = _Connection()
        self._trouble: str | None = None

    def ready(self) -> bool:
        """As `Directory.ready`."""
        return self._listener.registry is not None

    async def tenant_for_scope(self, scope: str) -> Tenant:
        """As `Directory.tenant_for_scope`."""
        return _known_scope(scope, await self._ask(Registry.tenant_of_scope, scope))

    async def tenant_for_names(self, organization: str, environment: str) -> Tenant:
        """As `Directory.tenant_for_names`."""
        tenant = await self._ask(Registry.tenant_of_names, organization, environment)
        return _known_names(organization, environment, tenant)

    async def scopes_for_names(self, organization: str, environment: str) -> Sequence[str]:
        """As `Directory.scopes_for_names`."""
        return await self._ask(Registry.scopes_of_names, organization, environment)

    async def developers(self, tenant: Tenant, client_ids: Collection[str]) -> Mapping[str, DeveloperInfo]:
        """As `Directory.developers`."""
        if not client_ids:
            return {}
        return await self._ask(Registry.developers, tenant.id, tuple(client_ids))

    def stopService(self) -> "defer.Deferred[None]":
        """Close the connection. Fires when it is closed; while the worker runs it may be opened again."""
        self.running = False
        return self._worker.run(self._connection.close).addErrback(lambda f: f.trap(defer.CancelledError) and None)

    async def _ask(self, question: Callable[Concatenate[Registry, P], T], *arguments: P.args, **options: P.kwargs) -> T:
        path = self._listener.registry
        if path is None:
            raise NotReady
        try:
            answer = await self._worker.run(lambda: question(self._connection.to(path), *arguments, **options))
        except RegistryError as exc:
            self._tell_of_trouble(str(exc))
            raise LookupFailed("The registry cannot be asked at present") from exc
        if self._trouble is not None:
            self._trouble = None
            self._log.info("the registry {path} answers again", path=path)
        return answer

    def _tell_of_trouble(self, trouble: str) -> None:
        """One line a trouble, however many requests meet it; the client is not told where our files lie."""
        if trouble != self._trouble:
            self._trouble = trouble
            self._log.error("requests are refused, {trouble}", trouble=trouble)


class _Connection:
    """A connection to the file that lies at a path now; lives in the worker's thread."""

    def __init__(self) -> None:
        self._registry: Registry | None = None
        self._identity: tuple[str, int, int, int, int] | None = None

    def to(self, path: str) -> Registry:
        """The registry; another file in the old one's place, or what may be one copied over it, is opened anew."""
        try:
            facts = os.stat(path)
        except OSError as exc:
            raise RegistryError(f"the registry {path} cannot be used: {exc.strerror}") from exc
        identity = (path, facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)
        if self._registry is None or self._identity != identity:
            self.close()
            if self._identity is not None and self._identity[0] == path and self._identity[1:3] != identity[1:3]:
                remove_wal_of_the_replaced(path)
            self._registry = Registry.open(path, _BUSY_TIMEOUT_SECONDS)
            self._identity = identity
        return self._registry

    def close(self) -> None:
        if self._registry is not None:
            self._registry.close()
            self._registry = None


def _known_scope(scope: str, tenant: Tenant | None) -> Tenant:
    if tenant is None:
        raise Rejected("UNKNOWN_SCOPE", f"No tenant found for this scopeuuid: {scope}")
    return tenant


def _known_names(organization: str, environment: str, tenant: Tenant | None) -> Tenant:
    if tenant is None:
        raise Rejected("UNKNOWN_SCOPE", f"No tenant found for this org: {organization} and env: {environment}")
    return tenant
