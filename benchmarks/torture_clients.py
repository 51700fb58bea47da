"""The clients of the torture: each a thread with one kept-alive connection, sending as fast as it is answered.

Each draws what it sends from a generator of its own, so that the n-th batch of a client is the same in every run with
that seed. A batch is noted before its first byte is sent, and is sent once, whatever becomes of it. It counts as
acknowledged as soon as the status line says 200, even if the rest of the answer is cut.
"""

import gzip
import http.client
import json
import random
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.torture_ledger import Sent, Tenant, record

TENANTS: Final[Sequence[Tenant]] = (
    ("acme", "prod"),
    ("acme", "test"),
    ("ACME", "prod"),
    ("a~b", "c"),
    ("a", "b~c"),
    ("..", "."),
    (".", ".."),
    ("100%", "%7E"),
    ("100%25", "~"),
    ("../../etc", "passwd"),
    ("with space", "tab\tand\nline"),
    ("Ümlaut & Söhne", "größe"),
    ("蜂", "🐝"),
    ("-", "_"),
    ("null", "?x=1&y=#z"),
    ("o" * 120, "e" * 60),
)
"""Few enough that each has several batches an interval; names that could be confused, or leave their directory."""

TIMEOUT_SECONDS: Final = 20.0
_NOT_READY: Final = "Service is not initialized completely"
_GZIPPED: Final = 0.25
_NAMED_IN_BODY: Final = 0.2
_SIZES: Final = ((0.80, 3, 16), (0.96, 10, 64), (0.998, 50, 200), (1.0, 50, 6000))
"""Up to which chance a batch has how many records at most, with how many bytes of text each. The last kind is larger
than what the service takes apart at once, and large enough to be cut by a kill while it is written."""


class Target:
    """Where clients are to send, while there is somewhere."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self.port = 0

    def open(self, port: int) -> None:
        """The service listens there."""
        self.port = port
        self._open.set()

    def close(self) -> None:
        """It is gone."""
        self._open.clear()

    def wait(self, seconds: float) -> bool:
        """Whether there is somewhere to send, waiting for it if need be."""
        return self._open.wait(seconds)


class Client(threading.Thread):
    """One client.

    Attributes:
        sent: The batches it tried, in the order of their numbers.
        outcomes: How often which came of them.
        unexpected: Answers that no valid batch should get, a few of them.
        problem: What ended it early.
    """

    def __init__(self, index: int, seed: int, scopes: Mapping[Tenant, str], target: Target) -> None:
        """Prepare; `index` is its part of its records' names."""
        super().__init__(name=f"client {index}", daemon=True)
        self._index = index
        self._chance = random.Random(f"{seed}/client/{index}")
        self._scopes = scopes
        self._target = target
        self._ending = threading.Event()
        self._connection: http.client.HTTPConnection | None = None
        self.sent: list[Sent] = []
        self.outcomes: Counter[str] = Counter()
        self.unexpected: list[str] = []
        self.problem: Exception | None = None

    def end(self) -> None:
        """Send no more after the batch that is under way."""
        self._ending.set()

    def run(self) -> None:
        """Send until `end` is called."""
        try:
            while not self._ending.is_set():
                if self._target.wait(0.1):
                    self._step(self._target.port)
        except Exception as exc:  # noqa: BLE001 - nobody else would hear of it
            self.problem = exc
        finally:
            self._hang_up()

    def _step(self, port: int) -> None:
        """Send the next batch, on the connection that is open or on a new one."""
        try:
            if self._connection is None or self._connection.port != port:
                self._connect(port)
            if self._connection is not None and self._send(self._connection) != 200:
                self._ending.wait(0.01)
        except (OSError, http.client.HTTPException) as exc:
            self.outcomes["timeout" if isinstance(exc, TimeoutError) else "cut"] += 1
            self._hang_up()

    def _connect(self, port: int) -> None:
        self._hang_up()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
        try:
            connection.connect()
        except OSError:
            self.outcomes["no connection"] += 1
            self._ending.wait(0.005)
            return
        self._connection = connection

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _send(self, connection: http.client.HTTPConnection) -> int:
        path, body, headers = self._draw()
        sent = self.sent[-1]
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        if response.status == 200:
            sent.acknowledged = True
        self.outcomes[str(response.status)] += 1
        answer = response.read()
        if not _is_expected(response.status, answer, sent.count) and len(self.unexpected) < 10:
            self.unexpected.append(f"{sent.tenant}, {sent.count} records: {response.status} {answer[:200]!r}")
        if response.will_close:
            self._hang_up()
        return response.status

    def _draw(self) -> tuple[str, bytes, dict[str, str]]:
        """Choose the next batch, and note it: path, body and headers."""
        chance, number = self._chance, len(self.sent)
        tenant = chance.choice(TENANTS)
        kind = chance.random()
        most, longest = next((count, text) for limit, count, text in _SIZES if kind < limit)
        sent = Sent(tenant, chance.randint(1, most), chance.randint(longest // 2, longest))
        by_name, gzipped = chance.random() < _NAMED_IN_BODY, chance.random() < _GZIPPED
        content: dict[str, Any] = {"records": [record(self._index, number, i, sent) for i in range(sent.count)]}
        if by_name:
            content["organization"], content["environment"] = tenant
        body = json.dumps(content).encode()
        headers = {"Content-Type": "application/json"}
        if gzipped:
            body, headers["Content-Encoding"] = gzip.compress(body, 1), "gzip"
        self.sent.append(sent)
        return "/analytics" if by_name else f"/analytics/{self._scopes[tenant]}", body, headers


def _is_expected(status: int, answer: bytes, count: int) -> bool:
    """Whether a valid batch may be answered so: taken, no room, or not yet."""
    try:
        content = json.loads(answer)
    except ValueError:
        return False
    if status == 200:
        return bool(content == {"accepted": count, "rejected": 0})
    return status == 503 or (status == 500 and content.get("reason") == _NOT_READY)
