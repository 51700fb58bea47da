"""How much a buffer of records may hold, what happens beyond, and what became of all that came."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Full(enum.StrEnum):
    """What happens to a record for which there is no room."""

    WAIT = "wait"
    DROP_NEW = "drop_new"
    DROP_OLD = "drop_old"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may be held.

    Attributes:
        batch_records: A batch of so many records is full.
        batch_bytes: A batch of so many bytes is; a single record may be larger.
        max_records: So many records may be pending, half of them of one scope; and as many may wait.
        max_bytes: So many bytes of JSON text likewise.
    """

    batch_records: int
    batch_bytes: int
    max_records: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Spooled:
    """The disk spool of a client, at one moment.

    Attributes:
        bytes: How many bytes lie there, packed, and those of refused records.
        accepted: How many records that lay there collectors have taken since the start.
        refused: How many they have refused, which lie in `refused/` below the spool's directory.
    """

    bytes: int
    accepted: int
    refused: int


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the records that were added.

    `added == accepted + set_aside + refused + dropped + pending + waiting`, the mappings' values summed.

    Attributes:
        added: How many there were.
        accepted: Of which the target says that it has them.
        set_aside: Which it put into its quarantine (`invalid_records: quarantine`).
        refused: Which it will never take as they are, by `errorCode`; `BAD_DATA` also those that JSON cannot say.
        dropped: Which are gone, by reason: `full`, `too_large`, `stopped`, `cancelled` (by who waited), `failed` (the
            target fails in ways that it does not promise).
        retried: How often a batch was sent again, because the target could not take it at that moment.
        pending: How many are held.
        pending_bytes: How many bytes of JSON they are.
        waiting: How many wait for room.
    """

    added: int = 0
    accepted: int = 0
    set_aside: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    retried: int = 0
    pending: int = 0
    pending_bytes: int = 0
    waiting: int = 0


def check_positive(**given: float) -> None:
    """Raise `ValueError` for the first of these that is not positive."""
    for name, value in given.items():
        if value <= 0:
            message = f"{name}: {value!r} is not allowed; allowed is a positive number"
            raise ValueError(message)
