"""The registry files of the transicator source: one a snapshot, the newest counts. Blocking.

    registry-{version}.db        a whole file, in use or about to be; the next one replaces it
    transicator.download         a snapshot on its way
    transicator.draft            a registry file in the making

A draft gets its name once all of it is on stable storage, and the file that it replaces is deleted once the catalog
shows the new one. So after a crash, at any point, there is a whole file if there ever was one; where there are two,
their generations tell which is the newer. A name is never used for a second file while something of the first one
lies there: a live database is neither overwritten nor given the write-ahead log of another.

Files of others are left alone: those of another cluster, and those too damaged to tell whose they are. One of ours that
turns out to be damaged is used no more, and is deleted like any other that is replaced.
"""

import contextlib
import hashlib
import os
import re
import sqlite3
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import quote

from twisted.logger import Logger

from axcollector.core.errors import RegistryError
from axcollector.directories import ensure_directory
from axcollector.disk import AppendFile, Disk
from axcollector.sync.transicator_protocol import LogSequence, Page
from axcollector.sync.transicator_registry import Applied, SyncedRegistry, SyncState
from axcollector.sync.transicator_snapshot import Download, fill

_DOWNLOAD: Final = "transicator.download"
_DRAFT: Final = "transicator.draft"
_BESIDE: Final = ("-wal", "-shm", "-journal")
"""What SQLite may leave beside a file."""
_NAME: Final = re.compile(r"registry-.+\.db")
_LONGEST_NAME: Final = 100


@dataclass(frozen=True, slots=True)
class LiveFile:
    """A whole registry file."""

    path: str
    state: SyncState

    @property
    def version(self) -> str:
        """What its state is called in the log."""
        return f"{self.state.version} {self.state.sequence}"


@dataclass(frozen=True, slots=True)
class Found:
    """What lies in the directory.

    Attributes:
        live: The newest whole file of ours, or None.
        outdated: Other files of ours, older or damaged, to be deleted once the newest is shown.
    """

    live: LiveFile | None
    outdated: tuple[str, ...]


class RegistryFiles:
    """The files of one cluster in one directory.

    Attributes:
        cluster_id: Which cluster.
        is_given_up: Whether a draft in the making is not wanted any more; set from another thread.
    """

    _log = Logger()

    def __init__(self, disk: Disk, directory: str, cluster_id: str) -> None:
        self._disk = disk
        self._directory = directory
        self.cluster_id = cluster_id
        self._told: set[str] = set()
        self._damaged: set[str] = set()
        self.is_given_up = False

    def look(self) -> Found:
        """What is there; what is of no use to anybody, drafts and leftovers of deleted files, is deleted.

        Raises:
            OSError: The directory cannot be made, read or changed.
        """
        ensure_directory(self._disk, self._directory)
        for name in (_DOWNLOAD, _DRAFT):
            self.remove(self._place(name))
        names = self._disk.names(self._directory)
        for name in names:
            base = next((name.removesuffix(end) for end in _BESIDE if name.endswith(end)), None)
            if base is not None and _NAME.fullmatch(base) and base not in names:
                self._disk.unlink(self._place(name))
        found = self._all()
        live = next((each for each in reversed(found) if each.path not in self._damaged), None)
        return Found(live, tuple(each.path for each in found if each is not live))

    def is_sound(self, live: LiveFile) -> bool:
        """Whether the file is still there and undamaged; reads all of it.

        Raises:
            RegistryError: That cannot be told at present, as on a full disk.
        """
        if not self._disk.exists(live.path):
            return False
        try:
            with SyncedRegistry.open(live.path) as registry:
                is_sound = registry.state() is not None and registry.is_sound()
        except RegistryError as exc:
            if isinstance(exc.__cause__, sqlite3.OperationalError):
                raise
            is_sound = False
        if not is_sound:
            self._damaged.add(live.path)
            self._log.warn("{path} is damaged; the next snapshot replaces it", path=live.path)
        return is_sound

    def begin_download(self) -> AppendFile:
        """A new file for a snapshot."""
        path = self._place(_DOWNLOAD)
        self.remove(path)
        return self._disk.create(path)

    def make_draft(self, download: Download) -> tuple[SyncState, tuple[str, ...]]:
        """Make a draft of a snapshot; a state that is still to be completed, and the scopes that its rows name.

        Raises:
            SyncFailed: It is no snapshot.
            RegistryError: The draft cannot be written.
            OSError: Likewise, or the snapshot cannot be read.
        """
        self.remove(self._place(_DRAFT))
        with SyncedRegistry.draft(self._place(_DRAFT), lambda: self.is_given_up) as draft:
            filled = fill(draft, download, self._disk)
            state = SyncState(0, self.cluster_id, filled.version, LogSequence((0, 0, 0)), (), filled.tables)
            draft.finish(state)
        self.remove(download.path)
        with SyncedRegistry.open(self._place(_DRAFT)) as draft:
            return state, draft.scopes(self.cluster_id)

    def adopt(self, state: SyncState) -> LiveFile:
        """Make the draft, with this state, the newest file; its generation is chosen here.

        Raises:
            RegistryError: The draft cannot be written.
            OSError: Likewise.
        """
        draft = self._place(_DRAFT)
        found = self._all()
        state = replace(state, generation=found[-1].state.generation + 1 if found else 1)
        with SyncedRegistry.open(draft) as registry:
            registry.write_state(state)
            registry.checkpoint()
        if any(self._disk.exists(draft + end) for end in _BESIDE):
            raise RegistryError(f"the registry {draft} cannot be used: it is not all in one file")
        self._disk.sync_file(draft)
        path = self._free_path(state.version)
        self._damaged.discard(path)
        self._disk.rename(draft, path)
        self._disk.sync_directory(self._directory)
        return LiveFile(path, state)

    def apply(self, live: LiveFile, page: Page) -> Applied:
        """Apply a page to the file; see `SyncedRegistry.apply`."""
        with SyncedRegistry.open(live.path) as registry:
            return registry.apply(page)

    def remove(self, path: str) -> None:
        """Delete a file and what SQLite has left beside it; what is not there need not be."""
        for end in ("", *_BESIDE):
            with contextlib.suppress(FileNotFoundError):
                self._disk.unlink(path + end)

    def _place(self, name: str) -> str:
        return os.path.join(self._directory, name)

    def _all(self) -> list[LiveFile]:
        """The files of ours, the newest last."""
        names = filter(_NAME.fullmatch, self._disk.names(self._directory))
        found = [live for name in names if (live := self._live(self._place(name)))]
        return sorted(found, key=lambda live: live.state.generation)

    def _live(self, path: str) -> LiveFile | None:
        """A file as one of ours, or None where it is none."""
        try:
            with SyncedRegistry.open(path) as registry:
                state = registry.state()
        except RegistryError as exc:
            self._tell_of_unusable(path, str(exc))
            return None
        return LiveFile(path, state) if state is not None and state.cluster_id == self.cluster_id else None

    def _tell_of_unusable(self, path: str, trouble: str) -> None:
        """One line a file."""
        if path not in self._told:
            self._told.add(path)
            self._log.warn("{path} is left alone: {trouble}", path=path, trouble=trouble)

    def _free_path(self, version: str) -> str:
        """A name for a file of this version, under which nothing lies."""
        stem, number = f"registry-{_file_name(version)}", 1
        while True:
            path = self._place(f"{stem}.db" if number == 1 else f"{stem}-{number}.db")
            if not any(self._disk.exists(path + end) for end in ("", *_BESIDE)):
                return path
            number += 1


def newest_registry(directory: str, cluster_id: str) -> str | None:
    """The registry file that a transicator source in this directory uses, or None; nothing is changed."""
    files = RegistryFiles(Disk(), directory, cluster_id)
    found = files._all() if os.path.isdir(directory) else []  # noqa: SLF001 - our own
    return found[-1].path if found else None


def _file_name(version: str) -> str:
    """A version as part of a file's name. Versions list running transactions: of a long one the rest is its hash."""
    name = quote(version, safe="")
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME // 2]}~{hashlib.sha256(version.encode()).hexdigest()[:16]}"
