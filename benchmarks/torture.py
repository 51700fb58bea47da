"""Kill the service, again and again, and see whether it keeps its word: `python -m benchmarks.torture --rounds 300`.

The real service runs as a process, over one data directory, with a signing service and store that misbehave a little.
Clients send batches of small records, as fast as they are answered, and note every batch tried and every 200. Each
round starts the service and ends it at a random moment, nearly always with SIGKILL; where it has worker processes, one
of them, or the parent alone, or all. After the last round it is
started once more, delivers what is left, and is stopped; then the store's objects are compared with what was noted.

The contract: a batch with a 200 is delivered, once; one without may have been kept, whole, once, or not at all. Any
breach of it ends in exit status 1. So does a service that ends by itself, refuses a valid batch, or does not deliver.

What this cannot show: the page cache survives SIGKILL, so a missing fsync goes unnoticed here.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from typing import Final, NoReturn

from benchmarks.torture_ledger import FINDINGS
from benchmarks.torture_run import Show, Torture, summary

ROUNDS: Final = 10
CLIENTS: Final = 24
DURABILITIES: Final = ("fsync", "write", "memory")
ROUND_TIMEOUT: Final = 60.0
INTERRUPTED: Final = 130
"""As shells have it for Ctrl-C."""
_INTERRUPTS: Final = (signal.SIGINT, signal.SIGTERM)
_LINES: Final = 20
_EPILOG: Final = """
example, about eight minutes:
  python -m benchmarks.torture --rounds 300 --seed 1 --json torture.json

exit status: 0 all is well, 1 a violation, 2 wrong usage, 130 interrupted
"""


def _shower(rounds: int) -> Show:
    """What shows how far a run is: a bar on a terminal, a line now and then elsewhere."""
    terminal = sys.stderr.isatty()
    every = 1 if terminal else max(1, rounds // _LINES)

    def show(done: int, acknowledged: int, seconds: float) -> None:
        if done % every and done != rounds:
            return
        text = f"round {done} of {rounds}: {acknowledged:,} batches acknowledged, {seconds:.0f} s"
        if terminal:
            filled = 24 * done // rounds
            sys.stderr.write(f"\r[{'#' * filled}{'.' * (24 - filled)}] {text}\x1b[K" + "\n" * (done == rounds))
        else:
            sys.stderr.write(text + "\n")
        sys.stderr.flush()

    return show


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.torture",
        description="Kill the service at random moments, and see whether each acknowledged batch is delivered, once.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--rounds", type=_whole, default=ROUNDS, metavar="N", help=f"how often it is ended (default {ROUNDS})")
    add("--seed", type=int, metavar="S", help="every choice follows from it; moments do not (default: a random one)")
    add("--clients", type=_whole, default=CLIENTS, metavar="N", help=f"how many send at once (default {CLIENTS})")
    add("--durability", choices=DURABILITIES, default=DURABILITIES[0], help="with memory, kills may lose batches")
    add(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes that take records, and are killed too",
    )
    add("--json", metavar="FILE", help="write all figures there")
    add("--directory", metavar="DIR", help="work there; it must be empty or absent (default: a temporary one)")
    add("--keep", action="store_true", help="keep the directory; after a violation it is kept in any case")
    add(
        "--round-timeout",
        type=_seconds,
        default=ROUND_TIMEOUT,
        metavar="SECONDS",
        help=f"how long a start or a stop may take, and the last delivery, that a second a round more"
        f" (default {ROUND_TIMEOUT:g})",
    )
    return parser


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 1 to 3600")
    return seconds


def _interrupt(*_: object) -> NoReturn:
    for number in _INTERRUPTS:  # what is running is being ended already
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. What to exit with."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if (
        options.directory
        and os.path.exists(options.directory)
        and (not os.path.isdir(options.directory) or os.listdir(options.directory))
    ):
        parser.error(f"--directory: {options.directory} is not an empty directory")
    if options.json and not os.path.isdir(os.path.dirname(os.path.abspath(options.json))):
        parser.error(f"--json: there is no directory for {options.json}")
    for number in _INTERRUPTS:  # shells start background commands with SIGINT ignored
        signal.signal(number, _interrupt)
    try:
        return _run(options)
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; nothing is left running\n")
        return INTERRUPTED


def _run(options: argparse.Namespace) -> int:
    directory = options.directory or tempfile.mkdtemp(prefix="axcollector-torture-")
    os.makedirs(directory, exist_ok=True)
    keep = options.keep
    try:
        torture = Torture(
            directory,
            rounds=options.rounds,
            seed=random.SystemRandom().randrange(10**6) if options.seed is None else options.seed,
            clients=options.clients,
            durability=options.durability,
            timeout_seconds=options.round_timeout,
            workers=options.workers,
        )
        torture.run(_shower(options.rounds))
        results = torture.results()
        broken = any(torture.findings.counts.values())
        keep = keep or broken
        for kind, examples in torture.findings.examples.items():
            sys.stderr.write(f"{kind} ({FINDINGS.get(kind, 'what should not happen')}):\n")
            sys.stderr.writelines(f"  {example}\n" for example in examples)
        sys.stderr.write(f"everything is kept in {directory}\n" if keep else "")
        if options.json:
            with open(options.json, "w", encoding="utf-8") as file:
                json.dump(results, file, indent=2)
                file.write("\n")
        sys.stdout.write(summary(results) + "\n")
        return 1 if broken else 0
    finally:
        if not keep:
            shutil.rmtree(directory)


if __name__ == "__main__":
    sys.exit(main())
