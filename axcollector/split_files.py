"""The files of a split: one for each tenant, in a directory of its bucket, made of the journal's members. Blocking."""

import contextlib
import os
from collections.abc import Mapping

from axcollector.core.layout import JournalName
from axcollector.courtesy import Courtesy
from axcollector.disk import AppendFile, Disk
from axcollector.members import Members, packed, pieces

_WRITTEN_TOGETHER = 16
"""So many tenants' files are written before the first of them is synced: that goes faster than one after the other."""


class SplitFiles:
    """Writes the files of one journal's split."""

    def __init__(
        self, disk: Disk, journal: JournalName, descriptor: int, courtesy: Courtesy, *, pack_all: bool
    ) -> None:
        """Prepare.

        Args:
            disk: The hands.
            journal: What the files are made of.
            descriptor: Of its file.
            courtesy: Lets others go first.
            pack_all: Whether every file is packed again (`compression: small`).
        """
        self._disk = disk
        self._journal = journal
        self._descriptor = descriptor
        self._courtesy = courtesy
        self._pack_all = pack_all

    def write(self, directory: str, tenants: Mapping[str, Members]) -> None:
        """Write the file of each of these tenants, in its bucket's directory; all but `directory` itself is durable."""
        ordered = sorted(tenants.items())
        for start in range(0, len(ordered), _WRITTEN_TOGETHER):
            with contextlib.ExitStack() as group:
                written = []
                for tenant, members in ordered[start : start + _WRITTEN_TOGETHER]:
                    bucket = os.path.join(directory, self._journal.bucket_of(tenant))
                    self._disk.make_directory(bucket)
                    path = os.path.join(bucket, self._journal.file_of(tenant))
                    target = group.enter_context(self._disk.create(path))
                    self._write_file(target, members)
                    written.append((bucket, target))
                self._courtesy.step_back()
                for bucket, target in written:
                    target.sync()
                    self._disk.sync_directory(bucket)
                self._courtesy.go_on()

    def _write_file(self, target: AppendFile, members: Members) -> None:
        parts = pieces(self._descriptor, members)
        again = self._pack_all or members.small
        for part in packed(parts, fast=not self._pack_all) if again else parts:
            self._courtesy.step_back()
            if target.write_in_steps(part):
                self._courtesy.go_on()
        target.begin_sync()
