"""What a client is given and what it sends: URLs, authorities, paths and bodies."""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import quote, urlsplit

from OpenSSL.crypto import Error
from twisted.internet import defer
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.web.client import BrowserLikePolicyForHTTPS
from twisted.web.iweb import IPolicyForHTTPS

from axcollector.core import deflate
from axcollector.core.errors import ConfigError, Rejected
from axcollector.core.recordtext import Record, body_of, texts_of

_WORTH_PACKING_BYTES: Final = 1 << 10
_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent, whoever is asked.

    Attributes:
        path: Behind the collector's URL.
        body: The body.
        is_packed: Whether it is gzip.
    """

    path: str
    body: bytes
    is_packed: bool

    @classmethod
    def of(cls, path: str, texts: Sequence[bytes], *, gzip: bool) -> Self:
        """One that sends records, packed where that is wanted and worth it."""
        body = body_of(texts)
        is_packed = gzip and len(body) >= _WORTH_PACKING_BYTES
        return cls(path, deflate.member(body) if is_packed else body, is_packed)


def path_of(base_path: str, scope: str) -> str:
    """Where records of a scope are sent.

    Raises:
        Rejected: No scope can be called so; without a name the path would be another route's.
    """
    try:
        quoted = quote(scope, safe="")
    except UnicodeEncodeError:
        quoted = ""
    if not quoted:
        raise Rejected("UNKNOWN_SCOPE", f"No tenant found for this scopeuuid: {scope!r}")
    return f"{base_path}/{quoted}"


def checked_urls(urls: Sequence[str]) -> Sequence[str]:
    """The collectors' URLs, each once, without slashes at their ends.

    Raises:
        ConfigError: One cannot be used, or there is none.
    """
    if not urls:
        raise ConfigError("urls: allowed is at least one URL such as https://collector.example.com:9443")
    return tuple(dict.fromkeys(map(_checked_url, urls)))


def _checked_url(url: str) -> str:
    """A collector's URL, without a slash at its end.

    Raises:
        ConfigError: It cannot be used.
    """
    try:
        parts = urlsplit(url)
        is_usable = bool(parts.hostname) and parts.port != 0 and parts.scheme in {"http", "https"}
        is_usable = is_usable and not (parts.query or parts.fragment)
    except ValueError:
        is_usable = False
    if not is_usable or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigError(f"urls: {url!r} is not allowed; allowed is a URL such as https://collector.example.com:9443")
    if parts.username is not None:
        raise ConfigError("urls: a user in a URL is not allowed; give the token as `token`")
    return url.rstrip("/")


def trusting(ca_file: str) -> IPolicyForHTTPS:
    """A policy that trusts the authorities in a PEM file, and no others.

    Raises:
        ConfigError: It cannot be used.
    """
    try:
        with open(ca_file, "rb") as file:
            blocks = file.read().split(_BEGIN)[1:]
        certificates = [Certificate.loadPEM(_BEGIN + block) for block in blocks]
    except OSError as exc:
        raise ConfigError(f"ca_file: {ca_file!r} cannot be read: {exc.strerror}") from exc
    except Error as exc:
        raise ConfigError(f"ca_file: {ca_file!r} holds a certificate that cannot be read") from exc
    if not certificates:
        raise ConfigError(f"ca_file: {ca_file!r} holds no certificate")
    return BrowserLikePolicyForHTTPS(trustRootFromCertificates(certificates))


class Direct:
    """A client's collectors as a target that tries each of them once."""

    def __init__(self, send: Callable[[str, Sequence[bytes], float], Coroutine[Any, Any, int]]) -> None:
        self._send = send

    def submit(self, scope: str, records: Sequence[Record]) -> "defer.Deferred[int]":
        """As `Client.submit`, past the spool."""
        return defer.Deferred.fromCoroutine(self._send(scope, texts_of(records), 0.0))
