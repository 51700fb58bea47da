"""A program that uses the whole public API, for the type checker alone; lines that end in `# wrong` are to be found."""

from collections.abc import Sequence

from twisted.application.service import IService
from twisted.internet import defer
from twisted.web.resource import IResource

from axcollector.api import (
    AnalyticsAPI,
    Change,
    ChangeList,
    Client,
    Collector,
    Config,
    Counts,
    EndpointUnavailable,
    Operation,
    Overloaded,
    RecordBuffer,
    Refusal,
    Rejected,
    Snapshot,
    Status,
    Store,
)


class OwnStore:
    """A store."""

    def put(self, tenant: str, key: str, path: str) -> "defer.Deferred[None]":
        return defer.fail(EndpointUnavailable("mine", "it is down", retry_after=5.0))

    def authorities(self, tenant: str) -> tuple[str, ...]:
        return ("mine",)

    def close(self) -> "defer.Deferred[None]":
        return defer.succeed(None)


class NoStore:
    """None: it cannot be closed."""

    def put(self, tenant: str, key: str, path: str) -> "defer.Deferred[None]":
        return defer.succeed(None)


store: Store = OwnStore()
config = Config(local_storage_path="x", collection_interval=60)


async def use(reactor: object, records: Sequence[dict[str, object]]) -> float | None:
    """What a program does with a collector."""
    collector = Collector(reactor, config, store)
    accepted: int = await collector.submit("scope", records)
    accepted += await collector.submit("scope", [b"{}", {"a": 1}])
    wrong: str = await collector.submit("scope", records)  # wrong
    collector.submit("scope", ["a text"])  # wrong
    Collector(reactor, config, NoStore())  # wrong
    status: Status = collector.status()
    print(status.ready, status.delivery.delivered_records + accepted, wrong)
    change = Change(Operation.INSERT, "edgex.data_scope", new_row={"id": "a"})
    seen: bool = await collector.sync.changes_received(ChangeList([change], "2"))
    seen = await collector.sync.snapshot_received(Snapshot("1", "path"))
    resource = AnalyticsAPI(collector).resource()
    print(seen, resource)
    try:
        await collector.submit("scope", [])
    except Rejected as exc:
        print(exc.code, exc.reason)
    except Overloaded as exc:
        return exc.retry_after + 1.0
    except Refusal as exc:
        return exc.retry_after
    return None


def gather(reactor: object, collector: Collector, client: Client) -> None:
    """What it does with single records, and from afar."""
    for buffer in (RecordBuffer(reactor, collector), RecordBuffer(reactor, client, full="wait", max_records=10)):
        waiter: defer.Deferred[None] | None = buffer.add("scope", {"a": 1})
        counts: Counts = buffer.counts
        print(waiter, counts.accepted, counts.refused.get("BAD_DATA", 0))
        buffer.add("scope", 5)  # wrong
    RecordBuffer(reactor, object())  # wrong
    client = Client(reactor, ["https://a", "https://b"], token=lambda: "x", spool_directory="y")
    kept = client.spooled
    print(kept.bytes if kept is not None else 0, IService, IResource)
