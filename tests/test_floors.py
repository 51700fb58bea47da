"""The shape of the package: no import points to a higher floor, and modules and functions stay small.

A module that is not in `FLOORS` fails: whoever adds one says on which floor it belongs.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import pytest

PACKAGE: Final = Path(__file__).parent.parent / "axcollector"

FLOORS: Final = {
    0: {""},
    1: {"core"},
    2: {
        "locks",
        "disk",
        "courtesy",
        "directories",
        "registry",
        "registry_file",
        "registry_bulk",
        "registry_log",
        "registry_changes",
        "clock_steps",
        "sqlite_file",
        "tokens",
        "services",
        "apart",
        "threads",
        "on_stop",
        "unwaited",
        "fairness",
        "premises",
        "bugs",
        "log_json",
        "ownership",
        "aside",
        "reserve",
        "room",
        "quarantine",
        "quarantine_files",
        "regular",
        "tls_files",
        "buckets",
        "backlog",
        "failed",
        "stores",
        "record_counts",
        "stages",
    },
    3: {
        "token_watch",
        "journal",
        "spool",
        "splitter",
        "split_files",
        "takeover",
        "draining",
        "members",
        "salvager",
        "closing",
        "access",
        "intake",
        "large",
        "uploader",
        "outcomes",
        "surveying",
        "supply",
        "sync",
        "inventory",
        "inspection",
        "verification",
        "stopped",
    },
    4: {
        "config",
        "config_keys",
        "config_values",
        "config_urls",
        "config_endpoints",
        "exposure",
        "config_file",
        "config_yaml",
        "bearer",
        "destination",
        "plans",
        "upstream",
        "gathering",
        "ingesting",
        "delivering",
        "emptying",
        "collector",
        "workers",
    },
    5: {
        "sending",
        "answers",
        "doors",
        "openapi",
        "heads",
        "reception",
        "conversation",
        "connections",
        "channel",
        "twisted_channel",
        "llhttp_channel",
        "llhttp_parts",
        "running",
        "usual",
        "usual_channel",
        "outlet",
        "routes",
        "door",
        "site",
        "webapi",
        "admin",
        "signer",
        "client",
        "client_journals",
        "client_requests",
        "client_spool",
        "fleet",
        "persistent",
        "complaints",
        "buffer",
        "listening",
        "handing",
        "tls",
        "api",
    },
    6: {
        "launch",
        "hangup",
        "log_files",
        "log_format",
        "notify",
        "reloading",
        "supervised",
        "assembly",
        "worker",
        "worker_pipe",
        "tap",
        "signer_tap",
        "cli",
    },
}
"""The first part of a module's name behind `axcollector.`, by floor; the package itself holds nothing but a text."""

MAY_IMPORT: Final = {
    "klein": {"webapi", "admin", "signer"},
    "treq": {"stores", "client"},
    "axcollector.stores.transfer": {"stores", "sync.transicator", "sync.transicator_client", "client"},
    "botocore": {"stores"},
    "prometheus_client": {"admin"},
    "axcollector.config": {
        "api",
        "config_file",
        "destination",
        "plans",
        "ingesting",
        "delivering",
        "emptying",
        "collector",
        "workers",
        "doors",
        "assembly",
        "worker",
        "cli",
        "tap",
    },
    "twisted.internet.reactor": {"tap", "worker", "signer_tap", "cli"},
}
"""Who alone may import what; here and below a name stands for a module and everything in it."""

CORE_MAY_IMPORT: Final = {*sys.stdlib_module_names, "msgspec", "isal", "zlib_ng", "axcollector"}
MAX_MODULE_LINES: Final = 300
MAX_FUNCTION_LINES: Final = 40


@dataclass(frozen=True)
class Module:
    """A module of ours.

    Attributes:
        name: Its name behind `axcollector.`; the package itself has none.
        source: Its text.
        tree: Its syntax tree.
        imports: The full names of all that it imports, inside functions too.
    """

    name: str
    source: str
    tree: ast.Module
    imports: frozenset[str]

    def __str__(self) -> str:
        return self.name or "axcollector"


def imports_of(tree: ast.Module) -> Iterator[str]:
    """The full names of what is imported; of `from a import b` it is `a.b`, which may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def modules() -> tuple[Module, ...]:
    """Every module of the package."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
        name = ".".join(part for part in parts if part != "__init__")
        found.append(Module(name, source, tree, frozenset(imports_of(tree))))
    return tuple(found)


def is_within(name: str, outer: str) -> bool:
    """Whether `name` is `outer`, or something in it."""
    return name == outer or name.startswith(outer + ".")


def ours(module: Module) -> set[str]:
    """What a module imports of the package, by full names."""
    return {name for name in module.imports if is_within(name, "axcollector") and name != "axcollector"}


def ours_within(module: Module, part: str) -> set[str]:
    """What a module imports of a part of the package."""
    return {name for name in ours(module) if is_within(name, f"axcollector.{part}")}


def floor_of(name: str) -> int:
    """The floor of a module, or of something in one, by its name behind `axcollector.`."""
    first = name.partition(".")[0]
    floors = [floor for floor, names in FLOORS.items() if first in names]
    assert len(floors) == 1, f"axcollector.{first} needs one floor: add it to FLOORS"
    return floors[0]


def test_no_import_points_to_a_higher_floor() -> None:
    """A module imports from its own floor and those below."""
    higher = {
        (module.name, name)
        for module in modules()
        for name in ours(module)
        if name != "axcollector.__version__" and floor_of(name[len("axcollector.") :]) > floor_of(module.name)
    }
    assert higher == set()


@pytest.mark.parametrize("library", MAY_IMPORT)
def test_some_imports_are_for_few(library: str) -> None:
    """What installs a reactor, talks to the network or knows the whole configuration is imported in few places."""
    importers = {module.name for module in modules() if any(is_within(name, library) for name in module.imports)}
    assert {name for name in importers if not any(is_within(name, each) for each in MAY_IMPORT[library])} == set()


def test_the_core_is_pure() -> None:
    """The core imports the standard library, msgspec, the deflate libraries and itself."""
    others = {
        (module.name, name)
        for module in modules()
        if is_within(module.name, "core")
        for name in module.imports
        if name.partition(".")[0] not in CORE_MAY_IMPORT or name in ours(module) - ours_within(module, "core")
    }
    assert others == set()


def test_modules_are_small() -> None:
    """A module holds one idea, which does not take more than so many lines."""
    lines = {module.name: module.source.count("\n") for module in modules()}
    assert {name: count for name, count in lines.items() if count > MAX_MODULE_LINES} == {}


def test_functions_are_short() -> None:
    """A function, without its docstring, is seen at a glance."""
    lines = {
        f"{module}.{node.name}": lines_without_docstring(node)
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: count for name, count in lines.items() if count > MAX_FUNCTION_LINES} == {}


def lines_without_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many lines a function has; its docstring is no code."""
    assert node.end_lineno is not None
    first = node.body[0]
    documented = ast.get_docstring(node, clean=False) is not None
    docstring = first.end_lineno - first.lineno + 1 if documented and first.end_lineno else 0
    return node.end_lineno - node.lineno + 1 - docstring
