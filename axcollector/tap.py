"""`twistd axcollector`: its options, and the whole put together for a process of its own. The first embedder."""

import os
import time
from dataclasses import replace
from typing import Any, Final

from twisted.application.service import IService
from twisted.logger import Logger
from twisted.web.server import Site

from axcollector import __version__
from axcollector.clock_steps import ClockSteps
from axcollector.collector import Collector
from axcollector.config import KEYS, Config
from axcollector.config_file import Loaded, read_config
from axcollector.core.errors import ConfigError
from axcollector.delivering import Delivering
from axcollector.disk import Disk
from axcollector.exposure import warning_of
from axcollector.launch import KeyOptions, Launched, give_up
from axcollector.listening import Listeners, endpoints_of
from axcollector.premises import Premises
from axcollector.services import InOrder, OnStop
from axcollector.workers.crew import Workers
from axcollector.workers.inheritance import worker_count

_PROGRAM: Final = "axcollector"
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

    try:
        loaded = read_config(options["config"], options.overrides())
        service = make_service(reactor, loaded.config)
    except ConfigError as exc:
        give_up(_PROGRAM, exc)
    return launched(service, loaded)


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
    _log.info(
        "axcollector {version} takes records at {listen}; data in {data_directory}; files go to {store}",
        version=__version__,
        listen=", ".join(config.listen),
        data_directory=config.data_directory,
        store=config.uap_server_base or config.store_url,
    )


def make_service(reactor: Any, config: Config) -> IService:  # noqa: ANN401 - it provides what every Twisted reactor does
    """A collector and its doors: what takes records, and what tells of its health. Starts nothing yet.

    Raises:
        ConfigError: An endpoint cannot be made.
    """
    # Importing klein installs a reactor, and it is the launcher's to choose one.
    from axcollector.admin.health import HealthAPI  # noqa: PLC0415
    from axcollector.doors import ingest_site  # noqa: PLC0415

    count = worker_count(config.workers, len(os.sched_getaffinity(0)))
    if count > 1:
        return _make_parent(reactor, config, count)
    collector = Collector(reactor, replace(config, workers=1))
    ingest = ingest_site(reactor, config, collector)
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


def _make_parent(reactor: Any, config: Config, count: int) -> IService:  # noqa: ANN401 - as above
    """The parent of worker processes: it delivers what they take, and tells of their health."""
    from axcollector.admin.health import HealthAPI  # noqa: PLC0415 - see `make_service`

    disk = Disk()
    premises = Premises(disk, config.local_storage_path, config.data_directory, shared=True)
    workers = Workers(reactor, config, disk, count, premises.workers_lock)
    delivering = Delivering(reactor, config, disk, premises, workers)
    admin = Site(HealthAPI(delivering).resource(), reactor=reactor)
    return InOrder(
        [
            ClockSteps(reactor, time.time, time.monotonic),
            delivering,
            Listeners("admin_listen", endpoints_of(reactor, "admin_listen", [config.admin_listen]), admin),
        ]
    )
