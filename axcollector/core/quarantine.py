"""Records that were set aside: which of a batch they are, and the line that each is kept as.

A line is one JSON object that tells what is to be known to deal with the record later, and holds the record itself,
last, as the exact text that was sent (newlines between tokens are blanks, as everywhere):

    {"quarantined_at":1480000000000,"organization":"acme","environment":"prod","scope":"6f0c…","index":3,
     "code":"MISSING_FIELD","reason":"Missing Required field: …","record":{…}}

`scope` is null where the client named the tenant; `index` is the record's place in the batch as it was sent, from 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import Raw

from axcollector.core import jsontext, records
from axcollector.core.errors import Rejected
from axcollector.core.model import Tenant
from axcollector.core.payload import JSONText
from axcollector.core.records import CHUNK_RECORDS, Fields, Records, Rules


@dataclass(frozen=True, slots=True)
class Bad:
    """A record of a batch that breaks a rule."""

    index: int
    code: str
    reason: str
    text: JSONText


class Entry(msgspec.Struct, frozen=True):
    """What a line says.

    Attributes:
        quarantined_at: Milliseconds since the epoch.
        organization: The tenant's.
        environment: Likewise.
        scope: By which the client named the tenant, or None.
        index: The record's place in its batch.
        code: The `errorCode` with which its batch would have been refused.
        reason: Likewise, without the index.
        record: The record's text.
    """

    quarantined_at: int
    organization: str
    environment: str
    scope: str | None
    index: int
    code: str
    reason: str
    record: Raw

    def line(self) -> bytes:
        """The line."""
        return msgspec.json.encode(self) + b"\n"


_entry: Final = msgspec.json.Decoder(Entry)


def parse(line: bytes) -> Entry:
    """What a line says, whatever JSON its record is.

    Raises:
        ValueError: It is no such line.
    """
    line = line.removesuffix(b"\n")
    try:
        return _entry.decode(line)
    except (msgspec.MsgspecError, RecursionError):
        masked = jsontext.mask_surrogates(line)  # of the same length
        try:
            entry = _entry.decode(masked)
        except (msgspec.MsgspecError, RecursionError) as exc:
            message = f"not a line of a record that was set aside: {exc}"
            raise ValueError(message) from exc
    start = len(line) - 1 - len(bytes(entry.record))
    return msgspec.structs.replace(entry, record=Raw(line[start:-1]))


def sift(texts: Sequence[JSONText], rules: Rules, now: float) -> tuple[Records, list[Bad]]:
    """The valid records of a batch, and the others, both in their order (SPEC section 3), at `now`."""
    good: list[JSONText] = []
    fields: list[Fields] = []
    bad: list[Bad] = []
    for start in range(0, len(texts), CHUNK_RECORDS):
        chunk = texts[start : start + CHUNK_RECORDS]
        try:
            fields += records.check(chunk, rules, now).fields
            good += chunk
        except Rejected:
            for index, text in enumerate(chunk, start):
                try:
                    fields += records.check([text], rules, now).fields
                    good.append(text)
                except Rejected as exc:
                    bad.append(Bad(index, exc.code, exc.reason.removesuffix(" (record 0)"), text))
    return Records(good, fields), bad


def lines_of(bad: Sequence[Bad], tenant: Tenant, scope: str | None, now: float) -> bytearray:
    """The lines that bad records of a batch are kept as, having been set aside at `now`."""
    at = int(now * 1000)
    lines = bytearray()  # not joined: they may be 50 MB, and one copy of all would hold the interpreter
    for each in bad:
        entry = Entry(
            *(at, tenant.organization, tenant.environment, scope),
            *(each.index, each.code, each.reason, Raw(each.text)),
        )
        lines += entry.line()
    return lines
