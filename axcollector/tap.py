"""`twistd axcollector`: its options, and the whole put together for a process of its own. The first embedder."""

import os
from collections.abc import Callable
from typing import Any, Final

from twisted.application.service import IService
from twisted.logger import Logger

from axcollector import __version__
from axcollector.assembly import assemble
from axcollector.config import KEYS, Config
from axcollector.config_file import Loaded, read_config
from axcollector.connections import fitting, open_files_limit
from axcollector.core.errors import ConfigError
from axcollector.exposure import Door, ingest_door, warning_of
from axcollector.launch import KeyOptions, Launched, give_up
from axcollector.listening import check_endpoints
from axcollector.log_format import in_format
from axcollector.notify import Readiness, Supervisor
from axcollector.supervised import Reread, supervised

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
        certificates=whole.certificates,
        afterwards=whole.afterwards,
    )
    return launched(service, loaded, in_format(loaded.config.log_format, options))


def checked(reactor: Any, running: Config, found: Config) -> Config:  # noqa: ANN401 - any Twisted reactor
    """A configuration of which it is known that its new endpoints, with their certificates, could be used."""
    check_endpoints(reactor, "listen", [each for each in found.listen if each not in running.listen])
    if found.admin_listen != running.admin_listen:
        check_endpoints(reactor, "admin_listen", [found.admin_listen])
    return found


def launched(service: IService, loaded: Loaded, join: Callable[[object], object] = lambda _: None) -> IService:
    """The service of a process of its own, which says what it runs with."""
    result: IService = Launched(_PROGRAM, service, lambda: _announce(loaded), join)
    return result


def _announce(loaded: Loaded) -> None:
    for note in loaded.notes:
        _log.info("{note}", note=note)
    config = loaded.config
    doors = (
        ingest_door(config.listen, tokens=config.ingest_auth == "token"),
        Door([config.admin_listen], "admin token"),
    )
    if warning := warning_of(*doors):
        _log.warn("{warning}", warning=warning)
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
