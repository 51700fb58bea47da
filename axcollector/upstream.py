"""What the delivering half of a collector knows of whoever is upstream of it: stations of this process, or others."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from twisted.application.service import Service
from twisted.internet import defer

from axcollector.core.layout import JournalName
from axcollector.core.status import CatalogStatus, IngestStatus, WorkerStatus
from axcollector.core.traffic import Traffic
from axcollector.premises import Identity
from axcollector.quarantine import Quarantine
from axcollector.reserve import SplitReserve
from axcollector.room import Lack
from axcollector.services import Job
from axcollector.sync.events import Listener


@dataclass(frozen=True, slots=True)
class Account:
    """What whoever is upstream has done so far.

    Attributes:
        ingest: From requests to durable batches.
        catalog: What its catalog shows; the source is not its business.
        jobs: Its periodic work.
        workers: Its processes; none where it is a part of this one.
    """

    ingest: IngestStatus
    catalog: CatalogStatus
    jobs: Sequence[Job] = ()
    workers: Sequence[WorkerStatus] = ()


class Upstream(Service, ABC):
    """Takes batches and writes journals, from `startService`, which `prepare` comes before, until `close`.

    Attributes:
        sync: Is told snapshots and changes.
        traffic: What tenants have sent.
    """

    sync: Listener
    traffic: Traffic

    @abstractmethod
    def prepare(self, identity: Identity, room: Lack, reserve: SplitReserve, quarantine: Quarantine) -> None:
        """Make what could not be made before the data directory was ours.

        Args:
            identity: What journals have in their names.
            room: Knows whether there is room on disk.
            reserve: Keeps room for the splits of journals.
            quarantine: Knows whether there is room for records that are set aside.
        """

    @abstractmethod
    def finish_due(self) -> "defer.Deferred[None]":
        """As `closing.Journals.finish_due`."""

    @abstractmethod
    def is_abandoned(self, journal: JournalName) -> bool:
        """As `closing.Journals.is_abandoned`."""

    @abstractmethod
    def close(self) -> "defer.Deferred[None]":
        """As `closing.Journals.close`."""

    @abstractmethod
    def account(self) -> Account:
        """What it has done so far, and has to do."""

    @abstractmethod
    def problems(self) -> Mapping[str, str | None]:
        """What keeps it from being ready, by check (`catalog` and `spool` at least); None where all is well."""
