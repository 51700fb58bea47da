"""Which processor core a worker keeps to, where there are as many workers as cores.

A worker has two threads that hand work to each other some hundred times a second, the reactor's and the journal
writer's, and one interpreter that only one of them may hold. Left to the system they wander over all cores, and each
hand-over wakes the other on another core, which costs a fifth of the processor time. On one core it costs next to
nothing.

With other numbers of workers it is left to the system: whichever core we took could be somebody else's busy one.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence

from twisted.logger import Logger

_log = Logger()


def available() -> Sequence[int]:
    """The cores that this process may use, in order; none where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else ()


def core_of(slot: int, workers: int, cores: Sequence[int]) -> int | None:
    """The core of the worker in a slot, or None: the system is to choose."""
    return cores[slot] if workers == len(cores) > 1 else None


@contextlib.contextmanager
def kept_to(core: int | None) -> Iterator[None]:
    """What is started meanwhile, by this thread, keeps to a core.

    With None it does not; nor where the system refuses, which is logged.
    """
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {core})
    except OSError as exc:
        _log.info(
            "a worker may run on any core: it cannot keep to core {core} ({reason})", core=core, reason=exc.strerror
        )
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, before)
