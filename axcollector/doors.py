"""The doors that take records, made as the configuration says; the same in one process as in workers.

Importing this installs a reactor, because klein does.
"""

from typing import Any

from axcollector.config import Config
from axcollector.connections import fitting, open_files_limit
from axcollector.core.messages import Setup
from axcollector.door import Ingest
from axcollector.handing import Exchange
from axcollector.listening import Listeners, adopted_endpoint
from axcollector.services import InOrder
from axcollector.site import IngestSite
from axcollector.webapi import AnalyticsAPI


def ingest_site(reactor: Any, config: Config, collector: Ingest) -> IngestSite:  # noqa: ANN401 - it provides time
    """The site that takes records for a collector, or for the ingesting half of one alone."""
    api = AnalyticsAPI(collector)
    return IngestSite(
        api.resource(),
        reactor,
        max_body_bytes=config.max_body_bytes,
        max_pending_bytes=config.max_pending_bytes,
        request_timeout_seconds=config.request_timeout,
        max_connections=fitting(config.max_connections, open_files_limit()),
        max_connections_per_address=config.max_connections_per_address,
        parser=config.http_parser,
        door=api.door,
        tally=collector.tally,
    )


def worker_listeners(reactor: Any, key: str, setup: Setup, site: IngestSite) -> InOrder:  # noqa: ANN401 - any reactor
    """What gives a site the connections of a worker's sockets, and those that other workers hand on.

    Raises:
        ConfigError: The files that an endpoint names cannot be used.
    """
    exchange = None if setup.sharing is None else Exchange(reactor, setup.sharing, site.connections)
    through = None if exchange is None else exchange.endpoint
    endpoints = [adopted_endpoint(reactor, key, each.endpoint, each.descriptor, through) for each in setup.doors]
    return InOrder([Listeners(key, endpoints, site), *filter(None, [exchange])])
