"""A client of one collector that sends one request at a time, and never one again by itself. Blocking."""

import contextlib
import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from axcollector.config_endpoints import split_endpoint
from axcollector.core import deflate
from axcollector.core.errors import QuarantineError

TIMEOUT_SECONDS: Final = 120.0
_MAX_ANSWER_BYTES: Final = 1 << 16
_PACKED_BYTES: Final = 1 << 20
"""Larger bodies are gzip'd: they hold one record that may have come so, and would be too large as it is."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a collector says of a batch."""

    status: int
    code: str = ""
    reason: str = ""
    accepted: int = 0
    quarantined: int = 0
    retry_after: float = 0.0


class Client:
    """Sends batches.

    Attributes:
        url: Where the collector listens.
        base_path: Its `base_path`.
    """

    def __init__(self, url: str, base_path: str, token: str | None = None, ca_file: str | None = None) -> None:
        """Connect to nothing yet.

        Args:
            url: `http://HOST:PORT` or `https://HOST:PORT`; a path is put before each request's.
            base_path: What the paths of scopes begin with.
            token: Sent with each request.
            ca_file: Whose certificates are trusted, in place of the system's.

        Raises:
            QuarantineError: The URL is none.
            OSError: The file cannot be read.
        """
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in {"http", "https"} or not parts.hostname or port == -1:
            raise QuarantineError(f"--url: {url!r} is not allowed; allowed is a URL such as http://127.0.0.1:9000")
        self._host, self._port, self._prefix = parts.hostname, port, parts.path.rstrip("/")
        self._context = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self.url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self.base_path = base_path

    def post(self, path: str, body: bytes) -> Answer:
        """Send a batch.

        Raises:
            QuarantineError: Nobody answers. Where the request was sent already, it may have been taken.
        """
        body, headers = self._packed(body)
        connection = self._connected()
        with contextlib.closing(connection):
            try:
                # A collector that will not read such a body to its end has said so by then, and hung up.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    connection.request("POST", self._prefix + path, body, headers)
                response = connection.getresponse()
                content = response.read(_MAX_ANSWER_BYTES)
            except (OSError, http.client.HTTPException) as exc:
                raise QuarantineError(
                    f"the collector at {self.url} gave no answer ({exc or type(exc).__name__}): the last records that"
                    " were sent may have been taken, and stay in quarantine"
                ) from exc
        return _answer(response.status, content, response.getheader("Retry-After"))

    def _packed(self, body: bytes) -> tuple[bytes, Mapping[str, str]]:
        """A body as it is to be sent, and its headers."""
        if len(body) > _PACKED_BYTES:
            packer = deflate.packer()
            packed = packer.compress(body) + packer.flush()
            if len(packed) < len(body):
                return packed, {**self._headers, "Content-Encoding": "gzip"}
        return body, self._headers

    def _connected(self) -> http.client.HTTPConnection:
        connection = (
            http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_SECONDS)
            if self._context is None
            else http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT_SECONDS, context=self._context)
        )
        try:
            connection.connect()
        except OSError as exc:
            connection.close()
            raise QuarantineError(
                f"no collector answers at {self.url} ({exc}): start it, or say with --url where it listens"
            ) from exc
        return connection


def _answer(status: int, content: bytes, retry_after: str | None) -> Answer:
    """An answer, as far as it is one of a collector."""
    try:
        said: Any = json.loads(content)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        said = {}
    accepted, quarantined = said.get("accepted"), said.get("quarantined", 0)
    return Answer(
        status,
        str(said.get("errorCode", "")),
        str(said.get("reason", "")).encode(errors="replace").decode(),
        accepted if isinstance(accepted, int) else -1,
        quarantined if isinstance(quarantined, int) else -1,
        float(retry_after) if retry_after is not None and retry_after.isascii() and retry_after.isdigit() else 0.0,
    )


def url_of(listen: str) -> str | None:
    """Where a client on this machine finds who listens on an endpoint; None: that cannot be told from it."""
    kind, arguments, named = split_endpoint(listen)
    port = named.get("port", arguments[0] if arguments else "")
    if kind not in {"tcp", "tcp6"} or port == "0":
        return None
    host = named.get("interface", arguments[1] if kind == "tcp" and len(arguments) > 1 else "")
    if kind == "tcp6" and host in {"", "::"}:
        host = "::1"
    if host in {"", "0.0.0.0"}:  # noqa: S104 - nobody binds to it here
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
