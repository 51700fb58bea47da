"""Delivers files, and prints how much memory a large one took: `python -m tests.large_upload SMALL LARGE SIGNER`."""

import sys
from typing import Any

from twisted.internet import defer, reactor

from axcollector.disk import Disk
from axcollector.stores.signed import SignedStore
from benchmarks.catalog_subject import forget_peak, memory_megabytes


async def upload(path: str, store: SignedStore, name: str) -> None:
    """Put it."""
    await store.put("acme~test", f"date=2026-01-02/time=03-04-05/{name}", path)


async def measured(small: str, large: str, signer: str) -> float:
    """The megabytes that the large file takes more than the small one, which warms everything up."""
    store = SignedStore.over_network(reactor, Disk(), signer, lambda: "token", timeout_seconds=60, concurrency=16)
    await upload(small, store, "small.txt.gz")
    forget_peak()
    before = memory_megabytes()
    await upload(large, store, "large.txt.gz")
    peak = memory_megabytes("VmHWM")
    await store.close()
    return peak - before


def main() -> None:
    """Run it, and print."""

    def ended(result: Any) -> None:
        print(result)
        reactor.stop()

    reactor.callWhenRunning(lambda: defer.ensureDeferred(measured(*sys.argv[1:])).addBoth(ended))
    reactor.run()


if __name__ == "__main__":
    main()
