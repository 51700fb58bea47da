"""Telling a supervisor how far we are: the protocol of systemd's `Type=notify`, a datagram to a socket that it names.

Ready means that requests are taken: the ports are open and the first snapshot of tenants is there. While that is waited
for, which with servers that are down may take long, the supervisor is asked for patience and told the reason: it
would gain nothing by starting the service again.

See sd_notify(3).
"""

import socket
import time
from collections.abc import Callable, Mapping
from typing import Final

from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from axcollector.services import Periodic

LOOK_SECONDS: Final = 0.5
PATIENCE_SECONDS: Final = 30
"""For so long the supervisor is asked to wait, at each look."""


class Supervisor:
    """Whom to tell; nobody, where no socket is named."""

    _log = Logger()

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Look for its socket in the environment of the process; `@` begins the name of one that is no file."""
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._failed = False

    @property
    def is_there(self) -> bool:
        """Whether anybody wants to be told."""
        return bool(self._address)

    def tell(self, **facts: object) -> bool:
        """Send facts, such as `READY=1`; whether they were. Waits for nobody; that they were not is logged once."""
        if not self._address:
            return True
        message = "\n".join(f"{name}={' '.join(str(value).split())}" for name, value in facts.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(0)
                sender.sendto(message.encode(errors="replace"), self._address)
        except OSError as exc:
            if not self._failed:
                self._log.warn("the supervisor cannot be told anything: {problem}", problem=exc.strerror or str(exc))
            self._failed = True
            return False
        return True


class Readiness(Service):
    """Tells the supervisor when the service is ready, what it waits for, and that it stops."""

    def __init__(
        self, clock: IReactorTime, supervisor: Supervisor, problem: Callable[[], str | None], taking: str
    ) -> None:
        """Say nothing yet.

        Args:
            clock: What schedules looks.
            supervisor: Whom to tell.
            problem: Why no request would be taken, in a sentence; None: it would.
            taking: What the service does when all is well, in a few words.
        """
        self._supervisor = supervisor
        self._problem = problem
        self._taking = taking
        self._looks = Periodic(clock, LOOK_SECONDS, "telling the supervisor", self._look)
        self._status: str | None = None
        self._ready = False
        self._owed = False

    def startService(self) -> None:
        """Everything has been started. Look whether it is ready, now and then every so often."""
        self.running = True
        self._ready, self._owed, self._status = False, False, None
        if self._supervisor.is_there:
            self._looks.startService()

    def stopService(self) -> "defer.Deferred[None]":
        """The service stops."""
        self.running = self._ready = False  # a reload that ends now makes it no more ready than it is
        self._supervisor.tell(STOPPING=1, STATUS="stopping: committing, answering and splitting what waits")
        return self._looks.stopService()

    def _look(self) -> None:
        problem = self._problem()
        status = self._taking if problem is None else problem
        facts: dict[str, object] = {}
        ready = self._ready or problem is None
        if self._owed or ready is not self._ready:
            facts["READY"] = 1
        if not ready:
            facts["EXTEND_TIMEOUT_USEC"] = PATIENCE_SECONDS * 1_000_000
        if status != self._status:
            facts["STATUS"] = status
        # What it could not be told, its queue being full, is told at the next look: it waits for some of it.
        if facts and self._supervisor.tell(**facts):
            self._ready, self._owed, self._status = ready, False, status

    def reloading(self) -> None:
        """The configuration is read again; `reloaded` will be called."""
        if self._ready:
            self._supervisor.tell(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)

    def reloaded(self) -> None:
        """It has been."""
        if self._ready:
            self._owed = not self._supervisor.tell(READY=1)
