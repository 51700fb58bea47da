"""Puts the transicator source together: its token, its client over the network, its files."""

import os
import socket
from collections.abc import Callable
from typing import Any, Protocol

from axcollector.core.retry import Backoff
from axcollector.disk import Disk
from axcollector.services import Worker
from axcollector.stores.transfer import Transfer
from axcollector.sync.events import Listener
from axcollector.sync.transicator_client import Servers, TransicatorClient
from axcollector.sync.transicator_files import RegistryFiles
from axcollector.sync.transicator_source import Timing, TransicatorSource
from axcollector.sync.transicator_token import Registration, TokenKeeper

FIRST_DELAY_SECONDS = 0.2
"""The longest wait after one failure; it doubles with each further one."""
_SHORTEST_DELAY_SECONDS = 0.1
_MARKER = "transicator.registered"


class TransicatorSettings(Protocol):
    """Who is asked, and where files are; a `Config` is one, and its keys say what these are."""

    @property
    def apigeesync_proxy_server_base(self) -> str | None:
        """Needed."""
        ...

    @property
    def apigeesync_snapshot_server_base(self) -> str | None:
        """Needed."""
        ...

    @property
    def apigeesync_change_server_base(self) -> str | None:
        """Needed."""
        ...

    @property
    def apigeesync_cluster_id(self) -> str | None:
        """Needed."""
        ...

    @property
    def apigeesync_consumer_key(self) -> str | None:
        """Needed."""
        ...

    @property
    def apigeesync_consumer_secret(self) -> str | None:
        """Needed."""
        ...

    @property
    def apigeesync_instance_name(self) -> str | None:
        """None: the host's name."""
        ...

    @property
    def apigeesync_poll_interval(self) -> float:
        """In seconds."""
        ...

    @property
    def cache_refresh_interval(self) -> float:
        """In seconds."""
        ...

    @property
    def registry_file(self) -> str:
        """The files are beside it."""
        ...

    @property
    def upload_proxy(self) -> str | None:
        """The forward proxy by which the servers are reached; None: there is none."""
        ...


def over_network(
    reactor: Any,  # noqa: ANN401 - time, TCP and TLS, as every reactor has them
    worker: Worker,
    disk: Disk,
    listener: Listener,
    settings: TransicatorSettings,
    instance_id: str,
    chance: Callable[[], float],
) -> TransicatorSource:
    """A source that asks servers over the network.

    Args:
        reactor: The reactor.
        worker: Whose thread reads and writes files; best one that has nothing else to do.
        disk: The hands.
        listener: Who gets the events.
        settings: Who is asked, and where files are.
        instance_id: This installation's id.
        chance: Gives a number in [0, 1), for the jitter.
    """
    servers = Servers(
        proxy_server_base=settings.apigeesync_proxy_server_base or "",
        snapshot_server_base=settings.apigeesync_snapshot_server_base or "",
        change_server_base=settings.apigeesync_change_server_base or "",
        cluster_id=settings.apigeesync_cluster_id or "",
        instance_id=instance_id,
        instance_name=settings.apigeesync_instance_name or socket.gethostname(),
        consumer_key=settings.apigeesync_consumer_key or "",
        consumer_secret=settings.apigeesync_consumer_secret or "",
    )
    directory = os.path.dirname(settings.registry_file)
    transfer = Transfer.over_network(reactor, disk, idle_seconds=60, connections=2, proxy=settings.upload_proxy)
    client = TransicatorClient(reactor, transfer, servers)
    backoff = Backoff(FIRST_DELAY_SECONDS, settings.apigeesync_poll_interval, _SHORTEST_DELAY_SECONDS)
    registration = Registration(disk, os.path.join(directory, _MARKER), instance_id)
    token = TokenKeeper(reactor, worker, client, registration, backoff, chance)
    files = RegistryFiles(disk, directory, servers.cluster_id)
    timing = Timing(backoff, chance, settings.cache_refresh_interval)
    return TransicatorSource(reactor, worker, listener, client, token, files, timing)
