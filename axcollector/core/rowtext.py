"""Rows of the registry as text: a JSON object a line, the table's name and its columns, for import and export.

    {"table":"app","tenant_id":"t","id":"a1","name":"weather","developer_id":"d1"}

A column that is null is left out; the primary key's columns come first, and none of them is null or empty. One row is
written in one way only, so equal registries are equal texts. In reading, keys may stand in any order, null is as good
as missing, and `kms.app` as good as `app`; nothing else is forgiven.

A million lines are to be read in seconds, so msgspec decodes them. It takes the last of several equal keys, says little
about what is wrong, and refuses some JSON: where it fails, or where the count of quotes shows that a line could have
more keys than the row has, the line is read again by the standard library, whose word is final.
"""

import json
from collections.abc import Iterable
from functools import reduce
from operator import or_
from typing import Any, Final

import msgspec

from axcollector.core import layout
from axcollector.core.errors import BadRow
from axcollector.core.model import Tenant
from axcollector.core.tables import COLUMNS, KEYS, SCOPES, Values, is_utf8, short_name


def _struct(table: str, tag: str) -> type[msgspec.Struct]:
    key = KEYS[table]
    fields: list[Any] = [(column, str) if column in key else (column, str | None, None) for column in COLUMNS[table]]
    return msgspec.defstruct(tag, fields, tag_field="table", tag=tag, forbid_unknown_fields=True, omit_defaults=True)


_STRUCTS: Final = {table: _struct(table, short_name(table)) for table in COLUMNS}
_TABLE_OF: Final = {
    **{struct: table for table, struct in _STRUCTS.items()},
    **{_struct(table, table): table for table in COLUMNS},
}
_TABLE_NAMED: Final = {name: table for table in COLUMNS for name in (short_name(table), table)}
_ANY_STRUCT: Final[Any] = reduce(or_, _TABLE_OF)
_decode: Final = msgspec.json.Decoder(_ANY_STRUCT).decode
_encode_lines: Final = msgspec.json.Encoder().encode_lines
_KINDS: Final = {dict: "an object", list: "an array", str: "a text", float: "a number", bool: "true or false"}


def parse(line: bytes) -> tuple[str, Values]:
    """The table and the row that a line speaks of.

    Raises:
        BadRow: It is no row, or one that no registry of ours would take.
    """
    try:
        row = _decode(line)
    except (ValueError, RecursionError):
        return _parse_exactly(line)
    table, values = _TABLE_OF[type(row)], msgspec.structs.astuple(row)
    # Without escapes, each text has two quotes, and each column that is there has two texts.
    if b"\\" in line or line.count(b'"') != 4 * (1 + len(values) - values.count(None)):
        return _parse_exactly(line)
    if (table == SCOPES or "" in values) and (problem := objection(table, values)):
        raise BadRow(problem)
    return table, values


def text_of(table: str, rows: Iterable[Values]) -> bytes:
    """The lines of rows to which there is no `objection`."""
    struct = _STRUCTS[table]
    return bytes(_encode_lines([struct(*row) for row in rows]))


def objection(table: str, values: Values) -> str | None:
    """Why no registry of ours would take a row, as what follows "it"; None where it would.

    What is missing or empty in a primary key, or in a scope, keeps a row from ever being found.
    """
    needed = COLUMNS[SCOPES] if table == SCOPES else KEYS[table]
    missing = [column for column, value in zip(needed, values, strict=False) if not value]
    if missing:
        return f"has no {_quoted(missing)}; a row of {short_name(table)} needs {_quoted(needed)}, none of them empty"
    if table == SCOPES and not layout.fits(Tenant("", values[2] or "", values[3] or "")):
        return f'has an "org" and "env" that exceed {layout.MAX_BUCKET_BYTES} bytes as a directory\'s name'
    return None


class _Members(list[tuple[str, object]]):
    """An object's keys and values, as they come."""


def _parse_exactly(line: bytes) -> tuple[str, Values]:
    try:
        members = json.loads(
            line.decode(), object_pairs_hook=_Members, parse_int=float, parse_constant=_refuse_constant
        )
    except UnicodeDecodeError as exc:
        raise BadRow(f"is not UTF-8 (byte {exc.start + 1})") from exc
    except RecursionError as exc:
        raise BadRow("is no row: it is nested too deeply") from exc
    except json.JSONDecodeError as exc:
        raise BadRow(f"is not JSON: {exc.msg} (column {exc.colno})") from exc
    if not isinstance(members, _Members):
        raise BadRow(f"is {_kind_of(members)}; a line is one JSON object with a table's name and its columns")
    row = dict(members)
    if len(row) < len(members):
        keys = [key for key, _ in members]
        raise BadRow(f"has {json.dumps(next(key for key in row if keys.count(key) > 1))} more than once")
    return _row_of(row)


def _refuse_constant(name: str) -> None:
    raise BadRow(f"is not JSON: {name} is no value of it")


def _row_of(members: dict[str, object]) -> tuple[str, Values]:
    name = members.pop("table", None)
    table = _TABLE_NAMED.get(name) if isinstance(name, str) else None
    if table is None:
        problem = 'has no "table"' if name is None else f"has an unknown table {_shown(name)}"
        raise BadRow(f"{problem}; allowed are {_quoted(map(short_name, COLUMNS))}")
    columns = COLUMNS[table]
    row: dict[str, str | None] = dict.fromkeys(columns)
    for column, value in members.items():
        if column not in row:
            allowed = _quoted(columns)
            raise BadRow(f"has an unknown column {_shown(column)}; those of {short_name(table)} are {allowed}")
        if value is not None and not isinstance(value, str):
            raise BadRow(f'has {_kind_of(value)} as "{column}"; allowed are texts and null')
        if value is not None and not is_utf8(value):
            raise BadRow(f'has half a character (a lone surrogate) in "{column}"')
        row[column] = value
    values = tuple(row.values())
    if (why := objection(table, values)) is not None:
        raise BadRow(why)
    return table, values


def _kind_of(value: object) -> str:
    return "null" if value is None else _KINDS[dict if isinstance(value, _Members) else type(value)]


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _shown(value: object) -> str:
    """A value in a message: not more than can be taken in."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
