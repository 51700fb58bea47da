"""What is appended to plain records: always what the catalog says now, and never more kept than is to be."""

import json
from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from axcollector.core.catalog import Catalog
from axcollector.core.model import NO_DEVELOPER, Tenant
from axcollector.core.tables import APPS, COLUMNS, DEVELOPERS, MAPPER, PRODUCTS
from axcollector.core.tails import MOST_KEPT, Tails
from tests.effort import either
from tests.test_catalog import Edit, rows_of, some_rows

KEYS = ("k", "l", "unknown", "")
TENANTS = (Tenant("t", "o", "e"), Tenant("t", 'ö"', "f"), Tenant("u", "o", "e"), Tenant("nobody", "o", "e"))
WHOLE = [
    (PRODUCTS, {"name": "gold"}),
    (DEVELOPERS, {"username": "ann", "email": "ann@example.com"}),
    (APPS, {"name": "shop", "developer_id": "1"}),
    (MAPPER, {"appcred_id": "k", "app_id": "1", "apiprdt_id": "1"}),
]
"""What makes `k` a known client id."""
rows = st.sampled_from(sorted(COLUMNS)).flatmap(rows_of)
edits = st.lists(st.tuples(st.booleans(), rows), max_size=6)


def tail_of(tails: Tails, tenant: Tenant, catalog: Catalog, client_id: str | None) -> bytes:
    """What is appended to a record with this client id, asked for as a batch does."""
    kept = tails.of(tenant, catalog)
    return kept[client_id] if client_id in kept else tails.missing(tenant, catalog, {client_id})[client_id]


def members_in(tail: bytes) -> dict[str, str]:
    """The members that a tail has."""
    assert tail.endswith(b"}\n{")
    members: dict[str, str] = json.loads(b"{" + tail[:-2])
    return members


def wanted(tenant: Tenant, catalog: Catalog, client_id: str | None) -> dict[str, str]:
    """What they should be, asked of the catalog each time."""
    members = {"organization": tenant.organization, "environment": tenant.environment}
    if client_id is not None:
        info = catalog.developer(tenant.id, client_id)
        members |= {key: getattr(info, key) for key in ("api_product", "developer_app", "developer_email", "developer")}
    return members


def known_by(product: str) -> Catalog:
    """A catalog that knows of `k`, of tenant `t`, and a product of this name."""
    catalog = Catalog()
    for table, row in WHOLE:
        catalog.put(table, {"tenant_id": "t", "id": "1"} | row)
    catalog.put(PRODUCTS, {"tenant_id": "t", "id": "1", "name": product})
    return catalog


class AnyChanges(RuleBasedStateMachine):
    """Catalogs that change in every way there is, with batches between any two steps."""

    def __init__(self) -> None:
        super().__init__()
        self.tails = Tails()
        self.catalogs = [known_by("gold"), known_by("silver")]

    @property
    def catalog(self) -> Catalog:
        """The one that counts."""
        return self.catalogs[0]

    @invariant()
    def told_as_it_is(self) -> None:
        """Every tail is what the catalog says, and none is kept of a client id that it does not know."""
        for tenant in TENANTS:
            for client_id in (None, *KEYS, "long" * 10_000):
                tail = tail_of(self.tails, tenant, self.catalog, client_id)
                assert members_in(tail) == wanted(tenant, self.catalog, client_id)
            kept = {each for each in self.tails.of(tenant, self.catalog) if each is not None}
            assert kept == {key for key in KEYS if self.catalog.developer(tenant.id, key) is not NO_DEVELOPER}

    @rule(row=rows)
    def put(self, row: tuple[str, dict[str, str | None]]) -> None:
        """A row, at once."""
        self.catalog.put(*row)

    @rule(row=rows)
    def remove(self, row: tuple[str, dict[str, str | None]]) -> None:
        """Likewise."""
        self.catalog.remove(*row)

    @rule(tenant_id=st.sampled_from(["t", "u"]), without=st.integers(0, 4), name=st.sampled_from("xyz"))
    def put_a_whole_key(self, tenant_id: str, without: int, name: str) -> None:
        """So that there is somebody to be known, by another name maybe; with one row taken away again, mostly."""
        for table, row in WHOLE:
            self.catalog.put(table, {"tenant_id": tenant_id, "id": "1"} | row)
        self.told_as_it_is()
        self.catalog.put(PRODUCTS, {"tenant_id": tenant_id, "id": "1", "name": name})
        for table, row in WHOLE[without : without + 1]:
            self.told_as_it_is()
            self.catalog.remove(table, {"tenant_id": tenant_id, "id": "1"} | row)

    @rule(found=some_rows)
    def load(self, found: list[tuple[str, dict[str, str | None]]]) -> None:
        """Many rows."""
        for table, row in found[:5]:
            self.catalog.load(table, [tuple(map(row.get, COLUMNS[table]))])

    @rule(changes=edits, renamed=st.booleans())
    def amend(self, changes: list[Edit], renamed: bool) -> None:
        """All together, with batches before it is shown and while it is settled."""
        amendment = self.catalog.amend()
        for is_put, row in changes:
            (amendment.put if is_put else amendment.remove)(*row)
        if renamed:
            amendment.put(PRODUCTS, {"tenant_id": "t", "id": "1", "name": f"p{len(changes)}"})
        self.told_as_it_is()
        self.catalog.show(amendment)
        self.told_as_it_is()
        for _ in self.catalog.settle(amendment):
            self.told_as_it_is()

    @rule(changes=edits)
    def give_up(self, changes: list[Edit]) -> None:
        """An amendment that nobody is shown."""
        amendment = self.catalog.amend()
        for is_put, row in changes:
            (amendment.put if is_put else amendment.remove)(*row)
        list(amendment.abandon())

    @rule()
    def change_places(self) -> None:
        """The other catalog counts; it may have as many changes behind it."""
        self.catalogs.reverse()

    @rule()
    def dismantle(self) -> None:
        """The catalog is thrown away, and for a moment still asked."""
        list(self.catalog.dismantle())
        self.told_as_it_is()
        self.catalogs[0] = Catalog()


AnyChanges.TestCase.settings = settings(max_examples=either(500, 30), stateful_step_count=15)
TestAnyChanges = AnyChanges.TestCase


def test_editions() -> None:
    """Each way to change what readers see gives another edition; what they do not see gives none."""
    catalog = Catalog()
    row = {"tenant_id": "t", "id": "1", "name": "n"}
    editions = [catalog.edition]
    amendment = catalog.amend()
    amendment.put(PRODUCTS, row)
    assert catalog.edition == editions[0]
    for step in (
        lambda: catalog.put(PRODUCTS, row),
        lambda: catalog.remove(PRODUCTS, row),
        lambda: catalog.load(PRODUCTS, [("t", "1", "n")]),
        lambda: catalog.show(amendment),
        lambda: list(catalog.dismantle()),
    ):
        step()
        editions.append(catalog.edition)
    assert all(before != after for before, after in pairwise(editions))


def test_each_way_to_change_a_name() -> None:
    """The next batch has the new one; also that of a catalog that has as many changes behind it as the last one."""
    tails, catalog, other = Tails(), known_by("gold"), known_by("other")
    amendment = catalog.amend()

    def product(catalog: Catalog) -> str:
        return members_in(tail_of(tails, TENANTS[0], catalog, "k"))["api_product"]

    assert [product(each) for each in (catalog, other, catalog)] == ["gold", "other", "gold"]
    catalog.put(PRODUCTS, {"tenant_id": "t", "id": "1", "name": "put"})
    assert product(catalog) == "put"
    catalog.load(PRODUCTS, [("t", "1", "loaded")])
    assert product(catalog) == "loaded"
    amendment.put(PRODUCTS, {"tenant_id": "t", "id": "1", "name": "amended"})
    assert product(catalog) == "loaded"
    catalog.show(amendment)
    assert [product(catalog), *(product(catalog) for _ in catalog.settle(amendment))] == ["amended"] * 3
    catalog.remove(PRODUCTS, {"tenant_id": "t", "id": "1"})
    assert product(catalog) == ""
    list(other.dismantle())
    assert product(other) == ""


def test_how_many_are_kept() -> None:
    """More than so many are not, be they of one tenant or of many; what is asked for is right all the same."""
    catalog, tails = known_by("gold"), Tails()
    catalog.load(MAPPER, [("t", f"k{n}", "1", "1", None) for n in range(MOST_KEPT + 5000)])
    tenant, most = TENANTS[0], 0
    for start in range(0, MOST_KEPT + 5000, 1000):
        ids = {f"k{n}" for n in range(start, start + 1000)}
        assert tails.of(tenant, catalog).keys() & ids == set()
        assert tails.missing(tenant, catalog, ids).keys() == ids
        most = max(most, len(tails.of(tenant, catalog)))
    assert most <= MOST_KEPT < most + 1000
    assert members_in(tail_of(tails, tenant, catalog, "k1"))["developer"] == "ann"
    assert len(tails.of(tenant, catalog)) < 10_000
    for number in range(MOST_KEPT + 1):
        tails.of(Tenant("t", f"o{number}", "e"), catalog)
    tails.of(tenant, catalog)
    assert len(tails._kept) < 10_000


def test_what_nobody_knows() -> None:
    """Of client ids that are made up nothing is kept, however many or long they are."""
    catalog, tails = Catalog(), Tails()
    for number in range(1000):
        tails.of(TENANTS[0], catalog)
        tails.missing(TENANTS[0], catalog, {f"{number}" * 1000, None})
    assert list(tails.of(TENANTS[0], catalog)) == [None]
