"""A service that is nothing but what is to be done when it is stopped: a place in the order of others (`InOrder`)."""

from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet import defer


class OnStop(Service):
    """Does nothing but call a function when it is stopped, and wait for what that returns."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function

    def startService(self) -> None:
        """Nothing to do."""
        self.running = True

    def stopService(self) -> "defer.Deferred[object]":
        """Call the function. Fires when the Deferred that it returned, if any, has fired."""
        self.running = False
        return defer.maybeDeferred(self._function)
