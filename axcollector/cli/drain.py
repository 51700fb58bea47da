"""`axcollector drain`: everything that a collector holds is delivered now; for taking a host out of service."""

# ruff: noqa: N815 - Twisted's names

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Final

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.python import usage
from zope.interface import provider

from axcollector.cli.admin_client import AdminClient
from axcollector.cli.data_options import AdminOptions, DataOptions
from axcollector.cli.drain_live import Drained, LiveDrain
from axcollector.cli.errand import Errand
from axcollector.cli.interrupts import Interrupted, Interrupts
from axcollector.cli.options import free_texts, printable, write_out
from axcollector.cli.progress import Progress
from axcollector.cli.retry import require_data
from axcollector.core.errors import CommandFailed, DirectoryInUse
from axcollector.core.layout import QUARANTINE, UNREADABLE
from axcollector.disk import Disk
from axcollector.inventory import Item
from axcollector.stopped import possession

if TYPE_CHECKING:
    from axcollector.config import Config

PATIENCE_SECONDS: Final = 60
_LEFT: Final = "what is left stays where it is, and is delivered by the next drain, or when the collector is started"


class DrainOptions(AdminOptions, DataOptions):
    """Options of `drain`."""

    longdesc = (
        "Delivers everything that a collector holds now, whatever its interval, and failed buckets too. Of a running"
        " one (take it out of the load balancer first) its admin port is asked to; where none runs, this command"
        " delivers in its place, with its --config. The exit status is 0 only if all is delivered."
        " Example: axcollector drain --config /etc/axcollector/axcollector.yaml"
    )
    optFlags: ClassVar[list[Any]] = [["json", "j", "Write how it ended as one JSON object"]]
    optParameters: ClassVar[list[Any]] = [
        ["patience", "p", str(PATIENCE_SECONDS), "Give up when nothing was delivered for so many seconds"]
    ]
    compData = usage.Completions(optActions=free_texts("patience"))

    def postOptions(self) -> None:
        """Patience has an end."""
        text = self["patience"]
        if not (text.isascii() and text.isdigit() and len(text) < 7 and int(text) > 0):
            raise usage.UsageError(f"--patience: {text!r} is not allowed; allowed are seconds, 1 to 999999")

    def run(self) -> None:
        """Drain it."""
        from twisted.internet import reactor  # noqa: PLC0415 - help and completion need none

        self.drain(reactor)

    def drain(self, reactor: Any) -> None:  # noqa: ANN401 - any reactor that does not run yet
        """Drain it, in this reactor where no collector runs."""
        settings = self.settings()
        try:
            drained = self._live(settings) if self["url"] else self._stopped(reactor, settings)
        except DirectoryInUse:
            drained = self._live(settings)
        self._tell(drained)

    def _live(self, settings: "Config") -> Drained:
        client = AdminClient.of_options(self, settings)
        with Interrupts(), self._progress() as progress:
            return LiveDrain(client, int(self["patience"]), time.monotonic, time.sleep, progress).run()

    def _stopped(self, reactor: Any, settings: "Config") -> Drained:  # noqa: ANN401 - as above
        from axcollector.emptying import Emptying, Moment, Outcome  # noqa: PLC0415 - as above

        require_data(settings.local_storage_path, settings.data_directory)
        with possession(settings.local_storage_path):
            pass  # so that it is known whom to ask before a reactor runs, which it does once only
        ended: list[Outcome] = []
        with self._progress() as progress, _warnings(progress):

            def watch(moment: Moment) -> None:
                progress.expect(moment.total_bytes)
                progress.reach(moment.delivered_bytes)

            async def work() -> None:
                ended.append(await Emptying(reactor, settings, Disk(), int(self["patience"]), watch).run())

            status = Errand(reactor, work()).run()
        if not ended:
            raise Interrupted(status - 128)
        moment = ended[0].moment
        problems = [f"{pause.authority}: {pause.reason}" for pause in moment.paused]
        left = _by_stage(ended[0].left)
        return Drained(
            is_live=False,
            delivered_files=moment.delivered_files,
            delivered_bytes=moment.delivered_bytes,
            left=left,
            problems=problems,
        )

    def _progress(self) -> Progress:
        return Progress(sys.stderr, "delivered", None, "bytes", time.monotonic, with_time_left=True)

    def _tell(self, drained: Drained) -> None:
        undelivered = {stage: count for stage, count in drained.left.items() if stage != QUARANTINE}
        if self["json"]:
            done = {
                "complete": not undelivered,
                "live": drained.is_live,
                "delivered_files": drained.delivered_files,
                "delivered_bytes": drained.delivered_bytes,
                "left": drained.left,
                "problems": drained.problems,
            }
            write_out(json.dumps(done, indent=2) + "\n")
        else:
            write_out(f"delivered {drained.delivered_files:,} files, {drained.delivered_bytes:,} bytes\n")
        if drained.left.get(QUARANTINE):
            sys.stderr.write(
                "Invalid records are in quarantine, and are not delivered: see `axcollector quarantine`.\n"
            )
        if undelivered:
            left = ", ".join(f"{count:,} in {stage}" for stage, count in undelivered.items())
            why = "".join(f"; {problem}" for problem in drained.problems)
            look = f"; look at recovered/{UNREADABLE} with `axcollector verify`" if UNREADABLE in undelivered else ""
            raise CommandFailed(printable(f"not all is delivered: {left}{why}{look}; {_LEFT}"))


def _by_stage(items: Sequence[Item]) -> Mapping[str, int]:
    """How many things each stage holds."""
    counts: dict[str, int] = {}
    for item in items:
        place = UNREADABLE if item.kind == UNREADABLE else item.stage
        counts[place] = counts.get(place, 0) + 1
    return counts


@contextmanager
def _warnings(progress: Progress) -> Iterator[None]:
    """While this lasts, what is logged as a warning or worse is shown above the bar."""

    @provider(ILogObserver)
    def show(event: LogEvent) -> None:
        if event["log_level"] in {LogLevel.warn, LogLevel.error, LogLevel.critical}:
            progress.note(printable(formatEvent(event)))

    globalLogPublisher.addObserver(show)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(show)
