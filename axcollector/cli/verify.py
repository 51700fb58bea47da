"""`axcollector verify`: whether what lies in a data directory is as it was written."""

# ruff: noqa: N815 - Twisted's names

import json
import sys
import time
from collections.abc import Sequence
from typing import Any, ClassVar

from axcollector.cli import shown
from axcollector.cli.options import printable, write_out
from axcollector.cli.progress import Progress
from axcollector.cli.stages import StageOptions, inventory_of
from axcollector.core.errors import CommandFailed
from axcollector.disk import Disk
from axcollector.inventory import STAGES
from axcollector.verification import Verdict, Verification

_HEADING = ("stage", "files", "records", "size", "damaged")


class VerifyOptions(StageOptions):
    """Options of `verify`."""

    longdesc = (
        "Reads every file in a stage, or in all, and checks its CRCs, its number of records and its name. What is"
        " damaged is named, and the exit status is 1 then. Nothing is changed or locked; on a live collector files may"
        " vanish meanwhile, which is told. Example: axcollector verify staging"
    )
    optFlags: ClassVar[list[Any]] = [["json", "j", "Write one JSON object, with every file"]]

    def run(self) -> None:
        """Verify them."""
        items = self.found()
        total = sum(item.size for item in items)
        verification = Verification(Disk(), inventory_of(self).data_directory)
        verdicts: list[Verdict] = []
        bar = total if sys.stderr.isatty() else None
        with Progress(sys.stderr, "verified", bar, "bytes", time.monotonic, with_time_left=True) as progress:
            for item in items:
                before = progress.done
                for verdict in verification.verify(item):
                    verdicts.append(verdict)
                    progress.advance(verdict.size)
                progress.reach(before + item.size)
        self._tell(verdicts)
        damaged = sum(bool(each.damage) for each in verdicts)
        if damaged:
            raise CommandFailed(f"{damaged} of {len(verdicts)} files are damaged or do not belong where they are")

    def _tell(self, verdicts: Sequence[Verdict]) -> None:
        if self["json"]:
            write_out(json.dumps(_as_json(verdicts), indent=2) + "\n")
            return
        for each in verdicts:
            for text in each.damage:
                write_out(printable(f"DAMAGED  {each.name}: {text}") + "\n")
            for text in each.notes:
                write_out(printable(f"note     {each.name}: {text}") + "\n")
        vanished = sum(each.vanished for each in verdicts)
        if vanished:
            write_out(f"note     {vanished} files were split, moved or delivered while this looked\n")
        rows = [_HEADING, *(row for stage in STAGES if (row := _summed(stage, verdicts)) is not None)]
        widths = [max(map(len, texts)) for texts in zip(*rows, strict=True)]
        for row in rows:
            line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
            write_out(line.rstrip() + "\n")


def _summed(stage: str, verdicts: Sequence[Verdict]) -> tuple[str, ...] | None:
    """A stage's row; none of one that holds nothing."""
    of_stage = [each for each in verdicts if each.stage == stage and not each.vanished]
    if not of_stage:
        return None
    return (
        stage,
        f"{len(of_stage):,}",
        f"{sum(each.records for each in of_stage):,}",
        shown.size(sum(each.size for each in of_stage)),
        str(sum(bool(each.damage) for each in of_stage)),
    )


def _as_json(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    there = [each for each in verdicts if not each.vanished]
    return {
        "files": len(there),
        "records": sum(each.records for each in there),
        "bytes": sum(each.size for each in there),
        "damaged": sum(bool(each.damage) for each in there),
        "vanished": len(verdicts) - len(there),
        "details": [
            {
                "stage": each.stage,
                "file": each.name,
                "bytes": each.size,
                "records": each.records,
                "damage": each.damage,
                "notes": each.notes,
            }
            for each in there
        ],
    }
