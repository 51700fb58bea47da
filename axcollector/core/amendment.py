"""Changing a catalog: what a row that comes or goes means to cells, written at once or all together.

`Edits` knows what a row means. Its two kinds differ in when that is written:

* `Immediate`, for a catalog that nobody reads yet: at once.
* `Amendment`, for one that is being read: put aside, cell by cell, in as many steps as one likes; then shown, all of it
  at one moment, by telling readers to look there first (`staged`); and then brought into the cells, again step by step,
  which nobody notices. So readers never see half of it, and no step takes long (with 200,000 changes, 15 ms).

Only one of them may be at work on a catalog at a time.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar, cast

from axcollector.core import layout
from axcollector.core.cells import App, Cell, Cells, Company, Developer, Home, Key, Names, Product, Scope, TenantRows
from axcollector.core.model import Tenant
from axcollector.core.tables import APPS, COLUMNS, COMPANIES, DEVELOPERS, MAPPER, PRODUCTS, SCOPES, Row, Values

C = TypeVar("C", bound=Cell)


class Edits:
    """What rows mean to cells. A row whose primary key has a null or empty part can never be found and is not kept."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self._puts: Final[dict[str, Callable[..., Tenant | None]]] = {
            SCOPES: self._put_scope,
            PRODUCTS: self._put_product,
            DEVELOPERS: self._put_developer,
            COMPANIES: self._put_company,
            APPS: self._put_app,
            MAPPER: self._put_key,
        }

    def put(self, table: str, row: Row) -> Tenant | None:
        """Insert a row, or replace the one with its primary key; a table that is not ours is ignored.

        Returns:
            None, or the tenant that was refused because its directories could not be named (`layout.fits`):
            it is kept out of look-ups, and somebody should be told.
        """
        columns = COLUMNS.get(table)
        return None if columns is None else self.put_values(table, tuple(map(row.get, columns)))

    def put_values(self, table: str, values: Values) -> Tenant | None:
        """The same for a row of one of our tables, given as the values of its `COLUMNS`."""
        return self._puts[table](*values)

    def remove(self, table: str, row: Row) -> None:
        """Remove the row that has this one's primary key, if there is one."""
        if table not in COLUMNS:
            return
        if table == SCOPES:
            self._put_scope(row.get("id"), None, None, None)
            return
        rows = self._cells.tenants.get(row.get("tenant_id") or "")
        if rows is None:
            return
        if table == MAPPER:
            self._remove_key(rows, row.get("appcred_id"), row.get("app_id"), row.get("apiprdt_id"))
        else:
            self._vacate(rows, table, row.get("id") or "")

    def _now(self, cell: C) -> C:
        """What a cell is, with all that was put and removed so far."""
        raise NotImplementedError

    def _become(self, home: Home, cell: Cell, new: Cell) -> None:
        """Have a cell become what `new` is."""
        raise NotImplementedError

    def _rows(self, tenant_id: str) -> TenantRows:
        return self._cells.tenants.get_or_make(tenant_id, TenantRows)

    def _put_product(self, tenant_id: str | None, row_id: str | None, name: str | None) -> None:
        if tenant_id and row_id:
            rows = self._rows(tenant_id)
            self._become(rows, rows.products.get_or_make(row_id, Product), Product(row_id, 0, name or ""))

    def _put_company(self, tenant_id: str | None, row_id: str | None, name: str | None) -> None:
        if tenant_id and row_id:
            rows = self._rows(tenant_id)
            self._become(rows, rows.companies.get_or_make(row_id, Company), Company(row_id, 0, name or ""))

    def _put_developer(self, tenant_id: str | None, row_id: str | None, name: str | None, email: str | None) -> None:
        if tenant_id and row_id:
            rows = self._rows(tenant_id)
            cell = rows.developers.get_or_make(row_id, Developer)
            self._become(rows, cell, Developer(row_id, 0, name or "", email or ""))

    def _put_app(
        self,
        tenant_id: str | None,
        row_id: str | None,
        name: str | None,
        developer_id: str | None,
        company_id: str | None,
    ) -> None:
        if tenant_id and row_id:
            rows = self._rows(tenant_id)
            owner: Developer | Company | None = None
            if company_id:
                owner = rows.companies.get_or_make(company_id, Company)
            elif developer_id:
                owner = rows.developers.get_or_make(developer_id, Developer)
            self._become(rows, rows.apps.get_or_make(row_id, App), App(row_id, 0, name or "", owner))

    def _put_key(
        self,
        tenant_id: str | None,
        client_id: str | None,
        app_id: str | None,
        product_id: str | None,
        _status: str | None,
    ) -> None:
        if tenant_id and client_id and app_id and product_id:
            rows = self._rows(tenant_id)
            cell = rows.keys.get_or_make(client_id, Key)
            pair = rows.apps.get_or_make(app_id, App), rows.products.get_or_make(product_id, Product)
            pairs = self._now(cell).pairs()
            if pair not in pairs:
                self._become(rows, cell, Key.of(client_id, (*pairs, pair)))

    def _remove_key(self, rows: TenantRows, client_id: str | None, app_id: str | None, product_id: str | None) -> None:
        cell = rows.keys.get(client_id or "")
        if client_id and cell is not None:
            rest = tuple(pair for pair in self._now(cell).pairs() if (pair[0].id, pair[1].id) != (app_id, product_id))
            self._become(rows, cell, Key.of(client_id, rest))

    def _vacate(self, rows: TenantRows, table: str, row_id: str) -> None:
        cell: Cell | None
        if table == APPS:
            cell = rows.apps.get(row_id)
        elif table == DEVELOPERS:
            cell = rows.developers.get(row_id)
        else:
            cell = rows.products.get(row_id) if table == PRODUCTS else rows.companies.get(row_id)
        if cell is not None:
            self._become(rows, cell, type(cell)(cell.id))

    def _put_scope(
        self, scope: str | None, tenant_id: str | None, organization: str | None, environment: str | None
    ) -> Tenant | None:
        if not scope:
            return None
        refused = None
        tenant = tenant_of(tenant_id, organization, environment)
        if tenant is not None and not layout.fits(tenant):
            refused, tenant = tenant, None
        scopes = self._cells.scopes
        cell = scopes.scopes.get_or_make(scope, Scope)
        before = self._now(cell).tenant
        if before is not None:
            self._name(before, lambda ids, at: ids[:at] + ids[at + 1 :], scope)
        if tenant is not None:
            self._name(tenant, lambda ids, at: (*ids[:at], scope, *ids[at:]), scope)
        self._become(scopes, cell, Scope(scope, tenant))
        return refused

    def _name(self, tenant: Tenant, change: Callable[[tuple[str, ...], int], tuple[str, ...]], scope: str) -> None:
        """Change the scopes of a tenant's names, given those and the place that belongs to `scope` among them."""
        scopes = self._cells.scopes
        names = (tenant.organization, tenant.environment)
        cell = scopes.names.get_or_make(names, Names)
        ids = self._now(cell).scopes
        self._become(scopes, cell, Names(names, change(ids, bisect_left(ids, scope))))


class Immediate(Edits):
    """Writes at once; for a catalog that nobody reads meanwhile."""

    def _now(self, cell: C) -> C:
        return cell

    def _become(self, home: Home, cell: Cell, new: Cell) -> None:
        loosened = cell.targets()
        self._cells.settle(cell, new)
        if loosened or new.is_vacant():
            self._cells.tidy(home, (cell, *loosened))


class Amendment(Edits):
    """Changes that are shown together: `put` and `remove` them, have `staged` shown to readers, then `settle`.

    Attributes:
        staged: What cells are to become, by cell.
    """

    def __init__(self, cells: Cells) -> None:
        super().__init__(cells)
        self.staged: dict[Cell, Cell] = {}
        self._touched: dict[Cell, Home] = {}

    def settle(self) -> Iterator[None]:
        """Bring what is staged into the cells; yields after each."""
        for cell, new in self.staged.items():
            self._touch(self._touched[cell], cell.targets())
            self._cells.settle(cell, new)
            yield
        # Only now: what was vacant for a moment may have come to be referred to.
        yield from self.abandon()

    def abandon(self) -> Iterator[None]:
        """Leave the cells as they are, without those that were made to be staged only; yields after each."""
        for cell, home in self._touched.items():
            self._cells.tidy(home, (cell,))
            yield

    def _now(self, cell: C) -> C:
        return cast("C", self.staged.get(cell, cell))

    def _become(self, home: Home, cell: Cell, new: Cell) -> None:
        self.staged[cell] = new
        self._touch(home, (cell, *new.targets()))

    def _touch(self, home: Home, cells: Iterable[Cell]) -> None:
        for cell in cells:
            self._touched[cell] = home


def tenant_of(tenant_id: str | None, organization: str | None, environment: str | None) -> Tenant | None:
    """The tenant that a row of `data_scope` speaks of, or None where something is missing."""
    return Tenant(tenant_id, organization, environment) if tenant_id and organization and environment else None
