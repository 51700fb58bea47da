"""A collector that is not there, behind the real admin pages: what it tells of itself grows with the time.

`python -m tests.page_world` serves it on a port of the system's choice, which it prints, until its standard input ends.
What a line on standard input says becomes so: `failed N`, `sick`, `well`.
"""

import json
import math
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from twisted.internet import defer
from twisted.logger import Logger, LogPublisher

from axcollector.config import KEYS, Config
from axcollector.core import deflate
from axcollector.core.layout import bucket_directory
from axcollector.core.model import BucketName
from axcollector.core.status import (
    CatalogStatus,
    Check,
    DeliveryStatus,
    FailedBucket,
    Histogram,
    IngestStatus,
    JobStatus,
    Paused,
    RequestCount,
    StageStatus,
    Status,
    WorkerStatus,
)  # fmt: skip
from axcollector.core.traffic import Traffic

HOSTILE = "<img src=x onerror=document.title='taken'>"
"""What somebody may call his organization, or get into a reason."""
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class World:
    """What is told.

    Attributes:
        failed: The buckets in failed, by name, and why.
        sick: Whether it is not ready.
        drained: How often it was told to drain.
    """

    def __init__(self, now: float, tenants: int = 0, failed: int = 0) -> None:
        self.started_at = now
        self.tenant_count = tenants
        self.failed: dict[str, str] = {}
        self.sick = False
        self.drained = 0
        self.fail(failed, now)

    def fail(self, count: int, now: float) -> None:
        """So many buckets have failed."""
        for number in range(count):
            tenant = HOSTILE if number == 1 else f"acme-{number}"
            name = bucket_directory(BucketName(int(now) // 120 * 120 - 120 * number, tenant, "prod"))
            reason = f"the signer answered 500: {HOSTILE}" if number == 1 else "the store answered 404 NoSuchBucket"
            self.failed[name] = reason

    def status(self, now: float | None = None) -> Status:
        """As it is now."""
        now = time.time() if now is None else now
        age = now - self.started_at
        records = int(age * 4200 + 30_000 * math.sin(age / 90) + 20_000)
        return Status(
            version="0.1.0",
            instance_id="2b0e6a4e-8a1c-4a4e-9a35-6d2f6e0f9d10",
            now=now,
            started_at=self.started_at,
            checks={
                "catalog": Check(ok=True),
                "spool": Check(not self.sick, "The last commit failed" if self.sick else ""),
                "tokens": Check(ok=True),
            },
            spool_bytes=6_100_000_000,
            spool_quota_bytes=8_000_000_000,
            ingest=self._ingest(records, age),
            stages=self._stages(now),
            delivery=self._delivery(records, now),
            catalog=CatalogStatus(
                source="registry", version="1.234", rows={"data_scope": 10_000, "developer": 4711, "app": 9123},
                changed_at=now - 4000, heard_at=now - 1.2, rebuild_seconds=1.73,
            ),
            jobs=[JobStatus("room", int(age / 2)), JobStatus("sweep of staging", int(age / 5), 2, HOSTILE)],
            workers=[WorkerStatus(0, 4242, ready=True), WorkerStatus(1, None, ready=False)] if self.failed else [],
        )  # fmt: skip

    def _ingest(self, records: int, age: float) -> IngestStatus:
        slow = 2 + math.sin(age / 200)
        counts = [int(age * 100 * each) for each in (3, 20, 60, 25, 6, 2, slow, 0.3, 0.1, 0, 0)]
        return IngestStatus(
            requests=[
                RequestCount("scope", 200, "ACCEPTED", records // 50),
                RequestCount("names", 400, "BAD_DATA", 12),
                RequestCount("other", 404, "NOT_FOUND", 3),
            ],
            accepted_records=records,
            accepted_bytes=records * 410,
            quarantined_records=17,
            commits=sum(counts),
            commit_seconds=Histogram(BOUNDS, counts, sum(counts) * 0.002),
            commit_batches=Histogram((1, 10, 100), [4, 3, 2, 1], 99),
            pending_batches=3,
            pending_bytes=61_000,
            connections=212,
        )

    def _stages(self, now: float) -> list[StageStatus]:
        return [
            StageStatus(name="tmp", buckets=1, bytes=31_000_000, oldest_at=now - 70),
            StageStatus(name="recovered"),
            StageStatus(name="staging", buckets=48, bytes=124_000_000, oldest_at=now - 131),
            StageStatus(
                name="failed", buckets=len(self.failed), bytes=len(self.failed) * 2_100_000,
                oldest_at=now - 7300 if self.failed else None,
            ),
            StageStatus(name="quarantine", buckets=1, bytes=900, oldest_at=now - 90_000),
        ]  # fmt: skip

    def _delivery(self, records: int, now: float) -> DeliveryStatus:
        delivered = max(0, records - 500_000)
        return DeliveryStatus(
            attempts={"delivered": delivered // 3000, "failed": 9},
            delivered_files=delivered // 3000,
            delivered_bytes=delivered * 61,
            delivered_records=delivered,
            delivered_at=now - 3,
            upload_seconds=Histogram((0.1, 1.0), [100, 20, 1], 31.0),
            lag_seconds=8 + 3 * math.sin(now / 60),
            under_way=4,
            paused=[Paused("https://store.example:443", f"503, {HOSTILE}", now + 42)] if self.failed else [],
            failed=[FailedBucket(name, 2_100_000, reason) for name, reason in self.failed.items()],
        )

    @property
    def traffic(self) -> Traffic:
        """Of these the first has sent most, and the last has a name that is no name."""
        now, count, traffic = time.time(), self.tenant_count, Traffic()
        for n in range(count):
            traffic.add(f"org-{n:05}", ("prod", "test")[n % 2], int((count - n) * (100 + now % 1000)), n * 977, now - n)
        traffic.add(HOSTILE, "prod", 1, 400, now)
        return traffic

    def retry_failed(self, bucket: str | None = None) -> "defer.Deferred[int]":
        """As a collector does."""
        gone = [name for name in self.failed if bucket in (None, name)]
        for name in gone:
            del self.failed[name]
        return defer.succeed(len(gone))

    def drain(self) -> None:
        """As a collector does."""
        self.drained += 1

    def checks(self) -> Mapping[str, Check]:
        """As a collector does."""
        return self.status().checks


def set_aside(root: Path) -> None:
    """A bucket in quarantine."""
    entry = {
        "quarantined_at": 1, "organization": "acme", "environment": "prod", "scope": None, "index": 0,
        "code": "BAD_DATA", "reason": f"client_id has to be a string {HOSTILE}", "record": {},
    }  # fmt: skip
    bucket = root / "quarantine" / bucket_directory(BucketName(1_767_323_040, "acme", "prod"))
    bucket.mkdir(parents=True)
    lines = (json.dumps(entry) + "\n").encode() * 17
    (bucket / "x.txt.gz").write_bytes(deflate.member(lines))


def serve(root: Path, world: World) -> None:
    """Serve its pages, and do what standard input says, until that ends."""
    from twisted.internet import reactor, stdio
    from twisted.protocols.basic import LineOnlyReceiver

    from axcollector.admin.access import AdminSite, AdminToken, GuardedResource
    from axcollector.admin.actions import add_actions
    from axcollector.admin.configuration import InForce, add_configuration
    from axcollector.admin.events import Events, add_events
    from axcollector.admin.health import HealthAPI
    from axcollector.admin.history import SAMPLE_SECONDS, History, add_history, sampling
    from axcollector.admin.page import add_page
    from axcollector.admin.quarantined import add_quarantine
    from axcollector.admin.site import AdminResource
    from axcollector.admin.status import add_status
    from axcollector.services import WorkThread

    history, publisher, app = History(), LogPublisher(), HealthAPI(world).app
    began = world.started_at
    for number in range(int((time.time() - began) / SAMPLE_SECONDS)):
        history.note(world.status(began + number * SAMPLE_SECONDS))
    thread, events = WorkThread(reactor, "pages"), Events(publisher)
    config = Config(local_storage_path=str(root), admin_token="a-secret", upload_interval=1.5)
    for service in (thread, events, sampling(reactor, world, history)):
        service.startService()
    said = Logger("axcollector.outcomes", observer=publisher)
    said.info(
        "delivered {what}", what="acme~prod~20260102030400/1a2b_20260102030400.20260102030600_x_writer_1-0-1.txt.gz"
    )
    said.warn("the store is paused: {why}", why=HOSTILE)
    said.error("acme~prod~20260102030400 moved to failed after 3 attempts")
    add_status(app, world, reactor)
    add_page(app)
    add_history(app, history)
    add_events(app, events)
    add_configuration(app, InForce(KEYS, config))
    add_quarantine(app, thread, str(root))
    add_actions(app, world)
    site = AdminSite(GuardedResource(AdminResource(app, AdminToken(None)), AdminToken(None)), reactor)
    port = reactor.listenTCP(0, site, interface="127.0.0.1")

    class Orders(LineOnlyReceiver):
        delimiter = b"\n"

        def lineReceived(self, line: bytes) -> None:
            match line.decode().split():
                case ["failed", count]:
                    world.fail(int(count), time.time())
                case ["sick" | "well" as how]:
                    world.sick = how == "sick"
                    said.warn("it is {how}", how=how)

        def connectionLost(self, reason: object) -> None:
            reactor.stop()

    stdio.StandardIO(Orders())
    print(port.getHost().port, flush=True)
    reactor.run()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        set_aside(Path(directory))
        serve(Path(directory), World(time.time() - float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
