"""The read model: who a scope is, and whose a client id is. Normalised rows, joined at look-up.

Rows are kept as they come, by primary key, a tenant's rows together, and joined only when somebody asks: so a
change, whatever hangs on it, is one row put or removed, and the order in which rows come does not matter. A
catalog built from a snapshot and amended by changes answers as one built from the resulting tables does.

    tenant id ─┬─ keys        client id → (app id, product id, app id, product id, …)
               ├─ apps        id → (id, name, developer id, company id)
               ├─ products    id → (id, name)
               ├─ developers  id → (id, username, email)
               └─ companies   id → (id, name)

A million of them are to fit: so rows are flat tuples of strings, which the garbage collector soon stops looking
at, and an id that another row refers to is one object in both, taken from the row that bears it (hence ids are
in their rows). A null and an empty text mean the same everywhere, since some sources write one for the other: so a
row whose primary key has such a part, and a scope without a tenant or names, can never be found and is not kept.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from typing import Final

from axcollector.core import layout
from axcollector.core.model import NO_DEVELOPER, DeveloperInfo, Tenant

SCOPES: Final = "edgex.data_scope"
MAPPER: Final = "kms.app_credential_apiproduct_mapper"
APPS: Final = "kms.app"
PRODUCTS: Final = "kms.api_product"
DEVELOPERS: Final = "kms.developer"
COMPANIES: Final = "kms.company"

COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    SCOPES: ("id", "scope", "org", "env"),
    PRODUCTS: ("tenant_id", "id", "name"),
    DEVELOPERS: ("tenant_id", "id", "username", "email"),
    COMPANIES: ("tenant_id", "id", "name"),
    APPS: ("tenant_id", "id", "name", "developer_id", "company_id"),
    MAPPER: ("tenant_id", "appcred_id", "app_id", "apiprdt_id", "status"),
}
"""The tables and the columns used; in this order of tables a catalog is built with the least memory."""

Row = Mapping[str, str | None]
_Texts = tuple[str | None, ...]


class _Rows:
    """The rows of one tenant id."""

    __slots__ = ("apps", "companies", "developers", "keys", "products")

    def __init__(self) -> None:
        self.keys: dict[str, tuple[str, ...]] = {}
        self.apps: dict[str, _Texts] = {}
        self.products: dict[str, _Texts] = {}
        self.developers: dict[str, _Texts] = {}
        self.companies: dict[str, _Texts] = {}

    def by_id(self, table: str) -> dict[str, _Texts]:
        """The rows of a table whose primary key is (tenant_id, id)."""
        if table == APPS:
            return self.apps
        if table == DEVELOPERS:
            return self.developers
        return self.products if table == PRODUCTS else self.companies

    def __bool__(self) -> bool:
        return bool(self.keys or self.apps or self.products or self.developers or self.companies)


class Catalog:
    """Tenants by scope and by name, developer info by client id; amended row by row."""

    __slots__ = ("_names", "_scopes", "_tenants")

    def __init__(self) -> None:
        self._scopes: dict[str, Tenant] = {}
        self._names: dict[tuple[str, str], list[str]] = {}
        self._tenants: dict[str, _Rows] = {}

    def tenant_of_scope(self, scope: str) -> Tenant | None:
        """The tenant of a scope (`data_scope.id`), or None."""
        return self._scopes.get(scope)

    def tenant_of_names(self, organization: str, environment: str) -> Tenant | None:
        """The tenant of these names, or None; of several scopes that have them, the lowest id counts."""
        scopes = self._names.get((organization, environment))
        return self._scopes[scopes[0]] if scopes else None

    def developer(self, tenant_id: str, client_id: str) -> DeveloperInfo:
        """Whose a client id is: of several products and apps, the lowest names; `NO_DEVELOPER` where one is missing."""
        rows = self._tenants.get(tenant_id)
        pairs = rows.keys.get(client_id) if rows is not None else None
        if rows is None or pairs is None:
            return NO_DEVELOPER
        if len(pairs) == 2:
            return _join(rows, pairs[0], pairs[1]) or NO_DEVELOPER
        found = [_join(rows, pairs[i], pairs[i + 1]) for i in range(0, len(pairs), 2)]
        return lowest(info for info in found if info is not None)

    def counts(self) -> Mapping[str, int]:
        """How many rows of each table are kept; of the mapper, how many client ids."""
        every = self._tenants.values()
        return {
            SCOPES: len(self._scopes),
            MAPPER: sum(len(rows.keys) for rows in every),
            **{table: sum(len(rows.by_id(table)) for rows in every) for table in COLUMNS if table not in _OTHERS},
        }

    def put(self, table: str, row: Row) -> Tenant | None:
        """Insert a row, or replace the one with its primary key; a table that is not ours is ignored.

        Returns:
            None, or the tenant that was refused because its directories could not be named (`layout.fits`):
            it is kept out of look-ups, and somebody should be told.
        """
        if table == SCOPES:
            return self._put_scope(row)
        tenant_id = row.get("tenant_id")
        if not tenant_id or table not in COLUMNS:
            return None
        rows = self._tenants.get(tenant_id)
        if rows is None:
            rows = self._tenants[tenant_id] = _Rows()
        if table == MAPPER:
            _put_key(rows, row)
        else:
            _put_by_id(rows, table, row)
        if not rows:
            del self._tenants[tenant_id]
        return None

    def remove(self, table: str, row: Row) -> None:
        """Remove the row that has this one's primary key, if there is one."""
        if table == SCOPES:
            self._remove_scope(row.get("id"))
            return
        tenant_id = row.get("tenant_id")
        if not tenant_id or table not in COLUMNS or (rows := self._tenants.get(tenant_id)) is None:
            return
        if table == MAPPER:
            _remove_key(rows, row)
        elif (row_id := row.get("id")) is not None:
            rows.by_id(table).pop(row_id, None)
        if not rows:
            del self._tenants[tenant_id]

    def dismantle(self) -> None:
        """Empty it entry by entry: for the thread that throws a catalog away.

        A structure of millions of objects freed in one piece holds the interpreter lock for its whole length.
        """
        _drain(self._names)
        _drain(self._scopes)
        while self._tenants:
            rows = self._tenants.popitem()[1]
            _drain(rows.keys)
            for table in COLUMNS:
                if table not in _OTHERS:
                    _drain(rows.by_id(table))

    def _put_scope(self, row: Row) -> Tenant | None:
        scope = row.get("id")
        self._remove_scope(scope)
        tenant = tenant_of_row(row)
        if not scope or tenant is None:
            return None
        if not layout.fits(tenant):
            return tenant
        self._scopes[scope] = tenant
        insort(self._names.setdefault((tenant.organization, tenant.environment), []), scope)
        return None

    def _remove_scope(self, scope: str | None) -> None:
        tenant = self._scopes.pop(scope, None) if scope is not None else None
        if tenant is None or scope is None:
            return
        names = (tenant.organization, tenant.environment)
        scopes = self._names[names]
        del scopes[bisect_left(scopes, scope)]
        if not scopes:
            del self._names[names]


_OTHERS: Final = frozenset({SCOPES, MAPPER})
"""The tables whose primary key is not (tenant_id, id)."""


def tenant_of_row(row: Row) -> Tenant | None:
    """The tenant that a row of `data_scope` speaks of, or None where something is missing."""
    tenant_id, organization, environment = row.get("scope"), row.get("org"), row.get("env")
    if not tenant_id or not organization or not environment:
        return None
    return Tenant(tenant_id, organization, environment)


def lowest(found: Iterable[DeveloperInfo]) -> DeveloperInfo:
    """The one with the lowest (api product, app) names; among equal ones the lowest of the rest; or `NO_DEVELOPER`."""
    return min(
        found, key=lambda i: (i.api_product, i.developer_app, i.developer_email, i.developer), default=NO_DEVELOPER
    )


def _join(rows: _Rows, app_id: str, product_id: str) -> DeveloperInfo | None:
    """None unless product, app and developer (or company) all exist."""
    product = rows.products.get(product_id)
    app = rows.apps.get(app_id)
    if product is None or app is None:
        return None
    _, app_name, developer_id, company_id = app
    if company_id:
        company = rows.companies.get(company_id)
        return None if company is None else DeveloperInfo(product[1] or "", app_name or "", "", company[1] or "")
    developer = rows.developers.get(developer_id) if developer_id else None
    if developer is None:
        return None
    return DeveloperInfo(product[1] or "", app_name or "", developer[2] or "", developer[1] or "")


def _put_by_id(rows: _Rows, table: str, row: Row) -> None:
    row_id = row.get("id")
    if not row_id:
        return
    if table == APPS:
        developer_id = _shared(rows.developers, row.get("developer_id"))
        company_id = _shared(rows.companies, row.get("company_id"))
        rows.apps[row_id] = (row_id, row.get("name"), developer_id, company_id)
    elif table == DEVELOPERS:
        rows.developers[row_id] = (row_id, row.get("username"), row.get("email"))
    else:
        rows.by_id(table)[row_id] = (row_id, row.get("name"))


def _shared(rows: Mapping[str, _Texts], row_id: str | None) -> str | None:
    """`row_id`, as the very object that the row of that id holds, where there is one."""
    row = rows.get(row_id) if row_id is not None else None
    return row_id if row is None else row[0]


def _put_key(rows: _Rows, row: Row) -> None:
    client_id = row.get("appcred_id")
    app_id, product_id = _shared(rows.apps, row.get("app_id")), _shared(rows.products, row.get("apiprdt_id"))
    if not client_id or not app_id or not product_id:
        return
    pairs = rows.keys.get(client_id, ())
    if _position(pairs, app_id, product_id) is None:
        rows.keys[client_id] = (*pairs, app_id, product_id)


def _remove_key(rows: _Rows, row: Row) -> None:
    client_id = row.get("appcred_id")
    pairs = rows.keys.get(client_id, ()) if client_id is not None else ()
    at = _position(pairs, row.get("app_id"), row.get("apiprdt_id"))
    if client_id is None or at is None:
        return
    rest = pairs[:at] + pairs[at + 2 :]
    if rest:
        rows.keys[client_id] = rest
    else:
        del rows.keys[client_id]


def _position(pairs: tuple[str, ...], app_id: str | None, product_id: str | None) -> int | None:
    for at in range(0, len(pairs), 2):
        if pairs[at] == app_id and pairs[at + 1] == product_id:
            return at
    return None


def _drain(entries: "dict[str, Tenant] | dict[str, tuple[str, ...]] | dict[str, _Texts] | _Names") -> None:
    while entries:
        entries.popitem()


_Names = dict[tuple[str, str], list[str]]
