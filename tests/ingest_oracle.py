"""What becomes of a body of records, in the simplest words: an oracle for SPEC sections 2 to 4.

It knows nothing of the package but its values, holds everything in memory, and reads JSON with the standard library:
once as the values that it means, and once as it is spelled, because everything that enrichment does not write is to be
kept exactly as it was sent.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from axcollector.core import enrichment, payload, plain, records
from axcollector.core.catalog import Catalog
from axcollector.core.errors import Rejected
from axcollector.core.model import NO_DEVELOPER, Batch, DeveloperInfo, Tenant
from axcollector.core.payload import Document
from axcollector.core.records import Rules
from axcollector.core.tables import APPS, DEVELOPERS, MAPPER, PRODUCTS
from axcollector.core.tails import Tails
from axcollector.core.unpacking import Limits, NeedsCare

START: Final = "client_received_start_timestamp"
END: Final = "client_received_end_timestamp"
INFO_KEYS: Final = ("api_product", "developer_app", "developer_email", "developer")
MAX_RECORDS: Final = 8
LIMITS: Final = Limits(1 << 20, 1 << 20, MAX_RECORDS)
NOW: Final = 1.0
"""Small, so that timestamps that are made up lie on both sides of what rules allow."""
LONGEST_NAME: Final = 2048
"""A longer name, as it is spelled, is not told whole."""
TENANT: Final = Tenant("t1", "ac~me", 'pr"öd')
KNOWN: Final = {
    "key-1": DeveloperInfo("gold", "shop", "ann@example.com", "ann"),
    "key-2": DeveloperInfo(api_product='ü"n'),
}
RULES: Final = (
    Rules(),
    Rules(overwrite_tenant=True),
    Rules(max_record_age_seconds=0.999, max_clock_skew_seconds=0.002),
)
NOT_JSON: Final = ("BAD_DATA", "Not a valid JSON payload")
Fault = tuple[str, str]
"""Code and reason."""


@dataclass(frozen=True)
class Number:
    """A number as it is spelled."""

    text: str


class Pairs(list[tuple[str, Any]]):
    """The members of an object, in their order, repeated keys included."""

    __slots__ = ()


def _refuse(name: str) -> object:
    raise ValueError(name)


def parse(text: bytes) -> Any:
    """The value of a JSON text, numbers as `Number`; `ValueError` or `RecursionError` where it is none."""
    return json.loads(text.decode("utf-8"), parse_int=Number, parse_float=Number, parse_constant=_refuse)


def spelling(text: bytes) -> Any:
    """A JSON text with its strings and numbers as they are spelled and its objects as `Pairs`: all but the space.

    The parser undoes escapes, so each is escaped once more; that of a quote as Q, which is no escape's letter.
    """
    escaped = re.sub(r"\\(.)", lambda m: r"\\" + {'"': "Q", "\\": "S"}.get(m[1], m[1]), text.decode("utf-8"))
    return json.loads(escaped, parse_int=Number, parse_float=Number, object_pairs_hook=Pairs)


def levels(text: bytes) -> int:
    """How deep a JSON text goes, members that a later one of the same key replaces included."""
    level = deepest = 0
    for character in re.sub(rb'"(?:[^"\\]|\\.)*"', b"", text, flags=re.DOTALL).decode():
        level += (character in "[{") - (character in "]}")
        deepest = max(deepest, level)
    return deepest


def to_int(number: Number) -> int:
    """An integer of any length."""
    sign, digits = (-1, number.text[1:]) if number.text.startswith("-") else (1, number.text)
    total = 0
    for start in range(0, len(digits), 4000):
        part = digits[start : start + 4000]
        total = total * 10 ** len(part) + int(part)
    return sign * total


def record_fault(record: Mapping[str, Any], rules: Rules) -> Fault | None:
    """SPEC section 3."""
    start, end = record.get(START), record.get(END)
    if start is None:
        return "MISSING_FIELD", f"Missing Required field: {START}"
    if not all(isinstance(t, Number) and re.fullmatch(r"-?[0-9]+", t.text) for t in (start, end) if t is not None):
        return "BAD_DATA", f"{START} and {END} has to be number"
    if end is not None and to_int(start) > to_int(end):
        return "BAD_DATA", f"{START} > {END}"
    age, skew = rules.max_record_age_seconds, rules.max_clock_skew_seconds
    if age and to_int(start) < int((NOW - age) * 1000):
        return "BAD_DATA", f"{START} cannot be older than {age:g} seconds"
    if skew and to_int(start) > int((NOW + skew) * 1000):
        return "BAD_DATA", f"{START} cannot be after current time"
    for key in ("client_id", "organization", "environment"):
        if not isinstance(record.get(key), str | None):
            return "BAD_DATA", f"{key} has to be a string"
    return None


def enrichment_of(record: Mapping[str, Any], rules: Rules) -> dict[str, str]:
    """SPEC section 4: the members that are written, whatever the record has."""
    names = {"organization": TENANT.organization, "environment": TENANT.environment}
    written = {key: name for key, name in names.items() if rules.overwrite_tenant or record.get(key) in (None, "")}
    if record.get("client_id") is not None:
        info = KNOWN.get(record["client_id"], NO_DEVELOPER)
        written |= {key: getattr(info, key) for key in INFO_KEYS if key not in record}
    return written


@dataclass(frozen=True)
class Outcome:
    """What a body leads to, with names as the values or the faults that they are.

    Attributes:
        names: Of `organization` and `environment` beside the records: the name, or why it is none.
        fault: Why the records are not taken, or None.
        records: What was sent, as values.
        written: What enrichment writes to each.
        sent: The records as they are spelled.
    """

    names: tuple[str | Fault, ...] = ()
    fault: Fault | None = None
    records: tuple[dict[str, Any], ...] = ()
    written: tuple[dict[str, str], ...] = ()
    sent: tuple[Any, ...] = ()


def expected(body: bytes, rules: Rules) -> Outcome:
    """SPEC sections 2 (from "body is one JSON object"), 3 and 4."""
    try:
        document = parse(body)
        if not isinstance(document, dict) or levels(body) > 200:
            return Outcome(fault=NOT_JSON)
    except (ValueError, RecursionError):
        return Outcome(fault=NOT_JSON)
    names = tuple(_name(document, key) for key in ("organization", "environment"))
    found = document.get("records")
    fault = _records_fault(found, rules)
    if fault is not None:
        return Outcome(names, fault)
    sent = tuple(dict(spelling(body))[_last_key(body, "records")])
    return Outcome(names, None, tuple(found), tuple(enrichment_of(record, rules) for record in found), sent)


def _name(document: Mapping[str, Any], key: str) -> str | Fault:
    value = document.get(key)
    if value in (None, ""):
        return "MISSING_FIELD", f"Missing Required field: {key}"
    return value if isinstance(value, str) else ("BAD_DATA", f"{key} has to be a string")


def _records_fault(found: Any, rules: Rules) -> Fault | None:
    if found is None or found == []:
        return "NO_RECORDS", "No analytics records in the payload"
    if not isinstance(found, list):
        return "BAD_DATA", "records should be a list of analytics records"
    if len(found) > MAX_RECORDS:
        return "PAYLOAD_TOO_LARGE", f"The batch has more than {MAX_RECORDS} records (max_batch_records)"
    for at, record in enumerate(found):
        if not isinstance(record, dict):
            return "BAD_DATA", f"Each Analytics record in records should be a json object (record {at})"
    for at, record in enumerate(found):
        fault = record_fault(record, rules)
        if fault is not None:
            return fault[0], f"{fault[1]} (record {at})"
    return None


def _last_key(body: bytes, key: str) -> str:
    """How the last of the members with this key spells it."""
    return [spelled for spelled, _ in spelling(body) if _decoded(spelled) == key][-1]


def _decoded(spelled: str) -> str:
    """The key that `spelling` gives so."""
    key: str = json.loads('"' + spelled.replace("\\Q", '\\"').replace("\\S", "\\\\") + '"')
    return key


def check_body(body: bytes) -> str:
    """Hold what the package makes of a body, at once, carefully and in one pass, against this oracle; says what it was.

    Raises:
        AssertionError: They differ.
    """
    kinds = set()
    for rules in RULES:
        wanted = expected(body, rules)
        fault = wanted.fault and (*wanted.fault, 413 if wanted.fault[0] == "PAYLOAD_TOO_LARGE" else 400)
        assert fault == _take(body, rules, wanted, careful=True)
        try:
            assert fault == _take(body, rules, wanted, careful=False)
            kinds.add("fast")
        except NeedsCare:
            kinds.add("careful")
        if _take_in_one_pass(body, rules, wanted):
            kinds.add("in one pass")
        reason = re.sub(r" \(record .*", "", wanted.fault[1]) if wanted.fault else "accepted"
        kinds.add(reason)
    return ", ".join(sorted(kinds))


def _take(body: bytes, rules: Rules, wanted: Outcome, *, careful: bool) -> tuple[str, str, int] | None:
    """Why the package does not take it, with the status; where it does, what it made of it is checked."""
    try:
        document = payload.decode(body, None, LIMITS, careful=careful)
        _check_names(document, wanted)
        checked = records.check(document.records, rules, NOW, careful=careful)
        batch = enrichment.enrich(checked, TENANT, _known(checked.client_ids), rules, careful=careful)
    except Rejected as exc:
        return exc.code, exc.reason, exc.status
    _check_lines(batch, wanted)
    return None


def _take_in_one_pass(body: bytes, rules: Rules, wanted: Outcome) -> bool:
    """Whether the body is plain and its records good; what the package made of it then is checked."""
    document = plain.parse(body, MAX_RECORDS)
    if document is None:
        return False
    _check_names(document, wanted)
    batch = document.batch(TENANT, CATALOG, _tails, rules, NOW)
    assert (batch is None) == (wanted.fault is not None)
    if batch is None:
        return False
    assert document.count == len(batch)
    _check_lines(batch, wanted)
    return True


def _catalog() -> Catalog:
    """A catalog that knows what is `KNOWN`."""
    catalog = Catalog()
    for key, info in KNOWN.items():
        whole = {"tenant_id": TENANT.id, "id": key}
        catalog.put(PRODUCTS, whole | {"name": info.api_product})
        catalog.put(DEVELOPERS, whole | {"username": info.developer, "email": info.developer_email})
        catalog.put(APPS, whole | {"name": info.developer_app, "developer_id": key})
        catalog.put(MAPPER, {"tenant_id": TENANT.id, "appcred_id": key, "app_id": key, "apiprdt_id": key})
    return catalog


CATALOG: Final = _catalog()
_tails: Final = Tails()


def _known(client_ids: set[str]) -> dict[str, DeveloperInfo]:
    return {client_id: KNOWN.get(client_id, NO_DEVELOPER) for client_id in client_ids}


def _check_names(document: Document, wanted: Outcome) -> None:
    for key, text, name in zip(
        ("organization", "environment"), (document.organization, document.environment), wanted.names, strict=True
    ):
        found = _name_or_fault(text, key)
        if text is not None and text.startswith(b'"') and len(text) > LONGEST_NAME:
            assert isinstance(found, str)
            assert found.endswith("…")
            assert 255 < len(found.encode()) < 1000  # told so that it stays longer than any tenant's
        else:
            assert name == found


def _name_or_fault(text: bytes | None, key: str) -> str | Fault:
    try:
        return payload.name_in(text, key)
    except Rejected as exc:
        return exc.code, exc.reason


def _check_lines(batch: Batch, wanted: Outcome) -> None:
    lines = bytes(batch.lines).split(b"\n")
    assert lines.pop() == b""
    assert len(batch) == len(lines) == len(wanted.records)
    for line, record, written, sent in zip(lines, wanted.records, wanted.written, wanted.sent, strict=True):
        assert b"\r" not in line
        assert parse(line) == record | written
        members = [(_decoded(key), key, value) for key, value in spelling(line)]
        keys = [key for key, _, _ in members]
        assert [key for key in written if keys.count(key) != 1] == []
        assert [member for member in members if member[0] not in written] == [
            (_decoded(key), key, value) for key, value in sent if _decoded(key) not in written
        ]
