"""Nothing is global: what modules and classes of ours hold is made once, when they are imported, and never changes.

Two collectors in one process would share whatever did. A table (a dict, a set, a list) is all right, as long as no
code changes it; a value is, where its type has nothing that could change. The few others are listed, with the reason.
"""

import ast
import enum
import importlib
import re
import struct
import sys
import types
import typing
from collections.abc import Iterator
from datetime import timezone
from functools import cache
from zoneinfo import ZoneInfo

import msgspec
import pytest
from twisted.logger import LogBeginner, Logger, LogPublisher
from twisted.python.failure import Failure
from zope.interface.interface import InterfaceClass

from tests.test_floors import modules

CACHES = {
    "axcollector.buckets._checked": "of directories' names: the same for everybody, and bounded",
    "axcollector.core.layout.tenant_directory": "of tenants' names: the same for everybody, and bounded",
    "axcollector.journal._directory_of": "likewise",
    "axcollector.core.enrichment._names_of": "likewise",
    "axcollector.answers.taken": "of numbers, likewise",
}
"""Functions that remember results, which follow from the arguments alone."""

SHARED = {
    Logger: "names a module to the process's log, which is the embedding program's",
    msgspec.json.Decoder: "what it holds is the type that it decodes",
    msgspec.msgpack.Decoder: "likewise",
    msgspec.msgpack.Encoder: "holds nothing from one text to the next",
    LogPublisher: "the process's log, for the programs that we launch ourselves",
    LogBeginner: "likewise",
    Failure: "Twisted's default for connectionLost",
    object: "marks something by being itself",
}
"""Types of which a module may have a value, though it is not immutable, and why."""

UNCHANGING = (
    *(int, float, str, bytes, bool, type(None), tuple, frozenset, enum.Enum, re.Pattern, struct.Struct, timezone),
    *(ZoneInfo, types.MappingProxyType, type(msgspec.UNSET), InterfaceClass, types.ModuleType, type),
    *(types.FunctionType, types.BuiltinFunctionType, types.GenericAlias, types.UnionType, typing.TypeVar),
    *(typing.ParamSpec, typing._SpecialForm, typing._GenericAlias, typing._CallableType),  # type: ignore[attr-defined]
)
MADE_BY_OTHERS = {
    *("_abc_impl", "_member_names_", "_member_map_", "_value2member_map_", "_hashable_values_", "_unhashable_values_"),
    *("_unhashable_values_map_", "_field_defaults", "optParameters", "optFlags", "subCommands", "compData"),
}
"""Names in classes that Python gives, and Twisted's for the options of commands, which it reads only."""
TABLES = (dict, list, set)
CHANGING = {
    *("append", "extend", "insert", "remove", "pop", "clear", "sort", "reverse", "add", "discard", "update"),
    *("setdefault", "popitem", "difference_update", "intersection_update", "symmetric_difference_update"),
}
"""The methods that change a table."""


@cache
def imported() -> dict[str, types.ModuleType]:
    """Every module of ours, by its full name."""
    names = [f"axcollector.{module.name}" if module.name else "axcollector" for module in modules()]
    return {name: importlib.import_module(name) for name in names}


def is_ours(kind: type) -> bool:
    """Whether a class is one of ours."""
    return kind.__module__.partition(".")[0] == "axcollector"


def is_frozen(value: object) -> bool:
    """Whether it is a value of ours, or another's, that cannot be changed."""
    kind = type(value)
    parameters = getattr(kind, "__dataclass_params__", None)
    return bool(
        isinstance(value, UNCHANGING)
        or (parameters is not None and parameters.frozen)
        or (isinstance(value, msgspec.Struct) and kind.__struct_config__.frozen)
        or type(value).__module__ in {"typing", "collections.abc"}
    )


def held() -> Iterator[tuple[str, object]]:
    """What modules and classes hold of their own, by its full name; not what they import from elsewhere."""
    for name, module in imported().items():
        for key, value in vars(module).items():
            if not key.startswith("__") and getattr(value, "__module__", name) in {name, None} | set(_foreign(value)):
                yield f"{name}.{key}", value
        for kind in [each for each in vars(module).values() if isinstance(each, type) and each.__module__ == name]:
            for key, value in vars(kind).items():
                if not key.startswith("__") and key not in MADE_BY_OTHERS:
                    yield f"{name}.{kind.__qualname__}.{key}", value


def _foreign(value: object) -> Iterator[str]:
    """Where a value's type comes from, when that is what its `__module__` says."""
    yield type(value).__module__


def could_change(value: object) -> bool:
    """Whether a value is neither immutable, a table, nor shared for a reason; descriptors are code."""
    if is_frozen(value) or isinstance(value, TABLES) or type(value) in SHARED:
        return False
    return not hasattr(type(value), "__get__")


def test_no_module_and_no_class_holds_what_could_change() -> None:
    """But for tables, which the next test looks at, and caches."""
    assert {name: type(value) for name, value in held() if could_change(value)} == {}
    caches = {
        f"{value.__module__}.{value.__qualname__}"
        for _, value in held()
        if hasattr(value, "cache_info") and value.__module__.startswith("axcollector")
    }
    assert caches == CACHES.keys()
    bounds = [
        getattr(imported()[name.rpartition(".")[0]], name.rpartition(".")[2]).cache_parameters() for name in CACHES
    ]
    assert all(bound["maxsize"] is not None for bound in bounds)


def table_names() -> set[str]:
    """The names of all tables, without their modules'."""
    return {name.rpartition(".")[2] for name, value in held() if isinstance(value, TABLES)}


def changes_of(tree: ast.AST, tables: set[str]) -> Iterator[str]:
    """Where a syntax tree changes a table, or a global name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield f"line {node.lineno}: global {', '.join(node.names)}"
        elif isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            if _named(node.value) in tables:
                yield f"line {node.lineno}: sets or deletes a part of {_named(node.value)}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGING:
            if _named(node.func.value) in tables:
                yield f"line {node.lineno}: calls {_named(node.func.value)}.{node.func.attr}"
        elif isinstance(node, ast.AugAssign) and _named(node.target) in tables:
            yield f"line {node.lineno}: adds to {_named(node.target)}"


def _named(node: ast.AST) -> str:
    """The last name of `a.b.C` or `C`, where it is written as a constant's is."""
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return name if name.upper() == name else ""


def test_tables_are_written_as_constants() -> None:
    """In capitals; else what changes them would not be found. One that has such a name may have another besides."""
    tables = [(name.rpartition(".")[2], id(value)) for name, value in held() if isinstance(value, TABLES)]
    constants = {table for name, table in tables if name.upper() == name}
    assert {name for name, table in tables if table not in constants} == set()


def test_nothing_changes_a_table() -> None:
    """Neither in its own module nor elsewhere; and there is no `global`."""
    tables = table_names()
    assert [f"{module}, {change}" for module in modules() for change in changes_of(module.tree, tables)] == []


@pytest.mark.parametrize(
    "text",
    [
        "TABLE[1] = 2",
        "del m.TABLE[1]",
        "TABLE.update(a=1)",
        "m.TABLE.pop(1)",
        "TABLE += [1]",
        "def f():\n global x\n x = 1",
    ],
)
def test_changes_are_found(text: str) -> None:
    """Each kind of change is seen for what it is."""
    assert len(list(changes_of(ast.parse(text), {"TABLE"}))) == 1


def test_what_could_change_is_found() -> None:
    """A value whose parts can be set is none of the allowed."""

    class Counter:
        count = 0

    assert could_change(Counter())
    assert could_change(bytearray())
    assert not could_change({})
    assert sys.modules  # which is the interpreter's
