"""`axcollector demo`: the real service, real requests, real files, and a count of them, in a few seconds.

In a fresh directory it writes a small configuration (everything else is the default), registers tenants and keys, runs
the service as a process of its own, sends made-up records to it, waits until the files are in the `file:` store, and
compares what lies there with what was acknowledged. However it ends, the service has ended before.
"""

# ruff: noqa: N815 - Twisted's names

import contextlib
import errno
import os
import random
import sys
from typing import Any, ClassVar, Final

from twisted.python import usage

from axcollector.cli.demo_run import Demo, Plan
from axcollector.cli.errand import Errand
from axcollector.cli.options import CommandOptions, free_texts
from axcollector.directories import ensure_directory
from axcollector.disk import Disk, make_private_directory

DIRECTORY: Final = "axcollector-demo"
RECORDS: Final = 6000
MAX_RECORDS: Final = 100_000


class DemoOptions(CommandOptions):
    """Options of the demo."""

    longdesc = (
        "Runs the service in a fresh directory, sends records to it, waits until their files are delivered and counts"
        " them; takes a few seconds. Example: axcollector demo --keep-running"
    )
    optFlags: ClassVar[list[Any]] = [
        ["keep-running", "k", "Go on with a few records a second until Ctrl-C, to look at the service"]
    ]
    optParameters: ClassVar[list[Any]] = [
        ["directory", "d", None, f"An empty or new directory; without it ./{DIRECTORY}, or ./{DIRECTORY}-2 and so on"],
        ["records", "n", str(RECORDS), f"How many records to send, 1 to {MAX_RECORDS}"],
    ]
    compData = usage.Completions(optActions={"directory": usage.CompleteDirs(), **free_texts("records")})

    def postOptions(self) -> None:
        """A number of records is one."""
        text = self["records"]
        if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= MAX_RECORDS):
            raise usage.UsageError(f"--records: {text!r} is not allowed; allowed is 1 to {MAX_RECORDS}")

    def run(self) -> None:
        """Run the demo; the exit status is 0 if all records were delivered."""
        from twisted.internet import reactor  # noqa: PLC0415 - help and completion need none

        plan = Plan(fresh_directory(self["directory"]), int(self["records"]), bool(self["keep-running"]))
        demo = Demo(reactor, plan, random.Random(), sys.stdout, sys.stderr)  # noqa: S311 - made-up records
        status = Errand(reactor, demo.run()).run()
        if status:
            sys.exit(status)


def fresh_directory(wanted: str | None) -> str:
    """The absolute path of an empty directory: the one that is wanted, or a new one under the current.

    Raises:
        FileExistsError: The one that is wanted holds something.
    """
    if wanted is not None:
        ensure_directory(Disk(), os.path.abspath(wanted))
        if os.listdir(wanted):
            raise FileExistsError(
                errno.EEXIST, "The demo wants a directory of its own, and there is something in", wanted
            )
        return os.path.abspath(wanted)
    number = 1
    while True:
        name = DIRECTORY if number == 1 else f"{DIRECTORY}-{number}"
        with contextlib.suppress(FileExistsError):
            make_private_directory(name)
            return os.path.abspath(name)
        number += 1
