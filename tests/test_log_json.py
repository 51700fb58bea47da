"""`log_format: json`: what a line holds, and that every line of a process is one, whoever launches it."""

import enum
import io
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.application.service import Application
from twisted.internet.address import IPv4Address
from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    Logger,
    LogLevel,
    eventsFromJSONLogFile,
    formatEvent,
    formatEventAsClassicLogText,
    globalLogPublisher,
    jsonFileLogObserver,
)
from twisted.python import log as legacy
from twisted.scripts.twistd import ServerOptions

from axcollector.bugs import report
from axcollector.launch import Launched
from axcollector.log_format import in_format
from axcollector.log_json import json_observer, plain
from axcollector.tap import Options
from tests.test_process import Process, processes
from tests.test_supervised import LOCAL, Supervisor, supervisor
from tests.test_tap import TWIST, TWISTD, StandIn, environment, parsed
from tests.test_workers import Parent, prepared

__all__ = ["processes", "supervisor"]  # fixtures


class Log:
    """A log in memory, written as lines of JSON."""

    def __init__(self) -> None:
        self.file = io.StringIO()
        self.observer = json_observer(self.file)
        self.logger = Logger(namespace="axcollector.x", observer=self.observer)

    def lines(self) -> list[dict[str, Any]]:
        """What was written, read as any program would."""
        return read(self.file.getvalue())


def refuse(name: str) -> None:
    """There is no NaN in JSON."""
    raise ValueError(name)


def read(text: str) -> list[dict[str, Any]]:
    """Lines of JSON; all of the text is of them."""
    assert text.endswith("\n")
    assert text.isascii()
    return [json.loads(line, parse_constant=refuse) for line in text[:-1].split("\n")]


def test_a_line() -> None:
    """Its fields stand under their names, beside when, what and whose it is; a line feed in it is no new line."""
    log = Log()
    log.observer(
        {
            "log_time": 1480000080.25,
            "log_level": LogLevel.warn,
            "log_namespace": "axcollector.outcomes",
            "log_format": "{bucket} of {bytes} bytes, {seconds:.1f} s",
            "bucket": "acme~prod\n×",
            "bytes": 7,
            "seconds": 0.25,
            "log_logger": log.logger,
        }
    )
    (line,) = log.lines()
    level = line.pop("log_level")
    assert level["name"] == "warn"
    assert line == {
        "time": "2016-11-24T15:08:00.250000Z",
        "level": "warn",
        "namespace": "axcollector.outcomes",
        "event": "{bucket} of {bytes} bytes, {seconds:.1f} s",
        "text": "acme~prod\n× of 7 bytes, 0.2 s",
        "bucket": "acme~prod\n×",
        "bytes": 7,
        "seconds": 0.25,
        "log_time": 1480000080.25,
        "log_namespace": "axcollector.outcomes",
        "log_format": "{bucket} of {bytes} bytes, {seconds:.1f} s",
    }


def test_twisted_reads_it() -> None:
    """Its own reader makes events of it that say the same, at the same time, of the same level."""
    log = Log()
    log.logger.error("{bucket} is {name!r}, {share:.2f}", bucket="b", name="it's", share=1 / 3)
    log.file.seek(0)
    (event,) = eventsFromJSONLogFile(log.file)
    assert formatEvent(event) == 'b is "it\'s", 0.33'
    assert event["log_level"] is LogLevel.error
    assert "[axcollector.x#error] b is" in (formatEventAsClassicLogText(event) or "")


def test_failures() -> None:
    """The traceback is a text beside what happened, without the secrets that the text log does not have either."""
    log = Log()
    secret = "https://u:hush@example.com/?token=hush"
    try:
        raise ValueError(secret)
    except ValueError:
        report(log.logger, "it met a {what}", what="bug")
    (line,) = log.lines()
    assert (line["level"], line["text"], line["what"]) == ("critical", "it met a bug", "bug")
    assert line["traceback"].startswith("Traceback ")
    assert "://example.com/?…" in line["traceback"]
    assert "hush" not in log.file.getvalue()


class Odd:
    """What does not say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no")


class Kind(enum.Enum):
    """A closed set."""

    ONE = 1


def test_values() -> None:
    """What JSON has stays as it is; the rest is text, whatever it is."""
    address = IPv4Address("TCP", "127.0.0.1", 1)
    kept = {"s": "x", "i": -3, "f": 1.5, "t": True, "n": None, "l": [1, "a"], "d": {"k": [2]}}
    assert plain(kept) == kept
    assert plain((address, {Kind.ONE: {5}})) == [str(address), {"Kind.ONE": [5]}]
    assert plain([2**63, -(2**63), float("nan"), float("inf")]) == [str(2**63), -(2**63), "nan", "inf"]
    assert plain([b"a\xff", "\udc80"]) == ["a\\xff", "\\udc80"]
    assert plain(Odd()) == "(Odd, which cannot be told: RuntimeError)"
    circle: list[object] = []
    circle.append(circle)
    assert plain(circle) == [[[["[[...]]"]]]]


@settings(max_examples=15)
@given(st.dictionaries(st.text(), st.recursive(st.text() | st.floats() | st.binary() | st.integers(), st.lists)))
def test_any_fields(fields: dict[str, Any]) -> None:
    """Whatever an event holds, under whatever names, it is one line."""
    log = Log()
    log.observer({**fields, "log_format": "an event", "log_time": 1.0, "log_level": LogLevel.info})
    (line,) = log.lines()
    assert (line["text"], line["level"], line["time"]) == ("an event", "info", "1970-01-01T00:00:01.000000Z")


def test_events_of_others() -> None:
    """Old-style messages, what is printed, times that are none, and failures that do not speak have lines too."""
    log = Log()
    globalLogPublisher.addObserver(log.observer)
    legacy.msg("an old message", system="x")
    globalLogPublisher.removeObserver(log.observer)
    log.observer({"log_format": "{log_io}", "log_io": "printed", "log_time": 1e30})
    log.observer({"log_format": "lost", "log_failure": Odd()})
    first, second, third = log.lines()
    assert (first["text"], second["text"], second["time"], third["time"]) == ("an old message", "printed", None, None)
    assert third["traceback"] == "(its traceback cannot be told: AttributeError)"
    log.file.seek(0)
    assert [formatEvent(event) for event in eventsFromJSONLogFile(log.file)] == ["an old message", "printed", "lost"]


def launcher(*options: str) -> Options:
    """Our options, below those of twistd."""
    ours = parsed()
    ours.parent = ServerOptions()
    ours.parent.parseOptions([*options, "-n"])
    return ours


@pytest.mark.parametrize("option", ["--logger=twisted.logger.textFileLogObserver", "--syslog"])
def test_where_others_write_the_log(option: str) -> None:
    """What twistd is told on its command line to write the log with does so."""
    application = Application("axcollector")
    in_format("json", launcher(option))(application)
    assert application.getComponent(ILogObserver, None) is None


def test_the_observer_of_a_launcher() -> None:
    """It is set when the service joins the application, and only for JSON; without a launcher nothing is."""
    for log_format, kind in (("json", FileLogObserver), ("text", type(None))):
        application = Application("axcollector")
        join = in_format(log_format, launcher())
        Launched("axcollector", StandIn(), lambda: None, join).setServiceParent(application)
        assert type(application.getComponent(ILogObserver, None)) is kind
    application = Application("axcollector")
    in_format("json", parsed())(application)
    in_format("json", launcher())(object())
    assert application.getComponent(ILogObserver, None) is None


def test_the_factory_of_twist() -> None:
    """`python -m twisted` has it among its options."""
    ours = parsed()
    ours.parent = {"fileLogObserverFactory": jsonFileLogObserver}  # type: ignore[assignment]  # as ours are
    in_format("json", ours)(Application("axcollector"))
    assert ours.parent == {"fileLogObserverFactory": json_observer}


@pytest.fixture
def daemon(supervisor: Supervisor, tmp_path: Path) -> Iterator[int]:
    """The process id of a daemon that logs JSON to `log`, and whose configuration is `axcollector.yaml`."""
    (tmp_path / "axcollector.yaml").write_text(f"log_format: json\nlisten: {LOCAL}\nadmin_listen:\n")
    options = [f"--pidfile={tmp_path}/pid", f"--logfile={tmp_path}/log"]
    subprocess.run(
        [*TWISTD, *options, "axcollector", "--config", "axcollector.yaml"],
        cwd=tmp_path,
        env={**environment(), "NOTIFY_SOCKET": str(tmp_path / "notify")},
        timeout=60,
        check=True,
    )
    supervisor.hears("READY=1")
    pid = int((tmp_path / "pid").read_text())
    yield pid
    os.kill(pid, signal.SIGTERM)
    supervisor.hears("STOPPING=1")


def test_a_daemon(daemon: int, supervisor: Supervisor, tmp_path: Path) -> None:
    """Each line of its log file, the first included, is one event; SIGHUP goes on in a new file, in JSON."""
    lines = read((tmp_path / "log").read_text())
    assert "starting up" in lines[0]["text"]
    (listening,) = (line for line in lines if line["event"] == "{name}: listening on {address}")
    assert (listening["name"], listening["level"]) == ("listen", "info")
    (tmp_path / "log").rename(tmp_path / "log.old")
    (tmp_path / "axcollector.yaml").write_text("log_format: nonsense\n")
    supervisor.reload(daemon)
    reopened, refused = read((tmp_path / "log").read_text())
    assert reopened["path"] == str(tmp_path / "log")
    assert refused["level"] == "error"
    assert refused["problem"].startswith("log_format: 'nonsense' is not allowed")
    assert len(read((tmp_path / "log.old").read_text())) >= len(lines)


class ParentInJson(Parent):
    """A service of two workers that logs JSON."""

    command: ClassVar = [*TWISTD, "-n", "--pidfile=", "axcollector", "--log-format", "json"]


@pytest.mark.slow
def test_workers(tmp_path: Path, processes: list[Process]) -> None:
    """Under `twistd -n`; events of workers keep their fields, and say whose they are."""
    prepared(tmp_path)
    parent = ParentInJson(tmp_path).started()
    processes.append(parent)
    _, text = parent.end()
    lines = read(text)
    built = [line for line in lines if line["event"].startswith("catalog built from {path}") and "worker" in line]
    assert {line["worker"] for line in built} == {0, 1}
    registry = str(tmp_path / "axcollector-data" / "registry.db")
    assert all(line["path"] == registry and line["namespace"].startswith("axcollector.sync") for line in built)
    assert all(line["text"].startswith(f"worker {line['worker']}: catalog built from") for line in built)


@pytest.mark.parametrize("program", ["axcollector", pytest.param("axsigner", marks=pytest.mark.slow)])
def test_python_m_twisted(supervisor: Supervisor, tmp_path: Path, program: str) -> None:
    """It writes lines without the record separators of its own JSON; so does the signing service."""
    options = ["--admin-listen", ""] if program == "axcollector" else ["--s3-url", "s3://bucket"]
    process = supervisor.run(*TWIST, program, "--log-format", "json", "--listen", LOCAL, *options)
    supervisor.hears("READY=1")
    text = supervisor.end(process)
    assert "listen" in {line.get("name") for line in read(text)}
