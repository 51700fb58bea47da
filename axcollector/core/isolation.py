"""Which records of a refused batch are at fault: the parts in which the batch is sent again.

A collector refuses a batch as a whole when one record is bad. Its reason names the record where it can; where it cannot
(a body that is no JSON, one that is too large) the batch is halved. A record is believed to be bad only when it was
refused alone, so that no reason, whoever wrote it, costs another record. With `bad` bad records among `n` this takes
`bad * log2(n)` requests at the most, and the order of those that are kept is the order in which they were given.
"""

import re
from collections import deque
from collections.abc import Sequence
from typing import Final

from axcollector.core.errors import Rejected

OF_RECORDS: Final = frozenset({"BAD_DATA", "MISSING_FIELD", "PAYLOAD_TOO_LARGE"})
"""The codes that speak of records; the others speak of the scope, or of who sends."""
_INDEX: Final = re.compile(r"(.*) \(record (\d{1,9})\)", re.DOTALL)


class Parts:
    """A batch on its way, in the parts that are to be sent one after the other."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        self._parts: deque[Sequence[bytes]] = deque([texts] if texts else [])

    def __bool__(self) -> bool:
        return bool(self._parts)

    @property
    def head(self) -> Sequence[bytes]:
        """What is to be sent next."""
        return self._parts[0]

    @property
    def rest(self) -> Sequence[bytes]:
        """All that has not been answered for, in order."""
        return [text for part in self._parts for text in part]

    def take(self) -> Sequence[bytes]:
        """The head has been dealt with: it is a part no longer."""
        return self._parts.popleft()

    def divide(self, reason: str) -> Sequence[bytes]:
        """The head was refused, on account of its records: what is certain to be bad of it; else it is divided."""
        head = self._parts.popleft()
        if len(head) == 1:
            return head
        index = index_in(reason)
        pieces = _halves(head)
        if index is not None and index < len(head):
            pieces = [head[:index], head[index : index + 1], *_halves(head[index + 1 :])]
        self._parts.extendleft(reversed([piece for piece in pieces if piece]))
        return ()


def _halves(texts: Sequence[bytes]) -> list[Sequence[bytes]]:
    middle = (len(texts) + 1) // 2
    return [texts[:middle], texts[middle:]]


def index_in(reason: str) -> int | None:
    """The place of the record that a refusal speaks of; None where it speaks of none."""
    match = _INDEX.fullmatch(reason)
    return int(match[2]) if match else None


def without_index(exc: Rejected) -> str:
    """What a refusal says, without the place of the record in its batch."""
    match = _INDEX.fullmatch(exc.reason)
    return match[1] if match else exc.reason
