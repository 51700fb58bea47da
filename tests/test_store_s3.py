"""The store `s3://`: what is sent, what each refusal means, and where credentials come from; in memory."""

import gzip
import hashlib
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest
import pytest_twisted
from treq.testing import RequestTraversalAgent
from twisted.internet import defer
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, formatEvent
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import Site

from axcollector.core.errors import CredentialsRefused, EndpointUnavailable, FileRefused, UploadFailed
from axcollector.disk import Disk
from axcollector.stores.base import Store
from axcollector.stores.s3 import S3Store, error_code
from axcollector.stores.s3_credentials import CredentialCache, SessionCredentials
from axcollector.stores.s3_signing import Credentials, S3Signer
from axcollector.stores.transfer import MAX_ANSWER_BYTES, Transfer
from tests.fakes import HeldThread, SameThread, result_of
from tests.forward_proxy import PlainProxy
from tests.running import Running, until
from tests.signing_server import Misbehaviour, RawServer, answer, never, url_of
from tests.test_uploader import Place, refuse_all

NOW = 1_767_323_045
DATE = "Fri, 02 Jan 2026 03:04:05 GMT"
TENANT = "a%7Eb~test"
KEY = "date=2026-01-02/time=03-04-05/f.txt.gz"
OLD = Credentials("OLD", "old secret")
NEW = Credentials("NEW", "new secret", "token")
STORE = "store s3.test"


class Bucket(Resource):
    """Keeps what is put, if its credentials are the right ones.

    Attributes:
        objects: The bodies, by path as it came.
        headers: Of each request.
        next_answers: What becomes of the next requests; once empty, they are served.
        taken: The access keys that are taken.
    """

    isLeaf = True  # noqa: N815 - as Twisted names it

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, bytes] = {}
        self.headers: list[dict[str, str]] = []
        self.next_answers: deque[Misbehaviour] = deque()
        self.taken = {"OLD", "NEW"}

    def render(self, request: Request) -> bytes | int:
        headers = {k.decode().lower(): v[0].decode() for k, v in request.requestHeaders.getAllRawHeaders()}
        self.headers.append(headers)
        if self.next_answers:
            return self.next_answers.popleft()(request)
        if headers["authorization"].partition("Credential=")[2].partition("/")[0] not in self.taken:
            return refusal("InvalidAccessKeyId")(request)
        self.objects[request.uri.decode()] = request.content.read()
        return b""


def refusal(code: str, status: int = 403, **headers: str) -> Misbehaviour:
    """An error as S3 tells it."""
    xml = f'<?xml version="1.0"?>\n<Error><Code>{code}</Code><Message>no</Message></Error>'
    return answer(status, xml.encode(), **({"Date": DATE} | headers))


class Memory:
    """A store and its server, without a network."""

    def __init__(self, endpoint: str = "https://s3.test", look_up: Callable[[bool], Credentials] | None = None) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.bucket = Bucket()
        self.agent = RequestTraversalAgent(self.bucket)
        self.anew: list[bool] = []
        self.found: deque[Credentials] = deque([OLD])
        transfer = Transfer(self.clock, self.agent, Disk(), idle_seconds=60)
        signer = S3Signer("bucket", "prefix", "us-east-1", endpoint)
        self.cache = CredentialCache(self.clock, SameThread(), look_up or self.look_up, STORE, patience_seconds=60)
        self.store = S3Store(self.clock, SameThread(), Disk(), transfer, signer, self.cache)

    def look_up(self, anew: bool) -> Credentials:
        """The next that were found; the last of them again and again."""
        self.anew.append(anew)
        return self.found.popleft() if len(self.found) > 1 else self.found[0]

    def put(self, source: Path) -> "defer.Deferred[None]":
        """Put a file, and let everything happen that happens at once."""
        done = self.store.put(TENANT, KEY, str(source))
        for _ in range(100):
            self.clock.advance(0)
            self.agent.flush()
        return done

    def failure(self, source: Path) -> UploadFailed:
        """What a put fails with."""
        with pytest.raises(UploadFailed) as caught:
            result_of(self.put(source))
        return caught.value


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file to deliver."""
    path = tmp_path / "f.txt.gz"
    path.write_bytes(os.urandom(90_000))
    return path


@pytest.fixture
def memory() -> Iterator[Memory]:
    """In the end no delayed call may be left."""
    memory = Memory()
    yield memory
    assert memory.clock.getDelayedCalls() == []


def test_a_file_is_delivered(memory: Memory, source: Path) -> None:
    """Under its key, encoded as it was signed; the body is streamed, and over https not signed."""
    assert result_of(memory.put(source)) is None
    path = "/bucket/prefix/a%257Eb~test/date%3D2026-01-02/time%3D03-04-05/f.txt.gz"
    assert memory.bucket.objects == {path: source.read_bytes()}
    (headers,) = memory.bucket.headers
    assert headers["content-type"] == "application/x-gzip"
    assert headers["content-length"] == "90000"
    assert headers["host"] == "s3.test"
    assert headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    assert headers["x-amz-date"] == "20260102T030405Z"
    assert not headers.keys() & {"expect", "transfer-encoding", "x-amz-security-token", "x-amz-server-side-encryption"}
    signed = headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert [name for name in headers if name.startswith("x-amz-") and name not in signed] == []


def test_over_http_the_body_is_signed(source: Path) -> None:
    """Its digest is, so that nobody on the way can change it."""
    memory = Memory("http://S3.test:9000")
    result_of(memory.put(source))
    (headers,) = memory.bucket.headers
    assert headers["x-amz-content-sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert headers["host"] == "s3.test:9000"
    assert memory.store.authorities(TENANT) == ("store s3.test:9000",)


@pytest.mark.parametrize("endpoint", ["http://s3.test", "https://s3.test"])
def test_a_missing_file_is_refused(tmp_path: Path, endpoint: str) -> None:
    """It is of this file alone."""
    failure = Memory(endpoint).failure(tmp_path / "missing")
    assert type(failure) is FileRefused
    assert str(failure) == "the file cannot be read: No such file or directory"


@pytest.mark.parametrize("status", [200, 201, 204])
def test_successes(memory: Memory, source: Path, status: int) -> None:
    """These, and only these, mean that the file is there."""
    memory.bucket.next_answers.append(answer(status))
    assert result_of(memory.put(source)) is None


@pytest.mark.parametrize(
    ("said", "kind", "text"),
    [
        (refusal("AccessDenied"), UploadFailed, "answered 403 (AccessDenied)"),
        (refusal("NoSuchBucket", 404), UploadFailed, "answered 404 (NoSuchBucket)"),
        (refusal("InternalError", 500), UploadFailed, "answered 500 (InternalError)"),
        (refusal("RequestTimeout", 400), UploadFailed, "answered 400 (RequestTimeout)"),
        (answer(502, b"<html>"), UploadFailed, "answered 502"),
        (answer(202), UploadFailed, "answered 202"),
        (refusal("EntityTooLarge", 400), FileRefused, "answered 400 (EntityTooLarge)"),
        (refusal("KeyTooLongError", 400), FileRefused, "answered 400 (KeyTooLongError)"),
        (answer(413), FileRefused, "answered 413"),
        (refusal("InvalidAccessKeyId"), CredentialsRefused, "answered 403 (InvalidAccessKeyId): it does not take OLD"),
        (refusal("SignatureDoesNotMatch"), CredentialsRefused, "it does not take OLD"),
        (refusal("ExpiredToken", 400), CredentialsRefused, "it does not take OLD"),
        (refusal("TokenRefreshRequired", 400), CredentialsRefused, "it does not take OLD"),
        (answer(401), CredentialsRefused, "answered 401: it does not take OLD"),
        (
            refusal("RequestTimeTooSkewed", 403, Date="Fri, 02 Jan 2026 02:04:05 GMT"),
            CredentialsRefused,
            "answered 403 (RequestTimeTooSkewed): our clock differs from its own, +3600 s",
        ),
        (refusal("RequestTimeTooSkewed", 403, Date=""), CredentialsRefused, "by how much is not known"),
        (refusal("AccessDenied", 400, Date="Fri, 02 Jan 2026 03:14:05 GMT"), CredentialsRefused, "its own, -600 s"),
        (refusal("SlowDown", 503, Retry_After="7"), EndpointUnavailable, "answered 503"),
        (answer(429), EndpointUnavailable, "answered 429"),
        (
            refusal("PermanentRedirect", 301, X_Amz_Bucket_Region="eu-west-1", Location="https://else.test/"),
            UploadFailed,
            "in another region or at another endpoint (x-amz-bucket-region: eu-west-1)",
        ),
        (answer(307), UploadFailed, "(it says no x-amz-bucket-region)"),
        (
            refusal("AuthorizationHeaderMalformed", 400, X_Amz_Bucket_Region="<evil>"),
            UploadFailed,
            "(it says no x-amz-bucket-region)",
        ),
    ],
)
def test_what_answers_mean(memory: Memory, source: Path, said: Misbehaviour, kind: type[Exception], text: str) -> None:
    """Each is told in words that an operator can act on; nothing is sent twice, and no redirection is followed."""
    memory.bucket.next_answers.append(said)
    failure = memory.failure(source)
    assert type(failure) is kind
    assert str(failure).startswith(f"{STORE} answered ")
    assert text in str(failure)
    assert "secret" not in str(failure)
    assert len(memory.bucket.headers) == 1
    if isinstance(failure, CredentialsRefused | EndpointUnavailable):
        store: Store = memory.store
        assert (failure.authority,) == store.authorities(TENANT)


def test_retry_after_is_handed_on(memory: Memory, source: Path) -> None:
    """What a store that is overloaded asks for."""
    memory.bucket.next_answers.append(refusal("SlowDown", 503, Retry_After="7"))
    failure = memory.failure(source)
    assert isinstance(failure, EndpointUnavailable)
    assert failure.retry_after == 7


def test_a_store_that_never_answers(memory: Memory, source: Path) -> None:
    """A minute without progress is an attempt."""
    memory.bucket.next_answers.append(never)
    done = memory.put(source)
    memory.clock.advance(60)
    with pytest.raises(UploadFailed, match="nothing moved for 60 s"):
        result_of(done)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", ""),
        (b"<Error><Code>AccessDenied</Code></Error>", "AccessDenied"),
        (b"<Error>\n  <Code>\n NoSuchBucket </Code></Error>", "NoSuchBucket"),
        (b"<Code>" + b"x" * 65 + b"</Code>", ""),
        (b"<Code>&lol9;</Code>", ""),
        (b"<Code>\xff\xfe</Code><Code>Second</Code>", "Second"),
        (b"<Code>" * (MAX_ANSWER_BYTES // 6), ""),
        (b"<Code>" + b" " * MAX_ANSWER_BYTES, ""),
        (b'{"code": "AccessDenied"}', ""),
    ],
)
def test_codes_of_errors(body: bytes, expected: str) -> None:
    """Only what looks like a code is one; no XML is parsed, so none can do harm."""
    assert expected == error_code(body)


def test_credentials_are_looked_up_once_a_minute(memory: Memory, source: Path) -> None:
    """And used meanwhile."""
    memory.found = deque([OLD, NEW])
    for _ in range(5):
        result_of(memory.put(source))
    assert memory.anew == [False]
    memory.clock.advance(60)
    result_of(memory.put(source))
    result_of(memory.put(source))
    assert memory.anew == [False, False]
    assert "x-amz-security-token" not in memory.bucket.headers[4]
    assert memory.bucket.headers[-1]["x-amz-security-token"] == "token"
    signed = memory.bucket.headers[-1]["authorization"].partition("SignedHeaders=")[2].partition(",")[0]
    assert "x-amz-security-token" in signed.split(";")


def test_refused_credentials_are_looked_up_anew(memory: Memory, source: Path) -> None:
    """Before the next try, in all places; those that work are then kept."""
    memory.bucket.taken = {"NEW"}
    memory.found = deque([OLD, OLD, NEW])
    for _ in range(2):
        assert isinstance(memory.failure(source), CredentialsRefused)
    result_of(memory.put(source))
    result_of(memory.put(source))
    assert memory.anew == [False, True, True]


def test_late_news_of_old_credentials(memory: Memory, source: Path) -> None:
    """A refusal of those that are no longer used costs nothing."""
    memory.cache.refused(OLD)
    memory.found = deque([NEW])
    result_of(memory.put(source))
    memory.cache.refused(OLD)
    result_of(memory.put(source))
    assert memory.anew == [False]


class Slow:
    """A cache whose look-ups take their time."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.thread = HeldThread()
        self.found: deque[Credentials | Exception] = deque()
        self.anew: list[bool] = []
        self.cache = CredentialCache(self.clock, self.thread, self.look_up, STORE, patience_seconds=10)

    def look_up(self, anew: bool) -> Credentials:
        """The next that are found."""
        self.anew.append(anew)
        found = self.found.popleft()
        if isinstance(found, Exception):
            raise found
        return found

    def filled(self) -> "Slow":
        """With old credentials, just looked up."""
        first = self.cache.current()
        self.found.append(OLD)
        self.thread.step()
        assert result_of(first) == OLD
        return self


def test_all_wait_for_one_look_up() -> None:
    """However many they are; who is cancelled is forgotten."""
    slow = Slow()
    waiting = [slow.cache.current() for _ in range(3)]
    waiting[1].cancel()
    with pytest.raises(defer.CancelledError):
        result_of(waiting[1])
    assert len(slow.thread.jobs) == 1
    slow.found.append(OLD)
    slow.thread.step()
    assert [result_of(waiting[0]), result_of(waiting[2])] == [OLD, OLD]
    assert slow.clock.getDelayedCalls() == []


def test_nobody_waits_for_a_renewal() -> None:
    """While the old ones are good they are used; a renewal that fails is told, and tried again."""
    slow = Slow().filled()
    slow.clock.advance(60)
    assert result_of(slow.cache.current()) == OLD
    assert result_of(slow.cache.current()) == OLD
    assert len(slow.thread.jobs) == 1
    slow.found.append(NEW)
    slow.thread.step()
    assert result_of(slow.cache.current()) == NEW
    assert slow.thread.jobs == []


def test_a_renewal_that_fails(log_events: list[LogEvent]) -> None:
    """It is told once a try; after five minutes files wait for credentials that are good."""
    slow = Slow().filled()
    slow.clock.advance(299)
    assert result_of(slow.cache.current()) == OLD
    slow.found.append(CredentialsRefused(STORE, "credentials cannot be looked up: gone"))
    slow.thread.step()
    warnings = [formatEvent(event) for event in log_events if event["log_level"] is LogLevel.warn]
    assert warnings == ["credentials cannot be looked up: gone; those that are there are used"]
    slow.clock.advance(1)
    waiting = slow.cache.current()
    slow.found.append(CredentialsRefused(STORE, "credentials cannot be looked up: gone"))
    slow.thread.step()
    with pytest.raises(CredentialsRefused, match="gone"):
        result_of(waiting)


def test_a_look_up_that_hangs() -> None:
    """Who waits gives up; what is found later serves the next."""
    slow = Slow()
    waiting = slow.cache.current()
    slow.clock.advance(10)
    with pytest.raises(CredentialsRefused, match="takes longer than 10 s"):
        result_of(waiting)
    slow.found.append(OLD)
    slow.thread.step()
    assert result_of(slow.cache.current()) == OLD


def test_refused_while_they_are_renewed() -> None:
    """What was on its way may be the same ones: it is looked anew once more."""
    slow = Slow().filled()
    slow.clock.advance(60)
    assert result_of(slow.cache.current()) == OLD
    slow.cache.refused(OLD)
    waiting = slow.cache.current()
    slow.found.extend([OLD, NEW])
    slow.thread.step()
    assert not waiting.called
    slow.thread.step()
    assert result_of(waiting) == NEW
    assert slow.anew == [False, False, True]


class Frozen:
    """What botocore's chain gives: its frozen credentials, or what asking for them raises."""

    def __init__(self, access_key: str = "KEY", secret_key: str = "secret", token: str | None = None) -> None:
        self.access_key = access_key
        self.secret_key = secret_key
        self.token = token

    def get_frozen_credentials(self) -> "Frozen":
        """Itself."""
        return self


def test_the_chain_is_built_once_and_anew() -> None:
    """What was found renews itself; only refused credentials send us to all places again."""
    made: list[Frozen] = []

    def find() -> Frozen:
        made.append(Frozen(f"KEY{len(made)}", token=""))
        return made[-1]

    look_up = SessionCredentials(STORE, find)
    assert look_up(False) == Credentials("KEY0", "secret")
    assert look_up(False) == Credentials("KEY0", "secret")
    assert look_up(True) == Credentials("KEY1", "secret")


@pytest.mark.parametrize("found", [None, Frozen(secret_key=""), Frozen(access_key="")])
def test_no_credentials(found: Frozen | None) -> None:
    """None are found, or half of them: it pauses the store, and the next try looks again."""
    look_up = SessionCredentials(STORE, iter([found, Frozen()]).__next__)
    with pytest.raises(CredentialsRefused, match="there are no credentials") as caught:
        look_up(False)
    assert caught.value.authority == STORE
    assert look_up(False).access_key == "KEY"


@pytest.mark.parametrize(
    "problem",
    [
        botocore.exceptions.CredentialRetrievalError(provider="custom-process", error_msg="exit\nstatus 1"),
        botocore.exceptions.ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "AssumeRole"),
        botocore.exceptions.ProfileNotFound(profile="p"),
        RuntimeError("Credentials were refreshed, but the refreshed credentials are still expired."),
        OSError(13, "Permission denied"),
        ValueError("x" * 5000),
        KeyError(),
    ],
)
def test_credentials_that_cannot_be_looked_up(problem: Exception) -> None:
    """Whatever a provider of botocore raises pauses the store, in one line of bearable length."""

    def find() -> Any:
        raise problem

    with pytest.raises(CredentialsRefused, match="credentials cannot be looked up: ") as caught:
        SessionCredentials(STORE, find)(False)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_botocores_chain_is_asked(tmp_path: Path) -> None:
    """The environment of a process, and the files that it names, are places where credentials are."""
    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = FROMFILE\naws_secret_access_key = s\naws_session_token = t\n")
    program = (
        "from axcollector.stores.s3_credentials import SessionCredentials\n"
        "found = SessionCredentials('store')(False); print(found.access_key, found.secret_key, found.token)"
    )
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        "AWS_SHARED_CREDENTIALS_FILE": str(file),
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for more, expected in (
        ({}, "FROMFILE s t"),
        ({"AWS_ACCESS_KEY_ID": "FROMENV", "AWS_SECRET_ACCESS_KEY": "s"}, "FROMENV s None"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", program], env={**environment, **more}, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == expected


@pytest_twisted.ensureDeferred
async def test_an_early_success_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over real sockets, with credentials of the environment: who has not read the file is not believed to have it."""
    from twisted.internet import reactor

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "KEYID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    big = tmp_path / "big"
    big.write_bytes(b"0" * 30_000_000)
    server = RawServer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    port = reactor.listenTCP(0, server, interface="127.0.0.1")
    signer = S3Signer("bucket", endpoint_url=url_of(port))
    store = S3Store.over_network(reactor, SameThread(), Disk(), signer, timeout_seconds=30, concurrency=1)
    with pytest.raises(UploadFailed, match="answered 200 before it had all of the file"):
        await store.put(TENANT, KEY, str(big))
    assert b"Credential=KEYID/" in server.connections[0].received
    await store.close()
    await server.close()
    await defer.maybeDeferred(port.stopListening)


@pytest_twisted.ensureDeferred
async def test_a_collector_delivers_to_s3_by_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its configuration alone: the records of a batch are in the bucket, and the proxy has seen the request."""
    from twisted.internet import reactor

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "NEW")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    bucket, proxy = Bucket(), PlainProxy(reactor, "Basic bWU6aHVzaA==")
    ports = [reactor.listenTCP(0, factory, interface="127.0.0.1") for factory in (Site(bucket), proxy)]
    running = Running(
        tmp_path,
        store="s3://bucket/prefix",
        s3_endpoint_url=url_of(ports[0]),
        s3_region="eu-west-1",
        upload_proxy=url_of(ports[1]).replace("//", "//me:hush@"),
    )
    await running.start()
    await running.send(await running.scope("acme", "test"), ['{"client_received_start_timestamp": 1}'])
    await until(lambda: bucket.objects)
    await running.stop()
    ((path, body),) = bucket.objects.items()
    assert path.startswith("/bucket/prefix/acme~test/date%3D")
    assert gzip.decompress(body).count(b"\n") == 1
    assert [url.decode() for url in proxy.seen] == [url_of(ports[0]) + path]
    assert "/eu-west-1/s3/aws4_request" in bucket.headers[0]["authorization"]
    for port in ports:
        await defer.maybeDeferred(port.stopListening)


def test_refused_credentials_cost_no_attempt(tmp_path: Path) -> None:
    """The uploader pauses the store; a file that is refused is an attempt of its bucket, as any failure."""
    place = Place(tmp_path)
    bucket = place.stage("acme~test", "a").name
    place.store.refuse = refuse_all(CredentialsRefused(place.store.AUTHORITY, "it does not take KEY"))
    uploader = place.make(max_attempts=1, failed_retry_batch=0)
    uploader.startService()
    place.clock.pump([5] * 10)
    (pause,) = uploader.status().paused
    assert (pause.authority, pause.reason) == (place.store.AUTHORITY, "it does not take KEY")
    assert uploader.status().counts.failed_tries == 0
    place.store.refuse = refuse_all(FileRefused("too large"))
    place.clock.pump([5] * 70)
    assert place.left("failed") == [bucket, f"{bucket}/a.txt.gz"]
    result_of(uploader.stopService())


def test_a_missing_library_is_told_at_start(tmp_path: Path) -> None:
    """In one line that says what to install, with status 1 and no traceback; `file:` needs no such library."""
    program = (
        "import sys\n"
        "sys.modules['botocore'] = None\n"
        "from twisted.application.twist._twist import Twist\n"
        "Twist.main(['twist', 'axcollector', '--store', sys.argv[1], '--listen', 'bogus:1'])\n"
    )
    told = {}
    for store in ("s3://bucket/prefix", f"file:{tmp_path}/store"):
        done = subprocess.run(
            [sys.executable, "-c", program, store], cwd=tmp_path, capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        )  # fmt: skip
        assert done.returncode == 1
        assert "Traceback" not in done.stderr + done.stdout
        told[store.partition(":")[0]] = done.stderr.strip()
    assert told["s3"] == (
        "axcollector cannot start: store: 's3://bucket/prefix' needs botocore, which is not installed;"
        " allowed is file:PATH, or s3: after pip install 'axcollector[s3]'"
    )
    assert "bogus" in told["file"]
