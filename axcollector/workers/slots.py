"""Where one worker works, and when another is to follow it."""

from dataclasses import dataclass, field
from typing import Any, Final

from axcollector.core.retry import Backoff, Pace
from axcollector.workers.process import WorkerProcess

_BACKOFF: Final = Backoff(0.2, 30.0, 0.1)


@dataclass(slots=True)
class Slot:
    """Where one worker works.

    Attributes:
        index: Which of the sockets of each place are its.
        process: The worker, or None between two.
        retry: The start of the next one, if that is scheduled.
    """

    index: int
    process: WorkerProcess | None = None
    retry: Any = None
    pace: Pace = field(default_factory=lambda: Pace(_BACKOFF))
    started_at: float = 0.0

    def cancel_retry(self) -> None:
        """No worker is to follow, or none but the one that is there."""
        if self.retry is not None:
            self.retry.cancel()
            self.retry = None
