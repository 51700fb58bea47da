"""Exact JSON: whatever bytes come, they are taken or refused as the oracle says, and kept as they were sent.

The oracle is `tests/ingest_oracle.py`. Each body is held against it under several rules, on the fast way and on the
careful one: accepted or not, the code and reason chosen, and every line that is written.
"""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axcollector.core import jsontext, payload
from axcollector.core.errors import Rejected
from axcollector.core.unpacking import Limits
from tests.effort import either
from tests.ingest_oracle import (
    END,
    LIMITS,
    MAX_RECORDS,
    RULES,
    START,
    Number,
    check_body,
    expected,
    levels,
    parse,
    spelling,
)
from tests.json_texts import likely_records, obj, strings, values

ZEROS = [("0", "-0"), ("-0", "0"), ("-0", "-0"), ("-1", "-0")]
GOOD = f'"{START}":1'


def record(*members: str) -> str:
    """A valid record with these members behind its start."""
    return "{" + ",".join([GOOD, *members]) + "}"


def body(*found: str, around: str = "") -> bytes:
    """A body with these records."""
    return f'{{{around}"records":[{",".join(found)}]}}'.encode()


def nested(count: int) -> str:
    """So many arrays in one another."""
    return "[" * count + "]" * count


ACCEPTED = {
    "plain": body(record()),
    "empty keys": body(record('"":1', '"":{"":""}'), around='"":[],'),
    "5,000 digits": body(record(f'"n":{"9" * 5000}'), f'{{"{START}":{"1" * 5000}}}'),
    "5,000 digits beside": body(record(), around=f'"n":-{"1" * 5000},'),
    "numbers as they are spelled": body(record('"a":12345678901234567890,"b":1.10,"c":1e400,"d":-0,"e":1E+2')),
    "minus zero, carefully": body(*(f'{{"{START}":{a},"{END}":{b},"x":"\\ud800"}}' for a, b in ZEROS)),
    "a lone high surrogate": body(record(r'"x":"\ud800"')),
    "a lone low surrogate": body(record(r'"x":"a\uDFFFb"')),
    "lone ones in a row": body(record(r'"x":"\uD83D\ud83d\ude00\ude00"')),
    "one behind a backslash": body(record(r'"x":"\\ud800\ud800\\\ud800\\\\udc00\udc00"')),
    "a key that is one": body(record(r'"\ud800":1', r'"\udc00":2')),
    "one beside the records": body(record(), around=r'"\udc00":"\ud800",'),
    "a client id that is one": body(record(r'"client_id":"\ud800"')),
    "an empty client id": body(record('"client_id":""')),
    "carriage returns alone": f'{{"records":\r[\r{{\r{GOOD}\r}}\r]\r}}\r'.encode(),
    "carriage returns around all": f'{{"x":"\\ud800"\r,\r"records"\r:\r[\r{{{GOOD}\r}}\r]\r}}'.encode(),
    "all escapes": body(record(r'"\"\\\/\b\f\n\r\t\u0000":"\"\\\/\b\f\n\r\t\u0000\u007f"')),
    "escaped names of fields": body(r'{"client_received_start_\u0074imestamp":1,"client\u005fid":"key-1"}'),
    "the last of repeated ones": body(rf'{{"{START}":"x","client\u005fid":5,"client_id":"key-1",{GOOD}}}'),
    "the last, spelled differently": body(rf'{{"client_id":5,{GOOD},"client\u005fid":"key-1","client_\u0069d":null}}'),
    "names sent twice": body(record('"organization":"x"', r'"\u006frganization":""', '"environment":null')),
    "names sent twice, the last kept": body(record('"organization":""', r'"\u006frganization":"x"')),
    "info sent, null, twice": body(
        record('"client_id":"key-1","developer":null,"api_product":1', r'"api\u005fproduct":2')
    ),
    "repeated records": body("5", around='"records":{},').replace(b"[5]", f'1,"\\u0072ecords":[{record()}]'.encode()),
    "repeated names": body(record(), around=r'"organization":5,"\u006frganization":"\u0061","environment":"",'),
    "space everywhere": json.dumps({"records": [{START: 1, "a": [1, {"b": 2}]}]}, indent="\r\n\t ").encode()
    + b"\n \t\r",
    "200 levels": body(record(f'"a":{nested(197)}')),
    "200 levels beside": body(record(), around=f'"a":{nested(199)},'),
    "brackets in strings": body(record(f'"a":"{"[{" * 300}"')),
    "text that is no ASCII": body(record('"ü\u2028":"\U0001f600\ufeff\x7f"')),
    "as many as allowed": body(*[record()] * MAX_RECORDS),
}
REFUSED = {
    "nothing": b"",
    "space": b" \n",
    "a BOM": b"\xef\xbb\xbf" + body(record()),
    "UTF-16": json.dumps({"records": [{START: 1}]}).encode("utf-16"),
    "UTF-16 without BOM": json.dumps({"records": [{START: 1}]}).encode("utf-16-be"),
    "UTF-8 in a value passed through": body(record('"x":"?"')).replace(b"?", b"\xff"),
    "UTF-8 in a key passed through": body(record('"?":1')).replace(b"?", b"\xc3"),
    "UTF-8 in a value deep down": body(record('"x":[{"y":["?"]}]')).replace(b"?", b"\xe2\x82"),
    "UTF-8 beside the records": body(record(), around='"x":"?",').replace(b"?", b"\xf4\x90\x80\x80"),
    "UTF-8 in a key beside": body(record(), around='"?":1,').replace(b"?", b"\xc0\x80"),
    "UTF-8 in records that do not count": body(record(), around='"records":["?"],').replace(b"?", b"\x80"),
    "UTF-8 of a surrogate": body(record('"x":"?"')).replace(b"?", b"\xed\xa0\x80"),
    "UTF-8 beside a lone surrogate": body(record(r'"x":"?\ud800"')).replace(b"?", b"\xff"),
    "UTF-8 behind the end": body(record()) + b"\xff",
    "a trailing comma in the body": body(record())[:-1] + b",}",
    "a trailing comma in records": body(record() + ","),
    "a trailing comma in a record": body(record()[:-1] + ",}"),
    "a trailing comma in a list": body(record('"x":[1,]')),
    "trailing text": body(record()) + b"x",
    "a second body": body(record()) * 2,
    "NUL behind the end": body(record()) + b"\0",
    "NaN": body(record('"x":NaN')),
    "Infinity": body(record('"x":[Infinity]')),
    "-Infinity beside": body(record(), around='"x":-Infinity,'),
    "a leading zero": body(record('"x":01')),
    "a plus": body(record('"x":+1')),
    "a bare point": body(record('"x":1.')),
    "a bare exponent": body(record('"x":1e')),
    "hexadecimal": body(record('"x":0x1')),
    "an unknown escape": body(record(r'"x":"\x41"')),
    "a short escape": body(record(r'"x":"\u00 1"')),
    "an escape of other digits": body(record('"x":"\\u\u0661\u0662\u0663\u0664"')),
    "a half surrogate escape": body(record(r'"x":"\ud80"')),
    "an escape outside a string": body(record(r"\ud800")),
    "a control character": body(record('"x":"\t"')),
    "an open string": body(record('"x":"')),
    "single quotes": body(record("'x':1")),
    "a comment": body(record("/**/")),
    "a key that is none": body(record("1:1")),
    "201 levels": body(record(f'"a":{nested(198)}')),
    "201 levels beside": body(record(), around=f'"a":{nested(200)},'),
    "201 levels that do not count": body(record(), around=f'"records":{nested(200)},'),
    "201 levels beside scalars": body(*["1"] * 8, around=f'"a":{nested(201)},'),
    "100,000 levels": body(record(f'"a":{nested(100_000)}')),
    "100,000 levels of objects": body(record('"a":' + '{"a":' * 100_000 + "1" + "}" * 100_000)),
    "100,000 levels, open": b"[" * 100_000,
    "100,000 levels beside a surrogate": body(record(rf'"x":"\ud800","a":{nested(100_000)}')),
    "a list": b"[" + body(record()) + b"]",
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str) -> None:
    """JSON is JSON, however odd: taken, enriched by the last of repeated keys, and kept as it was spelled."""
    assert "accepted" in check_body(ACCEPTED[name])


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    """What is no JSON object is not taken, wherever in it the fault is."""
    assert expected(REFUSED[name], RULES[0]).fault == ("BAD_DATA", "Not a valid JSON payload")
    check_body(REFUSED[name])


@pytest.mark.parametrize("name", ["one behind a backslash", "all escapes", "text that is no ASCII", "repeated names"])
def test_every_cut(name: str) -> None:
    """A body that ends too early is none, wherever it ends."""
    whole = ACCEPTED[name].rstrip()
    for end in range(len(whole)):
        assert "Not a valid JSON payload" in check_body(whole[:end])


def test_many_scalars_do_not_hide_depth() -> None:
    """Records that have no brackets of their own do not count as if they had."""
    limits = Limits(1 << 20, 1 << 20, 1000)
    for count, careful in ((150, False), (1000, False), (1000, True)):
        deep = body(*["1"] * count, around=f'"a":{nested(250)},')
        with pytest.raises((Rejected, payload.NeedsCare)) as refusal:
            payload.decode(deep, None, limits, careful=careful)
        assert not isinstance(refusal.value, Rejected) or refusal.value.reason == "Not a valid JSON payload"


def test_too_many_records_are_said_before_anything_of_them() -> None:
    """The order of checks: their number, then their depth, then their kind; and none of them is made first."""
    for found in (["1"] * (MAX_RECORDS + 1), [record(f'"a":{nested(250)}')] * (MAX_RECORDS + 1)):
        for around in ("", r'"x":"\ud800",'):
            with pytest.raises(Rejected) as refusal:
                payload.decode(body(*found, around=around), None, LIMITS)
            assert refusal.value.code == "PAYLOAD_TOO_LARGE"


_names = st.sampled_from(['""', "null", '"x"', r'"\u0078"', r'"\ud800"', "5", "[]"])
_lists = st.lists(st.one_of(likely_records, likely_records, values), max_size=MAX_RECORDS + 2).map(
    lambda found: f"[{', '.join(found)}]"
)
_members = st.one_of(
    st.tuples(st.sampled_from(['"organization"', '"environment"', r'"environ\u006dent"']), _names),
    st.tuples(st.sampled_from(['"records"', r'"\u0072ecords"']), st.one_of(_lists, _lists, values)),
    st.tuples(strings, values),
)
bodies = st.builds(
    lambda around, found, behind, space: obj([*around, ('"records"', found), *behind], space).encode(),
    st.lists(_members, max_size=3),
    _lists,
    st.lists(_members, max_size=2),
    st.sampled_from(["", " ", "\n"]),
)
_PIECES = [b"", b'"', b"\\", b"\xff", b",", b"]", b"[", b"}", b"{", b"\n", b"\0", b"u", b"0", b"-", b".", b"e"]
_PIECES += [b"\xed\xa0\x80", b"\\ud800", b"NaN", b"null", b"true", b":", b"\xef\xbb\xbf", b'"":1,', b"\\u005f", b"_"]


@settings(max_examples=either(100, 40))
@given(bodies)
def test_grammar(sent: bytes) -> None:
    """For any bodies made by JSON's grammar, with repeated and escaped keys."""
    check_body(sent)


@settings(max_examples=either(150, 60))
@given(bodies, st.randoms(use_true_random=False), st.integers(1, 3))
def test_mutated(sent: bytes, chance: random.Random, changes: int) -> None:
    """For any of these with something changed, put in, doubled or left out."""
    changed = bytearray(sent)
    for _ in range(changes):
        start = chance.randrange(len(changed) + 1)
        stretch = changed[start : start + chance.choice([0, 1, 1, 2, 8])]
        piece = chance.choice([*_PIECES, bytes(stretch) * 2, chance.randbytes(1)])
        changed[start : start + len(stretch)] = piece
    check_body(bytes(changed))


@given(st.binary(max_size=80))
def test_any_bytes(sent: bytes) -> None:
    """For any bytes."""
    check_body(sent)


@given(st.text(st.sampled_from('\\u"dD8cC00aF{n'), max_size=60))
def test_masking_lone_surrogates(text: str) -> None:
    """Exactly the escapes of lone surrogates are masked, whatever backslashes stand before them."""
    sent = f'"{text}"'.encode()
    try:
        value = json.loads(sent)
    except ValueError:
        with pytest.raises(json.JSONDecodeError):
            json.loads(jsontext.mask_surrogates(sent))
        return
    masked = jsontext.mask_surrogates(sent)
    assert len(masked) == len(sent)
    assert json.loads(masked) == "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in value)


@pytest.mark.parametrize("pair", [rb"\ud83d\ude00", rb"\uD83D\uDE00", rb"\uDBff\uDFff", rb"\\\ud800\udc00"])
def test_pairs_are_not_masked(pair: bytes) -> None:
    """An escaped pair is one character, in capitals or not; what is left of one is none."""
    assert jsontext.mask_surrogates(pair * 2) == pair * 2
    assert jsontext.mask_surrogates(pair[:-6] + pair[-6:-1]) != pair[:-1]
    assert jsontext.mask_surrogates(pair + pair[-6:]) == pair + rb"\uFFFD"


@pytest.mark.parametrize("offset", [0, 1, 2])
@pytest.mark.parametrize("behind", [b"", b"x", rb"\"", rb"\\", rb"[,]:{\\"])
def test_structure_where_one_search_ends(offset: int, behind: bytes) -> None:
    """The same of strings, keys, blanks and brackets that are longer than a piece."""
    length = jsontext._SEARCHED_BYTES - offset - len(behind)
    found = b'"' + b"x" * length + behind + b'"'
    blanks = b" \n" * length
    listed = b"[" + blanks + found + blanks + b"," + found + b",[1," + found + b"]" + blanks + b"]"
    assert [*jsontext.elements(listed)] == [found, found, b"[1," + found + b"]"]
    assert jsontext.depth(listed) == 2
    member, other = jsontext.members(b"{" + found + blanks + b":" + blanks + found + blanks + b',"":[]}')
    assert (member.key_text, member.value, other.key, other.value) == (found, found, "", b"[]")
    assert [*jsontext.elements(b"[" + blanks + b"]")] == []


@pytest.mark.parametrize("escape", [rb"\"", rb"\\"])
def test_a_string_of_escapes_longer_than_a_search(escape: bytes) -> None:
    """It ends where it does, wherever in an escape a search ends."""
    for before in (b"", b"x"):
        found = b'"' + before + escape * jsontext._SEARCHED_BYTES + b'"'
        assert [*jsontext.elements(b"[" + found + b",1]")] == [found, b"1"]


@pytest.mark.parametrize("offset", range(0, 20, 3))
def test_masking_where_one_search_ends(offset: int) -> None:
    """Large texts are searched piece by piece; whatever stands where two of them meet is as it is elsewhere."""
    before = b"x" * (jsontext._SEARCHED_BYTES - offset)
    for count in (1, 2, 3, 4, 2 * jsontext._SEARCHED_BYTES, 2 * jsontext._SEARCHED_BYTES + 1):
        pairs, odd = divmod(count, 2)
        text = before + rb"\\" * pairs
        expected_behind = rb"\uFFFDx" if odd else b"ud800x"
        assert jsontext.mask_surrogates(text + b"\\" * odd + b"ud800x") == text + expected_behind
    for pair in (rb"\ud83d\ude00", rb"\ud83d\ude00" * 3):
        assert jsontext.mask_surrogates(before + pair) == before + pair
    assert jsontext.mask_surrogates(before + rb"\ud83d\ud83d\ude00") == before + rb"\uFFFD\ud83d\ude00"


@pytest.mark.parametrize("piece", [b"\\\\", b"\\n", b"\\u0041", b"\\ud83d\\ude00", b"\\", b"\\ud800"])
def test_masking_is_linear(piece: bytes) -> None:
    """Nothing that is repeated a million times is looked at a million times over."""
    assert len(jsontext.mask_surrogates(b'"' + piece * 1_000_000 + b'"')) == 2 + 1_000_000 * len(piece)


def test_the_oracle() -> None:
    """It tells apart what it must."""
    assert parse(b'{"a":1,"a":1.0}') == {"a": Number("1.0")}
    assert parse(b'"1"') != parse(b"1")
    assert spelling(rb'"\u0041"') != spelling(b'"A"')
    assert spelling(rb'"\"\\Q"') == spelling(rb' "\"\\Q" ') != spelling(rb'"\"\\S"')
    assert spelling(b'{"a":1,"a":2}') != spelling(b'{"a":2}')
    assert levels(rb'{"\"[[[":[1,[]],"a":{}}') == 3
