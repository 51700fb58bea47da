"""`axcollector send`: records of a file, or of standard input, to a collector over HTTP."""

# ruff: noqa: N815 - Twisted's names

import json
import os
import sys
import time
from typing import Any, ClassVar, Final

from twisted.internet import defer
from twisted.python import usage

from axcollector.cli.data_options import read_token
from axcollector.cli.errand import Errand
from axcollector.cli.interrupts import Interrupted
from axcollector.cli.options import CommandOptions, free_texts, printable, write_out
from axcollector.cli.progress import Progress
from axcollector.cli.quarantine_client import url_of
from axcollector.cli.send_input import Input
from axcollector.core.errors import CommandFailed, ConfigError
from axcollector.sending import Batch, Result, Sending
from axcollector.unwaited import Unwaited

NUMBERS: Final = {
    "concurrency": (8, 256, "How many requests may be under way at once"),
    "batch-records": (500, 1_000_000, "How many records a request has at the most"),
    "batch-bytes": (1 << 20, 1 << 30, "How many bytes of records a request has at the most, before gzip"),
    "retry-seconds": (300, 1_000_000, "For how long a batch that the collector cannot take is tried"),
}
"""The options that are numbers: their defaults, what they may be at the most, what they are for."""
_SHOWN: Final = 20


class SendOptions(CommandOptions):
    """Options of `send`."""

    required = ("scope",)
    optional = ("file",)
    longdesc = (
        "Sends the records of FILE, or of standard input (-), for SCOPE to a collector: a JSON object a line, or"
        ' documents {"records": […]}, plain or gzip. A collector that has no room, or cannot be reached, is asked'
        " again, when it says or ever later. What was not accepted is told with its line; the exit status is 1 then."
        " Example: axcollector send 3a9a2b7c-52a8-4f3e-9c39-0d6b5f3f2a11 records.jsonl.gz --url https://collector:9443"
    )
    optFlags: ClassVar[list[Any]] = [["json", "j", "Write what became of the records as one JSON object"]]
    optParameters: ClassVar[list[Any]] = [
        ["config", "c", None, "The collector's configuration, which says where it listens"],
        ["url", "u", None, "Where the collector listens; without it, the first tcp: of listen in the configuration"],
        ["base-path", None, None, "What its paths begin with; by default as the configuration says"],
        ["token-file", None, None, "A file with a token of the scope, where the collector wants one"],
        ["ca-file", None, None, "A file of the certificates to trust, for https:"],
        *([name, None, str(default), text] for name, (default, _, text) in NUMBERS.items()),
    ]
    compData = usage.Completions(
        optActions={
            **{name: usage.CompleteFiles() for name in ("config", "token-file", "ca-file")},
            **free_texts("url", "base-path", *NUMBERS),
        },
        extraActions=[usage.Completer(descr="scope"), usage.CompleteFiles()],
    )

    def postOptions(self) -> None:
        """Numbers are numbers."""
        for name, (_, most, _) in NUMBERS.items():
            text = self[name]
            if not (text.isascii() and text.isdigit() and len(text) < 12 and 1 <= int(text) <= most):
                raise usage.UsageError(f"--{name}: {text!r} is not allowed; allowed is 1 to {most}")

    def run(self) -> None:
        """Send them."""
        from twisted.internet import reactor  # noqa: PLC0415 - help and completion need none

        self.send(reactor)

    def send(self, reactor: Any) -> None:  # noqa: ANN401 - any reactor that does not run yet
        """Send them, in this reactor."""
        from axcollector.client import Client  # noqa: PLC0415 - as above

        url, base_path = self._where()
        token = read_token(self["token-file"], CommandFailed) if self["token-file"] else None
        try:
            client = Client(
                reactor,
                url,
                token=token,
                base_path=base_path,
                retry_seconds=int(self["retry-seconds"]),
                connections=int(self["concurrency"]),
                ca_file=self["ca-file"],
            )
        except ConfigError as exc:
            raise CommandFailed(f"--url: {str(exc).removeprefix('urls: ')}") from exc
        numbers = int(self["batch-records"]), int(self["batch-bytes"])
        if self["file"] in {None, "-"} and os.isatty(0):
            sys.stderr.write("Reading records from the terminal, one a line; Ctrl-D ends them.\n")
        with Input(self["file"] or "-", *numbers) as source:
            errand = _Sent(reactor, client, self["scope"], source, int(self["concurrency"]))
            try:
                status = Errand(reactor, errand.work()).run()
            finally:
                self._tell(errand)
        if status:
            raise Interrupted(status - 128)
        self._judge(errand, url)

    def _where(self) -> tuple[str, str]:
        """The collector's URL and base path."""
        from axcollector.config_file import load_config  # noqa: PLC0415 - as above

        settings = load_config(self["config"], {})
        url = self["url"] or next(filter(None, map(url_of, settings.listen)), None)
        if url is None:
            raise usage.UsageError("the configuration does not tell where the collector can be asked; use --url")
        return url, self["base-path"] if self["base-path"] is not None else settings.base_path

    def _tell(self, sent: "_Sent") -> None:
        result = sent.result
        result.refusals.sort(key=lambda each: (each.place.line, each.place.record or 0))
        for each in result.refusals[:_SHOWN]:
            sys.stderr.write(printable(f"{each.place}: {each.code}: {each.reason}") + "\n")
        if result.refused > _SHOWN:
            more = "" if self["json"] else "; --json names more"
            sys.stderr.write(f"and {result.refused - _SHOWN:,} more were refused{more}\n")
        gaps = sent.gaps
        for gap in gaps:
            sys.stderr.write(f"not accepted: {gap}\n")
        counts = {
            "accepted": result.accepted,
            "set_aside": result.set_aside,
            "refused": result.refused,
            "unsent": result.unsent,
        }
        if self["json"]:
            refusals = [{"place": str(e.place), "code": e.code, "reason": e.reason} for e in result.refusals]
            write_out(json.dumps({**counts, "not_accepted": gaps, "refusals": refusals}, indent=2) + "\n")
        else:
            write_out("".join(f"{name.replace('_', ' ')} {count}\n" for name, count in counts.items()))

    def _judge(self, sent: "_Sent", url: str) -> None:
        result = sent.result
        if result.problem is not None:
            raise CommandFailed(
                f"the collector at {url} takes no more: {result.problem.code}: {result.problem.reason}"
                + ("" if result.problem.retry_after is None else "; try the rest again later")
            )
        if result.refused:
            raise CommandFailed(f"{result.refused:,} records were refused, see above")


class _Sent:
    """What runs in the reactor.

    Attributes:
        result: What became of the records.
        gaps: What was not accepted through no fault of its own, in order.
    """

    # Reactors have no type of their own, and the client is loaded late.
    def __init__(self, reactor: Any, client: Any, scope: str, source: Input, concurrency: int) -> None:  # noqa: ANN401
        self._client = client
        self._source = source
        self._concurrency = concurrency
        self._thread = Unwaited(reactor, "reading")
        self._sending = Sending(client, scope, self._next, self._advance)
        self._progress: Progress | None = None

    @property
    def result(self) -> Result:
        return self._sending.result

    @property
    def gaps(self) -> list[str]:
        result = self.result
        ordered = sorted(result.gaps, key=lambda gap: (gap[0].line, gap[0].record or 0))
        gaps = [f"{first} to {last}" if first != last else str(first) for first, last in ordered]
        if not result.is_complete:
            gaps.append(f"all behind {result.last}" if result.last is not None else "all")
        return gaps

    async def work(self) -> None:
        size = self._source.size if sys.stderr.isatty() else None
        unit = "records" if size is None else "bytes"
        with Progress(sys.stderr, "sent", size, unit, time.monotonic, with_time_left=True) as self._progress:
            self._thread.startService()
            self._client.startService()
            try:
                await self._sending.run(self._concurrency)
            finally:
                await self._client.stopService()
                await self._thread.stopService()

    def _next(self) -> "defer.Deferred[Batch | None]":
        return self._thread.run(self._source.next_batch)

    def _advance(self, batch: Batch) -> None:
        if self._progress is None:
            return
        if self._source.size is not None and sys.stderr.isatty():
            self._progress.reach(max(self._progress.done, batch.position))
        else:
            self._progress.advance(len(batch.texts))
