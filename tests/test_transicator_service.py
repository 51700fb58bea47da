"""The whole collector with `sync: transicator`, over real connections of this machine."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import defer, reactor
from twisted.web.server import Site

from axcollector.collector import Collector
from axcollector.config import Config
from axcollector.disk import Disk
from axcollector.sync.listener import SyncListener
from axcollector.sync.transicator import over_network
from tests.fakes import SameThread
from tests.forward_proxy import PlainProxy
from tests.running import QUICK, until
from tests.signing_server import SigningServer
from tests.signing_server import answer as sign_answer
from tests.transicator_server import CLUSTER, TransicatorServer, answer

RECORD = {"client_received_start_timestamp": 1_700_000_000_000, "client_id": "key"}


class Signer(SigningServer):
    """A signer that wants the token that the sync servers have given last."""

    def __init__(self, sync: TransicatorServer) -> None:
        self.sync = sync
        super().__init__()

    @property
    def token(self) -> str:
        return self.sync.token

    @token.setter
    def token(self, token: str) -> None:
        """There is no other."""


class Servers:
    """The sync servers, and a signer that wants the token that those give."""

    def __init__(self) -> None:
        self.sync = TransicatorServer(reactor)  # type: ignore[arg-type]
        self.signer = Signer(self.sync)
        self.ports: list[Any] = []

    def listen(self, site: Site) -> str:
        """Serve; the URL."""
        self.ports.append(reactor.listenTCP(0, site, interface="127.0.0.1"))  # type: ignore[attr-defined]
        return f"http://127.0.0.1:{self.ports[-1].getHost().port}"

    async def close(self) -> None:
        """Serve no more."""
        for port in self.ports:
            await defer.maybeDeferred(port.stopListening)


def config_of(root: Path, sync: str, signer: str, **more: Any) -> Config:
    """A collector of our cluster."""
    return Config(
        local_storage_path=str(root),
        sync="transicator",
        apigeesync_proxy_server_base=sync,
        apigeesync_snapshot_server_base=sync,
        apigeesync_change_server_base=sync,
        apigeesync_consumer_key="key",
        apigeesync_consumer_secret="secret-consumer",
        apigeesync_cluster_id=CLUSTER,
        uap_server_base=signer,
        **{**QUICK, **more},
    )


def knows_key(collector: Collector) -> bool:
    """Whether the catalog knows the key that comes by a change."""
    catalog = collector.sync.catalog
    return catalog is not None and catalog.developer("tenant-a", "key").developer == "ada"


def add_key(server: TransicatorServer) -> None:
    """A key of tenant-a, and all that hangs on it."""
    tenant = "tenant-a"
    server.insert("kms.developer", tenant, id="d1", tenant_id=tenant, username="ada", email="ada@x")
    server.insert("kms.app", tenant, id="a1", tenant_id=tenant, name="app", developer_id="d1")
    server.insert("kms.api_product", tenant, id="p1", tenant_id=tenant, name="gold")
    mapping = {"tenant_id": tenant, "appcred_id": "key", "app_id": "a1", "apiprdt_id": "p1"}
    server.insert("kms.app_credential_apiproduct_mapper", tenant, **mapping)


@pytest_twisted.ensureDeferred
async def test_from_the_servers_to_the_store(tmp_path: Path) -> None:
    """A synced scope takes records, which are uploaded with the token; after a restart without any server too."""
    servers = Servers()
    servers.sync.add_scope("scope-1", "tenant-a")
    sync, signer = servers.listen(Site(servers.sync.resource)), servers.listen(servers.signer.site())
    config = config_of(tmp_path, sync, signer)
    collector = Collector(reactor, config)
    collector.startService()
    await until(collector.directory.ready)
    add_key(servers.sync)
    await until(lambda: knows_key(collector))
    assert await collector.submit("scope-1", [RECORD]) == 1
    await until(lambda: servers.signer.objects)
    servers.signer.next_signs.append(sign_answer(401))  # as if it had forgotten our token
    await collector.submit("scope-1", [RECORD])
    await until(lambda: servers.sync.tokens_given == 2)
    await until(lambda: len(servers.signer.objects) == 2)
    await collector.stopService()
    await servers.close()

    again = Collector(reactor, config)
    again.startService()
    await until(again.directory.ready)
    assert knows_key(again)
    assert again.problems()["catalog"] is None
    assert await again.submit("scope-1", [RECORD]) == 1
    assert again.uploader is not None
    await until(lambda: again.uploader.status().paused)
    (pause,) = again.uploader.status().paused
    assert pause.reason.startswith("there is no token yet: ")
    assert again.uploader.status().counts.failed_tries == 0
    await again.stopService()


@pytest_twisted.ensureDeferred
async def test_what_is_waited_for(tmp_path: Path) -> None:
    """Before the first snapshot the collector says why there is none."""
    servers = Servers()
    sync = servers.listen(Site(servers.sync.resource))
    servers.sync.next["snapshots"] += [answer(500)] * 1000
    collector = Collector(reactor, config_of(tmp_path, sync, sync, bearer_token="mine"))
    collector.startService()
    assert collector.problems()["catalog"] == "Service is not initialized completely"
    reason = "no snapshot yet: the snapshot server answered 500"
    await until(lambda: collector.problems()["catalog"] == reason)
    assert json.dumps(collector.problems())
    await collector.stopService()
    await servers.close()


@pytest_twisted.ensureDeferred
async def test_through_a_forward_proxy(tmp_path: Path) -> None:
    """`upload_proxy` is for the sync servers too; without a name an instance has that of its host."""
    servers, proxy = Servers(), PlainProxy(reactor)
    sync, forward = servers.listen(Site(servers.sync.resource)), servers.listen(proxy)
    collector = Collector(reactor, config_of(tmp_path, sync, sync, upload_proxy=forward))
    servers.sync.next["snapshots"] += [answer(500)] * 1000
    collector.startService()
    reason = "no snapshot yet: the snapshot server answered 500"
    await until(lambda: collector.problems()["catalog"] == reason)
    assert f"{sync}/snapshots?scope={CLUSTER}".encode() in proxy.seen
    assert len(proxy.seen) >= len(servers.sync.asked)
    assert servers.sync.of("token")[0].headers["display_name"] == socket.gethostname()
    await collector.stopService()
    await servers.close()


def test_the_settings_that_are_about_time(tmp_path: Path) -> None:
    """200 ms at first, the poll interval at last; a full rebuild after the refresh interval."""
    config = config_of(tmp_path, "http://s.test", "http://s.test", apigeesync_poll_interval=7, cache_refresh_interval=9)
    listener = SyncListener(reactor, SameThread())  # type: ignore[arg-type]
    timing = over_network(reactor, SameThread(), Disk(), listener, config, "i", lambda: 0.5)._timing
    longest = [timing.backoff.delay(failures, 1.0) for failures in (1, 2, 3, 100)]
    assert longest == pytest.approx([0.2, 0.4, 0.8, 7])
    assert timing.refresh_interval_seconds == 9
