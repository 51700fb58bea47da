"""The order of the real service's system calls: nothing is answered or deleted before what it stands on is durable.

A kill cannot show this, because the kernel's cache survives it. So the service runs under `strace`: it takes a few
requests and is killed; a second one takes over what is left, takes more requests, closes an interval and delivers. What
is then read from the trace is what the kernel was told, whatever our own classes say.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.test_process import ROOT, Process, add_scope, batch

STRACE: Final = [
    *("strace", "-f", "-y", "-s", "40", "-e", "signal=none"),
    *("-e", "trace=openat,write,sendto,sendmsg,fsync,fdatasync,?rename,?renameat,?renameat2,?unlink,unlinkat,"),
]
STRACE[-1] += "?rmdir,?mkdir,mkdirat"
REQUESTS: Final = 3


@cache
def lack() -> str:
    """Why no process can be traced here, or nothing."""
    if shutil.which("strace") is None:
        return "there is no strace"
    tried = subprocess.run([*STRACE, "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else f"strace may not trace: {tried.stderr.strip()}"


pytestmark = [pytest.mark.slow, pytest.mark.skipif("lack()", reason="strace is missing or not permitted")]


class TracedProcess(Process):
    """The service under strace."""

    def __init__(self, directory: Path, trace: Path, *options: str) -> None:
        self.directory = directory
        self.trace = trace
        self.lines = []
        command = [sys.executable, "-m", "twisted", "--log-format=text", "axcollector", "--admin-listen", ""]
        self.popen = subprocess.Popen(
            [*STRACE, "-o", str(trace), *command, "--listen", "tcp:0:interface=127.0.0.1", *options],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.watch()

    def send(self, number: signal.Signals) -> None:
        """Send the service itself a signal; strace ends with it, when it has written everything."""
        with self.trace.open() as file:
            os.kill(int(file.readline().split()[0]), number)

    def kill(self) -> None:
        """End it at once."""
        self.send(signal.SIGKILL)

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Exit status and all that it logged."""
        self.send(number)
        rest, _ = self.popen.communicate(timeout=60)
        self.watchdog.cancel()
        return self.popen.returncode, "".join(self.lines) + rest


@dataclass(frozen=True)
class Call:
    """A system call that succeeded.

    Attributes:
        name: Which, told by its oldest form: `unlink` for `unlinkat`.
        path: What it was done to; of a rename, the source.
        target: Of a rename, the target.
        text: All that strace wrote of it.
        begun: The number of the line of the trace at which it began.
        ended: Likewise, ended.
    """

    name: str
    path: str
    target: str
    text: str
    begun: int
    ended: int


_LINE: Final = re.compile(r"(?P<pid>\d+) +(?:<\.\.\. \w+ resumed>(?P<rest>.*)|(?P<name>\w+)\((?P<start>.*))")
_DESCRIPTOR: Final = re.compile(r"\d+<([^>]*)>")
_STRING: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
_NAMES: Final = {"renameat": "rename", "renameat2": "rename", "unlinkat": "unlink", "mkdirat": "mkdir"}
_BY_PATH: Final = frozenset({"openat", "rename", "unlink", "rmdir", "mkdir"})


def calls_of(trace: str) -> Iterator[Call]:
    """The calls that succeeded, in the order in which they ended; those of other threads may stand in between."""
    begun: dict[str, tuple[int, str, str]] = {}
    for number, line in enumerate(trace.splitlines()):
        match = _LINE.match(line)
        if match is None:
            continue
        if match["name"]:
            begun[match["pid"]] = number, match["name"], match["start"].removesuffix("<unfinished ...>")
        if line.endswith("<unfinished ...>"):
            continue
        first, name, text = begun.pop(match["pid"])
        text += match["rest"] or ""
        if re.search(r"\) += \d", text):
            yield _call(name, text, first, number)


def _call(name: str, text: str, first: int, last: int) -> Call:
    name = "rmdir" if "AT_REMOVEDIR" in text else _NAMES.get(name, name)
    paths = (_STRING if name in _BY_PATH else _DESCRIPTOR).findall(text)
    return Call(name, paths[0] if paths else "", paths[1] if name == "rename" else "", text, first, last)


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[Call]:
    """What two processes asked of the kernel: one that is killed, and its successor."""
    directory = tmp_path_factory.mktemp("traced")
    (directory / "axcollector-data").mkdir(mode=0o700)
    scope = add_scope(directory)
    traces = [directory / "first", directory / "second"]
    settings = [["--collection-interval", "3600"], ["--collection-interval", "2", "--upload-interval", "0.1"]]
    for number, (trace, options) in enumerate(zip(traces, settings, strict=True)):
        process = TracedProcess(directory, trace, *options)
        try:
            process.started()
            for i in range(REQUESTS):
                assert process.post(f"/analytics/{scope}", batch(10 * (REQUESTS * number + i), 3))[0] == 200
            # The client may have the last answer before its `sendto` has returned; a kill then would leave that call
            # unfinished in the trace. Once a further request is answered, it has returned.
            assert process.post("/nowhere", b"")[0] == 404
            process.wait_for_lines("delivered", 2 * number)  # what was recovered, and what was taken
        finally:
            process.end(signal.SIGTERM if number else signal.SIGKILL)
    return list(calls_of("\n".join(trace.read_text() for trace in traces)))


def lasting(calls: list[Call], path: str, after: int, before: int) -> bool:
    """Whether a file or directory was synced between two lines of the trace."""
    syncs = [call for call in calls if call.name in {"fsync", "fdatasync"} and call.path == path]
    return any(after < sync.begun and sync.ended < before for sync in syncs)


def created(calls: list[Call]) -> list[Call]:
    """What made a directory, or a file that was not there."""
    return [call for call in calls if call.name == "mkdir" or (call.name == "openat" and "O_EXCL" in call.text)]


def written(calls: list[Call], part: str) -> list[Call]:
    """What wrote to a file that has this in its path."""
    return [call for call in calls if call.name == "write" and part in call.path]


def unsynced_content(calls: list[Call], path: str, before: int) -> list[str]:
    """What was written to a file and not made durable before a line of the trace."""
    writes = [call for call in written(calls, path) if call.path == path and call.ended < before]
    return [call.text for call in writes if not lasting(calls, path, call.ended, before)]


def unsynced(calls: list[Call], path: str, before: int) -> list[str]:
    """The same of a file's content, its name, and the names of the directories above it."""
    made = [call for call in created(calls) if f"{path}/".startswith(f"{call.path}/") and call.ended < before]
    names = [call.text for call in made if not lasting(calls, os.path.dirname(call.path), call.ended, before)]
    return names + unsynced_content(calls, path, before)


def test_answers_come_after_syncs(calls: list[Call]) -> None:
    """Before each 200: fsyncs of the journal since it was written, of its directory since it was made, and above."""
    answers = [call for call in calls if call.name in {"sendto", "sendmsg", "write"} and '"HTTP/1.1 200' in call.text]
    writes = written(calls, ".journal")
    assert len(answers) == len(writes) == 2 * REQUESTS
    for answer, write in zip(answers, writes, strict=True):
        assert write.ended < answer.begun
        assert unsynced(calls, write.path, answer.begun) == []


def test_names_are_counted_before_they_are_used(calls: list[Call]) -> None:
    """The instance's id and the count of starts are durable before the first journal has them in its name."""
    first, second, *_ = (call for call in created(calls) if call.path.endswith(".journal"))
    renames = [call for call in calls if call.name == "rename" and os.path.dirname(call.path).endswith("-data")]
    assert [os.path.basename(call.target) for call in renames] == ["instance_id", "starts", "starts"]
    for rename, journal in zip(renames, (first, first, second), strict=True):
        assert unsynced_content(calls, rename.path, rename.begun) == []
        assert lasting(calls, os.path.dirname(rename.target), rename.ended, journal.begun)


def test_journals_go_after_syncs(calls: list[Call]) -> None:
    """Before each journal's unlink: fsyncs of all that replaces it; after it, one before that moves."""
    unlinks = [call for call in calls if call.name == "unlink" and ".journal" in call.path]
    assert {os.path.basename(os.path.dirname(call.path)) for call in unlinks} == {"tmp", "recovered"}
    for unlink in unlinks:
        split = unlink.path.replace(".journal", ".split")
        files = {call.path for call in written(calls, f"{split}/")}
        assert files
        assert [line for path in files for line in unsynced(calls, path, unlink.begun)] == []
        moves = [call for call in calls if call.name == "rename" and call.path.startswith(f"{split}/")]
        assert moves
        assert all(lasting(calls, os.path.dirname(unlink.path), unlink.ended, move.begun) for move in moves)


def test_staged_files_go_after_syncs(calls: list[Call]) -> None:
    """Before a delivered file's unlink: fsyncs of its copy in the store, and of the directories above that."""
    unlinks = [call for call in calls if call.name == "unlink" and "/staging/" in call.path]
    assert len(unlinks) >= 2
    for unlink in unlinks:
        name = os.path.basename(unlink.path)
        (move,) = (call for call in calls if call.name == "rename" and call.path.endswith(f"/{name}.new"))
        assert "/axcollector-data/store/" in move.target
        assert unsynced_content(calls, move.path, move.begun) == []
        assert lasting(calls, os.path.dirname(move.target), move.ended, unlink.begun)
        assert unsynced(calls, move.path, unlink.begun) == []
