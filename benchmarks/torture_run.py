"""A run of the torture: its parts put together, its rounds, the last delivery, the judgement and the figures."""

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from axcollector.registry import Registry
from benchmarks.torture_clients import TENANTS, Client, Target
from benchmarks.torture_ledger import FINDINGS, Findings, Ledger, Tenant, reconcile
from benchmarks.torture_rounds import End, Rounds, plan
from benchmarks.torture_service import Service, TortureFailed
from benchmarks.torture_store import TOKEN, Store

Show = Callable[[int, int, float], None]
"""Is told after each round how many are done, how many batches were acknowledged, and how many seconds it took."""


class Torture:
    """A run.

    Attributes:
        findings: What was found to be wrong.
    """

    def __init__(
        self,
        directory: str,
        *,
        rounds: int,
        seed: int,
        clients: int,
        durability: str,
        timeout_seconds: float,
        workers: int = 1,
    ) -> None:
        """Prepare everything; start nothing yet. `directory` is there and empty."""
        self._rounds = rounds
        self._seed = seed
        self._durability = durability
        self._timeout = timeout_seconds
        self._begun = time.monotonic()
        self._store = Store(os.path.join(directory, "objects"), random.Random(f"{seed}/store"))
        self._workers = workers
        settings = {"uap_server_base": self._store.url, "bearer_token": TOKEN, "durability": durability}
        self._service = Service(directory, {**settings, "workers": workers})
        self._target = Target()
        scopes = _register(self._service.storage)
        self._clients = [Client(index, seed, scopes, self._target) for index in range(clients)]
        self._carried_out = Rounds(self._service, self._store, self._target, timeout_seconds, seed)
        self._records = 0
        self.findings = Findings()

    def run(self, show: Show) -> None:
        """All of it. May be interrupted at any moment; nothing is left running then either."""
        try:
            self._store.start()
            for client in self._clients:
                client.start()
            self._torture(show)
            self._end_clients()
            self._drain()
        except TortureFailed as exc:
            self.findings.add("failed", str(exc))
        finally:
            self._service.kill()
            self._end_clients()
            self._store.stop()
        self._judge()

    def _torture(self, show: Show) -> None:
        chance = random.Random(f"{self._seed}/rounds")
        for number in range(self._rounds):
            self._carried_out.run(plan(chance, self._workers))
            show(number + 1, sum(client.outcomes["200"] for client in self._clients), self._seconds())

    def _end_clients(self) -> None:
        for client in self._clients:
            client.end()
        for client in self._clients:
            if client.is_alive():
                client.join(self._timeout)

    def _drain(self) -> None:
        """Let the service deliver what is left, and stop it.

        Raises:
            TortureFailed: It did not.
        """
        self._store.behave = True
        self._service.start()
        self._service.wait_ready(self._timeout)
        # Each round may leave a bucket a tenant, and more where the store was unavailable.
        limit = self._timeout + self._rounds
        looks = 0

        def drained() -> bool:
            nonlocal looks
            looks = 0 if self._service.left() else looks + 1
            return looks > 1

        if not self._service.watch(drained, limit):
            raise TortureFailed(f"not delivered within {limit:g} s: {dict(self._service.left())}")
        if not self._service.terminate(self._timeout):
            raise TortureFailed(f"the service goes on {self._timeout:g} s after SIGTERM; see {self._service.log_path}")
        if self._service.left():
            raise TortureFailed(f"left behind by the last stop: {dict(self._service.left())}")
        self._service.check_orphans(0)

    def _judge(self) -> None:
        ledger = self._ledger
        judged = reconcile(ledger, self._store.objects())
        self._records = ledger.records
        self.findings.counts.update(judged.counts)
        self.findings.examples.update(judged.examples)
        for changed in self._store.changed:
            self.findings.add("failed", f"a key was put again with other content: {changed}")
        for client in self._clients:
            for answer in client.unexpected:
                self.findings.add("failed", f"a valid batch was answered so: {answer}")
            if client.problem is not None:
                self.findings.add("failed", f"{client.name} ended early: {client.problem!r}")
        if self._service.tracebacks():
            self.findings.add("failed", f"{self._service.tracebacks()} tracebacks in {self._service.log_path}")

    @property
    def _ledger(self) -> Ledger:
        return Ledger([client.sent for client in self._clients])

    def _seconds(self) -> float:
        return time.monotonic() - self._begun

    def results(self) -> dict[str, Any]:
        """Everything that was counted."""
        ends = self._carried_out.ends
        return {
            "seed": self._seed,
            "durability": self._durability,
            "workers": self._workers,
            "rounds": sum(ends.values()),
            "killed": sum(ends.values()) - ends[End.ORDERLY],
            "tried": self._ledger.tried,
            "acknowledged": self._ledger.acknowledged,
            "records_acknowledged": self._records,
            **{kind: self.findings.counts[kind] for kind in (*FINDINGS, "failed")},
            "seconds": round(self._seconds(), 1),
            "objects": len(self._store),
            "journals_put_away": self._service.put_away(),
            "ends": dict(ends),
            "victims": dict(self._carried_out.victims),
            "left_after_an_end": dict(self._carried_out.left),
            "answers": dict(sum((client.outcomes for client in self._clients), Counter())),
            "store": dict(self._store.tally),
            "examples": self.findings.examples,
        }


def _register(storage: str) -> dict[Tenant, str]:
    """Make the registry: the scope of each tenant."""
    os.mkdir(storage, 0o700)
    with Registry.create(os.path.join(storage, "registry.db")) as registry:
        return {tenant: registry.add_scope(*tenant).id for tenant in TENANTS}


def summary(results: dict[str, Any]) -> str:
    """The one line that says it all."""
    victims = results["victims"]
    hit = f" ({', '.join(f'{whom}: {victims[whom]}' for whom in sorted(victims))})" if victims else ""
    wrong = ", ".join(f"{results[kind]:,} {kind}" for kind in (*FINDINGS, "failed"))
    return (
        f"torture: seed {results['seed']}, {results['rounds']} rounds, {results['killed']} of them SIGKILL{hit};"
        f" {results['tried']:,} batches tried, {results['acknowledged']:,} acknowledged"
        f" ({results['records_acknowledged']:,} records): {wrong}; {results['seconds']:.1f} s"
    )
