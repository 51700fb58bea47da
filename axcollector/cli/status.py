"""`axcollector status`: how a running collector is doing, as a table; redrawn with rates, if wanted."""

# ruff: noqa: N815 - Twisted's names

import json
import sys
import time
from collections.abc import Callable
from typing import Any, ClassVar, Final, TextIO

import msgspec
from twisted.python import usage

from axcollector.cli.admin_client import AdminClient
from axcollector.cli.data_options import AdminOptions, DataOptions
from axcollector.cli.interrupts import Interrupts
from axcollector.cli.options import printable, write_out
from axcollector.cli.status_table import table
from axcollector.core.errors import CommandFailed
from axcollector.core.status import Status

WATCH_SECONDS: Final = 2.0
_HOME_AND_CLEAR: Final = "\x1b[H\x1b[J"


class StatusOptions(AdminOptions, DataOptions):
    """Options of `status`."""

    longdesc = (
        "Asks a running collector at its admin port how it is doing. The exit status is 1 where it does not answer, or"
        " is not ready. Example: axcollector status --watch --url http://127.0.0.1:9001"
    )
    optFlags: ClassVar[list[Any]] = [
        ["json", "j", "Write what the collector says as one JSON object"],
        ["watch", "w", "Show it anew every two seconds, with rates, until Ctrl-C; with --json, an object a line"],
    ]

    def postOptions(self) -> None:
        """A data directory cannot be asked."""
        if self["local-storage-path"]:
            raise usage.UsageError("--local-storage-path says nothing of a running collector; use --config or --url")

    def run(self) -> None:
        """Show it."""
        client = AdminClient.of_options(self, self.settings())
        if self["watch"]:
            with Interrupts():
                watch(client, sys.stdout, time.sleep, in_json=bool(self["json"]))
            return
        status = client.get("/status", Status)
        write_out(as_json(status, indent=2) if self["json"] else table(status))
        if not status.ready:
            raise CommandFailed(f"the collector at {client.url} is not ready: {problems_of(status)}")


def as_json(status: Status, indent: int | None = None) -> str:
    """The status as it came, and whether it is ready."""
    return json.dumps({"ready": status.ready, **msgspec.to_builtins(status)}, indent=indent) + "\n"


def problems_of(status: Status) -> str:
    """What keeps it from being ready, in one line."""
    return printable(
        "; ".join(f"{name}: {check.reason}" for name, check in status.checks.items() if not check.ok and check.required)
    )


def watch(client: AdminClient, out: TextIO, wait: Callable[[float], object], *, in_json: bool) -> None:
    """Show it again and again, until that raises; a collector that does not answer is waited for."""
    before: Status | None = None
    is_terminal = out.isatty()
    while True:
        try:
            now = client.get("/status", Status)
        except CommandFailed as exc:
            before, text = None, json.dumps({"ready": False, "problem": str(exc)}) + "\n" if in_json else f"{exc}\n"
        else:
            before, text = now, as_json(now) if in_json else table(now, before)
        if not in_json:
            text = _HOME_AND_CLEAR + text if is_terminal else text + "\n"
        write_out(text)
        wait(WATCH_SECONDS)
