"""Where a loaded service's time goes: py-spy beside it, for the ingest benchmark's `--profile`.

py-spy looks at the service a few hundred times a second from a process of its own, and writes the stacks that it saw
with how often: one line a stack. That file opens in speedscope and feeds flamegraph.pl; here it becomes lists of
functions. A thread that waits for the interpreter counts as at work, unless only the one that holds it is looked at.
"""

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_LOOKS_A_SECOND = 250


@dataclass(frozen=True)
class Share:
    """A function's part of all that was seen.

    Attributes:
        name: The function, with its file.
        own: The share of looks that found it at work itself.
        total: The share of looks that found it, or what it had called.
    """

    name: str
    own: float
    total: float


def py_spy() -> str:
    """The program.

    Raises:
        SystemExit: It is not there.
    """
    beside = Path(sys.executable).with_name("py-spy")
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        raise SystemExit("--profile needs py-spy: pip install 'axcollector[profile]', or pip install py-spy")
    return found


class Profiling:
    """py-spy, looking at a process until it is told to end."""

    def __init__(self, pid: int, file: Path, seconds: float, cpu: int, *, holder_only: bool = False) -> None:
        # By function, not by line; a look that a busy process does not allow is none.
        command = [py_spy(), "record", "--function", "--nonblocking", "--format", "raw", "--output", str(file)]
        command += ["--rate", str(_LOOKS_A_SECOND), "--duration", str(max(1, round(seconds))), "--pid", str(pid)]
        command += ["--gil"] if holder_only else []
        self._popen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        os.sched_setaffinity(self._popen.pid, {cpu})
        self._file = file

    def shares(self) -> list[Share]:
        """What it saw, once it has ended.

        Raises:
            SystemExit: It saw nothing: it may not look at other processes here, for example.
        """
        output, _ = self._popen.communicate()
        if not self._file.exists():
            raise SystemExit(f"py-spy could not look at the service (does it need to be root?):\n{output}")
        return shares(self._file.read_text().splitlines())


def shares(lines: Iterable[str]) -> list[Share]:
    """Each function's shares, by its own time, the largest first; of stacks as py-spy writes them."""
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for line in lines:
        stack, _, times = line.rpartition(" ")
        names = stack.split(";")
        own[names[-1]] += int(times)
        for name in set(names):
            total[name] += int(times)
    looks = sum(own.values())
    return [
        Share(name, own[name] / looks, count / looks)
        for name, count in sorted(total.items(), key=lambda each: (-own[each[0]], -each[1], each[0]))
    ]


def tops(found: list[Share], count: int) -> Iterable[str]:
    """The functions with the most time of their own, then those in or below which most is spent, as lines."""
    yield "    own   total  function"
    for share in found[:count]:
        yield f"{share.own:7.1%} {share.total:7.1%}  {share.name}"
    yield "  total     own  function"
    for share in sorted(found, key=lambda share: -share.total)[:count]:
        yield f"{share.total:7.1%} {share.own:7.1%}  {share.name}"
