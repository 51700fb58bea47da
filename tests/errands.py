"""Reactors of a test's own, beside that of all tests, for commands that run one until their work is done."""

import contextlib
from collections.abc import Iterator

from twisted.internet.selectreactor import SelectReactor


class QuietReactor(SelectReactor):
    """A reactor beside the tests' own, to which signals belong."""

    def run(self) -> None:
        """Run without touching the process's signal handlers."""
        super().run(installSignalHandlers=False)


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
