"""Pieces of service machinery that know nothing of axcollector: periodic work, pauses, start and stop, a work thread.

Twisted's own pieces differ where it matters here: a `LoopingCall` ends silently with its first exception, a
`MultiService` stops all children at once and waits for none, and stopping a `ThreadPool` blocks the reactor
until its threads have ended, however long their work takes.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar, cast

from twisted.application.service import IService, Service
from twisted.internet import defer
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from axcollector.bugs import report
from axcollector.threads import Threads

T = TypeVar("T")


class Worker(Protocol):
    """Somebody who runs blocking functions, one after the other, in the order they were given."""

    def run(self, function: Callable[..., T], *arguments: object) -> "defer.Deferred[T]":
        """Run `function(*arguments)`. Fires with its result or fails with what it raised; cancelling forgets it."""
        ...


class Job(Protocol):
    """Work that is done now and then, and how that has gone."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def runs(self) -> int:
        """How often it was done, or tried."""
        ...

    @property
    def failures(self) -> int:
        """How often it failed."""
        ...

    @property
    def reason(self) -> str:
        """What the last failure said."""
        ...


class Periodic(Service):
    """Calls `work` every so often; a failure is logged and counted, and the next call comes all the same.

    Attributes:
        name: What the work is called.
        runs: How many calls have ended.
        failures: How many of them have failed.
        reason: What the last failure said.
    """

    _log = Logger()
    name: str

    def __init__(self, clock: IReactorTime, interval_seconds: float, name: str, work: Callable[[], object]) -> None:
        """Prepare the work.

        Args:
            clock: What tells and schedules time.
            interval_seconds: From the start of one call to that of the next; calls never overlap, late ones fall out.
            name: What the work is called in logs.
            work: Called without arguments; a call that returns a Deferred or a coroutine lasts until that is done.
        """
        self._clock = clock
        self._interval = interval_seconds
        self._work = work
        self._loop: LoopingCall | None = None
        self._running: defer.Deferred[object] | None = None
        self.name = name
        self.runs = 0
        self.failures = 0
        self.reason = ""

    def startService(self) -> None:
        """Start calling, the first time at once."""
        self.running = True
        # Built here, because building one imports the global reactor unless a clock is set at once.
        self._loop = LoopingCall(self._guarded)
        self._loop.clock = self._clock
        self._loop.start(self._interval, now=True)

    async def _run(self) -> None:
        try:
            result = self._work()
            if isinstance(result, defer.Deferred) or hasattr(result, "__await__"):
                await cast("defer.Deferred[object]", result)
        except defer.CancelledError:
            pass
        except Exception as exc:  # noqa: BLE001 - the edge where periodic work's failures are logged
            self.failures += 1
            self.reason = f"{type(exc).__name__}: {exc}"
            report(self._log, "periodic work {name} failed; it goes on at its next time", name=self.name)

    def _guarded(self) -> "defer.Deferred[object]":
        self._running = defer.ensureDeferred(self._run())
        self._running.addBoth(self._forget)
        return self._running

    def _forget(self, result: object) -> object:
        self._running = None
        self.runs += 1
        return result

    def stopService(self) -> "defer.Deferred[None]":
        """Call no more. Fires when a call under way has ended."""
        self.running = False
        ended: defer.Deferred[None] = defer.Deferred()
        if self._loop is not None and self._loop.running:
            self._loop.stop()
        if self._running is None:
            ended.callback(None)
        else:
            self._running.addBoth(lambda _: ended.callback(None))
        return ended


class InOrder(Service):
    """Services started one after the other, and stopped in the opposite order, each waited for."""

    def __init__(self, services: Sequence[IService]) -> None:
        self._services = tuple(services)
        self._started: list[IService] = []

    def startService(self) -> None:
        """Start each in turn; where one raises, those started before it are told to stop, and it is raised on."""
        self.running = True
        try:
            for service in self._services:
                service.startService()
                self._started.append(service)
        except BaseException:
            self.stopService()
            raise

    def stopService(self) -> "defer.Deferred[None]":
        """Stop each in turn, the last first. Fires when all have stopped; fails with the first failure, at the end."""
        self.running = False
        return defer.ensureDeferred(self._stop())

    async def _stop(self) -> None:
        first: Failure | None = None
        while self._started:
            service = self._started.pop()
            try:
                await defer.maybeDeferred(service.stopService)
            except Exception:  # noqa: BLE001 - the others are to be stopped all the same
                first = first or Failure()
        if first is not None:
            first.raiseException()


class Rest:
    """The one pause at a time of a loop, which somebody may end early."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._pause: defer.Deferred[None] | None = None

    def take(self, seconds: float) -> "defer.Deferred[None]":
        """Begin a pause. Fires when it is over or was ended; cancelling takes nothing but the pause back."""
        pause: defer.Deferred[None] = defer.Deferred()
        over = self._clock.callLater(seconds, pause.callback, None)

        def forget(result: object) -> object:
            if over.active():
                over.cancel()
            if self._pause is pause:
                self._pause = None
            return result

        self._pause = pause
        pause.addBoth(forget)
        return pause

    def end(self, pause: "defer.Deferred[None] | None" = None) -> None:
        """End the pause, if there is one; with an argument, only if it is this one."""
        if self._pause is not None and (pause is None or pause is self._pause):
            self._pause.callback(None)


_Job = tuple[Callable[..., Any], tuple[object, ...], "defer.Deferred[Any]"]


class WorkThread(Service):
    """Runs blocking functions in order, one at a time; a `Worker`. They may be cut off at any point (see `threads`)."""

    def __init__(self, reactor: IReactorFromThreads, name: str, threads: Threads | None = None) -> None:
        """Start nothing yet.

        Args:
            reactor: Told of results.
            name: What kind of work it is; a thread is called so while it does it.
            threads: Who does it, when they have time; by default a thread of its own.
        """
        self._reactor = reactor
        self._threads = threads or Threads()
        self._joined = self._active = False
        self._lock = threading.Lock()
        self._jobs: deque[_Job] = deque()
        self._idle: list[defer.Deferred[None]] = []
        self._unfinished = 0
        self.name = name

    def startService(self) -> None:
        """Begin to take work."""
        with self._lock:
            if not self._joined:
                self._threads.join()
                self._joined = True
            self.running = True

    def run(self, function: Callable[..., T], *arguments: object) -> "defer.Deferred[T]":
        """Run `function(*arguments)` in a thread.

        Fires with its result, in the reactor thread. Fails with what it raised, or with `CancelledError` when
        this is not running. Cancelling forgets the result; the function runs all the same.
        """
        result: defer.Deferred[T] = defer.Deferred()
        if not self.running:
            result.errback(defer.CancelledError(f"the thread {self.name} is not running"))
            return result
        self._unfinished += 1
        with self._lock:
            self._jobs.append((function, arguments, result))
            begins, self._active = not self._active, True
        if begins:
            self._threads.put(self._turn)
        return result

    def _turn(self) -> tuple[Callable[[], None], bool]:
        """Run one function, in a thread; a `threads.Turn`."""
        threading.current_thread().name = f"axcollector {self.name}"
        function, arguments, result = self._jobs.popleft()
        outcome: object
        try:
            outcome = function(*arguments)
        except BaseException:  # noqa: BLE001 - handed to the caller
            outcome = Failure()
        with self._lock:
            self._active = goes_on = bool(self._jobs)
            leaves = self._leaves()
        return partial(self._tell, result, outcome, leaves), goes_on

    def _tell(self, result: "defer.Deferred[Any]", outcome: object, leaves: bool) -> None:  # noqa: FBT001 - see `_turn`
        """Tell the reactor, in a thread; which ends before, also where the reactor has stopped and will not hear it."""
        if leaves:
            self._threads.leave()
        self._reactor.callFromThread(self._settle, result, outcome)

    def _leaves(self) -> bool:
        """Whether threads are of no use any more, which is said once; with the lock."""
        leaves = self._joined and not self._active and not self.running
        self._joined = self._joined and not leaves
        return leaves

    def _settle(self, result: "defer.Deferred[Any]", outcome: object) -> None:
        self._unfinished -= 1
        if isinstance(outcome, Failure):
            result.errback(outcome)
        else:
            result.callback(outcome)
        if not self._unfinished:
            waiting, self._idle = self._idle, []
            for waiter in waiting:
                waiter.callback(None)

    def stopService(self) -> "defer.Deferred[None]":
        """Take no more work. Fires when what was given before is done; cancelling stops the waiting only."""
        with self._lock:
            self.running = False
            leaves = self._leaves()
        if leaves:
            self._threads.leave()
        done: defer.Deferred[None] = defer.Deferred(self._forget_waiter)
        if self._unfinished:
            self._idle.append(done)
        else:
            done.callback(None)
        return done

    def _forget_waiter(self, waiter: "defer.Deferred[None]") -> None:
        if waiter in self._idle:
            self._idle.remove(waiter)
