"""Importing axcollector chooses no reactor for the program that does it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).parent.parent / "axcollector"
WITH_KLEIN: Final = ("webapi", "admin", "signer", "doors")
"""These import klein, which installs the default reactor; nobody else loads them as long as nothing is started."""

SCRIPT: Final = """
import importlib, json, sys
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
print(json.dumps([name for name in ("klein", "twisted.internet.reactor") if name in sys.modules]))
"""


def names_of_modules() -> list[str]:
    """The full names of all modules but those that are built on klein."""
    names = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = [part for part in path.relative_to(PACKAGE).with_suffix("").parts if part != "__init__"]
        if not parts or (parts[0] not in WITH_KLEIN and parts[-1] != "__main__"):
            names.append(".".join(["axcollector", *parts]))
    return names


def test_no_import_installs_a_reactor() -> None:
    """Everything that is not built on klein can be imported before a reactor is chosen."""
    names = names_of_modules()
    assert {"axcollector", "axcollector.collector", "axcollector.tap"} <= set(names)
    command = [sys.executable, "-W", "error", "-c", SCRIPT, json.dumps(names)]
    result = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    assert (result.stderr, result.stdout) == ("", "[]\n")
