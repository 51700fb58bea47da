"""From raw records to a batch: validation, enrichment, and every other byte as it was sent."""

import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from axcollector.core import payload, records, unpacking
from axcollector.core.enrichment import enrich
from axcollector.core.errors import Rejected
from axcollector.core.model import NO_DEVELOPER, DeveloperInfo, Tenant
from axcollector.core.records import Rules
from tests.json_texts import likely_records, oracle, values

START = "client_received_start_timestamp"
END = "client_received_end_timestamp"
LIMITS = unpacking.Limits(10 << 20, 50 << 20, 20_000)
TENANT = Tenant("t1", "ac~me", 'pr"öd')
KNOWN = {"key-1": DeveloperInfo("gold", "shop", "ann@example.com", "ann"), "key-2": DeveloperInfo(api_product="ün")}
INFO_KEYS = ("api_product", "developer_app", "developer_email", "developer")


def lines_of(texts: list[bytes], rules: Rules = Rules(), now: float = 0) -> list[bytes]:  # noqa: B008 - a value
    """The lines of the batch that these records make."""
    body = b'{"records":[' + b",".join(texts) + b"]}"
    checked = records.check(payload.decode(body, None, LIMITS).records, rules, now)
    batch = enrich(checked, TENANT, KNOWN, rules)
    lines = batch.lines.split(b"\n")
    assert lines.pop() == b""
    assert len(batch) == len(lines) == len(texts)
    return lines


def is_int(value: Any) -> bool:
    """Whether the oracle's value is a JSON integer (it gives numbers as text, marked by `Number`)."""
    return isinstance(value, Number) and re.fullmatch(r"-?\d+", value) is not None


class Number(str):
    """A number's text, to be told from a string."""

    __slots__ = ()


def parse(text: bytes) -> dict[str, Any]:
    """A record, numbers as `Number`."""
    record: dict[str, Any] = json.loads(text.decode(), parse_int=Number, parse_float=Number)
    return record


def to_int(number: str) -> int:
    """An integer of any length."""
    sign, digits = (-1, number[1:]) if number.startswith("-") else (1, number)
    total = 0
    for start in range(0, len(digits), 4000):
        part = digits[start : start + 4000]
        total = total * 10 ** len(part) + int(part)
    return sign * total


def expected_fault(record: dict[str, Any]) -> str | None:
    """SPEC section 3, in the simplest words."""
    start, end = record.get(START), record.get(END)
    if start is None:
        return f"Missing Required field: {START}"
    if not is_int(start) or not (end is None or is_int(end)):
        return f"{START} and {END} has to be number"
    if end is not None and to_int(start) > to_int(end):
        return f"{START} > {END}"
    for key in ("client_id", "organization", "environment"):
        if isinstance(record.get(key), Number) or not isinstance(record.get(key), str | None):
            return f"{key} has to be a string"
    return None


def expected_line(record: dict[str, Any], *, overwrite: bool) -> dict[str, Any]:
    """SPEC section 4, in the simplest words."""
    wanted = dict(record)
    for key, value in (("organization", TENANT.organization), ("environment", TENANT.environment)):
        if overwrite or not wanted.get(key):
            wanted[key] = value
    if wanted.get("client_id") is not None:
        info = KNOWN.get(wanted["client_id"], NO_DEVELOPER)
        for key in INFO_KEYS:
            wanted.setdefault(key, getattr(info, key))
    return wanted


@given(st.lists(likely_records, min_size=1, max_size=5), st.booleans())
def test_lines_are_records_plus_enrichment(texts: list[str], overwrite: bool) -> None:
    """For any records: the first fault is reported, or each line equals its record plus enrichment, exactly."""
    raw = [text.encode() for text in texts]
    parsed = [parse(text) for text in raw]
    faults = [(i, fault) for i, record in enumerate(parsed) if (fault := expected_fault(record)) is not None]
    if faults:
        with pytest.raises(Rejected) as refusal:
            lines_of(raw, Rules(overwrite_tenant=overwrite))
        assert refusal.value.reason == f"{faults[0][1]} (record {faults[0][0]})"
        return
    lines = lines_of(raw, Rules(overwrite_tenant=overwrite))
    for line, record, text in zip(lines, parsed, raw, strict=True):
        assert b"\r" not in line
        wanted = expected_line(record, overwrite=overwrite)
        assert parse(line) == wanted
        written = {key for key in wanted if record.get(key) != wanted[key]}
        counts = [key for key, _ in json.loads(line, object_pairs_hook=list, parse_int=str, parse_float=str)]
        assert [key for key in written if counts.count(key) != 1] == []
        if not written & {"organization", "environment"} & set(record):  # nothing replaced: the bytes as they were
            assert line.startswith(text[:-1].replace(b"\n", b" ").replace(b"\r", b" "))


@given(values)
def test_non_objects_are_refused(text: str) -> None:
    """A record that is no object refuses the batch, before any record's members are looked at."""
    if text.startswith("{"):
        text = f"[{text}]"
    with pytest.raises(Rejected, match=r"^Each Analytics record in records should be a json object \(record 1\)$"):
        lines_of([b"{}", text.encode()])


@pytest.mark.parametrize(
    ("record", "code", "reason"),
    [
        ("{}", "MISSING_FIELD", f"Missing Required field: {START}"),
        (f'{{"{START}":null}}', "MISSING_FIELD", f"Missing Required field: {START}"),
        (f'{{"{START}":1.0}}', "BAD_DATA", f"{START} and {END} has to be number"),
        (f'{{"{START}":1e3}}', "BAD_DATA", f"{START} and {END} has to be number"),
        (f'{{"{START}":"1"}}', "BAD_DATA", f"{START} and {END} has to be number"),
        (f'{{"{START}":true}}', "BAD_DATA", f"{START} and {END} has to be number"),
        (f'{{"{START}":1,"{END}":"2"}}', "BAD_DATA", f"{START} and {END} has to be number"),
        (f'{{"{START}":2,"{END}":1}}', "BAD_DATA", f"{START} > {END}"),
        (f'{{"{START}":10,"{END}":9}}', "BAD_DATA", f"{START} > {END}"),
        (f'{{"{START}":-1,"{END}":-2}}', "BAD_DATA", f"{START} > {END}"),
        (f'{{"{START}":{"9" * 5000},"{END}":{"8" * 5000}}}', "BAD_DATA", f"{START} > {END}"),
        (f'{{"{START}":1,"client_id":5}}', "BAD_DATA", "client_id has to be a string"),
        (f'{{"{START}":1,"organization":{{}}}}', "BAD_DATA", "organization has to be a string"),
        (f'{{"{START}":1,"environment":[]}}', "BAD_DATA", "environment has to be a string"),
    ],
)
def test_faults(record: str, code: str, reason: str) -> None:
    """Each rule of SPEC section 3 has its code and its reason, which names the record's index."""
    good = f'{{"{START}":1}}'.encode()
    with pytest.raises(Rejected) as refusal:
        lines_of([good, record.encode(), b"{}"])
    assert (refusal.value.code, refusal.value.reason, refusal.value.status) == (code, f"{reason} (record 1)", 400)


@pytest.mark.parametrize(
    ("start", "ends"),
    [("0", ["0", "-0", "5", "null"]), ("-2", ["-1", "0"]), ("-0", ["0"]), ("9" * 4999, ["1" + "0" * 4999])],
)
def test_orders_of_timestamps_that_pass(start: str, ends: list[str]) -> None:
    """Timestamps are compared as numbers of any length; a null end counts as absent."""
    for end in ends:
        assert len(lines_of([f'{{"{START}":{start},"{END}":{end}}}'.encode()])) == 1


@pytest.mark.parametrize("odd", ["", ',"x":"\\ud800"'])
def test_age_and_skew(odd: str) -> None:
    """Where on, the record's start must lie near the present, on the fast way and on the careful one."""
    rules = Rules(max_record_age_seconds=60, max_clock_skew_seconds=10)
    now = 1_000_000.0
    for seconds, reason in ((-61, "older than 60 seconds"), (-60, None), (10, None), (11, "after current time")):
        text = f'{{"{START}":{int((now + seconds) * 1000)}{odd}}}'.encode()
        if reason is None:
            assert len(lines_of([text], rules, now)) == 1
        else:
            with pytest.raises(Rejected, match=rf"^{START} cannot be {reason} \(record 0\)$"):
                lines_of([text], rules, now)


def test_the_whole_line() -> None:
    """Enrichment stands behind what was sent, whose bytes are untouched."""
    sent = b'{"a" : 1.10, "client_received_start_timestamp":12345678901234567890,"client_id":"key-1","n":1e400}'
    expected = (
        sent[:-1]
        + b',"organization":"ac~me","environment":"pr\\"\xc3\xb6d"'
        + b',"api_product":"gold","developer_app":"shop","developer_email":"ann@example.com","developer":"ann"}'
    )
    assert lines_of([sent]) == [expected]


def test_replaced_in_place() -> None:
    """A null or empty name is replaced where it stands, and its other copies go."""
    sent = b'{"organization":"x", "client_received_start_timestamp":1,"\\u006frganization":null,"environment":"","z":1}'
    expected = (
        b'{ "client_received_start_timestamp":1,"\\u006frganization":"ac~me","environment":"pr\\"\xc3\xb6d","z":1}'
    )
    assert lines_of([sent]) == [expected]


def test_newlines_between_tokens() -> None:
    """Newlines between tokens become blanks, so that a record is one line."""
    assert oracle(lines_of([b'{\r\n "client_received_start_timestamp"\n:1}'])[0])[START] == "1"


def test_client_ids() -> None:
    """The distinct client ids are known for one look-up; one that is no UTF-8 is not asked for."""
    body = b'{"records":[%b]}' % b",".join(
        b'{"client_received_start_timestamp":1,"client_id":%b}' % value
        for value in (b'"a"', b'"a"', b'"\xc3\xbc"', b"null", b'"\\ud800"', b'""')
    )
    checked = records.check(payload.decode(body, None, LIMITS).records, Rules(), 0)
    assert checked.client_ids == {"a", "ü", ""}


NAMES_SENT = [
    '"organization":"ac~me"',
    '"organization" : "ac~me"',
    '"organization":"ac\\u007eme"',
    '"organization":"zoo"',
    '"organizatio\\u006e":"zoo"',
    '"organization":null',
    '"organization":""',
    '"environment":"pr\\"öd"',
    '"environment":"prod"',
    '"\\u0065nvironment":"prod"',
    '"x":{"organization":"zoo","environment":"zoo"}',
    '"x":"\\"organization\\""',
    '"y":"\\u00e4"',
]
"""Members that have to do with names, or look like it; some of them right."""


@given(st.lists(st.lists(st.sampled_from(NAMES_SENT), max_size=5), min_size=1, max_size=3))
@example([['"organizatio\\u006e":"zoo"', '"organization":"ac~me"']])
@example([['"\\u0065nvironment":"prod"', '"environment":"pr\\"öd"']])
@example([['"organization":"zoo"', '"organization":"ac~me"']])
def test_overwritten_names_stand_once(records_sent: list[list[str]]) -> None:
    """With `overwrite_tenant` each name stands once in a line, and is the tenant's, whatever was sent and how often."""
    texts = [
        ("{" + ",".join(['"client_received_start_timestamp":1', *members]) + "}").encode() for members in records_sent
    ]
    for line, text in zip(lines_of(texts, Rules(overwrite_tenant=True)), texts, strict=True):
        pairs = [
            pair for pair in json.loads(line, object_pairs_hook=list) if pair[0] in {"organization", "environment"}
        ]
        assert sorted(pairs) == [("environment", TENANT.environment), ("organization", TENANT.organization)]
        assert parse(line) == expected_line(parse(text), overwrite=True)


def test_names_that_are_right_need_no_care() -> None:
    """Most clients send them; records with others are taken apart where somebody may wait for it."""
    rules = Rules(overwrite_tenant=True)
    for name, needs_care in (("ac~me", False), ("zoo", True)):
        sent = f'{{"{START}":1,"organization":"{name}","environment":"pr\\"öd"}}'.encode()
        checked = records.check([sent], rules, 0, careful=False)
        if needs_care:
            with pytest.raises(payload.NeedsCare):
                enrich(checked, TENANT, KNOWN, rules, careful=False)
        else:
            assert enrich(checked, TENANT, KNOWN, rules, careful=False).lines == sent + b"\n"


def test_a_record_of_very_many_members() -> None:
    """Replacing a name in a large record copies what is around it, and makes nothing of the members."""
    sent = b'{"client_received_start_timestamp":1,"organization":null%b}' % (b',"k":1' * 50_000)
    (line,) = lines_of([sent])
    assert line == sent.replace(b"null", b'"ac~me"')[:-1] + b',"environment":"pr\\"\xc3\xb6d"}'


@pytest.mark.parametrize("member", [b'"organization":null', b'"environment":""', b'"x":"\\ud800"', b'"client_id":5'])
def test_records_that_need_care(member: bytes) -> None:
    """What must be looked into member by member is not begun where nobody may wait for it."""
    texts = [b'{"client_received_start_timestamp":1,%b}' % member]
    with pytest.raises(payload.NeedsCare):
        enrich(records.check(texts, Rules(), 0, careful=False), TENANT, KNOWN, Rules(), careful=False)
