"""Names on disk: they round-trip, stay in their stage, and are never confused."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axcollector.core import layout
from axcollector.core.model import BucketName, Interval, Tenant

JOURNAL_FILE = layout.JournalName(Interval(1_767_323_045, 1_767_323_105), "id", 1, 0, 0).file_of("acme~prod")

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
starts = st.integers(0, 4_000_000_000)


@given(starts, names, names)
def test_bucket_names_round_trip(start: int, organization: str, environment: str) -> None:
    """Any organization and environment comes back from a directory's name, which is one harmless path component."""
    bucket = BucketName(start, organization, environment)
    directory = layout.bucket_directory(bucket)
    assert bucket == layout.parse_bucket_directory(directory)
    assert directory == os.path.basename(directory)
    assert directory not in {".", ".."}
    assert set(directory) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.%~")
    assert directory.count("~") == 2


@given(names, names, names, names)
def test_tenants_are_not_confused(a: str, b: str, c: str, d: str) -> None:
    """Two tenants never share a directory name."""
    assert ((a, b) == (c, d)) == (layout.tenant_directory(a, b) == layout.tenant_directory(c, d))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("acme", "acme"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        ("...", "..."),
        ("a/b", "a%2Fb"),
        ("a~b", "a%7Eb"),
        ("50%", "50%25"),
        ("zürich", "z%C3%BCrich"),
        ("a b\n", "a%20b%0A"),
        ("", ""),
    ],
)
def test_encoded_names(name: str, expected: str) -> None:
    """ASCII letters, digits, `-`, `_` and `.` stay; the rest is percent-encoded, as are `.` and `..`."""
    assert expected == layout.encode_part(name)
    assert name == layout.decode_part(expected)


@pytest.mark.parametrize("text", ["a%2eb", "%61", "a~b", "%FF", "%", "a b", "."])
def test_foreign_encodings_are_refused(text: str) -> None:
    """What the encoder never writes is nobody's name."""
    with pytest.raises(ValueError, match=r"encoded|decode"):
        layout.decode_part(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "acme",
        "acme~test",
        "acme~test~2026",
        "acme~test~2026112401540x",
        "a~b~c~20261124015400",
        "a~b~20261324015400",
    ],
)
def test_foreign_directories_are_refused(text: str) -> None:
    """A directory that is no bucket's raises ValueError."""
    with pytest.raises(ValueError):  # noqa: PT011 - from several places
        layout.parse_bucket_directory(text)


def test_reference_directories_are_read() -> None:
    """The reference's mark of a recovered directory is ignored."""
    expected = BucketName(1_480_000_080, "org", "env")
    assert expected == layout.parse_bucket_directory("org~env~20161124150800~recoveredTS~20161124150812.123")


def test_years_of_few_digits() -> None:
    """A directory of the year 16, whoever made it, has a name and a key with four."""
    bucket = layout.parse_bucket_directory("a~b~00160102030405")
    assert layout.bucket_directory(bucket) == "a~b~00160102030405"
    assert layout.key_of_file(bucket.start, "f") == "date=0016-01-02/time=03-04-05/f"


def test_key_of_file() -> None:
    """Date and time of a key are the bucket's start in UTC, with seconds."""
    assert layout.key_of_file(1_480_000_080, "f.txt.gz") == "date=2016-11-24/time=15-08-00/f.txt.gz"


@given(starts, st.integers(1, 86_400), st.integers(0, 99), st.integers(0, 9), st.integers(0, 10**6), st.booleans())
def test_journal_names_round_trip(
    start: int, length: int, starts_count: int, worker: int, sequence: int, recovered: bool
) -> None:
    """A journal's name says everything about it, also after a crash; its files' names follow from it."""
    name = layout.JournalName(Interval(start, start + length), "0-uuid-0", starts_count, worker, sequence)
    if recovered:
        name = name.found(1_480_000_092.1239)
        assert name == name.found(2_000_000_000.0)
    assert (name, ".journal") == layout.JournalName.parse(name.journal)
    assert (name, ".split") == layout.JournalName.parse(name.split)
    file = name.file_of("a~b")
    expected = f"{name.identity}_recovered_20161124150812.123.txt.gz" if recovered else f"{name.identity}.txt.gz"
    assert expected == file[5:]
    assert file == name.file_of("a~b")
    assert int(file[:4], 16) >= 0


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x.journal",
        "org~env~20161124150800",
        "unreadable",
        "20161124150800.20161124151000_id_writer_01-0-0.journal",
        "20161124150800.20161124151000_i\udcffd_writer_1-0-0.journal",
        "20161124150800.20161124151000_id_writer_1-\u0663-0.journal",
        "20161124150800.20161124151000_id_writer_1-0-0.journal~recoveredTS~2016112415081\u0662.123",
    ],
)
def test_other_names_are_no_journals(name: str) -> None:
    """What is not a journal's name is refused."""
    with pytest.raises(ValueError, match="not the name of a journal"):
        layout.JournalName.parse(name)


@pytest.mark.parametrize(
    ("organization", "fits"), [("a" * 180, True), ("a" * 184, False), ("ü" * 40, False), ("\ud800", False)]
)
def test_tenants_with_long_names_do_not_fit(organization: str, fits: bool) -> None:
    """A directory name of over 200 bytes, or one that is no UTF-8, is no tenant of ours."""
    assert fits == layout.fits(Tenant("t", organization, "e"))


@given(st.floats(0, 4e9), st.integers(1, 100_000))
def test_intervals_contain_their_moment(now: float, length: int) -> None:
    """Intervals are multiples of their length since the epoch; a moment lies in exactly one."""
    interval = Interval.containing(now, length)
    assert interval.start <= now < interval.end
    assert interval.start % length == 0
    assert interval.end - interval.start == length


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (JOURNAL_FILE, 1_767_323_105),
        ("1f2e_20260102030405.20260102030505_id_writer_0.txt.gz", 1_767_323_105),
        ("1f2e_20260102030405.20261302030505_id_writer_0.txt.gz", 5.0),
        ("by hand.txt.gz", 5.0),
    ],
)
def test_the_end_of_a_file(name: str, expected: float) -> None:
    """Its interval's, as its name says; of another name what is given."""
    assert layout.end_of_file(name, 5.0) == expected
