"""`twistd axcollector`: its options, and the whole put together for a process of its own. The first embedder.

Whatever keeps the service from starting ends in one line on standard error and exit status 1: a wrong option or
configuration before anything is made, a data directory in use or a port that is taken when the service is started.
twistd itself would print its usage, or a traceback. `CannotStart` gets through it: as an `Exception` it makes twistd
remove its pid file and tell the parent of a daemon; as a `SystemExit` it then ends the process quietly.
"""

import gc
import re
import sys
import time
from collections.abc import Sequence
from typing import Any, ClassVar, Final, NoReturn

from twisted.application.service import IService, Service
from twisted.internet import defer
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python import usage
from twisted.web.server import Site

from axcollector import __version__
from axcollector.clock_steps import ClockSteps
from axcollector.collector import Collector
from axcollector.config import KEYS, Config, Key, nearest
from axcollector.config_file import Loaded, read_config
from axcollector.core.errors import AxcollectorError, ConfigError
from axcollector.listening import Listeners, endpoints_of
from axcollector.services import InOrder, OnStop

_EXAMPLE: Final = """
Collects API-traffic records over HTTP and delivers them to object storage.
Everything has a default: without options records are taken at
http://127.0.0.1:9000/analytics and end as files in axcollector-data/store.

Every setting but the secret ones (bearer_token, admin_token) is an option here
and a key of the configuration file; the option wins. For example:

    twistd -n axcollector --config axcollector.yaml --collection-interval 60

where axcollector.yaml holds lines such as

    local_storage_path: /var/lib/axcollector
    listen: tcp:9000
    uap_server_base: https://signer.example.com/uap
    bearer_token_file: /etc/axcollector/token
"""


_NOT_GENERATED: Final = {"listen", *(key.name for key in KEYS.values() if key.secret)}
"""Keys that are no options, or one that may be repeated."""


def _option(name: str) -> str:
    return name.replace("_", "-")


def _described(key: Key) -> str:
    """What a key is for, with its unit and its default."""
    facts = "; ".join(filter(None, (key.kind.unit, key.default_text and f"default {key.default_text}")))
    return f"{key.description} ({facts})" if facts else key.description


class CannotStart(SystemExit, Exception):
    """The service cannot start. Ends the process with status 1; the message has been printed already."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        # The interpreter would print a text to what standard error is by then: twistd's log.
        self.code = 1


# twistd shows a daemon's parent the first 100 bytes of the exception, its module's name included.
CannotStart.__module__ = "builtins"


def _give_up(problem: Exception | str) -> NoReturn:
    """Say on the process's own standard error why it cannot start, in one line, and end it."""
    message = " ".join(str(problem).split())
    if isinstance(problem, OSError) and problem.filename is not None:
        message = f"{problem.filename}: {problem.strerror}"
    stream = sys.__stderr__ or sys.stderr
    stream.write(f"axcollector cannot start: {message}\n")
    stream.flush()
    raise CannotStart(message) from None


class Options(usage.Options):
    """The command line: `--config`, and an option for every key that is not secret."""

    optParameters: ClassVar[list[Any]] = [  # noqa: N815 - Twisted's name
        ["config", "c", None, "a YAML file of settings"],
        *([_option(key.name), None, None, _described(key)] for key in KEYS.values() if key.name not in _NOT_GENERATED),
    ]

    def opt_listen(self, endpoint: str) -> None:  # noqa: D102 - the table's text, below
        self.setdefault("listen", []).append(endpoint)

    opt_listen.__doc__ = _described(KEYS["listen"])

    def opt_version(self) -> None:
        """Display the version and exit."""
        sys.stdout.write(f"axcollector {__version__}\n")
        sys.exit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse the command line; end the process, with one line, where it cannot be used."""
        given = [_spelt_with_dashes(option) for option in (sys.argv[1:] if options is None else options)]
        for option in given:
            name = option.partition("=")[0].removeprefix("--").replace("-", "_")
            if option.startswith("--") and name in KEYS and KEYS[name].secret:
                _give_up(f"{name} is a secret, and others can see command lines; set it in the configuration file")
        try:
            usage.Options.parseOptions(self, given)
        except usage.UsageError as exc:
            _give_up(self._explained(str(exc)))

    def getUsage(self, width: int | None = None) -> str:
        """What `--help` shows; an example follows the options."""
        return str(usage.Options.getUsage(self, width)).rstrip() + "\n" + _EXAMPLE

    def _explained(self, message: str) -> str:
        unknown = re.search(r"option (--\S+) not recognized", message)
        hint = "; " + nearest(unknown[1], ["--" + name.rstrip("=") for name in self.longOpt]) if unknown else ""
        return f"{message}{hint} (twistd axcollector --help lists all)"

    def overrides(self) -> dict[str, object]:
        """What was given, by key."""
        given = {name: self.get(_option(name)) for name in KEYS}
        return {name: value for name, value in given.items() if value is not None}


class Launched(Service):
    """The service of a process of its own: says what it runs with, and ends the process where it cannot start."""

    _log = Logger()

    def __init__(self, service: IService, loaded: Loaded) -> None:
        """Start nothing yet.

        Args:
            service: What does the work.
            loaded: The configuration that it was made with.
        """
        self._service = service
        self._loaded = loaded

    def startService(self) -> None:
        """Start the service.

        Raises:
            CannotStart: It cannot be started; the reason was printed and logged.
        """
        try:
            self._service.startService()
        except (AxcollectorError, CannotListenError, OSError) as exc:
            self._log.error("cannot start: {problem}", problem=str(exc))
            _give_up(exc)
        self.running = True
        _exempt_what_is_there()
        for note in self._loaded.notes:
            self._log.info("{note}", note=note)
        config = self._loaded.config
        self._log.info(
            "axcollector {version} takes records at {listen}; data in {data_directory}; files go to {store}",
            version=__version__,
            listen=", ".join(config.listen),
            data_directory=config.data_directory,
            store=config.uap_server_base or config.store_url,
        )

    def stopService(self) -> "defer.Deferred[None]":
        """Stop the service. Fires when it has stopped."""
        self.running = False
        return defer.maybeDeferred(self._service.stopService)


def _exempt_what_is_there() -> None:
    """Have the garbage collector leave alone what is there now: modules and services, as long-lived as the process.

    A full collection looks at all of it, some 20 ms in which nobody is answered, each time to find that it is needed.
    """
    gc.collect()
    gc.freeze()


def _spelt_with_dashes(option: str) -> str:
    """An option may be written as its key is, with underscores."""
    name, equals, value = option.partition("=")
    return _option(name) + equals + value if name.startswith("--") else option


def makeService(options: Options) -> IService:
    """The service that `twistd axcollector` runs. Reads the configuration and does no other I/O.

    Raises:
        CannotStart: The configuration cannot be used; the reason was printed.
    """
    from twisted.internet import reactor  # noqa: PLC0415 - importing this module must not choose one

    try:
        loaded = read_config(options["config"], options.overrides())
        service = make_service(reactor, loaded.config)
    except ConfigError as exc:
        _give_up(exc)
    launched: IService = Launched(service, loaded)
    return launched


def make_service(reactor: Any, config: Config) -> IService:  # noqa: ANN401 - it provides what every Twisted reactor does
    """A collector and its doors: what takes records, and what tells of its health. Starts nothing yet.

    Raises:
        ConfigError: An endpoint cannot be made.
    """
    # Importing klein installs a reactor, and it is the launcher's to choose one.
    from axcollector.admin.health import HealthAPI  # noqa: PLC0415
    from axcollector.site import IngestSite  # noqa: PLC0415
    from axcollector.webapi import AnalyticsAPI  # noqa: PLC0415

    collector = Collector(reactor, config)
    ingest = IngestSite(
        AnalyticsAPI(collector).resource(),
        reactor,
        max_body_bytes=config.max_body_bytes,
        max_pending_bytes=config.max_pending_bytes,
        request_timeout_seconds=config.request_timeout,
    )
    admin = Site(HealthAPI(collector).resource(), reactor=reactor)
    return InOrder(
        [
            ClockSteps(reactor, time.time, time.monotonic),
            collector,
            Listeners("admin_listen", endpoints_of(reactor, "admin_listen", [config.admin_listen]), admin),
            OnStop(ingest.close_idle),
            Listeners("listen", endpoints_of(reactor, "listen", config.listen), ingest),
        ]
    )
