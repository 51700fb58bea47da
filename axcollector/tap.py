"""`twistd axcollector`: its options, and the whole put together for a process of its own. The first embedder."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from twisted.application.service import IService
from twisted.internet import defer
from twisted.logger import Logger
from twisted.web.server import Site

from axcollector import __version__
from axcollector.clock_steps import ClockSteps
from axcollector.collector import Collector
from axcollector.config import KEYS, Config
from axcollector.config_endpoints import is_local, split_endpoint
from axcollector.config_file import Loaded, read_config
from axcollector.connections import fitting, open_files_limit
from axcollector.core.errors import ConfigError
from axcollector.exposure import warning_of
from axcollector.launch import KeyOptions, Launched, give_up
from axcollector.listening import Listeners, check_endpoints, endpoints_of
from axcollector.notify import Readiness, Supervisor
from axcollector.reloading import Live
from axcollector.services import InOrder, OnStop
from axcollector.supervised import Reread, supervised

if TYPE_CHECKING:
    from axcollector.admin.access import AdminToken
    from axcollector.site import IngestSite

_PROGRAM: Final = "axcollector"
_PLAIN: Final = frozenset({"tcp", "tcp6"})
_log = Logger()

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


class Options(KeyOptions):
    """The command line: `--config`, and an option for every key that is not secret."""

    program = _PROGRAM
    settings = KEYS
    example = _EXAMPLE


def makeService(options: Options) -> IService:
    """The service that `twistd axcollector` runs. Reads the configuration and does no other I/O.

    Raises:
        CannotStart: The configuration cannot be used; the reason was printed.
    """
    from twisted.internet import reactor  # noqa: PLC0415 - importing this module must not choose one

    read = Reread(options["config"], options.overrides())
    try:
        loaded = read(read_config)
        whole = assemble(reactor, loaded.config)
    except ConfigError as exc:
        give_up(_PROGRAM, exc)
    supervisor = Supervisor(os.environ)
    service = supervised(
        reactor,
        whole.service,
        Readiness(reactor, supervisor, whole.problem, f"taking records at {', '.join(loaded.config.listen)}"),
        KEYS,
        loaded.config,
        lambda: checked(reactor, loaded.config, read(read_config).config),
        live=whole.live,
        certificates=[each for listeners in whole.listeners for each in listeners.certificates],
    )
    return launched(service, loaded)


def checked(reactor: Any, running: Config, found: Config) -> Config:  # noqa: ANN401 - any Twisted reactor
    """A configuration of which it is known that its new endpoints, with their certificates, could be used."""
    check_endpoints(reactor, "listen", [each for each in found.listen if each not in running.listen])
    if found.admin_listen != running.admin_listen:
        check_endpoints(reactor, "admin_listen", [found.admin_listen])
    return found


def launched(service: IService, loaded: Loaded) -> IService:
    """The service of a process of its own, which says what it runs with."""
    result: IService = Launched(_PROGRAM, service, lambda: _announce(loaded))
    return result


def _announce(loaded: Loaded) -> None:
    for note in loaded.notes:
        _log.info("{note}", note=note)
    config = loaded.config
    if warning := warning_of(config.listen, tokens=config.ingest_auth == "token"):
        _log.warn("{warning}", warning=warning)
    if split_endpoint(config.admin_listen)[0] in _PLAIN and not is_local(config.admin_listen):
        _log.warn(
            "admin_listen takes its token over the network without TLS, where others may read and use it:"
            " listen on 127.0.0.1, or on axtls:9001:certificate=…:key=… instead"
        )
    _log.info(
        "axcollector {version} takes records at {listen}; data in {data_directory}; files go to {store}",
        version=__version__,
        listen=", ".join(config.listen),
        data_directory=config.data_directory,
        store=config.uap_server_base or config.store_url,
    )
    open_files = open_files_limit()
    connections = fitting(config.max_connections, open_files)
    if connections < config.max_connections:
        _log.info(
            "{connections} clients may be connected, not {wanted} (max_connections), because this process may open"
            " {open_files} files only: see LimitNOFILE= of systemd, or ulimit -n",
            connections=connections,
            wanted=config.max_connections,
            open_files=open_files,
        )


@dataclass(frozen=True, slots=True)
class Whole:
    """A collector and its doors.

    Attributes:
        service: All of it.
        collector: The collector.
        listeners: What listens.
        live: What of the configuration can be exchanged while it runs.
    """

    service: InOrder
    collector: Collector
    listeners: Sequence[Listeners]
    live: Live[Config]

    def problem(self) -> str | None:
        """Why no request would be taken; None: it would, as far as the process itself is concerned."""
        return self.collector.problems()["catalog"]


def make_service(reactor: Any, config: Config) -> IService:  # noqa: ANN401 - it provides what every Twisted reactor does
    """A collector and its doors, for a process that looks after signals itself. Starts nothing yet.

    Raises:
        ConfigError: An endpoint cannot be made.
    """
    service: IService = assemble(reactor, config).service
    return service


def assemble(reactor: Any, config: Config) -> Whole:  # noqa: ANN401 - as above
    """A collector and its doors: what takes records, and what tells of its health. Starts nothing yet.

    Raises:
        ConfigError: An endpoint cannot be made, or the admin token not be read.
    """
    # Importing klein installs a reactor, and it is the launcher's to choose one.
    from axcollector.admin.access import AdminToken, GuardedResource, read_token  # noqa: PLC0415
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
        max_connections=fitting(config.max_connections, open_files_limit()),
        max_connections_per_address=config.max_connections_per_address,
    )
    token = AdminToken(read_token(config.admin_token, config.admin_token_file))
    pages = GuardedResource(HealthAPI(collector, token.allows).resource(), token)
    listeners = (
        Listeners(
            "admin_listen",
            endpoints_of(reactor, "admin_listen", [config.admin_listen]),
            Site(pages, reactor=reactor),
        ),
        Listeners("listen", endpoints_of(reactor, "listen", config.listen), ingest),
    )
    service = InOrder(
        [
            ClockSteps(reactor, time.time, time.monotonic),
            OnStop(lambda: defer.ensureDeferred(ingest.drain())),
            collector,
            listeners[0],
            OnStop(ingest.close_idle),
            listeners[1],
        ]
    )
    return Whole(service, collector, listeners, _live(ingest, token))


def _live(ingest: "IngestSite", token: "AdminToken") -> Live[Config]:
    from axcollector.admin.access import read_token  # noqa: PLC0415 - see `assemble`

    def prepare(config: Config) -> Callable[[], None]:
        new_token = read_token(config.admin_token, config.admin_token_file)

        def apply() -> None:
            token.use(new_token)
            ingest.request_timeout_seconds = config.request_timeout

        return apply

    return Live(frozenset({"admin_token", "admin_token_file", "request_timeout"}), prepare)
