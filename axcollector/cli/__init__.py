"""The `axcollector` command: scopes and keys in the registry, tokens of the signing service, and a demo.

A group of subcommands is a module, loaded when it is asked for, with an `Options` class for the group and one for
each subcommand, which has a `run`. The exit status is 0, or 1 where the work failed, or 2 where it was called wrongly;
an error is one line on stderr that says what to do. What a script wants goes to stdout, the rest to stderr.
"""

# ruff: noqa: N815 - Twisted's names

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, Protocol, cast

from twisted.python import reflect, usage

from axcollector.cli.options import CommandOptions, printable
from axcollector.core.errors import AxcollectorError

FAILED: Final = 1
CALLED_WRONGLY: Final = 2


class Runnable(Protocol):
    """What the options of a subcommand can do."""

    def run(self) -> None:
        """Do the work; raises `AxcollectorError` or `OSError` where it fails."""
        ...


def _lazily(name: str) -> Callable[[], usage.Options]:
    """What loads the `Options` of this full name when it is called, and makes one."""
    return lambda: cast("usage.Options", reflect.namedAny(name)())


class Options(CommandOptions):
    """The command itself; what it works on is said by its subcommands."""

    synopsis = "Usage: axcollector"
    longdesc = "Example: axcollector scope add acme prod"
    subCommands: ClassVar[list[Any]] = [
        ["scope", None, _lazily("axcollector.cli.scope.ScopeOptions"), "The ids by which clients name a tenant"],
        ["key", None, _lazily("axcollector.cli.key.KeyOptions"), "Whose a record's client_id is"],
        [
            *("signer-token", None, _lazily("axcollector.cli.signer_token.SignerTokenOptions")),
            "Which collectors the signing service signs for, and for which tenants",
        ],
        ["demo", None, _lazily("axcollector.cli.demo.DemoOptions"), "See the service at work in a few seconds"],
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """The console command, of these arguments or the process's; raises `SystemExit` unless the status is 0."""
    options = Options()  # type: ignore[no-untyped-call]
    try:
        options.parseOptions(list(sys.argv[1:] if argv is None else argv))
        _chosen(options).run()
        sys.stdout.flush()
    except usage.UsageError as exc:
        problem = str(exc)
        _complain(f"{problem[:1].lower()}{problem[1:].rstrip('.')}; see `{' '.join(_names(options))} --help`")
        sys.exit(CALLED_WRONGLY)
    except BrokenPipeError:  # whoever reads our output has had enough; what is left goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except (AxcollectorError, OSError) as exc:
        _complain(str(exc))
        sys.exit(FAILED)


def _chosen(options: usage.Options) -> Runnable:
    """The options of the subcommand that was named."""
    below = getattr(options, "subOptions", None)
    if below is not None:
        return _chosen(below)
    if not hasattr(options, "run"):
        names = ", ".join(each[0] for each in getattr(options, "subCommands", ()))
        raise usage.UsageError(f"a command is missing, one of {names}")
    return cast("Runnable", options)


def _names(options: usage.Options) -> list[str]:
    """The command's name and those of the subcommands that were named."""
    names = ["axcollector"]
    current: Any = options
    while getattr(current, "subCommand", None):
        names.append(current.subCommand)
        current = current.subOptions
    return names


def _complain(problem: str) -> None:
    sys.stderr.write(printable(f"axcollector: {problem}") + "\n")
