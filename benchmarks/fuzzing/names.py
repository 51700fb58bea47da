"""Target `names`: no name leaves its stage or is taken for another's, whoever made it.

An input is two names with a NUL between them, of a tenant; and, as a whole, the name of something on disk.
"""

import os

from axcollector.core import layout
from axcollector.core.layout import JournalName, ReferenceName
from axcollector.core.model import BucketName, Interval, Tenant
from benchmarks.fuzzing.target import Target

_HARMLESS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.%~")
_STAGE = "/data/ax/staging"
_NOW = 1_480_000_092.123


def check(data: bytes) -> str:
    """A tenant's names, then a name on disk."""
    errors = "surrogateescape" if data.startswith(b"s") else "replace"
    organization, _, environment = data.decode("utf-8", errors).partition("\0")
    kinds = [_tenant(organization, environment)]
    name = os.fsdecode(data)
    if name and "\0" not in name and "/" not in name:
        kinds += [_journal(name), _bucket(name), _reference(name), _file(name)]
    return ", ".join(kind for kind in kinds if kind)


def _is_inside(directory: str) -> bool:
    return os.path.normpath(os.path.join(_STAGE, directory)) == f"{_STAGE}/{directory}" and directory not in {"", "."}


def _tenant(organization: str, environment: str) -> str:
    if not layout.fits(Tenant("t", organization, environment)):
        return "a tenant that does not fit"
    bucket = BucketName(int(_NOW), organization, environment)
    directory = layout.bucket_directory(bucket)
    assert layout.parse_bucket_directory(directory) == bucket
    assert layout.split_tenant_directory(layout.tenant_directory(organization, environment)) == (
        organization,
        environment,
    )
    assert set(directory) <= _HARMLESS
    assert directory.count("~") == 2
    assert len(directory) <= layout.MAX_BUCKET_BYTES
    assert _is_inside(directory)
    reference = ReferenceName(directory, bucket).found(_NOW)
    assert ReferenceName.parse(reference.directory) == (reference, False)
    assert ReferenceName.parse(reference.salvage) == (reference, True)
    assert len(reference.salvage) <= 255
    journal = JournalName(Interval(0, 60), "id", 1, 0, 0)
    assert layout.parse_bucket_directory(journal.bucket_of(layout.tenant_directory(organization, environment))) == (
        BucketName(0, organization, environment)
    )
    return "a tenant"


def _journal(name: str) -> str:
    """What is read as a journal's name is the name that this journal has, as are those that follow from it."""
    try:
        journal, suffix = JournalName.parse(name)
    except ValueError:
        return ""
    assert name == (journal.journal if suffix == layout.JOURNAL_SUFFIX else journal.split)
    found = journal.found(_NOW)
    assert JournalName.parse(found.journal) == (found, layout.JOURNAL_SUFFIX)
    assert JournalName.parse(found.split) == (found, layout.SPLIT_SUFFIX)
    assert _is_inside(found.file_of("a~b"))
    return "a journal"


def _bucket(name: str) -> str:
    try:
        bucket = layout.parse_bucket_directory(name)
    except ValueError:
        return ""
    assert layout.bucket_directory(bucket) == name.partition(layout.RECOVERED_MARK)[0]
    key = layout.key_of_file(bucket.start, "f")
    assert len(key) == len("date=yyyy-mm-dd/time=hh-mm-ss/f")
    return "a bucket"


def _reference(name: str) -> str:
    try:
        reference, is_salvage = ReferenceName.parse(name)
    except ValueError:
        return ""
    assert name == (reference.salvage if is_salvage else reference.directory)
    assert _is_inside(layout.bucket_directory(reference.bucket))
    found = reference.found(_NOW)
    assert ReferenceName.parse(found.salvage) == (found, True)
    assert _is_inside(layout.bucket_directory(found.bucket))
    return "a reference's bucket"


def _file(name: str) -> str:
    original = layout.original_of(name)
    if original is None:
        return ""
    assert original.endswith(layout.FILE_SUFFIX)
    assert len(original) < len(name)
    assert _is_inside(original)
    return "a copy"


_JOURNAL = "20161124150800.20161124151000_0-uuid-0_writer_1-0-0"

NAMES = Target(
    "names",
    check,
    seeds=(
        b"acme\0prod",
        b"s.\0..",
        "z\xfcrich\0a b/~%".encode(),
        b"s\xed\xa0\x80\0e",
        b"a" * 181 + b"\0e",
        *(f"{_JOURNAL}{suffix}".encode() for suffix in (".journal", ".split")),
        f"{_JOURNAL}.journal~recoveredTS~20161124150812.123".encode(),
        f"{_JOURNAL}.split~recoveredTS~20161124150812.123".encode(),
        b"acme~prod~20161124150800",
        b"a%2Fb~%2E%2E~20161124150800~recoveredTS~20161124150812.123",
        b"a~b~20161124150800.salvage~recoveredTS~20161124150812.123",
        b"a b~c~20161124150800",
        b"f_recovered_20161124150812.123.txt.gz",
        b"f_recovered.txt.gz",
    ),
    words=(
        *(b"~", b"%", b"%2E", b"%2F", b"%7E", b"%25", b"%00", b".", b"..", b"/", b"\\", b"\0", b" ", b"\n", b"_"),
        *(b"~recoveredTS~", b".salvage", b".journal", b".split", b"_writer_", b"20161124150800", b".123", b"-0", b"00"),
        *(
            b"00010101000000",
            b"00000000000000",
            b"99991231235959",
            b"\xd9\xa3",
            b"\xef\xbc\x91",
            b"\xff",
            b"\xed\xa0\x80",
        ),
        *(b"_recovered_", b"_recovered", b".txt.gz", b"9" * 30, b"1" * 4400),
    ),
    longest_bytes=1024,
)
