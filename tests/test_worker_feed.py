"""What the source tells, passed on to workers."""

from collections.abc import Sequence

import pytest
from twisted.internet import defer
from twisted.logger import LogEvent

from axcollector.core import messages
from axcollector.core.messages import RowChange
from axcollector.sync.events import Change, ChangeList, Operation, Snapshot
from axcollector.workers.feed import CHANGES_A_MESSAGE, Feed
from tests.fakes import result_of

SNAPSHOT = Snapshot("v1", "/registry.db")
CHANGE = Change(Operation.UPDATE, "kms.app", {"id": "1", "name": None}, {"id": "1"})


class Told:
    """A worker that answers when it is made to."""

    def __init__(self) -> None:
        self.orders: list[messages.Order] = []
        self.shown: dict[int, defer.Deferred[bool]] = {}

    def tell(self, number: int, orders: Sequence[messages.Order]) -> "defer.Deferred[bool]":
        self.orders.extend(orders)
        self.shown[number] = defer.Deferred()
        return self.shown[number]


def test_all_are_told_and_all_must_show() -> None:
    """An event is shown when the last of them shows it; a list of rows comes as it was."""
    workers = [Told(), Told()]
    feed = Feed(lambda: workers)
    answers: list[bool] = []
    feed.snapshot_received(SNAPSHOT).addCallback(answers.append)
    feed.changes_received(ChangeList([CHANGE], "v2")).addCallback(answers.append)
    workers[0].shown[1].callback(result=True)
    assert answers == []
    workers[1].shown[1].callback(result=True)
    assert answers == [True]
    workers[0].shown[2].callback(result=False)
    workers[1].shown[2].callback(result=True)
    assert answers == [True, False]
    rows = [RowChange(2, "kms.app", {"id": "1", "name": None}, {"id": "1"})]
    expected = [messages.Snapshot(1, "v1", "/registry.db"), messages.Changes(2, "v2", rows)]
    assert [worker.orders for worker in workers] == [expected, expected]


def test_without_workers_there_is_nobody_to_wait_for() -> None:
    """Those that come later begin with the last snapshot."""
    feed = Feed(list)
    assert feed.current is None
    assert result_of(feed.snapshot_received(SNAPSHOT))
    assert result_of(feed.snapshot_received(Snapshot("v9", "/other.db")))
    assert result_of(feed.changes_received(ChangeList([CHANGE])))
    assert feed.current == messages.Snapshot(2, "v9", "/other.db")


@pytest.mark.parametrize("count", [0, 1, CHANGES_A_MESSAGE, CHANGES_A_MESSAGE + 1, 2 * CHANGES_A_MESSAGE + 7])
def test_long_lists_come_in_parts(count: int) -> None:
    """No message holds more than a worker reads in a moment; only the last says that it is the last."""
    worker = Told()
    feed = Feed(lambda: [worker])
    feed.snapshot_received(SNAPSHOT)
    feed.changes_received(ChangeList([CHANGE] * count))
    parts = [order for order in worker.orders if isinstance(order, messages.Changes)]
    assert sum(len(part.changes) for part in parts) == count
    assert max(len(part.changes) for part in parts) <= CHANGES_A_MESSAGE
    assert [part.more for part in parts] == [True] * (len(parts) - 1) + [False]
    assert {part.number for part in parts} == {2}


@pytest.mark.parametrize(
    "changes",
    [ChangeList([CHANGE, Change(Operation.DELETE, "kms.app")]), ChangeList(3)],  # type: ignore[arg-type]
)
def test_what_cannot_be_used_is_told_to_nobody(changes: ChangeList, log_events: list[LogEvent]) -> None:
    """As the listener in one process does it: one line, and no."""
    worker = Told()
    feed = Feed(lambda: [worker])
    assert not result_of(feed.changes_received(ChangeList([CHANGE], "early")))
    assert not result_of(feed.snapshot_received(Snapshot("v", "")))
    feed.current = messages.Snapshot(1, "v", "/r")
    assert not result_of(feed.changes_received(changes))
    assert worker.orders == []
    assert len([event for event in log_events if "is ignored" in event["log_format"]]) == 3
