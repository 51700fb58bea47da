"""The signing service's protocol (SPEC section 7): ask for a signed URL, then put the file there.

The signer is asked with our bearer token for one tenant and one key; it answers with a URL that lets anybody put that
object for a while. So neither tokens nor URLs may get into a log, an exception or a `repr`. A URL that is refused may
have expired on the way: a new one is asked for, once.

Three authorities take part: the signer, the tenant at the signer, and the host that the URL names. Which host that is
is known for certain only once the signer has answered; the one of a tenant's last file is a good guess.
"""

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import msgspec
from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers

from axcollector.core import signing
from axcollector.core.errors import (
    CredentialsRefused,
    EndpointUnavailable,
    FileRefused,
    NoTokenYet,
    TenantRefused,
    TimedOut,
    UploadFailed,
)
from axcollector.core.layout import split_tenant_directory
from axcollector.disk import Disk
from axcollector.stores.transfer import Answer, Transfer

SIGNER: Final = "signer"
"""The signer's name as an authority."""
CONTENT_TYPE: Final = "application/x-gzip"
_STORED: Final = frozenset({200, 201, 204})
_TOO_LARGE: Final = frozenset({413, 414})
_REMEMBERED_TENANTS: Final = 10_000
_ENCRYPTION: Final = "x-amz-server-side-encryption"
_PRINTABLE: Final = re.compile(r"[!-~]+")
_EXPIRED: Final = re.compile(rb"expired|<Code>AccessDenied</Code>", re.IGNORECASE)
"""What an answer of 400 to an expired URL holds: AWS's words, and those of `rclone serve s3`."""

_HOST_NAME: Final = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")

Token = Callable[[], "str | defer.Deferred[str | None] | None"]


class _SignedUrl(msgspec.Struct):
    url: str


class SignedStore:
    """A `Store` behind a signing service."""

    def __init__(
        self,
        transfer: Transfer,
        server_base: str,
        token: Token,
        refused: Callable[[str | None], object] = lambda _: None,
    ) -> None:
        """Prepare.

        Args:
            transfer: What sends requests.
            server_base: `uap_server_base`: the signer's URL, up to `/analytics`.
            token: Gives the bearer token of the moment, or None for none, perhaps later; may raise `OSError`, or
                `NoTokenYet`.
            refused: Is told of a token that the signer does not know.
        """
        self._transfer = transfer
        self._endpoint = f"{server_base.rstrip('/')}/analytics"
        self._token = token
        self._refused = refused
        self._last_store: dict[str, str] = {}

    @classmethod
    def over_network(
        cls,
        reactor: IReactorTime,
        disk: Disk,
        server_base: str,
        token: Token,
        refused: Callable[[str | None], object] = lambda _: None,
        *,
        timeout_seconds: float,
        concurrency: int,
        proxy: str | None = None,
    ) -> "SignedStore":
        """Use the network.

        Args:
            reactor: The reactor, with TCP and TLS.
            disk: What opens files.
            server_base: `uap_server_base`.
            token: As for the constructor.
            refused: Likewise.
            timeout_seconds: `upload_timeout`.
            concurrency: `upload_concurrency`; as many connections to a host are kept.
            proxy: `upload_proxy`, or None.
        """
        transfer = Transfer.over_network(
            reactor, disk, idle_seconds=timeout_seconds, connections=concurrency, proxy=proxy
        )
        return cls(transfer, server_base, token, refused)

    def put(self, tenant: str, key: str, path: str) -> "defer.Deferred[None]":
        """Deliver a file; see `Store`."""
        return defer.Deferred.fromCoroutine(self._put(tenant, key, path))

    def authorities(self, tenant: str) -> tuple[str, ...]:
        """The signer, the tenant there, and the host that the tenant's last file went to, if any did."""
        known = SIGNER, tenant_at_signer(tenant)
        return (*known, self._last_store[tenant]) if tenant in self._last_store else known

    def close(self) -> "defer.Deferred[None]":
        """Close the connections that are kept. Fires when they are closed."""
        return self._transfer.close()

    async def _put(self, tenant: str, key: str, path: str) -> None:
        store, answer = await self._put_once(tenant, key, path)
        if answer.status == 403 or (answer.status == 400 and _EXPIRED.search(answer.body)):
            store, answer = await self._put_once(tenant, key, path)
        if answer.status not in _STORED:
            message = f"{store} answered {answer.status}"
            raise (FileRefused if answer.status in _TOO_LARGE else UploadFailed)(message, store)
        if not answer.is_in_time:
            message = f"{store} answered {answer.status} before it had all of the file"
            raise UploadFailed(message, store)

    async def _put_once(self, tenant: str, key: str, path: str) -> tuple[str, Answer]:
        url = await self._signed_url(tenant, key)
        store = f"store {_host(url)}"
        self._remember(tenant, store)
        headers = Headers({"Content-Type": [CONTENT_TYPE]})
        if _is_signed(url, _ENCRYPTION):
            headers.addRawHeader(_ENCRYPTION, "AES256")
        return store, await self._transfer.put(store, url, headers, path)

    async def _signed_url(self, tenant: str, key: str) -> str:
        query = {
            "tenant": tenant_parameter(tenant),
            "relative_file_path": key,
            "file_content_type": CONTENT_TYPE,
            "encrypt": "true",
        }
        url = f"{self._endpoint}?{urlencode(query, quote_via=quote, safe='')}"
        token = await self._current_token()
        headers = Headers({} if token is None else {"Authorization": [f"Bearer {token}"]})
        try:
            answer = await self._transfer.get(SIGNER, url, headers)
        except TimedOut as exc:  # no file was involved: it would keep anybody waiting
            raise EndpointUnavailable(SIGNER, str(exc)) from None
        if answer.status == 401:
            self._refused(token)
            message = "the signer does not know our bearer token (it answered 401)"
            raise CredentialsRefused(SIGNER, message)
        if answer.status == 403:
            message = "the signer signs nothing for this tenant (it answered 403)"
            raise TenantRefused(tenant_at_signer(tenant), message)
        if answer.status != 200:
            message = f"the signer answered {answer.status}"
            raise UploadFailed(message)
        return _parse(answer)

    async def _current_token(self) -> str | None:
        try:
            token = self._token()
            return await token if isinstance(token, defer.Deferred) else token
        except OSError as exc:
            message = f"the bearer token cannot be read: {exc.strerror}"
            raise CredentialsRefused(SIGNER, message) from exc
        except NoTokenYet as exc:
            raise EndpointUnavailable(SIGNER, str(exc)) from exc

    def _remember(self, tenant: str, store: str) -> None:
        self._last_store.pop(tenant, None)
        self._last_store[tenant] = store
        if len(self._last_store) > _REMEMBERED_TENANTS:
            del self._last_store[next(iter(self._last_store))]


def tenant_at_signer(tenant: str) -> str:
    """A tenant's name as an authority."""
    return f"{SIGNER}: {tenant}"


def tenant_parameter(tenant: str) -> str:
    """What the signer is asked for, before it is encoded for the query, given `layout.tenant_directory`'s text."""
    return signing.tenant_parameter(*split_tenant_directory(tenant))


def _parse(answer: Answer) -> str:
    """The URL in the signer's answer.

    Raises:
        UploadFailed: There is no URL in it that a file could be put to.
    """
    try:
        url = msgspec.json.decode(answer.body, type=_SignedUrl).url if answer.is_whole else ""
        is_usable = bool(_PRINTABLE.fullmatch(url)) and urlsplit(url).scheme in {"http", "https"} and bool(_host(url))
    except (ValueError, msgspec.MsgspecError, RecursionError):  # the URL may be in their text
        is_usable = False
    if not is_usable:
        message = "the signer's answer holds no URL to put a file to"
        raise UploadFailed(message)
    return url


def _host(url: str) -> str:
    """The host and, where it is not the usual one, the port that a URL names.

    Raises:
        ValueError: It names none that can be asked.
    """
    parts = urlsplit(url)
    if parts.username is not None or not (_HOST_NAME.fullmatch(parts.hostname or "") or ":" in (parts.hostname or "")):
        message = "no host that can be asked"
        raise ValueError(message)
    return f"{parts.hostname or ''}:{parts.port}" if parts.port is not None else parts.hostname or ""


def _is_signed(url: str, header: str) -> bool:
    """Whether a signed URL (AWS, version 4) says that this header is part of what was signed."""
    signed = (value for name, value in parse_qsl(urlsplit(url).query) if name == "X-Amz-SignedHeaders")
    return any(header in value.lower().split(";") for value in signed)
