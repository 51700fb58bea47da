"""The command line on the registry: what it prints where, its exit statuses, and that it never shows a traceback."""

import contextlib
import json
import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from axcollector import __version__
from axcollector.cli.scope import curl_line
from axcollector.core.model import DeveloperInfo
from axcollector.registry import Registry
from tests.commands import run

Capture = pytest.CaptureFixture[str]

COMMANDS = (
    *("scope", "key", "token", "import", "export", "signer-token", "quarantine"),
    *("check-config", "status", "ls", "cat", "verify", "retry", "drain", "send", "demo", "completion"),
)


@pytest.fixture
def registry(tmp_path: Path) -> str:
    """A registry with scope s."""
    path = str(tmp_path / "registry.db")
    with Registry.create(path) as made:
        made.add_scope("acme", "prod", "s", "t")
    return path


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """An empty current directory."""
    (tmp_path / "here").mkdir()
    with contextlib.chdir(tmp_path / "here"):
        yield tmp_path / "here"


def test_scope_add_prints_the_id_alone(directory: Path, capsys: Capture) -> None:
    """`scope add` makes the default registry, prints the id to stdout and a curl line to stderr."""
    assert run("scope", "add", "acme", "prod") == 0
    out, err = capsys.readouterr()
    scope = out.removesuffix("\n")
    body = '\'{"records":[{"client_received_start_timestamp":1700000000000}]}\''
    line = f"curl -i http://127.0.0.1:9000/analytics/{scope} -H 'Content-Type: application/json' -d {body}"
    assert line in err
    path = directory / "axcollector-data" / "registry.db"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with Registry.open(str(path)) as made:
        tenant = made.tenant_of_scope(scope)
    assert tenant is not None
    assert (tenant.organization, tenant.environment) == ("acme", "prod")


def test_scope_add_with_configuration(directory: Path, capsys: Capture) -> None:
    """The registry's place and the curl line's address come from the configuration; options may stand anywhere."""
    config = directory / "config.yaml"
    config.write_text(f"registry_path: {directory}/other.db\nlisten: 'tcp:8080'\nbase_path: /records\n")
    assert run("scope", "add", "--id", "my-scope", "acme", "prod", "--config", str(config)) == 0
    out, err = capsys.readouterr()
    assert out == "my-scope\n"
    assert "curl -i http://127.0.0.1:8080/records/my-scope -H" in err
    assert run("scope", "list", "-c", str(config), "--json") == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert listed == {
        "scope": "my-scope",
        "organization": "acme",
        "environment": "prod",
        "tenant_id": listed["tenant_id"],
    }
    assert sorted(os.listdir(directory)) == ["config.yaml", "other.db"]


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("tcp:9000:interface=127.0.0.1", ["http://127.0.0.1:9000/analytics/s"]),
        ("tcp:port=80", ["http://127.0.0.1:80/analytics/s"]),
        ("tcp:80:10.0.0.1", ["http://10.0.0.1:80/analytics/s"]),
        (r"tcp6:9000:interface=\:\:1", ["http://[::1]:9000/analytics/s"]),
        (r"tcp6:9000:interface=\:\:", ["http://127.0.0.1:9000/analytics/s"]),
        ("ssl:443:privateKey=k", ["https://127.0.0.1:443/analytics/s"]),
        ("unix:/run/ax sock", ["--unix-socket", "/run/ax sock", "http://localhost/analytics/s"]),
    ],
)
def test_curl_lines(endpoint: str, expected: list[str]) -> None:
    """The line asks the place that the collector listens at."""
    words = shlex.split(curl_line(endpoint, "/analytics", "s"))
    assert words[2:-4] == expected


def test_scopes_are_listed_and_removed(registry: str, capsys: Capture) -> None:
    """`scope list` shows a table or an array, `scope remove` removes; an unknown one is an error."""
    assert run("scope", "list", "--registry", registry) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["scope", "organization", "environment", "tenant_id"]
    assert line.split() == ["s", "acme", "prod", "t"]
    assert run("scope", "remove", "s", "--registry", registry) == 0
    assert run("scope", "list", "--registry", registry, "--json") == 0
    assert capsys.readouterr().out == "[]\n"
    assert run("scope", "remove", "s", "-r", registry) == 1
    assert capsys.readouterr().err.startswith(f"axcollector: {registry} has no scope s; `axcollector scope list`")


def test_keys_are_added_listed_and_removed(registry: str, capsys: Capture) -> None:
    """`key add` prints the client id, given or made; `key list` shows it; `key remove` removes it."""
    at = ("--registry", registry)
    whose = ("--product", "gold", "--app", "weather", "--developer", "ada", "--email=ada@example.com")
    assert run("key", "add", "s", *whose, *at) == 0
    made = capsys.readouterr().out.strip()
    assert run("key", "add", *at, "s", "k", "-p", "gold", "-a", "trains", "--company", "ACME") == 0
    assert capsys.readouterr().out == "k\n"
    with Registry.open(registry) as opened:
        expected = {"k": DeveloperInfo("gold", "trains", "", "ACME")}
        expected[made] = DeveloperInfo("gold", "weather", "ada@example.com", "ada")
        assert opened.developers("t", [made, "k"]) == expected
    assert run("key", "list", "s", "--json", *at) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {"scope": "s", "client_id": "k", "product": "gold", "app": "trains"}.items() <= next(
        each for each in listed if each["client_id"] == "k"
    ).items()
    assert run("key", "add", "s", made, *whose, *at) == 1
    assert f"has key {made} with product gold and app weather already" in capsys.readouterr().err
    assert run("key", "remove", "s", "k", "--product", "tin", *at) == 1
    assert run("key", "remove", "s", "k", *at) == 0
    assert run("key", "remove", "s", "k", *at) == 1
    assert "has no key k in scope s" in capsys.readouterr().err
    assert run("key", "list", *at) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["client_id", made]


def test_what_was_done_as_json(registry: str, capsys: Capture) -> None:
    """With --json, `add` prints what it made as the lists show it, and `remove` what it removed."""

    def printed(*argv: str) -> object:
        assert run(*argv, "--json", "-r", registry) == 0
        return json.loads(capsys.readouterr().out)

    scope = printed("scope", "add", "acme", "prod", "--id", "s2")
    assert scope == {"scope": "s2", "organization": "acme", "environment": "prod", "tenant_id": "t"}
    assert scope in printed("scope", "list")  # type: ignore[operator]
    key = printed("key", "add", "s", "k", "-pgold", "-aweather", "-dada", "-eada@example.com")
    assert [key] == printed("key", "list")
    printed("key", "add", "s", "k", "-ptin", "-aweather", "-dada")
    assert printed("key", "remove", "s", "k", "-ptin") == {
        "scope": "s",
        "client_id": "k",
        "product": "tin",
        "removed": 1,
    }
    assert printed("key", "remove", "s", "k") == {"scope": "s", "client_id": "k", "removed": 1}
    assert printed("scope", "remove", "s2") == {"scope": "s2", "removed": 1}


def test_what_a_terminal_would_obey_is_escaped(registry: str, capsys: Capture) -> None:
    """Names come from elsewhere: in tables and messages control characters are written as escapes."""
    assert run("key", "add", "s", "k", "-p", "\x1b[2J", "-a", "a\nb", "-d", "ada", "-r", registry) == 0
    capsys.readouterr()
    assert run("key", "list", "-r", registry) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert line.split()[2:4] == [r"\x1b[2J", r"a\nb"]
    assert run("scope", "remove", "\x1b", "-r", registry) == 1
    assert r"has no scope \x1b;" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (
            [],
            f"a command is missing, one of {', '.join(COMMANDS)}; see `axcollector --help`",
        ),
        (["scope"], "a command is missing, one of add, list, remove; see `axcollector scope --help`"),
        (["nonsense"], "unknown command: nonsense; see `axcollector --help`"),
        (["key", "nonsense"], "unknown command: nonsense; see `axcollector key --help`"),
        (["--nonsense"], "option --nonsense not recognized; see `axcollector --help`"),
        (["scope", "add", "acme"], "missing: ENV; see `axcollector scope add --help`"),
        (["scope", "add", "acme", "prod", "x"], "too many arguments: x; see `axcollector scope add --help`"),
        (["scope", "list", "--nonsense"], "option --nonsense not recognized; see `axcollector scope list --help`"),
        (["scope", "add", "a", "e", "--id", "../x"], "--id: '../x' is no scope's id; allowed are"),
        (["scope", "add", "a", "e", "--id="], "--id: '' is no scope's id; allowed are"),
        (["key", "add", "s"], "missing: --product, --app, --developer or --company; see"),
        (["key", "add", "s", "", "-pp", "-aa", "-dd"], "the client id is empty; leave it out"),
        (["key", "add", "s", "k", "-pp", "-aa", "--company=c", "-ee"], "--email is the developer's"),
    ],
)
def test_wrong_calls(directory: Path, capsys: Capture, argv: list[str], problem: str) -> None:
    """A wrong call is status 2 and one line that says what is wrong; nothing is done."""
    assert run(*argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"axcollector: {problem}")
    assert err.count("\n") == 1
    assert os.listdir(directory) == []


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["scope", "list"], "there is no registry"),
        (["scope", "remove", "s"], "there is no registry"),
        (["key", "add", "s", "-pp", "-aa", "-dd"], "there is no registry"),
        (["scope", "list", "--registry", "/dev/null"], "/dev/null is no registry: it has no table data_scope"),
        (["scope", "add", "a", "e", "--config", "missing.yaml"], ""),
        (["scope", "add", "x" * 200, "e"], ""),
        (["scope", "add", "", "e"], ""),
        (["scope", "add", "a", "e", "--registry", "/dev/null/r.db"], "the registry /dev/null/r.db cannot be used"),
    ],
)
def test_failures(directory: Path, capsys: Capture, argv: list[str], problem: str) -> None:
    """What fails is status 1 and one line."""
    assert run(*argv) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"axcollector: {problem}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["scope"],
        ["scope", "add"],
        ["scope", "list"],
        ["scope", "remove"],
        ["key"],
        ["key", "add"],
        ["key", "list"],
        ["key", "remove"],
        ["import"],
        ["export"],
        ["completion"],
    ],
)
def test_help_and_version(capsys: Capture, command: list[str]) -> None:
    """Every command has a help with an example, and tells the version."""
    assert run(*command, "--help") == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: {' '.join(['axcollector', *command])}")
    assert re.search(r"Example: (axcollector|source <\(axcollector)", " ".join(out.split()))
    assert run(*command, "--version") == 0
    assert capsys.readouterr().out == f"axcollector {__version__}\n"


def test_output_that_cannot_be_written(registry: str) -> None:
    """A full device behind stdout is one line, not the interpreter's complaint at its end besides."""
    script = "from axcollector.cli import main; main()"
    command = [sys.executable, "-c", script, "scope", "list", "--registry", registry]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr == b"axcollector: [Errno 28] No space left on device: 'standard output'\n"


def test_a_reader_that_goes_away(registry: str) -> None:
    """Output nobody reads any more ends the command without a word."""
    script = "from axcollector.cli import main; main()"
    command = [sys.executable, "-c", script, "scope", "list", "--registry", registry]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_no_reactor_is_installed(registry: str) -> None:
    """The command line needs no reactor."""
    script = (
        "import sys; from axcollector.cli import main; main();sys.exit(3 * ('twisted.internet.reactor' in sys.modules))"
    )
    command = [sys.executable, "-W", "error", "-c", script, "scope", "list", "--registry", registry]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
