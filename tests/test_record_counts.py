"""How many records a file holds: remembered, or counted."""

import gzip
from pathlib import Path

import pytest

from axcollector import record_counts
from axcollector.disk import Disk
from axcollector.record_counts import RecordCounts


def test_what_was_noted_is_believed_once(tmp_path: Path) -> None:
    """The file is not read; afterwards nothing is remembered of it."""
    counts = RecordCounts(Disk())
    counts.note("a", 5)
    assert counts.take("a", str(tmp_path / "a")) == 5
    assert counts.take("a", str(tmp_path / "a")) == 0


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (gzip.compress(b"{}\n" * 3), 3),
        (gzip.compress(b"{}\n" * 3) + gzip.compress(b"{}\n" * 4), 7),
        (gzip.compress(b'{"a":"b"}\n' * 200_000, 1), 200_000),
        (gzip.compress(b"{}\n" * 3)[:-4], 3),
        (gzip.compress(b"{}\n" * 3) + b"no gzip", 3),
        (b"", 0),
        (b"no gzip", 0),
    ],
    ids=["one member", "two", "long", "torn", "damaged", "empty", "foreign"],
)
def test_others_are_counted(tmp_path: Path, content: bytes, expected: int) -> None:
    """All whole lines that can be read are."""
    path = tmp_path / "a.txt.gz"
    path.write_bytes(content)
    assert RecordCounts(Disk()).take("a.txt.gz", str(path)) == expected


def test_the_oldest_are_forgotten(tmp_path: Path) -> None:
    """So many are remembered, the latest."""
    counts = RecordCounts(Disk())
    for number in range(record_counts.MOST_NOTED + 2):
        counts.note(str(number), 1)
    assert [counts.take(str(number), str(tmp_path / "none")) for number in (0, 1, 2, 3)] == [0, 0, 1, 1]
