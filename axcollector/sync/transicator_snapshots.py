"""Taking a snapshot: what the cluster's scopes are, where changes are to follow from, then all rows of those scopes.

The snapshot is the authority on the scopes as well: where its own rows name others than it was asked for, it is taken
again with those.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from twisted.internet import defer
from twisted.logger import Logger

from axcollector.core.errors import SyncFailed
from axcollector.disk import AppendFile
from axcollector.services import Worker
from axcollector.sync.transicator_client import TransicatorClient
from axcollector.sync.transicator_files import LiveFile, RegistryFiles
from axcollector.sync.transicator_protocol import LogSequence, decode_page, is_selector
from axcollector.sync.transicator_registry import SyncState
from axcollector.sync.transicator_snapshot import Download

ROUNDS: Final = 3
"""How often in a row a snapshot is taken because the scopes have changed meanwhile."""
CHANGES_A_PAGE: Final = 1000


class SnapshotTaker:
    """Takes snapshots. Coroutines raise `SyncFailed`, `RegistryError` or `OSError`."""

    _log = Logger()

    def __init__(self, worker: Worker, client: TransicatorClient, files: RegistryFiles) -> None:
        self._worker = worker
        self._client = client
        self._files = files
        self._told: set[str] = set()

    async def take(self, token: str) -> LiveFile:
        """A new registry file, whole, with the state up to which it is known to be complete."""
        cluster = (self._files.cluster_id,)
        _, scopes = await self._draft(token, cluster)
        sequence = await self._last_sequence(token, cluster)
        for _ in range(ROUNDS):
            state, named = await self._draft(token, scopes)
            if named == scopes:
                return await self._worker.run(self._files.adopt, replace(state, sequence=sequence, scopes=scopes))
            scopes = named
        raise SyncFailed("the scopes were others each time that a snapshot had been taken")

    async def _draft(self, token: str, scopes: Sequence[str]) -> tuple[SyncState, tuple[str, ...]]:
        asked = [scope for scope in scopes if is_selector(scope) or self._tell_of_refused(scope)]
        file = await self._worker.run(self._files.begin_download)
        try:
            headers = await self._client.snapshot(token, asked, lambda data: self._put(file, data))
        finally:
            await self._worker.run(file.close)
        return await self._worker.run(self._files.make_draft, Download(file.path, headers.etag, headers.txid))

    def _put(self, file: AppendFile, data: bytes) -> "defer.Deferred[None]":
        return self._worker.run(_store, file, data)

    async def _last_sequence(self, token: str, scopes: Sequence[str]) -> LogSequence:
        """Where the change server's history ends now."""
        last = None
        while True:
            since = "" if last is None else str(last)
            body = await self._client.changes(token, scopes, limit=CHANGES_A_PAGE, block_seconds=0, since=since)
            page = await self._worker.run(decode_page, body)
            if last is not None and page.last <= last:
                return last
            last = page.last
            if len(page.changes) < CHANGES_A_PAGE:
                return last

    def _tell_of_refused(self, scope: str) -> bool:
        """One line a scope; of a request with such a one the servers would take nothing."""
        if scope not in self._told:
            self._told.add(scope)
            self._log.error("scope {scope} is left out: servers take lower case, digits, _ and - only", scope=scope)
        return False


def _store(file: AppendFile, data: bytes) -> None:
    try:
        file.write(data)
    except OSError as exc:
        message = f"the snapshot cannot be stored: {exc.strerror}"
        raise SyncFailed(message) from exc
