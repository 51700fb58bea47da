"""The part of the torture that judges: what was sent, and whether the store's objects hold it as they should.

A record carries its own name, `{client}.{number}.{index}`: the batch is (client, number). What else is in it follows
from that name and from what the ledger noted, so a delivered record can be compared, whole, with the one sent, and
nothing but a few numbers a batch is kept. For each batch the records found are counted, in whichever object:

* acknowledged and nowhere: *lost*
* some record is there more than once: *doubled*
* some records are there and some are not: *half*
* not acknowledged: may be there whole, once, or not at all

An object is a (tenant, key) of the store. The same key put again is one object; under another key it is another.
Shares no code with the service.
"""

import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Tenant = tuple[str, str]
"""Organization and environment."""

FINDINGS: Final = {
    "lost": "acknowledged batches of which nothing was delivered",
    "doubled": "batches with records that were delivered more than once",
    "half": "batches of which a part was delivered, acknowledged or not",
    "misplaced": "records delivered to another tenant than the one they were sent for",
    "torn": "delivered lines that are no record, or have no line end",
    "unreadable": "objects that gzip does not read whole",
    "foreign": "delivered records that were never sent, or not so",
}
"""What can be wrong in a store."""

_EXAMPLES: Final = 10
_START: Final = 1_700_000_000_000


@dataclass(slots=True)
class Sent:
    """A batch that was tried.

    Attributes:
        tenant: Whom it was sent for.
        count: How many records it has.
        text_bytes: How long the text in each of them is, before it is written as hexadecimal digits.
        acknowledged: Whether a 200 came.
    """

    tenant: Tenant
    count: int
    text_bytes: int
    acknowledged: bool = False


@dataclass(frozen=True, slots=True)
class Stored:
    """An object of the store, as it was put last."""

    tenant: Tenant
    key: str
    data: bytes


class Findings:
    """What is wrong: how often, and a few examples of each kind."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}

    def add(self, kind: str, example: str, count: int = 1) -> None:
        """Note something."""
        self.counts[kind] += count
        examples = self.examples.setdefault(kind, [])
        if len(examples) < _EXAMPLES:
            examples.append(example)


def record(client: int, number: int, index: int, sent: Sent) -> dict[str, Any]:
    """A record of a batch, as it is sent. Its text does not compress well, as real ones do not."""
    name = f"{client}.{number}.{index}"
    text = hashlib.shake_128(name.encode()).hexdigest(sent.text_bytes)
    return {"id": name, "client_received_start_timestamp": _START + number, "text": text}


@dataclass(slots=True)
class Ledger:
    """The batches that were tried, by client; a client's are numbered from 0. Each client has a list of its own."""

    clients: list[list[Sent]] = field(default_factory=list)

    @property
    def tried(self) -> int:
        """How many there are."""
        return sum(map(len, self.clients))

    @property
    def acknowledged(self) -> int:
        """How many of them got a 200."""
        return sum(sent.acknowledged for batches in self.clients for sent in batches)

    @property
    def records(self) -> int:
        """How many records are in those acknowledged."""
        return sum(sent.count for batches in self.clients for sent in batches if sent.acknowledged)

    def find(self, name: object) -> tuple[int, int, int] | None:
        """Client, number and index of a record of this name, if such a one was sent."""
        parts = name.split(".") if isinstance(name, str) else []
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
            return None
        client, number, index = map(int, parts)
        if client >= len(self.clients) or number >= len(self.clients[client]):
            return None
        return (client, number, index) if index < self.clients[client][number].count else None


def reconcile(ledger: Ledger, objects: Iterable[Stored]) -> Findings:
    """Compare what was sent with what is in the store."""
    findings = Findings()
    found: dict[tuple[int, int], Counter[int]] = {}
    for stored in objects:
        where = f"{'~'.join(stored.tenant)} {stored.key}"
        for line in _lines(stored, where, findings):
            name = _judge_record(ledger, stored.tenant, line, where, findings)
            if name is not None:
                client, number, index = name
                found.setdefault((client, number), Counter())[index] += 1
    for client, batches in enumerate(ledger.clients):
        for number, sent in enumerate(batches):
            _judge_batch(f"{client}.{number}", sent, found.get((client, number), {}), findings)
    return findings


def _lines(stored: Stored, where: str, findings: Findings) -> list[bytes]:
    try:
        if not stored.data:
            raise EOFError("it is empty")
        text = gzip.decompress(stored.data)
    except (OSError, EOFError, zlib.error) as exc:
        findings.add("unreadable", f"{where}: {exc}")
        return []
    lines = text.split(b"\n")
    if lines.pop():
        findings.add("torn", f"{where}: its last line has no end")
    return lines


def _judge_record(
    ledger: Ledger, tenant: Tenant, line: bytes, where: str, findings: Findings
) -> tuple[int, int, int] | None:
    """The name of the record in a line, where one of that name was sent."""
    try:
        delivered = json.loads(line)
    except ValueError:
        delivered = None
    if not isinstance(delivered, dict):
        findings.add("torn", f"{where}: {line[:80]!r}")
        return None
    name = ledger.find(delivered.get("id"))
    if name is None:
        findings.add("foreign", f"{where}: {line[:80]!r} was never sent")
        return None
    client, number, index = name
    sent = ledger.clients[client][number]
    organization, environment = sent.tenant
    expected = record(client, number, index, sent) | {"organization": organization, "environment": environment}
    if delivered != expected:
        findings.add("foreign", f"{where}: {line[:200]!r} was not sent so")
    if tenant != sent.tenant:
        findings.add("misplaced", f"{where}: {delivered['id']} of {'~'.join(sent.tenant)}")
    return name


def _judge_batch(name: str, sent: Sent, found: Mapping[int, int], findings: Findings) -> None:
    what = f"{name}, {sent.count} records of {'~'.join(sent.tenant)}, {'' if sent.acknowledged else 'not '}acknowledged"
    if not found:
        if sent.acknowledged:
            findings.add("lost", what)
        return
    if max(found.values()) > 1:
        findings.add("doubled", what)
    if len(found) < sent.count:
        findings.add("half", f"{what}, {len(found)} there")
