"""Rows as lines: what is written is read again, exactly; what is no row is refused with a reason."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axcollector.core.errors import BadRow
from axcollector.core.rowtext import objection, parse, text_of
from axcollector.core.tables import APPS, COLUMNS, KEYS, MAPPER, SCOPES, Values, short_name

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
keys = texts.filter(bool)


def row_of(table: str) -> st.SearchStrategy[tuple[str, Values]]:
    """Rows of a table, with any texts that a registry takes."""
    needed = COLUMNS[SCOPES] if table == SCOPES else KEYS[table]
    columns = [keys if column in needed else st.none() | texts for column in COLUMNS[table]]
    return st.tuples(st.just(table), st.tuples(*columns))


rows = st.sampled_from(list(COLUMNS)).flatmap(row_of)


@given(rows)
def test_what_is_written_is_read(row: tuple[str, Values]) -> None:
    """A row as a line is that row again, whatever its texts, and is JSON to others too."""
    table, values = row
    line = text_of(table, [values])
    assert line.count(b"\n") == 1
    assert parse(line.removesuffix(b"\n")) == row
    there = {column: value for column, value in zip(COLUMNS[table], values, strict=True) if value is not None}
    assert json.loads(line) == {"table": short_name(table), **there}


@given(rows, st.booleans(), st.booleans(), st.randoms(use_true_random=False))
def test_others_write_it_otherwise(row: tuple[str, Values], ascii_only: bool, full_name: bool, chance: Any) -> None:
    """Keys in any order, nulls, escapes, spaces and the full name of the table change nothing."""
    table, values = row
    members = [("table", table if full_name else short_name(table)), *zip(COLUMNS[table], values, strict=True)]
    chance.shuffle(members)
    assert parse(json.dumps(dict(members), ensure_ascii=ascii_only).encode() + b"\r") == row


@given(rows, st.data())
def test_no_key_comes_twice(row: tuple[str, Values], data: st.DataObject) -> None:
    """A key that is there twice is refused, with the same value or another, null or not."""
    table, values = row
    members = [("table", short_name(table)), *zip(COLUMNS[table], values, strict=True)]
    again = data.draw(st.sampled_from(members))
    members.insert(data.draw(st.integers(0, len(members))), (again[0], data.draw(st.none() | st.just(again[1]) | keys)))
    line = ",".join(f"{json.dumps(key)}:{json.dumps(value, ensure_ascii=False)}" for key, value in members)
    with pytest.raises(BadRow, match=rf'has "{again[0]}" more than once'):
        parse(f"{{{line}}}".encode())


TABLES = '"data_scope", "api_product", "developer", "company", "app", "app_credential_apiproduct_mapper"'


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"", "is not JSON: Expecting value (column 1)"),
        (b"nonsense", "is not JSON: Expecting value (column 1)"),
        (b'{"table":"app","tenant_id":"t","id":"a"', "is not JSON: Expecting ',' delimiter (column 40)"),
        (b'{"table":"app","tenant_id":"t","id":"a"} {}', "is not JSON: Extra data (column 42)"),
        (b'{"table":"app","tenant_id":"t","id":NaN}', "is not JSON: NaN is no value of it"),
        (b'\xef\xbb\xbf{"table":"app"}', "is not JSON: Unexpected UTF-8 BOM (decode using utf-8-sig) (column 1)"),
        (b'{"table":"app","tenant_id":"t","id":"\xff"}', "is not UTF-8 (byte 38)"),
        (b"[" * 100_000, "is no row: it is nested too deeply"),
        (b"[]", "is an array; a line is one JSON object with a table's name and its columns"),
        (b"null", "is null; a line is one JSON object with a table's name and its columns"),
        (b"7", "is a number; a line is one JSON object with a table's name and its columns"),
        (b"{}", f'has no "table"; allowed are {TABLES}'),
        (b'{"table":"apps"}', f'has an unknown table "apps"; allowed are {TABLES}'),
        (b'{"table":["app"]}', f'has an unknown table ["app"]; allowed are {TABLES}'),
        (b'{"table":"app","x":1}', 'has an unknown column "x"; those of app are "tenant_id", "id", "name",'),
        (b'{"table":"app","' + b"x" * 99 + b'":1}', f'has an unknown column "{"x" * 56}...; those of app are'),
        (b'{"table":"app","id":1' + b"0" * 5000 + b"}", 'has a number as "id"; allowed are texts and null'),
        (b'{"table":"app","id":true}', 'has true or false as "id"; allowed are texts and null'),
        (b'{"table":"app","id":{"a":1}}', 'has an object as "id"; allowed are texts and null'),
        (b'{"table":"app","id":"\\ud800"}', 'has half a character (a lone surrogate) in "id"'),
        (b'{"table":"app","id":"a"}', 'has no "tenant_id"; a row of app needs "tenant_id", "id", none of them empty'),
        (b'{"table":"app","tenant_id":"","id":"a"}', 'has no "tenant_id"; a row of app needs'),
        (b'{"table":"app","tenant_id":null,"id":""}', 'has no "tenant_id", "id"; a row of app needs'),
        (b'{"table":"data_scope","id":"s","scope":"t","org":"o","env":""}', 'has no "env"; a row of data_scope needs'),
        (
            b'{"table":"data_scope","id":"s","scope":"t","env":"e","org":"' + b"x" * 200 + b'"}',
            'has an "org" and "env" that exceed 200 bytes as a directory\'s name',
        ),
    ],
)
def test_what_is_no_row(line: bytes, problem: str) -> None:
    """What is wrong is said, with what is allowed."""
    with pytest.raises(BadRow) as refused:
        parse(line)
    assert str(refused.value).startswith(problem)


def test_escapes_are_read_exactly() -> None:
    """A quote in a text is no reason to refuse, and an escaped key is that key."""
    assert parse(rb'{"table":"app","tenant_id":"t\"","\u0069d":"\ud83d\ude00"}') == (
        APPS,
        ('t"', "😀", None, None, None),
    )


def test_rows_that_no_registry_takes() -> None:
    """The same reasons hold for rows that were found somewhere."""
    assert objection(MAPPER, ("t", "k", "a", "p", None)) is None
    assert str(objection(MAPPER, ("t", "k", None, "", None))).startswith('has no "app_id", "apiprdt_id";')
