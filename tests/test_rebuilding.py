"""Rebuilding: from a file to a catalog and to nothing again, with rests in which others have the interpreter."""

from pathlib import Path

import pytest

from axcollector.core.catalog import Catalog
from axcollector.core.shards import PART_ENTRIES
from axcollector.core.tables import DEVELOPERS, SCOPES
from axcollector.registry import Registry
from axcollector.sync.rebuilding import ROWS_A_PIECE, GivenUp, Pace, build, dismantle, examine


class Counting(Pace):
    """Counts rests instead of resting; gives up at the one that it is told."""

    def __init__(self, last: int | None = None) -> None:
        super().__init__()
        self.rests = 0
        self.last = last

    def rest(self) -> None:
        self.rests += 1

    def rest_or_end(self) -> None:
        self.rests += 1
        if self.rests == self.last:
            raise GivenUp


def registry_of(path: Path, scopes: int) -> str:
    """A registry file with so many scopes."""
    with Registry.create(str(path)) as registry, registry._transaction("BEGIN"):
        for number in range(scopes):
            registry._insert(SCOPES, {"id": f"s{number}", "scope": "t", "org": f"o{number}", "env": "e"})
    return str(path)


def large_catalog(developers: int) -> Catalog:
    """A catalog with so many developers."""
    catalog = Catalog()
    catalog.load(DEVELOPERS, [("t", str(number), "ada", None) for number in range(developers)])
    return catalog


@pytest.mark.parametrize("work", [build, examine])
def test_a_rest_after_each_piece(tmp_path: Path, work: "type[object]") -> None:
    """However long it takes, nobody waits for longer than a piece of it."""
    pace = Counting()
    work(registry_of(tmp_path / "r.db", 3 * ROWS_A_PIECE), pace)  # type: ignore[call-arg]
    assert pace.rests == 3


def test_a_build_that_is_given_up(tmp_path: Path) -> None:
    """It ends at its next rest, and what was built is taken apart as gently as an old catalog."""
    pace = Counting(last=2)
    with pytest.raises(GivenUp):
        build(registry_of(tmp_path / "r.db", 3 * ROWS_A_PIECE), pace)
    assert pace.rests > 2


def test_dismantling_rests() -> None:
    """A rest for each part, and many more for the last one, with which the memory goes back."""
    pace = Counting()
    catalog = large_catalog(8 * PART_ENTRIES)
    dismantle(catalog, pace)
    assert pace.rests > 100
    assert catalog.counts()[DEVELOPERS] == 0


def test_a_pace_that_is_given_up() -> None:
    """Rests end at once then, and what need not be finished ends; until it is resumed."""
    pace = Pace()
    pace.give_up()
    pace.rest()
    with pytest.raises(GivenUp):
        pace.rest_or_end()
    pace.resume()
    pace.rest_or_end()
