"""What the commands on a collector's data and on a running collector have in common: where both are found."""

# ruff: noqa: N815 - Twisted's names

from typing import TYPE_CHECKING, Any, ClassVar, Final

from twisted.python import usage

from axcollector.cli.options import CommandOptions, free_texts
from axcollector.core.errors import ConfigError

if TYPE_CHECKING:
    from axcollector.config import Config

_TOKEN_BYTES: Final = 4096


class DataOptions(CommandOptions):
    """Options of a subcommand on a data directory."""

    optParameters: ClassVar[list[Any]] = [
        ["config", "c", None, "The collector's configuration, which says where its data is"],
        ["local-storage-path", "l", None, "The data directory; without either, ./axcollector-data"],
    ]
    compData = usage.Completions(
        optActions={"config": usage.CompleteFiles(), "local-storage-path": usage.CompleteDirs()}
    )

    def settings(self) -> "Config":
        """The collector's configuration: that of the file named, or the defaults."""
        from axcollector.config_file import load_config  # noqa: PLC0415 - help and completion need none

        path = self.get("local-storage-path")
        return load_config(self["config"], {"local_storage_path": path} if path else {})


class AdminOptions(CommandOptions):
    """Options of a subcommand that asks a running collector at its admin port."""

    optParameters: ClassVar[list[Any]] = [
        ["url", "u", None, "Where the admin port listens; without it, admin_listen of the configuration"],
        ["token-file", None, None, "A file with the admin token; without it, that of the configuration"],
        ["ca-file", None, None, "A file of the certificates to trust, for https:"],
    ]
    compData = usage.Completions(
        optActions={"token-file": usage.CompleteFiles(), "ca-file": usage.CompleteFiles(), **free_texts("url")}
    )


def read_token(path: str, wrong: type[Exception] = ConfigError) -> str:
    """The token that a file holds.

    Raises:
        Exception: Of the given kind: it holds none.
        OSError: It cannot be read.
    """
    with open(path, encoding="ascii", errors="replace") as file:
        token = file.read(_TOKEN_BYTES).strip()
    if not token.isprintable() or not token.isascii() or " " in token or not token:
        raise wrong(f"{path} does not hold a token: one line of visible ASCII characters")
    return token
