"""Shards: a dict in parts, whatever its size, and never a long step."""

import random

import pytest

from axcollector.core.shards import LAST_WEIGHT, PART_ENTRIES, Shards


class Collides(int):
    """A number whose hash has few bits that differ, so that some parts are split often and others never."""

    def __hash__(self) -> int:
        return int(self) * 1024


def filled(keys: list[int]) -> Shards[int, str]:
    """Shards of these keys."""
    shards: Shards[int, str] = Shards()
    for key in keys:
        assert str(int(key)) == shards.get_or_make(key, lambda each: str(int(each)))
    return shards


def contents(shards: Shards[int, str]) -> dict[int, str]:
    """Everything in it; a key that is in two parts is a failure."""
    found: dict[int, str] = {}
    for part in shards.parts():
        assert not found.keys() & part.keys()
        found.update(part)
    return found


@pytest.mark.parametrize("size", [1, PART_ENTRIES, PART_ENTRIES + 1, 5 * PART_ENTRIES])
def test_it_is_a_mapping(size: int) -> None:
    """Of any size it holds what was put, each key once, in parts that are not too large; and forgets what it should."""
    keys = list(range(size))
    random.Random(size).shuffle(keys)
    shards = filled(keys)
    assert {key: str(key) for key in keys} == contents(shards)
    assert max(len(part) for part in shards.parts()) <= PART_ENTRIES
    assert shards.get(size) is None
    assert shards.get_or_make(0, lambda _: "another") == "0"
    gone = keys[::2]
    for key in [*gone, -1]:
        shards.discard(key)
    assert {key: str(key) for key in keys[1::2]} == contents(shards)
    assert all(shards.get(key) == str(key) for key in keys[1::2])
    assert shards.is_empty() == (size == 1)


def test_parts_of_different_depths() -> None:
    """Keys whose hashes agree in many bits are told apart by later ones, and the rest is not split for them."""
    keys: list[int] = [Collides(number) for number in range(2 * PART_ENTRIES)]
    others = [2 * number + 1 for number in range(100)]
    shards = filled([*keys, *others])
    assert {int(key) for key in (*keys, *others)} == {int(key) for key in contents(shards)}
    assert len(list(shards.parts())) < 20
    assert all(shards.get(key) == str(int(key)) for key in (*keys, *others))


def test_dismantling() -> None:
    """It is emptied part by part, and can be used again."""
    shards = filled(list(range(3 * PART_ENTRIES)))
    *_, last = sizes = [len(part) for part in reversed(list(shards.parts()))]
    assert len(sizes) > 1
    assert sizes[:-1] + [LAST_WEIGHT] * last == list(shards.dismantle())
    assert shards.is_empty()
    assert shards.get(1) is None
    assert shards.get_or_make(1, str) == "1"
    assert contents(shards) == {1: "1"}
