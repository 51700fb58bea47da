"""The salvager: takes over buckets as the reference leaves them, torn or whole, found in `recovered/`.

Like the splitter it finds its work, is blocking, and may be broken off anywhere. Its unit is the file, so a full disk
needs room for one of them only. The steps, and what a crash after each leaves:

1. A directory without a mark of recovery gets one. Its files' new names follow from it and the old ones alone.
2. A file's whole lines go to `{bucket}.salvage/{bucket}/{new name}`, which is made durable. A copy that is there
   already is of no worth as long as the file is: it is made anew.
3. The file is deleted (or, where it is damaged, moved to `recovered/unreadable/`). **This is the commit**: from here on
   the copy is the truth. It needs no sync of its own: where the file comes back, its copy is made anew.
4. The directory, empty now, is removed, durably: none of its files can come back. While it is there nothing is
   published.
5. The bucket is moved to staging, and the empty `.salvage` removed.

What gives no line, and what is no `.txt.gz` file, is moved to `recovered/unreadable/` as it is; what is blank is
deleted. Where the reference was broken off in its own recovery, a file lies beside its copy (`…_recovered_T`), which
may end anywhere: the copy is deleted when the file has given lines. If the file is gone, the copy is all there is.
"""

import contextlib
import os
import stat
from dataclasses import dataclass, field

from twisted.logger import Logger

from axcollector.aside import move_beside
from axcollector.buckets import merge_buckets
from axcollector.core import deflate
from axcollector.core.layout import (
    FILE_SUFFIX,
    UNREADABLE,
    JournalName,
    ReferenceName,
    Stage,
    bucket_directory,
    original_of,
)
from axcollector.core.salvage import LineReader
from axcollector.core.survey import Findings, Survey
from axcollector.disk import AppendFile, Disk, ensure_within, read_slices


@dataclass(slots=True)
class _Tally:
    """What came of one directory."""

    files: int = 0
    kept: int = 0
    dropped: int = 0
    unreadable: list[str] = field(default_factory=list)


class Salvager:
    """Takes over what lies in `recovered/`."""

    _log = Logger()

    def __init__(self, disk: Disk, data_directory: str) -> None:
        """Prepare; `data_directory` is where the stages are."""
        self._disk = disk
        self._directory = os.path.join(data_directory, Stage.RECOVERED)
        self._staging = os.path.join(data_directory, Stage.STAGING)
        self._reported: set[str] = set()

    def work(self, now: float) -> int:
        """Take over and carry on whatever is there. How many could not be done; each of those is logged once.

        Args:
            now: Seconds since the epoch; marks what was put there by hand.
        """
        due: dict[str, ReferenceName] = {}
        for name in self._disk.names(self._directory):
            if name != UNREADABLE and not _is_journal(name):
                try:
                    found = self._parse(name)
                except ValueError:
                    self._report_foreign(name)
                else:
                    due[found.directory] = found
        return sum(not self._try(found, now) for found in due.values())

    def _parse(self, name: str) -> ReferenceName:
        found, _ = ReferenceName.parse(name)
        if not self._disk.is_directory(self._path(name)):
            message = f"no directory: {name!r}"
            raise ValueError(message)
        return found

    def _report_foreign(self, name: str) -> None:
        if name not in self._reported:
            self._reported.add(name)
            self._log.warn(
                "{name!r} in {directory} is left alone: it is no journal, and no directory of the name"
                " organization~environment~yyyyMMddHHmmss (a ~ in a name is written %7E)",
                name=name,
                directory=self._directory,
            )

    def _try(self, found: ReferenceName, now: float) -> bool:
        try:
            found = self._marked(found, now)
            self._finish(found)
        except OSError as exc:
            if found.directory not in self._reported:
                self._reported.add(found.directory)
                self._log.error(
                    "directory {directory!r} cannot be taken over yet: {reason}; it is kept and tried again",
                    directory=found.directory,
                    reason=str(exc),
                )
            return False
        self._reported.discard(found.directory)
        return True

    def _path(self, *names: str) -> str:
        return os.path.join(self._directory, *names)

    def _marked(self, found: ReferenceName, now: float) -> ReferenceName:
        """Give a directory its mark of recovery where it has none."""
        marked = found.found(now)
        if marked != found:
            self._disk.rename(self._path(found.directory), self._path(marked.directory))
            self._disk.sync_directory(self._directory)
        return marked

    def _finish(self, found: ReferenceName) -> None:
        """Do whatever of the other steps is left to do."""
        if self._disk.exists(self._path(found.directory)):
            self._salvage(found)
        self._disk.sync_directory(self._directory)  # also where it was gone before, for the same reason
        self._publish(found)

    def _salvage(self, found: ReferenceName) -> None:
        directory = self._path(found.directory)
        target = ensure_within(self._disk, self._directory, found.salvage, bucket_directory(found.bucket))
        self._disk.sync_directory(directory)  # who deleted something in it may have been killed before this
        tally = _Tally()
        # A file comes before its own copy: "." is less than "_".
        for name in self._disk.names(directory):
            if self._disk.exists(os.path.join(directory, name)):
                self._take(found, name, target, tally)
        self._disk.remove_directory(directory)
        self._report(found, tally)

    def _take(self, found: ReferenceName, name: str, target: str, tally: _Tally) -> None:
        """Have one thing out of the directory: its whole lines in the target, and itself gone or kept elsewhere."""
        path = os.path.join(found.directory, name)
        kept = 0
        intact = False
        if name.endswith(FILE_SUFFIX) and stat.S_ISREG(os.lstat(self._path(path)).st_mode):
            findings = self._survey(self._path(path))
            reader = LineReader(findings)
            if findings.lines:
                self._copy(self._path(path), os.path.join(target, found.file_of(name)), reader)
            kept = reader.kept
            intact = findings.blank or (kept > 0 and not findings.damaged and not reader.dropped)
            tally.dropped += reader.dropped + findings.torn
        if kept:
            tally.files += 1
            tally.kept += kept
            self._drop_copies(found, name)
        if intact:
            self._disk.unlink(self._path(path))
        else:
            tally.unreadable.append(name)
            self._keep(found, name)

    def _survey(self, path: str) -> Findings:
        survey = Survey()
        with self._disk.open(path) as file:
            for data in read_slices(file):
                survey.feed(data)
                if survey.damaged:
                    break
        return survey.finish()

    def _copy(self, path: str, target: str, reader: LineReader) -> None:
        """Write the lines of a file to a new one, durably; where there are none, leave no new one."""
        with contextlib.suppress(FileNotFoundError):
            self._disk.unlink(target)
        with self._disk.create(target) as file:
            try:
                self._write(path, file, reader)
            except ValueError as exc:
                message = f"{path}: {exc}"
                raise OSError(message) from exc
            file.sync()
        if not reader.kept:
            self._disk.unlink(target)
        self._disk.sync_directory(os.path.dirname(target))

    def _write(self, path: str, target: AppendFile, reader: LineReader) -> None:
        packer = deflate.packer()
        with self._disk.open(path) as source:
            for data in read_slices(source):
                for piece in reader.feed(data):
                    target.write_in_steps(packer.compress(piece))
        target.write_in_steps(packer.compress(reader.finish()))
        target.write_in_steps(packer.flush())

    def _drop_copies(self, found: ReferenceName, name: str) -> None:
        """Delete what the reference had copied of a file, before the file goes: alone it would be taken for more."""
        directory = self._path(found.directory)
        copies = [other for other in self._disk.names(directory) if original_of(other) == name]
        for copy in copies:
            self._disk.unlink(os.path.join(directory, copy))
        if copies:
            self._disk.sync_directory(directory)

    def _keep(self, found: ReferenceName, name: str) -> None:
        """Move something to where a person looks at it, under a name that is not taken there."""
        kept = ensure_within(self._disk, self._directory, UNREADABLE, found.directory)
        move_beside(self._disk, self._path(found.directory, name), kept)

    def _report(self, found: ReferenceName, tally: _Tally) -> None:
        self._log.info(
            "directory {directory!r} was taken over: {files} files, {kept} lines; {dropped} lines were torn or no JSON",
            directory=found.directory,
            files=tally.files,
            kept=tally.kept,
            dropped=tally.dropped,
        )
        if tally.unreadable:
            self._log.error(
                "{count} files of {directory!r} are damaged, or no gzip files; they are kept in {kept!r}: {names!r}",
                count=len(tally.unreadable),
                directory=found.directory,
                kept=self._path(UNREADABLE, found.directory),
                names=tally.unreadable[:10],
            )

    def _publish(self, found: ReferenceName) -> None:
        """Move the bucket to staging; there is none where all files were blank or unreadable."""
        salvage = self._path(found.salvage)
        for bucket in self._disk.names(salvage):
            path = os.path.join(salvage, bucket)
            if self._disk.is_directory(path) and not self._disk.names(path):
                self._disk.remove_directory(path)
        merge_buckets(self._disk, salvage, self._staging)
        self._disk.remove_directory(salvage)
        self._disk.sync_directory(self._directory)


def _is_journal(name: str) -> bool:
    try:
        JournalName.parse(name)
    except ValueError:
        return False
    return True
