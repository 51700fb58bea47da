"""Reading what lies in the stages, whole or damaged: the records, and what is wrong. Blocking; only reads.

A file is read once to know how far it can be believed (`examine`), and once more for its records (`records`):

* a journal, frame by frame: the CRCs, the sequence, the member's own CRC and its number of lines (`core/frames`);
* a `.txt.gz` that is whole, by its CRCs; of one that is torn or damaged, what `core/salvage` believes of it.

On a live collector a journal may end in half a frame, because it is just being written; what stands there was not
acknowledged, and a crash may leave the same, so it is noted, and no fault. Nor is what vanished meanwhile.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from axcollector.core import deflate
from axcollector.core.frames import Frame, FrameReader
from axcollector.core.layout import FILE_SUFFIX, JOURNAL_SUFFIX, JournalName, split_tenant_directory
from axcollector.core.salvage import LineReader, is_object
from axcollector.core.survey import Findings, Survey
from axcollector.disk import Disk, read_slices

_TEXT_BYTES: Final = 1 << 20
_DAMAGE: Final[tuple[type[Exception], ...]] = (EOFError, *deflate.ERRORS)
"""What reading a `.txt.gz` to its end raises where it is not whole."""
_WRONG: Final[tuple[type[Exception], ...]] = (ValueError, *_DAMAGE)
_NUMBERED: Final = re.compile(r"(?P<name>.+\.journal(?:~recoveredTS~[\d.]+)?)_\d+", re.ASCII)
"""A journal that was put aside beside another one of its name."""


@dataclass(slots=True)
class Report:
    """What was found in a file.

    Attributes:
        records: How many records can be read.
        aside: How many more were set aside because they are invalid; only journals hold such.
        tenants: Of how many tenants they are; of a file whose tenant only its bucket tells, 0.
        damage: What is damaged; empty: nothing is.
        notes: What is worth knowing, and no damage.
    """

    records: int = 0
    aside: int = 0
    tenants: int = 0
    damage: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Piece:
    """Some whole lines of a file, each ending in a newline.

    Attributes:
        tenant: Organization and environment; None where the file does not tell.
        lines: The lines.
    """

    tenant: tuple[str, str] | None
    lines: bytes


def examine(disk: Disk, path: str) -> Report:
    """Read a whole file, a journal or a `.txt.gz`, and say what is in it.

    Raises:
        FileNotFoundError: It is not there (any more).
        OSError: It cannot be read.
    """
    report = Report()
    journal = journal_of(os.path.basename(path))
    if journal is not None:
        for _ in _journal_pieces(disk, path, journal, report):
            pass
        return report
    try:
        for _ in _checked_lines(disk, path, report):
            pass
    except _DAMAGE:
        report = Report()
        for _ in _salvaged(disk, path, _surveyed(disk, path), report):
            pass
    return report


def records(disk: Disk, path: str, report: Report) -> Iterator[Piece]:
    """The records of a file, as far as they can be read; what is wrong with it is in the report when all were taken.

    Raises:
        FileNotFoundError: It is not there (any more).
        OSError: It cannot be read, or was changed while it was.
    """
    journal = journal_of(os.path.basename(path))
    if journal is not None:
        yield from _journal_pieces(disk, path, journal, report)
        return
    try:
        for _ in _members(disk, path):
            pass
    except _DAMAGE:
        yield from _salvaged(disk, path, _surveyed(disk, path), report)
    else:
        try:
            yield from _checked_lines(disk, path, report)
        except _DAMAGE as exc:
            raise _changed(path) from exc


def journal_of(name: str) -> JournalName | None:
    """The journal that a file of this name is; None: it is none."""
    numbered = _NUMBERED.fullmatch(name)
    try:
        journal, suffix = JournalName.parse(numbered["name"] if numbered else name)
    except ValueError:
        return None
    return journal if suffix == JOURNAL_SUFFIX else None


def _journal_pieces(disk: Disk, path: str, journal: JournalName, report: Report) -> Iterator[Piece]:
    reader = FrameReader(journal.identity)
    tenants: set[str] = set()
    last = -1
    for frame in _frames(disk, path, reader):
        if frame.sequence != last + 1:
            report.damage.append(f"frame {last + 1} is missing: the next whole one is {frame.sequence}")
        last = max(last, frame.sequence)
        tenants.add(frame.tenant)
        report.aside += frame.aside_records
        piece = _frame_piece(frame, report)
        if piece is not None:
            report.records += frame.records
            yield piece
    report.tenants = len(tenants)
    if reader.damaged:
        report.damage.append(f"{reader.damaged:,} bytes are no whole frames")
    if reader.torn:
        report.notes.append(
            f"its last {reader.torn:,} bytes are no whole frame, or zeros: it is being written, or a crash cut off what"
            " was not acknowledged"
        )


def _frames(disk: Disk, path: str, reader: FrameReader) -> Iterator[Frame]:
    with disk.open(path) as file:
        for data in read_slices(file):
            yield from reader.feed(data)
    yield from reader.finish()


def _frame_piece(frame: Frame, report: Report) -> Piece | None:
    """The lines of a frame, whose CRCs are right; what they hold may be wrong all the same, where a writer was."""
    try:
        tenant = split_tenant_directory(frame.tenant)
        lines = b"".join(_texts([frame.member])) if frame.member else b""
    except _WRONG as exc:
        report.damage.append(f"frame {frame.sequence} cannot be read: {exc}")
        return None
    count = lines.count(b"\n")
    if count != frame.records or (lines and not lines.endswith(b"\n")):
        report.damage.append(f"frame {frame.sequence} holds {count:,} lines and says {frame.records:,}")
    return Piece(tenant, lines) if lines else None


def _texts(slices: "Iterator[bytes] | list[bytes]") -> Iterator[bytes]:
    """The text of whole gzip members one after the other; zeros between and behind them are no data.

    Raises:
        EOFError: The last one has no end.
        Exception: One of `deflate.ERRORS`: there is damage.
    """
    reader = None
    for data in slices:
        rest = data
        while rest:
            if reader is None:
                rest = rest.lstrip(b"\0")
                if not rest:
                    break
                reader = deflate.decompressor()
            text = reader.decompress(rest, _TEXT_BYTES)
            while text:
                yield text
                text = reader.decompress(b"", _TEXT_BYTES) if not reader.eof and not reader.unconsumed_tail else b""
            rest, reader = (reader.unused_data, None) if reader.eof else (reader.unconsumed_tail, reader)
    if reader is not None:
        message = "it has no end"
        raise EOFError(message)


def _members(disk: Disk, path: str) -> Iterator[bytes]:
    """The text of a `.txt.gz`; raises as `_texts` does where it is not whole."""
    with disk.open(path) as file:
        yield from _texts(read_slices(file))


def _checked_lines(disk: Disk, path: str, report: Report) -> Iterator[Piece]:
    """The lines of a file that is whole; those that are no records are damage, and are given all the same."""
    rest = b""
    strangers = 0
    for text in _members(disk, path):
        whole, newline, open_end = text.rpartition(b"\n")
        if not newline:
            rest += text
            continue
        lines = rest + whole
        rest = open_end
        yield Piece(None, lines + b"\n")
        each = lines.split(b"\n")
        report.records += len(each)
        strangers += sum(not is_object(line) for line in each)
    if rest:
        report.notes.append("its last line has no newline")
        report.records += 1
        strangers += not is_object(rest)
        yield Piece(None, rest + b"\n")
    if strangers:
        report.damage.append(f"{strangers:,} lines are no JSON objects")


def _surveyed(disk: Disk, path: str) -> Findings:
    survey = Survey()
    with disk.open(path) as file:
        for data in read_slices(file):
            survey.feed(data)
            if survey.damaged:
                break
    return survey.finish()


def _salvaged(disk: Disk, path: str, findings: Findings, report: Report) -> Iterator[Piece]:
    """The lines of a file that is not whole, as far as they can be believed."""
    reader = LineReader(findings)
    begun = bytearray()  # of a line that goes on
    try:
        with disk.open(path) as file:
            for data in read_slices(file):
                for piece in reader.feed(data):
                    whole, newline, rest = piece.rpartition(b"\n")
                    if newline:
                        yield Piece(None, bytes(begun) + whole + newline)
                        begun.clear()
                    begun += rest
        begun += reader.finish()
    except ValueError as exc:
        raise _changed(path) from exc
    if begun:
        yield Piece(None, bytes(begun))
    report.records = reader.kept
    if findings.whole and not reader.dropped:
        return
    what = "it is damaged" if findings.damaged else "it is cut off: it does not end as a gzip file does"
    lost = f", {reader.dropped:,} that are no JSON are left out" if reader.dropped else ""
    report.damage.append(f"{what}; {reader.kept:,} whole lines before that can be read{lost}")


def _changed(path: str) -> OSError:
    message = f"{path} was changed while it was read; try again"
    return OSError(message)


def name_fault(bucket_tenant: str, bucket_start: int, name: str) -> str | None:
    """What is wrong with the name of a file in a bucket of this tenant's directory name and start; None: nothing is.

    Of names that the reference gave, nothing but their end is known.
    """
    if not name.endswith(FILE_SUFFIX):
        return f"it is no {FILE_SUFFIX} file, and left alone"
    match = _OURS.fullmatch(name)
    if match is None:
        return None
    try:
        journal, _ = JournalName.parse(f"{match['identity']}{JOURNAL_SUFFIX}{_mark(match['recovered'])}")
    except ValueError:
        return "its name is not as axcollector writes it"
    if journal.interval.start != bucket_start:
        return "its name tells another interval than its bucket's"
    if journal.file_of(bucket_tenant) != f"{match['hex']}_{match['rest']}{FILE_SUFFIX}":
        return "its name is another tenant's: it was moved here, or renamed"
    return None


_OURS: Final = re.compile(
    r"(?P<hex>[0-9a-f]{4})_"
    r"(?P<rest>(?P<identity>\d{14}\.\d{14}_[0-9A-Za-z-]+_writer_\d+-\d+-\d+)"
    r"(?:_recovered_(?P<recovered>\d{14}\.\d{3}))?)(?:_\d+)?\.txt\.gz",
    re.ASCII,
)


def _mark(recovered: str | None) -> str:
    return f"~recoveredTS~{recovered}" if recovered else ""
