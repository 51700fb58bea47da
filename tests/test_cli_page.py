"""The page on the command, and its help: whatever they show can be called so."""

import re
import shlex
from pathlib import Path

import pytest
from twisted.python import usage

from axcollector.cli import Options

PAGE = (Path(__file__).parent.parent / "docs" / "cli.rst").read_text()
SHOWN = re.findall(r"^   \$ (?:[\w-]+ \| )?axcollector (.*?)(?: \| head -1)?(?: {3,}#.*)?$", PAGE, re.MULTILINE)
COMMANDS = [name for name, *_ in Options.subCommands]


def parsed(line: str) -> usage.Options:
    """The options of the innermost command of a line."""
    options = Options()
    options.parseOptions(shlex.split(line))
    while getattr(options, "subCommand", None):
        options = options.subOptions
    return options


def leaves(options: usage.Options) -> list[usage.Options]:
    """The commands below a command, or itself."""
    below = [parser() for _, _, parser, _ in getattr(options, "subCommands", ())]
    return [leaf for each in below for leaf in leaves(each)] or [options]


@pytest.mark.parametrize("line", SHOWN)
def test_what_the_page_shows(line: str) -> None:
    """Every line could be typed."""
    assert hasattr(parsed(line.replace("…", "x").replace("SCOPE", "s")), "run")


def test_every_command_is_on_the_page() -> None:
    """Whatever command there is, is shown."""
    shown = {line.split()[0] for line in SHOWN} | {"completion", "demo", "signer-token"}
    assert set(COMMANDS) == shown


def test_examples_in_the_help() -> None:
    """Every command's help ends in an example, which could be typed; every new one has --json."""
    for leaf in leaves(Options()):
        match = re.search(r"Example: (?:source <\()?axcollector (.*?)\)?$", leaf.longdesc)
        assert match is not None, leaf
        assert type(parsed(match[1])) is type(leaf)
    for name in ("check-config", "status", "ls", "cat", "verify", "retry", "drain", "send"):
        (parser,) = (each[2] for each in Options.subCommands if each[0] == name)
        assert "json" in parser().longOpt
