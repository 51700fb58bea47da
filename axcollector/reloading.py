"""What SIGHUP asks for: log files opened anew, the configuration read again, certificates read again.

Each of the three is done whatever becomes of the others. What blocks is done in a thread; what was read is then used
at once or not at all. A configuration is compared with the one in force, which is the one of the start with the values
since applied, so that what waits for the next start is named at each SIGHUP until then.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from twisted.logger import Logger

from axcollector.config_keys import Key
from axcollector.core.errors import ConfigError
from axcollector.services import Worker
from axcollector.tls import Certificates

C = TypeVar("C", bound=Any)


@dataclass(frozen=True, slots=True)
class Live(Generic[C]):
    """The values of a configuration that can be exchanged in a running process.

    Attributes:
        names: The keys.
        prepare: Given a configuration with new values of these keys, does what blocks and may fail with `ConfigError`,
            and returns what then puts them in force; called at each SIGHUP, because files may be named in it.
    """

    names: frozenset[str] = frozenset()
    prepare: Callable[[C], Callable[[], object]] = field(default=lambda _: lambda: None)


class Reloading(Generic[C]):
    """Does what SIGHUP asks for, when called.

    Attributes:
        running: The configuration in force.
    """

    _log = Logger()

    def __init__(
        self,
        worker: Worker,
        keys: Mapping[str, Key],
        running: C,
        read: Callable[[], C],
        *,
        live: Live[C],
        certificates: Sequence[Certificates],
        reopen_logs: Callable[[], Sequence[str]],
    ) -> None:
        """Do nothing yet.

        Args:
            worker: Whose thread does what blocks.
            keys: The keys of the configuration.
            running: The configuration that the process was started with.
            read: Reads it again and checks it; fails with `ConfigError`.
            live: What of it can be exchanged.
            certificates: What is read again.
            reopen_logs: Opens log files anew, and says which.
        """
        self._worker = worker
        self._keys = keys
        self.running = running
        self._read = read
        self._live = live
        self._certificates = certificates
        self._reopen_logs = reopen_logs

    async def __call__(self) -> None:
        """Do it all. What cannot be done is logged, in one line each."""
        await self._logs()
        await self._configuration()
        for each in self._certificates:
            await self._reload(each)

    async def _logs(self) -> None:
        try:
            reopened = await self._worker.run(self._reopen_logs)
        except OSError as exc:
            self._log.error(
                "SIGHUP: a log file cannot be opened anew: {path}: {problem}", path=exc.filename, problem=exc.strerror
            )
            return
        for path in reopened:
            self._log.info("SIGHUP: the log goes on in a new {path}", path=path)

    async def _configuration(self) -> None:
        try:
            found = await self._worker.run(self._read)
            wanted, names, waiting = self._compared(found)
            apply = await self._worker.run(self._live.prepare, wanted)
        except ConfigError as exc:
            self._log.error(
                "SIGHUP: the configuration cannot be used, and nothing of it is: {problem}", problem=str(exc)
            )
            return
        apply()
        self.running = wanted
        self._log.info(
            "SIGHUP: the configuration was read; changed and in force: {now}; changed, for the next start: {later}",
            now=", ".join(names) or "nothing",
            later=", ".join(waiting) or "nothing",
        )

    def _compared(self, found: C) -> tuple[C, list[str], list[str]]:
        """The configuration to be in force, and the keys that changed in it; those that wait for the next start."""
        changed = [name for name in self._keys if getattr(found, name) != getattr(self.running, name)]
        names = [name for name in changed if name in self._live.names]
        try:
            wanted = replace(self.running, **{name: getattr(found, name) for name in names})
        except ConfigError:  # they suit others that have changed too, but not those that are in force
            return self.running, [], changed
        return wanted, names, [name for name in changed if name not in names]

    async def _reload(self, certificates: Certificates) -> None:
        try:
            new = await self._worker.run(certificates.read)
        except ConfigError as exc:
            self._log.error(
                "SIGHUP: {name} goes on with the certificate it has: {problem}",
                name=certificates.name,
                problem=str(exc),
            )
            return
        certificates.use(new)
