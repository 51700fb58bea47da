"""A signing service and object store for the torture: keeps what is put, and misbehaves a little at random.

It signs `GET /analytics?tenant=…&relative_file_path=…` with a URL below `/objects/` and keeps what is `PUT` there, in
numbered files of its own. Its misbehaviour is what real ones show under load: refusals, errors, connections closed
at any point, an answer that comes late, or never though the object was kept. Its own code, sharing none with the
service: tenants' names are decoded as the signing protocol says (SPEC section 7).
"""

import contextlib
import hashlib
import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, quote, unquote, urlsplit

from benchmarks.torture_ledger import Stored, Tenant

TOKEN: Final = "torture-token"
_SIGNING: Final = ("served",) * 97 + ("unavailable", "failed", "cut")
_PUTTING: Final = ("served",) * 80 + ("late",) * 12 + ("unavailable", "failed", "cut", "unanswered") * 2
"""What becomes of a request, one of these at random."""
_LATE_SECONDS: Final = 0.1


class Store:
    """The signer and the store, on a port of its own from `start` until `stop`.

    Attributes:
        behave: Whether it serves whatever is asked; else it misbehaves.
        puts: How many uploads have begun.
        tally: How often it did what.
        changed: Keys that were put again with other content.
    """

    def __init__(self, directory: str, chance: random.Random) -> None:
        """Keep objects in `directory`, which is made."""
        self._directory = directory
        self._chance = chance
        self._objects: dict[tuple[Tenant, str], tuple[str, bytes]] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.store = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._received = 0
        self.behave = False
        self.puts = 0
        self.tally: Counter[str] = Counter()
        self.changed: list[str] = []

    @property
    def url(self) -> str:
        """What `uap_server_base` is to be."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> None:
        """Begin to serve."""
        os.makedirs(self._directory)
        self._thread.start()

    def stop(self) -> None:
        """Serve no more."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()

    def draw(self, choices: tuple[str, ...]) -> str:
        """What becomes of a request."""
        with self._lock:
            choice = self._chance.choice(choices)
            if self.behave:
                choice = "served"
            self.tally[choice] += 1
            self.puts += choices is _PUTTING
        return choice

    def keep(self, tenant: Tenant, key: str, data: bytes) -> None:
        """Keep an object."""
        digest = hashlib.sha256(data).digest()
        with self._lock:
            self._received += 1
            name = f"{self._received:06}.txt.gz"
            kept = self._objects.get((tenant, key))
            if kept is not None and kept[1] != digest:
                self.changed.append(f"{'~'.join(tenant)} {key}: {kept[0]}, then {name}")
            with open(os.path.join(self._directory, name), "wb") as file:
                file.write(data)
            with open(os.path.join(self._directory, "index.jsonl"), "a", encoding="utf-8") as index:
                index.write(json.dumps({"file": name, "tenant": tenant, "key": key}) + "\n")
            self._objects[tenant, key] = name, digest
            self.tally["kept again"] += kept is not None

    def __len__(self) -> int:
        return len(self._objects)

    def objects(self) -> Iterator[Stored]:
        """All that is kept."""
        for (tenant, key), (name, _) in list(self._objects.items()):
            with open(os.path.join(self._directory, name), "rb") as file:
                yield Stored(tenant, key, file.read())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def _store(self) -> Store:
        store: Store = self.server.store  # type: ignore[attr-defined]
        return store

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # a killed service says no goodbye
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass

    def do_GET(self) -> None:
        choice = self._store.draw(_SIGNING)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401)
        elif choice == "served":
            query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            place = f"{quote(query['tenant'], safe='')}/{quote(query['relative_file_path'], safe='')}"
            url = f"{self._store.url}/objects/{place}?X-Amz-SignedHeaders=host"
            self._answer(200, json.dumps({"url": url}).encode())
        else:
            self._misbehave(choice)

    def do_PUT(self) -> None:
        choice = self._store.draw(_PUTTING)
        length = int(self.headers["Content-Length"])
        if choice == "cut":
            self.rfile.read(length // 2)
            self._misbehave(choice)
            return
        data = self.rfile.read(length)
        if len(data) < length:
            self.close_connection = True
            return
        if choice in {"served", "late", "unanswered"}:
            tenant, key = map(unquote, urlsplit(self.path).path.removeprefix("/objects/").split("/"))
            self._store.keep(_tenant(tenant), key, data)
        if choice == "late":
            time.sleep(_LATE_SECONDS)
        if choice in {"served", "late"}:
            self._answer(200)
        else:
            self._misbehave(choice)

    def _misbehave(self, choice: str) -> None:
        if choice == "unavailable":
            self._answer(503, b"slow down", retry_after=True)
        elif choice == "failed":
            self._answer(500, b"a bad day")
        else:
            self.close_connection = True

    def _answer(self, status: int, body: bytes = b"", *, retry_after: bool = False) -> None:
        self.send_response(status)
        if retry_after:
            self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _tenant(text: str) -> Tenant:
    """A tenant from the signer's parameter: a `~` or `%` inside a part is percent-encoded."""
    organization, environment = (part.replace("%7E", "~").replace("%25", "%") for part in text.split("~"))
    return organization, environment
