"""Rebuilding: from a file to a catalog and to nothing again, with rests in which others have the interpreter."""

from pathlib import Path

import pytest

from axcollector.core.catalog import Catalog
from axcollector.core.shards import PART_ENTRIES
from axcollector.core.tables import DEVELOPERS, SCOPES
from axcollector.courtesy import Courtesy, Haste
from axcollector.registry import Registry
from axcollector.sync.rebuilding import REST_SECONDS, ROWS_A_PIECE, GivenUp, Pace, build, dismantle, examine


class Counting(Pace):
    """Counts rests instead of resting; gives up at the one that it is told."""

    def __init__(self, last: int | None = None) -> None:
        super().__init__()
        self.rests = 0
        self.last = last

    def rest(self, courtesy: Courtesy) -> None:
        self.rests += 1

    def rest_or_end(self, courtesy: Courtesy) -> None:
        self.rests += 1
        if self.rests == self.last:
            raise GivenUp


class Contended(Courtesy):
    """Wants to sleep for so long, because others want the core."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.steps: list[str] = []

    def due(self) -> float:
        self.steps.append("due")
        return self.seconds

    def go_on(self) -> None:
        if hasattr(self, "steps"):
            self.steps.append("go on")


class Event:
    """What a pace waits for; it comes never, and notes for how long it was waited for."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        return False

    def is_set(self) -> bool:
        return False


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
    pace.rest(Contended(3600))
    with pytest.raises(GivenUp):
        pace.rest_or_end(Contended(3600))
    pace.resume()
    pace.rest_or_end(Haste())


def test_a_rest_is_longer_where_others_want_the_core() -> None:
    """It is never shorter than what lets others have the interpreter; its own length counts for no contention."""
    pace = Pace()
    event = Event()
    pace._given_up = event  # type: ignore[assignment]
    for seconds in (0.0, REST_SECONDS / 2, 0.02):
        courtesy = Contended(seconds)
        pace.rest(courtesy)
        pace.rest_or_end(courtesy)
        assert courtesy.steps == ["due", "go on"] * 2
    pace.rest(Haste())
    assert event.waits == [REST_SECONDS] * 4 + [0.02] * 2 + [REST_SECONDS]
