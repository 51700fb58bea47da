"""The Tab key: what zsh is answered, and what a real bash offers."""

import subprocess
import sys
from pathlib import Path

import pytest
from twisted.python import usage

from axcollector.cli import Options, main
from axcollector.cli.completion import answer, bash_function


def zsh(*words: str) -> str:
    """What zsh is answered when the last of these words is to be completed."""
    return answer(Options(), [*words, "--_shell-completion", f"zsh:{len(words) + 1}"])


@pytest.mark.parametrize(
    ("words", "offered", "not_offered"),
    [
        (["sc"], ['"scope:The ids', '"import:', '"completion:'], ["--registry"]),
        (["--"], ["--version", "--help"], ["_describe"]),
        (["scope", ""], ['"add:Add a scope', '"remove:'], ["--registry", '"import:']),
        (["scope", "add", "--i"], ["'--id=[Its id", "--registry=", "--json"], ["--product", '"add:']),
        (["key", "add", "s", "k", "--p"], ["--product="], ["--id"]),
        (["key", "remove", "--app", "a", "--"], ["--product="], ["--email"]),
        (["import", "fi"], ["_files", "--replace"], ["_describe"]),
        (["completion", ""], ["(bash zsh)"], []),
        (["verify", ""], ["(tmp recovered staging failed quarantine)"], []),
        (["send", "s", "fi"], ["_files", "--retry-seconds"], ["_describe"]),
        (["status", "--"], ["--watch", "--token-file="], ["_describe"]),
        (["nonsense", "x", ""], ['"scope:The ids'], []),
    ],
)
def test_what_zsh_is_answered(words: list[str], offered: list[str], not_offered: list[str]) -> None:
    """Subcommands of both levels, their options and files; what belongs elsewhere is not offered."""
    code = zsh(*words)
    assert code.startswith("#compdef ")  # what follows is the name that the process was called by
    assert [each for each in offered if each not in code] == []
    assert [each for each in not_offered if each in code] == []


def test_options_behind_arguments() -> None:
    """For a subcommand's own options zsh does not stop at the first argument, for the command's it does."""
    command, _, own = zsh("import", "file", "--").partition("'*::subcmd:->subcmd'")
    assert command.count('-A "-*"') == 1
    assert '-A "-*"' not in own


def test_free_texts_are_no_files() -> None:
    """Where nobody can guess the value, no files are offered."""
    assert "--product=[The API product's name]:product:\"" in zsh("key", "add", "--")


def test_as_the_shells_call_it() -> None:
    """The command, run as zsh runs it, answers and does nothing else; the functions are printed for both shells."""
    script = "import sys; sys.argv[0] = '/bin/axcollector'; from axcollector.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, "scope", "add", "--_shell-completion", "zsh:3"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("#compdef axcollector\nshift words\n(( CURRENT-- ))\n#compdef axcollector\n")
    assert done.stderr == ""


def test_the_functions(capsys: pytest.CaptureFixture[str]) -> None:
    """`completion` prints the function of the shell that it is asked for, and knows two."""
    main(["completion", "zsh"])
    out = capsys.readouterr().out
    assert out.startswith("#compdef axcollector\n")
    assert "--_shell-completion zsh:$CURRENT" in out
    main(["completion", "bash"])
    assert capsys.readouterr().out == bash_function(Options())
    with pytest.raises(SystemExit) as ended:
        main(["completion", "fish"])
    assert ended.value.code == 2
    assert "'fish' is no shell known here; allowed are bash, zsh;" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["s"], ["scope", "send", "signer-token", "status"]),
        (["ls", ""], ["failed", "quarantine", "recovered", "staging", "tmp"]),
        (["cat", "ro"], ["rows and more.jsonl", "rows.d"]),
        (["drain", "--pa"], ["--patience"]),
        (["check-config", "ro"], ["rows and more.jsonl", "rows.d"]),
        (["scope", ""], ["add", "list", "remove"]),
        (["scope", "add", "acme", "--i"], ["--id"]),
        (["import", "ro"], ["rows and more.jsonl", "rows.d"]),
        (["import", "rows.jsonl", "--re"], ["--registry", "--replace"]),
        (["scope", "list", "--registry", "rows."], ["rows.d"]),
        (["scope", "list", "--registry", "=", "rows."], ["rows.d"]),
        (["scope", "list", "--registry", "="], ["rows and more.jsonl", "rows.d"]),
        (["key", "add", "-p", ""], []),
        (["demo", "-d", ""], ["rows.d"]),
        (["completion", ""], ["bash", "zsh"]),
    ],
)
def test_what_bash_offers(tmp_path: Path, line: list[str], expected: list[str]) -> None:
    """A real bash with our function offers subcommands, options, files and directories."""
    (tmp_path / "rows.d").mkdir()
    (tmp_path / "rows and more.jsonl").touch()
    script = bash_function(Options()) + (
        'COMP_WORDS=(axcollector "$@"); COMP_CWORD=$#; _axcollector; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", *line], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert sorted(done.stdout.split("\n")[:-1]) == (sorted(expected) or [""])
    assert done.stderr == ""


def test_every_command_is_there() -> None:
    """Whatever command there is, it is completed: the functions are made from the commands' own tables."""
    text = bash_function(Options())
    for name, _, parser, _ in Options.subCommands:
        below: usage.Options = parser()
        assert f"        /{name}) " in text
        for inner, *_ in getattr(below, "subCommands", ()):
            assert f"        /{name}/{inner}) " in text
