"""JSON for tests: an oracle for what JSON is, and strategies that make texts of it, good and bad."""

import json
from typing import Any

from hypothesis import strategies as st


class NotJSON(Exception):
    """The oracle refuses."""


def _refuse(name: str) -> object:
    raise NotJSON(name)


def oracle(text: bytes) -> Any:
    """The value of a JSON text, numbers as text; `NotJSON` where it is none (ARCHITECTURE, trap 19)."""
    try:
        return json.loads(text.decode("utf-8"), parse_int=str, parse_float=str, parse_constant=_refuse)
    except (ValueError, RecursionError) as exc:
        raise NotJSON(str(exc)) from exc


_space = st.sampled_from(["", "", "", " ", "\n", "\r\n", "\t"])
_characters = st.one_of(
    st.characters(exclude_categories=["Cs"], exclude_characters='"\\', min_codepoint=0x20),
    st.sampled_from([r"\"", r"\\", r"\/", r"\n", r"A", r"\ud83d\ude00", r"\ud800", r"\uDFFF", r"\\ud800"]),
)
strings = st.lists(_characters, max_size=8).map(lambda parts: f'"{"".join(parts)}"')
numbers = st.one_of(
    st.sampled_from(["0", "-0", "12345678901234567890", "1.10", "1e400", "-1E+2", "0.0", "9" * 5000]),
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(json.dumps),
)
scalars = st.one_of(st.sampled_from(["null", "true", "false"]), strings, numbers)


def _array(items: list[str], space: str) -> str:
    return "[" + space + f",{space}".join(items) + space + "]"


def obj(items: list[tuple[str, str]], space: str) -> str:
    """An object of these members."""
    return "{" + space + f"{space},".join(f"{key}{space}:{space}{value}" for key, value in items) + space + "}"


values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.builds(_array, st.lists(inner, max_size=4), _space),
        st.builds(obj, st.lists(st.tuples(strings, inner), max_size=4), _space),
    ),
    max_leaves=12,
)

_timestamps = st.one_of(st.integers(-5, 5).map(str), st.sampled_from(["9" * 5000, "1" + "0" * 5000, "-" + "7" * 4500]))
_names = st.sampled_from(['""', "null", '"x"', r'"\u0078"', r'"\ud800"', '"acme"'])


def _record_members(**known: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str, str]]:
    pairs = [st.tuples(st.just(json.dumps(key)), value) for key, value in known.items()]
    return st.one_of(*pairs, st.tuples(strings, values))


_members = _record_members(
    client_received_start_timestamp=_timestamps,
    client_received_end_timestamp=st.one_of(_timestamps, st.just("null")),
    client_id=st.sampled_from(['"key-1"', '"key-2"', '"unknown"', '""', "null", r'"\ud800"']),
    organization=_names,
    environment=_names,
    api_product=st.one_of(_names, values),
    developer=_names,
)
_escaped_key = r'"client_received_start_\u0074imestamp"'
likely_records = st.builds(
    lambda start, rest, space, escaped: obj(
        [(_escaped_key if escaped else '"client_received_start_timestamp"', start), *rest], space
    ),
    _timestamps,
    st.lists(_members, max_size=8),
    _space,
    st.booleans(),
)
"""Objects that often are valid records, with repeated and escaped keys."""
