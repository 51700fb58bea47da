"""The large bodies that are worked on: how many bytes they have, until their memory is free."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from twisted.internet import defer

from axcollector.core.errors import Refusal
from axcollector.core.traces import without_trace
from axcollector.services import Worker

T = TypeVar("T")


class LargeBodies:
    """The large bodies that a worker has, also those whose clients have gone: their memory is not free before it is."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._sizes: dict[object, int] = {}

    @property
    def held(self) -> int:
        """How many bytes they have, as sent."""
        return sum(tuple(self._sizes.values())) if self._sizes else 0

    def of(self, size: int) -> Worker:
        """A worker for one body of so many bytes."""
        return _LargeBody(self._worker, self._sizes, size)


class _LargeBody:
    """Runs the steps of one large body; counts it from the moment a step is asked for until it is done."""

    def __init__(self, worker: Worker, sizes: dict[object, int], size: int) -> None:
        self._worker = worker
        self._sizes = sizes
        self._size = size

    def run(self, function: Callable[..., T], *arguments: object) -> "defer.Deferred[T]":
        step = object()
        self._sizes[step] = self._size
        job = [partial(function, *arguments)]

        def counted() -> T:
            try:
                return job.pop()()
            except Refusal as exc:
                raise without_trace(exc) from None
            finally:
                self._sizes.pop(step, None)

        result = self._worker.run(counted)
        if result.called:  # it was not begun, or is done already
            self._sizes.pop(step, None)
        return result
