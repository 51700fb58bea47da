"""The values that everything speaks of: tenants, developer info, batches, intervals, buckets.

Those of which there may be very many, or that are made for every record, are structs: cheap to make, and nothing to the
garbage collector.
"""

from dataclasses import dataclass
from typing import Final, Self

import msgspec


class Tenant(msgspec.Struct, frozen=True, gc=False):
    """An organization and environment, and the id under which the registry keeps its developers.

    Attributes:
        id: `data_scope.scope`: the `tenant_id` of the registry's other tables.
        organization: The organization's name.
        environment: The environment's name.
    """

    id: str
    organization: str
    environment: str


class DeveloperInfo(msgspec.Struct, frozen=True, gc=False):
    """What the catalog knows of a client id; four empty strings where it knows nothing."""

    api_product: str = ""
    developer_app: str = ""
    developer_email: str = ""
    developer: str = ""


NO_DEVELOPER: Final = DeveloperInfo()
"""The developer info of a client id that the catalog does not know."""


class Batch(msgspec.Struct, frozen=True, gc=False):
    """The records of one request, validated and enriched: kept whole or not at all.

    Attributes:
        tenant: Whose records they are.
        lines: The records as UTF-8 JSON lines, each ending in a newline; a bytearray is not to be changed either.
        count: How many records there are; none only where all were set aside.
        aside: Lines of the records that were set aside (`core/quarantine`).
        aside_count: How many those are.
    """

    tenant: Tenant
    lines: bytes | bytearray
    count: int
    aside: bytes | bytearray = b""
    aside_count: int = 0

    @property
    def size_bytes(self) -> int:
        """The bytes of all lines."""
        return len(self.lines) + len(self.aside)

    def __len__(self) -> int:
        return self.count


@dataclass(frozen=True, slots=True, order=True)
class Interval:
    """A fixed slice of wall-clock time, in seconds since the epoch: start included, end not."""

    start: int
    end: int

    @classmethod
    def containing(cls, now: float, length_seconds: int) -> Self:
        """The interval that `now` (seconds since the epoch) falls in; intervals are multiples of their length."""
        start = int(now // length_seconds) * length_seconds
        return cls(start, start + length_seconds)


@dataclass(frozen=True, slots=True, order=True)
class BucketName:
    """One tenant's records of one interval, by name.

    Attributes:
        start: The interval's start, in seconds since the epoch.
        organization: The organization's name, as it is (not as it stands in directory names).
        environment: The environment's name, likewise.
    """

    start: int
    organization: str
    environment: str
