"""What SIGHUP does: in a process of the tests' own, with everything given to it."""

import fcntl
import os
import signal
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.application.service import Service
from twisted.internet import defer, reactor
from twisted.logger import FilteringLogObserver, LogEvent, LogPublisher, formatEvent, textFileLogObserver
from twisted.python.logfile import LogFile

from axcollector.config import KEYS, Config
from axcollector.config_file import load_config
from axcollector.core.errors import ConfigError
from axcollector.hangup import OnHangup
from axcollector.log_files import reopen_log_files
from axcollector.notify import Readiness, Supervisor
from axcollector.reloading import Live, Reloading
from axcollector.supervised import Reread, supervised
from axcollector.tls import Certificates
from axcollector.tls_files import TlsFiles
from tests.certificates import Authority
from tests.conftest import LoggedFailures
from tests.fakes import SameThread, result_of


class FromThreads:
    """A reactor's way in from other threads, which waits to be let in."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def callFromThread(self, function: Any, *arguments: object, **keywords: object) -> None:
        self.calls.append(lambda: function(*arguments, **keywords))

    def turn(self) -> None:
        """What was given since the last turn."""
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class Work:
    """Work that ends when it is told to."""

    def __init__(self) -> None:
        self.runs: list[defer.Deferred[None]] = []

    def __call__(self) -> Awaitable[None]:
        self.runs.append(defer.Deferred())
        return self.runs[-1]


@pytest.fixture
def spared() -> Iterator[list[int]]:
    """SIGHUP does no harm in a test; those that came to who had it before are listed."""
    came: list[int] = []
    previous = signal.signal(signal.SIGHUP, lambda number, _: came.append(number))
    yield came
    signal.signal(signal.SIGHUP, previous)


def hang_up(times: int = 1) -> None:
    """Send ourselves the signal."""
    for _ in range(times):
        signal.raise_signal(signal.SIGHUP)


def test_a_flood_of_signals(spared: list[int]) -> None:
    """One run at a time; all signals during a run are one more, begun when it has ended."""
    reactor, work = FromThreads(), Work()
    service = OnHangup(reactor, work)
    service.startService()
    hang_up(100)
    assert work.runs == []
    reactor.turn()
    assert len(work.runs) == 1
    hang_up(100)
    reactor.turn()
    assert len(work.runs) == 1
    work.runs[0].callback(None)
    assert len(work.runs) == 2
    work.runs[1].callback(None)
    reactor.turn()
    assert len(work.runs) == 2
    hang_up()
    reactor.turn()
    assert len(work.runs) == 3
    work.runs[2].callback(None)
    result_of(service.stopService())
    assert spared == []


def test_signals_that_interrupt_each_other(spared: list[int]) -> None:
    """However many come while one is being taken, their calls do not stand within each other, and there is one run."""

    class Interrupted(FromThreads):
        def callFromThread(self, function: Any, *arguments: object, **keywords: object) -> None:
            hang_up()
            super().callFromThread(function, *arguments, **keywords)

    reactor, work = Interrupted(), Work()
    service = OnHangup(reactor, work)
    service.startService()
    hang_up(3)
    reactor.turn()
    assert len(work.runs) == 1
    work.runs[0].callback(None)
    assert len(work.runs) == 1
    result_of(service.stopService())
    assert spared == []


def test_the_signal_is_given_back(spared: list[int]) -> None:
    """To whoever had it; what came before the end and was not begun is not begun any more. Stopping twice is fine."""
    reactor, work = FromThreads(), Work()
    service = OnHangup(reactor, work)
    service.startService()
    hang_up()
    reactor.turn()
    hang_up()
    result_of(service.stopService())
    result_of(service.stopService())
    work.runs[0].callback(None)
    reactor.turn()
    assert (len(work.runs), spared) == (1, [])
    hang_up()
    assert spared == [signal.SIGHUP]


def test_signals_before_the_start(spared: list[int]) -> None:
    """What comes once the signal is taken over, and before the service is started, is worked on after that."""
    reactor, work = FromThreads(), Work()
    service = OnHangup(reactor, work)
    service.take_over()
    hang_up(3)
    service.startService()
    assert work.runs == []
    reactor.turn()
    assert len(work.runs) == 1
    work.runs[0].callback(None)
    result_of(service.stopService())
    assert spared == []


@pytest.mark.usefixtures("spared")
def test_a_signal_that_would_end_the_process() -> None:
    """It is not given back to the system: what comes behind the end of the service does nothing."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    reactor, work = FromThreads(), Work()
    service = OnHangup(reactor, work)
    service.startService()
    result_of(service.stopService())
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    service.startService()
    hang_up()
    reactor.turn()
    assert len(work.runs) == 1
    work.runs[0].callback(None)
    result_of(service.stopService())


def test_work_that_fails(spared: list[int], logged_failures: LoggedFailures) -> None:
    """It is logged, unless it was given up because all stops, and the next signal does it anew."""
    reactor, work = FromThreads(), Work()
    service = OnHangup(reactor, work)
    service.startService()
    for problem in (ZeroDivisionError("at http://u:pass@host/?q"), defer.CancelledError()):
        hang_up()
        reactor.turn()
        work.runs[-1].errback(problem)
    assert [str(words) for words in logged_failures.take(ZeroDivisionError)] == ["at http://host/?…"]
    assert len(work.runs) == 2
    result_of(service.stopService())


class World:
    """A configuration file, what is in force of it, and what SIGHUP makes of it."""

    def __init__(self, directory: Path, text: str, *certificates: Certificates, **overrides: object) -> None:
        self.path = directory / "axcollector.yaml"
        self.path.write_text(text)
        self.applied: list[Config] = []
        self.reopened: list[str] | OSError = []
        self.bad_token = False
        self._read = lambda: load_config(str(self.path), overrides)
        names = frozenset({"admin_token", "request_timeout"})
        self._reload = Reloading(
            SameThread(),
            KEYS,
            self._read(),
            self._read,
            live=Live(names, self._prepare),
            certificates=certificates,
            reopen_logs=self._reopen,
        )

    def _prepare(self, config: Config) -> Any:
        if self.bad_token:
            raise ConfigError("admin_token_file: /t does not hold one token")
        return lambda: self.applied.append(config)

    def _reopen(self) -> list[str]:
        if isinstance(self.reopened, OSError):
            raise self.reopened
        return self.reopened

    def hang_up(self, events: list[LogEvent], text: str | None = None) -> list[str]:
        """What is logged of a SIGHUP, with another file where one is given."""
        if text is not None:
            self.path.write_text(text)
        del events[:]
        result_of(defer.ensureDeferred(self._reload()))
        return [str(formatEvent(event)) for event in events]


def told(now: str, later: str) -> list[str]:
    """The line about a configuration that was read."""
    return [f"SIGHUP: the configuration was read; changed and in force: {now}; changed, for the next start: {later}"]


@pytest_twisted.ensureDeferred
async def test_what_is_done_afterwards(spared: list[int], log_events: list[LogEvent]) -> None:
    """A service that is looked after rereads its configuration on SIGHUP, then does what is to be done besides."""
    before, after = Config(max_upload_attempts=3), Config(max_upload_attempts=4)
    done: defer.Deferred[Config] = defer.Deferred()

    async def finish(config: Config) -> None:
        done.callback(config)

    readiness = Readiness(reactor, Supervisor({}), lambda: None, "taking records")
    service = supervised(
        reactor, Service(), readiness, KEYS, before, lambda: after, live=Live(), certificates=[], afterwards=finish
    )
    service.startService()
    hang_up()
    assert await done == before  # what changed counts at the next start
    await defer.maybeDeferred(service.stopService)
    assert any("max_upload_attempts" in str(formatEvent(event)) for event in log_events)
    assert spared == []


def test_what_changed_is_told(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """By name alone; what waits for the next start is told each time, until it is taken back."""
    world = World(tmp_path, "admin_token: hush\n")
    assert world.hang_up(log_events) == told("nothing", "nothing")
    changed = "admin_token: hush2\nrequest_timeout: 5\nupload_interval: 9\nlisten: tcp:1\n"
    assert world.hang_up(log_events, changed) == told("request_timeout, admin_token", "listen, upload_interval")
    assert world.hang_up(log_events) == told("nothing", "listen, upload_interval")
    assert world.hang_up(log_events, "admin_token: hush2\n") == told("request_timeout", "nothing")
    assert "hush" not in str(log_events)
    assert [config.request_timeout for config in world.applied] == [60, 5, 5, 60]
    assert {(config.upload_interval, config.listen) for config in world.applied} == {(5, Config().listen)}


def test_the_command_line_still_wins(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """What it set does not change."""
    world = World(tmp_path, "", request_timeout="7")
    assert world.hang_up(log_events, "request_timeout: 5\n") == told("nothing", "nothing")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("request_timeout: -1\n", "request_timeout: -1 is not allowed; allowed is a number of seconds, 0.01 to"),
        ("request_timeout: 5\ncolection_interval: 1\n", "'colection_interval' is no key of the configuration"),
        ("request_timeout: [\n", "is not usable YAML"),
        ("request_timeout: 5\nadmin_listen: tcp:9001\n", "admin_token is missing"),
    ],
)
def test_a_bad_configuration(tmp_path: Path, log_events: list[LogEvent], text: str, problem: str) -> None:
    """Nothing of it is used, one line says why, and a good one is used later."""
    world = World(tmp_path, "")
    (line,) = world.hang_up(log_events, text)
    assert line.startswith("SIGHUP: the configuration cannot be used, and nothing of it is: ")
    assert problem in line
    assert world.applied == []
    assert world.hang_up(log_events, "request_timeout: 5\n") == told("request_timeout", "nothing")


def test_a_configuration_that_is_gone(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """Likewise."""
    world = World(tmp_path, "")
    world.path.unlink()
    (line,) = world.hang_up(log_events)
    assert line.endswith("axcollector.yaml cannot be read: No such file or directory")


def test_what_cannot_be_prepared(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """A file named in the configuration that cannot be used is like a bad configuration."""
    world = World(tmp_path, "")
    world.bad_token = True
    (line,) = world.hang_up(log_events, "request_timeout: 5\n")
    assert line.endswith("nothing of it is: admin_token_file: /t does not hold one token")
    world.bad_token = False
    assert world.hang_up(log_events) == told("request_timeout", "nothing")


def test_a_token_is_not_taken_from_a_port_that_needs_it(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """A new configuration in which the port is another does not open the old one."""
    world = World(tmp_path, "admin_listen: tcp:9001\nadmin_token: hush\n")
    text = "admin_listen: tcp:9001:interface=127.0.0.1\nrequest_timeout: 5\n"
    expected = told("nothing", "admin_listen, request_timeout, admin_token")
    assert sorted(world.hang_up(log_events, text)[0].split()) == sorted(expected[0].split())
    assert [config.admin_token for config in world.applied] == ["hush"]


def test_certificates(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """Each is read again, whatever becomes of the configuration and the others; one line each where there is news."""
    certificates = []
    for name in ("listen", "admin_listen"):
        (tmp_path / name).mkdir()
        certificates.append(Certificates(name, TlsFiles(*Authority().write("127.0.0.1", tmp_path / name))))
    world = World(tmp_path, "", *certificates)
    assert world.hang_up(log_events) == told("nothing", "nothing")
    Path(certificates[0].files.certificate).unlink()
    Authority().write("127.0.0.1", tmp_path / "admin_listen")
    lines = world.hang_up(log_events, "nonsense\n")
    gone = f"certificate={certificates[0].files.certificate} cannot be read: No such file or directory"
    new = "CN=a server of a test, valid until 2120-01-01 00:00 UTC"
    assert [line.partition("; ")[0] for line in lines[1:]] == [
        f"SIGHUP: listen goes on with the certificate it has: {gone}",
        f"admin_listen: new connections get a new certificate: {new}",
    ]


def test_log_files_are_told(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """That they go on elsewhere, or cannot."""
    world = World(tmp_path, "")
    world.reopened = ["/a.log"]
    assert world.hang_up(log_events) == ["SIGHUP: the log goes on in a new /a.log", *told("nothing", "nothing")]
    world.reopened = PermissionError(13, "Permission denied", "/a.log")
    first, *rest = world.hang_up(log_events)
    assert first == "SIGHUP: a log file cannot be opened anew: /a.log: Permission denied"
    assert rest == told("nothing", "nothing")


def test_relative_paths_stay_what_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that changed its directory reads the same file, and finds the same paths in it."""
    (tmp_path / "start").mkdir()
    monkeypatch.chdir(tmp_path / "start")
    Path("c.yaml").write_text("local_storage_path: data\n")
    read = Reread("c.yaml", {"request_timeout": "5"})
    first = read(load_config)
    monkeypatch.chdir("/")
    assert read(load_config) == first
    assert (first.local_storage_path, os.getcwd()) == (str(tmp_path / "start" / "data"), "/")
    (tmp_path / "start").rename(tmp_path / "gone")
    with pytest.raises(ConfigError, match=r"which relative paths are below, cannot be entered: No such file"):
        read(load_config)


def test_log_files_that_were_renamed(tmp_path: Path) -> None:
    """Both of twistd's kind and of `python -m twisted`'s go on in a new file of the old mode; pipes are left alone."""
    rotating = LogFile.fromFullPath(str(tmp_path / "twistd.log"))
    reading, writing = os.pipe()
    with open(tmp_path / "twist.log", "a") as plain, open(writing, "w") as pipe, open(reading) as out:
        paths = [tmp_path / "twistd.log", tmp_path / "twist.log"]
        filtered = FilteringLogObserver(textFileLogObserver(plain), [])
        publisher = LogPublisher(textFileLogObserver(rotating), filtered, textFileLogObserver(pipe), lambda _: None)
        paths[1].chmod(0o640)
        event: LogEvent = {"log_format": "an event", "log_time": 0.0}
        publisher(event)
        assert reopen_log_files(publisher) == []
        for path in paths:
            path.rename(path.with_suffix(".old"))
        publisher(event)
        assert reopen_log_files(publisher) == [str(path) for path in paths]
        publisher(event)
        assert not os.get_inheritable(plain.fileno())
        assert fcntl.fcntl(plain.fileno(), fcntl.F_GETFL) & os.O_APPEND
        assert [path.with_suffix(".old").read_text().count("an event") for path in paths] == [2, 2]
        assert [path.read_text().count("an event") for path in paths] == [1, 1]
        assert paths[1].stat().st_mode & 0o777 == 0o640
        assert rotating.size == paths[0].stat().st_size
        rotating.rotate()
        publisher(event)
        assert paths[0].read_text().count("an event") == 1
        pipe.flush()
        assert [out.readline().count("an event") for _ in range(4)] == [1] * 4
        (tmp_path / "twist.log").unlink()
        (tmp_path / "twist.log").mkdir()
        with pytest.raises(IsADirectoryError):
            reopen_log_files(publisher)
        publisher(event)
    rotating.close()


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    """However often nothing, or something, was to be done."""
    path = tmp_path / "twist.log"
    with open(path, "a") as plain:
        publisher = LogPublisher(textFileLogObserver(plain))
        before = len(os.listdir("/proc/self/fd"))
        for number in range(20):
            reopen_log_files(publisher)
            path.rename(tmp_path / f"{number}.log")
            reopen_log_files(publisher)
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_log_file_in_whose_place_a_pipe_is(tmp_path: Path) -> None:
    """It is not waited for, with a reader or without; the log goes on where it was."""
    path = tmp_path / "twist.log"
    with open(path, "a") as plain:
        publisher = LogPublisher(textFileLogObserver(plain))
        path.rename(tmp_path / "old.log")
        os.mkfifo(path)
        with pytest.raises(OSError, match="No such device or address"):
            reopen_log_files(publisher)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with pytest.raises(OSError, match="It is no regular file"):
            reopen_log_files(publisher)
        os.close(reader)
        publisher({"log_format": "an event", "log_time": 0.0})
    assert "an event" in (tmp_path / "old.log").read_text()


def test_a_configuration_from_a_pipe(tmp_path: Path) -> None:
    """It is read at the start, and not waited for on SIGHUP."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    read = Reread(str(path), {})
    descriptor = os.open(path, os.O_RDWR)
    os.write(descriptor, b"request_timeout: 5\n")
    assert read(lambda _, __: os.read(descriptor, 100)) == b"request_timeout: 5\n"
    with pytest.raises(ConfigError, match=r"is a pipe or the like, which is read once only$"):
        read(load_config)
    os.close(descriptor)


def test_observers_that_lead_in_a_circle(tmp_path: Path) -> None:
    """Each is looked at once."""
    with open(tmp_path / "a.log", "a") as plain:
        first, second = (FilteringLogObserver(textFileLogObserver(plain), []) for _ in range(2))
        first._observer, second._observer = second, first  # type: ignore[assignment]
        assert reopen_log_files(LogPublisher(first)) == []


def test_a_log_file_that_is_closed() -> None:
    """It is nobody's any more."""
    with open(os.devnull, "w") as file:
        publisher = LogPublisher(textFileLogObserver(file))
    assert reopen_log_files(publisher) == []
