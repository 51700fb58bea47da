"""`axcollector signer-token`: tokens made, listed and revoked; what is called wrongly or fails."""

import json
import os
import re
import time
from pathlib import Path

import pytest

from axcollector.cli import main
from axcollector.tokens import Bound, TokenFile

Capture = pytest.CaptureFixture[str]


def run(*argv: str) -> int:
    """The exit status of `axcollector signer-token` with these arguments."""
    try:
        main(["signer-token", *argv])
    except SystemExit as exc:
        return int(exc.code or 0)
    return 0


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that the command is run in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_new(directory: Path, capsys: Capture) -> None:
    """The token alone goes to stdout; the file lies where the service looks for it without a configuration."""
    assert run("new", "acme~prod", "a b~c", "--expires", "90d", "--label", "gateway 7") == 0
    out, err = capsys.readouterr()
    secret = out.removesuffix("\n")
    assert re.fullmatch(r"axt_[A-Za-z0-9_-]{43}", secret)
    assert secret not in err
    with TokenFile.open("axsigner-data/tokens.db", Bound.TENANTS) as file:
        (token,) = file.tokens()
        assert file.book().find(secret, time.time()) == token
    assert (token.names, token.label) == ({"acme~prod", "a b~c"}, "gateway 7")
    assert token.expires is not None
    assert 0 <= token.expires - token.created - 90 * 86_400 <= 1
    assert err.startswith(f"This is token {token.id}, good for a b~c, acme~prod until 20")


def test_new_for_all_and_for_ever(directory: Path, capsys: Capture) -> None:
    """`*` stands for all tenants; without --expires it is good until it is revoked; options may stand anywhere."""
    assert run("new", "--tokens", "t.db", "*") == 0
    assert "good for * until it is revoked" in capsys.readouterr().err
    with TokenFile.open("t.db", Bound.TENANTS) as file:
        assert file.tokens()[0].covers("anything~at all")


def test_where_the_tokens_are(directory: Path, capsys: Capture) -> None:
    """The service's configuration says it, and --tokens wins."""
    Path("axsigner.yaml").write_text(f"s3_url: s3://bucket\ntokens_path: {directory}/other.db\n")
    assert run("new", "acme~prod", "--config", "axsigner.yaml") == 0
    assert run("new", "acme~prod", "-c", "axsigner.yaml", "-t", "third.db") == 0
    assert sorted(os.listdir(directory)) == ["axsigner.yaml", "other.db", "third.db"]


def test_list_and_revoke(directory: Path, capsys: Capture) -> None:
    """`list` shows all but the tokens themselves, in a table or as JSON; `revoke` takes the id that it shows."""
    assert run("new", "acme~prod", "acme~test", "--label", "\x1b[2J") == 0
    secret = capsys.readouterr().out.strip()
    with TokenFile.open("axsigner-data/tokens.db", Bound.TENANTS) as file:
        (first,) = file.tokens()
        expired, _ = file.add(["a~b"], 1_000_000_000.0, expires_seconds=60)
        forever, _ = file.add(["c~d"], 1_000_000_001.0, expires_seconds=1e15)
    assert run("list") == 0
    out = capsys.readouterr().out
    assert secret not in out
    head, *lines = (line.split(maxsplit=4) for line in out.splitlines())
    assert head == ["id", "label", "created", "expires", "tenants"]
    assert [line[0] for line in lines] == [expired.id, forever.id, first.id]
    assert lines[0][1:] == ["2001-09-09T01:46:40Z", "2001-09-09T01:47:40Z", "(expired)", "a~b"]
    assert lines[1][2:] == ["never", "c~d"]
    assert (lines[2][1], lines[2][3:]) == (r"\x1b[2J", ["never", "acme~prod, acme~test"])
    assert run("list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed[0] == {
        "id": expired.id,
        "label": "",
        "created": "2001-09-09T01:46:40Z",
        "expires": "2001-09-09T01:47:40Z",
        "tenants": ["a~b"],
    }
    assert (listed[2]["expires"], listed[2]["tenants"]) == (None, ["acme~prod", "acme~test"])
    assert run("revoke", first.id) == 0
    assert capsys.readouterr() == ("", "")
    with TokenFile.open("axsigner-data/tokens.db", Bound.TENANTS) as file:
        assert file.tokens() == [expired, forever]


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        ([], "a command is missing, one of new, list, revoke; see `axcollector signer-token --help`"),
        (["new"], "missing: TENANT; see `axcollector signer-token new --help`"),
        (["new", "acme"], "'acme' is no tenant: it has to be {organization}~{environment}"),
        (["new", "acme~prod", "x%20y~z"], "'x%20y~z' is no tenant: a % in it has to be written %25"),
        (["new", "a\nb~c"], r"'a\nb~c' is no tenant: it has a control character in it"),
        (["new", "acme~prod", "--expires", "90"], "--expires: '90' is not allowed; allowed are 90d, 12h, 4w and such"),
        (["new", "acme~prod", "--expires", "0d"], "--expires: '0d' is not allowed"),
        (["new", "acme~prod", "--expires="], "--expires: '' is not allowed"),
        (["revoke"], "missing: ID"),
        (["revoke", "a", "b"], "too many arguments: b"),
        (["list", "acme~prod"], "too many arguments: acme~prod"),
    ],
)
def test_wrong_calls(directory: Path, capsys: Capture, argv: list[str], problem: str) -> None:
    """A wrong call is status 2 and one line; nothing is made."""
    assert run(*argv) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"axcollector: {problem}")
    assert os.listdir(directory) == []


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["list"], "there is no file of tokens "),
        (["revoke", "x"], "there is no file of tokens "),
        (["list", "--tokens", "/dev/null"], "/dev/null is no file of tokens: it has other tables"),
        (["new", "a~b", "--tokens", "/dev/null/t.db"], "the file of tokens /dev/null/t.db cannot be used: "),
        (["new", "a~b", "--config", "missing.yaml"], "the configuration file missing.yaml cannot be read"),
        (["new", "a~b", "--label", "\udcff"], "the file of tokens "),
    ],
)
def test_failures(directory: Path, capsys: Capture, argv: list[str], problem: str) -> None:
    """What fails is status 1 and one line."""
    assert run(*argv) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"axcollector: {problem}")


@pytest.mark.parametrize("command", [[], ["new"], ["list"], ["revoke"]])
def test_help(capsys: Capture, command: list[str]) -> None:
    """Every command has a help with an example."""
    assert run(*command, "--help") == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: {' '.join(['axcollector', 'signer-token', *command])}")
    assert "Example: axcollector" in out
