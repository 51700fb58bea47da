"""What the launchers of all our services share: options made of keys, and one line on whatever keeps one from starting.

Whatever keeps a service from starting ends in one line on standard error and exit status 1: a wrong option or
configuration before anything is made, a data directory in use or a port that is taken when the service is started.
twistd itself would print its usage, or a traceback. `CannotStart` gets through it: as an `Exception` it makes twistd
remove its pid file and tell the parent of a daemon; as a `SystemExit` it then ends the process quietly.
"""

import gc
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, NoReturn

from twisted.application.service import IService, IServiceCollection, Service
from twisted.internet import defer
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python import usage

from axcollector import __version__
from axcollector.config_keys import Key, nearest
from axcollector.core.errors import AxcollectorError


class CannotStart(SystemExit, Exception):
    """The service cannot start. Ends the process with status 1; the message has been printed already."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        # The interpreter would print a text to what standard error is by then: twistd's log.
        self.code = 1


# twistd shows a daemon's parent the first 100 bytes of the exception, its module's name included.
CannotStart.__module__ = "builtins"


def give_up(program: str, problem: Exception | str) -> NoReturn:
    """Say on the process's own standard error why a program cannot start, in one line, and end it."""
    message = " ".join(str(problem).split())
    if isinstance(problem, OSError) and problem.filename is not None:
        message = f"{problem.filename}: {problem.strerror}"
    stream = sys.__stderr__ or sys.stderr
    stream.write(f"{program} cannot start: {message}\n")
    stream.flush()
    raise CannotStart(message) from None


class KeyOptions(usage.Options):
    """A command line: `--config`, and an option for every key that is not secret. Its subclasses name the keys.

    Attributes:
        program: The service's name, as behind `twistd`.
        settings: The keys of its configuration, one of them `listen`.
        example: What follows the options in its help.
    """

    program: ClassVar[str]
    settings: ClassVar[Mapping[str, Key]]
    example: ClassVar[str]
    optParameters: ClassVar[list[Any]] = []  # noqa: N815 - Twisted's name

    def __init_subclass__(cls) -> None:
        """Make the options of the keys; `--listen` may be repeated."""
        super().__init_subclass__()
        cls.optParameters = [
            ["config", "c", None, "a YAML file of settings"],
            *(
                [_option(key.name), None, None, _described(key)]
                for key in cls.settings.values()
                if key.name != "listen" and not key.secret
            ),
        ]

        def opt_listen(self: "KeyOptions", endpoint: str) -> None:
            self.setdefault("listen", []).append(endpoint)

        opt_listen.__doc__ = _described(cls.settings["listen"])
        setattr(cls, opt_listen.__name__, opt_listen)  # where Twisted looks for it

    def opt_version(self) -> None:
        """Display the version and exit."""
        sys.stdout.write(f"{self.program} {__version__}\n")
        sys.exit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse the command line; end the process, with one line, where it cannot be used."""
        given = [_spelt_with_dashes(option) for option in (sys.argv[1:] if options is None else options)]
        for option in given:
            name = option.partition("=")[0].removeprefix("--").replace("-", "_")
            if option.startswith("--") and name in self.settings and self.settings[name].secret:
                reason = "is a secret, and others can see command lines; set it in the configuration file"
                give_up(self.program, f"{name} {reason}")
        try:
            usage.Options.parseOptions(self, given)
        except usage.UsageError as exc:
            give_up(self.program, self._explained(str(exc)))

    def getUsage(self, width: int | None = None) -> str:
        """What `--help` shows; an example follows the options."""
        return str(usage.Options.getUsage(self, width)).rstrip() + "\n" + self.example

    def _explained(self, message: str) -> str:
        unknown = re.search(r"option (--\S+) not recognized", message)
        hint = "; " + nearest(unknown[1], ["--" + name.rstrip("=") for name in self.longOpt]) if unknown else ""
        return f"{message}{hint} (twistd {self.program} --help lists all)"

    def overrides(self) -> dict[str, object]:
        """What was given, by key."""
        given = {name: self.get(_option(name)) for name in self.settings}
        return {name: value for name, value in given.items() if value is not None}


_YOUNG_OBJECTS: Final = 10_000
"""So many new objects, and the garbage collector looks for cycles among them. Of the usual 700 there are more in the
requests of a few clients, so it looked at those several times while they were being answered, and found nothing."""


class Launched(Service):
    """The service of a process of its own: ends the process where it cannot start, and says what it runs with."""

    _log = Logger()

    def __init__(
        self,
        program: str,
        service: IService,
        announce: Callable[[], object],
        join: Callable[[object], object] = lambda _: None,
    ) -> None:
        """Start nothing yet.

        Args:
            program: What it is called where it cannot start.
            service: What does the work.
            announce: Called when it has started: writes to the log what it runs with.
            join: Called with the launcher's application when that is there; the log has not been begun then.
        """
        self._program = program
        self._service = service
        self._announce = announce
        self._join = join

    def setServiceParent(self, parent: IServiceCollection) -> None:
        """Belong to the launcher's application."""
        self._join(parent)
        Service.setServiceParent(self, parent)

    def startService(self) -> None:
        """Start the service.

        Raises:
            CannotStart: It cannot be started; the reason was printed and logged.
        """
        try:
            self._service.startService()
        except (AxcollectorError, CannotListenError, OSError) as exc:
            self._log.error("cannot start: {problem}", problem=str(exc))
            give_up(self._program, exc)
        self.running = True
        exempt_what_is_there()
        self._announce()

    def stopService(self) -> "defer.Deferred[None]":
        """Stop the service. Fires when it has stopped."""
        self.running = False
        return defer.maybeDeferred(self._service.stopService)


def exempt_what_is_there() -> None:
    """Have the garbage collector leave alone what is there now: modules and services, as long-lived as the process.

    A full collection looks at all of it, some 20 ms in which nobody is answered, each time to find that it is needed.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)


def _option(name: str) -> str:
    return name.replace("_", "-")


def _described(key: Key) -> str:
    """What a key is for, with its unit and its default."""
    facts = "; ".join(filter(None, (key.kind.unit, key.default_text and f"default {key.default_text}")))
    return f"{key.description} ({facts})" if facts else key.description


def _spelt_with_dashes(option: str) -> str:
    """An option may be written as its key is, with underscores."""
    name, equals, value = option.partition("=")
    return _option(name) + equals + value if name.startswith("--") else option
