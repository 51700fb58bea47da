"""From a registry file to a catalog, and from a catalog to nothing: long work for a thread, at a gentle pace.

Python's threads share one interpreter. A thread that computes gives it up only when another has asked for it and
waited for some milliseconds, which a request would meet several times on its way. So after each piece of work, about a
millisecond, this one rests, and whoever waits goes on at once; longer, where others want its core.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from axcollector.core import layout
from axcollector.core.amendment import tenant_of
from axcollector.core.catalog import Catalog
from axcollector.core.model import Tenant
from axcollector.core.tables import COLUMNS, SCOPES, Values
from axcollector.courtesy import Courtesy
from axcollector.registry import Registry

ROWS_A_PIECE: Final = 250
REST_SECONDS: Final = 0.0005


class GivenUp(Exception):
    """The work was given up, because nobody wants its result any more."""


class Pace:
    """When to rest, and whether to go on at all."""

    def __init__(self) -> None:
        self._given_up = threading.Event()

    def rest(self, courtesy: Courtesy) -> None:
        """Let others have the interpreter; returns at once when the work is given up."""
        self._given_up.wait(max(REST_SECONDS, courtesy.due()))
        courtesy.go_on()

    def rest_or_end(self, courtesy: Courtesy) -> None:
        """The same for work that need not be finished; raises `GivenUp`."""
        self.rest(courtesy)
        if self._given_up.is_set():
            raise GivenUp

    def give_up(self) -> None:
        """There is nobody to wait for any more."""
        self._given_up.set()

    def resume(self) -> None:
        """There is again."""
        self._given_up.clear()


@dataclass(frozen=True, slots=True)
class Built:
    """What was made of a registry file.

    Attributes:
        catalog: The catalog, or None where none was wanted.
        refused: Tenants that it does not hold, because their directories could not be named.
    """

    catalog: Catalog | None
    refused: list[Tenant]


def build(path: str, pace: Pace) -> Built:
    """A catalog of what a registry file holds at one moment.

    Raises:
        RegistryError: The file cannot be read.
        GivenUp: The work was given up.
    """
    catalog = Catalog()
    refused: list[Tenant] = []
    courtesy = Courtesy(0.0)
    try:
        with Registry.open(path) as registry, registry.reading():
            for table in COLUMNS:
                for piece in _pieces(registry.values(table)):
                    refused += catalog.load(table, piece)
                    pace.rest_or_end(courtesy)
    except BaseException:
        dismantle(catalog, pace)
        raise
    return Built(catalog, refused)


def examine(path: str, pace: Pace) -> Built:
    """The same without a catalog: whether the file can be read at all, and the tenants that will be refused."""
    refused = []
    courtesy = Courtesy(0.0)
    with Registry.open(path) as registry, registry.reading():
        for piece in _pieces(registry.values(SCOPES)):
            tenants = [tenant_of(*values[1:]) for values in piece]
            refused += [tenant for tenant in tenants if tenant is not None and not layout.fits(tenant)]
            pace.rest_or_end(courtesy)
    return Built(None, refused)


def dismantle(catalog: Catalog, pace: Pace) -> None:
    """Free a catalog that nobody reads any more."""
    since_rest = 0
    courtesy = Courtesy(0.0)
    for entries in catalog.dismantle():
        since_rest += entries
        if since_rest >= ROWS_A_PIECE:
            pace.rest(courtesy)
            since_rest = 0


Build = Callable[[str, Pace], Built]


def _pieces(rows: Iterator[Values]) -> Iterator[list[Values]]:
    while piece := list(islice(rows, ROWS_A_PIECE)):
        yield piece
