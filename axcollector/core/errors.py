"""Every way axcollector says no or fails.

    AxcollectorError
     ├── Refusal                 an ingest request is not taken; has an HTTP status, a code, a reason
     │    ├── Rejected           the client's fault (4xx)
     │    ├── NotReady           no snapshot yet (500)
     │    ├── LookupFailed       the registry could not be asked (500)
     │    ├── RateLimited        the scope sends too much at present; come again (429)
     │    ├── Overloaded         no room in memory; come again (503)
     │    ├── SpoolFailed        no room on disk, or a write failed; come again (503)
     │    ├── Unavailable        what the answer depends on cannot be asked at present; come again (503)
     │    └── Unreachable        to a client: no collector has given a proper answer; come again (503)
     ├── ConfigError             a configuration that cannot be used
     ├── DirectoryInUse          another process has the data directory
     ├── UnsafeDirectory         others on this machine could change what lies in a directory of ours
     ├── RegistryError           the registry, or a change asked of it, is unusable
     ├── NoTokenYet              there is no bearer token to use at present
     ├── SyncFailed              a sync server did not give what it was asked for
     │    ├── TokenRefused       it does not know our token (401)
     │    ├── SnapshotTooOld     it has forgotten what happened since our snapshot
     │    └── AnswerTooLong      its answer is longer than we take
     ├── BadRow                  a line of text is no row of the registry
     ├── TransferFailed          a file could not be imported or exported
     ├── QuarantineError         records that were set aside cannot be read, or sent again
     │    └── QuarantineDamaged  a file of them is damaged
     ├── TokensError             the file of tokens, or a change asked of it, is unusable
     ├── CommandFailed           what a command was asked for was not done, or not all of it
     └── UploadFailed            a file could not be delivered; counts as an attempt of its bucket
          ├── FileRefused        it will not be while it is as it is: permanent
          ├── TimedOut           whoever was asked took too long
          └── Paused             somebody is unavailable; costs no attempt
               ├── EndpointUnavailable   the signer or a store host cannot be reached, or asks for a pause
               ├── CredentialsRefused    the signer or a store host does not take our credentials
               └── TenantRefused         the signer refuses this tenant

The core raises, shells translate: the status, code and reason of a `Refusal` are those of SPEC section 2.
"""

from typing import ClassVar, Final

STATUS_OF_CODE: Final = {
    "NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "UNAUTHORIZED": 401,
    "FORBIDDEN": 403,
    "PAYLOAD_TOO_LARGE": 413,
    "UNSUPPORTED_CONTENT_TYPE": 400,
    "UNSUPPORTED_CONTENT_ENCODING": 400,
    "UNKNOWN_SCOPE": 400,
    "BAD_DATA": 400,
    "MISSING_FIELD": 400,
    "NO_RECORDS": 400,
}
"""The HTTP status of each code with which a request is rejected."""


class AxcollectorError(Exception):
    """Base of all errors that axcollector raises on purpose."""


class Refusal(AxcollectorError):
    """An ingest request is not taken.

    Attributes:
        status: The HTTP status that says so.
        code: The `errorCode` of the answer.
        reason: One sentence for the client.
        retry_after: Seconds after which to try again, or None where trying again is of no use.
    """

    status: int
    code: str
    retry_after: float | None = None

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Rejected(Refusal):
    """The request is at fault: sending it again unchanged will fail again.

    Attributes:
        challenge: What `WWW-Authenticate` says, where a token is asked for.
    """

    def __init__(self, code: str, reason: str, challenge: str = "Bearer") -> None:
        super().__init__(reason)
        self.code = code
        self.status = STATUS_OF_CODE[code]
        self.challenge = challenge


class NotReady(Refusal):
    """No snapshot has come yet, so no tenant is known."""

    status = 500
    code = "INTERNAL_SERVER_ERROR"

    def __init__(self) -> None:
        super().__init__("Service is not initialized completely")


class LookupFailed(Refusal):
    """The registry could not be asked for a tenant or a developer."""

    status = 500
    code = "INTERNAL_SEARCH_ERROR"


class RateLimited(Refusal):
    """The scope has sent more than it may; nothing of this batch was kept, and it is not counted."""

    status = 429
    code = "RATE_LIMITED"

    retry_after: float

    def __init__(self, reason: str, retry_after: float) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Overloaded(Refusal):
    """Too much is waiting already; nothing of this batch was kept."""

    status = 503
    code = "OVERLOADED"
    retry_after: float
    DEFAULT_RETRY_AFTER: ClassVar[float] = 1.0

    def __init__(self, reason: str, retry_after: float = DEFAULT_RETRY_AFTER) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class SpoolFailed(Refusal):
    """The spool cannot take the batch: no room on disk, or a write or fsync failed."""

    status = 503
    code = "STORAGE_UNAVAILABLE"
    retry_after: float
    DEFAULT_RETRY_AFTER: ClassVar[float] = 5.0

    def __init__(self, reason: str, retry_after: float = DEFAULT_RETRY_AFTER) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Unavailable(Refusal):
    """What the answer depends on, tokens or a store's credentials, cannot be asked at present."""

    status = 503
    code = "STORAGE_UNAVAILABLE"
    retry_after = 5.0


class Unreachable(Refusal):
    """A client has found no collector that gave a proper answer; where one took the records, it is not known."""

    status = 503
    code = "UNREACHABLE"
    retry_after: float
    DEFAULT_RETRY_AFTER: ClassVar[float] = 1.0

    def __init__(self, reason: str, retry_after: float = DEFAULT_RETRY_AFTER) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class ConfigError(AxcollectorError):
    """A configuration cannot be used; the message names the key, the value and what is allowed."""


class DirectoryInUse(AxcollectorError):
    """Another process works in the data directory.

    Attributes:
        path: The lock file.
        pid: The holder's process id, or None where it could not be read.
    """

    def __init__(self, path: str, pid: int | None) -> None:
        holder = f"process {pid}" if pid is not None else "another process"
        super().__init__(
            f"{holder} already works in this data directory (lock file {path});"
            " stop it, or give this one a directory of its own (local_storage_path, or spool_directory of a client)"
        )
        self.path = path
        self.pid = pid


class UnsafeDirectory(AxcollectorError):
    """Others on this machine could change what lies in a directory of ours; the message says what to do."""


class RegistryError(AxcollectorError):
    """The registry file cannot be used, or what is asked of it makes no sense; the message says which file."""


class NoTokenYet(AxcollectorError):
    """There is no bearer token to use at present; one is being asked for."""


class SyncFailed(AxcollectorError):
    """A sync server did not give what it was asked for; it is asked again, later.

    Attributes:
        retry_after: Seconds it asked for, or None where it said nothing.
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class TokenRefused(SyncFailed):
    """A sync server does not know our token (401)."""


class SnapshotTooOld(SyncFailed):
    """The change server has forgotten what happened since our snapshot: a new one is needed."""


class AnswerTooLong(SyncFailed):
    """An answer is longer than what is taken into memory; less is to be asked for at a time."""


class BadRow(AxcollectorError):
    """A line of text is no row of the registry; the message says why, and what is allowed, as what follows "it"."""


class TransferFailed(AxcollectorError):
    """A file could not be imported or exported; the message names it, and what has been done: nothing."""


class QuarantineError(AxcollectorError):
    """Records that were set aside cannot be read or dealt with; the message says which, and what to do."""


class QuarantineDamaged(QuarantineError):
    """A file of records that were set aside is damaged; others may be whole."""


class TokensError(AxcollectorError):
    """The file of tokens cannot be used, or what is asked of it makes no sense; the message says which file."""


class CommandFailed(AxcollectorError):
    """What a command was asked for was not done, or not all of it; the message says what to do."""


class UploadFailed(AxcollectorError):
    """A file could not be delivered this time; counts as an attempt of its bucket.

    Attributes:
        authority: Whose part of the upload failed, those asked before having done theirs; None: it is not known.
    """

    def __init__(self, reason: str, authority: str | None = None) -> None:
        super().__init__(reason)
        self.authority = authority


class FileRefused(UploadFailed):
    """This file cannot be delivered as it is, whenever it is tried: it is too large, say, or cannot be read."""


class TimedOut(UploadFailed):
    """Somebody took too long to answer, or to take a file."""


class Paused(UploadFailed):
    """An authority asks for a pause: its files wait, and no attempt is counted.

    Attributes:
        authority: Who is unavailable: `signer`, a store host, or a tenant at the signer.
        retry_after: Seconds it asked for, or None where it said nothing.
    """

    authority: str

    def __init__(self, authority: str, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason, authority)
        self.retry_after = retry_after


class EndpointUnavailable(Paused):
    """The signer, or a store host, cannot be reached or asks for a pause."""


class CredentialsRefused(Paused):
    """The signer, or a store host, does not take our credentials, or there are none."""


class TenantRefused(Paused):
    """The signer does not sign for this tenant at present (403)."""
