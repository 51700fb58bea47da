"""`axcollector scope`: the ids by which clients name a tenant."""

# ruff: noqa: N815 - Twisted's names

import json
import re
import shlex
import sys
from typing import Any, ClassVar, Final

from twisted.python import usage

from axcollector.cli.options import CommandOptions, ListOptions, ObjectOptions, free_texts
from axcollector.registry import Registry, Scope

COLUMNS: Final = ("scope", "organization", "environment", "tenant_id")
"""What `list` shows of a scope."""

_EXAMPLE_BODY: Final = {"records": [{"client_received_start_timestamp": 1_700_000_000_000}]}
_EVERYWHERE: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - addresses to recognise, not to listen on


class AddOptions(ObjectOptions):
    """Options of `scope add`."""

    longdesc = "Adds a scope and prints its id. Example: axcollector scope add acme prod"
    required = ("org", "env")
    optParameters: ClassVar[list[Any]] = [["id", None, None, "Its id; by default a new UUID"]]
    compData = usage.Completions(optActions=free_texts("id"))

    def postOptions(self) -> None:
        """An id is to fit into a URL as it is."""
        if self["id"] is not None and not re.fullmatch(r"(?!\.{1,2}$)[A-Za-z0-9._~-]{1,100}", self["id"]):
            raise usage.UsageError(f"--id: {self['id']!r} is no scope's id; allowed are letters, digits, and . _ ~ -")

    def run(self) -> None:
        """Add it; the id goes to stdout, and a command that tries it to stderr."""
        config = self.config()
        with self.create_registry() as registry:
            scope = registry.add_scope(self["org"], self["env"], self["id"])
        self.write(_shown(scope), f"{scope.id}\n")
        line = curl_line(config.listen[0], config.base_path, scope.id)
        if config.ingest_auth == "token":
            line += f' -H "Authorization: Bearer $({self._token_command(scope.id)})"'
        sys.stderr.write(f"Try it:\n  {line}\n")

    def _token_command(self, scope: str) -> str:
        """What prints a token of a scope, to stand in a pair of double quotes."""
        where = [f"--{name}={self[name]}" for name in ("config", "registry") if self[name]]
        return shlex.join(["axcollector", "token", "new", *where, "--expires=1h", "--label=try", scope])


class ScopeListOptions(ListOptions):
    """Options of `scope list`."""

    longdesc = "Lists the scopes. Example: axcollector scope list --json"

    def run(self) -> None:
        """List them."""
        with self.open_registry(Registry) as registry:
            scopes = registry.scopes()
        self.write(COLUMNS, [_shown(each) for each in scopes])


class RemoveOptions(ObjectOptions):
    """Options of `scope remove`."""

    longdesc = (
        "Removes a scope; the keys of its tenant stay."
        " Example: axcollector scope remove 3a9a2b7c-52a8-4f3e-9c39-0d6b5f3f2a11"
    )
    required = ("scope",)

    def run(self) -> None:
        """Remove it."""
        with self.open_registry(Registry) as registry:
            registry.remove_scope(self["scope"])
        self.write({"scope": self["scope"], "removed": 1})


class ScopeOptions(CommandOptions):
    """Options of the group."""

    longdesc = "Example: axcollector scope add acme prod"
    subCommands: ClassVar[list[Any]] = [
        ["add", None, AddOptions, "Add a scope and print its id"],
        ["list", None, ScopeListOptions, "List the scopes"],
        ["remove", None, RemoveOptions, "Remove a scope"],
    ]


def _shown(scope: Scope) -> dict[str, str]:
    """A scope under the names of `COLUMNS`."""
    row = (scope.id, scope.tenant.organization, scope.tenant.environment, scope.tenant.id)
    return dict(zip(COLUMNS, row, strict=True))


def curl_line(endpoint: str, base_path: str, scope: str) -> str:
    """A shell command that sends one record for this scope to a collector that listens there."""
    from axcollector.config_endpoints import split_endpoint  # noqa: PLC0415 - help and completion need none

    kind, arguments, named = split_endpoint(endpoint)
    words = ["curl", "-i"]
    address = "localhost"
    if kind == "unix":
        words += ["--unix-socket", named.get("address", "".join(arguments[:1]))]
    else:
        interface = named.get("interface", "".join(arguments[1:2]) if kind == "tcp" else "")
        host = "127.0.0.1" if interface in _EVERYWHERE else f"[{interface}]" if ":" in interface else interface
        address = f"{host}:{named.get('port', ''.join(arguments[:1]))}"
    scheme = "https" if kind in {"ssl", "axtls"} else "http"
    words += [f"{scheme}://{address}{base_path}/{scope}", "-H", "Content-Type: application/json"]
    words += ["-d", json.dumps(_EXAMPLE_BODY, separators=(",", ":"))]
    return shlex.join(words)
