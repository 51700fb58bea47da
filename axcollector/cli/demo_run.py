"""A run of the demo: what happens in which order, and what it says."""

import contextlib
import json
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TextIO

import yaml
from twisted.internet import defer
from twisted.internet.task import deferLater

from axcollector.cli.demo_records import TENANTS, Client, Posting, call, posting, postings
from axcollector.cli.demo_sender import Sender
from axcollector.cli.demo_service import ADMIN_LISTEN, LISTEN, POLL_SECONDS, DemoFailed, ServiceProcess, until
from axcollector.cli.demo_store import Ledger
from axcollector.cli.progress import Progress
from axcollector.cli.scope import curl_line
from axcollector.config_file import load_config
from axcollector.disk import open_private
from axcollector.registry import Registry

DELIVERY_SECONDS: Final = 30.0
"""Far more than an interval, its closing and a sweep take; a busy machine may need it."""
READY_SECONDS: Final = 10.0
TRICKLE_SECONDS: Final = 0.5
TRICKLE_RECORDS: Final = 5

_SETTINGS: Final = {
    "listen": LISTEN,
    "admin_listen": ADMIN_LISTEN,
    "upload_interval": 1,
}
_DEVELOPERS: Final = (
    # Client id's end, product, app, developer, e-mail, company.
    ("1", "gold", "storefront", "ada", "ada@example.com", ""),
    ("2", "silver", "mobile", "grace", "grace@example.com", ""),
    ("3", "gold", "partner-feed", "", "", "Umbrella Logistics"),
)
_OK: Final = 200


@dataclass(frozen=True, slots=True)
class Plan:
    """What the demo is to do.

    Attributes:
        directory: An empty directory for everything it leaves.
        records: How many records it sends.
        keep_running: Whether it goes on, with a trickle of records, until it is interrupted.
        interval_seconds: How long an interval is, and `grace_seconds` how long after its end it is closed.
        delivery_seconds: So long after the last acknowledgement everything is to be delivered.
    """

    directory: str
    records: int
    keep_running: bool = False
    interval_seconds: int = 2
    grace_seconds: float = 1
    delivery_seconds: float = DELIVERY_SECONDS


class Demo:
    """One run.

    Attributes:
        ledger: What was sent and what was delivered.
    """

    def __init__(self, reactor: Any, plan: Plan, chance: random.Random, out: TextIO, err: TextIO) -> None:  # noqa: ANN401 - any reactor
        """Write the configuration; start nothing yet.

        Args:
            reactor: What runs it.
            plan: What to do.
            chance: What the records are drawn from.
            out: Where it says what it does and finds.
            err: Where progress is shown.
        """
        self._reactor = reactor
        self._plan = plan
        self._chance = chance
        self._out = out
        self._err = err
        path = os.path.join(plan.directory, "axcollector.yaml")
        write_settings(path, plan)
        self._config = load_config(path, {})
        self._service = ServiceProcess(reactor, path, os.path.join(plan.directory, "service.log"))
        self.ledger = Ledger(self._config.store_url.removeprefix("file:"))

    async def run(self) -> None:
        """All of it. Returns when the service has ended; may be cancelled at any moment.

        Raises:
            DemoFailed: Something did not go as it should.
        """
        clients = register(self._config.registry_file)
        try:
            await self._service.start()
            base_url = f"http://127.0.0.1:{self._service.ports.ingest}{self._config.base_path}"
            sender = Sender(self._reactor, base_url)
            try:
                await self._ready(sender)
                self._introduce(clients, base_url)
                await self._send(sender, clients)
                await self._delivery()
                if self._plan.keep_running:
                    await self._go_on(sender, clients)
            finally:
                await sender.close()
        except DemoFailed as exc:
            log, data = self._service.log_path, self._config.data_directory
            raise DemoFailed(f"{exc}; the service's log is {log}, its data is in {data}") from exc
        finally:
            await self._service.stop()

    async def _ready(self, sender: Sender) -> None:
        """The service would take a batch: it has read the registry."""
        url = f"http://127.0.0.1:{self._service.ports.admin}/readyz"
        deadline = self._reactor.seconds() + READY_SECONDS
        while await sender.status_of(url) != _OK:
            if self._reactor.seconds() >= deadline:
                raise DemoFailed(f"the service is not ready after {READY_SECONDS:g} s")
            await deferLater(self._reactor, POLL_SECONDS)

    def _introduce(self, clients: Sequence[Client], base_url: str) -> None:
        keys, seconds = sum(len(each.client_ids) for each in clients), self._plan.interval_seconds
        self._say(f"The service runs, as process {self._service.pid}, and takes records at {base_url}/SCOPE")
        self._say(f"Its registry has {len(clients)} tenants and {keys} keys; an interval is {seconds} s long.")

    async def _send(self, sender: Sender, clients: Sequence[Client]) -> None:
        """Send the records, made beforehand so that their making is not part of the rate."""
        prepared = list(postings(clients, self._plan.records, self._chance, self._reactor.seconds()))
        for each in prepared:
            self.ledger.expect(each)
        with Progress(self._err, "sent", self._plan.records, "records", self._reactor.seconds) as progress:

            def acknowledged(one: Posting) -> None:
                self.ledger.acknowledge(one)
                progress.advance(len(one.flow_ids))

            await sender.send_all(prepared, acknowledged)
        self._say(
            f"{progress.done:,} records in {len(prepared):,} requests, every other one gzip, acknowledged in"
            f" {progress.elapsed_seconds:.2f} s: {progress.rate:,.0f} records/s, each on disk before its 200."
        )

    async def _delivery(self) -> None:
        """Wait until everything that was acknowledged is in the store, and look at it."""
        ledger = self.ledger
        with Progress(
            self._err, "delivered", ledger.acknowledged, "records", self._reactor.seconds, with_rate=False
        ) as progress:

            def look() -> bool:
                self._service.check()
                progress.reach(ledger.look())
                return ledger.complete

            complete = await until(self._reactor, look, self._plan.delivery_seconds)
        if not complete or ledger.strays:
            raise DemoFailed(self._complaint())
        self._say(f"All {ledger.found:,} are delivered, each once, each to its tenant's files:")
        for tenant, count in sorted(ledger.records.items()):
            files = ledger.files[tenant]
            self._say(f"  {tenant:<20}{count:>8,} records in {files} file{'s' * (files != 1)}")
        self._say("\nOne of them, as delivered; from organization on, axcollector has added it:")
        self._say(json.dumps(ledger.sample, indent=2, ensure_ascii=not _takes_unicode(self._out)))
        store = self._config.store_url.removeprefix("file:")
        self._say(f"\nThe files:  {store}\nThe log:    {self._service.log_path}")

    def _complaint(self) -> str:
        ledger = self.ledger
        missing = ", ".join(f"{count:,} of {tenant}" for tenant, count in sorted(ledger.missing_by_tenant().items()))
        problems = [f"{ledger.found:,} of {ledger.acknowledged:,} records are delivered"]
        if missing:
            problems.append(f"missing are {missing}")
        if ledger.strays:
            problems.append(f"{ledger.strays:,} are there twice or with the wrong tenant")
        return "; ".join(problems)

    async def _go_on(self, sender: Sender, clients: Sequence[Client]) -> None:
        """Send a few records now and then. Returns when it is cancelled: that is how it is meant to end."""
        admin = f"http://127.0.0.1:{self._service.ports.admin}"
        line = curl_line(
            f"tcp:{self._service.ports.ingest}:interface=127.0.0.1", self._config.base_path, clients[0].scope
        )
        self._say(
            f"\nIt goes on with a few records a second; Ctrl-C ends it. Meanwhile:\n"
            f"  health       {admin}/healthz  {admin}/readyz\n"
            f"  send one     {line}"
        )
        with contextlib.suppress(defer.CancelledError):
            while True:
                self._service.check()
                client = self._chance.choice(clients)
                now = self._reactor.seconds()
                count = self._chance.randint(1, TRICKLE_RECORDS)
                records = [call(self._chance, now, client.client_ids) for _ in range(count)]
                await sender.send(posting(client, records, gzipped=False))
                await deferLater(self._reactor, TRICKLE_SECONDS)
        self._say("\nStopping.")

    def _say(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()


def write_settings(path: str, plan: Plan) -> None:
    """Write the configuration of the service that the demo runs."""
    settings = {
        "local_storage_path": os.path.join(plan.directory, "data"),
        **_SETTINGS,
        "collection_interval": plan.interval_seconds,
        "close_grace": plan.grace_seconds,
    }
    descriptor = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write("# Everything that is not said here is the default.\n")
        yaml.safe_dump(settings, file, allow_unicode=True, sort_keys=False)


def register(path: str) -> Sequence[Client]:
    """Put the tenants and their developers' keys into a registry, which is made. Who sends, then."""
    clients = []
    with Registry.create(path) as registry:
        for organization, environment in TENANTS:
            scope = registry.add_scope(organization, environment).id
            client_ids = tuple(f"{organization}-{environment}-{end}" for end, *_ in _DEVELOPERS)
            for client_id, (_, product, app, developer, email, company) in zip(client_ids, _DEVELOPERS, strict=True):
                registry.add_key(
                    scope, client_id, product=product, app=app, developer=developer, email=email, company=company
                )
            clients.append(Client(organization, environment, scope, client_ids))
    return clients


def _takes_unicode(stream: TextIO) -> bool:
    return (stream.encoding or "").lower().replace("-", "") == "utf8"
