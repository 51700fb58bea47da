"""`axcollector ls` and `cat`: what lies in a data directory, of a live collector or of one that is stopped."""

# ruff: noqa: N815 - Twisted's names

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final

from twisted.python import usage

from axcollector.cli import shown
from axcollector.cli.data_options import DataOptions
from axcollector.cli.options import Choices, Listing, printable, write_out
from axcollector.core.errors import CommandFailed
from axcollector.core.layout import QUARANTINE
from axcollector.core.salvage import is_object
from axcollector.disk import Disk
from axcollector.inspection import Piece, Report, records
from axcollector.inventory import STAGES, Inventory, Item, ItemFile
from axcollector.quarantine_files import QuarantineFile

COLUMNS: Final = ("stage", "tenant", "interval", "files", "size", "age", "name")
_HERE: Final = "."


class StageOptions(DataOptions):
    """Options of a subcommand on one stage, or all."""

    optional = ("stage",)
    compData = usage.Completions(extraActions=[Choices(STAGES)])

    def postOptions(self) -> None:
        """There are five stages."""
        if self["stage"] is not None and self["stage"] not in STAGES:
            raise usage.UsageError(f"{self['stage']!r} is no stage; allowed are {', '.join(STAGES)}")

    def found(self) -> list[Item]:
        """What lies in the stages that were asked for."""
        stages = STAGES if self["stage"] is None else (self["stage"],)
        return list(inventory_of(self).items(stages))


def inventory_of(options: DataOptions) -> Inventory:
    """The stages of the data directory that the options name.

    Raises:
        CommandFailed: It is not there, or not ours to read.
    """
    directory = options.settings().data_directory
    if not os.path.isdir(directory):
        raise CommandFailed(f"there is no data in {directory}; name the place with --config or --local-storage-path")
    if not os.access(directory, os.R_OK | os.X_OK):
        raise CommandFailed(f"{directory} may not be read by you: run this as the user that the collector runs as")
    return Inventory(Disk(), directory)


class LsOptions(StageOptions, Listing):
    """Options of `ls`."""

    longdesc = (
        "Lists the journals and buckets in a stage (tmp, recovered, staging, failed, quarantine), or in all, the oldest"
        " first; of a live collector as of one that is stopped. Example: axcollector ls failed --json"
    )

    def run(self) -> None:
        """List them."""
        now = time.time()
        items = self.found()
        self.write(COLUMNS, [_as_json(item, now) if self["json"] else _as_text(item, now) for item in items])


def _as_json(item: Item, now: float) -> dict[str, Any]:
    return {
        "stage": item.stage,
        "name": item.name,
        "kind": item.kind,
        "organization": item.organization,
        "environment": item.environment,
        "start": None if item.start is None else shown.moment(item.start),
        "end": None if item.end is None else shown.moment(item.end),
        "files": len(item.files),
        "bytes": item.size,
        "age_seconds": None if item.start is None else max(0, int(now - item.start)),
    }


def _as_text(item: Item, now: float) -> dict[str, str]:
    tenant = item.kind if item.organization is None else f"{item.organization} {item.environment}"
    return {
        "stage": item.stage,
        "tenant": tenant,
        "interval": "-" if item.start is None else shown.moment(item.start),
        "files": str(len(item.files)),
        "size": shown.size(item.size),
        "age": "-" if item.start is None else shown.age(now - item.start),
        "name": item.name,
    }


class CatOptions(DataOptions):
    """Options of `cat`."""

    required = ("name",)
    longdesc = (
        "Writes the records of a bucket, a journal or a file as JSON lines, exactly as they are or will be delivered."
        " What to name is as `ls` and `verify` show it, or a file's path. Of what is damaged the whole records are"
        " written, what is wrong goes to stderr, and the exit status is 1."
        " Example: axcollector cat acme~prod~20161124150800"
    )
    optFlags: ClassVar[list[Any]] = [["json", "j", "Write one JSON array, each record with where it was found"]]
    compData = usage.Completions(extraActions=[usage.CompleteFiles()])

    @property
    def synopsis(self) -> str:
        """What follows the command's name in its help."""
        return "BUCKET|FILE [options]"

    def run(self) -> None:
        """Write them."""
        self._begun = False
        self._is_terminal = sys.stdout is not None and sys.stdout.isatty()
        damaged = sum(self._show(item, directory, file) for directory, item, file in self._chosen())
        if self["json"]:
            write_out("\n]\n" if self._begun else "[]\n")
        if damaged:
            raise CommandFailed(f"{damaged} of the files are damaged, see above; what can be read of them was written")

    def _chosen(self) -> Iterator[tuple[str, Item | None, ItemFile]]:
        """The files to show, each with the directory that its name is below, and the item that it is of."""
        name = self["name"]
        if os.path.isfile(name):
            yield _HERE, None, ItemFile(os.path.realpath(name), 0)  # a link of the user's own is followed
            return
        inventory = inventory_of(self)
        items = inventory.find(name)
        if not items:
            raise CommandFailed(f"there is no {name!r} in {inventory.data_directory}; see `axcollector ls`")
        for item in items:
            for file in item.files:
                yield inventory.data_directory, item, file

    def _show(self, item: Item | None, directory: str, file: ItemFile) -> bool:
        """Whether it is damaged."""
        report = Report()
        if not is_readable(file.name):
            return False
        if not file.is_regular:
            _tell(file.name, "is no regular file, and nothing of it is shown")
            return False
        path = os.path.join(directory, file.name)
        try:
            done = QuarantineFile(Disk(), *os.path.split(path)).done_lines()
            for lines, tenant in _left(records(Disk(), path, report), done):
                self._write(lines, file.name, tenant or _tenant_of(item))
        except FileNotFoundError:
            _tell(file.name, "vanished while this read it: it was split, moved or delivered")
            return False
        if report.aside:
            report.notes.append(f"{report.aside:,} invalid records are not shown: they come to quarantine at the split")
        for text in [*report.damage, *report.notes]:
            _tell(file.name, text)
        return bool(report.damage)

    def _write(self, lines: bytes, name: str, tenant: tuple[str, str] | None) -> None:
        if self["json"]:
            organization, environment = tenant or (None, None)
            head = json.dumps({"file": name, "organization": organization, "environment": environment})[:-1].encode()
            for line in _each(lines):
                said = b'"record":' + line if is_object(line) else b'"text":' + _quoted(line)
                self._write_bytes((b",\n" if self._begun else b"[\n") + head + b"," + said + b"}")
                self._begun = True
        elif self._is_terminal:
            texts = (printable(line.decode(errors="replace")) + "\n" for line in _each(lines))
            write_out("".join(texts))
        else:
            self._write_bytes(lines)

    def _write_bytes(self, data: bytes) -> None:
        write_out("")  # says so where there is nothing to write to
        sys.stdout.buffer.write(data)


def _each(lines: bytes) -> Sequence[bytes]:
    """Not `splitlines`: a carriage return may stand between the parts of a record."""
    return lines.removesuffix(b"\n").split(b"\n")


def _quoted(line: bytes) -> bytes:
    return json.dumps(line.decode(errors="replace")).encode()


def _left(pieces: Iterator[Piece], done: frozenset[int] | set[int]) -> Iterator[tuple[bytes, tuple[str, str] | None]]:
    """The lines of each piece, with its tenant, without those of these numbers, counted from 0."""
    first = 0
    for piece in pieces:
        lines = piece.lines
        if done:
            each = _each(lines)
            lines = b"".join(line + b"\n" for number, line in enumerate(each, first) if number not in done)
            first += len(each)
        if lines:
            yield lines, piece.tenant


def is_readable(name: str) -> bool:
    """Whether records stand in a file of this name; beside those in quarantine lie notes of what is done with."""
    is_note = QUARANTINE in name.split(os.sep) and name.endswith((".done", ".new"))
    return not is_note


def _tenant_of(item: Item | None) -> tuple[str, str] | None:
    if item is None or item.organization is None or item.environment is None:
        return None
    return item.organization, item.environment


def _tell(name: str, text: str) -> None:
    sys.stderr.write(printable(f"{name}: {text}") + "\n")
