"""A collector and its doors, put together for a process of its own: in one process, or as the parent of workers."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from twisted.application.service import IService
from twisted.internet import defer
from twisted.logger import globalLogPublisher

from axcollector.clock_steps import ClockSteps
from axcollector.collector import Collector
from axcollector.config import KEYS, Config
from axcollector.core.status import Check, Status
from axcollector.core.traffic import Traffic
from axcollector.delivering import Delivering
from axcollector.disk import Disk
from axcollector.listening import Listeners, absolute_endpoint, certificates_of, endpoints_of, inherited_socket
from axcollector.on_stop import OnStop
from axcollector.premises import Premises
from axcollector.reloading import Live
from axcollector.services import InOrder, WorkThread
from axcollector.tls import Certificates
from axcollector.workers.cores import available
from axcollector.workers.crew import Workers
from axcollector.workers.inheritance import OF_WORKERS, worker_count

if TYPE_CHECKING:
    from axcollector.admin.access import AdminToken
    from axcollector.admin.configuration import InForce


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

    def retry_failed(self, bucket: str | None = None) -> "defer.Deferred[int]":
        """As `Collector.retry_failed`."""
        ...

    def drain(self) -> None:
        """As `Collector.drain`."""
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
    count = worker_count(config.workers, len(available()))
    return _in_processes(reactor, config, count) if count > 1 else _in_one(reactor, replace(config, workers=1))


def _in_one(reactor: Any, config: Config) -> Whole:  # noqa: ANN401 - as above
    # Importing klein installs a reactor, and it is the launcher's to choose one.
    from axcollector.doors import ingest_site  # noqa: PLC0415 - as above

    collector = Collector(reactor, config)
    ingest = ingest_site(reactor, config, collector)
    admin = _admin(reactor, config, collector)
    listeners = (admin.listeners, Listeners("listen", endpoints_of(reactor, "listen", config.listen), ingest))
    clock_steps = ClockSteps(reactor, time.time, time.monotonic)
    answers_taken = OnStop(lambda: defer.ensureDeferred(ingest.answers_taken()))
    ingesting = (OnStop(ingest.close_idle), listeners[1])
    service = InOrder([clock_steps, admin.events, answers_taken, collector, *admin.services, *ingesting])

    def apply(new: Config) -> None:
        ingest.request_timeout_seconds = new.request_timeout

    async def nothing(_: Config) -> None:
        pass

    certificates = [each for listener in listeners for each in listener.certificates]
    live = _live(admin, frozenset({"request_timeout"}), apply)
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
    admin = _admin(reactor, config, delivering)
    clock_steps = ClockSteps(reactor, time.time, time.monotonic)
    service = InOrder([clock_steps, admin.events, delivering, *admin.services])
    shown = certificates_of(endpoints_of(reactor, "listen", config.listen))
    live = _live(admin, OF_WORKERS, lambda _: None)
    certificates = [*admin.listeners.certificates, *shown]
    return Whole(service, delivering, [admin.listeners], certificates, live, workers.replace)


@dataclass(frozen=True, slots=True)
class _Admin:
    """The admin port.

    Attributes:
        token: Whose token it asks for.
        in_force: The configuration that it shows.
        events: Keeps what is logged; to be started before what it is to hear of.
        listeners: What listens.
        services: That, behind what it needs; to be started when the collector is.
    """

    token: "AdminToken"
    in_force: "InForce"
    events: IService
    listeners: Listeners
    services: Sequence[IService]


def _admin(reactor: Any, config: Config, collector: Subject) -> _Admin:  # noqa: ANN401 - as above
    """What tells of a collector, and can be asked of it."""
    from axcollector.admin.access import AdminSite, AdminToken, GuardedResource, read_token  # noqa: PLC0415 - see `_in_one`
    from axcollector.admin.actions import add_actions  # noqa: PLC0415 - likewise
    from axcollector.admin.configuration import InForce, add_configuration  # noqa: PLC0415 - likewise
    from axcollector.admin.events import Events, add_events  # noqa: PLC0415 - likewise
    from axcollector.admin.health import HealthAPI  # noqa: PLC0415 - likewise
    from axcollector.admin.history import History, add_history, sampling  # noqa: PLC0415 - likewise
    from axcollector.admin.metrics import add_metrics  # noqa: PLC0415 - likewise
    from axcollector.admin.page import add_page  # noqa: PLC0415 - likewise
    from axcollector.admin.quarantined import add_quarantine  # noqa: PLC0415 - likewise
    from axcollector.admin.site import AdminResource  # noqa: PLC0415 - likewise
    from axcollector.admin.status import add_status  # noqa: PLC0415 - likewise

    token = AdminToken(read_token(config.admin_token, config.admin_token_file))
    api = HealthAPI(collector, token.allows)
    add_status(api.app, collector, reactor)
    add_metrics(api.app, collector)
    history, events, in_force = History(), Events(globalLogPublisher), InForce(KEYS, config)
    thread = WorkThread(reactor, "admin")
    add_page(api.app)
    add_history(api.app, history)
    add_events(api.app, events)
    add_configuration(api.app, in_force)
    add_quarantine(api.app, thread, config.data_directory)
    add_actions(api.app, collector)
    pages = AdminSite(GuardedResource(AdminResource(api.app, token), token), reactor)
    listeners = Listeners("admin_listen", endpoints_of(reactor, "admin_listen", [config.admin_listen]), pages)
    return _Admin(token, in_force, events, listeners, [thread, sampling(reactor, collector, history), listeners])


def _live(admin: _Admin, names: frozenset[str], apply: Callable[[Config], None]) -> Live[Config]:
    """What can be exchanged: the token of the admin port, and some keys, with what puts them in force."""
    from axcollector.admin.access import read_token  # noqa: PLC0415 - see `_in_one`

    def prepare(config: Config) -> Callable[[], None]:
        new_token = read_token(config.admin_token, config.admin_token_file)

        def use() -> None:
            admin.token.use(new_token)
            admin.in_force.use(config)
            apply(config)

        return use

    return Live(names | {"admin_token", "admin_token_file"}, prepare)
