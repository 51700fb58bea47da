"""JSON as text: the same whatever lies where a window of the text ends, and never one long call."""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axcollector.core import jsontext

WINDOW = 1 << 16
PIECES = [
    "a",
    "é",
    "[",
    ",",
    ":",
    r"\\",
    r"\"",
    r"\n",
    "\\u0041",
    "\\ud83d\\ude00",
    "\\ud800",
    "\\udc00",
    "a" * 1023,
    "a" * (WINDOW - 8),
    r"\\" * 40_000,
    "\\ud83d\\ude00" * 7_000,
    "\\ud800" * 12_000,
]
STRINGS = st.lists(st.sampled_from(PIECES), max_size=5).map(lambda pieces: '"' + "".join(pieces) + '"')
VALUES = st.one_of(
    STRINGS,
    st.sampled_from(["1", "7" * (WINDOW + 3), "null", " " * WINDOW + "true", "[]", "{}", "[" * 9 + "]" * 9]),
    st.lists(STRINGS, max_size=3).map(lambda strings: "[" + ",".join(strings) + "]"),
)


@given(st.lists(VALUES, min_size=1, max_size=4))
def test_windows(values: list[str]) -> None:
    """Members, elements and depth are those of the JSON, and what is masked is what JSON cannot say in UTF-8."""
    text = ("{" + ",".join(f'"k{number}" : {value}' for number, value in enumerate(values)) + "}").encode()
    members = list(jsontext.members(text))
    assert [member.key for member in members] == [f"k{number}" for number in range(len(values))]
    assert [member.value.decode() for member in members] == [value.strip() for value in values]
    array = "[" + ",".join(values) + "]"
    assert [each.decode() for each in jsontext.elements(array.encode())] == [value.strip() for value in values]
    assert jsontext.depth(array.encode()) == _depth(json.loads(array, parse_int=str))
    masked = jsontext.mask_surrogates(text)
    assert len(masked) == len(text)
    expected = json.dumps(json.loads(text, parse_int=str), ensure_ascii=False).encode(errors="surrogatepass")
    lone = expected.decode(errors="surrogatepass").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert json.loads(masked, parse_int=str) == json.loads(lone)


def _depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


def test_long_keys() -> None:
    """A key that is longer than any that is looked for is none of those, and its member is whole."""
    for key in ("organization" + "x" * 300, "\\u006f" * 300):
        (member,) = jsontext.members(b'{"%b": 1}' % key.encode())
        assert (len(member.key), member.key_text, member.value) == (256, b'"%b"' % key.encode(), b"1")
    (member,) = jsontext.members(b'{"%b":1}' % "".join(f"\\u{ord(c):04x}" for c in "organization").encode())
    assert member.key == "organization"


LONG = 24 << 20


@pytest.fixture
def quick_turns() -> Iterator[None]:
    """Threads take turns as often as they may."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("quick_turns")
@pytest.mark.parametrize(
    "text",
    [
        b'{"a":"\\ud800","x":"' + b" " * LONG + b'"}',
        b'{"a":"\\ud800","x":"' + rb"\n" * (LONG // 8) + b'"}',
        b'{"a":"\\ud800","x":' + b" " * LONG + b"1}",
    ],
    ids=["a long string", "escapes", "blanks"],
)
@pytest.mark.parametrize(
    "function",
    [jsontext.mask_surrogates, jsontext.depth, lambda text: list(jsontext.places(text))],
    ids=["mask", "depth", "places"],
)
def test_others_get_their_turn(text: bytes, function: Callable[[bytes], object]) -> None:
    """However long a string is, and however many blanks there are: no call holds the interpreter for all of them."""
    done = threading.Event()
    worker = threading.Thread(target=lambda: (function(text), done.set()))
    turns = 0
    worker.start()
    while not done.is_set():
        time.sleep(0)
        turns += 1
    worker.join()
    assert turns > 5  # one call for all of it leaves two or three; on a busy machine each turn takes long to come
