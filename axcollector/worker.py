"""A worker process: takes records and writes journals, for the parent that started it, which does everything else.

It is told all that it needs to know by its parent (`core.messages`), whose end it notices by the end of that pipe:
then, as when it is told to leave or gets SIGTERM, it takes no more connections, commits and answers what it has, and
exits. A thread sees to it that this does not take for ever. What it logs goes to its parent. SIGINT and SIGHUP, which
a terminal sends to parent and workers alike, are the parent's business.

A worker that follows another takes no records before its catalog shows what the parent knows, so that nobody is refused
whom the other one would have taken.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from msgspec import structs
from twisted.internet import defer, stdio, task
from twisted.logger import Logger, globalLogBeginner
from twisted.python.failure import Failure

from axcollector import bugs
from axcollector.clock_steps import ClockSteps
from axcollector.config import Config
from axcollector.core.errors import ConfigError
from axcollector.core.layout import Stage
from axcollector.core.messages import (
    Changes,
    Finish,
    Leave,
    Order,
    Ready,
    Report,
    RowChange,
    Setup,
    Shown,
    Situation,
    Snapshot,
    Standing,
)
from axcollector.disk import Disk
from axcollector.ingesting import Ingesting
from axcollector.launch import exempt_what_is_there
from axcollector.premises import Identity
from axcollector.quarantine import Quarantine
from axcollector.reserve import SplitReserve
from axcollector.room import Lack
from axcollector.services import InOrder, Job, Periodic, Rest
from axcollector.sync import events
from axcollector.worker_pipe import ParentPipe
from axcollector.workers.process import ORDERS, REPORTS

TICK_SECONDS: Final = 0.25
"""How often it looks whether its interval is over, and says how it is."""
PATIENCE_SECONDS: Final = 30.0
"""After so long without a catalog records are taken, and refused, all the same: there may never be one."""
GENTLE_SECONDS: Final = 5.0
"""So long, when another takes its place, its clients have time to notice that their connections are to be closed."""
LINGER_SECONDS: Final = 2.0
"""So long the last answers may take to be sent."""
LAST_SECONDS: Final = 5.0
"""So long leaving may take, beside being gentle; then it exits at once. Less than its parent waits."""
TENANTS_A_MESSAGE: Final = 1000
"""Of so many tenants it says at once what they have sent: that takes a millisecond or two; the others come next."""
_LOOK_SECONDS: Final = 0.02


class Site(Protocol):
    """The site that takes records."""

    channels: set[Any]

    def drain(self) -> None:
        """Close each connection behind its next answer."""
        ...

    def close_idle(self) -> None:
        """Close the connections on which nothing is being answered, and the others behind their answers."""
        ...


class Work:
    """What a worker does, as it is told.

    Attributes:
        status: What the process is to exit with.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401 - it provides what every Twisted reactor does
        report: Callable[[Report], object],
        end: Callable[[], object],
        end_after: Callable[[float], object],
    ) -> None:
        """Do nothing yet.

        Args:
            reactor: The reactor.
            report: Says something to the parent.
            end: Ends the process; all is done.
            end_after: Ends it after so many seconds, whatever is done by then.
        """
        self._reactor = reactor
        self._report = report
        self._end = end
        self._end_after = end_after
        self._room = Lack()
        self._rest = Rest(reactor)
        self._changes: list[events.Change] = []
        self._told: Standing | None = None
        self._is_leaving = False
        self.status = 0
        self._ingesting: Ingesting | None = None
        self._listeners: InOrder | None = None
        self._site: Site | None = None
        self._heartbeat = Periodic(reactor, TICK_SECONDS, "the worker's heartbeat", self._tick)

    def take(self, order: Order) -> None:
        """Do what the parent says."""
        if isinstance(order, Setup):
            serving = defer.ensureDeferred(self._serve(order))
            serving.addErrback(self._failed)
        elif isinstance(order, Situation):
            self._note(order)
        elif isinstance(order, Snapshot):
            self._show(order)
        elif isinstance(order, Changes):
            self._amend(order)
        elif isinstance(order, Finish) and self._ingesting is not None:
            finished = self._ingesting.finish_open()
            finished.addErrback(lambda failure: bugs.report(self._log, "a journal could not be finished", failure))
        elif isinstance(order, Leave):
            self.leave(gently=order.gently)

    def _failed(self, failure: Failure) -> None:
        self.status = 1
        if failure.check(ConfigError):
            self._log.error("it cannot begin: {problem}", problem=str(failure.value))
        else:
            bugs.report(self._log, "a worker failed", failure)
        self.leave(gently=False)

    async def _serve(self, setup: Setup) -> None:
        """Begin to take records."""
        from axcollector.doors import ingest_site, worker_listeners  # noqa: PLC0415 - it installs a reactor, if there is none yet

        config = Config(**setup.settings)
        disk = self._disk = Disk()
        self._directory = os.path.join(config.data_directory, Stage.TMP)
        self._reserve = SplitReserve(disk, config.data_directory)
        self._quarantine = Quarantine(config.data_directory, config.quarantine_quota_bytes)
        self._note(setup.situation)
        self._ingesting = Ingesting(self._reactor, config, disk)
        identity = Identity(setup.instance_id, setup.starts, setup.worker)
        self._ingesting.prepare(identity, self._room, self._reserve, self._quarantine)
        self._ingesting.startService()
        self._heartbeat.startService()
        self._site = ingest_site(self._reactor, config, self._ingesting)
        self._listeners = worker_listeners(self._reactor, "listen", setup, self._site)
        if setup.snapshot is not None:
            await self._caught_up(self._show(setup.snapshot))
        if not self._is_leaving:
            self._listeners.startService()
            exempt_what_is_there()
            await self._tick()
            self._report(Ready())

    async def _caught_up(self, shown: "defer.Deferred[None]") -> None:
        """Wait until the catalog is there; not for ever."""
        pause = self._rest.take(PATIENCE_SECONDS)
        shown.addBoth(lambda _: self._rest.end(pause))
        await pause

    def _note(self, situation: Situation) -> None:
        self._room.lack = situation.lack
        self._reserve.others_need = situation.reserved_bytes
        self._quarantine.told(situation.quarantined_bytes, situation.measurements)

    def _show(self, snapshot: Snapshot) -> "defer.Deferred[None]":
        assert self._ingesting is not None
        event = events.Snapshot(snapshot.version, snapshot.registry)
        return self._answer(snapshot.number, self._ingesting.sync.snapshot_received(event))

    def _amend(self, changes: Changes) -> None:
        assert self._ingesting is not None
        self._changes.extend(map(_change_of, changes.changes))
        if not changes.more:
            event, self._changes = events.ChangeList(self._changes, changes.version), []
            self._answer(changes.number, self._ingesting.sync.changes_received(event))

    def _answer(self, number: int, shown: "defer.Deferred[bool]") -> "defer.Deferred[None]":
        async def answer() -> None:
            self._report(Shown(number, await shown))

        return defer.ensureDeferred(answer())

    async def _tick(self) -> None:
        """Finish what is due, and say how things are, if that has changed."""
        ingesting = self._ingesting
        assert ingesting is not None
        await ingesting.finish_due()
        self._reserve.forget_gone(self._directory, tuple(self._reserve.needs))
        self._quarantine.publish_gone(self._disk, self._directory)
        self._say_how_it_is(ingesting)

    def _say_how_it_is(self, ingesting: Ingesting) -> None:
        """Say it, if it has changed; with what some tenants have sent since they were last told of."""
        account = ingesting.account()
        jobs: Sequence[Job] = (self._heartbeat, *account.jobs)
        failures = {job.name: (job.failures, job.reason) for job in jobs if job.failures}
        standing = Standing(
            ingesting.problems(),
            self._reserve.needs,
            self._quarantine.held_bytes,
            account.ingest,
            account.catalog,
            failures=failures,
        )
        traffic = ingesting.traffic.take(TENANTS_A_MESSAGE)
        if (traffic or standing != self._told) and self._listeners is not None:
            self._told = standing
            self._report(structs.replace(standing, traffic=traffic))

    def leave(self, *, gently: bool) -> None:
        """Take no more, commit and answer what there is, and end the process; told again, do it less gently."""
        if not gently:
            self._rest.end()
            self._end_after(LAST_SECONDS)
        if self._is_leaving:
            return
        self._is_leaving = True
        leaving = defer.ensureDeferred(self._leave(gently=gently))
        leaving.addErrback(lambda failure: bugs.report(self._log, "leaving went wrong", failure))
        leaving.addCallback(lambda _: self._end())

    async def _leave(self, *, gently: bool) -> None:
        if gently and self._site is not None:
            self._site.drain()
        if self._listeners is not None:
            await self._listeners.stopService()
        if gently and self._site is not None:
            self._end_after(GENTLE_SECONDS + LAST_SECONDS)
            await self._rest.take(GENTLE_SECONDS)
        if self._site is not None:
            self._site.close_idle()
        await self._heartbeat.stopService()
        if self._ingesting is not None:
            await self._ingesting.close()
            await self._answers_sent()
            self._say_how_it_is(self._ingesting)
            while len(self._ingesting.traffic):
                self._say_how_it_is(self._ingesting)
            await self._ingesting.stopService()

    async def _answers_sent(self) -> None:
        """Until clients have their answers; not for ever."""
        deadline = self._reactor.seconds() + LINGER_SECONDS
        while self._site is not None and self._site.channels and self._reactor.seconds() < deadline:
            await task.deferLater(self._reactor, _LOOK_SECONDS)


def _change_of(row: RowChange) -> events.Change:
    return events.Change(events.Operation(row.operation), row.table, row.new_row, row.old_row)


def _end_after(seconds: float) -> None:
    """End the process after so long, whatever it does by then."""
    last = threading.Timer(seconds, os._exit, (1,))
    last.daemon = True
    last.start()


def main() -> None:
    """Run a worker, until it is told to leave."""
    from twisted.internet import reactor  # noqa: PLC0415 - importing this module must not choose one

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    any_reactor: Any = reactor
    pipe = ParentPipe(any_reactor)
    work = pipe.work = Work(reactor, pipe.report, any_reactor.stop, _end_after)
    signal.signal(signal.SIGTERM, lambda *_: any_reactor.callFromThread(work.leave, gently=False))
    globalLogBeginner.beginLoggingTo([pipe], redirectStandardIO=False)
    stdio.StandardIO(pipe, stdin=ORDERS, stdout=REPORTS, reactor=any_reactor)  # type: ignore[call-arg]  # stubs lack it
    ClockSteps(reactor, time.time, time.monotonic).startService()
    any_reactor.run(installSignalHandlers=False)
    sys.exit(work.status)


if __name__ == "__main__":
    main()
