"""`axcollector token`: tokens of scopes made, listed and revoked; what is called wrongly or fails."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from axcollector.registry import Registry
from axcollector.tokens import EVERY_NAME, Bound, TokenFile
from tests.commands import run

Capture = pytest.CaptureFixture[str]
TOKENS = "axcollector-data/tokens.db"
ROOT = Path(__file__).parent.parent


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that the command is run in, with a registry where the collector has it by default."""
    monkeypatch.chdir(tmp_path)
    with Registry.create("axcollector-data/registry.db") as registry:
        registry.add_scope("acme", "prod", "s1")
        registry.add_scope("acme", "prod", "s2")
    return tmp_path


def test_new(directory: Path, capsys: Capture) -> None:
    """The token alone goes to stdout; the file lies where the collector looks for it."""
    assert run("token", "new", "s1", "s2", "--expires", "4w", "--label", "gateway 7") == 0
    out, err = capsys.readouterr()
    secret = out.removesuffix("\n")
    assert re.fullmatch(r"axt_[A-Za-z0-9_-]{43}", secret)
    assert secret not in err
    with TokenFile.open(TOKENS, Bound.SCOPES) as file:
        (token,) = file.tokens()
        assert file.book().find(secret, time.time()) == token
    assert (token.names, token.label) == ({"s1", "s2"}, "gateway 7")
    assert token.expires is not None
    assert 0 <= token.expires - token.created - 28 * 86_400 <= 1
    assert err.startswith(f"This is token {token.id}, good for s1, s2 until 20")
    assert err.endswith(
        "It is not shown again: have it sent as `Authorization: Bearer TOKEN`, or as the password of basic"
        " authentication.\n"
    )
    with TokenFile.open(TOKENS, Bound.TENANTS) as file:
        assert file.tokens() == []


def test_new_for_all(directory: Path, capsys: Capture) -> None:
    """`*` stands for all scopes, those too that are not there yet."""
    os.unlink("axcollector-data/registry.db")
    assert run("token", "new", "*") == 0
    assert "good for * until it is revoked" in capsys.readouterr().err
    with TokenFile.open(TOKENS, Bound.SCOPES) as file:
        assert file.tokens()[0].names == {EVERY_NAME}


@pytest.mark.parametrize("unknown", ["nobody", "S1", "", "s1 ", "\x1b[2J"])
def test_a_scope_that_is_not_there(directory: Path, capsys: Capture, unknown: str) -> None:
    """No token is made; the message says what to do, and --force makes one all the same."""
    assert run("token", "new", "s1", unknown) == 1
    out, err = capsys.readouterr()
    registry = directory / "axcollector-data" / "registry.db"
    assert out == ""
    assert err == (
        f"axcollector: no token was made: the registry {registry} has no scope {repr(unknown)[1:-1]};"
        " `axcollector scope list` shows those it has, `axcollector scope add ORG ENV` adds one, and --force makes a"
        " token all the same\n"
    )
    assert not os.path.exists(TOKENS)
    if unknown:
        assert run("token", "new", "--force", unknown) == 0
        with TokenFile.open(TOKENS, Bound.SCOPES) as file:
            assert file.tokens()[0].names == {unknown}


def test_without_a_registry(directory: Path, capsys: Capture) -> None:
    """The message says what to do, likewise; none is made."""
    assert run("token", "new", "s1", "--registry", "other.db") == 1
    err = capsys.readouterr().err
    assert err.startswith("axcollector: no token was made: there is no registry other.db; name it with --registry")
    assert "`axcollector scope add`" in err
    assert "--force" in err
    assert not os.path.exists("other.db")
    assert run("token", "new", "s1", "--registry", "other.db", "-f") == 0


def test_where_things_are(directory: Path, capsys: Capture) -> None:
    """The collector's configuration says where both files are; --tokens and --registry win."""
    with Registry.create("r.db") as registry:
        registry.add_scope("zoo", "prod", "z")
    text = "local_storage_path: data\nregistry_path: r.db\n"
    Path("none.yaml").write_text(text)
    Path("token.yaml").write_text(f"{text}ingest_auth: token\n")
    assert run("token", "new", "z", "--config", "none.yaml") == 0
    assert capsys.readouterr().err.endswith(
        "The collector does not ask for tokens yet: that takes ingest_auth: token.\n"
    )
    assert run("token", "new", "z", "-c", "token.yaml") == 0
    assert "does not ask" not in capsys.readouterr().err
    assert run("token", "new", "s1", "-c", "token.yaml", "-r", "axcollector-data/registry.db", "-t", "t.db") == 0
    capsys.readouterr()
    for options, count in ((["-c", "none.yaml"], 2), (["-t", "t.db"], 1)):
        assert run("token", "list", "--json", *options) == 0
        assert len(json.loads(capsys.readouterr().out)) == count


def test_list_and_revoke(directory: Path, capsys: Capture) -> None:
    """`list` shows all but the tokens themselves, in a table or as JSON; `revoke` takes the id that it shows."""
    assert run("token", "new", "s1", "s2", "--label", "a") == 0
    secret = capsys.readouterr().out.strip()
    with TokenFile.open(TOKENS, Bound.SCOPES) as file:
        (first,) = file.tokens()
        expired, _ = file.add(["x"], 1_000_000_000.0, expires_seconds=60)
    assert run("token", "list") == 0
    out = capsys.readouterr().out
    assert secret not in out
    head, *lines = (line.split(maxsplit=4) for line in out.splitlines())
    assert head == ["id", "label", "created", "expires", "scopes"]
    assert [line[0] for line in lines] == [expired.id, first.id]
    assert lines[1][3:] == ["never", "s1, s2"]
    assert run("token", "list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed[0] == {
        "id": expired.id,
        "label": "",
        "created": "2001-09-09T01:46:40Z",
        "expires": "2001-09-09T01:47:40Z",
        "scopes": ["x"],
    }
    assert (listed[1]["expires"], listed[1]["scopes"]) == (None, ["s1", "s2"])
    assert run("token", "revoke", first.id) == 0
    assert capsys.readouterr() == ("", "")
    assert run("token", "revoke", first.id) == 1
    assert f"has no token {first.id} for scopes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        ([], "a command is missing, one of new, list, revoke; see `axcollector token --help`"),
        (["new"], "missing: SCOPE; see `axcollector token new --help`"),
        (["new", "s1", "--expires", "90"], "--expires: '90' is not allowed; allowed are 90d, 12h, 4w and such"),
        (["revoke"], "missing: ID"),
        (["list", "s1"], "too many arguments: s1"),
    ],
)
def test_wrong_calls(directory: Path, capsys: Capture, argv: list[str], problem: str) -> None:
    """A wrong call is status 2 and one line; nothing is made."""
    assert run("token", *argv) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"axcollector: {problem}")
    assert not os.path.exists(TOKENS)


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["list"], "there is no file of tokens "),
        (["revoke", "x"], "there is no file of tokens "),
        (["list", "--tokens", "/dev/null"], "/dev/null is no file of tokens: it has other tables"),
        (["new", "s1", "--config", "missing.yaml"], "the configuration file missing.yaml cannot be read"),
        (["new", "s1", "--label", "\udcff"], "the file of tokens "),
    ],
)
def test_failures(directory: Path, capsys: Capture, argv: list[str], problem: str) -> None:
    """What fails is status 1 and one line."""
    assert run("token", *argv) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"axcollector: {problem}")


@pytest.mark.parametrize("command", [[], ["new"], ["list"], ["revoke"]])
def test_help(capsys: Capture, command: list[str]) -> None:
    """Every command has a help with an example, and each option once."""
    assert run("token", *command, "--help") == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: {' '.join(['axcollector', 'token', *command])}")
    assert "Example: axcollector" in out
    if command:
        assert (out.count("--config="), out.count("--tokens=")) == (1, 1)


def test_what_scope_add_shows_to_try(directory: Path, capsys: Capture) -> None:
    """With tokens needed, the command that it shows makes one, good for an hour, in the shell that runs it."""
    Path("it's.yaml").write_text("ingest_auth: token\n")
    assert run("scope", "add", "acme", "dev", "--id", "s3", "--config", "it's.yaml") == 0
    line = capsys.readouterr().err.splitlines()[1].strip()
    code = "from axcollector.cli import main; main()"
    ours = f'axcollector() {{ {shlex.quote(sys.executable)} -c {shlex.quote(code)} "$@"; }}'
    script = f'{ours}; set -- {line}; printf "%s\\n" "$@"'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, env=environment)
    words = done.stdout.splitlines()
    assert words[:3] == ["curl", "-i", "http://127.0.0.1:9000/analytics/s3"]
    assert words[-2] == "-H"
    secret = words[-1].removeprefix("Authorization: Bearer ")
    with TokenFile.open(TOKENS, Bound.SCOPES) as file:
        token = file.book().find(secret, time.time())
    assert token is not None
    assert token.names == {"s3"}
