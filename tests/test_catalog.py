"""The catalog: rows in any order, joined at look-up, as a naive join of the resulting tables would answer."""

import gc
from collections.abc import Mapping
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axcollector.core import layout
from axcollector.core.catalog import Catalog
from axcollector.core.model import NO_DEVELOPER, DeveloperInfo, Tenant
from axcollector.core.tables import APPS, COLUMNS, COMPANIES, DEVELOPERS, KEYS, MAPPER, PRODUCTS, SCOPES, Row

Tables = dict[str, dict[tuple[str | None, ...], Row]]

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
Edit = tuple[bool, tuple[str, Row]]
some_edits = st.lists(st.tuples(st.booleans(), st.sampled_from(list(COLUMNS)).flatmap(rows_of)), max_size=30)
some_lists_of_edits = st.lists(st.tuples(st.booleans(), some_edits), max_size=3)


def put(tables: Tables, table: str, row: Row) -> None:
    """Upsert by primary key."""
    tables.setdefault(table, {})[tuple(row[column] for column in KEYS[table])] = row


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
        *(catalog.scopes_of_names(o, e) for o, e in product(("o", "p", "", LONG), ("e", "f"))),
        *(catalog.developer(t, k) for t, k in product(("t", "u", ""), ("k", "l"))),
    ]


def naive_everything_of(tables: Tables) -> list[object]:
    """What `everything_of` a right catalog is."""
    tenants = naive_tenants(tables)
    by_names = {(t.organization, t.environment): t for _, t in sorted(tenants.items(), reverse=True)}
    scopes_by_names: dict[tuple[str, str], tuple[str, ...]] = {}
    for scope, tenant in sorted(tenants.items()):
        names = (tenant.organization, tenant.environment)
        scopes_by_names[names] = (*scopes_by_names.get(names, ()), scope)
    return [
        *(tenants.get(scope) for scope in ("1", "2", "")),
        *(by_names.get(key) for key in product(("o", "p", "", LONG), ("e", "f"))),
        *(scopes_by_names.get(key, ()) for key in product(("o", "p", "", LONG), ("e", "f"))),
        *(naive_developer(tables, t, k) if t else NO_DEVELOPER for t, k in product(("t", "u", ""), ("k", "l"))),
    ]


def edit(tables: Tables, edits: list[Edit]) -> None:
    """Edit tables: put a row (True), or remove the one with its primary key."""
    for is_put, (table, row) in edits:
        if is_put:
            put(tables, table, row)
        else:
            tables.get(table, {}).pop(tuple(row[column] for column in KEYS[table]), None)


def built_from(tables: Tables) -> Catalog:
    """A catalog of these tables, whatever the order."""
    catalog = Catalog()
    for table in reversed(COLUMNS):
        catalog.load(table, [tuple(map(row.get, COLUMNS[table])) for row in tables.get(table, {}).values()])
    return catalog


def cells_in(catalog: Catalog) -> int:
    """How many cells it keeps, vacant ones included."""
    cells = catalog._cells
    tenants = [rows for part in cells.tenants.parts() for rows in part.values()]
    tables = [cells.scopes.scopes, cells.scopes.names, *(table for rows in tenants for table in rows.tables())]
    return len(tenants) + sum(len(part) for table in tables for part in table.parts())


@given(some_rows, some_edits)
def test_edits_one_by_one_equal_the_resulting_tables(snapshot: list[tuple[str, Row]], edits: list[Edit]) -> None:
    """A catalog after a snapshot and edits answers as the tables after them do, joined naively; and keeps no more."""
    catalog = Catalog()
    tables: Tables = {}
    for table, row in snapshot:
        catalog.put(table, row)
        put(tables, table, row)
    for is_put, (table, row) in edits:
        (catalog.put if is_put else catalog.remove)(table, row)
    edit(tables, edits)
    built = built_from(tables)
    assert naive_everything_of(tables) == everything_of(catalog)
    assert everything_of(built) == everything_of(catalog)
    assert built.counts() == catalog.counts()
    assert cells_in(built) == cells_in(catalog)
    for table, rows in tables.items():
        for row in rows.values():
            catalog.remove(table, row)
    assert cells_in(catalog) == 0
    assert set(catalog.counts().values()) == {0}


@given(some_rows, some_lists_of_edits)
def test_amendments_are_seen_whole_or_not_at_all(
    snapshot: list[tuple[str, Row]], lists: list[tuple[bool, list[Edit]]]
) -> None:
    """While one is put together readers see what was; once it is shown, what will be, at every step; replays too."""
    tables: Tables = {}
    edit(tables, [(True, row) for row in snapshot])
    catalog = built_from(tables)
    for is_shown, edits in lists:
        before = naive_everything_of(tables)
        for _ in range(2):
            amendment = catalog.amend()
            for is_put, (table, row) in edits:
                (amendment.put if is_put else amendment.remove)(table, row)
                assert before == everything_of(catalog)
            if not is_shown:
                assert all(before == everything_of(catalog) for _ in amendment.abandon())
                continue
            edit(tables, edits)
            before = naive_everything_of(tables)
            catalog.show(amendment)
            assert before == everything_of(catalog)
            assert all(before == everything_of(catalog) for _ in catalog.settle(amendment))
        built = built_from(tables)
        assert before == everything_of(catalog)
        assert built.counts() == catalog.counts()
        assert cells_in(built) == cells_in(catalog)


APP = {"tenant_id": "t", "id": "a", "name": "weather"}
KEY = {"tenant_id": "t", "appcred_id": "k", "app_id": "a", "apiprdt_id": "p"}


@pytest.mark.parametrize(
    "lists",
    [
        [[(APPS, {**APP, "developer_id": "d"})], [(APPS, APP)]],
        [[(APPS, {**APP, "developer_id": "d"}), (APPS, APP)]],
        [[(APPS, {**APP, "company_id": "c"}), (APPS, {**APP, "developer_id": "d"}), (APPS, APP)]],
        [[(MAPPER, KEY), (APPS, APP)], [(MAPPER, KEY)], [(MAPPER, KEY), (MAPPER, KEY)]],
    ],
)
def test_amended_it_keeps_no_more(lists: list[list[tuple[str, Row]]]) -> None:
    """What was referred to, between lists or within one, is forgotten; a row that comes again is not kept twice."""
    catalog, tables = Catalog(), Tables()
    for rows in lists:
        amendment = catalog.amend()
        for table, row in rows:
            amendment.put(table, row)
            put(tables, table, dict.fromkeys(COLUMNS[table]) | row)
        catalog.show(amendment)
        assert all(catalog._staged == amendment.staged for _ in catalog.settle(amendment))
        assert catalog._staged is None
    assert cells_in(built_from(tables)) == cells_in(catalog)
    key = catalog._cells.tenants.get("t").keys.get("k")
    assert key is None or len(key.pairs()) == 1


def test_given_up_an_amendment_leaves_nothing() -> None:
    """Cells that were made for an amendment which is not shown are gone."""
    catalog = Catalog()
    amendment = catalog.amend()
    amendment.put(APPS, {**APP, "developer_id": "d"})
    amendment.put(APPS, APP)
    amendment.put(MAPPER, KEY)
    amendment.remove(SCOPES, {"id": "s"})
    for _ in amendment.abandon():
        pass
    assert cells_in(catalog) == 0


@given(some_rows)
def test_dismantled_it_is_empty(snapshot: list[tuple[str, Row]]) -> None:
    """A catalog that was dismantled knows nothing and keeps nothing."""
    tables: Tables = {}
    edit(tables, [(True, row) for row in snapshot])
    catalog = built_from(tables)
    for _ in catalog.dismantle():
        pass
    assert everything_of(Catalog()) == everything_of(catalog)
    assert set(catalog.counts().values()) == {0}
    assert cells_in(catalog) == 0


def test_a_changed_product_is_one_changed_cell() -> None:
    """However many keys hang on a row, one cell is written when it changes."""
    catalog = whole_catalog()
    for number in range(1000):
        catalog.put(MAPPER, {"tenant_id": "t", "appcred_id": f"k{number}", "app_id": "a", "apiprdt_id": "p"})
    amendment = catalog.amend()
    amendment.put(PRODUCTS, {"tenant_id": "t", "id": "p", "name": "silver"})
    assert len(amendment.staged) == 1
    catalog.show(amendment)
    assert {"silver"} == {info.api_product for info in catalog.developers("t", ["k", "k0", "k999"]).values()}
    steps = sum(1 for _ in catalog.settle(amendment))
    assert steps == 2
    assert catalog.developer("t", "k7").api_product == "silver"


def test_nothing_in_it_concerns_the_garbage_collector() -> None:
    """A catalog of many rows has hardly more objects for the collector to look at than an empty one."""
    gc.collect()
    before = len(gc.get_objects())
    catalog = Catalog()
    for number in range(3000):
        tenant = str(number % 500)
        catalog.put(SCOPES, {"id": f"s{number}", "scope": tenant, "org": f"o{number}", "env": "e"})
        catalog.put(DEVELOPERS, {"tenant_id": tenant, "id": f"d{number}", "username": "ada"})
        catalog.put(APPS, {"tenant_id": tenant, "id": f"a{number}", "name": "weather", "developer_id": f"d{number}"})
        key = {"tenant_id": tenant, "appcred_id": f"k{number}", "app_id": f"a{number}", "apiprdt_id": "p"}
        catalog.put(MAPPER, key)
    gc.collect()
    assert len(gc.get_objects()) - before < 100
    assert catalog.counts()[MAPPER] == 3000


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


def test_among_equal_names_the_lowest_of_the_rest() -> None:
    """Which of several apps of one name counts does not depend on the order of rows."""
    for order in (("d", "e"), ("e", "d")):
        catalog = whole_catalog()
        catalog.put(DEVELOPERS, {"tenant_id": "t", "id": "e", "username": "eve", "email": "a@example.com"})
        for developer in order:
            app = {"tenant_id": "t", "id": f"a{developer}", "name": "weather", "developer_id": developer}
            catalog.put(APPS, app)
            catalog.put(MAPPER, {"tenant_id": "t", "appcred_id": "l", "app_id": app["id"], "apiprdt_id": "p"})
        assert DeveloperInfo("gold", "weather", "a@example.com", "eve") == catalog.developer("t", "l")


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
    catalog.put(SCOPES, {"scope": "t", "org": "acme", "env": "prod"})
    amendment = catalog.amend()
    amendment.remove(APPS, {"tenant_id": "t", "id": "b"})
    amendment.put("kms.company_developer", {"tenant_id": "t", "id": "d"})
    assert amendment.staged == {}
    catalog.remove(MAPPER, {"tenant_id": "t"})
    catalog.remove(APPS, {"tenant_id": "unheard of", "id": "a"})
    assert before == catalog.counts()
