"""Requests to S3 and to what speaks like it, signed here: AWS Signature Version 4, computed by botocore.

Pure: the place, the credentials and the time are arguments, and the same arguments give the same signature. botocore
does the arithmetic and no more; it is neither asked for the time nor for an address.

*Addresses.* With an `endpoint_url` (MinIO, Ceph, R2, Google's interoperability endpoint) the bucket is the first part
of the path. On AWS it is part of the host's name, `{bucket}.s3.{region}.amazonaws.com`, unless its name has dots, which
AWS's certificate does not cover, or `--` where only names in other scripts may have it, which Twisted refuses.

*Keys* are encoded as the signature wants them, everything but letters, digits, `-._~` and `/`, so that whoever checks
sees the same octets, whether it looks at the path as it came or encodes it anew.

*Two ways to sign.* A presigned URL lets anybody who has it put one object until it expires. A signed header is good for
one request of ours. Which is used for what: `docs/decisions/0014-s3.md`.
"""

import time
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from botocore.auth import UNSIGNED_PAYLOAD, S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest

DEFAULT_REGION: Final = "us-east-1"
LONGEST_EXPIRY_SECONDS: Final = 7 * 86_400
"""No store takes a presigned URL that is to be good for longer."""
ENCRYPTION_HEADER: Final = "x-amz-server-side-encryption"

_SERVICE: Final = "s3"
_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_TIMESTAMP: Final = "%Y%m%dT%H%M%SZ"
_UNRESERVED: Final = "-._~"


@dataclass(frozen=True, slots=True)
class Credentials:
    """With what requests are signed.

    Attributes:
        access_key: The id; it is part of what is sent.
        secret_key: The secret; it never is.
        token: The session's token, where the credentials are temporary; it is sent too.
    """

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


class S3Signer:
    """Signs PUTs of objects below one prefix of one bucket.

    Attributes:
        host: The host that the requests go to, with its port where it is not the usual one.
        is_secure: Whether they go over TLS.
    """

    def __init__(
        self, bucket: str, prefix: str = "", region: str = DEFAULT_REGION, endpoint_url: str | None = None
    ) -> None:
        """Prepare.

        Args:
            bucket: The bucket's name.
            prefix: What all keys begin with; a `/` is put behind it. Empty: nothing.
            region: Where the bucket is, as it is part of the signature.
            endpoint_url: Whom to ask in place of AWS: an http:// or https:// URL.
        """
        self._region = region
        below = f"{prefix.strip('/')}/".lstrip("/")
        self._base = f"{_base(bucket, region, endpoint_url)}/{_quoted(below)}"
        self.host = urlsplit(self._base).netloc
        self.is_secure = self._base.startswith("https:")

    def url_of(self, key: str) -> str:
        """The URL of an object, unsigned.

        Args:
            key: Its key below the prefix, as it is, not encoded.
        """
        return self._base + _quoted(key)

    def presign_put(
        self,
        credentials: Credentials,
        key: str,
        *,
        content_type: str | None,
        encrypt: bool,
        expires_seconds: int,
        now: float,
    ) -> str:
        """A URL that an object can be put to by whoever has it.

        Args:
            credentials: Whose right it is.
            key: The object's key below the prefix.
            content_type: The `Content-Type` that the PUT must have, or None: any.
            encrypt: Whether it must have the header `x-amz-server-side-encryption: AES256`.
            expires_seconds: How long the URL is good for, from `now` on; at least 1, at most a week.
            now: Seconds since the epoch.
        """
        headers = {} if content_type is None else {"content-type": content_type}
        headers |= {ENCRYPTION_HEADER: "AES256"} if encrypt else {}
        url = self.url_of(key)
        signing = S3SigV4QueryAuth(credentials, _SERVICE, self._region)
        request = _request(url, headers, now)
        parameters = {
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": signing.scope(request),
            "X-Amz-Date": _timestamp(now),
            "X-Amz-Expires": str(min(max(1, expires_seconds), LONGEST_EXPIRY_SECONDS)),
        }
        if credentials.token is not None:
            parameters["X-Amz-Security-Token"] = credentials.token
        parameters["X-Amz-SignedHeaders"] = signing.signed_headers(signing.headers_to_sign(request))
        request.url = f"{url}?{urlencode(parameters, quote_via=quote, safe=_UNRESERVED)}"
        return f"{request.url}&X-Amz-Signature={_signature(signing, request)}"

    def sign_put(
        self, credentials: Credentials, key: str, *, content_type: str, payload_sha256: str | None, now: float
    ) -> dict[str, str]:
        """The headers of a PUT of an object to `url_of(key)` that is sent at once; `Host` is not among them.

        Args:
            credentials: Whose right it is.
            key: The object's key below the prefix.
            content_type: The `Content-Type`.
            payload_sha256: The body's digest in hexadecimal, or None: the body is not signed.
            now: Seconds since the epoch.
        """
        headers = {
            "content-type": content_type,
            "x-amz-content-sha256": UNSIGNED_PAYLOAD if payload_sha256 is None else payload_sha256,
            "x-amz-date": _timestamp(now),
        }
        if credentials.token is not None:
            headers["x-amz-security-token"] = credentials.token
        signing = S3SigV4Auth(credentials, _SERVICE, self._region)
        request = _request(self.url_of(key), headers, now)
        parts = (
            f"{_ALGORITHM} Credential={signing.scope(request)}",
            f"SignedHeaders={signing.signed_headers(signing.headers_to_sign(request))}",
            f"Signature={_signature(signing, request)}",
        )
        return headers | {"authorization": ", ".join(parts)}


def _base(bucket: str, region: str, endpoint_url: str | None) -> str:
    if endpoint_url is not None:
        parts = urlsplit(endpoint_url)  # the Host header is what was signed, to the letter
        return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}/{bucket}"
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    if "." in bucket or bucket[2:4] == "--":
        return f"https://s3.{region}.{suffix}/{bucket}"
    return f"https://{bucket}.s3.{region}.{suffix}"


def _quoted(key: str) -> str:
    return quote(key, safe=_UNRESERVED + "/")


def _timestamp(now: float) -> str:
    return time.strftime(_TIMESTAMP, time.gmtime(now))


def _request(url: str, headers: dict[str, str], now: float) -> Any:  # noqa: ANN401 - botocore has no types
    request = AWSRequest("PUT", url, headers=headers)
    request.context["timestamp"] = _timestamp(now)
    return request


def _signature(signing: Any, request: Any) -> str:  # noqa: ANN401 - likewise
    canonical = signing.canonical_request(request)
    return str(signing.signature(signing.string_to_sign(request, canonical), request))
