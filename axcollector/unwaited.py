"""A kind of blocking work whose end nobody waits for."""

from twisted.internet import defer

from axcollector.services import WorkThread


class Unwaited(WorkThread):
    """A thread that nobody waits for in the end: its work may take long, and leaves nothing half done."""

    def stopService(self) -> "defer.Deferred[None]":
        """Take no more work."""
        super().stopService().addErrback(lambda failure: failure.trap(defer.CancelledError) and None).cancel()
        return defer.succeed(None)
