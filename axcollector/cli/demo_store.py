"""Looking into a `file:` store, as whoever uses the delivered files does: count, and compare with what was sent."""

import contextlib
import gzip
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from axcollector.cli.demo_records import Posting

_FILE_SUFFIX: Final = ".txt.gz"


class Ledger:
    """What was acknowledged, against what is delivered; records are known by their `gateway_flow_id`.

    Attributes:
        acknowledged: How many records were acknowledged.
        found: How many of them are delivered.
        strays: How many records are delivered that should not be: a second time, or in another tenant's file.
        files: How many files are delivered, by tenant (`{org}~{env}`).
        records: How many records are delivered, by tenant.
        sample: One delivered record, of a known developer if there is any.
    """

    def __init__(self, root: str) -> None:
        """Begin with nothing; the store's directory is `root`."""
        self._root = root
        self._seen: set[str] = set()
        self._owner_of: dict[str, str] = {}
        self._delivered: set[str] = set()
        self.acknowledged = 0
        self.strays = 0
        self.files: Counter[str] = Counter()
        self.records: Counter[str] = Counter()
        self.sample: dict[str, Any] = {}

    @property
    def found(self) -> int:
        """How many of the acknowledged records are delivered."""
        return len(self._delivered)

    @property
    def complete(self) -> bool:
        """Whether all that were acknowledged are delivered."""
        return self.found >= self.acknowledged

    def expect(self, posting: Posting) -> None:
        """These will be sent."""
        self._owner_of.update(dict.fromkeys(posting.flow_ids, posting.client.tenant))

    def acknowledge(self, posting: Posting) -> None:
        """These have been acknowledged."""
        self.acknowledged += len(posting.flow_ids)

    def look(self) -> int:
        """Read the files that are new since the last look; `found` afterwards. A delivered file never changes."""
        for tenant, path in self._files():
            if path not in self._seen:
                self._seen.add(path)
                self.files[tenant] += 1
                self._read(tenant, path)
        return self.found

    def missing_by_tenant(self) -> Counter[str]:
        """How many records are expected and not delivered, by tenant."""
        return Counter(tenant for flow_id, tenant in self._owner_of.items() if flow_id not in self._delivered)

    def _files(self) -> Iterator[tuple[str, str]]:
        with contextlib.suppress(FileNotFoundError):
            for tenant in sorted(os.listdir(self._root)):
                for directory, _, names in os.walk(os.path.join(self._root, tenant)):
                    yield from (
                        (tenant, os.path.join(directory, name)) for name in names if name.endswith(_FILE_SUFFIX)
                    )

    def _read(self, tenant: str, path: str) -> None:
        with gzip.open(path) as file:
            for line in file:
                record = msgspec.json.decode(line)
                flow_id = record.get("gateway_flow_id")
                if flow_id in self._delivered or self._owner_of.get(flow_id) != tenant:
                    self.strays += 1
                    continue
                self._delivered.add(flow_id)
                self.records[tenant] += 1
                if not self.sample or (record.get("developer") and not self.sample.get("developer")):
                    self.sample = record
