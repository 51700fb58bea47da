"""The first page that a user reads: what it shows works, what it names is there, and what it says is missing is."""

import re
from pathlib import Path

import pytest
import yaml

from axcollector.config import KEYS, NOT_YET, Config

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
SETTINGS = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
MISSING = TEXT.partition("## What this version does not have yet\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("text", SETTINGS)
def test_settings(text: str) -> None:
    """They can be used as they stand."""
    Config(**yaml.safe_load(text))


def test_what_it_leads_to() -> None:
    """Every page and program that is named is there, and every page that somebody would look for is named."""
    named = set(re.findall(r"`((?:docs|tests)/[\w./-]+)`", TEXT))
    assert [name for name in named if not (ROOT / name).exists()] == []
    pages = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.rst")}
    assert pages - named == {"docs/index.rst", "docs/decisions.rst", "docs/fuzzing.rst"} & pages


def test_what_is_missing() -> None:
    """The settings that are not available, and no others, are said to be so."""
    assert {name for name in KEYS if f"`{name}" in MISSING} == {name for name, _, _ in NOT_YET}
