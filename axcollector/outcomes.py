"""What becomes of uploads, told: each outcome is one event in the log and is counted, here and nowhere else.

Every event of an upload carries `bucket`, `file`, `bytes`, `attempt` (which of its bucket's it is, or would have been)
and `delay`, in seconds: of a delivered file, since its interval began; of any other, until it is tried again at the
earliest. An authority that is paused is told once, and once when it works again; the uploads that run into the same
outage meanwhile, and the probes, are debug events.
"""

from collections import OrderedDict
from dataclasses import replace
from typing import Final

from twisted.logger import Logger, LogLevel

from axcollector.bugs import report
from axcollector.core.delivery import Counts
from axcollector.core.foreign import Told
from axcollector.core.layout import end_of_file
from axcollector.core.retry import Pause
from axcollector.core.schedule import StagedFile
from axcollector.core.tally import Ranges

UPLOAD_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_MOST_REASONS: Final = 2000
"""Of so many buckets it is remembered why they failed."""


class Outcomes:
    """Logs and counts.

    Attributes:
        counts: What has happened so far.
        upload_seconds: How long the uploads of delivered files took.
        lag_seconds: How long after the end of its interval the last delivered file was; None before the first.
        delivered_at: When that was.
        moved_at: When the last upload ended, however; or when one began while none was under way; or when it was last
            seen that nothing waits.
        trouble: Why the last upload that ended did not deliver its file; "" where it did; None before the first.
        trouble_at: Since when none did.
    """

    _log = Logger()

    def __init__(self, max_attempts: int, interval_seconds: float) -> None:
        """Begin at nothing.

        Args:
            max_attempts: After how many failed attempts a bucket goes to failed.
            interval_seconds: From one sweep to the next.
        """
        self._max_attempts = max_attempts
        self._interval = interval_seconds
        self.counts = Counts()
        self.upload_seconds = Ranges(UPLOAD_SECONDS)
        self.lag_seconds: float | None = None
        self.delivered_at: float | None = None
        self.moved_at = self.trouble_at = 0.0
        self.trouble: str | None = None
        self._reasons: OrderedDict[str, str] = OrderedDict()

    def reason_of(self, bucket: str) -> str:
        """Why a bucket's last attempt failed; "" where that is not known any more."""
        return self._reasons.get(bucket, "")

    def begun(self, now: float, *, alone: bool) -> float:
        """An upload begins, alone or beside others; when it did."""
        if alone:
            self.moved_at = now
        return now

    def _note_trouble(self, reason: str, now: float) -> None:
        self.moved_at = now
        if not self.trouble:
            self.trouble_at = now
        self.trouble = reason

    def delivered(self, file: StagedFile, attempt: int, seconds: float, now: float, records: int = 0) -> None:
        """The store has it, after so many seconds, and it is deleted here."""
        counts = self.counts
        self.counts = replace(
            counts,
            delivered_files=counts.delivered_files + 1,
            delivered_bytes=counts.delivered_bytes + file.size,
            delivered_records=counts.delivered_records + records,
        )
        self.upload_seconds.add(max(0.0, seconds))
        self.lag_seconds = max(0.0, now - end_of_file(file.name, file.start))
        self.delivered_at = self.moved_at = now
        self.trouble = ""
        self._log.info(
            "delivered {bucket}/{file}: {bytes} bytes, attempt {attempt}, {seconds:.3f} s,"
            " {delay:.0f} s after its interval began",
            bucket=file.bucket,
            file=file.name,
            bytes=file.size,
            attempt=attempt,
            seconds=seconds,
            delay=max(0.0, now - file.start),
        )

    def failed(self, file: StagedFile, reason: str, attempt: int, now: float) -> None:
        """It was not delivered, which is an attempt of its bucket."""
        self.counts = replace(self.counts, failed_tries=self.counts.failed_tries + 1)
        self._note_trouble(reason, now)
        self._reasons[file.bucket] = reason
        self._reasons.move_to_end(file.bucket)
        if len(self._reasons) > _MOST_REASONS:
            self._reasons.popitem(last=False)
        is_last = attempt >= self._max_attempts
        self._log.warn(
            "{bucket}/{file} was not delivered: {reason}; {bytes} bytes, attempt {attempt} of {attempts}, then {then}",
            bucket=file.bucket,
            file=file.name,
            reason=reason,
            bytes=file.size,
            attempt=attempt,
            attempts=self._max_attempts,
            delay=self._interval,
            then="its bucket goes to failed" if is_last else "the next sweep tries again",
        )

    def paused(self, file: StagedFile, pause: Pause, attempt: int, now: float, *, is_new: bool) -> None:
        """It was not delivered, because an authority is unavailable, which is no attempt."""
        self.counts = replace(self.counts, paused_tries=self.counts.paused_tries + 1)
        self._note_trouble(f"{pause.authority} is paused: {pause.reason}", now)
        self._log.emit(
            LogLevel.warn if is_new else LogLevel.debug,
            "{authority} is paused for {delay:.1f} s: {reason}; its files wait, no attempt is counted",
            authority=pause.authority,
            reason=pause.reason,
            bucket=file.bucket,
            file=file.name,
            bytes=file.size,
            attempt=attempt,
            delay=max(0.0, pause.until - now),
        )

    def works_again(self, authority: str) -> None:
        """An authority that was paused has done its part of an upload."""
        self._log.info("{authority} works again", authority=authority)

    def broken_off(self, file: StagedFile, attempt: int) -> None:
        """Its upload was broken off, because the service stops."""
        self.counts = replace(self.counts, broken_off=self.counts.broken_off + 1)
        self._log.debug(
            "the upload of {bucket}/{file} was broken off: {bytes} bytes, attempt {attempt}",
            bucket=file.bucket,
            file=file.name,
            bytes=file.size,
            attempt=attempt,
            delay=self._interval,
        )

    def vanished(self, file: StagedFile, attempt: int) -> None:
        """It was gone when it came to deliver it, which is nobody's fault."""
        self.counts = replace(self.counts, vanished_files=self.counts.vanished_files + 1)
        self._log.info(
            "{bucket}/{file} vanished before it was delivered",
            bucket=file.bucket,
            file=file.name,
            bytes=file.size,
            attempt=attempt,
            delay=0.0,
        )

    def met_a_bug(self, file: StagedFile) -> None:
        """What is being handled is a bug in a store."""
        report(self._log, "uploading {bucket}/{file} met a bug", bucket=file.bucket, file=file.name)

    def given_up(self, bucket: str, attempts: int) -> None:
        """A bucket was moved to failed."""
        self.counts = replace(self.counts, given_up_buckets=self.counts.given_up_buckets + 1)
        self._log.error("{bucket} moved to failed after {attempts} attempts", bucket=bucket, attempts=attempts)

    def returned(self, buckets: int) -> None:
        """Buckets of failed were moved back to staging."""
        self.counts = replace(self.counts, returned_buckets=self.counts.returned_buckets + buckets)
        self._log.info("{buckets} buckets of failed get another chance", buckets=buckets)

    def left_alone(self, foreign: tuple[Told, ...]) -> None:
        """Things are in the way."""
        for what, why in foreign:
            self._log.warn("{what} is left alone: {why}", what=what, why=why)

    def disk_failed(self, what: str, exc: OSError) -> None:
        """Something could not be done on disk; it is tried again."""
        self._log.error("{what}: {reason}", what=what, reason=exc.strerror)
