"""The splitter: turns finished journals into buckets in staging, and what a crash left likewise.

It is not told about work, it finds it: whatever lies in `tmp/` and is not locked by who writes it, or lies in
`recovered/`, is to be split or carried on. Blocking; runs in a work thread. The steps, and what a crash after each
leaves:

1. What an earlier, broken-off split left beside the journal is removed, and its removal made durable.
2. Each tenant's members are appended, as they are, to one file in `{journal}.split/{bucket}/`; files and directories
   are made durable. Until here the journal is the truth, and the split is done anew from its start.
3. The journal is deleted (or, where it is damaged, moved to `recovered/unreadable/`), durably. **This is the commit**:
   from here on the split is the truth, and is only carried on.
4. Each bucket is moved to `staging/`, and the empty split removed.

Records that were set aside go the same way, in `{journal}.split/quarantine/{bucket}/`, to `quarantine/`.

A repeated split writes the same names, so nothing is delivered under two. Members of one tenant that are small on
average are packed again into one, because a member costs some 20 bytes and its own dictionary.
"""

import contextlib
import os
from collections.abc import Callable

from twisted.logger import Logger

from axcollector.aside import put_aside
from axcollector.buckets import merge_buckets
from axcollector.core.layout import (
    JOURNAL_SUFFIX,
    QUARANTINE,
    JournalName,
    Stage,
)
from axcollector.courtesy import Courtesy, Haste
from axcollector.disk import Disk, ensure_within, remove_tree
from axcollector.members import Contents, Found, members_in
from axcollector.quarantine import Quarantine
from axcollector.record_counts import RecordCounts
from axcollector.reserve import SplitReserve
from axcollector.split_files import SplitFiles


class Splitter:
    """Splits what lies in one stage (`tmp` or `recovered`); each has an instance of its own.

    Attributes:
        salvaged: How many frames were taken out of journals with torn or damaged ones beside them.
    """

    _log = Logger()

    def __init__(
        self,
        disk: Disk,
        data_directory: str,
        stage: Stage,
        *,
        pack_all: bool,
        reserve: SplitReserve | None = None,
        quarantine: Quarantine | None = None,
        records: RecordCounts | None = None,
        courtesy: Callable[[], Courtesy] = Courtesy,
    ) -> None:
        """Prepare for one stage.

        Args:
            disk: The hands.
            data_directory: Where the stages are.
            stage: The one to work in.
            pack_all: Whether every file is packed again (`compression: small`).
            reserve: Is told when a journal needs no room any more.
            quarantine: Is told when what a journal held of it has come there.
            records: Is told how many records each file holds.
            courtesy: Makes what lets others go first, where a split is in no haste.
        """
        self._disk = disk
        self._data_directory = data_directory
        self._directory = os.path.join(data_directory, stage)
        self._staging = os.path.join(data_directory, Stage.STAGING)
        self._pack_all = pack_all
        self._reserve = reserve or SplitReserve(disk, data_directory)
        self._quarantine = quarantine or Quarantine(data_directory)
        self._reported: set[str] = set()
        self._records = records or RecordCounts(disk)
        self._courtesy = courtesy
        self._courteous = False
        self._pace: Courtesy = Haste()
        self.salvaged = 0

    def journals(self) -> set[str]:
        """The names of the journals that lie there, also of those that are still written; may raise `OSError`."""
        return {name for name in self._disk.unsorted_names(self._directory) if name.endswith(JOURNAL_SUFFIX)}

    def work(
        self,
        now: float | None = None,
        grace_seconds: float = 0,
        is_abandoned: Callable[[JournalName], bool] = lambda _: False,
    ) -> int:
        """Split and carry on whatever is due. How many could not be done; each of those is logged once.

        Args:
            now: Seconds since the epoch; a journal whose interval is not over since the grace is left alone. None:
                all are due.
            grace_seconds: How long after its end an interval's journals are taken.
            is_abandoned: Whether whoever wrote a journal has gone; it is due, whatever its interval.
        """
        journals: dict[str, JournalName] = {}
        try:
            names = self._disk.names(self._directory)
        except OSError as exc:
            self._report(self._directory, "{what} cannot be read: {reason}; it is tried again", exc)
            return 1
        self._reported.discard(self._directory)
        for name in names:
            with contextlib.suppress(ValueError):
                journal = JournalName.parse(name)[0]
                journals[journal.journal] = journal
        due = [j for j in journals.values() if _is_due(j, now, grace_seconds) or is_abandoned(j)]
        self._courteous = now is not None and not any(_is_late(j, now, grace_seconds) for j in due)
        return sum(not self._try(journal) for journal in due)

    def hurry(self) -> None:
        """Let nobody go first any more in what is under way. May be called in any thread."""
        self._courteous = False
        self._pace.hurry()

    def _try(self, journal: JournalName) -> bool:
        """Whether it is done, or is nothing to be done yet because the journal is still written."""
        try:
            with self._claimed(journal) as is_ours:
                if is_ours:
                    self._finish(journal)
        except OSError as exc:
            self._report(
                journal.journal, "journal {what} cannot be split yet: {reason}; it is kept and tried again", exc
            )
            return False
        self._reported.discard(journal.journal)
        return True

    def _claimed(self, journal: JournalName) -> "contextlib.AbstractContextManager[bool]":
        """Keeps others from writing a journal; gives False where somebody does. In `recovered/` nobody ever does."""
        if journal.recovered:
            return contextlib.nullcontext(enter_result=True)
        return self._disk.claimed(self._path(journal.journal))

    def _report(self, what: str, message: str, exc: OSError) -> None:
        """Log what is the matter with something, once until it is well again."""
        if what not in self._reported:
            self._reported.add(what)
            self._log.error(message, what=what, reason=str(exc))

    def _finish(self, journal: JournalName) -> None:
        """Do whatever of the four steps is left to do."""
        path = self._path(journal.journal)
        if self._disk.is_file(path):
            self._split(journal)
        elif self._disk.exists(path):
            put_aside(self._disk, path, self._data_directory, "it has a journal's name and is no file")
        # Also where the journal was gone before: whoever deleted it may have been killed, or failed, before the sync.
        self._disk.sync_directory(self._directory)
        if self._disk.exists(self._path(journal.split)):
            self._publish(journal)

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)

    def _split(self, journal: JournalName) -> None:
        path, split = self._path(journal.journal), self._path(journal.split)
        if self._disk.exists(split):
            remove_tree(self._disk, split)
            self._disk.sync_directory(self._directory)
        courtesy = self._pace = self._courtesy() if self._courteous else Haste()
        with self._disk.open(path) as file:
            found = members_in(file, journal.identity, courtesy)
        if found.contents:
            self._write(journal, found.contents, courtesy)
        self._retire(path, journal, found)
        self._reserve.forget(journal.identity)
        for tenant, members in found.contents.tenants.items():
            self._records.note(journal.file_of(tenant), members.records)
        self.salvaged += found.contents.frames if found.damaged or found.torn else 0

    def _write(self, journal: JournalName, contents: Contents, courtesy: Courtesy) -> None:
        split = self._path(journal.split)
        self._disk.make_directory(split)
        with self._disk.open(self._path(journal.journal)) as source:
            files = SplitFiles(self._disk, journal, source.fileno(), courtesy, pack_all=self._pack_all)
            files.write(split, contents.tenants)
            if contents.aside:
                aside = os.path.join(split, QUARANTINE)
                self._disk.make_directory(aside)
                files.write(aside, contents.aside)
                self._disk.sync_directory(aside)
        self._disk.sync_directory(split)
        self._disk.sync_directory(self._directory)

    def _retire(self, path: str, journal: JournalName, found: Found) -> None:
        """The commit: from here on the journal is no longer the truth."""
        contents = found.contents
        if found.damaged or not (contents or found.blank):
            kept = put_aside(self._disk, path, self._data_directory)
            self._log.error(
                "journal {journal} is damaged: {records} records were read, {damaged} bytes were not;"
                " it is kept in {kept}",
                journal=journal.journal,
                records=contents.records + contents.aside_records,
                damaged=found.damaged + found.torn,
                kept=kept,
            )
        else:
            self._disk.unlink(path)
        if contents:
            self._log.info(
                "journal {journal} was split: {records} records of {tenants} tenants",
                journal=journal.journal,
                records=contents.records,
                tenants=len(contents.tenants),
            )
        if contents.aside:
            self._log.warn(
                "{records} invalid records of {tenants} tenants go to quarantine; see `axcollector quarantine list`",
                records=contents.aside_records,
                tenants=len(contents.aside),
            )

    def _publish(self, journal: JournalName) -> None:
        """Move the buckets of a split whose journal is gone to staging."""
        split = self._path(journal.split)
        if self._disk.is_directory(split):
            self._publish_aside(journal, os.path.join(split, QUARANTINE))
            merge_buckets(self._disk, split, self._staging)
            self._disk.remove_directory(split)
        else:
            put_aside(self._disk, split, self._data_directory, "it has a split's name and is no directory")
        self._disk.sync_directory(self._directory)

    def _publish_aside(self, journal: JournalName, aside: str) -> None:
        """Move the buckets of what was set aside, where there are some, to quarantine."""
        if not self._disk.is_directory(aside):
            return
        merge_buckets(self._disk, aside, ensure_within(self._disk, self._data_directory, QUARANTINE))
        self._disk.remove_directory(aside)
        self._quarantine.publish(journal.identity)


def _is_due(journal: JournalName, now: float | None, grace_seconds: float) -> bool:
    """Whether an interval is over; one that lies ahead was written before the clock was set back, and is over too."""
    if now is None:
        return True
    interval = journal.interval
    return now >= interval.end + grace_seconds or now < interval.start


def _is_late(journal: JournalName, now: float, grace_seconds: float) -> bool:
    """Whether the journals of the next interval are due as well."""
    interval = journal.interval
    return now >= interval.end + grace_seconds + (interval.end - interval.start)
