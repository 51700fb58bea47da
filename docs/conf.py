"""How Sphinx builds the documentation: `sphinx-build -W -b html docs docs/_build`."""

import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

# Built from a checkout too, installed or not.
sys.path.insert(0, str(Path(__file__).parent.parent))

from axcollector import __version__, openapi
from axcollector.config import KEYS
from axcollector.config_keys import Key
from axcollector.signer.config import SIGNER_KEYS

project = "axcollector"
author = "the axcollector developers"
copyright = "the axcollector developers"
version = release = __version__
extensions: list[str] = []
exclude_patterns = ["_build"]
nitpicky = True
html_theme = "alabaster"
html_show_sourcelink = False


TABLES = {"axcollector": KEYS, "axsigner": SIGNER_KEYS}


def _lines_of(key: Key) -> list[str]:
    """A key as an entry of a definition list."""
    allowed = key.kind.allowed + (" (a secret: in the file only)" if key.secret else "")
    default = f"``{key.default_text}``" if key.default_text else "none"
    return [
        f"``{key.name}``",
        f"   {key.description[0].upper()}{key.description[1:]}.".replace("*", r"\*"),
        "",
        f"   * Allowed: {allowed}.".replace("\\", r"\\"),
        f"   * Default: {default}",
        "",
    ]


class ConfigurationKeys(SphinxDirective):
    """`.. configuration-keys:: PROGRAM`: every key, from the table that the program itself reads."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The keys in the order of the table."""
        lines = [line for key in TABLES[self.arguments[0]].values() for line in _lines_of(key)]
        return list(self.parse_text_to_nodes("\n".join(lines)))


def _marked(text: str) -> str:
    """A sentence of the OpenAPI document, whose literals are marked as Markdown has it."""
    return text.replace("`", "``")


class HttpRoutes(SphinxDirective):
    """`.. http-routes::`: the routes that take records, from the table that the OpenAPI document is made of."""

    def run(self) -> list[nodes.Node]:
        """As a definition list."""
        lines = [
            line for route in openapi.ROUTES for line in (f"``POST {route.path}``", f"   {_marked(route.tenant)}", "")
        ]
        return list(self.parse_text_to_nodes("\n".join(lines)))


class HttpErrors(SphinxDirective):
    """`.. http-errors::`: every errorCode, likewise."""

    def run(self) -> list[nodes.Node]:
        """As a table."""
        lines = [".. list-table::", "   :header-rows: 1", "   :widths: 10 34 56", ""]
        lines += ["   * - Status", "     - errorCode", "     - When"]
        for code, error in openapi.ERRORS.items():
            more = "; ``Retry-After`` says when to come again" if error.asks_to_wait else ""
            lines += [f"   * - {error.status}", f"     - ``{code}``", f"     - {_marked(error.when)}{more}"]
        return list(self.parse_text_to_nodes("\n".join(lines)))


def setup(app: Sphinx) -> ExtensionMetadata:
    """Sphinx calls this when it reads its configuration."""
    app.add_directive("configuration-keys", ConfigurationKeys)
    app.add_directive("http-routes", HttpRoutes)
    app.add_directive("http-errors", HttpErrors)
    return {"parallel_read_safe": True}
