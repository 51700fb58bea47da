"""A mapping of any size of which no operation takes long: many small dicts, found by the key's hash.

One dict of a million entries holds the interpreter for tens of milliseconds when it grows, and again when it is
freed. So a mapping that has grown beyond `PART_ENTRIES` is kept in parts (extendible hashing): the lowest bits of a
key's hash say in which. A part that is full is split in two by the next bit; the list of parts, which is indexed
by as many bits as the most split part needs, is doubled when they do not suffice, and other parts then stand in it
more than once. The largest step is one split, a fraction of a millisecond.

A small mapping is one dict, and nothing here is looked at by the garbage collector until there are parts.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Final, Generic, TypeVar

import msgspec

PART_ENTRIES: Final = 2500
"""More entries than this, and a part is split; freeing so many cells takes about a millisecond."""

LAST_WEIGHT: Final = 50
"""As how many entries each entry of the last part counts when its memory is given back."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Shards(msgspec.Struct, Generic[K, V], gc=False, eq=False):
    """A mapping; `get` costs one step more than a dict's. Make it without arguments."""

    _only: dict[K, V] = msgspec.field(default_factory=dict)
    """All of it, while that is little."""
    _parts: list[dict[K, V]] | None = None
    """The parts, by the lowest bits of the hash, from when it is more."""
    _depths: tuple[int, ...] = ()
    """For each place in `_parts`, how many bits of the hash all keys of the part have in common."""
    _mask: int = 0

    def get(self, key: K) -> V | None:
        """The value of a key, or None."""
        if self._parts is None:
            return self._only.get(key)
        return self._parts[hash(key) & self._mask].get(key)

    def places(self) -> tuple[Sequence[Mapping[K, V]], int]:
        """Where keys lie, for who looks up many at once: at `parts[hash(key) & mask]`, until anything is added."""
        return ((self._only,), 0) if self._parts is None else (self._parts, self._mask)

    def get_or_make(self, key: K, make: Callable[[K], V]) -> V:
        """The value of a key; one that is missing is made from the key, and kept."""
        part = self._only if self._parts is None else self._parts[hash(key) & self._mask]
        found = part.get(key)
        if found is None:
            found = part[key] = make(key)
            if len(part) > PART_ENTRIES:
                self._split(key)
        return found

    def discard(self, key: K) -> None:
        """Forget a key, known or not. Parts are not joined again."""
        part = self._only if self._parts is None else self._parts[hash(key) & self._mask]
        part.pop(key, None)

    def is_empty(self) -> bool:
        """Whether there is nothing in it."""
        return not any(self._parts or (self._only,))

    def parts(self) -> Iterator[dict[K, V]]:
        """Each part once, to be read."""
        if self._parts is None:
            yield self._only
            return
        for place, (part, depth) in enumerate(zip(self._parts, self._depths, strict=True)):
            if place < 1 << depth:
                yield part

    def dismantle(self) -> Iterator[int]:
        """Empty it piece by piece, none of which takes long; yields after each how many entries' time it took.

        Entries of all parts lie side by side in memory, which the system gets back in blocks when the last entry of a
        block goes: that is, nearly all of it with the last part. So of that one each entry counts for many.
        """
        parts = list(self.parts())
        weight = LAST_WEIGHT if len(parts) > 1 else 1
        self._only, self._parts, self._depths, self._mask = {}, None, (), 0
        while len(parts) > 1:
            part = parts.pop()
            size = len(part)
            part.clear()
            yield size
        last = parts.pop()
        while last:
            last.popitem()
            yield weight

    def _split(self, key: K) -> None:
        """Split the part of this key by the next bit of the hash."""
        if self._parts is None:
            self._parts, self._depths, self._only = [self._only], (0,), {}
        place = hash(key) & self._mask
        depth = self._depths[place]
        if 1 << depth == len(self._parts):
            self._parts *= 2
            self._depths *= 2
            self._mask = len(self._parts) - 1
        bit = 1 << depth
        halves: tuple[dict[K, V], dict[K, V]] = {}, {}
        for each, value in self._parts[place].items():
            halves[hash(each) & bit != 0][each] = value
        depths = list(self._depths)
        for at in range(place & (bit - 1), len(self._parts), bit):
            self._parts[at] = halves[at & bit != 0]
            depths[at] = depth + 1
        self._depths = tuple(depths)
