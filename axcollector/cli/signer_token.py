"""`axcollector signer-token`: for whom the signing service (`twistd axsigner`) signs."""

# ruff: noqa: N815 - Twisted's names

import os
import re
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

from twisted.python import usage

from axcollector.cli.options import CommandOptions, Listing
from axcollector.core.errors import TokensError
from axcollector.core.signing import parse_tenant
from axcollector.signer.config import SIGNER_KEYS, read_signer_config
from axcollector.tokens import EVERY_NAME, Bound, Token, TokenFile

COLUMNS: Final = ("id", "label", "created", "expires", "tenants")
"""What `list` shows of a token."""

_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"
_DURATION: Final = re.compile(r"([1-9]\d{0,5})([smhdw])", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


class TokenOptions(CommandOptions):
    """Options of a subcommand on the signing service's tokens."""

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

    def open_tokens(self) -> TokenFile:
        """The tokens, which must be there."""
        path = self.path()
        if not os.path.exists(path):
            how = "name it with --tokens or --config, or make one with `axcollector signer-token new`"
            raise TokensError(f"there is no file of tokens {path}; {how}")
        return TokenFile.open(path, Bound.TENANTS)


class NewOptions(TokenOptions):
    """Options of `signer-token new`."""

    longdesc = (
        "Makes a token for the collectors of these tenants, each as ORG~ENV, or '*' for all tenants, and prints it: it"
        " is shown this once. In a tenant's names a % is written %25, and a ~ is written %7E."
        " Example: axcollector signer-token new acme~prod acme~test --expires 90d --label gateway-7"
    )
    synopsis = "TENANT... [options]"
    optParameters: ClassVar[list[Any]] = [
        ["expires", "e", None, "After how long it is good for nothing, such as 90d, 12h or 4w; by default never"],
        ["label", "l", None, "What to write on it, such as whose it is"],
    ]

    def parseArgs(self, *given: str) -> None:
        """Take the tenants."""
        if not given:
            raise usage.UsageError("missing: TENANT")
        for tenant in given:
            try:
                if tenant != EVERY_NAME:
                    parse_tenant(tenant)
            except ValueError as exc:
                raise usage.UsageError(f"{tenant!r} is no tenant: {exc}") from exc
        self["tenants"] = given

    def postOptions(self) -> None:
        """A length of time has a unit."""
        if self["expires"] is not None and not _DURATION.fullmatch(self["expires"]):
            raise usage.UsageError(f"--expires: {self['expires']!r} is not allowed; allowed are 90d, 12h, 4w and such")

    def run(self) -> None:
        """Make it; the token goes to stdout, the rest to stderr."""
        match = _DURATION.fullmatch(self["expires"] or "")
        seconds = int(match[1]) * _SECONDS[match[2]] if match else None
        with TokenFile.create(self.path(), Bound.TENANTS) as file:
            token, secret = file.add(self["tenants"], time.time(), label=self["label"] or "", expires_seconds=seconds)
        sys.stdout.write(f"{secret}\n")
        sys.stdout.flush()
        until = f"until {_shown(token.expires)}" if token.expires is not None else "until it is revoked"
        sys.stderr.write(
            f"This is token {token.id}, good for {_tenants(token)} {until}. It is not shown again: put it into the"
            " file that the collector's bearer_token_file names.\n"
        )


class TokenListOptions(TokenOptions, Listing):
    """Options of `signer-token list`."""

    longdesc = "Lists the tokens, but not what they are. Example: axcollector signer-token list --json"

    def run(self) -> None:
        """List them."""
        with self.open_tokens() as file:
            tokens = file.tokens()
        self.write(COLUMNS, [_as_json(token) if self["json"] else _as_text(token, time.time()) for token in tokens])


class RevokeOptions(TokenOptions):
    """Options of `signer-token revoke`."""

    longdesc = (
        "Makes a token good for nothing, within two seconds, by the id that `list` shows."
        " Example: axcollector signer-token revoke 1f0c2a9be74d"
    )
    required = ("id",)

    def run(self) -> None:
        """Revoke it."""
        with self.open_tokens() as file:
            file.revoke(self["id"])


class SignerTokenOptions(CommandOptions):
    """Options of the group."""

    longdesc = "Example: axcollector signer-token new acme~prod --expires 90d"
    subCommands: ClassVar[Sequence[Any]] = [
        ["new", None, NewOptions, "Make a token and print it"],
        ["list", None, TokenListOptions, "List the tokens"],
        ["revoke", None, RevokeOptions, "Make a token good for nothing"],
    ]
    compData = usage.Completions(extraActions=[usage.CompleteList([each[0] for each in subCommands])])


def _shown(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime(_TIME)
    except (ValueError, OverflowError):  # later than any date there is
        return "never"


def _tenants(token: Token) -> str:
    return ", ".join(sorted(token.names))


def _as_json(token: Token) -> dict[str, object]:
    expires = None if token.expires is None else _shown(token.expires)
    return dict(zip(COLUMNS, (token.id, token.label, _shown(token.created), expires, sorted(token.names)), strict=True))


def _as_text(token: Token, now: float) -> dict[str, str]:
    expires = "never" if token.expires is None else _shown(token.expires)
    if token.has_expired(now):
        expires += " (expired)"
    return dict(zip(COLUMNS, (token.id, token.label, _shown(token.created), expires, _tenants(token)), strict=True))
