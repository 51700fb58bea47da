"""`axcollector check-config`: what the start would say, without a start."""

import json
import os
import socket
from pathlib import Path

import pytest

from axcollector.cli import main
from axcollector.locks import Lock

Capture = pytest.CaptureFixture[str]


def run(*argv: str) -> int:
    """The exit status of `axcollector check-config` with these arguments."""
    try:
        main(["check-config", *argv])
    except SystemExit as exc:
        return int(exc.code or 0)
    return 0


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of our own, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(here: Path, text: str) -> str:
    """A configuration with this text, on ports that nobody uses."""
    given = "" if "listen:" in text else "listen: tcp:0\n"
    (here / "c.yaml").write_text(f"{given}admin_listen: tcp:0:interface=127.0.0.1\n{text}")
    return "c.yaml"


def free_port() -> int:
    """A port that nobody uses at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_what_a_unit_adds(here: Path, capsys: Capture) -> None:
    """Options of the service behind `--` win over the file; what is wrong with them is told as the service would."""
    path = written(here, "collection_interval: 60\n")
    assert run(path, "--", "--collection-interval", "30", "--listen=tcp:0:interface=127.0.0.1") == 0
    out, _ = capsys.readouterr()
    assert "  collection_interval: 30\n" in out
    assert "take records at tcp:0:interface=127.0.0.1;" in out
    assert run(path, "--", "--workers", "-3") == 1
    assert "would not start" in capsys.readouterr().err
    assert run(path, "--", "--nonesuch") == 1
    for wrong in (["--config", "other.yaml"], ["other.yaml"]):
        assert run(path, "--", *wrong) == 2


def test_it_would_start(here: Path, capsys: Capture) -> None:
    """What it would do, which settings differ from the defaults, what it would warn of; nothing is made."""
    assert (
        run(written(here, "bearer_token: very-secret\ncollection_interval: 60\nuap_server_base: https://s.example/\n"))
        == 0
    )
    out, err = capsys.readouterr()
    assert out.startswith("the service would start, and take records at tcp:0;\ndata in ")
    assert "files go to https://s.example" in out
    assert "  collection_interval: 60\n" in out
    assert '  bearer_token: "(set, not shown)"\n' in out
    assert "upload_interval" not in out
    assert err.startswith("warning: whoever reaches tcp:0 can send records for any scope")
    assert "very-secret" not in out + err
    assert sorted(os.listdir(here)) == ["c.yaml"]


def test_json(here: Path, capsys: Capture) -> None:
    """Everything in force, secrets and passwords masked; also of what would not start."""
    text = "listen: unix:s\nadmin_token: very-secret\nupload_proxy: http://u:pass-word@proxy:3128\nworkers: 1\n"
    assert run(written(here, text), "--json") == 0
    out = capsys.readouterr().out
    found = json.loads(out)
    assert (found["ok"], found["problem"], found["warnings"]) == (True, None, [])
    assert found["settings"]["listen"] == ["unix:s"]
    assert found["settings"]["upload_interval"] == 5.0
    assert found["settings"]["admin_token"] == "(set, not shown)"
    assert found["settings"]["bearer_token"] is None
    assert "proxy:3128" in found["settings"]["upload_proxy"]
    assert "very-secret" not in out
    assert "pass-word" not in out
    assert run(written(here, "colection_interval: 5\n"), "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["settings"]) == (False, None)
    assert found["problem"].startswith("'colection_interval' is no key of the configuration; the nearest is")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("collection_interval: soon\n", "collection_interval: 'soon' is not allowed; allowed is "),
        ("listen: axtls:0:certificate=none.pem:key=none.key\n", "listen: "),
        ("listen: strange:1\n", "listen: 'strange:1' is no endpoint that can be used: "),
        ("local_storage_path: c.yaml\n", "c.yaml is no directory: move it away"),
        ("listen: unix:none/s\n", "the service would not start"),
    ],
)
def test_it_would_not(here: Path, capsys: Capture, text: str, complaint: str) -> None:
    """One line, with the words of the start."""
    if "unix" in text:
        (here / "none").write_text("")
    assert run(written(here, text)) == 1
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1
    assert "axcollector: the service would not start: " in lines[0]
    assert complaint in lines[0]


def test_no_such_file(here: Path, capsys: Capture) -> None:
    """It is told as the start tells it."""
    assert run("none.yaml") == 1
    assert "none.yaml" in capsys.readouterr().err


def test_whose_directory(here: Path, capsys: Capture) -> None:
    """What others could write is refused, as at the start, be it the data directory or a stage."""
    directory = here / "axcollector-data"
    (directory / "ax" / "tmp").mkdir(parents=True)
    (directory / "ax" / "tmp").chmod(0o777)
    assert run(written(here, "")) == 1
    assert "ax/tmp can be written by others (its mode is 0777)" in capsys.readouterr().err
    (directory / "ax" / "tmp").chmod(0o700)
    assert run(written(here, "")) == 0


@pytest.mark.parametrize("kind", ["tcp:{}:interface=127.0.0.1", "tcp:{}:127.0.0.1"])
def test_ports(here: Path, capsys: Capture, kind: str) -> None:
    """A port that somebody has is told in Twisted's words; while a collector runs there, ports are not looked at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        text = written(here, f"listen: {kind.format(server.getsockname()[1])}\n")
        assert run(text) == 1
        assert "Couldn't listen on 127.0.0.1:" in capsys.readouterr().err
        (here / "axcollector-data").mkdir()
        lock = Lock(str(here / "axcollector-data" / "lock"))
        lock.acquire()
        assert run(text) == 0
        assert f"note: a collector runs in {here}/axcollector-data at this moment" in capsys.readouterr().err
        lock.release()
        assert run(text) == 1


def test_what_would_not_work(here: Path, capsys: Capture) -> None:
    """It would start, but deliver nothing: that is a warning."""
    (here / "store").write_text("")
    listen = f"listen: tcp:{free_port()}:interface=127.0.0.1\n"
    text = f"store: file:{here}/store/below\nbearer_token_file: none\nregistry_path: .\n"
    assert run(written(here, listen + text)) == 0
    warnings = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[2].split(" ")[1] for line in warnings] == [
        "registry_path:",
        "bearer_token_file:",
        "store:",
    ]


def test_sockets_of_systemd(here: Path, capsys: Capture) -> None:
    """Only the service gets them, so that they are no reason against a start; certificates beside them are read."""
    text = "listen: [systemd:domain=INET:name=a, systemd:domain=UNIX:name=b]\nworkers: 2\n"
    assert run(written(here, text)) == 0
    assert "note: whether systemd has the sockets for the service cannot be told from here\n" in capsys.readouterr().err
    assert run(written(here, "listen: axtls:systemd=a:certificate=none.pem:key=none.key\n")) == 1
    assert "none.pem" in capsys.readouterr().err
