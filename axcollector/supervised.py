"""A service in a process of its own, with what whoever looks after processes expects: SIGHUP, and word of how it is.

    thread ─ SIGHUP ─ the service ─ readiness      started from the left, stopped from the right

SIGHUP is taken over when this is put together, which twistd does before it writes its pid file, and not given back:
rotating logs never ends the process, nor leaves its pid file behind.
"""

import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from twisted.application.service import IService

from axcollector.config_keys import Key
from axcollector.core.errors import ConfigError
from axcollector.hangup import OnHangup
from axcollector.log_files import reopen_log_files
from axcollector.notify import Readiness
from axcollector.reloading import Live, Reloading
from axcollector.services import InOrder
from axcollector.tls import Certificates
from axcollector.unwaited import Unwaited

C = TypeVar("C", bound=Any)


class Reread:
    """Reads the configuration of a process, at the start and whenever it is called.

    Always with the same command line, and with relative paths below the same directory, whatever directory the process
    works in by then.
    """

    def __init__(self, path: str | None, overrides: Mapping[str, object]) -> None:
        self._directory = os.getcwd()
        self._path = path
        self._overrides = dict(overrides)
        self._was_read = False

    def __call__(self, read: Callable[[str | None, Mapping[str, object]], C]) -> C:
        """What `read` makes of the file and the command line. Blocking.

        Raises:
            ConfigError: It cannot be used.
        """
        with contextlib.ExitStack() as stack:
            try:
                if os.getcwd() != self._directory:  # twistd --rundir; nothing of ours uses relative paths meanwhile
                    stack.enter_context(contextlib.chdir(self._directory))
            except OSError as exc:
                problem = f"{self._directory}, which relative paths are below, cannot be entered: {exc.strerror}"
                raise ConfigError(problem) from exc
            if (
                self._was_read
                and self._path is not None
                and not os.path.isfile(self._path)
                and os.path.exists(self._path)
            ):
                raise ConfigError(f"the configuration file {self._path} is a pipe or the like, which is read once only")
            self._was_read = True
            return read(self._path, self._overrides)


async def _nothing(_: object) -> None:
    """Nothing is to be done besides."""


def supervised(
    reactor: Any,  # noqa: ANN401 - it provides what every Twisted reactor does
    service: IService,
    readiness: Readiness,
    keys: Mapping[str, Key],
    running: C,
    read: Callable[[], C],
    *,
    live: Live[C],
    certificates: Sequence[Certificates],
    afterwards: Callable[[C], Awaitable[object]] = _nothing,
) -> InOrder:
    """A service that does what SIGHUP asks for, and tells how it is; for most of the arguments see `Reloading`.

    From now on, in the main thread only, SIGHUP is its own; what comes before it is started is done then. When all that
    is done, `afterwards` is called with the configuration that is in force then.
    """
    thread = Unwaited(reactor, "reload")
    reload = Reloading(thread, keys, running, read, live=live, certificates=certificates, reopen_logs=reopen_log_files)

    async def hung_up() -> None:
        readiness.reloading()
        try:
            await reload()
            await afterwards(reload.running)
        finally:
            readiness.reloaded()

    on_hangup = OnHangup(reactor, hung_up)
    on_hangup.take_over()
    return InOrder([thread, on_hangup, service, readiness])
