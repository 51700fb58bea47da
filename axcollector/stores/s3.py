"""The store `s3://bucket/prefix`: AWS, and whatever speaks S3 (MinIO, Ceph, R2, Google's interoperability endpoint).

Each file is one PUT to `{prefix}/{org}~{env}/date=…/time=…/{file}`, whose headers are signed here. Over https the body
is not part of the signature: TLS keeps it whole, and the file need be read but once. Over http it is: its digest is
taken first, in a thread, so that nobody on the way can put other bytes into our object.

What a refusal means is in its code, the only thing that is read of its XML:

* our credentials: `CredentialsRefused`; they are looked up anew before the next try. A clock that is wrong is the same
  to whoever uploads, but looking up is of no help there.
* the file: `FileRefused`.
* a bucket in another region, and everything else: `UploadFailed`, saying which region.

An early success is none, as everywhere: see `connections`.
"""

import hashlib
import re
from typing import Final

from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers

from axcollector.core.errors import CredentialsRefused, FileRefused, UploadFailed
from axcollector.core.retry import parse_date
from axcollector.disk import Disk
from axcollector.services import Worker
from axcollector.stores.s3_credentials import CredentialCache, SessionCredentials
from axcollector.stores.s3_signing import Credentials, S3Signer
from axcollector.stores.transfer import Answer, Transfer

CONTENT_TYPE: Final = "application/x-gzip"
REGION_HEADER: Final = "x-amz-bucket-region"
_STORED: Final = frozenset({200, 201, 204})
_OF_CREDENTIALS: Final = frozenset(
    {
        *("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "TokenRefreshRequired", "InvalidToken"),
        *("InvalidTokenId", "InvalidSecurity", "NotSignedUp", "AccountProblem", "Unauthorized"),
    }
)
_OF_THE_CLOCK: Final = "RequestTimeTooSkewed"
_DENIED: Final = "AccessDenied"
_SKEW_SECONDS: Final = 300.0
"""Stores allow 5 to 15 minutes; a refusal by one whose clock differs by more is about that, whatever it says."""
_OF_THE_FILE: Final = frozenset({"EntityTooLarge", "KeyTooLongError", "InvalidObjectName", "XMinioInvalidObjectName"})
_STATUS_OF_THE_FILE: Final = frozenset({413, 414})
_OF_THE_REGION: Final = frozenset(
    {
        *("PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "IncorrectEndpoint"),
        *("IllegalLocationConstraintException", "AuthorizationQueryParametersError"),
    }
)
_REDIRECTIONS: Final = frozenset({301, 302, 307, 308})
_CODE: Final = re.compile(rb"<Code>\s{0,16}([A-Za-z0-9.]{1,64})\s{0,16}</Code>")
_REGION: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_SLICE_BYTES: Final = 1 << 18


class S3Store:
    """A `Store` that signs for itself."""

    def __init__(
        self,
        clock: IReactorTime,
        worker: Worker,
        disk: Disk,
        transfer: Transfer,
        signer: S3Signer,
        credentials: CredentialCache,
    ) -> None:
        """Use what is there; `over_network` makes it.

        Args:
            clock: What tells the time that is signed.
            worker: Who takes digests.
            disk: What opens files.
            transfer: What sends requests.
            signer: What signs them.
            credentials: With what.
        """
        self._clock = clock
        self._worker = worker
        self._disk = disk
        self._transfer = transfer
        self._signer = signer
        self._credentials = credentials
        self._authority = authority_of(signer)

    @classmethod
    def over_network(
        cls,
        reactor: IReactorTime,
        worker: Worker,
        disk: Disk,
        signer: S3Signer,
        *,
        timeout_seconds: float,
        concurrency: int,
        proxy: str | None = None,
    ) -> "S3Store":
        """Use the network, and the credentials that the AWS tools would use.

        Args:
            reactor: The reactor, with TCP and TLS.
            worker: Who looks for credentials and takes digests; both may take a while.
            disk: What opens files.
            signer: Where to.
            timeout_seconds: `upload_timeout`; a look-up of credentials keeps a file waiting for no longer.
            concurrency: `upload_concurrency`; as many connections are kept.
            proxy: `upload_proxy`, or None.
        """
        authority = authority_of(signer)
        look_up = SessionCredentials(authority)
        credentials = CredentialCache(reactor, worker, look_up, authority, patience_seconds=timeout_seconds)
        transfer = Transfer.over_network(
            reactor, disk, idle_seconds=timeout_seconds, connections=concurrency, proxy=proxy
        )
        return cls(reactor, worker, disk, transfer, signer, credentials)

    def put(self, tenant: str, key: str, path: str) -> "defer.Deferred[None]":
        """Deliver a file; see `Store`."""
        return defer.Deferred.fromCoroutine(self._put(f"{tenant}/{key}", path))

    def authorities(self, tenant: str) -> tuple[str, ...]:  # noqa: ARG002 - all tenants share the bucket
        """The host."""
        return (self._authority,)

    def close(self) -> "defer.Deferred[None]":
        """Close the connections that are kept. Fires when they are closed."""
        return self._transfer.close()

    async def _put(self, key: str, path: str) -> None:
        credentials = await self._credentials.current()
        digest = None if self._signer.is_secure else await self._worker.run(self._digest, path)
        signed = self._signer.sign_put(
            credentials, key, content_type=CONTENT_TYPE, payload_sha256=digest, now=self._clock.seconds()
        )
        headers = Headers({name: [value] for name, value in signed.items()})
        answer = await self._transfer.put(self._authority, self._signer.url_of(key), headers, path)
        if answer.status not in _STORED:
            raise self._refusal(answer, credentials)
        if not answer.is_in_time:
            message = f"{self._authority} answered {answer.status} before it had all of the file"
            raise UploadFailed(message)

    def _digest(self, path: str) -> str:
        digest = hashlib.sha256()
        try:
            with self._disk.open_within(path) as file:
                while data := file.read(_SLICE_BYTES):
                    digest.update(data)
        except OSError as exc:
            message = f"the file cannot be read: {exc.strerror}"
            raise FileRefused(message) from exc
        return digest.hexdigest()

    def _refusal(self, answer: Answer, credentials: Credentials) -> UploadFailed:
        """What an answer that is no success means."""
        code = error_code(answer.body)
        said = f"{self._authority} answered {answer.status}" + (f" ({code})" if code else "")
        if code == _OF_THE_CLOCK or (code == _DENIED and abs(self._skew(answer)) > _SKEW_SECONDS):
            ours = f"{self._skew(answer):+.0f} s" if self._skew(answer) else "by how much is not known"
            return CredentialsRefused(self._authority, f"{said}: our clock differs from its own, {ours}")
        if code in _OF_CREDENTIALS or answer.status == 401:
            self._credentials.refused(credentials)
            return CredentialsRefused(self._authority, f"{said}: it does not take {credentials.access_key}")
        if answer.status in _REDIRECTIONS or code in _OF_THE_REGION:
            region = answer.header(REGION_HEADER)
            where = f"{REGION_HEADER}: {region}" if _REGION.fullmatch(region) else f"it says no {REGION_HEADER}"
            return UploadFailed(f"{said}: the bucket is in another region or at another endpoint ({where})")
        if code in _OF_THE_FILE or answer.status in _STATUS_OF_THE_FILE:
            return FileRefused(said)
        return UploadFailed(said)

    def _skew(self, answer: Answer) -> float:
        """By how many seconds our clock is ahead of the store's; 0 where it does not say."""
        theirs = parse_date(answer.header("date"))
        return 0.0 if theirs is None else self._clock.seconds() - theirs


def authority_of(signer: S3Signer) -> str:
    """A bucket's host, as an authority."""
    return f"store {signer.host}"


def error_code(body: bytes) -> str:
    """The code in an error's XML (`AccessDenied` and the like), or "" where there is none."""
    match = _CODE.search(body)
    return match[1].decode("ascii") if match else ""
