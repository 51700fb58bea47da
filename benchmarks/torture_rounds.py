"""A round of the torture: how the service's end is planned, and brought about.

Most moments are random; some are aimed, because what happens in a few milliseconds would hardly ever be hit: the kill
then comes a random while after the first sign of it.
"""

import contextlib
import enum
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass
from typing import Final

from benchmarks.torture_clients import Target
from benchmarks.torture_service import Service, TortureFailed
from benchmarks.torture_store import Store

_AIM_SECONDS: Final = 4.0
"""So long a sign is waited for. Intervals are 1 s long, so there is something to close and to upload before that."""


class End(enum.StrEnum):
    """How the service's process ends. All but `ORDERLY` end with SIGKILL."""

    SERVING = "while serving"
    STARTING = "while starting"
    RECOVERING = "while recovering"
    CLOSING = "while splitting"
    UPLOADING = "while uploading"
    STOPPING = "while stopping"
    ORDERLY = "in order"


class Victims(enum.StrEnum):
    """Whom SIGKILL hits, where there are worker processes."""

    PARENT = "the parent"
    ALL = "the parent and its workers"
    WORKER = "a worker, then the parent"
    WORKER_AND_ALL = "a worker, then all"


_KINDS: Final = {
    # How likely, and how many seconds after the sign of its moment at most.
    End.SERVING: (0.45, 2.5),
    End.STARTING: (0.05, 0.3),
    End.RECOVERING: (0.15, 0.15),
    End.CLOSING: (0.15, 0.12),
    End.UPLOADING: (0.10, 0.06),
    End.STOPPING: (0.05, 1.5),
    End.ORDERLY: (0.05, 1.5),
}
_GRACE_SECONDS: Final = 0.3
"""So long after SIGTERM, at most, SIGKILL follows where a stop is to be interrupted."""


_ORPHAN_SECONDS: Final = 10.0
"""So long workers may outlive a parent that was killed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to happen in a round.

    Attributes:
        end: Which end.
        delay_seconds: How long after the sign of its moment: that it is ready, or what is to be interrupted begins.
        grace_seconds: How long a stop goes on before it is interrupted.
        victims: Whom SIGKILL hits.
    """

    end: End
    delay_seconds: float
    grace_seconds: float
    victims: Victims = Victims.ALL


def plan(chance: random.Random, workers: int = 1) -> Plan:
    """Choose."""
    end = chance.choices(list(_KINDS), [likely for likely, _ in _KINDS.values()])[0]
    delay, grace = chance.uniform(0, _KINDS[end][1]), chance.uniform(0, _GRACE_SECONDS)
    victims = chance.choice(list(Victims)) if workers != 1 else Victims.ALL
    return Plan(end, delay, grace, victims)


class Rounds:
    """Carries rounds out.

    Attributes:
        ends: How many processes ended how.
        victims: Whom how many kills hit, where there are workers.
        left: After how many of those something lay in a stage, by what it was.
    """

    def __init__(self, service: Service, store: Store, target: Target, timeout_seconds: float, seed: int) -> None:
        """Put the parts together; nothing in a round is waited for longer than the timeout."""
        self._chance = random.Random(f"{seed}/victims")
        self._service = service
        self._store = store
        self._target = target
        self._timeout = timeout_seconds
        self.ends: Counter[str] = Counter()
        self.left: Counter[str] = Counter()
        self.victims: Counter[str] = Counter()

    def run(self, planned: Plan) -> None:
        """One round: start the service, let clients at it, end it.

        Raises:
            TortureFailed: It did not start, ended by itself, or did not end.
        """
        self._service.start()
        if planned.end is not End.STARTING:
            self._aim(planned.end)
        if planned.victims in {Victims.WORKER, Victims.WORKER_AND_ALL}:
            self._kill_a_worker()
        self._let_pass(planned.delay_seconds)
        self._service.check_orphans(_ORPHAN_SECONDS)  # of the round before: the start has not waited for us to look
        end = self._bring_about(planned)
        self._target.close()
        self.ends[end] += 1
        self.left.update(dict.fromkeys(self._service.left(), 1))

    def _let_pass(self, seconds: float) -> None:
        moment = time.monotonic() + seconds

        def passed() -> bool:
            self._is_open()
            return time.monotonic() >= moment

        self._service.watch(passed, self._timeout)

    def _is_open(self) -> bool:
        """Whether the service is ready; clients are let at it as soon as it listens."""
        if self._service.port:
            self._target.open(self._service.port)
        return self._service.ready

    def _recovery_began(self) -> bool:
        return self._is_open() or bool(self._service.names("recovered"))

    def _aim(self, end: End) -> None:
        """Wait for the service, and for the sign that what is to be interrupted has begun."""
        service, store = self._service, self._store
        if not service.watch(self._recovery_began if end is End.RECOVERING else self._is_open, self._timeout):
            raise TortureFailed(f"the service does not start within {self._timeout:g} s; see {service.log_path}")
        begun = store.puts
        if end is End.CLOSING:
            service.watch(lambda: any(name.endswith(".split") for name in service.names("tmp")), _AIM_SECONDS)
        elif end is End.UPLOADING:
            service.watch(lambda: store.puts > begun, _AIM_SECONDS)

    def _bring_about(self, planned: Plan) -> End:
        """End it. How it has ended: a stop that was to be interrupted may be quicker than that."""
        if planned.end is End.ORDERLY:
            if not self._service.terminate(self._timeout):
                raise TortureFailed(f"the service goes on {self._timeout:g} s after SIGTERM; see its log")
        elif planned.end is End.STOPPING and self._service.terminate(planned.grace_seconds):
            return End.ORDERLY
        else:
            self._kill(planned.victims)
        return planned.end

    def _kill_a_worker(self) -> None:
        workers = self._service.workers()
        if workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._chance.choice(workers), signal.SIGKILL)
            self.victims["a worker"] += 1

    def _kill(self, victims: Victims) -> None:
        has_workers = bool(self._service.workers())
        spared = victims in {Victims.PARENT, Victims.WORKER}
        if has_workers:
            self.victims["the parent" if spared else "the parent and its workers"] += 1
        self._service.kill(workers_too=not spared)
