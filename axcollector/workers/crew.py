"""The workers of a collector: keeps as many running as there are to be, and speaks for all of them.

Each has a slot, which has the sockets, and a number, which no other process of this start gets and which its journals
bear. One that ends is followed by another in its slot, after a pause that grows while that fails; what waits in the
slot's sockets waits for it. To replace workers, in each slot in turn a second one is started, and the first is told to
leave when that one takes records.
"""

import os
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from twisted.internet import defer
from twisted.logger import Logger

from axcollector.config import Config
from axcollector.core import messages
from axcollector.core.layout import JournalName, Stage
from axcollector.core.messages import Door, Situation
from axcollector.disk import Disk
from axcollector.premises import Identity
from axcollector.quarantine import Quarantine
from axcollector.reserve import SplitReserve
from axcollector.room import Lack
from axcollector.services import Periodic
from axcollector.upstream import Account, Upstream
from axcollector.workers.cores import available, core_of, kept_to
from axcollector.workers.feed import Feed
from axcollector.workers.inboxes import Inboxes
from axcollector.workers.inheritance import COMMAND, environment_of_workers, settings_of_workers
from axcollector.workers.places import Place, open_places
from axcollector.workers.process import FIRST_SOCKET, LOCK, ORDERS, REPORTS, WorkerProcess, problems_of
from axcollector.workers.slots import Slot
from axcollector.workers.sums import Sums

TELL_SECONDS: Final = 0.5
"""How often workers are told how things stand, where that has changed."""
LEAVE_SECONDS: Final = 6.0
"""A worker that was told to leave when all stop, and is there after so long, is killed: what it has not acknowledged by
then it never will."""
REPLACED_SECONDS: Final = 30.0
"""Likewise one that was told to leave gently."""
START_SECONDS: Final = 60.0
"""A worker that is to replace another has to take records after so long."""


class Workers(Upstream):
    """Starts worker processes and keeps them running, from `startService` until `close`.

    Attributes:
        places: Where records are taken, once started.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401 - time and processes
        config: Config,
        disk: Disk,
        count: int,
        lock: Callable[[], int],
        inherited: Callable[[str], int],
    ) -> None:
        """Start nothing yet.

        Args:
            reactor: Provides time and processes.
            config: What workers are to do.
            disk: The hands.
            count: How many workers there are to be.
            lock: Gives the descriptor of the lock that workers hold while they are there.
            inherited: Gives that of the socket that systemd has opened for an endpoint; may raise `ConfigError`.
        """
        self._reactor = reactor
        self._config = config
        self._disk = disk
        self._lock = lock
        self._inherited = inherited
        self._slots = [Slot(index) for index in range(count)]
        self._made = 0
        self._live: frozenset[int] = frozenset()
        self._identity = Identity("", 0)
        self._room = Lack()
        self._reserve = SplitReserve(disk, config.data_directory)
        self._quarantine = Quarantine(config.data_directory)
        self._telling = Periodic(reactor, TELL_SECONDS, "telling workers how things stand", self._tell)
        self._replacing = defer.DeferredLock()
        self._processes: list[WorkerProcess] = []
        self.places: Sequence[Place] = ()
        self.sync: Feed = Feed(self._recipients)
        self._inboxes = Inboxes()
        self._sums = Sums()
        self.traffic = self._sums.traffic

    def _recipients(self) -> Sequence[WorkerProcess]:
        return [each for each in self._processes if not each.is_leaving]

    def prepare(self, identity: Identity, room: Lack, reserve: SplitReserve, quarantine: Quarantine) -> None:
        """As `Upstream.prepare`."""
        self._quarantine = quarantine
        self._identity = identity
        self._room = room
        self._reserve = reserve

    def startService(self) -> None:
        """Listen, and have the workers started as soon as the reactor runs.

        Raises:
            CannotListenError: A port is taken, or an address is not of this machine.
            ConfigError: systemd has opened no such socket.
        """
        self.places = open_places(self._config.listen, len(self._slots), self._inherited)
        for place in self.places:
            self._log.info("listen: listening on {address}", address=place.address)
        self._inboxes.open(len(self._slots))
        self.running = True
        self._telling.startService()
        self._reactor.callWhenRunning(self._start_all)

    def _start_all(self) -> None:
        for slot in self._slots:
            if self.running and slot.process is None:
                slot.process = self._start(slot)

    def _start(self, slot: Slot) -> WorkerProcess | None:
        """A new worker for a slot; None, and another try later, where the system does not allow another process."""
        number, self._made = self._made, self._made + 1
        doors = [Door(place.endpoint, FIRST_SOCKET + at) for at, place in enumerate(self.places)]
        sockets = {door.descriptor: place.of(slot.index) for door, place in zip(doors, self.places, strict=True)}
        sharing, inboxes = self._inboxes.of(slot.index, FIRST_SOCKET + len(doors))
        setup = messages.Setup(
            settings=settings_of_workers(self._config),
            instance_id=self._identity.instance_id,
            starts=self._identity.starts,
            worker=number,
            doors=doors,
            situation=self._situation_of(),
            snapshot=self.sync.current,
            sharing=sharing,
        )
        process = WorkerProcess(setup, self._heard, self.traffic)
        descriptors = {ORDERS: "w", 1: "r", 2: "r", REPORTS: "r", LOCK: self._lock(), **sockets, **inboxes}
        self._live |= {number}
        self._processes.append(process)
        slot.started_at = self._reactor.seconds()
        environment = environment_of_workers(os.environ)
        try:
            with kept_to(core_of(slot.index, len(self._slots), available())):
                self._reactor.spawnProcess(process, COMMAND[0], COMMAND, env=environment, childFDs=descriptors)
        except OSError as exc:
            self._log.error("worker {worker} cannot be started: {problem}", worker=number, problem=str(exc))
            self._forget(process)
            self._try_again(slot, 0.0)
            return None
        return process

    def _heard(self, process: WorkerProcess) -> None:
        """A worker is ready, or has ended."""
        if process.is_ready:
            self._log.info("worker {worker} takes records", worker=process.number)
            return
        self._forget(process)
        self._reserve.take_over(os.path.join(self._config.data_directory, Stage.TMP), process.needs)
        slot = next((each for each in self._slots if each.process is process), None)
        if slot is None or not self.running:
            self._log.info("worker {worker} has ended {how}", worker=process.number, how=process.how)
            return
        slot.process = None
        self._inboxes.has_ended(slot.index)
        lasted = self._reactor.seconds() - slot.started_at if process.was_ready else 0.0
        seconds = self._try_again(slot, lasted)
        self._log.error(
            "worker {worker} has ended {how}, and nobody had it end; another follows in {seconds:.1f} s",
            worker=process.number,
            how=process.how,
            seconds=seconds,
        )

    def _try_again(self, slot: Slot, lasted: float) -> float:
        seconds = slot.pace.failed(lasted, random.random())  # noqa: S311 - it hides no secret

        def again() -> None:
            slot.retry = None
            slot.process = self._start(slot)

        slot.retry = self._reactor.callLater(seconds, again)
        return seconds

    def _forget(self, process: WorkerProcess) -> None:
        self._live -= {process.number}
        self._processes.remove(process)
        self._sums.ended(process)

    def _tell(self) -> None:
        for each in self._processes:
            each.inform(self._situation_of(each))

    def _situation_of(self, process: WorkerProcess | None = None) -> Situation:
        """How things stand for a worker: what is there beside it."""
        others = [each for each in self._processes if each is not process]
        return Situation(
            self._room.lack,
            self._reserve.needed + sum(sum(each.needs.values()) for each in others),
            self._quarantine.measured_bytes + sum(each.set_aside_bytes for each in others),
            self._quarantine.measurements,
        )

    async def replace(self, config: Config) -> None:
        """Have workers do what another configuration says, one after the other; no request is refused meanwhile.

        What the parent does, and where records are taken, stays as it is. Where a new worker does not come to take
        records, the one it was to follow stays, and so do those after it; that is logged.
        """
        await self._replacing.acquire()
        try:
            self._config = config
            for slot in self._slots:
                if not self.running or not await self._replace_in(slot):
                    return
        finally:
            self._replacing.release()

    async def _replace_in(self, slot: Slot) -> bool:
        old = slot.process
        if old is None:  # the one that follows will do as it is to
            return True
        new = self._start(slot)
        if new is None or not await new.comes_up(self._reactor, START_SECONDS):
            if self.running:
                self._log.error("no new worker takes records, so worker {worker} stays", worker=old.number)
            return False
        if slot.process is old:
            slot.process = new
            old.leave(gently=True)
            await self._has_gone(old, REPLACED_SECONDS)
        elif slot.process is None:  # the old one has ended meanwhile
            slot.cancel_retry()
            slot.process = new
        else:  # and was followed
            new.leave(gently=True)
        return True

    async def _has_gone(self, process: WorkerProcess, seconds: float) -> None:
        """Wait until a worker that was told to leave has ended; end it where it takes longer."""
        late = self._reactor.callLater(seconds, self._lose_patience, process)
        try:
            await process.ended()
        finally:
            if late.active():
                late.cancel()

    def _lose_patience(self, process: WorkerProcess) -> None:
        self._log.error("worker {worker} does not leave; it is killed", worker=process.number)
        process.kill()

    def finish_due(self) -> "defer.Deferred[None]":
        """Workers do that themselves."""
        return defer.succeed(None)

    def finish_open(self) -> "defer.Deferred[None]":
        """Tell all workers to. Fires when they are told."""
        for each in self._processes:
            each.finish()
        return defer.succeed(None)

    def is_abandoned(self, journal: JournalName) -> bool:
        """Whether a journal's worker has ended."""
        return journal.worker not in self._live

    def close(self) -> "defer.Deferred[None]":
        """Have all workers commit, answer and end. Fires when they have ended; one that does not in time is killed."""
        self.running = False
        for slot in self._slots:
            slot.cancel_retry()
        for each in self._processes:
            each.leave(gently=False)
        gone = [defer.ensureDeferred(self._has_gone(each, LEAVE_SECONDS)) for each in self._processes]
        return defer.gatherResults(gone, consumeErrors=True).addBoth(self._close_places)

    def _close_places(self, _: object = None) -> None:
        for place in self.places:
            place.close()
        self.places = ()
        self._inboxes.close()

    def stopService(self) -> "defer.Deferred[None]":
        """Close what `close` left. Fires when that is done."""
        self.running = False
        self._close_places()
        return self._telling.stopService()

    def problems(self) -> Mapping[str, str | None]:
        """What keeps all workers from being ready, by check; None where one is not kept by it."""
        return problems_of(self._processes)

    def account(self) -> Account:
        """As `Upstream.account`."""
        return self._sums.account(self._processes, self._telling)
