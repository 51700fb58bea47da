"""A body and its headers: what is taken, what is refused, and how."""

import functools
import gzip
import json
import random
import tracemalloc
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from axcollector.core import jsontext, payload, unpacking
from axcollector.core.errors import Rejected
from axcollector.core.unpacking import Limits
from tests.json_texts import NotJSON, obj, oracle, strings, values

LIMITS = Limits(max_body_bytes=100_000, max_decompressed_bytes=200_000, max_batch_records=50)
BODY = b'{"records":[{"a":1}, {"b":2}]}'
zipped = functools.partial(gzip.compress, mtime=0)
NOT_JSON = ("BAD_DATA", "Not a valid JSON payload")
NOT_GZIP = ("BAD_DATA", "Gzip Encoded data cannot be read")
NOT_A_LIST = ("BAD_DATA", "records should be a list of analytics records")
NOTHING = ("NO_RECORDS", "No analytics records in the payload")


def texts_of(body: bytes, encoding: str | None = None, limits: Limits = LIMITS) -> list[bytes]:
    """The records of a body, as they stand in it."""
    return [bytes(text) for text in payload.decode(body, encoding, limits).records]


def fault_of(body: bytes, encoding: str | None = None, limits: Limits = LIMITS) -> tuple[str, str]:
    """Code and reason with which a body is refused."""
    with pytest.raises(Rejected) as refusal:
        texts_of(body, encoding, limits)
    return refusal.value.code, refusal.value.reason


@pytest.mark.parametrize(
    ("content_type", "taken"),
    [
        ("application/json", True),
        ("Application/JSON", True),
        ("application/json; charset=utf-8", True),
        ('application/json;charset="UTF-8"; x=y', True),
        ("application/json; charset=latin-1", False),
        ("application/jsonp", False),
        ("text/plain", False),
        ("", False),
        (None, False),
    ],
)
def test_media_types(content_type: str | None, taken: bool) -> None:
    """JSON in any case, with parameters; no charset but UTF-8."""
    if taken:
        unpacking.check_media_type(content_type)
    else:
        with pytest.raises(Rejected, match="Only supported content type is application/json"):
            unpacking.check_media_type(content_type)


@pytest.mark.parametrize("encoding", [None, "", "identity", "Identity"])
def test_plain_bodies(encoding: str | None) -> None:
    """Without a coding the body is what was sent."""
    assert texts_of(BODY, encoding) == [b'{"a":1}', b'{"b":2}']


@pytest.mark.parametrize("encoding", ["deflate", "br", "gzip, gzip", "x-gzip"])
def test_other_codings(encoding: str) -> None:
    """Nothing but gzip."""
    assert fault_of(BODY, encoding) == ("UNSUPPORTED_CONTENT_ENCODING", "Only supported content encoding is gzip")


@pytest.mark.parametrize(
    "body",
    [
        zipped(BODY),
        zipped(BODY[:9]) + zipped(BODY[9:]),
        zipped(b"") + zipped(BODY) + zipped(b""),
        b"".join(zipped(BODY[i : i + 1]) for i in range(len(BODY))),
        zipped(BODY + b" " * 100_000 + bytes(0)),
        json.dumps({"type": "Buffer", "data": list(zipped(BODY))}).encode(),
    ],
)
def test_gzip_bodies(body: bytes) -> None:
    """One member or several, small or large, and the form in which volos sends it."""
    assert texts_of(body, "GZip") == [b'{"a":1}', b'{"b":2}']


def _changed(position: int) -> bytes:
    data = bytearray(zipped(BODY))
    data[position] ^= 1
    return bytes(data)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        BODY,
        zipped(BODY)[:-1],
        zipped(BODY)[:15],
        zipped(BODY) + b"x",
        zipped(BODY) + b"\0",
        zipped(BODY) + zipped(BODY)[:9],
        zlib.compress(BODY),
        _changed(-1),
        _changed(-6),
        b'{"type":"Buffer","data":[31,139]}',
        b'{"type":"Buffer","data":[256]}',
        b'{"type":"Buffer","data":[-1]}',
        b'{"type":"Buffer","data":"H4sI"}',
        b'{"type":"Blob","data":[]}',
        json.dumps({"type": "Buffer", "data": list(zipped(BODY)), "more": 1}).encode(),
        b"{" + b"[" * 5000,
    ],
)
def test_damaged_gzip(body: bytes) -> None:
    """A cut stream, a wrong CRC, trailing bytes, something else: all the same answer."""
    assert fault_of(body, "gzip") == NOT_GZIP


def test_sizes() -> None:
    """A byte, or a record, more than allowed is refused; as many as allowed are taken."""
    exact = BODY + b" " * (LIMITS.max_body_bytes - len(BODY))
    assert len(texts_of(exact)) == 2
    assert fault_of(exact + b" ")[0] == "PAYLOAD_TOO_LARGE"
    exact = BODY + b" " * (LIMITS.max_decompressed_bytes - len(BODY))
    assert len(texts_of(gzip.compress(exact), "gzip")) == 2
    assert fault_of(gzip.compress(exact + b" "), "gzip")[0] == "PAYLOAD_TOO_LARGE"
    many = b'{"records":[' + b",".join([b"{}"] * LIMITS.max_batch_records) + b"]}"
    assert len(texts_of(many)) == LIMITS.max_batch_records
    assert fault_of(many.replace(b"[{}", b"[{},{}"))[0] == "PAYLOAD_TOO_LARGE"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"1",
        b'"records"',
        b"null",
        b"\xef\xbb\xbf" + BODY,
        BODY + b"x",
        BODY + BODY,
        BODY.replace(b"]", b",]"),
        b'{"records":[{"a":NaN}]}',
        b'{"records":[{"a":Infinity}]}',
        b'{"records":[{"a":01}]}',
        b'{"records":[{"a":"\n"}]}',
        b'{"records":[{"a":"\xff"}]}',
        b'{"records":[{"\xff":1}]}',
        b'{"records":[{"a":"\xed\xa0\x80"}]}',
        b'{"records":[{"a":"\\ud800}]}',
        b'{"records":[{"a":"\\ud800","b":tru}]}',
        b"[" * 100_000,
        b'{"records":' + b"[" * 50_000,
        json.dumps({"records": [{"a": 1}]}).encode("utf-16"),
    ],
)
def test_no_json(body: bytes) -> None:
    """What is not one JSON object in UTF-8 is refused."""
    assert fault_of(body) == NOT_JSON


@pytest.mark.parametrize("odd", ["", ',"x":"\\ud800"'])
@pytest.mark.parametrize(
    ("records", "fault"),
    [
        ('"x":1', NOTHING),
        ('"records":null', NOTHING),
        ('"records":[]', NOTHING),
        ('"records":[ \n ]', NOTHING),
        ('"records":{}', NOT_A_LIST),
        ('"records":"[]"', NOT_A_LIST),
        ('"records":0', NOT_A_LIST),
        ('"records":[{}],"records":1', NOT_A_LIST),
        ('"records":[{}],"records":null', NOTHING),
    ],
)
def test_no_records(records: str, fault: tuple[str, str], odd: str) -> None:
    """Absent, null, empty or no list: each has its answer, with a lone surrogate beside it or not."""
    assert fault_of(f"{{{records}{odd}}}".encode()) == fault


@pytest.mark.parametrize("odd", ["", ',"x":"\\ud800"'])
def test_the_last_records_count(odd: str) -> None:
    """Of repeated keys the last counts, whatever the others were, and however it is written."""
    assert texts_of(f'{{"records":5,"\\u0072ecords":[{{"a":1}}]{odd}}}'.encode()) == [b'{"a":1}']


@pytest.mark.parametrize(("levels", "taken"), [(198, True), (199, False), (700, False), (90_000, False)])
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_nesting(levels: int, taken: bool, opening: str) -> None:
    """200 levels, the body's and the list's included, are taken; more are refused."""
    closing = "]" if opening == "[" else "}"
    record = opening * levels + "1" + closing * levels
    limits = Limits(1 << 20, 1 << 20, 500)
    for around in ("%s", '%s,{"a":[1,{"b":2}]}', ",".join(['{"a":[]}'] * 300) + ",%s"):
        body = f'{{"records":[{around % record}]}}'.encode()
        if taken:
            assert record.encode() in texts_of(body, None, limits)
        else:
            assert fault_of(body, None, limits) == NOT_JSON
    aside = f'{{"x":{record},"records":[1]}}'.encode()
    if levels < 200:
        assert texts_of(aside, None, limits) == [b"1"]
    else:
        assert fault_of(aside, None, limits) == NOT_JSON


def test_brackets_in_strings_are_no_nesting() -> None:
    """Many brackets are no depth."""
    assert len(texts_of(b'{"records":[{"a":"' + b"[{" * 300 + b'"}]}')) == 1


@given(
    st.lists(st.tuples(strings, values), max_size=3),
    st.one_of(values, st.lists(values, min_size=1, max_size=4).map(lambda items: f"[{', '.join(items)}]")),
    st.randoms(use_true_random=False),
    st.integers(0, 2),
)
@example([], '[{"a":"\\ud800"}]', random.Random(0), 0)
def test_accepts_what_the_oracle_accepts(
    around: list[tuple[str, str]], records: str, chance: random.Random, changes: int
) -> None:
    """For any text, mutated or not: taken exactly if the oracle takes it, and as the same values."""
    body = bytearray(obj([*around, ('"records"', records)], " ").encode())
    for _ in range(changes):
        position = chance.randrange(len(body))
        body[position : position + chance.randrange(2)] = chance.choice(
            [b"", b'"', b"\\", b"\xff", b",", b"]", b"\n", b"\x00", b"u", b"0", b"\xed\xa0\x80", b"{"]
        )
    try:
        expected = oracle(bytes(body))
    except NotJSON:
        expected = None
    if not isinstance(expected, dict):
        assert fault_of(bytes(body)) == NOT_JSON
    elif expected.get("records") in (None, []):
        assert fault_of(bytes(body)) == NOTHING
    elif not isinstance(expected["records"], list):
        assert fault_of(bytes(body)) == NOT_A_LIST
    else:
        texts = texts_of(bytes(body))
        assert [oracle(text) for text in texts] == expected["records"]
        assert b"\n" not in b"".join(texts)


@given(st.binary(max_size=60), st.booleans())
def test_any_bytes(body: bytes, gzipped: bool) -> None:
    """Any bytes are taken or refused; nothing else happens."""
    assert fault_of(body, "gzip" if gzipped else None)[0] in {"BAD_DATA", "NO_RECORDS"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, ("MISSING_FIELD", "Missing Required field: organization")),
        (b"null", ("MISSING_FIELD", "Missing Required field: organization")),
        (b'""', ("MISSING_FIELD", "Missing Required field: organization")),
        (b"5", ("BAD_DATA", "organization has to be a string")),
        (b'["a"]', ("BAD_DATA", "organization has to be a string")),
    ],
)
def test_names_in_the_body_that_are_none(text: bytes | None, expected: tuple[str, str]) -> None:
    """A tenant's name in the body is a string that is not empty."""
    with pytest.raises(Rejected) as refusal:
        payload.name_in(text, "organization")
    assert (refusal.value.code, refusal.value.reason) == expected


def test_a_name_in_the_body_that_is_no_tenants() -> None:
    """One that is too long for any tenant stays so, and is not told whole; the longest that one may have is whole."""
    name = payload.name_in(b'"%b"' % (b"a" * (1 << 20)), "organization")
    assert name == "a" * 300 + "…"
    assert payload.name_in(b'"%b"' % (b"\\u0061" * 200), "organization") == "a" * 200


@pytest.mark.parametrize("odd", ["", ',"x":"\\ud800"'])
def test_names_in_the_body(odd: str) -> None:
    """They are there before anything is said about the records."""
    body = f'{{"organization":"\\u0061cme","environment":"prod","records":[]{odd}}}'.encode()
    document = payload.decode(body, None, LIMITS)
    assert payload.name_in(document.organization, "organization") == "acme"
    assert payload.name_in(document.environment, "environment") == "prod"
    with pytest.raises(Rejected, match="No analytics records"):
        assert document.records


@given(values)
def test_depth_and_items(text: str) -> None:
    """The scanner finds the levels, members and elements that the oracle's value has."""

    def levels(value: object) -> int:
        return 1 + max(map(levels, value), default=0) if isinstance(value, list) else 0

    data = text.encode()
    value = json.loads(data, parse_int=str, parse_float=str, object_pairs_hook=lambda pairs: [v for _, v in pairs])
    assert jsontext.depth(data) == levels(value)
    if data.startswith(b"["):
        assert [oracle(item) for item in jsontext.elements(data)] == oracle(data)
    if data.startswith(b"{"):
        assert {m.key: oracle(m.value) for m in jsontext.members(data)} == oracle(data)
        assert all(json.loads(m.key_text) == m.key for m in jsontext.members(data))


def test_many_values_are_refused_before_anything_is_made_of_them() -> None:
    """A gzip body of some kilobytes may hold millions of elements: they are counted, not kept."""
    limits = Limits(10 << 20, 50 << 20, 20_000)
    for element in (b"1", b'"x"', b"{}", b"[]", b"1" * 40):
        count = 1_000_002
        body = b'{"records":[%b]}' % b",".join([element] * count)
        tracemalloc.start()
        assert fault_of(body, None, limits)[0] == "PAYLOAD_TOO_LARGE"
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2 * len(body) + (1 << 20)
    many = b'{"records":[{"a":[%b]}]}' % b",".join([b"1"] * 1_200_000)
    assert len(texts_of(many, None, limits)) == 1
    beyond = b'{"x":[%b],"records":[{}]}' % b",".join([b"1"] * (200 * 20_000 + 1))
    assert fault_of(beyond, None, limits) == ("PAYLOAD_TOO_LARGE", "The body has more than 4000000 values")


@pytest.mark.parametrize(
    "body",
    [
        b'{"records":[{"a":"\\ud800"}]}',
        b'{"records":5}',
        b'{"records":[{"a":' + b"[" * 250 + b"]" * 250 + b"}]}",
        b'{"records":[{"a":[%b]}]}' % b",".join([b"1"] * 1_200_000),
    ],
)
def test_bodies_that_need_care(body: bytes) -> None:
    """What takes long is not begun where nobody may wait for it."""
    with pytest.raises(payload.NeedsCare):
        payload.decode(body, None, Limits(10 << 20, 50 << 20, 20_000), careful=False)
