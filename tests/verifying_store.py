"""An object store in memory that takes what a presigned URL allows and nothing else; it knows no library of AWS's.

It computes version 4 signatures itself, from the bytes of the request line and the headers as they came.
"""

import hashlib
import hmac
import re
from calendar import timegm
from collections.abc import Callable
from time import strptime
from urllib.parse import unquote

from twisted.web.http import Request
from twisted.web.resource import Resource


class VerifyingStore(Resource):
    """Keeps what is put to URLs that were signed with its one key.

    Attributes:
        objects: What was put: path, decoded, to bytes.
        headers: The headers of each PUT that was taken.
        refused: Why others were refused, in order.
    """

    isLeaf = True  # noqa: N815 - as Twisted names it

    def __init__(
        self, now: Callable[[], float], access_key: str = "AKIDEXAMPLE", secret_key: str = "open sesame"
    ) -> None:
        super().__init__()
        self.now = now
        self.access_key = access_key
        self.secret_key = secret_key
        self.objects: dict[str, bytes] = {}
        self.headers: list[dict[str, str]] = []
        self.refused: list[str] = []

    def render_PUT(self, request: Request) -> bytes:
        """Take it or refuse it, as S3 does."""
        headers = {n.decode().lower(): v[0].decode() for n, v in request.requestHeaders.getAllRawHeaders()}
        code = self.refusal_of("PUT", request.uri.decode("ascii"), headers)
        if code:
            self.refused.append(code)
            request.setResponseCode(403)
            return f"<Error><Code>{code}</Code></Error>".encode()
        self.headers.append(headers)
        self.objects[unquote(request.uri.decode("ascii").partition("?")[0], errors="strict")] = request.content.read()
        return b""

    def refusal_of(self, method: str, uri: str, headers: dict[str, str]) -> str | None:
        """The code with which a request is refused; None: it is not."""
        path, _, query = uri.partition("?")
        pairs = [tuple(each.split("=", 1)) for each in query.split("&")]
        given = {name: unquote(value) for name, value in pairs}
        names = given["X-Amz-SignedHeaders"].split(";")
        access_key, day, region, service, end = given["X-Amz-Credential"].split("/")
        if access_key != self.access_key:
            return "InvalidAccessKeyId"
        if any(name.startswith("x-amz-") and name not in names for name in headers):
            return "AccessDenied"
        canonical_query = "&".join("=".join(pair) for pair in sorted(pairs) if pair[0] != "X-Amz-Signature")
        canonical_headers = "".join(f"{name}:{re.sub(' +', ' ', headers.get(name, '').strip())}\n" for name in names)
        request = "\n".join([method, path, canonical_query, canonical_headers, ";".join(names), "UNSIGNED-PAYLOAD"])
        scope = "/".join([day, region, service, end])
        digest = hashlib.sha256(request.encode()).hexdigest()
        to_sign = "\n".join(["AWS4-HMAC-SHA256", given["X-Amz-Date"], scope, digest])
        key = ("AWS4" + self.secret_key).encode()
        for part in (day, region, service, end, to_sign):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        if key.hex() != given["X-Amz-Signature"]:
            return "SignatureDoesNotMatch"
        age = self.now() - timegm(strptime(given["X-Amz-Date"], "%Y%m%dT%H%M%SZ"))
        return None if -900 <= age < int(given["X-Amz-Expires"]) else "AccessDenied"
