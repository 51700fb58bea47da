"""The public names, for programs that embed a collector; what is not named here may change without notice.

    from axcollector.api import AnalyticsAPI, Collector, Config

    collector = Collector(reactor, Config(local_storage_path="/var/lib/gateway/analytics"))
    collector.setServiceParent(application)                      # an IService, without a port
    root.putChild(b"collect", AnalyticsAPI(collector).resource())  # an IResource, to put anywhere
    collector.submit(scope, [record])                            # a Deferred: fires when it is durable

Importing this installs no reactor. `AnalyticsAPI` needs klein, which does; it is loaded when it is first asked for, so
choose a reactor before that.
"""

from typing import TYPE_CHECKING

from axcollector.collector import Collector
from axcollector.config import Config
from axcollector.core.errors import (
    AxcollectorError,
    ConfigError,
    DirectoryInUse,
    EndpointUnavailable,
    LookupFailed,
    NotReady,
    Overloaded,
    Refusal,
    Rejected,
    SpoolFailed,
    TenantRefused,
    UploadFailed,
)
from axcollector.stores.base import Store
from axcollector.sync.events import Change, ChangeList, Operation, Snapshot
from axcollector.sync.listener import SyncListener

if TYPE_CHECKING:
    from axcollector.webapi import AnalyticsAPI

__all__ = [
    "AnalyticsAPI",
    "AxcollectorError",
    "Change",
    "ChangeList",
    "Collector",
    "Config",
    "ConfigError",
    "DirectoryInUse",
    "EndpointUnavailable",
    "LookupFailed",
    "NotReady",
    "Operation",
    "Overloaded",
    "Refusal",
    "Rejected",
    "Snapshot",
    "SpoolFailed",
    "Store",
    "SyncListener",
    "TenantRefused",
    "UploadFailed",
]


def __getattr__(name: str) -> object:
    """Load what needs klein when it is asked for."""
    if name == "AnalyticsAPI":
        from axcollector.webapi import AnalyticsAPI  # noqa: PLC0415 - see the module's docstring

        return AnalyticsAPI
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
