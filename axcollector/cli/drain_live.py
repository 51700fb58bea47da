"""Draining a collector that runs: it is asked to, and watched until nothing is left, or nothing happens any more."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from axcollector.cli.admin_client import AdminClient
from axcollector.cli.progress import Progress
from axcollector.core.layout import QUARANTINE
from axcollector.core.status import Status

LOOK_SECONDS: Final = 1.0
SETTLED_SECONDS: Final = 5.0
"""So long nothing has to be left: a collector looks at its stages every two seconds, and a file may be between two."""
_COMING_IN: Final = "records are still coming in: take this collector out of the load balancer, or stop its clients"


@dataclass(frozen=True, slots=True)
class Drained:
    """How draining has ended.

    Attributes:
        is_live: Whether a collector that runs did it.
        delivered_files: So many files were delivered meanwhile.
        delivered_bytes: Their bytes.
        left: How many buckets or journals are left, by stage; stages that hold nothing are left out.
        problems: Why, as far as it is known.
    """

    is_live: bool
    delivered_files: int
    delivered_bytes: int
    left: Mapping[str, int]
    problems: Sequence[str] = field(default_factory=list)


class LiveDrain:
    """Has one collector drained."""

    def __init__(
        self,
        client: AdminClient,
        patience_seconds: float,
        seconds: Callable[[], float],
        wait: Callable[[float], object],
        progress: Progress,
    ) -> None:
        """Ask nothing yet.

        Args:
            client: Asks the collector.
            patience_seconds: It is given up when nothing happens for so long.
            seconds: Tells the time.
            wait: Waits so many seconds.
            progress: Is told how many bytes there are, and are delivered.
        """
        self._client = client
        self._patience = patience_seconds
        self._seconds = seconds
        self._wait = wait
        self._progress = progress

    def run(self) -> Drained:
        """Do it; returns when nothing is left, or when nothing has happened for too long.

        Raises:
            CommandFailed: The collector does not answer, or refuses.
        """
        first = self._client.get("/status", Status)
        self._client.post("/retry", {"all": True}, "retry", msgspec.Raw)
        self._client.post("/drain", {}, "drain", msgspec.Raw)
        since = empty_since = self._seconds()
        before, is_told = first, False
        while True:
            status = self._client.get("/status", Status)
            self._show(first, status)
            if not is_told and status.ingest.accepted_records > first.ingest.accepted_records:
                self._progress.note(_COMING_IN)
                is_told = True
            if status.delivery.under_way or _signature(status) != _signature(before):
                since, before = self._seconds(), status
            left = _left(status)
            if left or status.delivery.under_way:
                empty_since = self._seconds()
            is_settled = self._seconds() - empty_since >= SETTLED_SECONDS
            if is_settled or self._seconds() - since >= self._patience:
                return _drained(first, status, left)
            self._wait(LOOK_SECONDS)

    def _show(self, first: Status, status: Status) -> None:
        done = status.delivery.delivered_bytes - first.delivery.delivered_bytes
        self._progress.expect(done + sum(stage.bytes for stage in status.stages if stage.name != QUARANTINE))
        self._progress.reach(done)


def _left(status: Status) -> dict[str, int]:
    return {stage.name: stage.buckets for stage in status.stages if stage.buckets and stage.name != QUARANTINE}


def _signature(status: Status) -> object:
    """What changes as long as something happens."""
    return status.delivery.delivered_files, [(stage.name, stage.buckets, stage.bytes) for stage in status.stages]


def _drained(first: Status, status: Status, left: dict[str, int]) -> Drained:
    delivery = status.delivery
    problems = [f"{each.authority} is paused: {each.reason}" for each in delivery.paused]
    problems += [f"{each.bucket}: {each.reason}" for each in delivery.failed[:3] if each.reason]
    for stage in status.stages:
        if stage.name == QUARANTINE and stage.buckets:
            left[QUARANTINE] = stage.buckets
    return Drained(
        is_live=True,
        delivered_files=delivery.delivered_files - first.delivery.delivered_files,
        delivered_bytes=delivery.delivered_bytes - first.delivery.delivered_bytes,
        left=left,
        problems=problems if left.keys() - {QUARANTINE} else [],
    )
