"""What the documentation shows: settings can be used, JSON and Python can be read, and commands do what it says."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from axcollector.config import KEYS, Config
from axcollector.signer.config import SIGNER_KEYS, SignerConfig
from tests.docs_blocks import PAGES, Block, blocks, blocks_of_all, shows
from tests.test_process import ROOT

ENOUGH_SECONDS = 120


def ident(block: Block) -> str:
    """A block's page and beginning."""
    return f"{block.page}: {block.text[:40]!r}"


OURS = [block for block in blocks_of_all("yaml") if "scrape_configs:" not in block.text]
"""What is not Prometheus' (test_metrics)."""


@pytest.mark.parametrize("block", OURS, ids=ident)
def test_settings(block: Block) -> None:
    """They can be used as they stand, by the service whose page it is."""
    values = yaml.safe_load(block.text)
    if set(values) <= set(SIGNER_KEYS) and not set(values) <= set(KEYS):
        SignerConfig(**values)
    else:
        Config(**values)


def test_json() -> None:
    """What is shown as JSON is JSON: one value, or one a line."""
    found = blocks_of_all("json")
    assert len(found) >= 3
    for block in found:
        try:
            json.loads(block.text)
        except ValueError:
            assert all(isinstance(json.loads(line), dict) for line in block.text.splitlines()), block


def test_python() -> None:
    """What is shown as Python can be compiled."""
    found = blocks_of_all("python")
    assert found != []
    for block in found:
        compile(block.text, block.page, "exec")


def test_links_between_pages() -> None:
    """Every page but the first is in the list of pages, in a place of its own choosing."""
    lines = [line.strip() for line in (ROOT / "docs" / "index.rst").read_text().splitlines()]
    assert {page.removesuffix(".rst") for page in PAGES} - set(lines) == {"index"}


def test_what_is_named_is_there() -> None:
    """Tests, benchmarks, decisions and files that a page names."""
    tests = {path.stem: path.read_text() for path in (ROOT / "tests").glob("*.py")}
    missing = []
    for page in PAGES:
        text = (ROOT / "docs" / page).read_text()
        for module, name in re.findall(r"``(test_\w+)(?:\.py)?(?:::(\w+))?``", text):
            found = f"def {name}(" in tests[module] if module in tests and name else module in tests
            missing += [] if found or f"def {module}(" in "".join(tests.values()) else [(page, module, name)]
        for name in re.findall(r"benchmarks\.(\w+)", text):
            missing += [] if list((ROOT / "benchmarks").glob(f"{name}*")) else [(page, "benchmarks", name)]
        for name in re.findall(r"[Dd]ecision (\d{4})", text):
            missing += [] if list((ROOT / "docs" / "decisions").glob(f"{name}-*")) else [(page, "decision", name)]
        for name in re.findall(r"``((?:docs|tests|axcollector|benchmarks)/[\w./-]+)``", text):
            missing += [] if (ROOT / name).exists() else [(page, "file", name)]
    assert missing == []


def test_what_is_shown() -> None:
    """The comparison takes what it should, and nothing else."""
    assert shows("a … c\n", "x\na   b\n c")
    assert shows('{"n":1,…}', '{"n":1,"m":2}')
    assert not shows("a c", "a b c")
    assert not shows('{"n":1,…}', '{"n":12}')


class Shell:
    """A shell that goes on from block to block, as a person's does; and a second one, which runs the service."""

    def __init__(self, directory: Path, ports: dict[str, str]) -> None:
        self.directory = directory
        self.ports = {**ports, "/tmp/axcollector-tutorial": str(directory / "tutorial")}
        commands = directory / "bin"
        commands.mkdir()
        here = {
            "axcollector": "from axcollector.cli import main; main()",
            "twistd": "from twisted.scripts.twistd import run; run()",
        }
        for name, code in here.items():
            (commands / name).write_text(f"#!{sys.executable}\nimport sys; sys.argv[0] = {name!r}\n{code}\n")
            (commands / name).chmod(0o755)
        (commands / "python3").symlink_to(sys.executable)
        self.environment = {
            **os.environ,
            "PATH": f"{commands}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
        }
        self.shell = self.start(["bash"], cwd=directory)
        self.service: subprocess.Popen[str] | None = None
        self.reader = threading.Thread(target=lambda: self.service.stdout.read(), daemon=True)
        self.watchdog = threading.Timer(ENOUGH_SECONDS, self.kill)
        self.watchdog.daemon = True
        self.watchdog.start()

    def start(self, command: list[str], cwd: Path) -> "subprocess.Popen[str]":
        """A process of its own."""
        return subprocess.Popen(
            command, cwd=cwd, env=self.environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def here(self, text: str) -> str:
        """A block, with ports and a directory that nobody else has."""
        for name, own in self.ports.items():
            text = text.replace(name, own)
        return text

    def run(self, text: str) -> str:
        """What a block prints; its last command has to succeed."""
        assert self.shell.stdin is not None
        assert self.shell.stdout is not None
        self.shell.stdin.write(f'{self.here(text)}\necho "=== $?"\n')
        self.shell.stdin.flush()
        out = ""
        for line in self.shell.stdout:
            if "=== " in line:
                # An answer need not end in a line end.
                before, _, status = line.partition("=== ")
                assert status == "0\n", out + line
                return out + before
            out += line
        raise AssertionError(out)

    def serve(self, text: str) -> None:
        """Run a block in the second shell, until it takes records."""
        self.service = self.start(["bash", "-c", f"exec {self.here(text)}"], cwd=self.directory / "tutorial")
        assert self.service.stdout is not None
        log = ""
        for line in self.service.stdout:
            log += line
            if "catalog built" in log and "takes records at" in log:
                self.reader.start()
                return
        raise AssertionError(log)

    def interrupt(self) -> int:
        """Ctrl-C in the second shell; how the service ended."""
        assert self.service is not None
        self.service.send_signal(signal.SIGINT)
        return self.service.wait(60)

    def kill(self) -> None:
        """End what is left."""
        self.watchdog.cancel()
        for process in filter(None, (self.shell, self.service)):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if self.reader.is_alive() and process is self.service:
                self.reader.join()
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(OSError, ValueError):  # the other end is gone, or it is being read
                    stream.close()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A person's two terminals."""
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        ports = {"9000": str(one.getsockname()[1]), "9001": str(two.getsockname()[1])}
    made = Shell(tmp_path, ports)
    yield made
    made.kill()


@pytest.mark.slow
def test_the_tutorial(shell: Shell) -> None:
    """Followed word for word, but for its ports and its place, it does what it says; then the examples of HTTP do.

    How it is installed is shown by `test_wheel`, and by CI, which begins so.
    """
    install, *steps = blocks("tutorial.rst", "sh", "text")
    assert install.text.splitlines() == ["python3 -m venv .venv", ". .venv/bin/activate", "pip install . duckdb"]
    printed, compared = "", 0
    *steps, last = steps
    for language, text, _ in steps:
        if language == "text":
            assert shows(shell.here(text), printed), printed
            compared += 1
        elif text.startswith("twistd"):
            shell.serve(text)
        else:
            printed = shell.run(text)
    assert compared >= 8
    examples = blocks("http-api.rst", "sh")
    assert len(examples) >= 3
    shell.run(examples[0].text.partition("\n")[0])
    for example in examples:
        rest = example.text.partition("\n")[2] if example is examples[0] else example.text
        deadline = time.monotonic() + 60
        while '"errorCode":"UNKNOWN_SCOPE"' in (printed := shell.run(rest)):  # it sees a new one within two seconds
            assert time.monotonic() < deadline, printed
        if "records" in example.text:
            assert printed.count('{"accepted": 1, "rejected": 0}') == example.text.count("curl"), printed
    assert shell.interrupt() in {0, -signal.SIGINT}
    shell.run(last.text)
    assert not (shell.directory / "tutorial").exists()


def test_one_last_table() -> None:
    """The README of the benchmarks and the page on performance show the same table of the same commit."""
    readme, page = ((ROOT / path).read_text() for path in ("benchmarks/README.md", "docs/performance.rst"))
    table = re.compile(r"^ +records/req  coding   pack .*\n(?: +\d.*\n)+", re.MULTILINE)
    (shown,) = table.findall(page)
    assert table.findall(readme) == [shown]
    (commit,) = re.findall(r"``python -m benchmarks.ingest``, (\S+, commit \w+):", page)
    assert f"The last table, of {commit} " in readme
