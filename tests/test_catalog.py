"""The catalog: rows in any order, joined at look-up, as a naive join of the resulting tables would answer."""

from collections.abc import Mapping
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axcollector.core import layout
from axcollector.core.catalog import APPS, COLUMNS, COMPANIES, DEVELOPERS, MAPPER, PRODUCTS, SCOPES, Catalog, Row
from axcollector.core.model import NO_DEVELOPER, DeveloperInfo, Tenant

Tables = dict[str, dict[tuple[str | None, ...], Row]]

PRIMARY_KEYS = dict.fromkeys(COLUMNS, ("tenant_id", "id")) | {
    SCOPES: ("id",),
    MAPPER: ("tenant_id", "appcred_id", "app_id", "apiprdt_id"),
}
LONG = "x" * 200

ids = st.sampled_from(["1", "2", "", None])
names = st.sampled_from(["a", "b", "", None])
TEXTS = {
    "id": ids,
    "tenant_id": st.sampled_from(["t", "u", "", None]),
    "scope": st.sampled_from(["t", "u", "", None]),
    "appcred_id": st.sampled_from(["k", "l", None]),
    "app_id": ids,
    "apiprdt_id": ids,
    "developer_id": ids,
    "company_id": ids,
    "org": st.sampled_from(["o", "p", "", None, LONG]),
    "env": st.sampled_from(["e", "f", None]),
    "status": st.just("REVOKED"),
}


def rows_of(table: str) -> st.SearchStrategy[tuple[str, Row]]:
    """Rows of a table, as few values as make them meet."""
    columns = {column: TEXTS.get(column, names) for column in COLUMNS[table]}
    return st.tuples(st.just(table), st.fixed_dictionaries(columns))


some_rows = st.lists(st.sampled_from(list(COLUMNS)).flatmap(rows_of), max_size=30)
some_changes = st.lists(st.tuples(st.booleans(), st.sampled_from(list(COLUMNS)).flatmap(rows_of)), max_size=30)


def put(tables: Tables, table: str, row: Row) -> None:
    """Upsert by primary key."""
    tables.setdefault(table, {})[tuple(row[column] for column in PRIMARY_KEYS[table])] = row


def naive_developer(tables: Tables, tenant_id: str, client_id: str) -> DeveloperInfo:
    """The join of SPEC sections 4 and 9, with loops."""
    found = []
    rows = [list(tables.get(table, {}).values()) for table in (MAPPER, PRODUCTS, APPS)]
    for mapper, api_product, app in product(*rows):
        if not (
            (mapper["tenant_id"], mapper["appcred_id"]) == (tenant_id, client_id)
            and api_product["tenant_id"] == app["tenant_id"] == tenant_id
            and mapper["app_id"]
            and mapper["apiprdt_id"]
            and (api_product["id"], app["id"]) == (mapper["apiprdt_id"], mapper["app_id"])
        ):
            continue
        is_company = bool(app["company_id"])
        owners = tables.get(COMPANIES if is_company else DEVELOPERS, {}).values()
        wanted = app["company_id"] if is_company else app["developer_id"]
        for owner in owners:
            if wanted and (owner["tenant_id"], owner["id"]) == (tenant_id, wanted):
                email, name = ("", owner["name"]) if is_company else (owner["email"], owner["username"])
                found.append((api_product["name"] or "", app["name"] or "", email or "", name or ""))
    return DeveloperInfo(*min(found)) if found else NO_DEVELOPER


def naive_tenants(tables: Tables) -> Mapping[str, Tenant]:
    """The scopes that count."""
    rows = [row for row in tables.get(SCOPES, {}).values() if all(row.values())]
    tenants = {str(row["id"]): Tenant(str(row["scope"]), str(row["org"]), str(row["env"])) for row in rows}
    return {scope: tenant for scope, tenant in tenants.items() if layout.fits(tenant)}


def everything_of(catalog: Catalog) -> list[object]:
    """Every answer about what these tests have in tables."""
    return [
        *(catalog.tenant_of_scope(scope) for scope in ("1", "2", "")),
        *(catalog.tenant_of_names(o, e) for o, e in product(("o", "p", "", LONG), ("e", "f"))),
        *(catalog.developer(t, k) for t, k in product(("t", "u", ""), ("k", "l"))),
    ]


def naive_everything_of(tables: Tables) -> list[object]:
    """What `everything_of` a right catalog is."""
    tenants = naive_tenants(tables)
    by_names = {(t.organization, t.environment): t for _, t in sorted(tenants.items(), reverse=True)}
    return [
        *(tenants.get(scope) for scope in ("1", "2", "")),
        *(by_names.get(key) for key in product(("o", "p", "", LONG), ("e", "f"))),
        *(naive_developer(tables, t, k) if t else NO_DEVELOPER for t, k in product(("t", "u", ""), ("k", "l"))),
    ]


@given(some_rows, some_changes)
def test_snapshot_and_changes_equal_the_resulting_tables(
    snapshot: list[tuple[str, Row]], changes: list[tuple[bool, tuple[str, Row]]]
) -> None:
    """A catalog after a snapshot and changes answers as the tables after them do, joined naively."""
    catalog = Catalog()
    tables: Tables = {}
    for table, row in snapshot:
        catalog.put(table, row)
        put(tables, table, row)
    for is_put, (table, row) in changes:
        if is_put:
            catalog.put(table, row)
            put(tables, table, row)
        else:
            catalog.remove(table, row)
            tables.get(table, {}).pop(tuple(row[column] for column in PRIMARY_KEYS[table]), None)
    built = Catalog()
    for table in reversed(COLUMNS):
        for row in tables.get(table, {}).values():
            built.put(table, row)
    assert naive_everything_of(tables) == everything_of(catalog)
    assert everything_of(built) == everything_of(catalog)
    assert built.counts() == catalog.counts()
    catalog.dismantle()
    assert everything_of(Catalog()) == everything_of(catalog)
    assert set(catalog.counts().values()) == {0}


def whole_catalog() -> Catalog:
    """A catalog of one tenant, whose key k is ada's."""
    catalog = Catalog()
    catalog.put(SCOPES, {"id": "s", "scope": "t", "org": "acme", "env": "prod"})
    catalog.put(MAPPER, {"tenant_id": "t", "appcred_id": "k", "app_id": "a", "apiprdt_id": "p", "status": "REVOKED"})
    catalog.put(APPS, {"tenant_id": "t", "id": "a", "name": "weather", "developer_id": "d", "company_id": None})
    catalog.put(PRODUCTS, {"tenant_id": "t", "id": "p", "name": "gold"})
    catalog.put(DEVELOPERS, {"tenant_id": "t", "id": "d", "username": "ada", "email": "ada@example.com"})
    return catalog


def test_look_ups() -> None:
    """A scope has its tenant, names have theirs, a client id has its developer; what is unknown has nothing."""
    catalog = whole_catalog()
    tenant = Tenant("t", "acme", "prod")
    assert tenant == catalog.tenant_of_scope("s")
    assert tenant == catalog.tenant_of_names("acme", "prod")
    assert catalog.tenant_of_scope("S") is None
    assert catalog.tenant_of_names("prod", "acme") is None
    assert DeveloperInfo("gold", "weather", "ada@example.com", "ada") == catalog.developer("t", "k")
    assert catalog.developer("t", "K") == NO_DEVELOPER
    assert catalog.developer("u", "k") == NO_DEVELOPER
    expected = {SCOPES: 1, MAPPER: 1, APPS: 1, PRODUCTS: 1, DEVELOPERS: 1, COMPANIES: 0}
    assert expected == catalog.counts()


@pytest.mark.parametrize(("table", "row_id"), [(PRODUCTS, "p"), (APPS, "a"), (DEVELOPERS, "d")])
def test_nothing_is_known_unless_all_is(table: str, row_id: str) -> None:
    """Without the product, the app or the developer all four are empty."""
    catalog = whole_catalog()
    catalog.remove(table, {"tenant_id": "t", "id": row_id})
    catalog.remove(table, {"tenant_id": "t", "id": row_id})
    assert catalog.developer("t", "k") == NO_DEVELOPER


def test_company_apps() -> None:
    """An app of a company has the company's name and no e-mail, even if a developer is known; and needs the company."""
    catalog = whole_catalog()
    catalog.put(APPS, {"tenant_id": "t", "id": "a", "name": "weather", "developer_id": "d", "company_id": "c"})
    assert catalog.developer("t", "k") == NO_DEVELOPER
    catalog.put(COMPANIES, {"tenant_id": "t", "id": "c", "name": "ACME Inc."})
    assert DeveloperInfo("gold", "weather", "", "ACME Inc.") == catalog.developer("t", "k")


def test_nulls_are_empty() -> None:
    """A null column is an empty string."""
    catalog = whole_catalog()
    catalog.put(DEVELOPERS, {"tenant_id": "t", "id": "d", "username": None})
    catalog.put(PRODUCTS, {"tenant_id": "t", "id": "p", "name": None})
    catalog.put(APPS, {"tenant_id": "t", "id": "a", "name": None, "developer_id": "d"})
    assert DeveloperInfo("", "", "", "") == catalog.developer("t", "k")


def test_lowest_names_win() -> None:
    """Of several products and apps the lowest (product, app) counts, among those that are whole."""
    catalog = whole_catalog()
    for name in ("bronze", "aluminium"):
        catalog.put(PRODUCTS, {"tenant_id": "t", "id": name, "name": name})
    catalog.put(MAPPER, {"tenant_id": "t", "appcred_id": "k", "app_id": "a", "apiprdt_id": "bronze"})
    catalog.put(MAPPER, {"tenant_id": "t", "appcred_id": "k", "app_id": "none", "apiprdt_id": "aluminium"})
    assert catalog.developer("t", "k").api_product == "bronze"
    catalog.remove(MAPPER, {"tenant_id": "t", "appcred_id": "k", "app_id": "a", "apiprdt_id": "bronze"})
    assert catalog.developer("t", "k").api_product == "gold"
    catalog.remove(MAPPER, {"tenant_id": "t", "appcred_id": "k", "app_id": "a", "apiprdt_id": "p"})
    assert catalog.developer("t", "k") == NO_DEVELOPER


def test_refused_tenants_are_told_and_not_found() -> None:
    """A tenant whose directories have no name is told to the caller, and replaces what its scope was before."""
    catalog = whole_catalog()
    refused = catalog.put(SCOPES, {"id": "s", "scope": "t", "org": LONG, "env": "prod"})
    assert Tenant("t", LONG, "prod") == refused
    assert catalog.tenant_of_scope("s") is None
    assert catalog.tenant_of_names(LONG, "prod") is None
    assert catalog.tenant_of_names("acme", "prod") is None


def test_unknown_tables_are_ignored() -> None:
    """A table that is not ours, or a row that has no tenant, changes nothing."""
    catalog = whole_catalog()
    before = catalog.counts()
    catalog.put("kms.company_developer", {"tenant_id": "t", "id": "d"})
    catalog.remove("kms.company_developer", {"tenant_id": "t", "id": "d"})
    catalog.put(APPS, {"id": "b"})
    catalog.put(APPS, {"tenant_id": "v"})
    catalog.remove(APPS, {"tenant_id": "t"})
    catalog.remove(SCOPES, {})
    catalog.remove(MAPPER, {"tenant_id": "t"})
    catalog.remove(APPS, {"tenant_id": "unheard of", "id": "a"})
    assert before == catalog.counts()
