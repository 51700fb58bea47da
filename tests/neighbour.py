"""Runs of a collector in a process of its own, each of which ends by printing what it saw as JSON.

python -m tests.neighbour imports MODULE            what importing it does
python -m tests.neighbour cycles COUNT              what is left of so many starts and stops
python -m tests.neighbour reactor NAME              the whole job, under that reactor
python -m tests.neighbour stalls SECONDS            how long the reactor is kept while everything happens at a time
"""

import gc
import gzip
import importlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

QUICK = {"collection_interval": 1, "close_grace": 0.1, "upload_interval": 0.1}


def imports(name: str) -> dict[str, Any]:
    """What the import of a module does but define things. Nothing else may be loaded before."""
    seen: list[str] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            seen.append(f"open {arguments[0]}")
        elif event.startswith(("os.mkdir", "os.re", "os.chmod", "socket.", "subprocess.", "signal.", "_thread.start")):
            seen.append(event)

    signals = {number: signal.getsignal(number) for number in signal.valid_signals()}
    sys.addaudithook(hook)
    importlib.import_module(name)
    logging = sys.modules.get("logging")
    log = sys.modules.get("twisted.logger")
    return {
        "seen": seen,
        "reactor": "twisted.internet.reactor" in sys.modules,
        "klein or treq": sorted({"klein", "treq"} & sys.modules.keys()),
        "threads": threading.active_count(),
        "handlers": len(logging.root.handlers) if logging else 0,
        "observers": len(log.globalLogPublisher._observers) if log else 0,
        "signals": [int(number) for number, before in signals.items() if signal.getsignal(number) != before],
        "children": Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split(),
    }


def run(work: Callable[[Any, str], Coroutine[Any, Any, dict[str, Any]]]) -> dict[str, Any]:
    """What a coroutine returns that runs in the reactor with a directory of its own; raises what it raises."""
    from twisted.internet import defer, reactor

    results: list[Any] = []
    running: Any = reactor
    with tempfile.TemporaryDirectory(prefix="axcollector-") as root:

        def begin() -> None:
            done = defer.ensureDeferred(work(running, root))
            done.addBoth(results.append).addBoth(lambda _: running.stop())

        running.callWhenRunning(begin)
        running.run()
    if not isinstance(results[0], dict):
        results[0].raiseException()
    result: dict[str, Any] = results[0]
    return result


async def until(reactor: Any, condition: Callable[[], object], seconds: float = 60) -> None:
    """Turn the reactor until the condition holds."""
    from twisted.internet import task

    for _ in range(int(seconds * 100)):
        if condition():
            return
        await task.deferLater(reactor, 0.01)
    raise AssertionError("it did not come to that")


def ours() -> int:
    """How many threads of ours there are."""
    return sum(thread.name.startswith("axcollector") for thread in threading.enumerate())


def resident_kilobytes() -> int:
    """Memory in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def scope_in(config: Any) -> str:
    """A scope, made as the command line makes it."""
    from axcollector.registry import Registry

    with Registry.create(config.registry_file) as registry:
        scope = registry.add_scope("acme", "prod").id
        registry.add_key(scope, "key", product="p", app="a", developer="d")
    return scope


async def cycles(reactor: Any, root: str, count: int) -> dict[str, Any]:
    """Start a collector, commit and stop, so many times; each is another object, every other one in its directory."""
    from axcollector.api import Collector, Config

    configs = [Config(local_storage_path=f"{root}/{name}", upload_interval=3600) for name in "ab"]
    scopes = [scope_in(config) for config in configs]
    marks: list[dict[str, int]] = []
    for number in range(count + 1):
        collector = Collector(reactor, configs[number % 2])
        for _ in range(2):  # the same object again, too
            collector.startService()
            await until(reactor, collector.directory.ready)
            await collector.submit(scopes[number % 2], [{"client_received_start_timestamp": 1, "client_id": "key"}])
            await collector.stopService()
        if number in {count // 10, count}:
            del collector
            await until(reactor, lambda: not ours())
            for _ in range(3):
                gc.collect()
            marks.append(
                {
                    "threads": threading.active_count(),
                    "descriptors": len(os.listdir("/proc/self/fd")),
                    "delayed calls": len(reactor.getDelayedCalls()),
                    "objects": len(gc.get_objects()),
                    "kilobytes": resident_kilobytes(),
                }
            )
    return {"cycles": count - count // 10, "before": marks[0], "after": marks[1]}


async def whole_job(reactor: Any, root: str) -> dict[str, Any]:
    """Records over HTTP and from the process, to a file."""
    from twisted.internet import task, threads
    from twisted.web.server import Site

    from axcollector.api import AnalyticsAPI, Collector, Config

    config = Config(local_storage_path=root, **QUICK)  # type: ignore[arg-type]
    scope, collector = scope_in(config), Collector(reactor, config)
    collector.startService()
    port = reactor.listenTCP(0, Site(AnalyticsAPI(collector).resource(), reactor=reactor), interface="127.0.0.1")
    await until(reactor, collector.directory.ready)
    url = f"http://127.0.0.1:{port.getHost().port}/analytics/{scope}"
    status = await threads.deferToThread(post, url, b'{"records":[{"client_received_start_timestamp":1}]}')
    await collector.submit(scope, [{"client_received_start_timestamp": 2}])

    def delivered() -> list[bytes]:
        files = Path(root).glob("store/*/*/*/*.txt.gz")
        return [line for file in files for line in gzip.decompress(file.read_bytes()).splitlines()]

    await until(reactor, lambda: len(delivered()) == 2)
    most = ours()
    await port.stopListening()
    await collector.stopService()
    await task.deferLater(reactor, 0)
    starts = sorted(json.loads(line)["client_received_start_timestamp"] for line in delivered())
    return {"reactor": type(reactor).__name__, "status": status, "starts": starts, "threads": most}


def post(url: str, body: bytes, more: Mapping[str, str] = MappingProxyType({})) -> int:
    """The status of a POST."""
    import urllib.request

    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **more})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return int(answer.status)


def main(what: str, argument: str) -> dict[str, Any]:
    """Do it."""
    if what == "imports":
        return imports(argument)
    if what == "reactor":
        importlib.import_module(f"twisted.internet.{argument}reactor").install()
        return run(whole_job)
    if what == "stalls":
        from tests.neighbour_stalls import stalls

        return run(lambda reactor, root: stalls(reactor, root, float(argument)))
    return run(lambda reactor, root: cycles(reactor, root, int(argument)))


if __name__ == "__main__":
    began = time.monotonic()
    outcome = main(*sys.argv[1:])
    json.dump({**outcome, "seconds": round(time.monotonic() - began, 1)}, sys.stdout)
