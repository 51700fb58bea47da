"""How delivery is going: counters and the backlog, as one value that events turn into the next."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from axcollector.core.retry import Pause
from axcollector.core.schedule import StagedFile


@dataclass(frozen=True, slots=True)
class UploaderStatus:
    """How delivery is going.

    Attributes:
        delivered_files: Files delivered since the start.
        delivered_bytes: Their bytes.
        failed_tries: Uploads that failed, pauses not counted.
        given_up_buckets: Buckets moved to failed.
        in_flight: Files under way now.
        backlog_files: Files that the last sweep found in staging.
        backlog_bytes: Their bytes.
        oldest_start: The start of the oldest bucket among them, in seconds since the epoch; None where there is none.
        paused: Who is waited for.
    """

    delivered_files: int = 0
    delivered_bytes: int = 0
    failed_tries: int = 0
    given_up_buckets: int = 0
    in_flight: int = 0
    backlog_files: int = 0
    backlog_bytes: int = 0
    oldest_start: int | None = None
    paused: tuple[Pause, ...] = ()

    def swept(self, files: Sequence[StagedFile]) -> Self:
        """A sweep has found these, oldest first."""
        return replace(
            self,
            backlog_files=len(files),
            backlog_bytes=sum(file.size for file in files),
            oldest_start=files[0].start if files else None,
        )

    def delivered(self, size: int) -> Self:
        """A file of this size has been delivered."""
        return replace(self, delivered_files=self.delivered_files + 1, delivered_bytes=self.delivered_bytes + size)

    def failed(self) -> Self:
        """An upload has failed."""
        return replace(self, failed_tries=self.failed_tries + 1)

    def given_up(self) -> Self:
        """A bucket has been moved to failed."""
        return replace(self, given_up_buckets=self.given_up_buckets + 1)
