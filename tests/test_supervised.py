"""The service as a process that somebody looks after: SIGHUP, readiness, sockets that it is given, systemd's units."""

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from axcollector.registry import Registry
from axcollector.tap import Options
from tests.certificates import Authority
from tests.test_process import add_scope
from tests.test_tap import TWIST, TWISTD, environment
from tests.test_tls import Client
from tests.tls_wire import client_context

EXAMPLES: Final = Path(__file__).parent.parent / "docs" / "examples"
LOCAL: Final = "tcp:0:interface=127.0.0.1"
GIVES_SOCKET: Final = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ['LISTEN_PID'] = str(os.getpid());"
    " os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
)
"""Does what systemd does for a service that it gives a socket to."""


class Supervisor:
    """Runs services, and hears what they tell; ends those that are left."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(directory / "notify"))
        self.socket.settimeout(60)
        self.output = directory / "output"
        self.processes: list[subprocess.Popen[bytes]] = []

    def run(self, *command: str, given: socket.socket | None = None, **variables: str) -> "subprocess.Popen[bytes]":
        """Start a service, in a directory of its own."""
        names = {"NOTIFY_SOCKET": str(self.directory / "notify"), **variables}
        if given is not None:
            names |= {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "ingest"}
            command = (sys.executable, "-c", GIVES_SOCKET, str(given.fileno()), *command[1:])
        with open(self.output, "ab") as output:
            process = subprocess.Popen(
                command,
                cwd=self.directory,
                env={**environment(), **names},
                pass_fds=() if given is None else (given.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.processes.append(process)
        return process

    def hears(self, text: str) -> None:
        """Wait until it is told something that begins so."""
        while True:
            message = self.socket.recv(4096).decode()
            if message.startswith(text):
                return

    def reload(self, pid: int) -> None:
        """Have a service do what SIGHUP asks for, and wait until it has."""
        os.kill(pid, signal.SIGHUP)
        self.hears("RELOADING=1")
        self.hears("READY=1")

    def reload_until(self, pid: int, text: str) -> None:
        """The same until the service has written this: what is heard may still be of a SIGHUP before."""
        while text not in self.output.read_text():
            self.reload(pid)

    def port(self, log: str = "") -> int:
        """Where the service takes records."""
        found = re.findall(r"\blisten: listening on IPv[46]Address\(.*?port=(\d+)", log or self.output.read_text())
        return int(found[-1])

    def end(self, process: "subprocess.Popen[bytes]") -> str:
        """Stop a service in order; all that it wrote."""
        process.terminate()
        self.hears("STOPPING=1")
        assert process.wait(60) in {0, -signal.SIGTERM}
        text = self.output.read_text()
        assert "Traceback" not in text
        return text

    def close(self) -> None:
        """End what is left."""
        self.socket.close()
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    """One with a data directory and a tenant."""
    (tmp_path / "axcollector-data").mkdir(mode=0o700)
    result = Supervisor(tmp_path)
    yield result
    result.close()


def lines_with(text: str, part: str) -> list[str]:
    """The lines of a text that hold this."""
    return [line for line in text.splitlines() if part in line]


def test_certificates_and_settings_under_load(supervisor: Supervisor, tmp_path: Path) -> None:
    """A flood of SIGHUP, new certificates, bad ones and bad settings: no request of a kept connection is lost."""
    scope = add_scope(tmp_path)
    authority = Authority()
    certificate, key = authority.write("127.0.0.1", tmp_path, name="old")
    context = client_context(authority.write_own(tmp_path))
    config = tmp_path / "axcollector.yaml"
    config.write_text("admin_listen:\n")
    listen = f"axtls:0:certificate={certificate}:key={key}:interface=127.0.0.1"
    process = supervisor.run(*TWIST, "--log-format=text", "axcollector", "--config", str(config), "--listen", listen)
    supervisor.hears("READY=1")
    port = supervisor.port()
    kept, halfway = Client(port, context), Client(port, context)
    assert kept.post(scope) == (200, "old")
    halfway.begin(scope)
    stop = threading.Event()
    answers: list[tuple[int, str]] = []

    def send() -> None:
        while not stop.is_set():
            answers.append(kept.post(scope))

    sender = threading.Thread(target=send)
    sender.start()
    for _ in range(200):
        process.send_signal(signal.SIGHUP)
    authority.write("127.0.0.1", tmp_path, name="new")
    supervisor.reload_until(process.pid, "listen: new connections get a new certificate: CN=new")
    renewed = Client(port, context)
    assert renewed.post(scope) == (200, "new")
    assert halfway.finish() == (200, "old")
    Path(key).write_text("nonsense")
    config.write_text("admin_listen:\nrequest_timeout: nonsense\n")
    supervisor.reload_until(process.pid, "from -----BEGIN PRIVATE KEY----- on")
    supervisor.reload_until(process.pid, "and nothing of it is: request_timeout: 'nonsense'")
    after = Client(port, context)
    assert after.post(scope) == (200, "new")
    stop.set()
    sender.join()
    assert set(answers) == {(200, "old")}
    for client in (kept, halfway, renewed, after):
        client.http.close()
    log = supervisor.end(process)
    # Not one for each of the flood; on a busy machine one for all, which finds the new certificate as well.
    assert 1 <= len(lines_with(log, "SIGHUP: the configuration was read")) < 100
    assert lines_with(log, "the configuration cannot be used, and nothing of it is: request_timeout: 'nonsense'")
    assert lines_with(log, f"listen goes on with the certificate it has: key={key} cannot be used")


@pytest.mark.parametrize("launcher", ["twistd", "twist"])
def test_log_files(supervisor: Supervisor, tmp_path: Path, launcher: str) -> None:
    """One that was renamed is opened anew on SIGHUP; twistd's own rotation on SIGUSR1 is as it was."""
    log = tmp_path / "service.log"
    options = (
        [f"--logfile={log}", "-n", "--pidfile="] if launcher == "twistd" else [f"--log-file={log}", "--log-format=text"]
    )
    command = [*(TWISTD if launcher == "twistd" else TWIST), *options]
    process = supervisor.run(*command, "axcollector", "--listen", LOCAL, "--admin-listen", "")
    supervisor.hears("READY=1")
    log.rename(tmp_path / "old.log")
    supervisor.reload(process.pid)
    text = log.read_text()
    assert f"SIGHUP: the log goes on in a new {log}" in text
    assert "listen: listening on" not in text
    assert "SIGHUP" not in (tmp_path / "old.log").read_text()
    if launcher == "twistd":
        process.send_signal(signal.SIGUSR1)
        while not (tmp_path / "service.log.1").exists():  # of two signals at once the smaller number would come first
            assert process.poll() is None
        supervisor.reload(process.pid)
        assert "the log goes on in a new" in (tmp_path / "service.log.1").read_text()
        assert "the configuration was read" in log.read_text()
    supervisor.end(process)
    assert "Main loop terminated" in log.read_text()


def test_a_daemon(supervisor: Supervisor, tmp_path: Path) -> None:
    """It takes SIGHUP as well, in another directory than it was started in, and its log goes on."""
    (tmp_path / "run").mkdir()
    (tmp_path / "axcollector.yaml").write_text("request_timeout: 5\nlisten: tcp:0:interface=127.0.0.1\n")
    reading, writing = os.pipe()
    options = [f"--rundir={tmp_path}/run", f"--pidfile={tmp_path}/pid", f"--logfile={tmp_path}/log"]
    with open(reading, "rb") as ended:
        with open(writing, "wb"):
            started = subprocess.run(
                [*TWISTD, *options, "axcollector", "--config", "axcollector.yaml", "--admin-listen", ""],
                cwd=tmp_path,
                env={**environment(), "NOTIFY_SOCKET": str(tmp_path / "notify")},
                pass_fds=(writing,),
                timeout=60,
                check=True,
            )
        assert started.returncode == 0
        supervisor.hears("READY=1")
        pid = int((tmp_path / "pid").read_text())
        try:
            (tmp_path / "log").rename(tmp_path / "log.old")
            (tmp_path / "axcollector.yaml").write_text("request_timeout: 6\nlisten: tcp:0:interface=127.0.0.1\n")
            supervisor.reload(pid)
            changed = "changed and in force: request_timeout; changed, for the next start: nothing"
            assert changed in (tmp_path / "log").read_text()
        finally:
            os.kill(pid, signal.SIGTERM)
        assert ended.read() == b""  # its end, when the process has ended
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert not (tmp_path / "pid").exists()


def test_signals_at_the_beginning_and_the_end(supervisor: Supervisor, tmp_path: Path) -> None:
    """From when the pid file is there until it is gone, SIGHUP, however much of it, ends nothing before its time."""
    pid_file = tmp_path / "pid"
    process = supervisor.run(
        *TWISTD, "-n", f"--pidfile={pid_file}", "axcollector", "--listen", LOCAL, "--admin-listen", ""
    )
    while not pid_file.exists():
        assert process.poll() is None
    flood = threading.Thread(target=hang_up_until_the_end, args=(process,))
    flood.start()
    supervisor.hears("READY=1")
    process.terminate()
    assert process.wait(60) in {0, -signal.SIGTERM}
    flood.join()
    text = supervisor.output.read_text()
    assert "SIGHUP: the configuration was read" in text
    assert "Traceback" not in text
    assert not pid_file.exists()


def hang_up_until_the_end(process: "subprocess.Popen[bytes]") -> None:
    """Send a process SIGHUP, again and again, for as long as it runs."""
    while process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGHUP)


def test_the_signing_service(supervisor: Supervisor, tmp_path: Path) -> None:
    """It has TLS, readiness and SIGHUP too; what it was configured with changes at its next start."""
    certificate, key = Authority().write("127.0.0.1", tmp_path)
    config = tmp_path / "axsigner.yaml"
    listen = f"axtls:0:certificate={certificate}:key={key}:interface=127.0.0.1"
    config.write_text(f"s3_url: s3://bucket\nlisten: {listen}\n")
    process = supervisor.run(*TWIST, "--log-format=text", "axsigner", "--config", str(config))
    supervisor.hears("READY=1")
    with (
        socket.create_connection(("127.0.0.1", supervisor.port()), timeout=60) as plain,
        client_context().wrap_socket(plain) as client,
    ):
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
    Authority().write("127.0.0.1", tmp_path, name="new")
    config.write_text(f"s3_url: s3://bucket\nexpires: 60\nlisten: {listen}\n")
    supervisor.reload(process.pid)
    log = supervisor.end(process)
    assert "changed and in force: nothing; changed, for the next start: expires" in log
    assert "listen: new connections get a new certificate: CN=new" in log


def test_without_a_snapshot_the_service_is_not_ready(supervisor: Supervisor) -> None:
    """Patience is asked for, and the reason is told; a stop is a stop all the same."""
    process = supervisor.run(
        *TWIST, "axcollector", "--listen", LOCAL, "--admin-listen", "", "--use-caching", "true", "--sync", "none"
    )
    supervisor.hears("EXTEND_TIMEOUT_USEC=30000000\nSTATUS=Service is not initialized completely")
    supervisor.hears("EXTEND_TIMEOUT_USEC=30000000")
    supervisor.end(process)


class Unit:
    """A unit's file, with those that are dropped in beside it."""

    def __init__(self, name: str, *dropped_in: str) -> None:
        self.name = name
        self.settings: dict[str, dict[str, list[str]]] = {}
        for each in (name, *dropped_in):
            section = ""
            for line in (EXAMPLES / each).read_text().replace("\\\n", " ").splitlines():
                if line.startswith("["):
                    section = line.strip("[]")
                elif line and not line.startswith("#"):
                    key, equals, value = line.partition("=")
                    assert equals
                    values = self.settings.setdefault(section, {}).setdefault(key, [])
                    # An empty value takes those before it away.
                    values[:] = [*values, value] if value else []

    def command(self, **specifiers: str) -> list[str]:
        """Its only ExecStart, with `%S` and the like, and variables, put in."""
        (line,) = self.settings["Service"]["ExecStart"]
        for name, value in specifiers.items():
            line = line.replace(f"%{name}", value).replace("${" + name + "}", value)
        return shlex.split(line)


UNITS: Final = {
    "plain": (Unit("axcollector.socket"), Unit("axcollector.service")),
    "tls": (
        Unit("axcollector.socket", "axcollector.socket.d/tls.conf"),
        Unit("axcollector.service", "axcollector.service.d/tls.conf"),
    ),
}


def listener(address: str) -> socket.socket:
    """A socket that listens as a `ListenStream` of the unit does, on a free port."""
    host, _, _ = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    result = socket.socket(family)
    result.bind((host.strip("[]"), 0))
    result.listen()
    return result


def started_as(supervisor: Supervisor, unit: Unit, given: socket.socket) -> "subprocess.Popen[bytes]":
    """What the unit's command line starts."""
    config = supervisor.directory / "axcollector.yaml"
    config.write_text("admin_listen:\n")
    directory = str(supervisor.directory)
    program, *options = unit.command(S=directory, CREDENTIALS_DIRECTORY=directory)
    assert program.endswith("/twistd")
    options = [str(config) if option == "/etc/axcollector/axcollector.yaml" else option for option in options]
    return supervisor.run(*TWISTD, *options, given=given)


@pytest.mark.parametrize(
    ("kind", "host"), [("plain", ""), ("tls", ""), ("tls", "[::1]:0"), ("plain", "[::]:0"), ("plain", "127.0.0.1:0")]
)
def test_a_socket_that_the_service_is_given(supervisor: Supervisor, tmp_path: Path, kind: str, host: str) -> None:
    """The command lines of the units take records on it, with and without TLS, IPv4 and IPv6, and stay when idle."""
    authority = Authority()
    authority.write("127.0.0.1", tmp_path)
    (tmp_path / "axcollector").mkdir(mode=0o700)
    socket_unit, unit = UNITS[kind]
    (address,) = socket_unit.settings["Socket"]["ListenStream"]
    with listener(host or address) as given:
        process = started_as(supervisor, unit, given)
        supervisor.hears("READY=1")
        with Registry.create(str(tmp_path / "axcollector" / "registry.db")) as registry:
            registry.add_scope("acme", "prod")
        port = given.getsockname()[1]
        target = "::1" if given.family == socket.AF_INET6 else "127.0.0.1"
        with socket.create_connection((target, port), timeout=60) as plain:
            client = client_context().wrap_socket(plain) if kind == "tls" else plain
            client.sendall(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 404 ")
            client.close()
        log = supervisor.end(process)
        assert f"port={port}" in log
        assert ("IPv6Address" in log) is (given.family == socket.AF_INET6)


def test_a_socket_that_the_service_is_not_given(supervisor: Supervisor) -> None:
    """Without one the unit's command line ends in one line that says what is missing."""
    directory = str(supervisor.directory)
    options = UNITS["plain"][1].command(S=directory)[1:]
    at = options.index("--config")
    process = supervisor.run(*TWISTD, *options[:at], *options[at + 2 :])
    assert process.wait(60) == 1
    (line,) = supervisor.output.read_text().splitlines()
    assert "systemd gave this process no such socket; is its .socket unit active, and twistd run with -n?" in line


@pytest.mark.parametrize("kind", UNITS)
def test_the_units(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every option on the command line is one of ours, the two units agree, and the service is locked in."""
    socket_unit, unit = UNITS[kind]
    with pytest.raises(SystemExit):
        Options().parseOptions(["--help"])
    known = set(re.findall(r"--[a-z0-9-]+", capsys.readouterr().out))
    command = unit.command()
    at = command.index("axcollector")
    assert command[1:at] == ["--nodaemon", "--pidfile="]
    assert {option for option in command[at:] if option.startswith("--")} <= known
    assert socket_unit.settings["Socket"]["FileDescriptorName"] == ["ingest"]
    assert "ingest" in " ".join(command)
    service = unit.settings["Service"]
    expected = {
        "Type": "notify",
        "DynamicUser": "yes",
        "StateDirectory": "axcollector",
        "ProtectSystem": "strict",
        "NoNewPrivileges": "yes",
        "PrivateTmp": "yes",
        "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
        "LimitNOFILE": "65536",
        "ExecReload": "/bin/kill -HUP $MAINPID",
    }
    assert {key: " ".join(service[key]) for key in expected} == expected
    assert service["CapabilityBoundingSet"] == []
    assert service["SystemCallFilter"] == ["@system-service", "~@privileged @resources", "sched_setaffinity"]
    assert int(service["TimeoutStopSec"][0]) > 10
    assert bool(service.get("LoadCredential")) is (kind == "tls")


@pytest.mark.parametrize("kind", UNITS)
def test_systemd_takes_the_units(tmp_path: Path, kind: str) -> None:
    """Where systemd is there, it finds nothing to complain of, and little that is exposed."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:  # their text is looked at above
        return
    program = tmp_path / "twistd"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    names = ["axcollector.socket", "axcollector.service"]
    for name in [*names, *(f"{name}.d/tls.conf" for name in names if kind == "tls")]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((EXAMPLES / name).read_text().replace("/opt/axcollector/bin/twistd", str(program)))
    paths = [str(tmp_path / name) for name in names]
    variables = {**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}
    assert told_by(analyze, ["verify", *paths], variables) == ""
    exposure = told_by(analyze, ["security", "--offline=true", "--threshold=20", paths[1]], variables)
    level = re.search(r"exposure level for axcollector.service: ([0-9.]+)", exposure)
    assert level is None or float(level[1]) <= 2


def told_by(analyze: str, arguments: Sequence[str], variables: dict[str, str]) -> str:
    """What systemd-analyze says, all well."""
    result = subprocess.run(
        [analyze, *arguments], env=variables, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr
