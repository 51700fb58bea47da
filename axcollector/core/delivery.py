"""How delivery is going, as values: what waits, what has happened so far, who is waited for."""

from dataclasses import dataclass, field

from axcollector.core.retry import Pause

PAUSES_TOLD = 100
"""Of so many pauses each is told: there may be 10,000, and they are asked for every two seconds."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits on disk.

    A bucket's files and bytes are counted when it is looked into, once, in the background: after a start with a very
    long backlog that takes a while.

    Attributes:
        buckets: Buckets in staging.
        files: Files in those of them that were looked into.
        bytes: The bytes of these.
        unmeasured_buckets: Buckets in staging that were not looked into yet.
        failed_buckets: Buckets in failed.
        oldest_start: The start of the oldest bucket in staging, as the last sweep found it, in seconds since the
            epoch; None where there is none.
    """

    buckets: int = 0
    files: int = 0
    bytes: int = 0
    unmeasured_buckets: int = 0
    failed_buckets: int = 0
    oldest_start: int | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """What has happened since the start.

    Attributes:
        delivered_files: Files that the store has.
        delivered_bytes: Their bytes.
        failed_tries: Uploads that failed and are attempts of their buckets (one a sweep).
        paused_tries: Uploads that ended because an authority was unavailable; no attempts.
        vanished_files: Files that were gone when it came to deliver them.
        broken_off: Uploads that were broken off by a stop; no attempts.
        given_up_buckets: Buckets moved to failed.
        returned_buckets: Buckets brought back from failed.
        delivered_records: The records in the files that the store has.
    """

    delivered_files: int = 0
    delivered_bytes: int = 0
    failed_tries: int = 0
    paused_tries: int = 0
    vanished_files: int = 0
    broken_off: int = 0
    given_up_buckets: int = 0
    returned_buckets: int = 0
    delivered_records: int = 0


@dataclass(frozen=True, slots=True)
class UploaderStatus:
    """How delivery is going.

    Attributes:
        backlog: What waits.
        oldest_age_seconds: How long ago the interval of the oldest bucket in staging began; None where there is none.
        in_flight: Files under way now.
        paused: Who is waited for: until when, and why; `PAUSES_TOLD` of them.
        paused_count: How many they are: each tenant at a signer may be one.
        paused_until: Until when the longest pause lasts; None where there is none.
        counts: What has happened since the start.
    """

    backlog: Backlog = field(default_factory=Backlog)
    oldest_age_seconds: float | None = None
    in_flight: int = 0
    paused: tuple[Pause, ...] = ()
    paused_count: int = 0
    paused_until: float | None = None
    counts: Counts = field(default_factory=Counts)
