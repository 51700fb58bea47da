"""The `axcollector` command: the registry, tokens, what lies in the stages, a running collector, sending, and a demo.

A group of subcommands is a module, loaded when it is asked for, with an `Options` class for the group and one for
each subcommand, which has a `run`. The exit status is 0, or 1 where the work failed, or 2 where it was called wrongly,
or 130 after Ctrl-C; an error is one line on stderr that says what to do. What a script wants goes to stdout, the rest
to stderr.
"""

# ruff: noqa: N815 - Twisted's names

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, Protocol, cast

from twisted.python import reflect, usage

from axcollector.cli.interrupts import Interrupted
from axcollector.cli.options import COMPLETION, CommandOptions, printable
from axcollector.core.errors import AxcollectorError

FAILED: Final = 1
CALLED_WRONGLY: Final = 2
SIGNALLED: Final = 128
"""With a signal's number added, the exit status of what was interrupted, as shells have it."""


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
        ["token", None, _lazily("axcollector.cli.token.TokenGroupOptions"), "Who may send records, for which scopes"],
        ["import", None, _lazily("axcollector.cli.transfer.ImportOptions"), "Put the rows of a file into the registry"],
        ["export", None, _lazily("axcollector.cli.transfer.ExportOptions"), "Write the registry's rows to a file"],
        [
            *("signer-token", None, _lazily("axcollector.cli.signer_token.SignerTokenOptions")),
            "Which collectors the signing service signs for, and for which tenants",
        ],
        [
            *("quarantine", None, _lazily("axcollector.cli.quarantine.QuarantineOptions")),
            "Records that were set aside because they are invalid",
        ],
        ["check-config", None, _lazily("axcollector.cli.check_config.CheckConfigOptions"), "Would the service start?"],
        ["status", None, _lazily("axcollector.cli.status.StatusOptions"), "How a running collector is doing"],
        ["ls", None, _lazily("axcollector.cli.stages.LsOptions"), "List what lies in the stages"],
        ["cat", None, _lazily("axcollector.cli.stages.CatOptions"), "Show the records of a bucket or file"],
        ["verify", None, _lazily("axcollector.cli.verify.VerifyOptions"), "Look whether what lies there is whole"],
        ["retry", None, _lazily("axcollector.cli.retry.RetryOptions"), "Give failed buckets another chance"],
        ["drain", None, _lazily("axcollector.cli.drain.DrainOptions"), "Deliver everything now"],
        ["send", None, _lazily("axcollector.cli.send.SendOptions"), "Send records to a collector"],
        ["demo", None, _lazily("axcollector.cli.demo.DemoOptions"), "See the service at work in a few seconds"],
        ["completion", None, _lazily("axcollector.cli.completion.CompletionOptions"), "Set up the shell's Tab key"],
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """The console command, of these arguments or the process's; raises `SystemExit` unless the status is 0."""
    if sys.stderr is None:  # whoever has closed it wants to hear nothing
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    options = Options()  # type: ignore[no-untyped-call]  # untyped in Twisted
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if COMPLETION in words[-2:-1]:
            from axcollector.cli.completion import answer  # noqa: PLC0415 - seldom needed

            sys.stdout.write(answer(options, words))
            return
        options.parseOptions(words)
        _chosen(options).run()
        print(end="", flush=True)
    except usage.UsageError as exc:
        problem = str(exc)
        _complain(f"{problem[:1].lower()}{problem[1:].rstrip('.')}; see `{' '.join(_names(options))} --help`")
        sys.exit(CALLED_WRONGLY)
    except BrokenPipeError:  # whoever reads our output has had enough
        _close_output()
        sys.exit(FAILED)
    except (AxcollectorError, OSError) as exc:
        _complain(words_of(exc))
        _close_output()
        sys.exit(FAILED)
    except KeyboardInterrupt as exc:
        _complain(str(exc) or "interrupted")
        _close_output()
        sys.exit(SIGNALLED + (exc.number if isinstance(exc, Interrupted) else signal.SIGINT))


def words_of(exc: Exception) -> str:
    """What is said of an error; where somebody may not, who may."""
    if isinstance(exc, PermissionError) and isinstance(exc.filename, str):
        return f"{exc.filename}: {exc.strerror}; run this as the user whose it is, mostly the collector's"
    return str(exc)


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


def _close_output() -> None:
    """What stdout does not take goes nowhere, or the interpreter would try again at its end, and complain."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(problem: str) -> None:
    sys.stderr.write(printable(f"axcollector: {problem}") + "\n")
