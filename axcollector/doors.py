"""The doors that take records, made as the configuration says; the same in one process as in workers.

Importing this installs a reactor, because klein does.
"""

from typing import Any

from axcollector.config import Config
from axcollector.connections import fitting, open_files_limit
from axcollector.door import Ingest
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
