"""Raw records × rules × now → valid `Records`, or `Rejected`: all or nothing.

`check` and `enrich` are the hot path: for a batch they make one decoder call, one cheap pass each over the records, and
no object that is not needed. What does not fit the fast way (a number of 5 000 digits, a lone surrogate, a wrong
type) is looked at again, record by record and member by member, in the rules' own order (SPEC section 3).
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from axcollector.core import jsontext
from axcollector.core.errors import Rejected
from axcollector.core.payload import JSONText
from axcollector.core.unpacking import NeedsCare

_START: Final = "client_received_start_timestamp"
_END: Final = "client_received_end_timestamp"
_DEVELOPER_KEYS: Final = ("api_product", "developer_app", "developer_email", "developer")
_INTEGER: Final = re.compile(rb"-?(?:0|[1-9][0-9]*)")
CHUNK_RECORDS: Final = 500
"""So many records are handled in one call: one of all would hold the interpreter for as long as it copies 50 MB."""
_COMPLEMENT: Final = bytes.maketrans(b"0123456789", b"9876543210")


@dataclass(frozen=True, slots=True)
class Rules:
    """What is asked of a record beyond its shape.

    Attributes:
        max_record_age_seconds: How far back a record's start may lie; 0: any.
        max_clock_skew_seconds: How far ahead; 0: any.
        overwrite_tenant: Whether `organization` and `environment` are the tenant's, whatever was sent.
    """

    max_record_age_seconds: float = 0
    max_clock_skew_seconds: float = 0
    overwrite_tenant: bool = False


class Fields(msgspec.Struct, gc=False):
    """The members of a record that rules and enrichment look at; of repeated keys the last."""

    client_received_start_timestamp: int
    client_received_end_timestamp: int | None = None
    client_id: str | None = None
    organization: str | UnsetType | None = UNSET
    environment: str | UnsetType | None = UNSET
    api_product: Raw | UnsetType = UNSET
    developer_app: Raw | UnsetType = UNSET
    developer_email: Raw | UnsetType = UNSET
    developer: Raw | UnsetType = UNSET


_fields = msgspec.json.Decoder(Fields)
_all_fields = msgspec.json.Decoder(list[Fields])


class Records(msgspec.Struct, frozen=True, gc=False):
    """Records that were found valid, beside what enrichment needs to know of each."""

    texts: Sequence[JSONText]
    fields: Sequence[Fields]

    @property
    def client_ids(self) -> set[str]:
        """The distinct client ids to look up; one that is no UTF-8 is nobody's."""
        return {c for f in self.fields if (c := f.client_id) is not None and (c.isascii() or _encodable(c))}


def _encodable(text: str) -> bool:
    return text == text.encode(errors="replace").decode()


def check(texts: Sequence[JSONText], rules: Rules, now: float, *, careful: bool = True) -> Records:
    """Validate a batch's records (SPEC section 3), at the time `now` in seconds since the epoch.

    Raises:
        NeedsCare: They are no ordinary ones, and `careful` is false.
        Rejected: One is not valid; the reason names the first such record's index.
    """
    try:
        if len(texts) == 1:
            fields = [_fields.decode(texts[0])]
        else:
            fields = []
            for start in range(0, len(texts), CHUNK_RECORDS):
                chunk = texts[start : start + CHUNK_RECORDS]
                fields += _all_fields.decode(b"[" + b",".join(chunk) + b"]")
    except (msgspec.DecodeError, RecursionError):
        if not careful:
            raise NeedsCare from None
        fields = _check_one_by_one(texts, rules, now)
    earliest, latest = bounds(rules, now)
    for index, record in enumerate(fields):
        begun = record.client_received_start_timestamp
        end = record.client_received_end_timestamp
        if end is not None and begun > end:
            raise _bad(f"{_START} > {_END}", index)
        if earliest is not None and begun < earliest:
            raise _bad(_too_old(rules), index)
        if latest is not None and begun > latest:
            raise _bad(_TOO_NEW, index)
    return Records(texts, fields)


_TOO_NEW: Final = f"{_START} cannot be after current time"


def _too_old(rules: Rules) -> str:
    return f"{_START} cannot be older than {rules.max_record_age_seconds:g} seconds"


def bounds(rules: Rules, now: float) -> tuple[int | None, int | None]:
    """The earliest and the latest start, in milliseconds since the epoch, that the rules allow."""
    age, skew = rules.max_record_age_seconds, rules.max_clock_skew_seconds
    if not (age or skew):
        return None, None
    return int((now - age) * 1000) if age else None, int((now + skew) * 1000) if skew else None


def _bad(reason: str, index: int, code: str = "BAD_DATA") -> Rejected:
    return Rejected(code, f"{reason} (record {index})")


def _check_one_by_one(texts: Sequence[JSONText], rules: Rules, now: float) -> list[Fields]:
    """The same, whatever numbers and strings the records hold, in the order in which the rules are written."""
    for index, text in enumerate(texts):
        if not bytes(text).startswith(b"{"):
            raise _bad("Each Analytics record in records should be a json object", index)
    return [_check_one(bytes(text), index, rules, now) for index, text in enumerate(texts)]


def _check_one(text: bytes, index: int, rules: Rules, now: float) -> Fields:
    values = {member.key: member.value for member in jsontext.members(text)}
    start, end = values.get(_START, b"null"), values.get(_END, b"null")
    if start == b"null":
        raise _bad(f"Missing Required field: {_START}", index, "MISSING_FIELD")
    if not (_INTEGER.fullmatch(start) and (end == b"null" or _INTEGER.fullmatch(end))):
        raise _bad(f"{_START} and {_END} has to be number", index)
    if end != b"null" and _order(start) > _order(end):
        raise _bad(f"{_START} > {_END}", index)
    earliest, latest = bounds(rules, now)
    if earliest is not None and _order(start) < _order(b"%d" % earliest):
        raise _bad(_too_old(rules), index)
    if latest is not None and _order(start) > _order(b"%d" % latest):
        raise _bad(_TOO_NEW, index)
    # What the rules on timestamps need of numbers is done: any start within the bounds will do from here on.
    return Fields(
        client_received_start_timestamp=earliest or 0,
        client_id=_string(values, "client_id", index),
        organization=_string(values, "organization", index) if "organization" in values else UNSET,
        environment=_string(values, "environment", index) if "environment" in values else UNSET,
        api_product=_text(values, "api_product"),
        developer_app=_text(values, "developer_app"),
        developer_email=_text(values, "developer_email"),
        developer=_text(values, "developer"),
    )


def _order(integer: bytes) -> tuple[int, int, bytes]:
    """What JSON integers of any length compare by, without converting them (which takes quadratic time)."""
    if integer.startswith(b"-"):
        digits = integer[1:]
        return (0, 0, b"") if digits == b"0" else (-1, -len(digits), digits.translate(_COMPLEMENT))
    return (0, 0, b"") if integer == b"0" else (1, len(integer), integer)


def _string(values: Mapping[str, bytes], key: str, index: int) -> str | None:
    text = values.get(key, b"null")
    if text == b"null":
        return None
    if not text.startswith(b'"'):
        raise _bad(f"{key} has to be a string", index)
    value: str = json.loads(text)
    return value


def _text(values: Mapping[str, bytes], key: str) -> Raw | UnsetType:
    return Raw(values[key]) if key in values else UNSET
