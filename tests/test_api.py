"""The public names: what they are, what they are called with, and what importing them does not do."""

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, get_args, get_origin

import pytest

from axcollector import api
from tests.docs_blocks import blocks, shows
from tests.test_docs import Shell, shell  # noqa: F401 - a fixture

PINNED = Path(__file__).parent / "public_api.txt"
INTERNAL = {
    "Collector": {"access", "checks", "intake", "problems", "quarantine", "tally", "traffic", "uploader"},
    "SyncListener": {"catalog", "registry", "startService", "stopService"},
    "Config": {"data_directory", "registry_file", "store_url", "tokens_file"},
}
"""What our own modules use of them, and the page on the API does not promise."""


def described() -> str:
    """Every public name, and for each class its bases, its public attributes, and the signatures of its methods."""
    return "".join(f"{line}\n" for name in api.__all__ for line in lines_of(name, getattr(api, name)))


def lines_of(name: str, kind: type) -> Iterator[str]:
    """A class: one line of its own, and one for each of its members."""
    bases = ", ".join(base.__name__ for base in kind.__bases__ if base is not object)
    yield f"class {name}({bases})"
    if "__init__" in vars(kind) and name not in {"Store", "SyncListener"}:  # nobody else makes those
        yield f"    {name}{signature_of(vars(kind)['__init__'])}"
    for member, value in sorted(members_of(kind).items()):
        yield f"    {member}{'' if value is None else signature_of(value)}"


def members_of(kind: type) -> dict[str, object]:
    """The public members that a class of ours and those of ours below it have; functions, or None for what is none."""
    found: dict[str, object] = {}
    for each in reversed([each for each in kind.__mro__ if each.__module__.startswith("axcollector")]):
        names: dict[str, object] = {**dict.fromkeys(getattr(each, "__annotations__", ())), **vars(each)}
        for name, value in names.items():
            if not name.startswith("_") and name not in INTERNAL.get(kind.__name__, ()):
                found[name] = value if inspect.isfunction(value) else None
    return found


def signature_of(function: object) -> str:
    """What a function is called with; defaults that are functions by their names."""
    assert callable(function)
    signature = inspect.signature(function)
    parameters = [
        each.replace(annotation=plain(each.annotation), default=named(each.default))
        for each in list(signature.parameters.values())[1:]
    ]
    return str(signature.replace(parameters=parameters)).replace("'", "")


def plain(annotation: object) -> object:
    """A type, without what is said about it: settings have their own page."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def named(default: object) -> object:
    """A default; a function by its name."""
    return Named(default.__name__) if inspect.isbuiltin(default) or inspect.isfunction(default) else default


class Named:
    """Is shown as a name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


def test_the_names_and_what_they_are_called_with() -> None:
    """What is promised changes by intention only: `python -m tests.test_api` writes it anew, and the diff is read.

    What goes, or is called in another way, has been deprecated before (docs/api.rst); the changelog says so.
    """
    assert described() == PINNED.read_text()


def test_all_of_them_are_there() -> None:
    """Each can be imported by its name, and no other."""
    assert list(api.__all__) == sorted(api.__all__)
    assert {name for name in api.__all__ if not isinstance(getattr(api, name), type)} == set()
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = api.Nothing


QUIET = """
import logging, os, sys, threading
opened = []
def note(event, arguments):
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        opened.append(arguments[0])
sys.addaudithook(note)
before = set(os.listdir("/proc/self/fd"))
import axcollector.api as api
from twisted.logger import globalLogBeginner
loaded = [name for name in ("klein", "twisted.internet.reactor") if name in sys.modules]
begun = globalLogBeginner._temporaryObserver is None
left_open = set(os.listdir("/proc/self/fd")) - before
print(loaded, threading.active_count(), left_open, opened, logging.root.handlers, begun)
api.RecordBuffer, api.Client, api.Collector
print([name for name in ("klein", "twisted.internet.reactor") if name in sys.modules])
api.AnalyticsAPI
print("klein" in sys.modules)
"""


def test_importing_does_nothing() -> None:
    """It installs no reactor, starts no thread, opens and writes no file, and leaves logging alone."""
    said = subprocess.check_output([sys.executable, "-B", "-c", QUIET], text=True, cwd=PINNED.parent.parent)
    assert said.splitlines() == ["[] 1 set() [] [] False", "[]", "True"]


@pytest.mark.slow
def test_types() -> None:
    """A program that uses all of it is checked strictly; and what is wrong is found."""
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-incremental",
        "--config-file=pyproject.toml",
        "tests/api_uses.py",
    ]
    done = subprocess.run(command, cwd=PINNED.parent.parent, capture_output=True, text=True, check=False)
    marked = [
        number
        for number, line in enumerate((PINNED.parent / "api_uses.py").read_text().splitlines(), 1)
        if line.endswith("# wrong")
    ]
    errors = re.findall(r"^tests/api_uses.py:(\d+): error:", done.stdout, re.MULTILINE)
    assert (sorted(set(map(int, errors))), len(marked)) == (marked, 5), done.stdout


@pytest.mark.slow
def test_the_tutorial_on_embedding(shell: Shell) -> None:  # noqa: F811 - a fixture
    """Followed word for word, but for its place, it does what it says."""
    assert (shell.directory / "tutorial").mkdir() is None
    (shell.directory / "place").mkdir()
    shell.ports = {"/tmp/axcollector-embedding": str(shell.directory / "place")}
    files: dict[str, str] = {}
    name, printed, compared = "embedded.py", "", 0
    for language, text, _ in blocks("embedding.rst", "sh", "python", "text"):
        if language == "python":
            name = "gateway.tac" if "application = " in text else "embedded.py"
            files[name] = files.get(name, "") + text + "\n\n"
            (shell.directory / "place" / name).write_text(files[name])
        elif language == "sh":
            printed = shell.run(text)
        else:
            assert shows(text, printed), printed
            compared += 1
    assert compared == 3
    assert set(files) == {"embedded.py", "gateway.tac"}


if __name__ == "__main__":
    PINNED.write_text(described())
