"""Signatures, verified by a server that is not ours: `rclone serve s3`, with real sockets, threads and processes."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import defer
from twisted.internet.interfaces import IListeningPort, IReactorFromThreads
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import Site

from axcollector.core.errors import CredentialsRefused, UploadFailed
from axcollector.disk import Disk
from axcollector.services import WorkThread
from axcollector.stores.base import Store
from axcollector.stores.s3 import S3Store
from axcollector.stores.s3_credentials import CredentialCache
from axcollector.stores.s3_signing import Credentials, S3Signer
from axcollector.stores.signed import SignedStore
from axcollector.stores.transfer import Transfer
from tests.certificates import Authority
from tests.forward_proxy import PlainProxy, TunnelProxy
from tests.rclone_server import ACCESS_KEY, BUCKET, SECRET_KEY, RcloneServer
from tests.running import delivered_below, ids_of, until
from tests.signing_server import url_of
from tests.test_process import CLEAN, Process, add_scope, batch

pytestmark = pytest.mark.slow

RIGHT = Credentials(ACCESS_KEY, SECRET_KEY)
WRONG = Credentials(ACCESS_KEY, "another secret")
UNKNOWN = Credentials("NOBODY", SECRET_KEY)
TENANTS = ("acme~test", "a%7Eb~t", "z%C3%BCrich%20%26%20co~50%20%25", "a.b_c-d~x")
KEY = "date=2026-01-02/time=03-04-05/1a2b_20260102030405.20260102030605_id_writer_1-0-{}.txt.gz"


@pytest.fixture
def reactor() -> Any:
    """The global reactor, which pytest-twisted has installed."""
    from twisted.internet import reactor

    return reactor


@pytest.fixture
def rclone(tmp_path: Path) -> Iterator[RcloneServer]:
    """The server, which is stopped in the end."""
    server = RcloneServer(tmp_path / "rclone")
    yield server
    server.close()


class PresigningServer(Resource):
    """A signing service for a bucket at rclone.

    Attributes:
        asked: How often it was asked.
        tamper: What is done to the next URLs, one each.
        expired: How many of the next URLs are of an hour ago.
        encrypt: Whether encryption is part of what is signed.
    """

    isLeaf = True  # noqa: N815 - as Twisted names it

    def __init__(self, signer: S3Signer) -> None:
        super().__init__()
        self._signer = signer
        self.asked = 0
        self.tamper: list[Callable[[str], str]] = []
        self.expired = 0
        self.encrypt = False

    def render_GET(self, request: Request) -> bytes:
        self.asked += 1
        is_expired, self.expired = self.expired > 0, max(0, self.expired - 1)
        url = self._signer.presign_put(
            RIGHT,
            "{}/{}".format(*(request.args[name][0].decode() for name in (b"tenant", b"relative_file_path"))),
            content_type=request.args[b"file_content_type"][0].decode(),
            encrypt=self.encrypt,
            expires_seconds=60,
            now=time.time() - (3600 if is_expired else 0),
        )
        return json.dumps({"url": self.tamper.pop(0)(url) if self.tamper else url}).encode()


def other_signature(url: str) -> str:
    """The same URL with one digit of its signature changed."""
    return url[:-1] + ("0" if url[-1] != "0" else "1")


def other_key(url: str) -> str:
    """The signature is of another key."""
    return url.replace("/date%3D", "/evil/date%3D")


def longer(url: str) -> str:
    """It says that it is good for longer than what was signed."""
    return url.replace("X-Amz-Expires=60", "X-Amz-Expires=6000")


class Stores:
    """Stores that deliver to rclone."""

    def __init__(self, reactor: Any, rclone: RcloneServer) -> None:
        self.reactor = reactor
        self.signer = S3Signer(BUCKET, "pre/fix", "us-east-1", rclone.url)
        self.presigning = PresigningServer(self.signer)
        self.thread = WorkThread(IReactorFromThreads(reactor), "store")
        self.thread.startService()
        self.credentials = [RIGHT]
        self.port: IListeningPort = reactor.listenTCP(0, Site(self.presigning), interface="127.0.0.1")
        self.signed = SignedStore.over_network(
            reactor, Disk(), url_of(self.port), lambda: None, timeout_seconds=30, concurrency=8
        )
        self.s3 = self.make_s3()

    def make_s3(
        self, proxy: str | None = None, signer: S3Signer | None = None, authority: Authority | None = None
    ) -> S3Store:
        """A store with its own connections, directly or by proxy."""
        policy = None if authority is None else authority.policy()
        transfer = Transfer.over_network(
            self.reactor, Disk(), idle_seconds=30, connections=8, proxy=proxy, policy=policy
        )
        cache = CredentialCache(self.reactor, self.thread, self._look_up, "store", patience_seconds=30)
        return S3Store(self.reactor, self.thread, Disk(), transfer, signer or self.signer, cache)

    def _look_up(self, anew: bool) -> Credentials:
        return self.credentials.pop(0) if len(self.credentials) > 1 else self.credentials[0]

    async def close(self) -> None:
        """Stop all of it."""
        await self.s3.close()
        await self.signed.close()
        await self.thread.stopService()
        await defer.maybeDeferred(self.port.stopListening)


@pytest.fixture
def stores(reactor: Any, rclone: RcloneServer) -> Iterator[Stores]:
    """Stores, which are closed in the end."""
    stores = Stores(reactor, rclone)
    yield stores
    pytest_twisted.blockon(defer.Deferred.fromCoroutine(stores.close()))


@pytest.fixture
def files(tmp_path: Path) -> list[bytes]:
    """The contents of files of all sizes, which are in `tmp_path` by their numbers."""
    contents = [os.urandom(size) for size in (0, 1, 100, 65_536, 65_537, 3_000_000, *range(1000, 60_000, 3000))]
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_bytes(content)
    return contents


def expected_objects(files: list[bytes], tenants: tuple[str, ...]) -> dict[str, bytes]:
    """What is to be in the bucket when each file was delivered for each tenant."""
    return {
        f"pre/fix/{tenant}/{KEY.format(number)}": content for tenant in tenants for number, content in enumerate(files)
    }


async def deliver(store: Store, files: list[bytes], directory: Path, tenants: tuple[str, ...] = TENANTS[:1]) -> None:
    """Put each file for each tenant: one first, because rclone may fail to make one directory twice at once."""
    for tenant in tenants:
        await store.put(tenant, KEY.format(0), str(directory / "0"))
    await defer.gatherResults(
        [store.put(t, KEY.format(n), str(directory / str(n))) for t in tenants for n in range(1, len(files))]
    )


@pytest_twisted.ensureDeferred
async def test_many_files_are_delivered(
    stores: Stores, rclone: RcloneServer, files: list[bytes], tmp_path: Path
) -> None:
    """By `s3:`, of tenants with any name, at once and then again under the same keys; every byte is there."""
    for _ in range(2):
        await deliver(stores.s3, files, tmp_path, TENANTS)
        assert expected_objects(files, TENANTS) == rclone.objects()


@pytest.mark.parametrize("encrypt", [False, True])
@pytest_twisted.ensureDeferred
async def test_presigned_urls_deliver(
    stores: Stores, rclone: RcloneServer, files: list[bytes], tmp_path: Path, encrypt: bool
) -> None:
    """Through a signing service, with the header for encryption signed and sent, or neither."""
    stores.presigning.encrypt = encrypt
    await deliver(stores.signed, files, tmp_path)
    assert expected_objects(files, ("acme~test",)) == rclone.objects()
    assert stores.presigning.asked == len(files)


@pytest.mark.parametrize("tamper", [other_signature, other_key, longer])
@pytest_twisted.ensureDeferred
async def test_tampered_urls_are_refused(
    stores: Stores, rclone: RcloneServer, files: list[bytes], tmp_path: Path, tamper: Callable[[str], str]
) -> None:
    """Nothing is stored; a second, good URL recovers at once, a second bad one is an attempt, and then it is tried."""
    stores.presigning.tamper = [tamper]
    await stores.signed.put("acme~test", KEY.format(3), str(tmp_path / "3"))
    stores.presigning.tamper = [tamper, tamper]
    with pytest.raises(UploadFailed, match="answered 403") as caught:
        await stores.signed.put("acme~test", KEY.format(4), str(tmp_path / "4"))
    assert type(caught.value) is UploadFailed
    assert list(rclone.objects()) == [f"pre/fix/acme~test/{KEY.format(3)}"]
    await stores.signed.put("acme~test", KEY.format(4), str(tmp_path / "4"))
    assert sorted(rclone.objects().values(), key=len) == files[3:5]


@pytest_twisted.ensureDeferred
async def test_expired_urls_are_refused(
    stores: Stores, rclone: RcloneServer, files: list[bytes], tmp_path: Path
) -> None:
    """And asked for again."""
    stores.presigning.expired = 1
    await stores.signed.put("acme~test", KEY.format(3), str(tmp_path / "3"))
    assert stores.presigning.asked == 2
    assert list(rclone.objects().values()) == [files[3]]


@pytest.mark.parametrize("wrong", [WRONG, UNKNOWN])
@pytest_twisted.ensureDeferred
async def test_wrong_credentials_are_refused(
    stores: Stores, rclone: RcloneServer, files: list[bytes], tmp_path: Path, wrong: Credentials
) -> None:
    """Small files and large ones, all at once; nothing is stored, and with the right ones everything is."""
    stores.credentials = [wrong, RIGHT]
    puts = [stores.s3.put("acme~test", KEY.format(n), str(tmp_path / str(n))) for n in range(len(files))]
    outcomes = await defer.DeferredList(puts, consumeErrors=True)
    assert {type(failure.value) for _, failure in outcomes} == {CredentialsRefused}
    assert rclone.objects() == {}
    await deliver(stores.s3, files, tmp_path)
    assert expected_objects(files, ("acme~test",)) == rclone.objects()


@pytest_twisted.ensureDeferred
async def test_signatures_are_good_behind_a_proxy(
    stores: Stores, rclone: RcloneServer, files: list[bytes], tmp_path: Path, reactor: Any
) -> None:
    """What the proxy passes on is what was signed."""
    proxy = PlainProxy(reactor)
    port = reactor.listenTCP(0, proxy, interface="127.0.0.1")
    store = stores.make_s3(url_of(port))
    await deliver(store, files, tmp_path)
    assert expected_objects(files, ("acme~test",)) == rclone.objects()
    assert len(proxy.seen) == len(files)
    await store.close()
    await defer.maybeDeferred(port.stopListening)


@pytest_twisted.ensureDeferred
async def test_https_through_a_tunnel(stores: Stores, files: list[bytes], tmp_path: Path, reactor: Any) -> None:
    """Bodies that are not part of what is signed, TLS that is verified, and a proxy that sees nothing of it."""
    authority, proxy = Authority(), TunnelProxy(reactor)
    certificate, key = authority.write("store.test", tmp_path)
    server = RcloneServer(tmp_path / "secure", "--cert", certificate, "--key", key)
    port = reactor.listenTCP(0, proxy, interface="127.0.0.1")
    signer = S3Signer(BUCKET, "pre/fix", "us-east-1", server.url.replace("127.0.0.1", "store.test"))
    store = stores.make_s3(url_of(port), signer, authority)
    await deliver(store, files, tmp_path)
    assert expected_objects(files, ("acme~test",)) == server.objects()
    stores.credentials = [WRONG]
    with pytest.raises(CredentialsRefused):
        await stores.make_s3(url_of(port), signer, authority).put("acme~test", "key", str(tmp_path / "5"))
    assert proxy.heads[0].startswith(b"CONNECT store.test:")
    await store.close()
    await defer.maybeDeferred(port.stopListening)
    server.close()
    await until(lambda: not proxy.open)


@pytest_twisted.ensureDeferred
async def test_a_bucket_that_is_not_there(
    stores: Stores, rclone: RcloneServer, files: list[bytes], tmp_path: Path
) -> None:
    """Is an attempt, and told by its code."""
    rclone.bucket.rmdir()
    (tmp_path / "0").write_bytes(files[0])
    with pytest.raises(UploadFailed, match=r"answered 404 \(NoSuchBucket\)"):
        await stores.s3.put("acme~test", KEY.format(0), str(tmp_path / "0"))


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    """Those started by a test; none is left when it ends."""
    started: list[Process] = []
    yield started
    for process in started:
        if process.popen.poll() is None:
            process.popen.kill()
            process.popen.communicate()


def write_secret(path: Path, secret: str) -> None:
    """The AWS tools' file of credentials, replaced as they replace it."""
    text = f"[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {secret}\n"
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").rename(path)


def test_a_process_recovers_from_a_wrong_secret(
    tmp_path: Path, rclone: RcloneServer, processes: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It pauses the store, counts no attempt, and delivers every record once when the file holds the right one."""
    secrets = tmp_path / "credentials"
    write_secret(secrets, "wrong")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(secrets))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (tmp_path / "axcollector-data").mkdir(mode=0o700)
    scope = add_scope(tmp_path)
    options = {
        "store": f"s3://{BUCKET}/analytics",
        "s3-endpoint-url": rclone.url,
        "s3-region": "eu-west-1",
        "collection-interval": "1",
        "close-grace": "0.1",
        "upload-interval": "0.1",
        "max-upload-attempts": "1",
    }
    process = Process(tmp_path, *(part for name, value in options.items() for part in (f"--{name}", value)))
    processes.append(process)
    process.started()
    for number in range(10):
        assert process.post(f"/analytics/{scope}", batch(10 * number, 10))[0] == 200
    host = rclone.url.removeprefix("http://")
    line = process.wait_for("is paused for")
    assert f"store {host} answered 403 (SignatureDoesNotMatch): it does not take {ACCESS_KEY}" in line
    assert rclone.objects() == {}
    write_secret(secrets, SECRET_KEY)
    process.wait_for("works again")
    place = rclone.bucket / "analytics"
    while sum(map(len, delivered_below(place).values())) < 100:
        process.wait_for("delivered")
    assert ids_of(delivered_below(place)["acme~prod"]) == dict.fromkeys(range(100), 1)
    status, log = process.end()
    assert (status, "Traceback" in log, "was not delivered" in log) == (CLEAN, False, False)
    assert SECRET_KEY not in log
