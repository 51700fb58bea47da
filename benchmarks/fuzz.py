"""Does any input break what takes bytes from outside? `python -m benchmarks.fuzz --seconds 60 [--target NAME]`.

Each target makes of an input what the package makes of it, and holds that against an oracle that is written in other
words (`benchmarks/fuzzing`): `payload`, `gzip`, `salvage`, `names`, `changes`. Where atheris is installed (the extra
`fuzz`) it makes the inputs, guided by which lines they reach; elsewhere a loop of seeded mutations does.

    python -m benchmarks.fuzz --seconds 600 --target payload --target gzip
    python -m benchmarks.fuzz --replay fuzz-crashes/gzip-0123456789abcdef --target gzip

An input that breaks a target is kept in a file and its path is printed; the target is not run any further, and the exit
status is 1.
"""

import argparse
import hashlib
import importlib.util
import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from benchmarks.fuzzing.loop import Report, run
from benchmarks.fuzzing.target import Target
from benchmarks.fuzzing.targets import TARGETS

PROGRESS_SECONDS = 5.0
_EXECUTIONS = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_PULSE = re.compile(r"#(\d+)\s.*cov: (\d+)")


class Progress:
    """Prints a line now and then."""

    def __init__(self) -> None:
        self._next = time.monotonic() + PROGRESS_SECONDS

    def __call__(self, text: object) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PROGRESS_SECONDS
            print(text, flush=True)


def saved(directory: Path, target: str, data: bytes, why: str) -> str:
    """Keep an input; where it is, after saying so."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{target}-{hashlib.sha256(data).hexdigest()[:16]}"
    path.write_bytes(data)
    print(f"{why}\n{target}: an input breaks it, kept in {path}", flush=True)
    return str(path)


def mutated(target: Target, options: argparse.Namespace) -> Report:
    """A target in the loop of mutations."""
    return run(
        target,
        seconds=options.seconds,
        executions=options.runs,
        seed=options.seed,
        save=lambda name, data, why: saved(options.keep, name, data, why),
        progress=Progress(),
    )


def guided(target: Target, options: argparse.Namespace) -> Report:
    """A target under atheris, in a process of its own."""
    options.keep.mkdir(parents=True, exist_ok=True)
    before = set(options.keep.iterdir())
    report = Report(target.name, "atheris")
    seconds = str(max(1, round(options.seconds)))  # 0 would be for ever
    runs = "-1" if options.runs is None else str(options.runs)
    command = [sys.executable, "-m", "benchmarks.fuzzing.guided", target.name, seconds, runs, str(options.seed)]
    begun = time.monotonic()
    progress = Progress()
    rest: list[str] = []
    with subprocess.Popen(
        [*command, str(options.keep)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            report.seconds = time.monotonic() - begun
            if (pulse := _PULSE.match(line)) is not None:
                report.executions = int(pulse[1])
                progress(f"{report}, {pulse[2]} places reached")
            elif (end := _EXECUTIONS.match(line)) is not None:
                report.executions = int(end[1])
            else:
                rest = [*rest[-40:], line]
    kept = set(options.keep.iterdir()) - before
    report.crashes = sorted(str(path) for path in kept if "-slow-unit-" not in path.name)
    for path in report.crashes:
        print(f"{''.join(rest)}{target.name}: an input breaks it, kept in {path}", flush=True)
    if process.returncode and not report.crashes:
        report.crashes = [f"no input was kept, but the process ended with {process.returncode}"]
        print("".join(rest), flush=True)
    return report


def replay(target: Target, path: Path) -> int:
    """Run one kept input; a crash is a traceback."""
    print(f"{target.name}: {target.run(path.read_bytes())}")
    return 0


def options_of(arguments: list[str], targets: Mapping[str, Target]) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each target is run (default 60)")
    parser.add_argument("--runs", type=int, help="how many inputs each is run on, at most")
    parser.add_argument(
        "--target", action="append", choices=sorted(targets), help="which; may be given several times (default: all)"
    )
    parser.add_argument("--seed", type=int, default=1, help="from which the inputs follow (default 1)")
    parser.add_argument(
        "--engine", choices=("auto", "atheris", "mutations"), default="auto", help="what makes the inputs"
    )
    parser.add_argument("--keep", type=Path, default=Path("fuzz-crashes"), help="where inputs that break something go")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run one kept input, with one --target")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args(arguments)
    if not options.seconds > 0:
        parser.error("--seconds has to be more than 0")
    if options.replay is not None and len(options.target or []) != 1:
        parser.error("--replay needs the one --target that the input is for")
    has_atheris = importlib.util.find_spec("atheris") is not None
    if options.engine == "atheris" and not has_atheris:
        parser.error("atheris is not installed: pip install 'axcollector[fuzz]', or use --engine mutations")
    if options.engine == "auto":
        options.engine = "atheris" if has_atheris else "mutations"
    return options


def main(arguments: list[str] | None = None, known: Mapping[str, Target] = TARGETS) -> int:
    """Run the targets, print, judge."""
    options = options_of(sys.argv[1:] if arguments is None else arguments, known)
    targets = [known[name] for name in options.target or known]
    if options.replay is not None:
        return replay(targets[0], options.replay)
    reports = []
    for target in targets:
        report = guided(target, options) if options.engine == "atheris" else mutated(target, options)
        print(report, flush=True)
        reports.append(report)
    if options.json:
        options.json.write_text(json.dumps([asdict(report) for report in reports], indent=1))
    return 1 if any(report.crashes for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
