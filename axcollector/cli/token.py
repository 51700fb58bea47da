"""`axcollector token`: who may send records, for which scopes, where the collector has `ingest_auth: token`."""

# ruff: noqa: N815 - Twisted's names

import os
import sys
from collections.abc import Sequence
from typing import Any, ClassVar

from twisted.python import usage

from axcollector.cli import token_commands
from axcollector.cli.options import RegistryOptions
from axcollector.cli.token_commands import TokenOptions
from axcollector.core.errors import RegistryError
from axcollector.registry import Registry
from axcollector.tokens import Bound


class CollectorsTokens(TokenOptions):
    """Options of a subcommand on the collector's tokens."""

    group = "token"
    kind = Bound.SCOPES
    optParameters: ClassVar[list[Any]] = [
        ["tokens", "t", None, "The file of tokens; by default tokens.db in the collector's local_storage_path"]
    ]
    compData = usage.Completions(optActions={"tokens": usage.CompleteFiles()})

    def path(self) -> str:
        """The file of tokens."""
        from axcollector.config_file import load_config  # noqa: PLC0415 - help and completion need none

        return self["tokens"] or load_config(self["config"], {}).tokens_file


class _Configured(CollectorsTokens):
    """Those that want nothing else of the collector's configuration."""

    optParameters: ClassVar[list[Any]] = [
        ["config", "c", None, "The collector's configuration, which says where its data are"]
    ]
    compData = usage.Completions(optActions={"config": usage.CompleteFiles()})


class _ScopesRegistry(RegistryOptions):
    """The registry, to look whether a scope is there."""

    only_reads = True


class NewOptions(CollectorsTokens, token_commands.NewOptions, _ScopesRegistry):
    """Options of `token new`."""

    called = "scope"
    use = "have it sent as `Authorization: Bearer TOKEN`, or as the password of basic authentication"
    longdesc = (
        "Makes a token for whoever sends records for these scopes, or '*' for all scopes, and prints it: it is shown"
        " this once. The collector asks for tokens with ingest_auth: token."
        " Example: axcollector token new 3a9a2b7c-52a8-4f3e-9c39-0d6b5f3f2a11 --expires 90d --label gateway-7"
    )
    optFlags: ClassVar[list[Any]] = [["force", "f", "Make it though the registry has no such scope (yet)"]]

    def check_known(self, names: Sequence[str]) -> None:
        """Refuse a scope that the registry does not have."""
        if self["force"] or not names:
            return
        path = _ScopesRegistry.path(self)
        if not os.path.exists(path):
            raise RegistryError(
                f"no token was made: there is no registry {path}; name it with --registry or --config, make one with"
                " `axcollector scope add`, or have a token all the same with --force"
            )
        with Registry.open(path) as registry:
            unknown = [name for name in names if registry.tenant_of_scope(name) is None]
        if unknown:
            raise RegistryError(
                f"no token was made: the registry {path} has no scope {unknown[0]}; `axcollector scope list` shows"
                " those it has, `axcollector scope add ORG ENV` adds one, and --force makes a token all the same"
            )

    def run(self) -> None:
        """Make it; say where nobody asks for it yet."""
        super().run()
        if self["config"] and self.config().ingest_auth == "none":
            sys.stderr.write("The collector does not ask for tokens yet: that takes ingest_auth: token.\n")


class ListOptions(_Configured, token_commands.TokenListOptions):
    """Options of `token list`."""


class RevokeOptions(_Configured, token_commands.RevokeOptions):
    """Options of `token revoke`."""


class TokenGroupOptions(token_commands.TokenGroup):
    """Options of the group."""

    longdesc = "Example: axcollector token new SCOPE --expires 90d"
    subCommands: ClassVar[Sequence[Any]] = token_commands.subcommands(NewOptions, ListOptions, RevokeOptions)
