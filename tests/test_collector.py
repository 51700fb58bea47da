"""The collector as a service: what its start and stop touch, and what it says of itself."""

import queue
from pathlib import Path

import pytest
from twisted.internet import defer
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from axcollector.collector import Collector
from axcollector.config import Config
from axcollector.core.errors import ConfigError, DirectoryInUse, NotReady, Overloaded
from axcollector.delivering import STOP_SECONDS
from axcollector.registry import Registry
from tests.conftest import LoggedFailures
from tests.fake_stores import MemoryStore
from tests.fakes import result_of


class Reactor(Clock):
    """A clock that also takes calls from threads; they are made when it is turned."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: queue.SimpleQueue = queue.SimpleQueue()
        self.advance(1_480_000_080)

    def callFromThread(self, function: object, *arguments: object) -> None:
        self._calls.put((function, arguments))

    def turn_until(self, condition: object) -> None:
        """Make calls from threads until the condition holds."""
        for _ in range(3000):
            if condition():
                return
            try:
                function, arguments = self._calls.get(timeout=0.01)
                function(*arguments)
            except queue.Empty:
                self.advance(0.05)
        raise AssertionError("not so after half a minute")

    def wait(self, deferred: "defer.Deferred[object]") -> object:
        """What a Deferred fires with."""
        self.turn_until(lambda: deferred.called)
        return result_of(deferred)


def collector_in(root: Path, reactor: Reactor, store: MemoryStore | None = None, **settings: object) -> Collector:
    """A collector that was not started."""
    return Collector(reactor, Config(local_storage_path=str(root / "data"), **settings), store)


def test_made_but_not_started(tmp_path: Path) -> None:
    """Nothing is touched, nothing is ready, and a stop is nothing."""
    collector = collector_in(tmp_path, Reactor())
    assert list(tmp_path.iterdir()) == []
    assert collector.problems() == {
        "catalog": "Service is not initialized completely",
        "spool": "The collector is not started",
        "commit": "The collector is not started",
        "uploader": "The collector is not started",
    }
    with pytest.raises(NotReady):
        result_of(collector.submit("scope", [{}]))
    result_of(collector.stopService())


def test_from_start_to_stop(tmp_path: Path) -> None:
    """It becomes ready, takes records, and on the stop splits what it has; then it can be started again."""
    reactor, store = Reactor(), MemoryStore()
    for run in (1, 2):
        collector = collector_in(tmp_path, reactor, store, collection_interval=86_400, upload_interval=86_400)
        collector.startService()
        assert collector.problems()["catalog"] is not None
        reactor.turn_until(collector.directory.ready)
        if run == 1:
            with Registry.open(collector.config.registry_file) as registry:
                scope = registry.add_scope("acme", "prod").id
        reactor.turn_until(lambda c=collector, s=scope: c.sync.catalog and c.sync.catalog.tenant_of_scope(s))
        reactor.turn_until(lambda c=collector: c.problems()["spool"] is None)  # its room has been measured
        assert reactor.wait(collector.submit(scope, [{"client_received_start_timestamp": 1}])) == 1
        assert collector.problems() == {"catalog": None, "spool": None, "commit": None, "uploader": None}
        reactor.wait(collector.stopService())
        staged = list((tmp_path / "data" / "ax" / "staging").glob("*/*"))
        delivered = [key for _, key in store.objects]  # where a first sweep came late, it found what the stop has split
        assert sum(f"_{run}-0-0.txt.gz" in name for name in [*map(str, staged), *delivered]) == 1
        for path in staged:
            path.unlink()
        with pytest.raises(Overloaded):
            result_of(defer.ensureDeferred(collector.intake.take_records(scope, [{}])))
        assert collector.problems()["spool"] == "The service is stopping"
        assert store.is_closed
    assert reactor.getDelayedCalls() == []


def test_a_directory_in_use(tmp_path: Path) -> None:
    """A second collector is refused, and neither is harmed by it."""
    reactor = Reactor()
    first, second = collector_in(tmp_path, reactor), collector_in(tmp_path, reactor)
    first.startService()
    with pytest.raises(DirectoryInUse):
        second.startService()
    reactor.wait(first.stopService())
    second.startService()
    reactor.turn_until(second.directory.ready)
    reactor.wait(second.stopService())


def test_a_start_that_fails_gives_the_directory_back(tmp_path: Path) -> None:
    """What is in the way is told, and the lock is not kept."""
    reactor = Reactor()
    (tmp_path / "data" / "ax" / "tmp").mkdir(parents=True)
    (tmp_path / "data" / "ax" / "recovered").mkdir()
    (tmp_path / "data" / "ax" / "tmp" / "x").mkdir()
    (tmp_path / "data" / "ax" / "recovered" / "x~recoveredTS~20161124150800.000").mkdir()
    blocker = tmp_path / "data" / "ax" / "recovered" / "x~recoveredTS~20161124150800.000" / "y"
    blocker.write_bytes(b"")
    for _ in range(2):
        with pytest.raises(OSError, match="not empty"):
            collector_in(tmp_path, reactor).startService()
    blocker.unlink()
    collector = collector_in(tmp_path, reactor)
    collector.startService()
    reactor.turn_until(collector.directory.ready)
    reactor.wait(collector.stopService())


def test_a_stop_that_takes_too_long(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """After some seconds the caller is told; the directory is given back when the work is done, and not before."""
    reactor, store = Reactor(), MemoryStore()
    released: defer.Deferred[None] = defer.Deferred()
    store.close = lambda: released
    collector = collector_in(tmp_path, reactor, store)
    collector.startService()
    reactor.turn_until(collector.directory.ready)
    begun = reactor.seconds()
    stopped, again = collector.stopService(), collector.stopService()
    assert not again.called
    reactor.wait(defer.gatherResults([stopped, again]))
    assert STOP_SECONDS <= reactor.seconds() - begun < STOP_SECONDS + 1
    assert "not all is split" in next(e["log_format"] for e in log_events if e["log_level"].name == "warn")
    with pytest.raises(DirectoryInUse):
        collector_in(tmp_path, reactor).startService()
    released.callback(None)
    reactor.turn_until(lambda: collector._premises._lock._descriptor is None)
    next_one = collector_in(tmp_path, reactor)
    next_one.startService()
    reactor.turn_until(next_one.directory.ready)
    reactor.wait(next_one.stopService())


def test_a_stop_that_goes_wrong(tmp_path: Path, logged_failures: LoggedFailures) -> None:
    """What goes wrong while stopping is logged; the stop ends all the same."""
    reactor, store = Reactor(), MemoryStore()
    store.close = lambda: defer.fail(ZeroDivisionError())
    collector = collector_in(tmp_path, reactor, store)
    collector.startService()
    reactor.turn_until(collector.directory.ready)
    reactor.wait(collector.stopService())
    assert len(logged_failures.take(ZeroDivisionError)) == 1


def test_settings_that_choose_parts(tmp_path: Path) -> None:
    """Without a source an embedding program tells the listener; without caching the registry is asked."""
    reactor = Reactor()
    collector = collector_in(tmp_path, reactor, sync="none", use_caching=False, uap_server_base="http://127.0.0.1:1")
    collector.startService()
    reactor.advance(5)
    assert not (tmp_path / "data" / "registry.db").exists()
    assert not collector.directory.ready()
    reactor.wait(collector.stopService())


@pytest.mark.parametrize("workers", [0, 2])
def test_an_embedded_collector_is_one_process(tmp_path: Path, workers: int) -> None:
    """It starts no others, and says who does."""
    with pytest.raises(ConfigError, match=r"is for twistd axcollector, .* allowed is 1"):
        Collector(Clock(), Config(local_storage_path=str(tmp_path), workers=workers))
