"""What a parent and its worker processes say to each other, and how it stands in their pipes.

A message is a length, four bytes, and as many bytes of MessagePack. Both sides are of one version, since the parent
starts its workers itself; nothing here is kept on disk.

    parent ─► worker    Setup, first of all; then Situation, Snapshot, Changes, Finish, Leave as there is reason to
    worker ─► parent    Ready, when it takes records; Standing, now and then; Shown, to each event; Said, for the log
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from axcollector.core.status import CatalogStatus, IngestStatus, TenantTraffic
from axcollector.core.tables import Row

_LENGTH_BYTES: Final = 4
MAX_MESSAGE_BYTES: Final = 1 << 26
"""Nothing that either says is as long; more would be no message at all."""


class Situation(msgspec.Struct, frozen=True, tag=True):
    """How things stand beside the worker.

    Attributes:
        lack: What room is lacking on disk, or None.
        reserved_bytes: How many bytes the splits of others' journals will need.
        quarantined_bytes: How many lie in quarantine, or were set aside by others.
        measurements: How often that was measured.
    """

    lack: str | None
    reserved_bytes: int
    quarantined_bytes: int = 0
    measurements: int = 0


class Snapshot(msgspec.Struct, frozen=True, tag=True):
    """Everything is as it is in this registry file. `number` stands for the event in its `Shown`."""

    number: int
    version: str
    registry: str


class Door(msgspec.Struct, frozen=True):
    """Where records come from.

    Attributes:
        endpoint: As the configuration has it.
        descriptor: The listening socket, as the worker inherits it.
    """

    endpoint: str
    descriptor: int


class Sharing(msgspec.Struct, frozen=True):
    """How a worker hands connections on to others, as it inherits it (`workers.inboxes`).

    Attributes:
        slot: Its own number among those who do.
        memory: The descriptor of what holds their `Loads`.
        inbox: That of the socket out of which it takes what others hand on.
        entries: By slot, those of the sockets that lead to inboxes.
    """

    slot: int
    memory: int
    inbox: int
    entries: Sequence[int]


class Setup(msgspec.Struct, frozen=True, tag=True):
    """What a worker is to do.

    Attributes:
        settings: The configuration, by key; without what only the parent needs to know.
        instance_id: Part of its journals' names, as are the two after it.
        starts: Likewise.
        worker: Its number.
        doors: Where it is to take records.
        situation: How things stand.
        snapshot: The last one that there was, or None: there was none yet.
        sharing: How it hands connections on, or None: it keeps what comes to it.
    """

    settings: Mapping[str, Any]
    instance_id: str
    starts: int
    worker: int
    doors: Sequence[Door]
    situation: Situation
    snapshot: Snapshot | None
    sharing: Sharing | None = None


class RowChange(msgspec.Struct, frozen=True, array_like=True):
    """A change of one row, as in `sync.events.Change`."""

    operation: int
    table: str
    new_row: Row | None
    old_row: Row | None


class Changes(msgspec.Struct, frozen=True, tag=True):
    """Rows have changed; a long list comes in several of these, of which all but the last have `more`."""

    number: int
    version: str
    changes: Sequence[RowChange]
    more: bool = False


class Finish(msgspec.Struct, frozen=True, tag=True):
    """Finish the open journal now, and go on in another."""


class Leave(msgspec.Struct, frozen=True, tag=True):
    """Take no new connections, commit and answer what there is, and exit; `gently`: give clients time to notice."""

    gently: bool


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The worker takes records."""


class Shown(msgspec.Struct, frozen=True, tag=True):
    """The worker's catalog shows an event; or, not `is_shown`, never will."""

    number: int
    is_shown: bool


class Said(msgspec.Struct, frozen=True, tag=True):
    """A line for the log.

    Attributes:
        level: The name of its level.
        namespace: Whose it is.
        text: What it says.
        event: Its format, the same for all of a kind.
        fields: What the event holds, of such values as JSON has.
        traceback: Where it is about a failure.
    """

    level: str
    namespace: str
    text: str
    event: str = ""
    fields: Mapping[str, Any] = {}
    traceback: str | None = None


class Standing(msgspec.Struct, frozen=True, tag=True):
    """How the worker is.

    Attributes:
        problems: What keeps it from being ready, by check.
        needs: How many bytes the split of each of its journals will need.
        set_aside_bytes: What it holds of records that are on their way to quarantine.
        ingest: What it has counted since it began; None: nothing yet.
        catalog: What its catalog shows; None: nothing yet.
        traffic: What tenants have sent since they were last told of.
        failures: How often its periodic work has failed, and what the last failure said, by name.
    """

    problems: Mapping[str, str | None]
    needs: Mapping[str, int]
    set_aside_bytes: int = 0
    ingest: IngestStatus | None = None
    catalog: CatalogStatus | None = None
    traffic: tuple[TenantTraffic, ...] = ()
    failures: Mapping[str, tuple[int, str]] = {}


Order = Setup | Situation | Snapshot | Changes | Finish | Leave
"""What a parent says."""
Report = Ready | Shown | Said | Standing
"""What a worker says."""
_encoder: Final = msgspec.msgpack.Encoder()
_ORDERS: Final = msgspec.msgpack.Decoder(Order)
_REPORTS: Final = msgspec.msgpack.Decoder(Report)


def frame(message: Order | Report) -> bytes:
    """A message as it stands in a pipe."""
    body = _encoder.encode(message)
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


class _Frames:
    """Cuts what comes from a pipe into messages, in whatever pieces it comes."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bodies that are whole with `data`.

        Raises:
            ValueError: This cannot be a message.
        """
        self._buffer += data
        at = 0
        while len(self._buffer) - at >= _LENGTH_BYTES:
            begin = at + _LENGTH_BYTES
            length = int.from_bytes(self._buffer[at:begin], "big")
            if length > MAX_MESSAGE_BYTES:
                message = f"{length} bytes are no message"
                raise ValueError(message)
            if len(self._buffer) - begin < length:
                break
            at = begin + length
            yield bytes(self._buffer[begin:at])
        del self._buffer[:at]


class Orders:
    """Reads what a parent says."""

    def __init__(self) -> None:
        self._frames = _Frames()

    def feed(self, data: bytes) -> Sequence[Order]:
        """The messages that are whole with `data`; raises `ValueError` where it holds none."""
        return [_ORDERS.decode(body) for body in self._frames.feed(data)]


class Reports:
    """Reads what a worker says."""

    def __init__(self) -> None:
        self._frames = _Frames()

    def feed(self, data: bytes) -> Sequence[Report]:
        """The messages that are whole with `data`; raises `ValueError` where it holds none."""
        return [_REPORTS.decode(body) for body in self._frames.feed(data)]
