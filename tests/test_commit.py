"""Group commit: who waits for which write."""

import pytest

from axcollector.core.commit import Entry, GroupCommit
from axcollector.core.errors import Overloaded
from axcollector.core.model import Batch, Tenant

TENANT = Tenant("t", "acme", "prod")


def batch(size: int = 10) -> Batch:
    """A batch of so many bytes."""
    return Batch(TENANT, b"x" * size, 1)


def test_arrivals_gather_while_a_write_is_under_way() -> None:
    """The first goes alone; what comes meanwhile goes together when the write has settled."""
    group: GroupCommit[str] = GroupCommit(10, 1000)
    assert list(group.take()) == []
    a, b, c = batch(), batch(), batch()
    group.add(a, "a")
    assert list(group.take()) == [Entry(a, "a")]
    group.add(b, "b")
    group.add(c, "c")
    assert list(group.take()) == []
    assert group.waiting == 3
    assert list(group.settled()) == [Entry(a, "a")]
    assert list(group.take()) == [Entry(b, "b"), Entry(c, "c")]
    assert group.waiting_bytes == 20
    group.settled()
    assert (group.waiting, group.waiting_bytes) == (0, 0)


def test_batches_beyond_the_limit_are_refused() -> None:
    """The one too many is refused at once, also while the others are being written; then there is room again."""
    group: GroupCommit[str] = GroupCommit(2, 1000)
    group.add(batch(), "a")
    group.take()
    group.add(batch(), "b")
    with pytest.raises(Overloaded, match="buffer_channel_size"):
        group.add(batch(), "c")
    group.settled()
    group.add(batch(), "c")


def test_bytes_beyond_the_limit_are_refused() -> None:
    """One large batch is taken; while it waits no other is."""
    group: GroupCommit[str] = GroupCommit(10, 1000)
    group.add(batch(5000), "a")
    with pytest.raises(Overloaded, match="max_pending_bytes"):
        group.add(batch(), "b")
    group.take()
    group.settled()
    group.add(batch(), "b")
