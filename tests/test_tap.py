"""Launching: the command line, the service of a process of its own, and every way in which it cannot start."""

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from twisted.application.service import IService, Service
from twisted.internet import defer
from twisted.internet.error import CannotListenError
from twisted.logger import LogEvent, LogLevel, formatEvent

from axcollector import __version__
from axcollector.admin.access import AdminSite
from axcollector.assembly import assemble
from axcollector.config import KEYS, Config
from axcollector.config_file import Loaded
from axcollector.core.errors import ConfigError, DirectoryInUse
from axcollector.launch import CannotStart
from axcollector.tap import Options, checked, launched, makeService
from tests.fakes import result_of
from tests.wire import Connection, request

ROOT: Final = Path(__file__).parent.parent
TWISTD: Final = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
TWIST: Final = [sys.executable, "-m", "twisted"]


def parsed(*arguments: str) -> Options:
    """The options of a command line."""
    options = Options()
    options.parseOptions(list(arguments))
    return options


def test_options_are_settings() -> None:
    """Each option overrides its key; `--listen` may be repeated, and underscores are fine."""
    options = parsed(
        "--config", "f.yaml", "--collection-interval", "60", "--close_grace=1", "--listen", "tcp:1", "--listen=tcp:2"
    )
    assert options["config"] == "f.yaml"
    assert options.overrides() == {"listen": ["tcp:1", "tcp:2"], "collection_interval": "60", "close_grace": "1"}


def test_without_options_nothing_is_overridden() -> None:
    """The defaults are the configuration's, not the command line's."""
    options = parsed()
    assert options["config"] is None
    assert options.overrides() == {}


def test_help_shows_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` lists all options with what they are for, and an example; secrets are no options."""
    with pytest.raises(SystemExit) as caught:
        parsed("--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "twistd -n axcollector --config axcollector.yaml --collection-interval 60" in text
    words = " ".join(text.split())  # lines are broken where the screen ends
    assert "--collection-interval= how long an interval is (s; default 120)" in words
    for key in KEYS.values():
        assert (f"--{key.name.replace('_', '-')}=" in text) is not key.secret
        assert key.secret or key.description in " ".join(text.split())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` tells ours."""
    with pytest.raises(SystemExit) as caught:
        parsed("--version")
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"axcollector {__version__}\n"


def test_options_default_to_the_process_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without arguments those of the process are parsed, as Twisted does."""
    monkeypatch.setattr(sys, "argv", ["twistd", "--sync", "none"])
    options = Options()
    options.parseOptions()
    assert options.overrides() == {"sync": "none"}


def cannot_start(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a command line ends with."""
    with pytest.raises(CannotStart) as caught:
        makeService(parsed(*arguments))
    assert caught.value.code == 1
    output = capfd.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert output.err.startswith("axcollector cannot start: ")
    return output.err.removeprefix("axcollector cannot start: ").rstrip("\n")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ["--colection-interval", "5"],
            "option --colection-interval not recognized; the nearest is --collection-interval",
        ),
        (["-x"], "option -x not recognized"),
        (["--collection-interval"], "option --collection-interval requires argument"),
        (["extra"], "Wrong number of arguments"),
        (["--bearer-token", "hush"], "bearer_token is a secret"),
        (["--bearer_token=hush"], "bearer_token is a secret"),
        (["--admin-token=hush"], "admin_token is a secret"),
        (["--collection-interval", "0"], "collection_interval: '0' is not allowed"),
        (["--listen", "tcp:1", "--listen", "axtls:2"], "listen: axtls: certificate is missing; allowed is axtls:PORT:"),
        (["--admin-listen", "tcp:9001"], "admin_token is missing; it is needed because admin_listen, 'tcp:9001', may"),
        (["--listen", "nonsense:1"], "listen: 'nonsense:1' is no endpoint that can be used"),
        (["--config", "/none.yaml"], "the configuration file /none.yaml cannot be read"),
    ],
)
def test_command_lines_that_cannot_be_used(
    capfd: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    """They end in one line on stderr and status 1, and never show a secret."""
    line = cannot_start(capfd, *arguments)
    assert complaint in line
    assert "hush" not in line


class StandIn(Service):
    """A service that starts, unless it is to fail."""

    def __init__(self, problem: Exception | None = None) -> None:
        self.problem = problem
        self.stopping: defer.Deferred[None] = defer.Deferred()

    def startService(self) -> None:
        """Start or fail."""
        if self.problem is not None:
            raise self.problem
        super().startService()

    def stopService(self) -> "defer.Deferred[None]":
        """Take until told."""
        super().stopService()
        return self.stopping


def test_a_launched_service_says_what_it_runs_with(log_events: list[LogEvent]) -> None:
    """One line says where records are taken and where they go; notes come before it; no secret is in them."""
    here = ["tcp:1:interface=127.0.0.1", "unix:/s"]
    config = Config(local_storage_path="/d", listen=here, bearer_token="hush", max_connections=1)
    service = StandIn()
    process = launched(service, Loaded(config, ("a note",)))
    process.startService()
    assert service.running
    assert [formatEvent(event) for event in log_events] == [
        "a note",
        f"axcollector {__version__} takes records at {', '.join(here)}; data in /d/ax; files go to file:/d/store",
    ]
    stopped = process.stopService()
    assert not service.running
    assert not stopped.called
    service.stopping.callback(None)
    result_of(stopped)


def test_fewer_connections_than_wanted(log_events: list[LogEvent]) -> None:
    """Where the process may open fewer files than there may be connections, a line says how many there may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1000, hard))
    try:
        launched(StandIn(), Loaded(Config(local_storage_path="/d", max_connections=745), ())).startService()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [formatEvent(event) for event in log_events][1:] == [
        (
            "744 clients may be connected, not 745 (max_connections), because this process may open 1000 files only:"
            " see LimitNOFILE= of systemd, or ulimit -n"
        )
    ]


@pytest.mark.parametrize(
    ("listen", "warned"),
    [
        ("tcp:9001", True),
        ("systemd:domain=INET:name=admin", True),
        ("systemd:domain=UNIX:name=admin", False),
        ("axtls:9001:certificate=c:key=k", False),
        ("tcp:9001:interface=127.0.0.1", False),
        ("unix:/run/admin.sock", False),
        ("", False),
    ],
)
def test_an_admin_token_in_the_clear(log_events: list[LogEvent], listen: str, warned: bool) -> None:
    """A port that takes the token from other machines without TLS gets one warning, which says what to do."""
    launched(StandIn(), Loaded(Config(admin_listen=listen, admin_token="hush"))).startService()
    *warnings, _ = (str(formatEvent(event)) for event in log_events)
    remedy = "listen on axtls:PORT:certificate=…:key=…, or listen on interface=127.0.0.1 or unix: only"
    expected = f"without TLS others can read the admin token sent to {listen}; {remedy}"
    assert warnings == [expected] * warned
    assert "hush" not in str(log_events)


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (DirectoryInUse("/d/lock", 7), "process 7 already works in this data directory (lock file /d/lock);"),
        (PermissionError(13, "Permission denied", "/d"), "/d: Permission denied"),
        (OSError("some\nthing"), "some thing"),
        (CannotListenError("127.0.0.1", 80, OSError("in use")), "Couldn't listen on 127.0.0.1:80: in use."),
    ],
)
def test_services_that_cannot_start(capfd: pytest.CaptureFixture[str], problem: Exception, line: str) -> None:
    """What keeps a service from starting is said in one line on stderr, and ends the process with status 1."""
    process = launched(StandIn(problem), Loaded(Config()))
    with pytest.raises(CannotStart) as caught:
        process.startService()
    assert caught.value.code == 1
    assert not process.running
    error = capfd.readouterr().err
    assert error.startswith(f"axcollector cannot start: {line}")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"listen": ["tcp:1", "tcp:2"]}, 1),
        ({"listen": ["tcp:1"], "ingest_auth": "token"}, 1),
        ({"listen": ["tcp:1"], "admin_listen": "tcp:2", "admin_token": "hush"}, 1),
        ({"listen": ["ssl:1:privateKey=k"]}, 1),
        ({"listen": ["ssl:1:privateKey=k"], "ingest_auth": "token"}, 0),
        ({}, 0),
    ],
)
def test_it_says_where_others_can_get_in(log_events: list[LogEvent], settings: dict[str, Any], count: int) -> None:
    """One warning, when it starts, where it can be reached from other machines without tokens or TLS."""
    launched(StandIn(), Loaded(Config(**settings))).startService()
    warnings = [formatEvent(event) for event in log_events if event["log_level"] is LogLevel.warn]
    assert len(warnings) == count
    assert all("ingest_auth: token" in each or "axtls:" in each for each in warnings)


def test_bugs_are_not_hidden() -> None:
    """What nobody foresaw keeps its traceback."""
    with pytest.raises(ZeroDivisionError):
        launched(StandIn(ZeroDivisionError()), Loaded(Config())).startService()


def test_making_a_service_touches_nothing(tmp_path: Path) -> None:
    """`makeService` reads the configuration and does nothing else."""
    file = tmp_path / "axcollector.yaml"
    file.write_text(f"local_storage_path: {tmp_path}/data\nlisten: tcp:0\nadmin_listen:\n")
    service = makeService(parsed("--config", str(file)))
    assert IService.providedBy(service)
    assert os.listdir(tmp_path) == ["axcollector.yaml"]


def environment() -> dict[str, str]:
    """That of the tests, with the checkout on the path."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def ended(directory: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    """A command that has ended by itself; no pid file is left of it."""
    result = subprocess.run(
        command, cwd=directory, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert not (directory / "twistd.pid").exists()
    assert "Traceback" not in result.stdout + result.stderr
    return result


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port of this machine that somebody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.parametrize("launcher", [[*TWISTD, "-n"], TWIST], ids=["twistd", "twist"])
def test_processes_that_cannot_start(tmp_path: Path, launcher: list[str], taken_port: int) -> None:
    """A wrong option, a wrong value and a port that is taken all end in one line and status 1."""
    listen = f"tcp:{taken_port}:interface=127.0.0.1"
    for arguments, complaint in (
        (["--nonsense"], "option --nonsense not recognized"),
        (["--workers", "many"], "workers: 'many' is not allowed"),
        (["--listen", listen, "--admin-listen", ""], f"Couldn't listen on 127.0.0.1:{taken_port}"),
    ):
        result = ended(tmp_path, *launcher, "axcollector", *arguments)
        assert (result.returncode, result.stderr.count("\n")) == (1, 1)
        assert result.stderr.startswith(f"axcollector cannot start: {complaint}")


def test_a_daemon_that_cannot_start(tmp_path: Path, taken_port: int) -> None:
    """A daemon tells the shell that started it, and writes the whole reason to its log."""
    listen = f"tcp:{taken_port}:interface=127.0.0.1"
    result = ended(tmp_path, *TWISTD, "axcollector", "--listen", listen)
    assert result.returncode == 1
    assert f"CannotStart: Couldn't listen on 127.0.0.1:{taken_port}" in result.stderr
    assert f"cannot start: Couldn't listen on 127.0.0.1:{taken_port}" in (tmp_path / "twistd.log").read_text()


def test_a_process_from_start_to_stop(tmp_path: Path) -> None:
    """The service runs until SIGTERM; a second one in the same directory is told who has it."""
    local = "tcp:0:interface=127.0.0.1"
    command = [*TWISTD, "-n", "--pidfile=", "axcollector", "--listen", local, "--admin-listen", local]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        log = ""
        while "takes records at" not in log:
            line = process.stdout.readline()
            assert line, log
            log += line
        admin = re.search(r"admin_listen: listening on .*port=(\d+)", log)
        assert admin, log
        with urllib.request.urlopen(f"http://127.0.0.1:{admin[1]}/healthz", timeout=30) as answer:
            assert answer.status == 200
        second = ended(tmp_path, *TWISTD, "-n", "axcollector", "--listen", local, "--admin-listen", local)
        assert (second.returncode, second.stderr.count("\n")) == (1, 1)
        assert f"process {process.pid} already works in this data directory" in second.stderr
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=60)
    assert "Traceback" not in log + rest
    assert "Main loop terminated" in rest
    assert process.returncode in {0, -signal.SIGTERM}


def test_what_is_exchanged_in_a_running_process(tmp_path: Path) -> None:
    """A new admin token, given or in a file, and a new time limit count at once; nothing does where the file is bad."""
    from twisted.internet import reactor

    config = Config(local_storage_path=str(tmp_path), admin_token="one", admin_listen="", request_timeout=60)
    whole = assemble(reactor, config)
    admin, ingest = (listeners._factory for listeners in whole.listeners)
    assert isinstance(admin, AdminSite)

    def status(token: str) -> int:
        connection = Connection(admin)
        connection.send(request("GET", "/nowhere", headers=(("Authorization", f"Bearer {token}"),)))
        found = int(connection.transport.value().split(b" ")[1])
        connection.hang_up()
        return found

    file = tmp_path / "token"
    file.write_text("two\n")
    assert whole.problem() == "Service is not initialized completely"
    assert (status("one"), status("two")) == (404, 401)
    new = replace(config, admin_token=None, admin_token_file=str(file), request_timeout=5)
    apply = whole.live.prepare(new)
    assert (status("one"), ingest.request_timeout_seconds) == (404, 60)
    apply()
    assert (status("one"), status("two"), ingest.request_timeout_seconds) == (401, 404, 5)
    file.write_text("")
    with pytest.raises(ConfigError, match="admin_token_file"):
        whole.live.prepare(new)
    assert status("two") == 404


def test_a_configuration_is_checked_as_at_a_start(tmp_path: Path) -> None:
    """Endpoints that changed have to be ones, with their certificates; those that did not are in use."""
    running = Config(local_storage_path=str(tmp_path), listen="nonsense:1")
    assert checked(None, running, running) is running
    missing = "axtls:1:certificate=/none:key=/none:interface=127.0.0.1"
    for settings in ({"listen": "nonsense:2"}, {"admin_listen": missing}):
        with pytest.raises(ConfigError, match=r"^(listen|admin_listen): "):
            checked(None, running, replace(running, **settings))
