"""A collector and its doors, put together for a process of its own: in one process, or as the parent of workers."""

import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from twisted.application.service import IService
from twisted.internet import defer

from axcollector.clock_steps import ClockSteps
from axcollector.collector import Collector
from axcollector.config import Config
from axcollector.core.status import Check, Status
from axcollector.core.traffic import Traffic
from axcollector.delivering import Delivering
from axcollector.disk import Disk
from axcollector.listening import Listeners, absolute_endpoint, certificates_of, endpoints_of, inherited_socket
from axcollector.on_stop import OnStop
from axcollector.premises import Premises
from axcollector.reloading import Live
from axcollector.services import InOrder
from axcollector.tls import Certificates
from axcollector.workers.crew import Workers
from axcollector.workers.inheritance import OF_WORKERS, worker_count

if TYPE_CHECKING:
    from axcollector.admin.access import AdminToken


class Subject(Protocol):
    """Of whom the admin port tells."""

    def problems(self) -> Mapping[str, str | None]:
        """What keeps it from being ready, by check; None where all is well."""
        ...

    def checks(self) -> Mapping[str, Check]:
        """Everything that should be well, by name."""
        ...

    def status(self) -> Status:
        """All that it says of itself."""
        ...

    @property
    def traffic(self) -> Traffic:
        """What tenants have sent."""
        ...


@dataclass(frozen=True, slots=True)
class Whole:
    """A collector and its doors.

    Attributes:
        service: All of it.
        collector: The collector, or the parent's half of it.
        listeners: What listens in this process.
        certificates: What clients are shown.
        live: What of the configuration can be exchanged while it runs.
        afterwards: What is to be done when it has been exchanged, given what is in force then.
    """

    service: InOrder
    collector: Subject
    listeners: Sequence[Listeners]
    certificates: Sequence[Certificates]
    live: Live[Config]
    afterwards: Callable[[Config], Awaitable[object]]

    def problem(self) -> str | None:
        """Why no request would be taken; None: it would, as far as the process itself is concerned."""
        return self.collector.problems()["catalog"]


def make_service(reactor: Any, config: Config) -> IService:  # noqa: ANN401 - it provides what every Twisted reactor does
    """A collector and its doors, for a process that looks after signals itself. Starts nothing yet.

    Raises:
        ConfigError: An endpoint cannot be made.
    """
    service: IService = assemble(reactor, config).service
    return service


def assemble(reactor: Any, config: Config) -> Whole:  # noqa: ANN401 - as above
    """A collector and its doors: what takes records, and what tells of its health. Starts nothing yet.

    Raises:
        ConfigError: An endpoint cannot be made, or the admin token not be read.
    """
    count = worker_count(config.workers, len(os.sched_getaffinity(0)))
    return _in_processes(reactor, config, count) if count > 1 else _in_one(reactor, replace(config, workers=1))


def _in_one(reactor: Any, config: Config) -> Whole:  # noqa: ANN401 - as above
    # Importing klein installs a reactor, and it is the launcher's to choose one.
    from axcollector.doors import ingest_site  # noqa: PLC0415

    collector = Collector(reactor, config)
    ingest = ingest_site(reactor, config, collector)
    token, admin = _admin(reactor, config, collector)
    listeners = (admin, Listeners("listen", endpoints_of(reactor, "listen", config.listen), ingest))
    clock_steps = ClockSteps(reactor, time.time, time.monotonic)
    answers_taken = OnStop(lambda: defer.ensureDeferred(ingest.answers_taken()))
    service = InOrder([clock_steps, answers_taken, collector, admin, OnStop(ingest.close_idle), listeners[1]])

    def apply(new: Config) -> None:
        ingest.request_timeout_seconds = new.request_timeout

    async def nothing(_: Config) -> None:
        pass

    certificates = [each for listener in listeners for each in listener.certificates]
    live = _live(token, frozenset({"request_timeout"}), apply)
    return Whole(service, collector, listeners, certificates, live, nothing)


def _in_processes(reactor: Any, config: Config, count: int) -> Whole:  # noqa: ANN401 - as above
    """The parent of worker processes: it delivers what they take, and tells of their health."""
    disk = Disk()
    premises = Premises(disk, config.local_storage_path, config.data_directory, shared=True)
    # Workers may be started in another directory than this, and read certificates then.
    config = replace(config, listen=[absolute_endpoint(each) for each in config.listen])
    inherited = partial(inherited_socket, reactor, "listen")
    workers = Workers(reactor, config, disk, count, premises.workers_lock, inherited)
    delivering = Delivering(reactor, config, disk, premises, workers)
    token, admin = _admin(reactor, config, delivering)
    service = InOrder([ClockSteps(reactor, time.time, time.monotonic), delivering, admin])
    shown = certificates_of(endpoints_of(reactor, "listen", config.listen))
    live = _live(token, OF_WORKERS, lambda _: None)
    return Whole(service, delivering, [admin], [*admin.certificates, *shown], live, workers.replace)


def _admin(reactor: Any, config: Config, collector: Subject) -> "tuple[AdminToken, Listeners]":  # noqa: ANN401 - as above
    """What tells of a collector's health, and whose token it asks for."""
    from axcollector.admin.access import AdminSite, AdminToken, GuardedResource, read_token  # noqa: PLC0415 - see `_in_one`
    from axcollector.admin.health import HealthAPI  # noqa: PLC0415 - likewise
    from axcollector.admin.metrics import add_metrics  # noqa: PLC0415 - likewise
    from axcollector.admin.status import add_status  # noqa: PLC0415 - likewise

    token = AdminToken(read_token(config.admin_token, config.admin_token_file))
    api = HealthAPI(collector, token.allows)
    add_status(api.app, collector, reactor)
    add_metrics(api.app, collector)
    pages = AdminSite(GuardedResource(api.resource(), token), reactor)
    return token, Listeners("admin_listen", endpoints_of(reactor, "admin_listen", [config.admin_listen]), pages)


def _live(token: "AdminToken", names: frozenset[str], apply: Callable[[Config], None]) -> Live[Config]:
    """What can be exchanged: the token of the admin port, and some keys, with what puts them in force."""
    from axcollector.admin.access import read_token  # noqa: PLC0415 - see `_in_one`

    def prepare(config: Config) -> Callable[[], None]:
        new_token = read_token(config.admin_token, config.admin_token_file)

        def use() -> None:
            token.use(new_token)
            apply(config)

        return use

    return Live(names | {"admin_token", "admin_token_file"}, prepare)
