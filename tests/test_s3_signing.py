"""Signatures, compared with those of botocore's own ways to sign, and addresses."""

import calendar
import hashlib
import time
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, _host_from_url
from botocore.awsrequest import AWSRequest
from hypothesis import assume, given
from hypothesis import strategies as st
from treq.client import HTTPClient
from twisted.internet import defer
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.web.client import URI, Agent
from twisted.web.iweb import IAgent
from zope.interface import implementer

from axcollector.stores.s3_signing import Credentials, S3Signer

NOW = 1_767_323_045.9
KEY = "acme~test/date=2026-01-02/time=03-04-05/f.txt.gz"
LASTING = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
TEMPORARY = Credentials("ASIAEXAMPLE", "secret", "session/token+with=odd characters")
MINIO = S3Signer("bucket", "some/prefix", "us-east-1", "http://127.0.0.1:9000")


def moment(text: str) -> float:
    """The seconds since the epoch of a signature's time."""
    return calendar.timegm(time.strptime(text, "%Y%m%dT%H%M%SZ"))


@given(
    credentials=st.sampled_from([LASTING, TEMPORARY]),
    encrypt=st.booleans(),
    key=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
)
def test_presigned_urls_are_botocores(credentials: Credentials, encrypt: bool, key: str) -> None:
    """For any key; what botocore's own presigning gives at the same time is the same signature and parameters."""
    headers = {"content-type": "application/x-gzip"}
    if encrypt:
        headers["x-amz-server-side-encryption"] = "AES256"
    request = AWSRequest("PUT", MINIO.url_of(key), headers=headers)
    S3SigV4QueryAuth(credentials, "s3", "us-east-1", expires=600).add_auth(request)
    theirs = parse_qs(urlsplit(request.url).query)
    url = MINIO.presign_put(
        credentials,
        key,
        content_type="application/x-gzip",
        encrypt=encrypt,
        expires_seconds=600,
        now=moment(theirs["X-Amz-Date"][0]),
    )
    assert theirs == parse_qs(urlsplit(url).query)
    assert url.partition("?")[0] == MINIO.url_of(key)


@pytest.mark.parametrize("credentials", [LASTING, TEMPORARY])
def test_signed_headers_are_botocores(credentials: Credentials) -> None:
    """What botocore's own signing gives at the same time is the same header."""
    request = AWSRequest("PUT", MINIO.url_of(KEY), headers={"content-type": "application/x-gzip"}, data=b"body")
    S3SigV4Auth(credentials, "s3", "us-east-1").add_auth(request)
    ours = MINIO.sign_put(
        credentials,
        KEY,
        content_type="application/x-gzip",
        payload_sha256=hashlib.sha256(b"body").hexdigest(),
        now=moment(request.headers["X-Amz-Date"]),
    )
    assert {name.lower(): value for name, value in request.headers.items()} == ours


@given(key=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_what_is_sent_is_what_was_signed(key: str) -> None:
    """The path is not encoded anew on its way, by treq or by Twisted, unless a part of it is `.` or `..`."""
    assume(not {".", ".."} & set(key.split("/")))
    sent: list[bytes] = []

    @implementer(IAgent)
    class Noting:
        def request(
            self, method: bytes, uri: bytes, headers: object = None, bodyProducer: object = None
        ) -> "defer.Deferred[object]":
            sent.append(URI.fromBytes(uri).originForm)
            return defer.Deferred()

    HTTPClient(Noting()).request("PUT", MINIO.url_of(key), reactor=Clock())
    assert sent == [MINIO.url_of(key).removeprefix("http://127.0.0.1:9000").encode()]


def test_hosts_that_are_addresses() -> None:
    """The host that is signed is the one in Twisted's header, also for an address of IPv6 and for a usual port."""
    for endpoint in ("http://[::1]:9000", "https://S3.Test:443", "http://s3.test:80", "http://s3.test:8080"):
        agent = MemoryReactorClock()
        url = S3Signer("b", endpoint_url=endpoint).url_of("k")
        uri = URI.fromBytes(url.encode())
        assert Agent(agent)._computeHostValue(uri.scheme, uri.host, uri.port).decode() == _host_from_url(url)


def test_a_body_need_not_be_signed() -> None:
    """Then its place is taken by words, which are signed."""
    headers = MINIO.sign_put(LASTING, KEY, content_type="text/plain", payload_sha256=None, now=NOW)
    assert headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    assert "x-amz-security-token" not in headers
    assert "SignedHeaders=content-type;host;x-amz-content-sha256;x-amz-date," in headers["authorization"]


@pytest.mark.parametrize(("asked", "given_seconds"), [(-5, "1"), (600, "600"), (10**9, "604800")])
def test_expiry_is_what_stores_take(asked: int, given_seconds: str) -> None:
    """Between a second and a week."""
    url = MINIO.presign_put(LASTING, KEY, content_type="a/b", encrypt=False, expires_seconds=asked, now=NOW)
    assert parse_qs(urlsplit(url).query)["X-Amz-Expires"] == [given_seconds]


@pytest.mark.parametrize(
    ("signer", "expected"),
    [
        (S3Signer("bucket"), "https://bucket.s3.us-east-1.amazonaws.com/k"),
        (S3Signer("bucket", "a/b", "eu-west-1"), "https://bucket.s3.eu-west-1.amazonaws.com/a/b/k"),
        (S3Signer("my.bucket", "", "eu-west-1"), "https://s3.eu-west-1.amazonaws.com/my.bucket/k"),
        (S3Signer("my--bucket", "", "eu-west-1"), "https://s3.eu-west-1.amazonaws.com/my--bucket/k"),
        (S3Signer("bucket", "", "cn-north-1"), "https://bucket.s3.cn-north-1.amazonaws.com.cn/k"),
        (S3Signer("bucket", "/a/", "auto", "https://x.test:444/y/"), "https://x.test:444/y/bucket/a/k"),
    ],
)
def test_addresses(signer: S3Signer, expected: str) -> None:
    """On AWS the bucket is in the host's name, unless that would be no name; elsewhere it is in the path."""
    assert expected == signer.url_of("k")
    assert urlsplit(expected).netloc == signer.host
    assert signer.is_secure


def test_keys_are_encoded_for_the_signature() -> None:
    """Everything but unreserved characters and slashes; a percent sign in a key is a percent sign."""
    assert MINIO.url_of(KEY).endswith("/acme~test/date%3D2026-01-02/time%3D03-04-05/f.txt.gz")
    assert MINIO.url_of("a%7Eb~c/ü +") == "http://127.0.0.1:9000/bucket/some/prefix/a%257Eb~c/%C3%BC%20%2B"
    assert not MINIO.is_secure


def test_secrets_are_not_shown() -> None:
    """A repr holds the id only."""
    assert repr(TEMPORARY) == "Credentials(access_key='ASIAEXAMPLE')"
