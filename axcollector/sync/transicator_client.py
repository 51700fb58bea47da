"""The sync protocol over HTTP: a token, a snapshot into a file, changes. What goes wrong is mapped here, once.

Everything that is no proper answer is a `SyncFailed` that says who gave none and why. Neither the token nor the secret
nor a URL is in it, since URLs that we are redirected to may hold signatures.

Redirections of a GET are followed, a few of them. Our headers, the token among them, go to the origin that was asked
first and to no other; none is followed from https to http. The token's request is not redirected at all.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from urllib.parse import SplitResult, urlencode, urljoin, urlsplit

import msgspec
from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers

from axcollector.core.errors import AnswerTooLong, Paused, SnapshotTooOld, SyncFailed, TokenRefused, UploadFailed
from axcollector.stores.limits import Patience
from axcollector.stores.receiving import Sink
from axcollector.stores.transfer import Answer, Question, Transfer

MAX_REDIRECTS: Final = 5
MAX_CHANGES_BYTES: Final = 1 << 26
MAX_SNAPSHOT_BYTES: Final = 1 << 36
"""No snapshot is longer; the disk's room is what really limits it."""
CHANGES_GRACE_SECONDS: Final = 15.0
"""How much longer than its block a request for changes may take."""
TOKEN_PATIENCE: Final = Patience(30.0, 30.0)
SNAPSHOT_PATIENCE: Final = Patience(60.0, None, first_seconds=300.0)

TOKEN_SERVER: Final = "the token server"  # noqa: S105 - a name
SNAPSHOT_SERVER: Final = "the snapshot server"
CHANGE_SERVER: Final = "the change server"

YEAR_SECONDS: Final = 365 * 86_400.0
_PLUGINS: Final = '[{"name":"apidAnalytics","schemaVer":"0.0.1"}]'
_SQLITE: Final = "application/transicator+sqlite"
_JSON: Final = "application/json"
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_PORTS: Final = {"http": 80, "https": 443}
_TOKEN: Final = re.compile(r"[!-~]{1,16384}")
_PRINTABLE: Final = re.compile(r"[!-~]+")
_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,60}")


@dataclass(frozen=True, slots=True)
class Servers:
    """Who is asked, and as whom; values are those of the configuration keys of these names."""

    proxy_server_base: str
    snapshot_server_base: str
    change_server_base: str
    cluster_id: str
    instance_id: str
    instance_name: str
    consumer_key: str = field(repr=False)
    consumer_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Token:
    """A token, and how many seconds it lives from when it was asked for."""

    text: str = field(repr=False)
    lifetime_seconds: float


@dataclass(frozen=True, slots=True)
class SnapshotHeaders:
    """What the headers of a snapshot say of it; "" where they say nothing."""

    etag: str
    txid: str


class _TokenAnswer(msgspec.Struct, rename="camel"):
    access_token: str
    expires_in: float = 0.0


class _ErrorAnswer(msgspec.Struct):
    code: str = ""


class TransicatorClient:
    """Asks the three servers. Every coroutine raises `SyncFailed` where there is no proper answer."""

    def __init__(
        self,
        clock: IReactorTime,
        transfer: Transfer,
        servers: Servers,
        max_snapshot_bytes: int = MAX_SNAPSHOT_BYTES,
    ) -> None:
        self._clock = clock
        self._max_snapshot_bytes = max_snapshot_bytes
        self._transfer = transfer
        self._servers = servers

    async def token(self, *, is_registered: bool) -> Token:
        """Ask for a token.

        Args:
            is_registered: Whether this instance has had one before.
        """
        servers = self._servers
        form = {
            "client_id": servers.consumer_key,
            "client_secret": servers.consumer_secret,
            "grant_type": "client_credentials",
        }
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": _JSON,
            "display_name": servers.instance_name,
            "apid_instance_id": servers.instance_id,
            "apid_cluster_Id": servers.cluster_id,
            "status": "ONLINE",
            "plugin_details": _PLUGINS,
            "updated_at_apid" if is_registered else "created_at_apid": self._now(),
        }
        url = _joined(servers.proxy_server_base, "accesstoken")
        question = Question(TOKEN_SERVER, "POST", url, _headers(headers))
        answer = await self._ask(question, TOKEN_PATIENCE, urlencode(form).encode())
        if answer.status != 200:
            raise _unexpected(TOKEN_SERVER, answer)
        try:
            found = msgspec.json.decode(answer.body, type=_TokenAnswer)
        except (ValueError, msgspec.MsgspecError, RecursionError):  # the token may be in their text
            found = _TokenAnswer("")
        if not answer.is_whole or not _TOKEN.fullmatch(found.access_token):
            raise SyncFailed("the token server's answer holds no token")
        lifetime = found.expires_in if 0 < found.expires_in < YEAR_SECONDS else YEAR_SECONDS
        return Token(found.access_token, lifetime)

    async def snapshot(self, token: str, scopes: Sequence[str], sink: Sink) -> SnapshotHeaders:
        """Ask for a snapshot, as a SQLite file or, where there is none, as JSON; its bytes go to the sink."""
        query = urlencode([("scope", scope) for scope in scopes])
        url = f"{_joined(self._servers.snapshot_server_base, 'snapshots')}?{query}"
        for accepted in (_SQLITE, _JSON):
            headers = self._common(token) | {"Accept": accepted}
            answer = await self._get(SNAPSHOT_SERVER, url, headers, SNAPSHOT_PATIENCE, self._max_snapshot_bytes, sink)
            if answer.status != 415:
                break
        if answer.status != 200:
            raise _unexpected(SNAPSHOT_SERVER, answer)
        if not answer.is_whole:
            raise SyncFailed("the snapshot server's answer is too long")
        return SnapshotHeaders(answer.header("ETag"), answer.header("Transicator-Snapshot-TXID"))

    async def changes(
        self, token: str, scopes: Sequence[str], *, limit: int, block_seconds: int, since: str = "", version: str = ""
    ) -> bytes:
        """Ask for changes.

        Args:
            token: The token.
            scopes: Whose changes.
            limit: How many at most.
            block_seconds: How long the server is to wait for the first one.
            since: The sequence after which they are to come; "" for the beginning.
            version: The snapshot that they are to amend, or "".

        Raises:
            SnapshotTooOld: The server cannot tell what has happened since.
            AnswerTooLong: They are too many for one answer.
        """
        query = [("block", str(block_seconds)), ("limit", str(limit))]
        query += [(name, value) for name, value in (("since", since), ("snapshot", version)) if value]
        query += [("scope", scope) for scope in scopes]
        url = f"{_joined(self._servers.change_server_base, 'changes')}?{urlencode(query)}"
        overall = block_seconds + CHANGES_GRACE_SECONDS
        headers = self._common(token) | {"Accept": _JSON}
        answer = await self._get(CHANGE_SERVER, url, headers, Patience(overall, overall), MAX_CHANGES_BYTES)
        if answer.status == 400 and _code_of(answer) == "SNAPSHOT_TOO_OLD":
            raise SnapshotTooOld("the change server says that our snapshot is too old")
        if answer.status != 200:
            raise _unexpected(CHANGE_SERVER, answer)
        if not answer.is_whole:
            raise AnswerTooLong("the change server's answer is too long")
        return answer.body

    async def _get(
        self,
        server: str,
        url: str,
        headers: Mapping[str, str],
        patience: Patience,
        limit_bytes: int,
        sink: Sink | None = None,
    ) -> Answer:
        """Follow redirections to an answer."""
        first = urlsplit(url)
        for _ in range(MAX_REDIRECTS + 1):
            is_ours = _origin(urlsplit(url)) == _origin(first)
            sent = headers if is_ours else {"Accept": headers["Accept"]}
            question = Question(server, "GET", url, _headers(sent), limit_bytes, sink)
            answer = await self._ask(question, patience)
            if answer.status == 401 and is_ours:
                message = f"{server} does not know our token (it answered 401)"
                raise TokenRefused(message)
            if answer.status not in _REDIRECTS:
                return answer
            url = _redirected(server, url, answer)
        message = f"{server} redirects too often"
        raise SyncFailed(message)

    async def _ask(self, question: Question, patience: Patience, body: bytes | None = None) -> Answer:
        try:
            return await self._transfer.ask(question, patience, body)
        except Paused as exc:
            raise SyncFailed(str(exc), exc.retry_after) from None
        except UploadFailed as exc:
            raise SyncFailed(str(exc)) from None
        except ValueError:  # of the URL, which may hold a signature
            message = f"{question.authority} has an address that cannot be asked"
            raise SyncFailed(message) from None

    def close(self) -> "defer.Deferred[None]":
        """Close the connections that are kept. Fires when they are closed."""
        return self._transfer.close()

    def _common(self, token: str) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {token}",
            "apid_instance_id": self._servers.instance_id,
            "apid_cluster_Id": self._servers.cluster_id,
            "updated_at_apid": self._now(),
        }

    def _now(self) -> str:
        return datetime.fromtimestamp(self._clock.seconds(), UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _headers(headers: Mapping[str, str]) -> Headers:
    return Headers({name: [value] for name, value in headers.items()})


def _joined(base: str, path: str) -> str:
    """A server's URL and a path below it, without double slashes."""
    scheme, _, rest = base.partition("://")
    return f"{scheme}://{re.sub('/+', '/', f'{rest}/{path}')}"


def _origin(url: SplitResult) -> tuple[str, str, int | None]:
    return url.scheme, url.hostname or "", url.port or _PORTS.get(url.scheme)


def _redirected(server: str, url: str, answer: Answer) -> str:
    """Where an answer leads to."""
    location = answer.header("Location")
    try:
        target = urljoin(url, location)
        parts = urlsplit(target)
        is_usable = bool(_PRINTABLE.fullmatch(location)) and parts.scheme in _PORTS and bool(_origin(parts)[1])
    except ValueError:
        is_usable = False
    if not is_usable or parts.username is not None:
        message = f"{server} redirects to nowhere"
        raise SyncFailed(message)
    if parts.scheme == "http" and urlsplit(url).scheme == "https":
        message = f"{server} redirects from https to http, which is not followed"
        raise SyncFailed(message)
    return target


def _code_of(answer: Answer) -> str:
    """The code in the JSON of an error, or ""; nothing that could not stand in a log line."""
    try:
        code = msgspec.json.decode(answer.body, type=_ErrorAnswer).code
    except (ValueError, msgspec.MsgspecError, RecursionError):
        return ""
    return code if _CODE.fullmatch(code) else ""


def _unexpected(server: str, answer: Answer) -> SyncFailed:
    code = _code_of(answer)
    return SyncFailed(f"{server} answered {answer.status}" + (f" ({code})" if code else ""))
