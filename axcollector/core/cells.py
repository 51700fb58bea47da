"""Cells: what the catalog keeps of each row. Normalised, and joined beforehand by reference, not by value.

    TenantRows ─┬─ keys        client id → Key ──┬─► App ──► Developer or Company
                ├─ apps        id → App          └─► Product
                ├─ products    id → Product
                ├─ developers  id → Developer
                └─ companies   id → Company

A cell refers to the cells of the rows that its row names, whether those rows are there or not: a row that is missing
has a *vacant* cell for as long as another refers to it (`refs` counts those). So a row that comes, changes or goes is
one cell written, whatever hangs on it and in whatever order rows come; and a look-up follows references, joining
nothing.

A million of them are to fit, and to stay out of the garbage collector's way: so they are structs that it never looks
at, which is safe because references never go in circles. Texts are never null: a null and an empty one mean the same
everywhere, since some sources write one for the other. What is None in a cell makes it vacant.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from typing import Any, ClassVar, Self

import msgspec

from axcollector.core.model import Tenant
from axcollector.core.shards import Shards


class Cell(msgspec.Struct, gc=False, eq=False):
    """A row's place.

    Attributes:
        kind: The table of its home that it lies in.
        refs: How many other cells refer to it.
        id: By which it is found there.
    """

    kind: ClassVar[str]
    refs: ClassVar[int] = 0
    id: Hashable

    def is_vacant(self) -> bool:
        """Whether there is no such row."""
        raise NotImplementedError

    def take(self, new: Self) -> None:
        """Become what another cell of the same row is."""
        raise NotImplementedError

    def targets(self) -> "tuple[Target, ...]":
        """The cells that it refers to."""
        return ()


class Target(Cell, gc=False, eq=False):
    """A cell that others may refer to; the other kinds are the smaller for not counting."""

    # Each its own, where other kinds have one for all of them.
    refs: int = 0  # type: ignore[misc]  # a field over a constant


class Product(Target, gc=False, eq=False):
    """An API product."""

    kind = "products"
    name: str | None = None

    def is_vacant(self) -> bool:
        """As `Cell.is_vacant`."""
        return self.name is None

    def take(self, new: "Product") -> None:
        """As `Cell.take`."""
        self.name = new.name


class Company(Product, gc=False, eq=False):
    """A company, which has no e-mail."""

    kind = "companies"
    email: ClassVar[str] = ""


class Developer(Target, gc=False, eq=False):
    """A developer."""

    kind = "developers"
    name: str | None = None
    email: str = ""

    def is_vacant(self) -> bool:
        """As `Cell.is_vacant`."""
        return self.name is None

    def take(self, new: "Developer") -> None:
        """As `Cell.take`."""
        self.name = new.name
        self.email = new.email


class App(Target, gc=False, eq=False):
    """An app, and whose it is: a company's or a developer's, or nobody's."""

    kind = "apps"
    name: str | None = None
    owner: Developer | Company | None = None

    def is_vacant(self) -> bool:
        """As `Cell.is_vacant`."""
        return self.name is None

    def take(self, new: "App") -> None:
        """As `Cell.take`."""
        self.name = new.name
        self.owner = new.owner

    def targets(self) -> tuple[Target, ...]:
        """As `Cell.targets`."""
        return () if self.owner is None else (self.owner,)


Pair = tuple[App, Product]


class Key(Cell, gc=False, eq=False):
    """A client id, with the app and product of its first row of the mapper, and those of the others if it has any."""

    kind = "keys"
    app: App | None = None
    product: Product | None = None
    more: tuple[Pair, ...] = ()

    @classmethod
    def of(cls, client_id: str, pairs: tuple[Pair, ...]) -> "Key":
        """The cell of a client id with these apps and products."""
        return cls(client_id, *pairs[0], pairs[1:]) if pairs else cls(client_id)

    def is_vacant(self) -> bool:
        """As `Cell.is_vacant`."""
        return self.app is None

    def take(self, new: "Key") -> None:
        """As `Cell.take`."""
        self.app = new.app
        self.product = new.product
        self.more = new.more

    def pairs(self) -> tuple[Pair, ...]:
        """All of its apps and products."""
        return () if self.app is None or self.product is None else ((self.app, self.product), *self.more)

    def targets(self) -> tuple[Target, ...]:
        """As `Cell.targets`."""
        return tuple(cell for pair in self.pairs() for cell in pair)


class Scope(Cell, gc=False, eq=False):
    """A scope."""

    kind = "scopes"
    tenant: Tenant | None = None

    def is_vacant(self) -> bool:
        """As `Cell.is_vacant`."""
        return self.tenant is None

    def take(self, new: "Scope") -> None:
        """As `Cell.take`."""
        self.tenant = new.tenant


class Names(Cell, gc=False, eq=False):
    """The sorted ids of the scopes that have these names; its id is the two names. No row's, but kept like one."""

    kind = "names"
    scopes: tuple[str, ...] = ()

    def is_vacant(self) -> bool:
        """As `Cell.is_vacant`."""
        return not self.scopes

    def take(self, new: "Names") -> None:
        """As `Cell.take`."""
        self.scopes = new.scopes


class TenantRows(msgspec.Struct, gc=False, eq=False):
    """The cells of one tenant id, by table and id."""

    id: str
    keys: Shards[str, Key] = msgspec.field(default_factory=Shards)
    apps: Shards[str, App] = msgspec.field(default_factory=Shards)
    products: Shards[str, Product] = msgspec.field(default_factory=Shards)
    developers: Shards[str, Developer] = msgspec.field(default_factory=Shards)
    companies: Shards[str, Company] = msgspec.field(default_factory=Shards)

    def tables(self) -> tuple[Shards[Any, Any], ...]:
        """All of them, those first whose cells refer to others."""
        return self.keys, self.apps, self.products, self.developers, self.companies


class Scopes(msgspec.Struct, gc=False, eq=False):
    """The cells of all scopes, by id and by names."""

    scopes: Shards[str, Scope] = msgspec.field(default_factory=Shards)
    names: Shards[tuple[str, str], Names] = msgspec.field(default_factory=Shards)


Home = TenantRows | Scopes
"""Where a cell lies."""


class Cells:
    """All cells of a catalog, and how one is changed for good.

    Attributes:
        scopes: Those of scopes.
        tenants: The others, by tenant id.
        counts: How many there are that are not vacant, by kind.
    """

    __slots__ = ("counts", "scopes", "tenants")

    def __init__(self) -> None:
        self.scopes = Scopes()
        self.tenants: Shards[str, TenantRows] = Shards()
        self.counts: Counter[str] = Counter()

    def settle(self, cell: Cell, new: Cell) -> None:
        """Have a cell become what `new`, a cell of the same row, is; what is of no use then is left to `tidy`."""
        self.counts[cell.kind] += cell.is_vacant() - new.is_vacant()
        for target in new.targets():
            target.refs += 1
        for target in cell.targets():
            target.refs -= 1
        cell.take(new)

    def tidy(self, home: Home, cells: Iterable[Cell]) -> None:
        """Forget those of these cells that are vacant and that nothing refers to; and a home that is empty then."""
        for cell in cells:
            if not cell.refs and cell.is_vacant():
                table: Shards[Any, Any] = getattr(home, cell.kind)
                table.discard(cell.id)
        if isinstance(home, TenantRows) and all(table.is_empty() for table in home.tables()):
            self.tenants.discard(home.id)

    def dismantle(self) -> Iterator[int]:
        """Empty it piece by piece, see `Shards.dismantle`."""
        yield from self.scopes.names.dismantle()
        yield from self.scopes.scopes.dismantle()
        for part in self.tenants.parts():
            for rows in part.values():
                for table in rows.tables():
                    yield from table.dismantle()
        yield from self.tenants.dismantle()
        self.counts.clear()
