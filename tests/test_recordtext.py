"""Records of this process as JSON: what can be said, what is refused, and that no record changes those beside it."""

import collections
import dataclasses
import datetime as dt
import json
from typing import Any

import msgspec
import pytest

from axcollector.core.errors import Rejected
from axcollector.core.recordtext import body_from, body_of, text_of, texts_of


@dataclasses.dataclass
class Price:
    """A value of an embedding program's own."""

    amount: float


class Hostile(collections.UserDict[str, object]):
    """A mapping that fails in its own way when it is read."""

    def __getitem__(self, key: str) -> object:
        raise RuntimeError(key)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, b"null"),
        ({3}, b"[3]"),
        (dt.date(2026, 1, 2), b'"2026-01-02"'),
        (Price(1.5), b'{"amount":1.5}'),
        ("\ud800", rb'"\ud800"'),
        (2**70, b"1180591620717411303424"),
    ],
)
def test_what_can_be_said(value: object, text: bytes) -> None:
    """Also what JSON has no name of its own for, beside a null and without one."""
    assert text_of({"v": value}) == b'{"v":%b}' % text
    if not isinstance(value, str):
        assert text_of({"v": value, "w": [1, None]}) == b'{"v":%b,"w":[1,null]}' % text


@pytest.mark.parametrize(
    "value", [float("nan"), [None, {"x": float("-inf")}], {float("inf")}, Price(float("nan")), object(), [10**5000]]
)
def test_what_cannot(value: object) -> None:
    """It is refused, wherever it lies, and never becomes null."""
    with pytest.raises(Rejected, match="cannot be written as JSON") as refusal:
        text_of({"v": value})
    assert refusal.value.code == "BAD_DATA"


def test_mappings_that_fail() -> None:
    """Whatever they fail with is no exception of ours to let through: `RecordBuffer.add` raises none."""
    record: Any = Hostile(a=1)
    with pytest.raises(Rejected, match="as JSON: a"):
        text_of(record)


@pytest.mark.parametrize("text", [b'{"a": 1.10}', b" {} \n", rb'{"a":"\ud800"}', '{"ä":"é"}'.encode(), b"[1]", b"null"])
def test_texts_that_are_one_value(text: bytes) -> None:
    """They are taken as they are; whether one is an object is the collector's to ask."""
    assert text_of(text) is text


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"{},{}",
        b'{}],"records":[{}',
        b'{"a":NaN}',
        b'{"a":"\xff"}',
        rb'{"a":"\ud800"',
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
    ],
)
def test_texts_that_are_not(text: bytes) -> None:
    """They are refused before they can change what the records beside them mean."""
    with pytest.raises(Rejected, match="no JSON"):
        text_of(text)
    raw: Any = {"a": msgspec.Raw(text)}
    if text.strip():
        with pytest.raises(Rejected):
            text_of(raw)


@pytest.mark.parametrize(
    "records",
    [
        [],
        [{"n": 1}, {"s": "\ud800"}],
        [{"n": None}, b"{}"],
        ({"n": {3}}, {"m": 2}),
        [{"n": dt.date(2026, 1, 2)}],
        [{"n": "null"}, collections.UserDict(a=1)],
    ],
)
def test_bodies(records: Any) -> None:
    """Whichever way they are made, they say the same."""
    assert body_from(records) == body_from(iter(records)) == body_of(texts_of(records))


@pytest.mark.parametrize("bad", [float("nan"), object(), msgspec.Raw(b"1},{"), msgspec.Raw(b'1}],"records":[{')])
def test_bodies_that_cannot_be(bad: object) -> None:
    """The same is refused, with its place."""
    records: Any = [{"n": 1}, {"n": bad}]
    with pytest.raises(Rejected, match=r"\(record 1\)$"):
        body_from(records)


def test_which_one_of_a_batch() -> None:
    """The reason names it, as a collector's reasons do."""
    assert json.loads(body_of(texts_of([{"n": 1}, b'{"n":2}']))) == {"records": [{"n": 1}, {"n": 2}]}
    with pytest.raises(Rejected, match=r"cannot be written as JSON.* \(record 1\)$"):
        texts_of([{}, {"v": object()}, {}])
