"""JSON snapshots as they stream by: whole in any pieces, refused where they are damaged, in constant memory."""

import io
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axcollector.core.errors import SyncFailed
from axcollector.sync.transicator_json import SLICE_BYTES, JsonSnapshot
from tests.transicator_server import SAMPLES

SAMPLE = (SAMPLES / "snapshot.json").read_bytes()


class Pieces(io.BytesIO):
    """A file that gives so many bytes at a time."""

    def __init__(self, content: bytes, size: int) -> None:
        super().__init__(content)
        self.size = size

    def read(self, size: int | None = -1) -> bytes:
        return super().read(self.size)


def read(content: bytes, size: int = SLICE_BYTES) -> tuple[str | None, list[str], list[Any]]:
    """The version, the tables and the rows of a snapshot."""
    snapshot = JsonSnapshot(Pieces(content, size))
    rows = list(snapshot.rows())
    return snapshot.version, snapshot.tables, rows


def expected(content: bytes) -> tuple[str | None, list[str], list[Any]]:
    """The same, by the standard library."""
    document = json.loads(content)
    rows = [
        (table["name"], {column: cell["value"] for column, cell in row.items()})
        for table in document["tables"]
        for row in table["rows"] or ()
    ]
    return document["snapshotInfo"], [table["name"] for table in document["tables"]], rows


@pytest.mark.parametrize("name", ["snapshot.json", "snapshot-empty-tables-null-rows.json"])
@pytest.mark.parametrize("size", [1, 7, 1000, SLICE_BYTES])
def test_a_recorded_snapshot_in_pieces_of_any_size(name: str, size: int) -> None:
    """The rows are those that the standard library finds; a table without rows has `null`."""
    content = (SAMPLES / name).read_bytes()
    assert expected(content) == read(content, size)


texts = st.none() | st.text()
rows = st.none() | st.lists(
    st.dictionaries(st.text(max_size=3), st.fixed_dictionaries({"value": texts}), max_size=3), max_size=3
)
tables = st.builds(lambda name, rows: {"name": name, "rows": rows}, st.text(min_size=1, max_size=5), rows)
scalars = st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
snapshots = st.builds(
    lambda version, tables, more: {"snapshotInfo": version, **more, "tables": tables},
    st.text(),
    st.lists(tables, max_size=3),
    st.dictionaries(st.sampled_from(["a", "b"]), scalars, max_size=2),
)


@given(snapshots, st.integers(1, 50), st.booleans(), st.sampled_from([None, 1]))
def test_any_snapshot(document: dict[str, Any], size: int, is_ascii: bool, indent: int | None) -> None:
    """Whatever is in it, however it is written and cut into pieces."""
    content = json.dumps(document, ensure_ascii=is_ascii, indent=indent)
    try:
        body = content.encode()
    except UnicodeEncodeError:
        return
    assert expected(body) == read(body, size)


def test_no_prefix_is_a_snapshot() -> None:
    """Wherever the answer was cut."""
    for length in range(0, len(SAMPLE.rstrip()), 13):
        with pytest.raises(SyncFailed):
            read(SAMPLE[:length])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"<html>",
        SAMPLE + b"x",
        b'{"tables": [{"rows": [], "name": "t"}]}',
        b'{"tables": [{"name": null}]}',
        b'{"tables": [{"name": ""}]}',
        b'{"tables": [{"name": 1}]}',
        b'{"tables": [{"name": "t", "rows": [1]}]}',
        b'{"tables": [{"name": "t", "rows": [null]}]}',
        b'{"tables": [{"name": "t", "rows": [{"c": "text"}]}]}',
        b'{"tables": [{"name": "t", "rows": [{"c": {"value": 1}}]}]}',
        b'{"tables": [{"name": "t", "rows": {}}]}',
        b'{"tables": {}}',
        b'{"tables": [1]}',
        b'{"snapshotInfo": 1}',
        b'{"snapshotInfo": "\xff"}',
        b'{"a": NaN}',
        b'{"a": ' + b"[" * 100_000,
        b'{"a" 1}',
        b'{"a": 1 "b": 2}',
        b"{1: 1}",
    ],
)
def test_damaged_snapshots_are_refused(content: bytes) -> None:
    """In one line that holds nothing of it."""
    with pytest.raises(SyncFailed) as caught:
        read(content)
    assert str(caught.value) == "the JSON snapshot is damaged"


def test_a_row_that_does_not_end_is_refused() -> None:
    """Not all of a file is taken into memory to find that out."""

    class Endless(io.BytesIO):
        count = 0

        def read(self, size: int | None = -1) -> bytes:
            self.count += 1
            return b'{"a": "' if self.count == 1 else b"x" * (1 << 22)

    with pytest.raises(SyncFailed):
        list(JsonSnapshot(Endless()).rows())


def test_a_large_snapshot_takes_little_memory() -> None:
    """Memory does not grow with the snapshot's size."""
    row = json.dumps({f"column-{n}": {"value": "x" * 40, "type": 25} for n in range(12)}).encode()

    class Generated(io.BytesIO):
        left = 20_000

        def read(self, size: int | None = -1) -> bytes:
            if self.left == 20_000:
                self.left -= 1
                return b'{"snapshotInfo": "v", "tables": [{"name": "t", "rows": [' + row
            count = min(self.left, 200)
            self.left -= count
            return (b"," + row) * count if count else super().read(size)

    tracemalloc.start()
    try:
        count = sum(1 for _ in JsonSnapshot(Generated(b"]}]}")).rows())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 20_000
    assert peak < 4_000_000 < len(row) * count
