"""A JSON snapshot, read row by row in constant memory, however large it is. Blocking.

    {"snapshotInfo": version, "tables": [{"name": "kms.app", "rows": [{column: {"value": text or null}}, …]}, …]}

The text passes through a window. What lies between rows is walked through by hand; a row, and whatever is not of
interest, is decoded in one piece by the standard library. So a row is held whole, and nothing more.
"""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, Final, NoReturn

from axcollector.core.errors import SyncFailed
from axcollector.core.tables import Row

SLICE_BYTES: Final = 1 << 18
LONGEST_ROW: Final = 1 << 25
"""Characters; a row of a database is shorter."""

_AFTER_NUMBER: Final = frozenset(",]} \t\r\n")
_SPACE: Final = re.compile(r"[ \t\r\n]*")


class JsonSnapshot:
    """Reads one snapshot.

    Attributes:
        version: Its version, once all of it has been read, or None where it has none.
        tables: The names of its tables, likewise.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._text = _Window(file)
        self.version: str | None = None
        self.tables: list[str] = []

    def rows(self) -> Iterator[tuple[str, Row]]:
        """Each row with its table's name.

        Raises:
            SyncFailed: It is no snapshot, or not all of one.
            OSError: The file cannot be read.
        """
        try:
            yield from self._snapshot()
        except (ValueError, RecursionError) as exc:
            raise SyncFailed("the JSON snapshot is damaged") from exc

    def _snapshot(self) -> Iterator[tuple[str, Row]]:
        for key in self._members():
            if key == "snapshotInfo":
                self.version = _text_or_none(self._text.value())
            elif key == "tables" and not self._is_null():
                for _ in self._items():
                    yield from self._table()
            else:
                self._text.value()
        self._text.expect_end()

    def _table(self) -> Iterator[tuple[str, Row]]:
        name = None
        for key in self._members():
            if key == "name":
                name = _text_or_none(self._text.value()) or _damaged("a table without a name")
                self.tables.append(name)
            elif key == "rows" and not self._is_null():
                if name is None:
                    _damaged("a table whose rows come before its name")
                for _ in self._items():
                    yield name, _row(self._text.value())
            else:
                self._text.value()

    def _is_null(self) -> bool:
        return self._text.next_character() == "n"

    def _members(self) -> Iterator[str]:
        """The names in an object; after each its value is to be read."""
        self._text.take("{")
        if self._text.next_character() == "}":
            self._text.take("}")
            return
        while True:
            name = _text_or_none(self._text.value()) or ""
            self._text.take(":")
            yield name
            if self._text.take(",}") == "}":
                return

    def _items(self) -> Iterator[None]:
        """Once for each value in an array, which is to be read then."""
        self._text.take("[")
        if self._text.next_character() == "]":
            self._text.take("]")
            return
        while True:
            yield
            if self._text.take(",]") == "]":
                return


class _Window:
    """The part of a file's text that is being read. Raises `ValueError` where that is not JSON."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._json = json.JSONDecoder(parse_constant=_damaged)
        self._text = ""
        self._at = 0

    def next_character(self) -> str:
        """The next character that is no space, which is not taken."""
        while True:
            self._skip_space()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                _damaged("it ends too early")

    def take(self, allowed: str) -> str:
        """The next character, which is to be one of these."""
        character = self.next_character()
        if character not in allowed:
            _damaged("it is not of the form of a snapshot")
        self._at += 1
        return character

    def value(self) -> Any:  # noqa: ANN401 - whatever JSON holds
        """The next value, decoded."""
        self.next_character()
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._at)
            except ValueError:
                if not self._more():
                    raise
                continue
            rest = len(self._text) - end
            is_number = isinstance(value, int | float)
            is_over = rest and (not is_number or self._text[end] in _AFTER_NUMBER)
            if is_over or not self._more():  # a number may go on behind the window's end
                self._at = len(self._text) - rest
                return value

    def expect_end(self) -> None:
        """There must be nothing more."""
        while True:
            self._skip_space()
            if self._at < len(self._text):
                _damaged("something follows it")
            if not self._more():
                return

    def _skip_space(self) -> None:
        match = _SPACE.match(self._text, self._at)
        self._at = match.end() if match else self._at

    def _more(self) -> bool:
        data = self._file.read(SLICE_BYTES)
        rest = self._text[self._at :]
        if len(rest) > LONGEST_ROW:
            _damaged("it has a row that is too long")
        self._text = rest + self._utf8.decode(data, final=not data)
        self._at = 0
        return bool(data)


def _row(value: object) -> Row:
    if not isinstance(value, dict):
        _damaged("a row that is no object")
    row: dict[str, str | None] = {}
    for column, cell in value.items():
        if not isinstance(cell, dict):
            _damaged("a column that is no object")
        row[column] = _text_or_none(cell.get("value"))
    return row


def _text_or_none(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        _damaged("a value that is neither text nor null")
    return value


def _damaged(what: str) -> NoReturn:
    raise ValueError(what)
