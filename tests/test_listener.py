"""The sync listener: events one at a time, in order; readers never wait; a bad file is tried again."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from twisted.internet import defer
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel

from axcollector.core.catalog import Catalog
from axcollector.core.model import DeveloperInfo, Tenant
from axcollector.core.tables import DEVELOPERS, PRODUCTS, SCOPES, Row
from axcollector.courtesy import Courtesy
from axcollector.registry import Registry
from axcollector.sync.events import Change, ChangeList, Operation, Snapshot
from axcollector.sync.listener import CHANGES_A_TURN, STEPS_A_TURN, SyncListener
from axcollector.sync.rebuilding import Pace, build
from tests.conftest import LoggedFailures
from tests.fakes import HeldThread, SameThread, result_of

INSERT, UPDATE, DELETE = Operation.INSERT, Operation.UPDATE, Operation.DELETE


def scope_row(scope: str, organization: str = "acme") -> Row:
    """A row of data_scope."""
    return {"id": scope, "scope": "t", "org": organization, "env": "prod"}


def insert_scope(scope: str, organization: str = "acme") -> ChangeList:
    """A change list of one new scope."""
    return ChangeList([Change(INSERT, SCOPES, scope_row(scope, organization))])


def registry_of(path: Path, *scopes: str) -> str:
    """A registry file with these scopes."""
    with Registry.create(str(path)) as registry:
        for scope in scopes:
            registry.add_scope("acme", "prod", scope, "t")
    return str(path)


def started(worker: Any, clock: Clock | None = None) -> SyncListener:
    """A listener that runs."""
    listener = SyncListener(cast("Any", clock or Clock()), worker)
    listener.startService()
    return listener


def shown_by(listener: SyncListener) -> set[str]:
    """Which of the scopes that these tests use are in the catalog."""
    catalog = listener.catalog
    assert catalog is not None
    return {scope for scope in "abcde" if catalog.tenant_of_scope(scope) is not None}


def take_a_turn(clock: Clock) -> None:
    """Make the one call that is due, but not those that it asks for, as `advance` would."""
    (call,) = clock.getDelayedCalls()
    assert call.getTime() == clock.seconds()
    clock.calls.remove(call)
    call.called = 1
    call.func(*call.args, **call.kw)


def errors_in(events: list[LogEvent]) -> list[str]:
    """The formats of what was logged as an error."""
    return [str(event["log_format"]) for event in events if event["log_level"] == LogLevel.error]


def test_a_snapshot_and_changes(tmp_path: Path) -> None:
    """After a snapshot the catalog shows the file, after a change list the changes."""
    path = registry_of(tmp_path / "r.db", "a")
    with Registry.open(path) as registry:
        registry.add_key("a", "k", product="gold", app="weather", developer="ada", email="ada@example.com")
        product = next(iter(registry.rows(PRODUCTS)))
    listener = started(SameThread())
    assert listener.catalog is None
    assert listener.registry is None
    assert result_of(listener.snapshot_received(Snapshot("1", path)))
    assert path == listener.registry
    assert {"a"} == shown_by(listener)
    changes = [
        Change(INSERT, SCOPES, scope_row("b")),
        Change(INSERT, SCOPES, scope_row("c"), {}),
        Change(UPDATE, SCOPES, scope_row("d"), scope_row("b")),
        Change(DELETE, SCOPES, None, scope_row("a")),
        Change(UPDATE, PRODUCTS, {**product, "name": "silver"}),
        Change(INSERT, "kms.unheard_of", {"id": "1"}),
    ]
    assert result_of(listener.changes_received(ChangeList(changes, "2")))
    assert {"c", "d"} == shown_by(listener)
    catalog = listener.catalog
    assert isinstance(catalog, Catalog)
    assert DeveloperInfo("silver", "weather", "ada@example.com", "ada") == catalog.developer("t", "k")
    result_of(listener.stopService())
    assert catalog is listener.catalog


def test_readers_keep_the_old_catalog(tmp_path: Path) -> None:
    """While a rebuild is under way the old catalog answers; changes that come meanwhile are applied after it."""
    worker = HeldThread()
    listener = started(worker)
    listener.snapshot_received(Snapshot("1", registry_of(tmp_path / "1.db", "a")))
    assert listener.catalog is None
    worker.step()
    old = listener.catalog
    rebuilt = listener.snapshot_received(Snapshot("2", registry_of(tmp_path / "2.db", "b")))
    first = listener.changes_received(insert_scope("c"))
    second = listener.changes_received(ChangeList([Change(DELETE, SCOPES, None, scope_row("c"))]))
    third = listener.changes_received(insert_scope("d"))
    assert {"a"} == shown_by(listener)
    assert not rebuilt.called
    assert not first.called
    worker.step()
    assert {"b", "d"} == shown_by(listener)
    assert [result_of(each) for each in (rebuilt, first, second, third)] == [True] * 4
    assert old is not None
    assert old.tenant_of_scope("a") == Tenant("t", "acme", "prod")
    worker.step()
    assert old.tenant_of_scope("a") is None
    assert worker.jobs == []


def test_newer_snapshots_make_older_ones_pointless(tmp_path: Path) -> None:
    """Of the snapshots that wait only the last is read, and what was told before it is dropped."""
    worker = HeldThread()
    listener = started(worker)
    events = [listener.snapshot_received(Snapshot("1", registry_of(tmp_path / "1.db", "a")))]
    events.append(listener.changes_received(insert_scope("c")))
    events.append(listener.snapshot_received(Snapshot("2", str(tmp_path / "missing.db"))))
    events.append(listener.changes_received(insert_scope("d")))
    events.append(listener.snapshot_received(Snapshot("3", registry_of(tmp_path / "3.db", "b"))))
    events.append(listener.changes_received(insert_scope("e")))
    worker.step()
    assert {"a", "c"} == shown_by(listener)
    worker.step()
    assert {"b", "e"} == shown_by(listener)
    assert [result_of(each) for each in events] == [True] * 6


def test_a_failed_rebuild_is_tried_again(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """A file that cannot be read leaves the old catalog; it is tried ever later, told once, and what follows waits."""
    clock = Clock()
    listener = started(SameThread(), clock)
    result_of(listener.snapshot_received(Snapshot("1", registry_of(tmp_path / "1.db", "a"))))
    path = tmp_path / "2.db"
    rebuilt = listener.snapshot_received(Snapshot("2", str(path)))
    changed = listener.changes_received(insert_scope("c"))
    delays = []
    for _ in range(8):
        (call,) = clock.getDelayedCalls()
        delays.append(call.getTime() - clock.seconds())
        clock.advance(delays[-1])
    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert {"a"} == shown_by(listener)
    assert len(errors_in(log_events)) == 1
    assert [str(path) in str(event["trouble"]) for event in log_events if "trouble" in event] == [True]
    registry_of(path, "b")
    clock.advance(30)
    assert [result_of(rebuilt), result_of(changed)] == [True, True]
    assert {"b", "c"} == shown_by(listener)
    assert clock.getDelayedCalls() == []
    assert any("can be read again" in str(event["log_format"]) for event in log_events)


def test_a_new_snapshot_ends_the_wait(tmp_path: Path) -> None:
    """A newer snapshot is read at once where an older one waits to be tried again, and begins the delays anew."""
    clock = Clock()
    listener = started(SameThread(), clock)
    first = listener.snapshot_received(Snapshot("1", str(tmp_path / "missing.db")))
    clock.advance(0.5)
    dropped = listener.changes_received(insert_scope("c"))
    listener.snapshot_received(Snapshot("2", str(tmp_path / "also-missing.db")))
    (call,) = clock.getDelayedCalls()
    assert call.getTime() == clock.seconds() + 0.5
    third = listener.snapshot_received(Snapshot("3", registry_of(tmp_path / "r.db", "a")))
    assert [result_of(each) for each in (first, dropped, third)] == [True] * 3
    assert {"a"} == shown_by(listener)
    assert clock.getDelayedCalls() == []


def test_a_damaged_file(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """A file with damage in its middle makes no catalog."""
    path = tmp_path / "r.db"
    with Registry.create(str(path)) as registry:
        for number in range(300):
            registry.add_scope("acme", "prod", f"{number:036}")
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xa5" * (os.path.getsize(path) - 8192))
    clock = Clock()
    listener = started(SameThread(), clock)
    listener.snapshot_received(Snapshot("1", str(path)))
    assert listener.catalog is None
    assert len(errors_in(log_events)) == 1
    result_of(listener.stopService())


def test_invalid_events_are_ignored(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """What is no event, or holds what is no row, is told and changes nothing, in whole."""
    listener = started(SameThread())
    anything = cast("Any", listener)
    result_of(listener.snapshot_received(Snapshot("1", registry_of(tmp_path / "r.db", "a"))))
    good = Change(INSERT, SCOPES, scope_row("b"))
    bad = [
        anything.snapshot_received(None),
        anything.snapshot_received(Snapshot("1", cast("Any", None))),
        anything.snapshot_received(Snapshot("1", "")),
        anything.changes_received("changes"),
        anything.changes_received(ChangeList(cast("Any", None))),
        *(
            anything.changes_received(ChangeList([good, cast("Any", change)]))
            for change in (
                None,
                Change(cast("Any", 1), SCOPES, scope_row("b")),
                Change(INSERT, cast("Any", None), scope_row("b")),
                Change(INSERT, SCOPES, None, scope_row("b")),
                Change(UPDATE, SCOPES, None, scope_row("b")),
                Change(DELETE, SCOPES, scope_row("b")),
                Change(INSERT, SCOPES, cast("Any", ["b"])),
                Change(INSERT, SCOPES, cast("Any", {"id": 1})),
                Change(INSERT, SCOPES, {"id": "\ud800"}),
            )
        ),
    ]
    assert [False] * len(bad) == [result_of(each) for each in bad]
    assert len(bad) == len(errors_in(log_events))
    assert {"a"} == shown_by(listener)
    result_of(listener.changes_received(ChangeList([Change(INSERT, SCOPES, scope_row("b", "zürich"))])))
    assert {"a", "b"} == shown_by(listener)


def test_changes_before_any_snapshot_are_ignored(log_events: list[LogEvent]) -> None:
    """A change list has nothing to change before the first snapshot."""
    listener = started(SameThread())
    assert not result_of(listener.changes_received(insert_scope("a")))
    assert listener.catalog is None
    assert len(errors_in(log_events)) == 1


def test_long_change_lists_leave_the_reactor_its_turn(tmp_path: Path) -> None:
    """A long change list is taken a slice a turn, and seen whole or not at all; what follows it waits."""
    clock = Clock()
    listener = started(SameThread(), clock)
    result_of(listener.snapshot_received(Snapshot("1", registry_of(tmp_path / "r.db"))))
    changes = [Change(INSERT, SCOPES, scope_row(str(number))) for number in range(3 * STEPS_A_TURN)]
    applied = listener.changes_received(ChangeList(changes))
    after = listener.changes_received(insert_scope("a"))
    catalog = listener.catalog
    assert catalog is not None
    seen = []
    while not applied.called:
        seen.append(sum(catalog.tenant_of_scope(str(number)) is not None for number in range(len(changes))))
        assert not after.called
        take_a_turn(clock)
    assert {0, len(changes)} == set(seen)
    assert seen.count(0) == len(changes) // CHANGES_A_TURN - 1
    assert seen.count(len(changes)) >= 6
    assert [result_of(applied), result_of(after)] == [True, True]
    assert {"a"} == shown_by(listener)


class SlowWork(Clock):
    """A clock by which whatever is done between two looks at it takes a millisecond."""

    def seconds(self) -> float:
        self.rightNow += 0.001
        return self.rightNow


def test_slow_changes_leave_the_reactor_its_turn(tmp_path: Path) -> None:
    """Where single changes take long, a slice has fewer of them."""
    clock = SlowWork()
    listener = started(SameThread(), clock)
    result_of(listener.snapshot_received(Snapshot("1", registry_of(tmp_path / "r.db"))))
    applied = listener.changes_received(ChangeList([Change(INSERT, SCOPES, scope_row(str(at))) for at in range(100)]))
    turns = 0
    while not applied.called:
        (call,) = clock.getDelayedCalls()
        clock.calls.remove(call)
        call.called = 1
        call.func()
        turns += 1
    assert result_of(applied)
    assert 2 * 100 / 10 <= turns <= 4 * 100


def test_a_list_that_turns_out_invalid_changes_nothing(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """One bad change at the end of a long list keeps the whole list out; the next one is taken."""
    clock = Clock()
    listener = started(SameThread(), clock)
    result_of(listener.snapshot_received(Snapshot("1", registry_of(tmp_path / "r.db", "a"))))
    changes: list[Any] = [Change(DELETE, SCOPES, None, scope_row("a")), *[Change(INSERT, SCOPES, scope_row("b"))] * 999]
    ignored = listener.changes_received(ChangeList([*changes, None]))
    after = listener.changes_received(insert_scope("c"))
    while clock.getDelayedCalls():
        clock.advance(0)
    assert not result_of(ignored)
    assert result_of(after)
    assert {"a", "c"} == shown_by(listener)
    assert [event["problem"] for event in log_events if "problem" in event] == ["not a Change: NoneType (change 1000)"]
    catalog = listener.catalog
    assert catalog is not None
    assert {"a", "c"} == {str(scope) for part in catalog._cells.scopes.scopes.parts() for scope in part}


class Paces(Pace):
    """A pace that has something done at the first rest."""

    def __init__(self, first: Callable[[], object]) -> None:
        super().__init__()
        self._first: Callable[[], object] | None = first

    def rest_or_end(self, courtesy: Courtesy) -> None:
        first, self._first = self._first, None
        if first is not None:
            first()
        super().rest_or_end(courtesy)


def test_a_catalog_is_of_one_moment(tmp_path: Path) -> None:
    """What is committed while the file is read is not in the catalog, in no table."""
    path = registry_of(tmp_path / "r.db", "a")

    def commit() -> None:
        with Registry.open(path) as registry:
            registry.add_key("a", "k", product="gold", app="weather", developer="ada")

    catalog = build(path, Paces(commit)).catalog
    assert catalog is not None
    assert sum(catalog.counts().values()) == 1


def test_without_caching_there_is_no_catalog(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """Snapshots say which file to ask, and name the tenants that cannot be; change lists have nothing to change."""
    path = registry_of(tmp_path / "r.db", "a")
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO data_scope VALUES ('b', 't', ?, 'e')", ["x" * 200])
    connection.commit()
    connection.close()
    listener = SyncListener(cast("Any", Clock()), SameThread(), caching=False)
    listener.startService()
    assert not result_of(listener.changes_received(insert_scope("c")))
    assert result_of(listener.snapshot_received(Snapshot("1", path)))
    assert listener.catalog is None
    assert path == listener.registry
    assert result_of(listener.changes_received(insert_scope("c")))
    assert len(errors_in(log_events)) == 2
    assert result_of(listener.snapshot_received(Snapshot("2", registry_of(tmp_path / "2.db"))))
    listener.stopService()
    assert str(tmp_path / "2.db") == listener.registry


def test_refused_tenants_are_told_once(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """One line for a tenant whose name is too long, from a snapshot or a change, however often."""
    path = tmp_path / "r.db"
    registry_of(path)
    connection = sqlite3.connect(path)
    connection.executemany("INSERT INTO data_scope VALUES (?, 't', ?, 'e')", [("a", "x" * 200), ("b", "x" * 200)])
    connection.commit()
    connection.close()
    listener = started(SameThread())
    for _ in range(2):
        result_of(listener.snapshot_received(Snapshot("1", str(path))))
    result_of(listener.changes_received(insert_scope("c", "y" * 200)))
    assert len(errors_in(log_events)) == 2
    assert set() == shown_by(listener)


def test_events_before_the_start_wait_for_it(tmp_path: Path) -> None:
    """Nothing is taken before the listener is started."""
    listener = SyncListener(cast("Any", Clock()), SameThread())
    shown = listener.snapshot_received(Snapshot("1", registry_of(tmp_path / "r.db", "a")))
    assert not shown.called
    listener.startService()
    assert result_of(shown)


def test_stopping_while_a_retry_waits(tmp_path: Path) -> None:
    """Stopping cancels the retry, and those who wait are told that it will not be."""
    clock = Clock()
    listener = started(SameThread(), clock)
    rebuilt = listener.snapshot_received(Snapshot("1", str(tmp_path / "missing.db")))
    changed = listener.changes_received(insert_scope("a"))
    result_of(listener.stopService())
    assert clock.getDelayedCalls() == []
    assert [result_of(rebuilt), result_of(changed)] == [False, False]


def test_stopping_during_a_rebuild(tmp_path: Path) -> None:
    """Stopping waits for the rebuild, which gives up; the listener can be started again."""
    worker = HeldThread()
    listener = started(worker)
    path = registry_of(tmp_path / "r.db", "a")
    rebuilt = listener.snapshot_received(Snapshot("1", path))
    stopped = listener.stopService()
    assert not stopped.called
    worker.step()
    result_of(stopped)
    assert not result_of(rebuilt)
    assert listener.catalog is None
    listener.startService()
    again = listener.snapshot_received(Snapshot("1", path))
    worker.step()
    assert result_of(again)


def test_stopping_between_slices(tmp_path: Path) -> None:
    """A long change list is left where it is when the listener stops."""
    clock = Clock()
    listener = started(SameThread(), clock)
    result_of(listener.snapshot_received(Snapshot("1", registry_of(tmp_path / "r.db"))))
    changes = [Change(INSERT, DEVELOPERS, {"tenant_id": "t", "id": str(n)}) for n in range(CHANGES_A_TURN + 1)]
    applied = listener.changes_received(ChangeList(changes))
    result_of(listener.stopService())
    assert not result_of(applied)
    assert clock.getDelayedCalls() == []


def test_a_worker_that_has_ended(tmp_path: Path) -> None:
    """A worker that takes no more work makes no catalog, and no noise."""

    class Ended:
        def run(self, *_: object) -> "defer.Deferred[Any]":
            return defer.fail(defer.CancelledError())

    listener = started(Ended())
    assert not result_of(listener.snapshot_received(Snapshot("1", registry_of(tmp_path / "r.db"))))


def test_bugs_do_not_end_it(tmp_path: Path, logged_failures: LoggedFailures) -> None:
    """What nobody foresaw is logged as a failure, and the next event is taken."""

    class Broken(SameThread):
        def __init__(self) -> None:
            self.is_broken = True

        def run(self, function: Any, *arguments: object) -> "defer.Deferred[Any]":
            return defer.fail(ZeroDivisionError()) if self.is_broken else super().run(function, *arguments)

    worker = Broken()
    listener = started(worker)
    path = registry_of(tmp_path / "r.db", "a")
    assert not result_of(listener.snapshot_received(Snapshot("1", path)))
    assert len(logged_failures.take(ZeroDivisionError)) == 1
    worker.is_broken = False
    assert result_of(listener.snapshot_received(Snapshot("1", path)))


def test_cancelling_forgets_the_waiter_only(tmp_path: Path) -> None:
    """Who cancels what he was given hears nothing; the event is applied all the same."""
    worker = HeldThread()
    listener = started(worker)
    shown = listener.snapshot_received(Snapshot("1", registry_of(tmp_path / "r.db", "a")))
    shown.addErrback(lambda failure: failure.trap(defer.CancelledError) and None)
    shown.cancel()
    worker.step()
    assert {"a"} == shown_by(listener)


def test_events_after_the_stop_are_answered(tmp_path: Path) -> None:
    """What is told to a stopped listener will not be shown, and it says so; started again, it takes events again."""
    path = registry_of(tmp_path / "r.db", "a")
    listener = started(SameThread())
    result_of(listener.stopService())
    assert not result_of(listener.snapshot_received(Snapshot("1", path)))
    listener.startService()
    assert listener.catalog is None
    assert result_of(listener.snapshot_received(Snapshot("2", path)))


def test_too_little_memory_is_tried_again(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """A rebuild for which there is no memory is one like any other that failed: told, and tried again."""

    class Short(SameThread):
        tries = 0

        def run(self, function: Any, *arguments: object) -> "defer.Deferred[Any]":
            self.tries += 1
            return defer.fail(MemoryError()) if self.tries == 1 else super().run(function, *arguments)

    clock = Clock()
    listener = started(Short(), clock)
    shown = listener.snapshot_received(Snapshot("1", registry_of(tmp_path / "r.db", "a")))
    assert ["not enough memory" in str(event["trouble"]) for event in log_events if "trouble" in event] == [True]
    clock.advance(0.5)
    assert result_of(shown)
    assert {"a"} == shown_by(listener)
