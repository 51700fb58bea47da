"""The code blocks of the documentation, for tests that run what it shows."""

import re
import textwrap
from pathlib import Path
from typing import Final, NamedTuple

DOCS: Final = Path(__file__).parent.parent / "docs"
PAGES: Final = sorted(path.name for path in DOCS.glob("*.rst"))
_BLOCK: Final = re.compile(r"^\.\. code-block:: (\w+)\n((?:   +:.*\n)*)\n((?:   .*\n|\n)+)", re.MULTILINE)


class Block(NamedTuple):
    """A code block: its language, its text, and the page that it stands on."""

    language: str
    text: str
    page: str


def blocks(page: str, *languages: str) -> list[Block]:
    """Those of a page in some languages, in their order."""
    found = _BLOCK.findall((DOCS / page).read_text())
    made = [Block(language, textwrap.dedent(text).strip("\n") + "\n", page) for language, _, text in found]
    return [each for each in made if each.language in languages]


def blocks_of_all(*languages: str) -> list[Block]:
    """Those of all pages."""
    return [each for page in PAGES for each in blocks(page, *languages)]


def shows(expected: str, text: str) -> bool:
    """Whether a text is what is shown, where `…` stands for anything and blanks for any blanks."""
    pattern = r"\s+".join(".*?".join(map(re.escape, word.split("…"))) for word in expected.split())
    pattern = pattern.replace(r"\s+.*?\s+", r"\s.*?").replace(r".*?\s+", ".*?").replace(r"\s+.*?", ".*?")
    return re.search(pattern, text, re.DOTALL) is not None
