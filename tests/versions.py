"""Do the declared minimums do, and the newest? `python -m tests.versions oldest newest --python 3.11 3.13`.

For each Python (by default this one) and each choice of versions an environment is made: `oldest` has of everything
that setup.py requires exactly the version that it names, `newest` whatever there is. A core of the tests is run in it:
what talks to Twisted, klein, treq, msgspec, httptools, isal and TLS; with `--all` every test that is not slow. It needs
the network. `--python` takes versions that are on the path (`python3.13`), or paths. Exit status 1 where anything
failed.
"""

import argparse
import ast
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
TOOLS = ("pytest", "pytest-twisted", "hypothesis")
ALL_TOOLS = (*TOOLS, "botocore", "schemathesis<5", "pytest-xdist")
CORE = (
    *(
        "api",
        "collector",
        "config",
        "messages",
        "payload",
        "pipeline",
        "records",
        "site",
        "spool",
        "store_signed",
        "threads",
    ),
    *("tap", "tls", "transicator_json", "uploader", "webapi", "example_gateway", "examples", "jsontext", "frames"),
)
"""The files of the core, behind `tests/test_`."""

LEFT_OUT = {
    "tests/test_listening.py::test_a_port_that_is_taken": "Twisted before 26.4 does not close the socket",
    "tests/test_wheel.py": "makes environments of its own",
}
"""What `--all` does not run, and why."""


def declared() -> list[Requirement]:
    """What setup.py requires at run time."""
    calls = [node for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())) if isinstance(node, ast.Call)]
    [texts] = [word.value for call in calls for word in call.keywords if word.arg == "install_requires"]
    return [Requirement(text) for text in ast.literal_eval(texts)]


def oldest(requirement: Requirement) -> str:
    """A requirement of exactly the least version that another allows, such as `treq==24.9.1`."""
    [least] = [each.version for each in requirement.specifier if each.operator == ">="]
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    marker = f"; {requirement.marker}" if requirement.marker else ""
    return f"{requirement.name}{extras}=={least}{marker}"


def wanted(which: str) -> list[str]:
    """What to install."""
    return [oldest(each) if which == "oldest" else str(each) for each in declared()]


def try_out(python: str, which: str, *, everything: bool) -> bool:
    """Whether the tests pass with this Python and these versions; says so."""
    name = f"python{python}" if python[:1].isdigit() else python
    with tempfile.TemporaryDirectory(prefix="axcollector-versions-") as place:
        began = time.monotonic()
        subprocess.run([name, "-m", "venv", place], check=True)
        its_python = f"{place}/bin/python"
        tools = ALL_TOOLS if everything else TOOLS
        pip = [its_python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *tools, *wanted(which)]
        if subprocess.run(pip, check=False).returncode:
            print(f"{name}, {which}: cannot be installed", flush=True)
            return False
        what = ["tests", *(f"--deselect={each}" for each in LEFT_OUT)] if everything else _files()
        command = [its_python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *what]
        passed = subprocess.run(command, cwd=ROOT, check=False).returncode == 0
        seconds = time.monotonic() - began
    print(f"{name}, {which}: {'passed' if passed else 'FAILED'} in {seconds:.0f} s", flush=True)
    return passed


def _files() -> list[str]:
    return [f"tests/test_{name}.py" for name in CORE]


def main() -> int:
    """Try out what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="+", choices=("oldest", "newest"))
    parser.add_argument("--python", nargs="+", default=[sys.executable])
    parser.add_argument("--all", action="store_true", help="run every test that is not slow")
    options = parser.parse_args()
    results = [try_out(python, which, everything=options.all) for python in options.python for which in options.which]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
