"""What all subcommands have in common, and those on the registry: which file it is, how lists are written."""

# ruff: noqa: N815 - Twisted's names

import errno
import getopt
import json
import os
import sys
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from twisted.python import usage

from axcollector import __version__
from axcollector.core.errors import RegistryError
from axcollector.registry import Registry
from axcollector.registry_file import RegistryFile

if TYPE_CHECKING:
    from axcollector.config import Config

COMPLETION: Final = "--_shell-completion"
"""Stands before the last argument when the shell asks what could come next."""

AnyRegistry = TypeVar("AnyRegistry", bound=RegistryFile)


class Choices(usage.CompleteList):
    """Completes one of some words.

    Attributes:
        items: The words.
    """

    def __init__(self, items: Sequence[str]) -> None:
        super().__init__(list(items))  # type: ignore[no-untyped-call]  # untyped in Twisted
        self.items = tuple(items)


def free_texts(*names: str) -> dict[str, usage.Completer]:
    """The completers of options whose values nobody can guess; without one, files are offered."""
    return {name: usage.Completer() for name in names}


class CommandOptions(usage.Options):
    """Options of a command, a group or a subcommand; they may stand before, between and behind its arguments."""

    required: ClassVar[Sequence[str]] = ()
    optional: ClassVar[Sequence[str]] = ()
    """The names of the arguments; their values are found in the options under them."""

    @property
    def synopsis(self) -> str:
        """What follows the command's name in its help; a group's is followed by its subcommand's."""
        if hasattr(self, "subCommands"):
            return ""
        words = [name.upper() for name in self.required] + [f"[{name.upper()}]" for name in self.optional]
        return " ".join([*words, "[options]"])

    def getSynopsis(self) -> str:
        """The first line of its help."""
        return " ".join(super().getSynopsis().split())

    def parseArgs(self, *given: str) -> None:
        """Take the arguments."""
        names = [*self.required, *self.optional]
        missing = self.required[len(given) :]
        if missing:
            raise usage.UsageError(f"missing: {' '.join(missing).upper()}")
        if len(given) > len(names):
            raise usage.UsageError(f"too many arguments: {' '.join(given[len(names) :])}")
        self.update(zip_longest(names, given))

    def opt_version(self) -> None:
        """Show the version and exit."""
        sys.stdout.write(f"axcollector {__version__}\n")
        sys.exit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse; where there are no subcommands, with the options moved before the arguments, as Twisted wants them."""
        given = list(options or ())
        if not hasattr(self, "subCommands") and COMPLETION not in given:
            try:
                found, arguments = getopt.gnu_getopt(given, self.shortOpt, self.longOpt)
            except getopt.GetoptError as exc:
                raise usage.UsageError(str(exc)) from exc
            given = [part for option in found for part in self._respelt(*option)] + ["--", *arguments]
        super().parseOptions(given)  # type: ignore[no-untyped-call]  # untyped in Twisted

    def _respelt(self, option: str, value: str) -> list[str]:
        """An option as getopt found it, so that it finds it again."""
        if option.startswith("--"):
            return [f"{option}={value}" if f"{option[2:]}=" in self.longOpt else option]
        return [option, value] if f"{option[1:]}:" in self.shortOpt else [option]


class RegistryOptions(CommandOptions):
    """Options of a subcommand on the registry."""

    only_reads: ClassVar[bool] = False
    optParameters: ClassVar[list[Any]] = [
        ["config", "c", None, "The collector's configuration, which says where its registry is"],
        ["registry", "r", None, "The registry's file; without either, ./axcollector-data/registry.db"],
    ]
    compData = usage.Completions(optActions={"config": usage.CompleteFiles(), "registry": usage.CompleteFiles()})

    def config(self) -> "Config":
        """The collector's configuration: that of the file named, or the defaults."""
        from axcollector.config_file import load_config  # noqa: PLC0415 - help and completion need none

        return load_config(self["config"], {})

    def path(self) -> str:
        """The registry's file."""
        registry: str | None = self["registry"]
        if registry:
            return registry
        config = self.config()
        return self._path_of_synced(config) if config.sync == "transicator" else config.registry_file

    def _path_of_synced(self, config: "Config") -> str:
        """The newest file of the transicator source, for who only reads it."""
        from axcollector.sync.transicator_files import newest_registry  # noqa: PLC0415 - for these configurations only

        if not self.only_reads:
            raise RegistryError("nothing was changed: with sync: transicator the registry is a copy of the servers'")
        directory = os.path.dirname(config.registry_file)
        newest = newest_registry(directory, config.apigeesync_cluster_id or "")
        if newest is None:
            raise RegistryError(f"there is no registry in {directory} yet: no snapshot has been taken")
        return newest

    def open_registry(self, kind: type[AnyRegistry]) -> AnyRegistry:
        """The registry, which must be there."""
        path = self.path()
        if not os.path.exists(path):
            how = "name it with --registry or --config, or make one with `axcollector scope add`"
            raise RegistryError(f"there is no registry {path}; {how}")
        return kind.open(path)

    def create_registry(self) -> Registry:
        """The registry, which is made where it is missing."""
        return Registry.create(self.path())


class ObjectOptions(RegistryOptions):
    """Options of a subcommand that does one thing."""

    optFlags: ClassVar[list[Any]] = [["json", "j", "Write what was done as one JSON object"]]

    def write(self, done: Mapping[str, object], text: str = "") -> None:
        """Write what was done to stdout: as JSON, or as a text, which may be empty."""
        write_out(json.dumps(done, indent=2) + "\n" if self["json"] else text)


class Listing(CommandOptions):
    """Options of a subcommand that lists something."""

    optFlags: ClassVar[list[Any]] = [["json", "j", "Write one JSON array of objects"]]

    def write(self, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows to stdout: as JSON, or, where all values are texts, as a table with a head."""
        if self["json"]:
            write_out(json.dumps(rows, indent=2) + "\n")
            return
        lines = [list(columns), *([printable(row[column]) for column in columns] for row in rows)]
        widths = [max(map(len, texts)) for texts in zip(*lines, strict=True)]
        padded = ((text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in lines)
        write_out("".join("  ".join(line).rstrip() + "\n" for line in padded))


def write_out(text: str) -> None:
    """Write to stdout, at once; what goes wrong there says where."""
    if sys.stdout is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF), "standard output")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, "standard output") from exc


class ListOptions(RegistryOptions, Listing):
    """Options of a subcommand that lists something of the registry."""

    only_reads = True


def printable(text: str) -> str:
    """The text, with what a terminal would obey written as an escape."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
