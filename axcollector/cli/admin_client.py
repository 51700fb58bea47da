"""A client of one collector's admin port: one request at a time, over http:, https: or a Unix socket. Blocking."""

import contextlib
import http.client
import socket
import ssl
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from urllib.parse import urlsplit

import msgspec

from axcollector.cli.data_options import AdminOptions, read_token
from axcollector.cli.quarantine_client import url_of
from axcollector.config_endpoints import split_endpoint
from axcollector.core.errors import CommandFailed

if TYPE_CHECKING:
    from axcollector.config import Config

T = TypeVar("T")
TIMEOUT_SECONDS: Final = 30.0
_MAX_ANSWER_BYTES: Final = 1 << 26
_OK: Final = 200
_ACCEPTED: Final = 202
_UNAUTHORIZED: Final = 401
_NOT_FOUND: Final = 404
_UNIX: Final = "unix:"
_HOW: Final = "is it running, and is this its admin_listen? Say with --url where it listens, or name its --config"


class NotThere(CommandFailed):
    """The collector has no such thing, or is of a version that has no such page."""


class _Error(msgspec.Struct, frozen=True, rename={"code": "errorCode"}):
    """How a refusal is written."""

    code: str = ""
    reason: str = ""


class AdminClient:
    """Asks."""

    def __init__(self, url: str, token: str | None = None, ca_file: str | None = None) -> None:
        """Connect to nothing yet.

        Args:
            url: `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`.
            token: The admin token, where one is wanted.
            ca_file: Whose certificates are trusted, in place of the system's.

        Raises:
            CommandFailed: The URL is none.
            OSError: The file cannot be read.
        """
        self.url = url.rstrip("/")
        self._socket = url.removeprefix(_UNIX) if url.startswith(_UNIX) else None
        parts = urlsplit(url)
        try:
            self._port = parts.port
        except ValueError:
            self._port = -1
        is_usable = parts.scheme in {"http", "https"} and parts.hostname and self._port != -1 and not parts.username
        if self._socket is None and not is_usable:
            allowed = "allowed is a URL such as http://127.0.0.1:9001, or unix:/run/axcollector/admin.sock"
            raise CommandFailed(f"--url: {url!r} is not allowed; {allowed}")
        self._host, self._prefix = parts.hostname or "", parts.path.rstrip("/") if self._socket is None else ""
        self._context = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    @classmethod
    def of_options(cls, options: AdminOptions, settings: "Config") -> Self:
        """The client that the options and the configuration speak of.

        Raises:
            CommandFailed: They do not tell where to ask.
        """
        url = options["url"] or admin_url(settings)
        token = None
        if options["token-file"]:
            token = read_token(options["token-file"], CommandFailed)
        elif not options["url"] or options["config"]:
            token = settings.admin_token
            if settings.admin_token_file is not None:
                token = read_token(settings.admin_token_file, CommandFailed)
        return cls(url, token, options["ca-file"])

    def get(self, path: str, kind: type[T]) -> T:
        """The JSON document there.

        Raises:
            CommandFailed: Nobody answers, or it is refused, or is something else.
        """
        return self._asked("GET", path, None, {}, kind)

    def post(self, path: str, asked: object, header: str, kind: type[T]) -> T:
        """Have something done; what is said of it.

        Args:
            path: Which page.
            asked: What to say there, as JSON.
            header: The value of `X-Axcollector`, without which nothing is done.
            kind: What the answer is.

        Raises:
            CommandFailed: As with `get`. Where the connection breaks, it may be done all the same.
        """
        headers = {"Content-Type": "application/json", "X-Axcollector": header}
        return self._asked("POST", path, msgspec.json.encode(asked), headers, kind)

    def _asked(self, method: str, path: str, body: bytes | None, headers: dict[str, str], kind: type[T]) -> T:
        connection = self._connection()
        with contextlib.closing(connection):
            try:
                connection.request(method, self._prefix + path, body, {**self._headers, **headers})
                response = connection.getresponse()
                content = response.read(_MAX_ANSWER_BYTES)
            except (OSError, http.client.HTTPException) as exc:
                raise CommandFailed(
                    f"no collector answers at {self.url} ({exc or type(exc).__name__}): {_HOW}"
                ) from exc
        if response.status not in {_OK, _ACCEPTED}:
            raise self._refused(response.status, path, content)
        try:
            return msgspec.json.decode(content, type=kind)
        except (msgspec.MsgspecError, RecursionError) as exc:
            raise CommandFailed(f"what answers at {self.url}{path} is no collector of this version: {exc}") from exc

    def _refused(self, status: int, path: str, content: bytes) -> CommandFailed:
        try:
            said = msgspec.json.decode(content, type=_Error)
        except (msgspec.MsgspecError, RecursionError):
            said = _Error()
        reason = f"{status} {said.code}: {said.reason}".rstrip(": ")
        if status == _UNAUTHORIZED:
            how = "name the admin token's file with --token-file, or the collector's --config"
            return CommandFailed(f"the collector at {self.url} wants its admin token ({reason}): {how}")
        if status == _NOT_FOUND:
            return NotThere(f"{self.url}{path}: {reason}")
        return CommandFailed(f"the collector at {self.url} answers {reason}")

    def _connection(self) -> http.client.HTTPConnection:
        if self._socket is not None:
            return _UnixConnection(self._socket)
        if self._context is not None:
            return http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT_SECONDS, context=self._context)
        return http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_SECONDS)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect to it."""
        self.sock: Any = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_SECONDS)
        self.sock.connect(self._path)


def admin_url(settings: "Config") -> str:
    """Where a client on this machine finds the admin port.

    Raises:
        CommandFailed: The configuration does not tell, or there is none.
    """
    if not settings.admin_listen:
        raise CommandFailed("this collector has no admin port (admin_listen is empty), so it cannot be asked")
    kind, arguments, named = split_endpoint(settings.admin_listen)
    if kind == "unix":
        return _UNIX + named.get("address", arguments[0] if arguments else "")
    url = url_of(settings.admin_listen)
    if url is None:
        raise CommandFailed(
            f"admin_listen, {settings.admin_listen}, does not tell where to ask: use --url (and --ca-file for https:)"
        )
    return url
