"""`axcollector import` and `axcollector export`: the whole registry from and to a file, a JSON object a line."""

# ruff: noqa: N815 - Twisted's names

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from twisted.python import usage

from axcollector.cli.interrupts import Interrupted, Interrupts
from axcollector.cli.options import ObjectOptions, printable
from axcollector.cli.progress import Progress
from axcollector.cli.transfer_files import STANDARD, Source, target
from axcollector.core.errors import BadRow, TransferFailed
from axcollector.core.rowtext import objection, parse, text_of
from axcollector.core.tables import COLUMNS, Values, short_name
from axcollector.registry_bulk import BulkRegistry

_NAMES: Final = "FILE may be - and may end in .gz."


class TransferOptions(ObjectOptions):
    """Options of both."""

    required = ("file",)
    compData = usage.Completions(extraActions=[usage.CompleteFiles()])

    def report(self, counts: Mapping[str, int], done: str) -> None:
        """Say how many rows of each table there were."""
        named = {short_name(table): count for table, count in counts.items()}
        rows = ", ".join(f"{count:,} of {name}" for name, count in named.items() if count) or "no rows"
        sys.stderr.write(printable(f"{done}: {rows}") + "\n")
        self.write(named)


class ImportOptions(TransferOptions):
    """Options of `import`."""

    longdesc = (
        "Puts the rows of FILE, a JSON object a line, into the registry, which is made where it is missing: all of them"
        " or, where one cannot be used, none. A row that is there with the same primary key is replaced, others stay."
        f" {_NAMES} Example: axcollector import rows.jsonl --replace"
    )
    optFlags: ClassVar[list[Any]] = [
        ["replace", None, "Empty the registry first, so that it holds the rows of FILE and no others"]
    ]

    def run(self) -> None:
        """Import it; how many rows of each table goes to stderr, or as JSON to stdout."""
        path = self.path()
        try:
            with (
                Interrupts() as interrupts,
                Source(self["file"]) as source,
                BulkRegistry.create(path) as registry,
            ):
                counts = _load(source, registry, interrupts, replace=bool(self["replace"]))
                registry.checkpoint()
        except TransferFailed as exc:
            raise TransferFailed(f"{exc}; nothing was imported") from exc
        except Interrupted as exc:
            exc.args = ("interrupted; nothing was imported",)
            raise
        self.report(counts, f"imported into {path}")


class ExportOptions(TransferOptions):
    """Options of `export`."""

    only_reads = True
    longdesc = (
        "Writes the rows of the registry to FILE, a JSON object a line, in the order of their primary keys. A file of"
        f" that name is replaced once the new one is whole. {_NAMES} Example: axcollector export rows.jsonl.gz"
    )

    def postOptions(self) -> None:
        """Only one thing can go to stdout."""
        if self["json"] and self["file"] == STANDARD:
            raise usage.UsageError("--json: stdout holds the rows already; name a file, or leave --json out")

    def run(self) -> None:
        """Export it; how many rows of each table goes to stderr, or as JSON to stdout."""
        self._refuse_registry()
        try:
            with Interrupts() as interrupts, self.open_registry(BulkRegistry) as registry, registry.reading():
                total = sum(registry.counts().values())
                with _progress("written", total, "rows") as progress:
                    saved = _save(registry, self["file"], progress, interrupts)
        except Interrupted as exc:
            exc.args = ("interrupted; nothing was exported",)
            raise
        if saved.left_out:
            left_out = f"left out {saved.left_out:,} rows that nobody could find; of the first, it {saved.reason}"
            sys.stderr.write(printable(left_out) + "\n")
        self.report(saved.counts, f"exported from {self.path()}")

    def _refuse_registry(self) -> None:
        """FILE is what is written; the registry is named otherwise, and would be gone."""
        path, file = self.path(), self["file"]
        for each in (path, path + "-wal", path + "-shm"):
            if os.path.exists(each) and os.path.exists(file) and os.path.samefile(each, file):
                raise TransferFailed(f"{file} is the registry itself; nothing was exported: name another file")


def _progress(label: str, total: int | None, unit: str) -> Progress:
    """How far it has come, for whoever sits at a terminal; a log has enough with the last line."""
    return Progress(sys.stderr, label, total if sys.stderr.isatty() else None, unit, time.monotonic)


def _load(source: Source, registry: BulkRegistry, interrupts: Interrupts, *, replace: bool) -> Mapping[str, int]:
    """Import a file; how many rows of each table there were."""
    number = 1
    with (
        _progress("read", source.size, "bytes") as progress,
        registry.loading(replace=replace) as loading,
    ):
        for lines in source.blocks():
            for table, rows in _parsed(source.name, lines, number).items():
                loading.put(table, rows)
            number += len(lines)
            progress.reach(source.position)
        interrupts.hold()
    return loading.counts


def _parsed(name: str, lines: Sequence[bytes], number: int) -> Mapping[str, Sequence[Values]]:
    """The rows on some lines, by table; the first line has this number."""
    rows: dict[str, list[Values]] = {table: [] for table in COLUMNS}
    for line in lines:
        if line and not line.isspace():
            try:
                table, values = parse(line)
            except BadRow as exc:
                raise TransferFailed(f"{name}, line {number + lines.index(line)}: it {exc}") from exc
            rows[table].append(values)
    return {table: there for table, there in rows.items() if there}


@dataclass(slots=True)
class _Saved:
    """What was exported.

    Attributes:
        counts: How many rows of each table.
        left_out: How many others there were, which no import would take: nobody can ever find them.
        reason: What is wrong with the first of those.
    """

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COLUMNS, 0))
    left_out: int = 0
    reason: str = ""


def _save(registry: BulkRegistry, path: str, progress: Progress, interrupts: Interrupts) -> _Saved:
    """Export to a file."""
    saved = _Saved()
    with target(path) as file:
        for table in COLUMNS:
            for rows in registry.ordered(table):
                problems = {at: problem for at, row in enumerate(rows) if (problem := objection(table, row))}
                usable = [row for at, row in enumerate(rows) if at not in problems]
                file.write(text_of(table, usable))
                saved.counts[table] += len(usable)
                saved.left_out += len(problems)
                saved.reason = saved.reason or next(iter(problems.values()), "")
                progress.advance(len(rows))
        interrupts.hold()
    return saved
