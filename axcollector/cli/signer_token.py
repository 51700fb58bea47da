"""`axcollector signer-token`: for whom the signing service (`twistd axsigner`) signs."""

# ruff: noqa: N815 - Twisted's names

from collections.abc import Sequence
from typing import Any, ClassVar

from twisted.python import usage

from axcollector.cli import token_commands
from axcollector.cli.token_commands import TokenOptions
from axcollector.core.signing import parse_tenant
from axcollector.signer.config import SIGNER_KEYS, read_signer_config
from axcollector.tokens import Bound


class SignersTokens(TokenOptions):
    """Options of a subcommand on the signing service's tokens."""

    group = "signer-token"
    kind = Bound.TENANTS
    optParameters: ClassVar[list[Any]] = [
        ["config", "c", None, "The signing service's configuration, which says where its tokens are"],
        ["tokens", "t", None, "The file of tokens; without either, ./axsigner-data/tokens.db"],
    ]
    compData = usage.Completions(optActions={"config": usage.CompleteFiles(), "tokens": usage.CompleteFiles()})

    def path(self) -> str:
        """The file of tokens."""
        if self["tokens"]:
            return str(self["tokens"])
        if self["config"]:
            return read_signer_config(self["config"], {}).tokens_path
        return str(SIGNER_KEYS["tokens_path"].read(SIGNER_KEYS["tokens_path"].default))


class NewOptions(SignersTokens, token_commands.NewOptions):
    """Options of `signer-token new`."""

    called = "tenant"
    use = "put it into the file that the collector's bearer_token_file names"
    longdesc = (
        "Makes a token for the collectors of these tenants, each as ORG~ENV, or '*' for all tenants, and prints it: it"
        " is shown this once. In a tenant's names a % is written %25, and a ~ is written %7E."
        " Example: axcollector signer-token new acme~prod acme~test --expires 90d --label gateway-7"
    )

    def check_form(self, name: str) -> None:
        """Refuse what is not written as a tenant."""
        parse_tenant(name)


class ListOptions(SignersTokens, token_commands.TokenListOptions):
    """Options of `signer-token list`."""


class RevokeOptions(SignersTokens, token_commands.RevokeOptions):
    """Options of `signer-token revoke`."""


class SignerTokenOptions(token_commands.TokenGroup):
    """Options of the group."""

    longdesc = "Example: axcollector signer-token new acme~prod --expires 90d"
    subCommands: ClassVar[Sequence[Any]] = token_commands.subcommands(NewOptions, ListOptions, RevokeOptions)
