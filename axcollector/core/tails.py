"""What enrichment appends to plain records, by tenant and client id, kept from batch to batch.

A client's records come again and again, and what is appended to them changes only with the catalog. Made anew for each
batch it would be half of the work that a record costs: four cells of the catalog are looked at, which no processor's
cache holds, and their names written as JSON.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from axcollector.core.catalog import Catalog
from axcollector.core.enrichment import members_of
from axcollector.core.model import NO_DEVELOPER, Tenant

MOST_KEPT: Final = 32_768
"""So many are kept, of all tenants together: 9 MB where names are short; of more, all are forgotten, in 2 ms."""


class Tails:
    """What is appended, by one catalog as it is; another one, or a change of it, makes it forget everything.

    A tail is the members that a record gets, with a comma between them but none before, the end of its object and
    of its line, and the brace that begins the next one.
    """

    def __init__(self) -> None:
        """Nothing is kept yet."""
        self._catalog: Catalog | None = None
        self._edition = 0
        self._kept: dict[Tenant, dict[str | None, bytes]] = {}
        self._count = 0

    def of(self, tenant: Tenant, catalog: Catalog) -> Mapping[str | None, bytes]:
        """What is kept of a tenant's client ids, and always of None, which has no developer info. Not to be kept."""
        if catalog is not self._catalog or catalog.edition != self._edition or self._count > MOST_KEPT:
            self._catalog, self._edition = catalog, catalog.edition
            self._kept, self._count = {}, 0
        kept = self._kept.get(tenant)
        if kept is None:
            kept = self._kept[tenant] = {None: _tail(members_of(tenant, None, NO_DEVELOPER))}
            self._count += 1
        return kept

    def missing(self, tenant: Tenant, catalog: Catalog, client_ids: Iterable[str | None]) -> dict[str | None, bytes]:
        """Those of client ids that `of`, asked just now, did not have.

        Of the unknown ones nothing is kept: anybody can make up as many of those as he likes, of any length.
        """
        kept = self._kept[tenant]
        fresh: dict[str | None, bytes] = {}
        for client_id, info in catalog.developers(tenant.id, {each for each in client_ids if each is not None}).items():
            fresh[client_id] = tail = _tail(members_of(tenant, client_id, info))
            if info is not NO_DEVELOPER:
                kept[client_id] = tail
                self._count += 1
        return fresh


def _tail(members: bytes) -> bytes:
    return members[1:] + b"}\n{"
