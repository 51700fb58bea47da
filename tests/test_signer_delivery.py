"""The whole way, with our own collector: token, signed URL, PUT, and a store that checks what was signed."""

import gzip
import json
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_twisted
from twisted.internet import defer
from twisted.internet.interfaces import IListeningPort
from twisted.web.server import Site

from axcollector.core.errors import CredentialsRefused, TenantRefused, UploadFailed
from axcollector.core.layout import tenant_directory
from axcollector.core.signing import SigningRequest, tenant_parameter
from axcollector.disk import Disk
from axcollector.listening import Listeners
from axcollector.signer.api import SignerAPI
from axcollector.signer.config import SignerConfig
from axcollector.signer.presigner import S3Presigner
from axcollector.signer_tap import make_service
from axcollector.stores.s3_signing import Credentials, S3Signer
from axcollector.stores.signed import SignedStore
from axcollector.tokens import EVERY_NAME, Bound, Token, TokenFile
from tests.rclone_server import ACCESS_KEY, BUCKET, SECRET_KEY, RcloneServer
from tests.running import Running, delivered_below, ids_of, until
from tests.signing_server import url_of
from tests.verifying_store import VerifyingStore

KEY = "date=2026-01-02/time=03-04-05/1a2b_20260102030405.20260102030605_id_writer_1-0-{}.txt.gz"


@pytest.fixture
def reactor() -> Any:
    """The global reactor, which pytest-twisted has installed."""
    from twisted.internet import reactor

    return reactor


class Signer:
    """`twistd axsigner`'s service on a port that the system chose, and its tokens.

    Attributes:
        url: Where it is: what collectors have as `uap_server_base`.
    """

    def __init__(self, reactor: Any, directory: Path, endpoint_url: str, prefix: str = "records") -> None:
        self._tokens = str(directory / "tokens.db")
        TokenFile.create(self._tokens, Bound.TENANTS).close()
        config = SignerConfig(
            listen="tcp:0:interface=127.0.0.1",
            s3_url=f"s3://{BUCKET}/{prefix}",
            s3_endpoint_url=endpoint_url,
            tokens_path=self._tokens,
        )
        self._service = make_service(reactor, config)
        self._service.startService()
        (listeners,) = (each for each in self._service._services if isinstance(each, Listeners))
        self.url = f"http://127.0.0.1:{listeners.addresses[0].port}"

    def token(self, *tenants: str) -> str:
        """A token for these tenants."""
        with TokenFile.open(self._tokens, Bound.TENANTS) as file:
            return file.add(tenants, time.time())[1]

    def revoke_all(self) -> None:
        """Revoke every token."""
        with TokenFile.open(self._tokens, Bound.TENANTS) as file:
            for token in file.tokens():
                file.revoke(token.id)

    async def stop(self) -> None:
        """Stop it."""
        await self._service.stopService()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the stores, in this process's environment, and none elsewhere."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)


@pytest_twisted.async_yield_fixture
async def listen(reactor: Any) -> AsyncIterator[Callable[[Site], str]]:
    """Listens with a site, for the length of the test; the URL."""
    ports: list[IListeningPort] = []

    def listening(site: Site) -> str:
        ports.append(reactor.listenTCP(0, site, interface="127.0.0.1"))
        return url_of(ports[-1])

    yield listening
    for port in ports:
        await defer.maybeDeferred(port.stopListening)


@pytest_twisted.ensureDeferred
async def test_from_a_record_to_an_object(
    reactor: Any, tmp_path: Path, credentials: None, listen: Callable[[Site], str]
) -> None:
    """A record posted to a collector lies in the store, below its tenant; a URL that expires on the way is replaced."""
    clock_of_the_store = deque([1000.0])
    store = VerifyingStore(
        lambda: time.time() + (clock_of_the_store.popleft() if clock_of_the_store else 0), ACCESS_KEY, SECRET_KEY
    )
    signer = Signer(reactor, tmp_path, listen(Site(store)))
    token = signer.token("acme~prod", tenant_parameter("a~b%", "t t"))
    running = await Running(tmp_path / "collector", uap_server_base=signer.url, bearer_token=token).start()
    for scope in (await running.scope("acme", "prod"), await running.scope("a~b%", "t t")):
        await running.send(scope, [json.dumps({"client_received_start_timestamp": 1, "text": scope})])
    await until(lambda: len(store.objects) == 2)
    await running.stop()
    await signer.stop()
    assert store.refused == ["AccessDenied"]
    places = sorted(path.split("/date=")[0] for path in store.objects)
    assert places == [f"/{BUCKET}/records/a%7Eb%25~t%20t", f"/{BUCKET}/records/acme~prod"]
    for content in store.objects.values():
        (line,) = gzip.decompress(content).splitlines()
        assert json.loads(line)["client_received_start_timestamp"] == 1
    assert all(headers["x-amz-server-side-encryption"] == "AES256" for headers in store.headers)
    assert all(headers["content-type"] == "application/x-gzip" for headers in store.headers)
    assert all("authorization" not in headers for headers in store.headers)


@pytest_twisted.ensureDeferred
async def test_who_is_refused(reactor: Any, tmp_path: Path, credentials: None, listen: Callable[[Site], str]) -> None:
    """Another tenant's files wait, as do all when the token is revoked, within two seconds; neither is an attempt."""
    store = VerifyingStore(time.time, ACCESS_KEY, SECRET_KEY)
    signer = Signer(reactor, tmp_path, listen(Site(store)))
    token = signer.token("acme~prod")
    client = SignedStore.over_network(reactor, Disk(), signer.url, lambda: token, timeout_seconds=30, concurrency=2)
    file = tmp_path / "file"
    file.write_bytes(b"content")
    key = KEY.format(0)
    while True:
        try:
            await client.put("acme~prod", key, str(file))
            break
        except CredentialsRefused:  # the token has not been seen yet
            continue
    with pytest.raises(TenantRefused):
        await client.put("other~prod", key, str(file))
    with pytest.raises(UploadFailed, match="the signer answered 400"):
        await client.put("acme~prod", "../other~prod/x.txt.gz", str(file))
    assert store.objects == {f"/{BUCKET}/records/acme~prod/{key}": b"content"}
    signer.revoke_all()
    revoked_at = time.monotonic()
    refused_after: float | None = None
    while refused_after is None:
        try:
            await client.put("acme~prod", key, str(file))
        except CredentialsRefused:
            refused_after = time.monotonic() - revoked_at
    assert refused_after < 2
    await client.close()
    await signer.stop()


@pytest.fixture
def rclone(tmp_path: Path) -> Iterator[RcloneServer]:
    """A store that is not ours, which is stopped in the end."""
    server = RcloneServer(tmp_path / "rclone")
    yield server
    server.close()


NAMES = [("acme", "prod"), ("a~b", "c%d"), ("zürich & co", "50 %"), (".", ".."), ("a/b", "c\\d"), ("x+y=z", "?#")]


@pytest.mark.slow
@pytest_twisted.ensureDeferred
async def test_rclone_takes_what_is_signed(
    reactor: Any, tmp_path: Path, credentials: None, rclone: RcloneServer
) -> None:
    """Files of all sizes, of tenants with any names: every byte lies where the tenant's files belong."""
    signer = Signer(reactor, tmp_path, rclone.url, "pre/fix")
    token = signer.token(*(tenant_parameter(*names) for names in NAMES))
    client = SignedStore.over_network(reactor, Disk(), signer.url, lambda: token, timeout_seconds=30, concurrency=4)
    expected = {}
    for number, size in enumerate((0, 1, 65_537, 3_000_000)):
        path = tmp_path / str(number)
        path.write_bytes(os.urandom(size))
        for names in NAMES:
            tenant = tenant_directory(*names)
            while True:
                try:
                    await client.put(tenant, KEY.format(number), str(path))
                    break
                except CredentialsRefused:  # the token has not been seen yet
                    continue
            expected[f"pre/fix/{tenant}/{KEY.format(number)}"] = path.read_bytes()
    assert rclone.objects() == expected
    await client.close()
    await signer.stop()


@pytest.mark.slow
@pytest_twisted.ensureDeferred
async def test_a_collector_delivers_to_rclone(
    reactor: Any, tmp_path: Path, credentials: None, rclone: RcloneServer
) -> None:
    """Every record of several tenants is there, once."""
    signer = Signer(reactor, tmp_path, rclone.url)
    collector = tmp_path / "collector"
    running = await Running(collector, uap_server_base=signer.url, bearer_token=signer.token(EVERY_NAME)).start()
    for number, names in enumerate(NAMES[:3]):
        scope = await running.scope(*names)
        records = [{"id": 100 * number + i, "client_received_start_timestamp": 1} for i in range(50)]
        await running.send(scope, [json.dumps(record) for record in records])
    place = rclone.bucket / "records"
    await until(lambda: sum(map(len, delivered_below(place).values())) == 150)
    await running.stop()
    await signer.stop()
    lines = [line for lines in delivered_below(place).values() for line in lines]
    assert ids_of(lines) == {100 * number + i: 1 for number in range(3) for i in range(50)}
    assert sorted(delivered_below(place)) == ["a%7Eb~c%25d", "acme~prod", "z%C3%BCrich%20%26%20co~50%20%25"]


class Meddler:
    """Signs as it should, but for the next URLs.

    Attributes:
        tamper: What is done to each of the next URLs.
        ages: By how many seconds the next URLs are old already.
    """

    def __init__(self, url: str) -> None:
        self.tamper: deque[Callable[[str], str]] = deque()
        self.ages: deque[float] = deque()
        self._presigner = S3Presigner(
            S3Signer(BUCKET, "records", "us-east-1", url),
            lambda: defer.succeed(Credentials(ACCESS_KEY, SECRET_KEY)),
            lambda: time.time() - (self.ages.popleft() if self.ages else 0),
            expires_seconds=900,
        )

    def presign(self, request: SigningRequest) -> "defer.Deferred[str]":
        """Sign."""
        meddle = self.tamper.popleft() if self.tamper else str
        return self._presigner.presign(request).addCallback(meddle)

    def problem(self) -> str | None:
        """None."""
        return None


class AnyToken:
    """Knows every token, for every tenant."""

    def find(self, secret: str) -> Token:
        """One of all tenants."""
        return Token("id", frozenset({EVERY_NAME}), "", 0)

    def problem(self) -> str | None:
        """None."""
        return None


TAMPERED: list[Callable[[str], str]] = [
    lambda url: url[:-1] + ("0" if url[-1] != "0" else "1"),
    lambda url: url.replace("acme~prod", "other~prod"),
    lambda url: url.replace("X-Amz-Expires=900", "X-Amz-Expires=90000"),
    lambda url: url.replace(quote("date=2026-01-02"), quote("date=2026-01-03")),
]


@pytest.mark.slow
@pytest_twisted.ensureDeferred
async def test_rclone_refuses_what_was_not_signed(
    reactor: Any, tmp_path: Path, rclone: RcloneServer, listen: Callable[[Site], str]
) -> None:
    """A URL that was changed or has expired stores nothing; a second, good one is asked for and recovers."""
    meddler = Meddler(rclone.url)
    url = listen(Site(SignerAPI(AnyToken(), meddler).resource()))
    client = SignedStore.over_network(reactor, Disk(), url, lambda: "token", timeout_seconds=30, concurrency=2)
    file = tmp_path / "file"
    file.write_bytes(os.urandom(1000))
    for number, tamper in enumerate([*TAMPERED, None]):
        for times in (2, 1):
            (meddler.ages if tamper is None else meddler.tamper).extend([tamper or 1000.0] * times)
            put = client.put("acme~prod", KEY.format(number), str(file))
            if times == 2:
                with pytest.raises(UploadFailed, match=r"answered 40[03]"):
                    await put
                assert len(rclone.objects()) == number
            else:
                await put
    assert rclone.objects() == {f"records/acme~prod/{KEY.format(n)}": file.read_bytes() for n in range(5)}
    await client.close()
