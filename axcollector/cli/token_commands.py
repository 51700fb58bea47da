"""What the groups of subcommands on tokens share: making, listing and revoking those of one kind, in one file."""

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
from axcollector.tokens import EVERY_NAME, Bound, Token, TokenFile

_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"
_DURATION: Final = re.compile(r"([1-9]\d{0,5})([smhdw])", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


class TokenOptions(CommandOptions):
    """Options of a subcommand on tokens.

    Attributes:
        group: The name of the group of subcommands.
        kind: To what the group's tokens are bound; lists call the names so.
    """

    group: ClassVar[str]
    kind: ClassVar[Bound]

    def path(self) -> str:
        """The file of tokens."""
        raise NotImplementedError

    def open_tokens(self) -> TokenFile:
        """The tokens, which must be there."""
        path = self.path()
        if not os.path.exists(path):
            how = f"name it with --tokens or --config, or make one with `axcollector {self.group} new`"
            raise TokensError(f"there is no file of tokens {path}; {how}")
        return TokenFile.open(path, self.kind)

    @property
    def columns(self) -> Sequence[str]:
        """What `list` shows of a token."""
        return ("id", "label", "created", "expires", self.kind.value)


class NewOptions(TokenOptions):
    """Options of `new`; its names are found in the options under that of their kind.

    Attributes:
        called: What one name is called in messages.
        use: What to do with a token that was made.
    """

    called: ClassVar[str]
    use: ClassVar[str]
    optParameters: ClassVar[list[Any]] = [
        ["expires", "e", None, "After how long it is good for nothing, such as 90d, 12h or 4w; by default never"],
        ["label", "l", None, "What to write on it, such as whose it is"],
    ]

    @property
    def synopsis(self) -> str:
        """What follows the command's name in its help."""
        return f"{self.called.upper()}... [options]"

    def parseArgs(self, *given: str) -> None:
        """Take the names."""
        if not given:
            raise usage.UsageError(f"missing: {self.called.upper()}")
        for name in given:
            try:
                if name != EVERY_NAME:
                    self.check_form(name)
            except ValueError as exc:
                raise usage.UsageError(f"{name!r} is no {self.called}: {exc}") from exc
        self[self.kind.value] = given

    def postOptions(self) -> None:
        """A length of time has a unit."""
        if self["expires"] is not None and not _DURATION.fullmatch(self["expires"]):
            raise usage.UsageError(f"--expires: {self['expires']!r} is not allowed; allowed are 90d, 12h, 4w and such")

    def check_form(self, name: str) -> None:
        """Refuse what cannot be a name; raises `ValueError`, which says why."""

    def check_known(self, names: Sequence[str]) -> None:
        """Refuse what is nobody's name; raises `AxcollectorError`."""

    def run(self) -> None:
        """Make it; the token goes to stdout, the rest to stderr."""
        match = _DURATION.fullmatch(self["expires"] or "")
        seconds = int(match[1]) * _SECONDS[match[2]] if match else None
        names = self[self.kind.value]
        self.check_known([name for name in names if name != EVERY_NAME])
        with TokenFile.create(self.path(), self.kind) as file:
            token, secret = file.add(names, time.time(), label=self["label"] or "", expires_seconds=seconds)
        sys.stdout.write(f"{secret}\n")
        sys.stdout.flush()
        until = f"until {_shown(token.expires)}" if token.expires is not None else "until it is revoked"
        sys.stderr.write(
            f"This is token {token.id}, good for {_names(token)} {until}. It is not shown again: {self.use}.\n"
        )


class TokenListOptions(TokenOptions, Listing):
    """Options of `list`."""

    @property
    def longdesc(self) -> str:
        """What stands in its help."""
        return f"Lists the tokens, but not what they are. Example: axcollector {self.group} list --json"

    def run(self) -> None:
        """List them."""
        with self.open_tokens() as file:
            tokens = file.tokens()
        now = time.time()
        values = [_as_json(token) if self["json"] else _as_text(token, now) for token in tokens]
        self.write(self.columns, [dict(zip(self.columns, each, strict=True)) for each in values])


class RevokeOptions(TokenOptions):
    """Options of `revoke`."""

    required = ("id",)

    @property
    def longdesc(self) -> str:
        """What stands in its help."""
        return (
            "Makes a token good for nothing, within two seconds, by the id that `list` shows."
            f" Example: axcollector {self.group} revoke 1f0c2a9be74d"
        )

    def run(self) -> None:
        """Revoke it."""
        with self.open_tokens() as file:
            file.revoke(self["id"])


class TokenGroup(CommandOptions):
    """Options of a group."""

    subCommands: ClassVar[Sequence[Any]] = ()
    compData: usage.Completions

    def __init_subclass__(cls) -> None:
        """Its subcommands can be completed."""
        super().__init_subclass__()
        cls.compData = usage.Completions(extraActions=[usage.CompleteList([each[0] for each in cls.subCommands])])


def subcommands(
    new: type[NewOptions], listed: type[TokenListOptions], revoke: type[RevokeOptions]
) -> Sequence[Sequence[Any]]:
    """The subcommands of a group."""
    return [
        ["new", None, new, "Make a token and print it"],
        ["list", None, listed, "List the tokens"],
        ["revoke", None, revoke, "Make a token good for nothing"],
    ]


def _shown(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime(_TIME)
    except (ValueError, OverflowError):  # later than any date there is
        return "never"


def _names(token: Token) -> str:
    return ", ".join(sorted(token.names))


def _as_json(token: Token) -> tuple[object, ...]:
    expires = None if token.expires is None else _shown(token.expires)
    return token.id, token.label, _shown(token.created), expires, sorted(token.names)


def _as_text(token: Token, now: float) -> tuple[str, ...]:
    expires = "never" if token.expires is None else _shown(token.expires)
    if token.has_expired(now):
        expires += " (expired)"
    return token.id, token.label, _shown(token.created), expires, _names(token)
