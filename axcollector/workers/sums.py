"""What all workers have done together, those that have ended included."""

from collections.abc import Sequence

from axcollector.core.status import CatalogStatus, JobStatus, WorkerStatus
from axcollector.core.tally import Tally, total
from axcollector.core.traffic import Traffic
from axcollector.services import Job
from axcollector.upstream import Account
from axcollector.workers.process import WorkerProcess


class Sums:
    """Adds up what workers say. Of one that was killed its last quarter of a second is missing.

    Attributes:
        traffic: What tenants have sent.
    """

    def __init__(self) -> None:
        """Nobody has said anything."""
        self._ended = Tally().ingest()
        self._ended_jobs: dict[str, JobStatus] = {}
        self.traffic = Traffic()

    def ended(self, process: WorkerProcess) -> None:
        """A worker says nothing any more: what it has said last stays a part of the sums."""
        if process.standing is not None and process.standing.ingest is not None:
            self._ended = total([process.standing.ingest], self._ended)
        self._ended_jobs = {job.name: job for job in self.jobs([process])}

    def account(self, processes: Sequence[WorkerProcess], *jobs: Job) -> Account:
        """What they have done, and have to do, beside the parent's own jobs; of the catalogs the oldest is told."""
        said = [each.standing for each in processes if each.standing is not None]
        catalogs = [each.catalog for each in said if each.catalog is not None]
        return Account(
            total([each.ingest for each in said if each.ingest is not None], self._ended),
            min(catalogs, key=lambda each: each.changed_at or 0.0, default=CatalogStatus(source="")),
            [*jobs, *self.jobs(processes)],
            [
                WorkerStatus(each.number, each.transport.pid if each.transport else None, each.is_ready)
                for each in processes
            ],
        )

    def jobs(self, processes: Sequence[WorkerProcess]) -> Sequence[JobStatus]:
        """How often the periodic work of workers has failed; they do not say how often it ran."""
        jobs = dict(self._ended_jobs)
        for process in processes:
            for name, (failures, reason) in (process.standing.failures if process.standing else {}).items():
                before = jobs.get(name, JobStatus(name))
                jobs[name] = JobStatus(name, before.runs, before.failures + failures, reason or before.reason)
        return list(jobs.values())
