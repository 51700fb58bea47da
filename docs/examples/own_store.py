"""A store of one's own: an archive with a directory for each tenant, made by whoever runs the archive.

    from own_store import ArchiveStore
    collector = Collector(reactor, config, store=ArchiveStore("/mnt/archive"))

What matters is how it fails, since that decides what becomes of a file:

* `FileRefused`: it will not be taken as it is; an attempt of its bucket (`max_upload_attempts`).
* `UploadFailed`: not this time; an attempt as well.
* `EndpointUnavailable`, `CredentialsRefused`, `TenantRefused`: nobody's files, or none of this tenant's, are taken at
  present. They wait, with growing pauses, and no attempt is counted.
"""

import os
import shutil

from twisted.internet import defer, threads

from axcollector.api import CredentialsRefused, EndpointUnavailable, FileRefused, TenantRefused, UploadFailed

MAX_BYTES = 1 << 30


def sync(path: str) -> None:
    """Bring a file, or the names in a directory, to stable storage."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class ArchiveStore:
    """Copies files into an archive."""

    def __init__(self, root: str, max_bytes: int = MAX_BYTES) -> None:
        self._root = os.path.abspath(root)
        self._max_bytes = max_bytes
        self._authority = f"archive:{root}"

    def authorities(self, tenant: str) -> tuple[str, ...]:
        """Whom a put needs: the archive, and its leave for the tenant."""
        return (self._authority, f"{self._authority}/{tenant}")

    def put(self, tenant: str, key: str, path: str) -> "defer.Deferred[None]":
        """Deliver a file. A second time it writes the same again: a file may come twice, under the same key."""
        return threads.deferToThread(self._put, tenant, key, path)

    def _put(self, tenant: str, key: str, path: str) -> None:
        if not os.path.isdir(self._root):
            raise EndpointUnavailable(self._authority, "the archive is not mounted", retry_after=30.0)
        if os.path.getsize(path) > self._max_bytes:
            raise FileRefused(f"the archive takes files of up to {self._max_bytes} bytes", self._authority)
        place = os.path.join(self._root, tenant)
        if not os.path.isdir(place):
            raise TenantRefused(f"{self._authority}/{tenant}", f"the archive has no directory {tenant}")
        target = os.path.join(place, key)
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copyfile(path, target + ".new")
            sync(target + ".new")
            os.replace(target + ".new", target)  # whoever reads sees whole files only
            while target != self._root:  # the collector deletes its copy now, so names are to survive a power loss, too
                target = os.path.dirname(target)
                sync(target)
        except PermissionError as exc:
            raise CredentialsRefused(self._authority, "the archive may not be written") from exc
        except OSError as exc:
            raise UploadFailed(f"the archive does not take it: {exc.strerror}", self._authority) from exc

    def close(self) -> "defer.Deferred[None]":
        """Nothing is kept between puts."""
        return defer.succeed(None)
