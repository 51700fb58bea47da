"""Launching the signing service: its settings, its command line, what it says, and what keeps it from starting."""

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from twisted.application.service import IService
from twisted.logger import LogEvent, formatEvent

from axcollector import __version__
from axcollector.core.errors import ConfigError
from axcollector.launch import CannotStart
from axcollector.signer.config import SIGNER_KEYS, SignerConfig, read_signer_config
from axcollector.signer_tap import Options, launched, makeService
from axcollector.tokens import Bound, TokenFile
from axcollector.unwaited import Unwaited
from tests.fakes import result_of
from tests.test_signing import PATH, query
from tests.test_tap import TWISTD, StandIn, ended, environment


def parsed(*arguments: str) -> Options:
    """The options of a command line."""
    options = Options()
    options.parseOptions(list(arguments))
    return options


def test_defaults() -> None:
    """All but the bucket has one."""
    config = SignerConfig(s3_url="s3://bucket")
    assert config == read_signer_config(None, {"s3_url": "s3://bucket"})
    assert config.listen == ("tcp:9010:interface=127.0.0.1",)
    assert (config.bucket, config.prefix, config.s3_region, config.s3_endpoint_url) == ("bucket", "", "us-east-1", None)
    assert config.expires == 900
    assert config.tokens_path == os.path.abspath("axsigner-data/tokens.db")


def test_a_file_and_a_command_line(tmp_path: Path) -> None:
    """The command line wins; options may be written with underscores."""
    file = tmp_path / "axsigner.yaml"
    file.write_text("s3_url: s3://abc/b/c/\nexpires: 60\nlisten: [tcp:1, tcp:2]\n")
    config = read_signer_config(str(file), parsed("--expires", "120", "--s3_region=eu-west-1").overrides())
    assert (config.bucket, config.prefix, config.expires) == ("abc", "b/c", 120)
    assert (config.s3_region, config.listen) == ("eu-west-1", ("tcp:1", "tcp:2"))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({}, "s3_url is missing; allowed is s3://bucket/prefix"),
        ({"s3_url": "bucket"}, "s3_url: 'bucket' is not allowed; allowed is s3://bucket/prefix"),
        ({"s3_url": "file:/x"}, "s3_url: 'file:/x' is not allowed"),
        ({"s3_url": "s3://B"}, "s3_url: 's3://B' is not allowed"),
        ({"s3_url": "s3://bucket/../x"}, "s3_url: 's3://bucket/../x' is not allowed"),
        ({"s3_url": "s3://bucket//x"}, "s3_url: 's3://bucket//x' is not allowed"),
        ({"s3_url": "s3://bucket/a%2fb"}, "s3_url: 's3://bucket/a%2fb' is not allowed"),
        ({"s3_url": "s3://bucket/" + "x" * 501}, "at most 500 characters"),
        ({"s3_url": 5}, "s3_url: 5 is not allowed"),
        ({"expires": 0}, "expires: 0 is not allowed; allowed is a whole number (s), 1 to 604800"),
        ({"expires": 604_801}, "expires: 604801 is not allowed"),
        ({"expires": None}, "expires: None is not allowed"),
        ({"s3_region": "eu west"}, "s3_region: 'eu west' is not allowed; allowed is a region's name"),
        ({"s3_endpoint_url": "minio:9000"}, "s3_endpoint_url: 'minio:9000' is not allowed"),
        ({"listen": "tcp:x"}, "listen: 'tcp:x' is not allowed"),
        ({"s3_uri": "s3://bucket"}, "'s3_uri' is no key of the configuration; the nearest is s3_url"),
        ({"apidanalytics_listen": "tcp:1"}, "'apidanalytics_listen' is no key of the configuration"),
    ],
)
def test_settings_that_cannot_be_used(tmp_path: Path, settings: dict[str, object], complaint: str) -> None:
    """From a file or a program: one line that names the key, the value and what is allowed."""
    file = tmp_path / "axsigner.yaml"
    file.write_text(json.dumps(settings))
    with pytest.raises(ConfigError) as caught:
        read_signer_config(str(file), {})
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_help_shows_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` lists all options with what they are for, and an example."""
    with pytest.raises(SystemExit) as caught:
        parsed("--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "twistd -n axsigner --config axsigner.yaml" in text
    for key in SIGNER_KEYS.values():
        assert f"--{key.name.replace('_', '-')}=" in text
        assert key.description in " ".join(text.split())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` names the service."""
    with pytest.raises(SystemExit):
        parsed("--version")
    assert capsys.readouterr().out == f"axsigner {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "s3_url is missing"),
        (
            ["--expiry", "5"],
            "option --expiry not recognized; the nearest is --expires (twistd axsigner --help lists all)",
        ),
        (["--s3-url", "s3://bucket", "--listen", "nonsense:1"], "listen: 'nonsense:1' is no endpoint that can be used"),
        (["--config", "/none.yaml"], "the configuration file /none.yaml cannot be read"),
    ],
)
def test_command_lines_that_cannot_be_used(
    capfd: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    """They end in one line on stderr and status 1."""
    with pytest.raises(CannotStart) as caught:
        makeService(parsed(*arguments))
    assert caught.value.code == 1
    error = capfd.readouterr().err
    assert error.startswith(f"axsigner cannot start: {complaint}")
    assert error.count("\n") == 1


def test_making_a_service_touches_nothing(tmp_path: Path) -> None:
    """`makeService` reads the configuration and does nothing else."""
    service = makeService(parsed("--s3-url", "s3://bucket", "--tokens-path", f"{tmp_path}/tokens.db"))
    assert IService.providedBy(service)
    assert os.listdir(tmp_path) == []


def test_without_botocore(tmp_path: Path) -> None:
    """The extra is missing: one line says how to install it."""
    (tmp_path / "botocore.py").write_text("raise ModuleNotFoundError('No module named botocore', name='botocore')")
    script = (
        "from axcollector.signer_tap import *; o = Options(); o.parseOptions(['--s3-url=s3://abc']); makeService(o)"
    )
    path = os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={**environment(), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr == (
        "axsigner cannot start: s3_url needs botocore, which is not installed: pip install 'axcollector[s3]'\n"
    )


@pytest.mark.parametrize(
    ("listen", "warned"),
    [
        (["tcp:9010:interface=127.0.0.1"], ""),
        (["tcp:9010"], "tcp:9010"),
        (["tcp:9010:interface=10.0.0.1", "unix:/run/axsigner.sock"], "tcp:9010:interface=10.0.0.1"),
        ([r"tcp6:9010:interface=\:\:1", r"tcp6:9011:interface=\:\:", "tcp:1"], r"tcp6:9011:interface=\:\:, tcp:1"),
        (["ssl:9010:privateKey=k.pem:certKey=c.pem", "axtls:9011:certificate=c.pem:key=k.pem"], ""),
    ],
)
def test_listening_without_tls(log_events: list[LogEvent], listen: list[str], warned: str) -> None:
    """What others can reach without TLS gets one warning, which says what to do."""
    config = SignerConfig(s3_url="s3://bucket/x", listen=listen, tokens_path="/t/tokens.db")
    launched(StandIn(), config).startService()
    *warnings, last = (formatEvent(event) for event in log_events)
    remedy = "listen on axtls:PORT:certificate=…:key=…, or listen on interface=127.0.0.1 or unix: only"
    expected = f"without TLS others can read the tokens sent to {warned}; {remedy}"
    assert warnings == [expected] * bool(warned)
    assert last == (
        f"axsigner {__version__} signs at {', '.join(listen)} for s3://bucket/x; URLs are good for 900 s;"
        " tokens lie in /t/tokens.db"
    )


class Calls:
    """A reactor for threads, whose calls wait for `step`."""

    def __init__(self) -> None:
        self.waiting: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()

    def callFromThread(self, function: Callable[..., object], *arguments: object) -> None:
        """Keep it."""
        self.waiting.put(lambda: function(*arguments))

    def step(self) -> None:
        """Do the next."""
        self.waiting.get(timeout=60)()


def test_a_look_up_of_credentials_does_not_hold_up_the_stop() -> None:
    """A thread that hangs in the network is left behind."""
    reactor, release = Calls(), threading.Event()
    thread = Unwaited(reactor, "test")
    thread.startService()
    looked_up = thread.run(release.wait)
    result_of(thread.stopService())
    assert not looked_up.called
    release.set()
    reactor.step()
    assert result_of(looked_up) is True


QUESTION = f"/analytics?{query(encrypt='true').decode()}"


def asked(port: int, token: str | None, path: str = QUESTION) -> tuple[int, bytes]:
    """Status and body of a GET."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read()


@pytest.fixture
def process(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A service in a process of its own, which is gone when the test ends, however that is."""
    (tmp_path / "axsigner.yaml").write_text("s3_url: s3://analytics/records\nlisten: tcp:0:interface=127.0.0.1\n")
    credentials = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "open sesame"}
    with (
        # No pipe: nobody reads the log while requests are sent, and a full pipe would block the service.
        open(tmp_path / "log", "wb") as log,
        subprocess.Popen(
            [*TWISTD, "-n", "--pidfile=", "axsigner", "--config", "axsigner.yaml"],
            cwd=tmp_path,
            env={**environment(), **credentials},
            stdout=log,
            stderr=log,
        ) as started,
    ):
        watchdog = threading.Timer(60, started.kill)
        watchdog.start()
        yield started
        watchdog.cancel()
        started.kill()


def test_a_process_from_start_to_stop(tmp_path: Path, process: "subprocess.Popen[bytes]") -> None:
    """It signs with the credentials of its environment for whoever has a token, until that is revoked."""
    log = tmp_path / "log"
    while "signs at" not in log.read_text():
        assert process.poll() is None, log.read_text()
    found = re.search(r"listen: listening on .*port=(\d+)", log.read_text())
    assert found, log.read_text()
    port = int(found[1])
    assert asked(port, None, "/healthz") == (200, b'{"status": "ok"}')
    with TokenFile.open(str(tmp_path / "axsigner-data" / "tokens.db"), Bound.TENANTS) as file:
        token, secret = file.add(["acme~prod"], time.time())
        while (answer := asked(port, secret))[0] in {401, 503}:
            pass
        url = json.loads(answer[1])["url"]
        assert url.startswith(f"https://analytics.s3.us-east-1.amazonaws.com/records/acme~prod/{quote(PATH)}?X-Amz-")
        assert asked(port, secret, f"/analytics?{query(tenant='other~prod').decode()}")[0] == 403
        revoked_at = time.monotonic()
        file.revoke(token.id)
    while asked(port, secret)[0] == 200:
        pass
    assert time.monotonic() - revoked_at < 20  # two, and what a busy machine adds
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) in {0, -signal.SIGTERM}
    text = log.read_text()
    assert [each for each in ("Traceback", secret, "X-Amz-", "open sesame", "AKIDEXAMPLE") if each in text] == []


def test_processes_that_cannot_start(tmp_path: Path) -> None:
    """A wrong option, and a file of tokens that is none, end in one line and status 1."""
    (tmp_path / "text").write_text("no database" * 100)
    for arguments, complaint in (
        (["--nonsense"], "option --nonsense not recognized"),
        (["--s3-url", "s3://bucket", "--tokens-path", "text"], f"the file of tokens {tmp_path}/text cannot be used"),
    ):
        result = ended(tmp_path, *TWISTD, "-n", "axsigner", *arguments)
        assert (result.returncode, result.stderr.count("\n")) == (1, 1)
        assert result.stderr.startswith(f"axsigner cannot start: {complaint}")
