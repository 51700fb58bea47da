"""Reactors of a test's own, beside that of all tests, for commands that run one until their work is done."""

import contextlib
from collections.abc import Iterator

from twisted.internet.selectreactor import SelectReactor


class QuietReactor(SelectReactor):
    """A reactor beside the tests' own, to which signals belong."""

    def run(self) -> None:
        """Run without touching the process's signal handlers."""
        super().run(installSignalHandlers=False)

    def wakeUp(self) -> None:
        """A thread that nobody waits for may have something to say when all of it is closed."""
        with contextlib.suppress(AttributeError):  # its end is gone
            super().wakeUp()


@contextlib.contextmanager
def own_reactor() -> Iterator[QuietReactor]:
    """One, whose descriptors are closed at the end."""
    own = QuietReactor()
    try:
        yield own
    finally:
        own.removeAll()
        own.waker.connectionLost(None)
        for reader in own._internalReaders:
            reader.connectionLost(None)
