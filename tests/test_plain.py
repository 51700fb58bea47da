"""Bodies of plain records, taken apart in one pass: either not at all, or to exactly the lines that the others make."""

import random
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from axcollector.core import enrichment, payload, plain, records
from axcollector.core.errors import Rejected
from axcollector.core.model import Batch
from axcollector.core.records import Rules
from axcollector.core.tails import Tails
from tests.effort import either
from tests.ingest_oracle import CATALOG, NOW, RULES, START, TENANT, check_body, spelling
from tests.json_texts import likely_records, strings, values

GOOD = f'"{START}":1'
MANY = 20_000
"""More records than a body may have that is taken apart in one pass."""


def record(*members: str) -> str:
    """A valid record with these members behind its start."""
    return "{" + ",".join([GOOD, *members]) + "}"


def body(*found: str, before: str = "", behind: str = "") -> bytes:
    """A body with these records, and something around them."""
    return f'{{{before}"records":[{",".join(found)}]{behind}}}'.encode()


def nested(count: int) -> str:
    """So many arrays in one another."""
    return "[" * count + "]" * count


def in_one_pass(text: bytes, rules: Rules = Rules(), most: int = MANY) -> Batch | None:  # noqa: B008 - frozen
    """The batch that a body makes in one pass, or None."""
    document = plain.parse(text, most)
    return None if document is None else document.batch(TENANT, CATALOG, Tails(), rules, NOW)


def otherwise(text: bytes, rules: Rules = Rules(), most: int = MANY) -> Batch:  # noqa: B008 - frozen
    """The batch that it makes in the way that is there for all."""
    checked = records.check(payload.parse(text, most).records, rules, NOW)
    return enrichment.enrich(checked, TENANT, CATALOG.developers(TENANT.id, checked.client_ids), rules)


PLAIN = {
    "one": body(record()),
    "three": body(record('"a":1'), record('"client_id":"key-1"'), record('"client_id":"key-2"')),
    "client ids": body(*(record(f'"client_id":{c}') for c in ("null", '""', '"none"', r'"\u006bey-1"', '"key-1"'))),
    "a long client id": body(record(f'"client_id":"{"k" * 100_000}"')),
    "keys twice": body(record('"a":1', '"a":2', '"client_id":"key-1"', '"client_id":null', GOOD)),
    "escaped keys": body(record(r'"client\u005fid":"key-1"', r'"\u0061":1')),
    "escaped braces": body(record(r'"\u007b":"\u007d\\\""', r'"[":"]"')),
    "blanks": b' { "records"\t: [ { %b } , \t{ %b , "client_id" : "key-1" } ] } ' % ((GOOD.encode(),) * 2),
    "names around": body(record(), record(), before='"organization":"o",', behind=',"environment":[1,"e"]'),
    "escaped names around": body(record(), before=r'"\u006frganization":"o",', behind=r',"\u0065nvironment":"e"'),
    "names twice": body(record(), before='"organization":1,"organization":"o",'),
    "records twice": body(record(), before='"records":[],'),
    "numbers as they are spelled": body(record('"a":12345678901234567890,"b":1.10,"c":1e400,"d":-0,"e":1E+2')),
    "a long start": body(f'{{"{START}":{"1" * 300}}}'),
    "UTF-8": body(record('"ü":"\N{GRINNING FACE}"')),
    "deep, but not too deep": body(record(f'"a":{nested(197)}'), record(f'"a":{nested(197)}')),
    "many brackets": body(*(record(f'"a":[{",".join(["[]"] * 190)}]') for _ in range(3))),
}
NOT_PLAIN = {
    "nothing": b"",
    "no object": b"[]",
    "no records": body(),
    "an empty record": body("{}"),
    "an object in a record": body(record('"a":{}'), record()),
    "an object beside": body(record(), before='"a":{},'),
    "a brace in a string": body(record('"a":"{"')),
    "braces that balance": body(record('"a":"}{"'), record()),
    "braces in place of a record's": body(record('"a":"}"', '"b":"{"'), record()),
    "a brace in a key": body(record('"}":1'), behind=',"{":1'),
    "records behind others": body(record(), before='"records":[{}],'),
    "records before none": body(record(), behind=',"records":[]'),
    "records before others": body(record(), behind=f',"records":[{record()},{record()}]'),
    "as many braces elsewhere": body(record(), before='"x":[{}],') + b"",
    "no object among them": body(record(), "1"),
    "several lines": body(record(), "\n" + record()),
    "a carriage return": body(record()) + b"\r",
    "a lone surrogate": body(record(r'"a":"\ud800"')),
    "no UTF-8": body(record('"a":"X"')).replace(b"X", b"\xff"),
    "a surrogate as UTF-8": body(record('"a":"X"')).replace(b"X", b"\xed\xa0\x80"),
    "a byte order mark": b"\xef\xbb\xbf" + body(record()),
    "garbage behind": body(record()) + b"x",
    "a brace behind": body(record()) + b"}",
    "a comma behind": body(record() + ","),
    "cut": body(record())[:-1],
    "too deep": body(record(f'"a":{nested(198)}')),
    "too deep beside": body(record(), behind=f',"a":{nested(200)}'),
    "far too deep": body(record(f'"a":{nested(100_000)}')),
    "a fraction": body(f'{{"{START}":1.5}}'),
    "a text": body(f'{{"{START}":"1"}}'),
    "5,000 digits": body(f'{{"{START}":{"1" * 5000}}}'),
    "no start": body('{"a":1}'),
    "an end before the start": body(record('"client_received_end_timestamp":0')),
    "no client id": body(record('"client_id":5')),
    **{
        f"{key} in a record": body(record(), record(f'"{key}":{value}'))
        for key in ("api_product", "developer_app", "developer_email", "developer")
        for value in ("null", '"x"')
    },
    **{
        f"{key} in a record": body(record(f'"{key}":{value}'))
        for key in ("organization", r"\u006frganization", "environment")
        for value in ("null", '""', '"acme"')
    },
}


@pytest.mark.parametrize("text", PLAIN.values(), ids=PLAIN)
def test_what_is_plain(text: bytes) -> None:
    """The quick way takes it, and the lines are those of the other way but for blanks."""
    batch, other = in_one_pass(text), otherwise(text)
    assert batch is not None
    assert (batch.tenant, batch.count) == (other.tenant, other.count)
    assert [spelling(line) for line in lines_of(batch)] == [spelling(line) for line in lines_of(other)]
    assert "in one pass" in check_body(text)


@pytest.mark.parametrize("text", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_what_is_not_plain(text: bytes) -> None:
    """The quick way leaves it to the others, which do what the oracle says."""
    assert in_one_pass(text) is None
    assert "in one pass" not in check_body(text)


def lines_of(batch: Batch) -> Iterator[bytes]:
    """A batch's lines, each whole."""
    lines = bytes(batch.lines).split(b"\n")
    assert lines.pop() == b""
    yield from lines


@pytest.mark.parametrize("count", [196, 197, 198, 199, 200])
def test_depth(count: int) -> None:
    """What is one level too deep is not taken, in a record or around them; the oracle knows which."""
    for text in (
        body(record(), record(f'"a":{nested(count)}')),
        body(record(), before=f'"a":{nested(count)},'),
        body(record(), behind=f',"a":{nested(count)}'),
        body(record(f'"a":{nested(count - 100)},"b":{nested(100)}')),
    ):
        check_body(text)


blanks = st.sampled_from(["", "", "", " ", "\t  "])
plain_values = st.one_of(
    values.filter(lambda text: not {"{", "}", "\n", "\r"} & set(text) and r"\u" not in text),
    st.sampled_from([r'"\u007b"', '"[,"', "[[],[1]]", r'"\\"', r'"\""']),
)
plain_members = st.one_of(
    st.tuples(st.sampled_from(['"a"', '""', r'"\u0061"', '"[]"', '"records"']), plain_values),
    st.tuples(
        st.sampled_from(['"client_id"', r'"client\u005fid"']), st.sampled_from(['"key-1"', '"key-2"', '"?"', "null"])
    ),
    st.tuples(st.sampled_from([f'"{START}"', '"client_received_end_timestamp"']), st.just("1")),
)


@st.composite
def plain_bodies(draw: st.DrawFn) -> bytes:
    """Bodies that are plain, with blanks wherever they may stand."""
    found = draw(st.lists(st.lists(plain_members, max_size=4), min_size=1, max_size=4))
    around = st.lists(st.tuples(st.sampled_from(['"organization"', '"environment"', '"x"']), plain_values), max_size=2)

    def joined(opening: str, items: list[str], closing: str) -> str:
        space = draw(blanks)
        return f"{space}{opening}{space}" + f"{space},{space}".join(items) + f"{space}{closing}{space}"

    texts = [joined("{", [f'"{START}":1', *(f"{key}:{value}" for key, value in each)], "}") for each in found]
    before, behind = ([f"{key}:{value}" for key, value in draw(around)] for _ in range(2))
    return joined("{", [*before, '"records":' + joined("[", texts, "]"), *behind], "}").encode()


@settings(max_examples=either(5000, 35))
@given(plain_bodies())
def test_any_plain_body(text: bytes) -> None:
    """All that is plain is taken in one pass: the hot path cannot die without a word."""
    batch = in_one_pass(text)
    assert batch is not None
    assert [spelling(line) for line in lines_of(batch)] == [spelling(line) for line in lines_of(otherwise(text))]
    assert "in one pass" in check_body(text)


hostile = st.one_of(
    plain_bodies(),
    st.builds(
        lambda found, before, behind: body(*found, before=before, behind=behind),
        st.lists(likely_records, max_size=4),
        st.sampled_from(["", '"records":[],', '"x":"{",', '"}":[{}],', '"organization":{},']),
        st.sampled_from(["", ',"x":"}"', ',"{":"}{"', ',"records":[{}]', ',"environment":"e"']),
    ),
)


@settings(max_examples=either(5000, 50))
@given(hostile, st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from([*list('{}[]",:\\ 1'), "{}", "},{", ""]))))
@example(body(record('"a":"},{"'), record()), [])
def test_any_body(text: bytes, edits: list[tuple[int, str]]) -> None:
    """Whatever is done to it: taken in one pass, it is what the oracle says."""
    changed = bytearray(text)
    for place, piece in edits[:3]:
        at = place % (len(changed) + 1)
        changed[at : at + 1] = piece.encode()
    check_body(bytes(changed))


@pytest.mark.parametrize("kind", ["braces open", "braces close", "braces part", "brackets"])
def test_work_and_memory_are_bounded(kind: str) -> None:
    """What is nothing but structure is not cut into millions of pieces: they would be many times its size."""
    text = {
        "braces open": b"{" * (plain.MOST_BYTES - 2) + b"}}",
        "braces close": b"}" * plain.MOST_BYTES,
        "braces part": b"}{" * (plain.MOST_BYTES // 2),
        "brackets": body(record('"a":[' + "[]," * 400_000 + "1]")),
    }[kind]
    tracemalloc.start()
    try:
        assert plain.parse(text) is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(text)


def test_many_digits() -> None:
    """Numbers that take long to be read are not read at once where there may be many; other digits are no matter."""
    assert plain.parse(body(record(f'"x":"{random.Random(7).randbytes(700_000).hex()}"'))) is not None
    assert plain.parse(body(*[record(f'"x":{"8" * 340}')] * 1900)) is not None
    several = (plain.MOST_BYTES // 4000) * [f'{{"{START}":{"7" * 3900}}}']
    assert plain.parse(body(*several)) is None
    assert plain.parse(body(*several[:20])) is not None
    chance = random.Random(7)
    usual = [f'{{"{START}":17{chance.randrange(10**11):011},"x":"{chance.randbytes(100).hex()}"}}' for _ in range(1900)]
    text = body(*usual)
    assert len(text) > 1 << 18
    assert plain.parse(text) is not None


def test_many_values() -> None:
    """A body of more values than its records may have is refused, as it is when it is not plain."""
    text = body(record('"a":[' + "1," * 1_000_010 + "1]"))
    assert plain.parse(text, 5000) is None
    with pytest.raises(Rejected, match="more than 1000000 values"):
        payload.parse(text, 5000)


@pytest.mark.parametrize(
    ("count", "most", "taken"), [(3, 3, True), (4, 3, False), (2000, MANY, True), (2001, MANY, False)]
)
def test_how_many_records(count: int, most: int, taken: bool) -> None:
    """As many as the settings allow, and as may be taken apart in one go."""
    document = plain.parse(body(*[record()] * count), most)
    assert (document is not None and document.count == count) is taken


@pytest.mark.parametrize("rules", [*RULES, Rules(max_record_age_seconds=0.5), Rules(max_clock_skew_seconds=0.001)])
def test_rules(rules: Rules) -> None:
    """The quick way takes what they allow, be it one of many records that breaks one."""
    for start in (0, 1, 2, 499, 500, 501, 1000, 1001, 1002, 1003):
        text = body(*(f'{{"{START}":{each}}}' for each in (900, start, 950)))
        try:
            wanted = list(lines_of(otherwise(text, rules)))
        except Rejected:
            wanted = None
        batch = in_one_pass(text, rules)
        assert (None if batch is None else list(lines_of(batch))) == wanted


@given(strings.filter(lambda text: r"\ud" not in text.lower()))
@settings(max_examples=20)
def test_names_of_the_body(name: str) -> None:
    """They are told as they are spelled, wherever they stand."""
    for around in ({"before": f'"organization":{name},'}, {"behind": f',"organization":{name}'}):
        text = body(record(), **around)
        document = plain.parse(text)
        if document is not None:
            assert (document.organization, document.environment) == (name.encode(), None)
            assert payload.parse(text, MANY).organization == document.organization
        else:
            assert {"{", "}"} & set(name)
