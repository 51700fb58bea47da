"""One worker process, as the parent sees it: its pipes, what it has reported, and how it ends.

Its descriptors: 0 what the parent says, whose end is also the parent's end; 1 and 2 what libraries may print; 3 what it
reports; 4 the lock on the data directory, held for as long as any worker is there; from 5 on listening
sockets, and then what it hands connections on with (`inboxes`).
"""

import contextlib
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from twisted.internet import defer
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from axcollector.core import messages
from axcollector.core.errors import NotReady
from axcollector.core.messages import Ready, Reports, Said, Shown, Standing
from axcollector.core.traffic import Traffic

ORDERS: Final = 0
REPORTS: Final = 3
LOCK: Final = 4
FIRST_SOCKET: Final = 5
_NO_WORKER: Final = "No worker process takes records"
_NEEDED_BY_ALL: Final = frozenset({"catalog", "tokens"})
_LONGEST_LINE_BYTES: Final = 10_000


class WorkerProcess(ProcessProtocol):
    """A process that was started, or is about to be.

    Attributes:
        number: The worker's; no other gets it.
        is_ready: Whether it takes records.
        was_ready: Whether it ever did.
        is_leaving: Whether it was told to leave.
        has_ended: Whether it has ended.
        how: In what way.
        standing: How it last said that it is, or None.
    """

    _log = Logger()
    transport: Any

    def __init__(self, setup: messages.Setup, told: "Callable[[WorkerProcess], object]", traffic: Traffic) -> None:
        """Start nothing.

        Args:
            setup: What it is told first.
            told: Called when it is ready, and when it has ended.
            traffic: Where what it says of tenants is added.
        """
        self._traffic = traffic
        self._setup = setup
        self._told = told
        self._reports = Reports()
        self._printed: dict[int, bytes] = {1: b"", 2: b""}
        self._events: dict[int, defer.Deferred[bool]] = {}
        self._situation = setup.situation
        self._waiting: list[defer.Deferred[None]] = []
        self._not_ready: list[defer.Deferred[None]] = []
        self.number = setup.worker
        self.is_ready = False
        self.was_ready = False
        self.is_leaving = False
        self.has_ended = False
        self.how = ""
        self.standing: Standing | None = None

    def connectionMade(self) -> None:
        """The process is there."""
        self._say(self._setup)

    def _say(self, order: messages.Order) -> None:
        if not self.has_ended:
            self.transport.writeToChild(ORDERS, messages.frame(order))

    def inform(self, situation: messages.Situation) -> None:
        """Tell it how things stand, if that has changed."""
        if situation != self._situation:
            self._situation = situation
            self._say(situation)

    def tell(self, number: int, orders: Sequence[messages.Order]) -> "defer.Deferred[bool]":
        """As `feed.Recipient.tell`."""
        shown: defer.Deferred[bool] = defer.Deferred()
        if self.has_ended or self.is_leaving:
            shown.callback(result=True)
        else:
            self._events[number] = shown
            for order in orders:
                self._say(order)
        return shown

    def finish(self) -> None:
        """Tell it to finish its open journal."""
        self._say(messages.Finish())

    def leave(self, *, gently: bool) -> None:
        """Tell it to take no more, to commit and answer what it has, and to end."""
        self.is_leaving = True
        self._say(messages.Leave(gently))
        self._forget_events()

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessExitedAlready):
            self.transport.signalProcess(signal.SIGKILL)

    def ended(self) -> "defer.Deferred[None]":
        """Fires when it has ended."""
        return _wait(self._waiting, over=self.has_ended)

    def ready_or_ended(self) -> "defer.Deferred[None]":
        """Fires when it takes records, or has ended."""
        return _wait(self._not_ready, over=self.has_ended or self.was_ready)

    async def comes_up(self, clock: IReactorTime, seconds: float) -> bool:
        """Whether it takes records; it is ended if it does not in time."""
        up = self.ready_or_ended()
        late = clock.callLater(seconds, self.kill)
        try:
            await up
        finally:
            if late.active():
                late.cancel()
        return self.is_ready

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: N803 - Twisted's interface
        """It has reported something, or something in it has printed."""
        if childFD != REPORTS:
            self._take_printed(childFD, data)
            return
        try:
            reports = self._reports.feed(data)
        except ValueError as exc:
            self._log.error("worker {worker} is not understood: {problem}", worker=self.number, problem=str(exc))
            self.kill()
            return
        for report in reports:
            self._take(report)

    def _take(self, report: messages.Report) -> None:
        if isinstance(report, Said):
            self._pass_on(report)
        elif isinstance(report, Standing):
            self.standing = report
            self._traffic.add_all(report.traffic)
        elif isinstance(report, Shown):
            if waiting := self._events.pop(report.number, None):
                waiting.callback(report.is_shown)
        elif isinstance(report, Ready):
            self.is_ready = self.was_ready = True
            self._told(self)
            _wake(self._not_ready)

    def _pass_on(self, said: Said) -> None:
        """Log what it has said, under the name of what said it, with all its fields."""
        log = Logger(said.namespace)
        fields = {**said.fields, "worker": self.number, "said": said.text, "event": said.event}
        level = LogLevel.lookupByName(said.level)
        if said.traceback is None:
            log.emit(level, "worker {worker}: {said}", **fields)
        else:
            log.emit(level, "worker {worker}: {said}\n{traceback}", traceback=said.traceback, **fields)

    def _take_printed(self, descriptor: int, data: bytes) -> None:
        *lines, rest = (self._printed[descriptor] + data).split(b"\n")
        if len(rest) > _LONGEST_LINE_BYTES:
            lines, rest = [*lines, rest], b""
        self._printed[descriptor] = rest
        for line in filter(None, lines):
            text = line.decode(errors="replace")
            self._log.warn("worker {worker} printed: {printed}", worker=self.number, printed=text)

    def processEnded(self, reason: Failure) -> None:
        """It has ended, and its pipes are read to their ends."""
        self.has_ended, self.is_ready = True, False
        for descriptor, rest in self._printed.items():
            if rest:
                self._take_printed(descriptor, b"\n")
        self.how = _described(reason.value)
        self._forget_events()
        self._told(self)
        _wake(self._not_ready)
        _wake(self._waiting)

    def _forget_events(self) -> None:
        """What it does not show any more its successor will."""
        events, self._events = self._events, {}
        for each in events.values():
            each.callback(result=True)

    @property
    def needs(self) -> Mapping[str, int]:
        """How many bytes the split of each of its journals will need."""
        return self.standing.needs if self.standing is not None else {}

    @property
    def set_aside_bytes(self) -> int:
        """What it holds of records that are on their way to quarantine."""
        return self.standing.set_aside_bytes if self.standing is not None else 0


def problems_of(processes: Sequence[WorkerProcess]) -> Mapping[str, str | None]:
    """What keeps some workers, between which requests are shared out, from being ready, by check.

    None where one at least is well. Of what a worker answers 500 without, all that take records need to have it; what
    the others of a check lack is answered with 503, and tried again.
    """
    ready = [each.standing.problems for each in processes if each.is_ready and each.standing is not None]
    if not ready:
        return {"catalog": str(NotReady()), "spool": _NO_WORKER, "workers": _NO_WORKER}
    names = dict.fromkeys(name for problems in ready for name in problems)
    found = {name: [problems.get(name) for problems in ready] for name in names}
    return {**{name: _problem_of(name, each) for name, each in found.items()}, "workers": None}


def _problem_of(check: str, said: Sequence[str | None]) -> str | None:
    """What is wrong, given what each worker says of one check."""
    if None in said and check not in _NEEDED_BY_ALL:
        return None
    return next(filter(None, said), None)


def _wait(waiting: "list[defer.Deferred[None]]", *, over: bool) -> "defer.Deferred[None]":
    """One more who waits; not at all, where that is over."""
    result: defer.Deferred[None] = defer.Deferred()
    if over:
        result.callback(None)
    else:
        waiting.append(result)
    return result


def _wake(waiting: "list[defer.Deferred[None]]") -> None:
    """Whatever they waited for is over."""
    woken, waiting[:] = list(waiting), []
    for each in woken:
        each.callback(None)


def _described(ended: BaseException | None) -> str:
    """How a process has ended, from what Twisted makes of it."""
    number = getattr(ended, "signal", None)
    if number is not None:
        return f"by {signal.Signals(number).name}"
    return f"with status {getattr(ended, 'exitCode', None)}"
