"""The read model: who a scope is, and whose a client id is.

A catalog that was built from a snapshot and amended by changes answers as one built from the resulting tables does.
What it keeps of a row is a cell (`cells`), found by its id and referring to others. There are two ways to change it:
row by row at once, while it is built and nobody reads it; or through an `Amendment`, whose changes readers see all
together.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final, TypeVar, cast

from axcollector.core.amendment import Amendment, Immediate
from axcollector.core.cells import Cell, Cells, Key
from axcollector.core.model import NO_DEVELOPER, DeveloperInfo, Tenant
from axcollector.core.tables import APPS, COLUMNS, COMPANIES, DEVELOPERS, MAPPER, PRODUCTS, SCOPES, Row, Values

C = TypeVar("C", bound=Cell)

_KINDS: Final = {
    SCOPES: "scopes",
    MAPPER: "keys",
    APPS: "apps",
    PRODUCTS: "products",
    DEVELOPERS: "developers",
    COMPANIES: "companies",
}


class Catalog:
    """Tenants by scope and by name, developer info by client id.

    Attributes:
        edition: Another number whenever readers may see something else.
    """

    __slots__ = ("_cells", "_edits", "_staged", "edition")

    def __init__(self) -> None:
        self._cells = Cells()
        self._edits = Immediate(self._cells)
        self._staged: Mapping[Cell, Cell] | None = None
        self.edition = 0

    def tenant_of_scope(self, scope: str) -> Tenant | None:
        """The tenant of a scope (`data_scope.id`), or None."""
        cell = self._cells.scopes.scopes.get(scope)
        if cell is None:
            return None
        return cell.tenant if self._staged is None else _as_staged(cell, self._staged).tenant

    def tenant_of_names(self, organization: str, environment: str) -> Tenant | None:
        """The tenant of these names, or None; of several scopes that have them, the lowest id counts."""
        scopes = self.scopes_of_names(organization, environment)
        return self.tenant_of_scope(scopes[0]) if scopes else None

    def scopes_of_names(self, organization: str, environment: str) -> tuple[str, ...]:
        """The ids of all scopes that have these names, the lowest first."""
        cell = self._cells.scopes.names.get((organization, environment))
        if cell is None:
            return ()
        return cell.scopes if self._staged is None else _as_staged(cell, self._staged).scopes

    def developer(self, tenant_id: str, client_id: str) -> DeveloperInfo:
        """Whose a client id is: of several products and apps, the lowest names; `NO_DEVELOPER` where one is missing."""
        return self.developers(tenant_id, (client_id,))[client_id]

    def developers(self, tenant_id: str, client_ids: Collection[str]) -> dict[str, DeveloperInfo]:
        """The same for several client ids. The hot path: what is said in `_info_of` is said here once more."""
        known = dict.fromkeys(client_ids, NO_DEVELOPER)
        rows = self._cells.tenants.get(tenant_id)
        if rows is None:
            return known
        (parts, mask), staged = rows.keys.places(), self._staged
        for client_id in known:
            key = parts[hash(client_id) & mask].get(client_id)
            if key is None:
                continue
            if key.more or staged is not None:
                known[client_id] = _info_of(key, staged or {})
                continue
            app, product = key.app, key.product
            if app is None or product is None or (owner := app.owner) is None:
                continue
            product_name, app_name, name = product.name, app.name, owner.name
            if product_name is not None and app_name is not None and name is not None:
                known[client_id] = DeveloperInfo(product_name, app_name, owner.email, name)
        return known

    def counts(self) -> Mapping[str, int]:
        """How many rows of each table are kept; of the mapper, how many client ids."""
        return {table: self._cells.counts[_KINDS[table]] for table in COLUMNS}

    def put(self, table: str, row: Row) -> Tenant | None:
        """See `Edits.put`. Readers see the change at once, also between those of one list: see `amend`."""
        self.edition += 1
        return self._edits.put(table, row)

    def remove(self, table: str, row: Row) -> None:
        """See `Edits.remove`; and `put`."""
        self.edition += 1
        self._edits.remove(table, row)

    def load(self, table: str, rows: Iterable[Values]) -> list[Tenant]:
        """Put many rows, each given as the values of the table's `COLUMNS`; says which tenants were refused."""
        self.edition += 1
        put = self._edits.put_values
        return [tenant for values in rows if (tenant := put(table, values)) is not None]

    def amend(self) -> Amendment:
        """The beginning of an amendment; `show` it when all is put and removed, then `settle` it."""
        return Amendment(self._cells)

    def show(self, amendment: Amendment) -> None:
        """From now on readers see everything that the amendment changes."""
        self.edition += 1
        self._staged = amendment.staged

    def settle(self, amendment: Amendment) -> Iterator[None]:
        """Make an amendment that is shown part of what the catalog is; yields between the steps, each very short."""
        yield from amendment.settle()
        self._staged = None

    def dismantle(self) -> Iterator[int]:
        """Empty it piece by piece, see `Shards.dismantle`: for the thread that throws a catalog away.

        A structure of millions of objects freed in one piece holds the interpreter for its whole length.
        """
        self.edition += 1
        yield from self._cells.dismantle()


def lowest(found: Iterable[DeveloperInfo]) -> DeveloperInfo:
    """The one with the lowest (api product, app) names; among equal ones the lowest of the rest; or `NO_DEVELOPER`."""
    return min(
        found,
        key=lambda i: (i.api_product, i.developer_app, i.developer_email, i.developer),
        default=NO_DEVELOPER,
    )


def _info_of(key: Key, staged: Mapping[Cell, Cell]) -> DeveloperInfo:
    """What is known of a key, whatever it has and with what is staged: nothing unless all exist that it refers to."""
    found = []
    for app_cell, product_cell in _as_staged(key, staged).pairs():
        app, product = _as_staged(app_cell, staged), _as_staged(product_cell, staged)
        owner = None if app.owner is None else _as_staged(app.owner, staged)
        if owner is not None and owner.name is not None and app.name is not None and product.name is not None:
            found.append(DeveloperInfo(product.name, app.name, owner.email, owner.name))
    return lowest(found)


def _as_staged(cell: C, staged: Mapping[Cell, Cell]) -> C:
    """What a cell is to readers while an amendment is shown."""
    return cast("C", staged.get(cell, cell))
