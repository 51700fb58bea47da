"""Large bodies: how many bytes are worked on, until their memory is free."""

import pytest
from twisted.internet import defer

from axcollector.core.errors import Overloaded, Rejected
from axcollector.large import LargeBodies
from tests.fakes import HeldThread, result_of


class ThreadThatEnds:
    """A worker that begins nothing more."""

    def run(self, _function: object, *_arguments: object) -> "defer.Deferred[object]":
        return defer.fail(Overloaded("closing"))


def refuse() -> None:
    """A step that fails."""
    raise Rejected("BAD_DATA", "no")


def test_what_is_worked_on_is_counted() -> None:
    """From the moment a step is asked for until it is done, be it in vain; each of several."""
    thread = HeldThread()
    large = LargeBodies(thread)
    one, other = large.of(1000), large.of(20)
    assert large.held == 0
    first, second, third = one.run(len, "abc"), other.run(refuse), other.run(len, "")
    assert large.held == 1040
    thread.step()
    assert (result_of(first), large.held) == (3, 40)
    third.addErrback(lambda failure: failure.trap(defer.CancelledError) and None)
    third.cancel()
    assert large.held == 40
    thread.step()
    with pytest.raises(Rejected, match="no"):
        result_of(second)
    assert large.held == 20
    thread.step()
    assert large.held == 0


def test_what_is_never_begun_is_not_counted() -> None:
    """A worker that is closing leaves nothing behind."""
    large = LargeBodies(ThreadThatEnds())
    with pytest.raises(Overloaded):
        result_of(large.of(1000).run(len, ""))
    assert large.held == 0
