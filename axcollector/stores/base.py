"""What a store is.

A store takes one file at a time. It is delivered, and the Deferred fires; or the put fails with one of these:

* `UploadFailed`: not this time. An attempt of the file's bucket.
* `FileRefused`: not while the file is as it is, however often it is tried. An attempt likewise, because a store may be
  mistaken and operators may change its limits; `failed` is where such a bucket ends.
* `EndpointUnavailable`: an authority (the signer, a store host, a disk) can take nobody's files at present.
* `CredentialsRefused`: an authority takes nobody's files because it does not take our credentials. The next put looks
  for new ones.
* `TenantRefused`: an authority takes none of this tenant's files at present.

The last three are `Paused` and cost no attempt; the `authority` that they carry is one that `authorities` names from
then on, so that whoever uploads leaves the files alone that would only run into the same wall. `retry_after` is how
long that authority asks to be left alone. Errors of the libraries that a store uses are mapped to these in one place of
the store; their messages hold no token, no secret and no signed URL.
"""

from collections.abc import Coroutine
from typing import Any, Protocol

from twisted.internet import defer


class Store(Protocol):
    """A place where files go."""

    def put(self, tenant: str, key: str, path: str) -> "defer.Deferred[None] | Coroutine[Any, Any, None]":
        """Deliver a file; it may be an `async def`.

        Args:
            tenant: `{org}~{env}`, encoded, as `layout.tenant_directory` writes it.
            key: Where it goes below the tenant's place, as `layout.key_of_file` writes it.
            path: The file. It is neither changed nor removed.

        Fires when the store has it for good; what was under that key before is replaced.
        Fails with `UploadFailed` or its subclasses.
        Cancelling breaks it off: a file may or may not have been delivered, and none is there in part.
        """
        ...

    def authorities(self, tenant: str) -> tuple[str, ...]:
        """Whom a put of this tenant would need, as far as known, in the order in which they are asked."""
        ...

    def close(self) -> "defer.Deferred[None]":
        """Release what is kept between puts. Fires when that is done."""
        ...
