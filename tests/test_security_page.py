"""The page on security: every claim names a test, and every test that it names is there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "security.rst").read_text()
DEFENDED, _, NOT_DEFENDED = PAGE.partition("What is not defended\n----")
NAMED = re.findall(r"``([\w/]+\.py)::(\w+)``", PAGE)


@cache
def named_in(name: str) -> set[str]:
    """The tests of a file."""
    tree = ast.parse((TESTS / name).read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {function.name for function in functions if function.name.startswith("test_")}


def claims() -> list[str]:
    """What is claimed to be defended, each with all that stands behind it."""
    lines = DEFENDED.split("\n")
    starts = [number for number, line in enumerate(lines) if line.startswith("* ")]
    found = []
    for start in starts:
        end = start + 1
        while lines[end].startswith("  "):
            end += 1
        found.append("\n".join(lines[start:end]))
    return found


def test_the_tests_that_are_named_are_there() -> None:
    """A claim whose test was renamed or removed is found here."""
    assert [f"{name}::{test}" for name, test in NAMED if test not in named_in(name)] == []


@pytest.mark.parametrize("claim", claims(), ids=lambda claim: re.sub(r"\W+", " ", claim)[:50].strip())
def test_each_claim_names_a_test(claim: str) -> None:
    """Where nothing shows it, it is not to be claimed."""
    assert re.search(r"\.py::test_\w+``", claim)


def test_there_are_claims() -> None:
    """Of each attacker; and the other list is one of things that are not claimed."""
    assert len(claims()) > 30
    assert NOT_DEFENDED.count("\n* **") > 5
    assert "::test_" not in NOT_DEFENDED
