"""The public names, for programs that embed a collector; what is not named here may change without notice.

    from axcollector.api import AnalyticsAPI, Client, Collector, Config, RecordBuffer

    collector = Collector(reactor, Config(local_storage_path="/var/lib/gateway/analytics"))
    collector.setServiceParent(application)                      # an IService, without a port
    root.putChild(b"collect", AnalyticsAPI(collector).resource())  # an IResource, to put anywhere
    collector.submit(scope, [record])                            # a Deferred: fires when it is durable

    buffer = RecordBuffer(reactor, collector)                    # or Client(reactor, "https://collector:9443")
    buffer.add(scope, record)                                    # returns at once

Importing this installs no reactor, starts no thread and touches no file. `AnalyticsAPI` needs klein, which installs a
reactor; it is loaded when it is first asked for, so choose one before that. `Client`, likewise, is loaded with treq.
"""

from typing import TYPE_CHECKING

from axcollector.buffer import RecordBuffer
from axcollector.collector import Collector
from axcollector.config import Config
from axcollector.core.bounds import Counts
from axcollector.core.errors import (
    AxcollectorError,
    ConfigError,
    CredentialsRefused,
    DirectoryInUse,
    EndpointUnavailable,
    FileRefused,
    LookupFailed,
    NotReady,
    Overloaded,
    RateLimited,
    Refusal,
    Rejected,
    SpoolFailed,
    TenantRefused,
    Unavailable,
    Unreachable,
    UnsafeDirectory,
    UploadFailed,
)
from axcollector.core.status import Status
from axcollector.stores.base import Store
from axcollector.sync.events import Change, ChangeList, Operation, Snapshot
from axcollector.sync.listener import SyncListener

if TYPE_CHECKING:
    from axcollector.client import Client
    from axcollector.webapi import AnalyticsAPI

__all__ = [
    "AnalyticsAPI",
    "AxcollectorError",
    "Change",
    "ChangeList",
    "Client",
    "Collector",
    "Config",
    "ConfigError",
    "Counts",
    "CredentialsRefused",
    "DirectoryInUse",
    "EndpointUnavailable",
    "FileRefused",
    "LookupFailed",
    "NotReady",
    "Operation",
    "Overloaded",
    "RateLimited",
    "RecordBuffer",
    "Refusal",
    "Rejected",
    "Snapshot",
    "SpoolFailed",
    "Status",
    "Store",
    "SyncListener",
    "TenantRefused",
    "Unavailable",
    "Unreachable",
    "UnsafeDirectory",
    "UploadFailed",
]


def __getattr__(name: str) -> object:
    """Load what needs klein or treq when it is asked for."""
    if name == "AnalyticsAPI":
        from axcollector.webapi import AnalyticsAPI  # noqa: PLC0415 - see the module's docstring

        return AnalyticsAPI
    if name == "Client":
        from axcollector.client import Client  # noqa: PLC0415 - likewise

        return Client
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
