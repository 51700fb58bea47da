"""Signs PUTs with a store's credentials. Needs botocore, the extra `[s3]`."""

from collections.abc import Callable

from twisted.internet import defer
from twisted.logger import Logger

from axcollector.core.errors import Unavailable, UploadFailed
from axcollector.core.signing import SigningRequest
from axcollector.stores.s3_signing import Credentials, S3Signer


class S3Presigner:
    """Signs for one prefix of one bucket."""

    _log = Logger()

    def __init__(
        self,
        signer: S3Signer,
        credentials: "Callable[[], defer.Deferred[Credentials]]",
        now: Callable[[], float],
        *,
        expires_seconds: int,
    ) -> None:
        """Prepare.

        Args:
            signer: What computes signatures.
            credentials: Gives those of the moment, or fails with a subclass of `UploadFailed`.
            now: Gives the time that is signed, in seconds since the epoch.
            expires_seconds: How long a URL is good for.
        """
        self._signer = signer
        self._credentials = credentials
        self._now = now
        self._expires_seconds = expires_seconds
        self._trouble: str | None = None

    def problem(self) -> str | None:
        """Why there were no credentials when they were last needed; None: there were, or nobody has asked yet."""
        return self._trouble

    def presign(self, request: SigningRequest) -> "defer.Deferred[str]":
        """A URL for what is asked for.

        Fires with it. Fails with `Unavailable` where there are no credentials. Cancelling forgets it.
        """
        return defer.Deferred.fromCoroutine(self._presign(request))

    async def _presign(self, request: SigningRequest) -> str:
        try:
            credentials = await self._credentials()
        except UploadFailed as exc:
            self._tell_of_trouble(str(exc))
            raise Unavailable("Nothing can be signed at present") from exc
        self._trouble = None
        return self._signer.presign_put(
            credentials,
            request.key,
            content_type=request.content_type,
            encrypt=request.is_encrypted,
            expires_seconds=self._expires_seconds,
            now=self._now(),
        )

    def _tell_of_trouble(self, trouble: str) -> None:
        """One line a trouble, however often it is met."""
        if trouble != self._trouble:
            self._trouble = trouble
            self._log.error("nothing can be signed: {trouble}", trouble=trouble)
