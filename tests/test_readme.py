"""The first page that a user reads: what it shows works, and what it names is there."""

import re
from pathlib import Path

import pytest
import yaml

from axcollector.config import Config

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
SETTINGS = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("text", SETTINGS)
def test_settings(text: str) -> None:
    """They can be used as they stand."""
    Config(**yaml.safe_load(text))


def test_what_it_leads_to() -> None:
    """Every page and program that is named is there, and what somebody looks for first is named."""
    named = set(re.findall(r"`((?:docs|tests)/[\w./-]+)`", TEXT))
    assert [name for name in named if not (ROOT / name).exists()] == []
    first = ("index", "tutorial", "configuration", "operations", "http-api", "security", "contributing")
    assert {f"docs/{page}.rst" for page in first} - named == set()
