"""`axcollector quarantine`: records that were set aside (`invalid_records: quarantine`)."""

# ruff: noqa: N815 - Twisted's names

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

import msgspec
from twisted.python import usage

from axcollector.cli import shown
from axcollector.cli.data_options import DataOptions, read_token
from axcollector.cli.options import CommandOptions, Listing, free_texts, printable, write_out
from axcollector.cli.progress import Progress
from axcollector.cli.quarantine_client import Client, url_of
from axcollector.cli.quarantine_retry import Outcome, Patience, Retry
from axcollector.core.errors import QuarantineDamaged, QuarantineError
from axcollector.core.layout import QUARANTINE, split_tenant_directory
from axcollector.core.quarantine import Entry
from axcollector.core.signing import parse_tenant
from axcollector.disk import Disk
from axcollector.quarantine_files import QuarantineFile, files_in, taking_out

COLUMNS: Final = ("tenant", "records", "oldest", "reasons", "file")
"""What `list` shows of a file."""


class QuarantinedOptions(DataOptions):
    """Options of a subcommand on records that were set aside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # untyped in Twisted
        self.damaged: list[str] = []

    def complain(self) -> None:
        """End with what is damaged, if anything is."""
        if self.damaged:
            raise QuarantineError("; ".join(self.damaged))

    def directory(self) -> str:
        """Where they lie."""
        return os.path.join(self.settings().data_directory, QUARANTINE)

    def files(self) -> list[QuarantineFile]:
        """All files, the oldest first."""
        return files_in(Disk(), self.directory())


class ChosenOptions(QuarantinedOptions):
    """Options of a subcommand on some of them."""

    optional = ("file",)
    must_choose: ClassVar[bool] = True
    optParameters: ClassVar[list[Any]] = [["tenant", "t", None, "Those of one tenant, written as acme~prod"]]
    compData = usage.Completions(optActions=free_texts("tenant"))

    def postOptions(self) -> None:
        """They are chosen in one way."""
        chosen = [name for name in ("file", "tenant", "all") if self.get(name)]
        if len(chosen) > 1 or (self.must_choose and not chosen):
            raise usage.UsageError("name one of FILE (as `list` shows it), --tenant and --all")

    def files(self) -> list[QuarantineFile]:
        """The chosen ones.

        Raises:
            QuarantineError: There is no such file.
        """
        found = super().files()
        if self["tenant"]:
            try:
                names = parse_tenant(self["tenant"])
            except ValueError as exc:
                raise usage.UsageError(f"--tenant {self['tenant']!r} is not allowed; {exc}") from exc
            return [file for file in found if split_tenant_directory(file.tenant) == names]
        if self["file"]:
            found = [file for file in found if file.name == self["file"]]
            if not found:
                raise QuarantineError(f"there is no {self['file']!r} in quarantine; see `axcollector quarantine list`")
        return found


class QuarantineListOptions(QuarantinedOptions, Listing):
    """Options of `quarantine list`."""

    longdesc = (
        "Lists the files of records that were set aside, with the reasons. A record comes to its file when its interval"
        " is over. Example: axcollector quarantine list --json"
    )

    def run(self) -> None:
        """List them."""
        with Progress(sys.stderr, "reading", None, "records", time.monotonic) as progress:
            rows = [row for file in self.files() if (row := _row(file, self.damaged, progress)) is not None]
        if not self["json"]:
            rows = [_shown(row) for row in rows]
        self.write(COLUMNS, rows)
        self.complain()


def _row(file: QuarantineFile, damaged: list[str], progress: Progress) -> dict[str, Any] | None:
    """What `list` tells of a file; nothing where nothing is in it any more."""
    reasons: Counter[tuple[str, str]] = Counter()
    oldest: float | None = None
    for _, _, entry in _lines(file, damaged):
        reasons[entry.code, entry.reason] += 1
        at = entry.quarantined_at / 1000
        oldest = at if oldest is None else min(at, oldest)
        progress.advance(1)
    if oldest is None:
        return None
    organization, environment = split_tenant_directory(file.tenant)
    return {
        "organization": organization,
        "environment": environment,
        "records": reasons.total(),
        "oldest": datetime.fromtimestamp(oldest, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "age_seconds": max(0, int(time.time() - oldest)),
        "reasons": [{"code": c, "reason": r, "records": n} for (c, r), n in reasons.most_common()],
        "file": file.name,
    }


def _lines(file: QuarantineFile, damaged: list[str]) -> Iterator[tuple[int, bytes, Entry]]:
    """A file's lines, as far as they can be read; none where somebody has just dealt with it."""
    try:
        yield from file.lines()
    except FileNotFoundError:
        return
    except QuarantineDamaged as exc:
        damaged.append(str(exc))


def _shown(row: dict[str, Any]) -> dict[str, str]:
    """A row for people."""
    return {
        "tenant": f"{row['organization']} {row['environment']}",
        "records": str(row["records"]),
        "oldest": f"{shown.age(row['age_seconds'])} ago",
        "reasons": "; ".join(f"{each['records']} × {each['reason']}" for each in row["reasons"]),
        "file": row["file"],
    }


class ShowOptions(ChosenOptions):
    """Options of `quarantine show`."""

    longdesc = (
        "Shows the records that were set aside, exactly as they were sent, each behind a line with its tenant, place in"
        " its batch, and reason: of one file, of one tenant, or all. Example: axcollector quarantine show --tenant"
        " acme~prod"
    )
    must_choose = False
    optFlags: ClassVar[list[Any]] = [["json", "j", "Write one JSON array of objects"]]

    def run(self) -> None:
        """Show them."""
        begun = False
        for file in self.files():
            name = msgspec.json.encode(file.name).decode()
            for _, line, entry in _lines(file, self.damaged):
                if self["json"]:
                    text = line.decode().rstrip("\n").removeprefix("{")
                    write_out(f'{"," if begun else "["}\n{{"file":{name},{text}')
                else:
                    write_out(
                        printable(
                            f"# {entry.organization} {entry.environment}, record {entry.index}, {entry.code}:"
                            f" {entry.reason}"
                        )
                        + "\n"
                        + printable(bytes(entry.record).decode())
                        + "\n"
                    )
                begun = True
        if self["json"]:
            write_out("\n]\n" if begun else "[]\n")
        self.complain()


class RetryOptions(ChosenOptions):
    """Options of `quarantine retry`."""

    longdesc = (
        "Sends records that were set aside to a running collector again, which decides by its present rules. What it"
        " takes leaves the quarantine; what fails again stays, with its new reason, and the exit status is 1."
        " Example: axcollector quarantine retry --all"
    )
    optFlags: ClassVar[list[Any]] = [
        ["all", "a", "All of them"],
        ["json", "j", "Write what was done as one JSON object"],
    ]
    optParameters: ClassVar[list[Any]] = [
        ["url", "u", None, "Where the collector listens; without it, the first tcp: of listen in the configuration"],
        ["token-file", None, None, "A file with a token of the records' scope, where the collector wants one"],
        ["ca-file", None, None, "A file of the certificates to trust, for https:"],
    ]
    compData = usage.Completions(
        optActions={"token-file": usage.CompleteFiles(), "ca-file": usage.CompleteFiles(), **free_texts("url")}
    )

    def run(self) -> None:
        """Send them."""
        client = self._client()
        progress = Progress(sys.stderr, "sending", None, "records", time.monotonic)
        with taking_out(self.directory()), Patience() as patience:
            retry = Retry(client, time.time(), time.sleep, patience.check, progress.advance)
            try:
                with progress:
                    for file in self.files():
                        try:
                            retry.send(file)
                        except QuarantineDamaged as exc:
                            self.damaged.append(str(exc))
            finally:
                self._tell(retry.outcome)
        self.complain()
        stayed = retry.outcome.stayed + retry.outcome.quarantined
        if stayed:
            raise QuarantineError(f"{stayed} records failed again and stay in quarantine; `list` tells their reasons")

    def _client(self) -> Client:
        settings = self.settings()
        urls = [url for url in map(url_of, settings.listen) if url is not None]
        url = self["url"] or next(iter(urls), None)
        if url is None:
            raise usage.UsageError("the configuration does not tell where the collector can be asked; use --url")
        token = read_token(self["token-file"], QuarantineError) if self["token-file"] else None
        return Client(url, settings.base_path, token, self["ca-file"])

    def _tell(self, outcome: Outcome) -> None:
        for problem in outcome.problems:
            sys.stderr.write(printable(problem) + "\n")
        done = {"accepted": outcome.accepted, "quarantined": outcome.quarantined, "stayed": outcome.stayed}
        if self["json"]:
            write_out(msgspec.json.encode(done).decode() + "\n")
        else:
            write_out("".join(f"{name} {count}\n" for name, count in done.items()))


class DropOptions(ChosenOptions):
    """Options of `quarantine drop`."""

    longdesc = (
        "Deletes records that were set aside, for good, and prints how many files that were."
        " Example: axcollector quarantine drop --tenant acme~prod"
    )
    optFlags: ClassVar[list[Any]] = [["all", "a", "All of them"]]

    def run(self) -> None:
        """Delete them."""
        with taking_out(self.directory()):
            files = self.files()
            for file in files:
                file.drop()
        write_out(f"{len(files)}\n")


class QuarantineOptions(CommandOptions):
    """Options of the group."""

    longdesc = "Example: axcollector quarantine list"
    subCommands: ClassVar[list[Any]] = [
        ["list", None, QuarantineListOptions, "List the files of records that were set aside"],
        ["show", None, ShowOptions, "Show the records, with the reasons"],
        ["retry", None, RetryOptions, "Send records to the collector again"],
        ["drop", None, DropOptions, "Delete records"],
    ]
