"""Every log call of the package, read from its source: formats of events, their levels, names of their fields."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

PACKAGE: Final = Path(__file__).parent.parent / "axcollector"
LEVELS: Final = ("debug", "info", "warn", "error", "critical")
PASSED_ON: Final = {
    "report": ("critical",),
    "_report": ("error",),
    "_full": ("warn",),
    "Trouble": ("error", "info"),
}
"""Functions of ours that are given formats, and the levels that they log them with, in order."""
PASSES_ON: Final = {
    "bugs.report",
    "splitter._report",
    "connections._full",
    "sync.transicator_trouble.met",
    "sync.transicator_trouble.over",
}
"""Where those functions do so; nowhere else is a format anything but a constant."""


class Event(NamedTuple):
    """A kind of event.

    Attributes:
        format: Its text, with the names of its fields.
        level: Its level, of several the highest; or "any".
        fields: What it is logged with, as far as names are given.
        place: The function that logs it.
    """

    format: str
    level: str
    fields: frozenset[str]
    place: str


def events() -> list[Event]:
    """All of them.

    Raises:
        AssertionError: A format is no constant, where it is not known that it is passed on.
    """
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found += _of_function(node, f"{module}.{node.name}")
    return found


def _of_function(function: ast.FunctionDef | ast.AsyncFunctionDef, place: str) -> Iterator[Event]:
    for call in _calls(function):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        fields = frozenset(keyword.arg for keyword in call.keywords if keyword.arg)
        if name in PASSED_ON:
            texts = (text for each in call.args if (text := _constant(each)) is not None)
            yield from (Event(text, level, fields, place) for text, level in zip(texts, PASSED_ON[name], strict=False))
        elif _is_log(call.func) and name in {*LEVELS, "failure", "emit"}:
            text = _constant(call.args[1 if name == "emit" else 0])
            if text is None:
                assert place in PASSES_ON, f"{place} logs a format that is no constant; see {__name__}.PASSES_ON"
                continue
            yield Event(text, _level(name, call), fields, place)


def _calls(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.Call]:
    """What a function calls, not those within it, which are looked at by themselves."""
    waiting = list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.Call):
            yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += ast.iter_child_nodes(node)


def _is_log(function: ast.expr) -> bool:
    """Whether it is a method of what is called a log."""
    if not isinstance(function, ast.Attribute):
        return False
    receiver = function.value
    name = receiver.attr if isinstance(receiver, ast.Attribute) else getattr(receiver, "id", "")
    return bool(name.endswith("log"))


def _constant(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _level(name: str, call: ast.Call) -> str:
    if name != "emit":
        return "critical" if name == "failure" else name
    named = {node.attr for node in ast.walk(call.args[0]) if isinstance(node, ast.Attribute)}
    return max(named & set(LEVELS), key=LEVELS.index, default="any")
