"""The token, snapshot and change servers in one, for tests: real tables, a real history; it misbehaves on command.

Made after the facts of the protocol and the answers recorded in `transicator_samples`. Which of the three a request
is for its path tells; every host of the in-memory agent leads here.
"""

import hashlib
import json
import os
import re
import sqlite3
import tempfile
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

Misbehaviour = Callable[[Request], bytes | int]
Row = dict[str, str | None]

CLUSTER = "cluster-1"
SAMPLES = Path(__file__).parent / "transicator_samples"
TOAST = '"unchanged-toast-datum"'

COLUMNS: dict[str, tuple[str, ...]] = {
    "edgex.apid_cluster": ("id", "name"),
    "edgex.data_scope": ("id", "apid_cluster_id", "scope", "org", "env", "org_scope", "env_scope"),
    "kms.developer": ("id", "tenant_id", "username", "first_name", "email"),
    "kms.app": ("id", "tenant_id", "name", "display_name", "company_id", "developer_id"),
    "kms.api_product": ("id", "tenant_id", "name", "description"),
    "kms.company": ("id", "tenant_id", "name"),
    "kms.company_developer": ("tenant_id", "company_id", "developer_id"),
    "kms.app_credential": ("id", "tenant_id", "status"),
    "kms.app_credential_apiproduct_mapper": ("tenant_id", "appcred_id", "app_id", "apiprdt_id", "status"),
}
"""The tables, and some of the columns that they have."""
KEYS: dict[str, tuple[str, ...]] = {
    "edgex.apid_cluster": ("id",),
    "edgex.data_scope": ("id",),
    "kms.company_developer": ("tenant_id", "company_id", "developer_id"),
    "kms.app_credential_apiproduct_mapper": ("tenant_id", "appcred_id", "app_id", "apiprdt_id"),
}
SELECTOR = "_change_selector"


def key_of(table: str, row: Mapping[str, str | None]) -> tuple[str | None, ...]:
    """The primary key of a row."""
    return tuple(row[column] for column in KEYS.get(table, ("id", "tenant_id")))


def answer(status: int, body: bytes = b"", **headers: str) -> Misbehaviour:
    """Answer this, whatever is asked; headers are written with `_` for `-`."""

    def answering(request: Request) -> bytes:
        request.setResponseCode(status)
        for name, value in headers.items():
            request.setHeader(name.replace("_", "-"), value)
        return body

    return answering


def never(request: Request) -> int:
    """Never answer."""
    return NOT_DONE_YET


def half(request: Request) -> int:
    """Answer half of what was announced, and hang up."""
    request.setHeader("Content-Length", "1000")
    request.write(b'{"lastSequence": "0.')
    request.transport.loseConnection()
    return NOT_DONE_YET


def recorded(name: str) -> Misbehaviour:
    """A recorded answer, verbatim."""
    content = (SAMPLES / name).read_bytes()
    if not name.endswith(".http"):
        return answer(200, content)
    head, _, body = content.replace(b"\r\n", b"\n").partition(b"\n\n")
    status, *lines = head.decode().split("\n")
    headers = dict(line.split(": ", 1) for line in lines)
    del headers["Content-Length"]
    return answer(int(status.split()[1]), body, **{name.replace("-", "_"): text for name, text in headers.items()})


@dataclass
class Asked:
    """A request that came."""

    what: str
    host: str
    headers: dict[str, str]
    arguments: dict[str, list[str]] = field(default_factory=dict)
    path: str = ""
    method: str = ""
    body: str = ""


@dataclass
class Entry:
    """One change of the history, for whoever asks for its selector."""

    number: int
    selector: str | None
    operation: int
    table: str
    new: Row | None
    old: Row | None

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "operation": self.operation,
            "table": self.table,
            "sequence": sequence(self.number),
            "txid": self.number,
        }
        for name, row in (("newRow", self.new), ("oldRow", self.old)):
            if row is not None:
                found[name] = {column: {"value": value, "type": 25} for column, value in row.items()}
        return found


def sequence(number: int) -> str:
    """A number as a sequence: such that text and number order differ."""
    return f"0.{number:x}.0"


class TransicatorServer:
    """The servers.

    Attributes:
        tables: Rows by table and primary key.
        asked: What was asked for.
        next: What becomes of the next requests, by what they ask for (token, snapshots, data, changes).
        later: What becomes of requests after so many good answers, likewise.
        token: The token that is good; each token given out is another one.
        lifetime: `expiresIn` of tokens.
        formats: What snapshots there are.
        etag: What is answered as the ETag of a SQLite snapshot in place of the true one.
        with_old_rows: Whether tables have REPLICA IDENTITY FULL.
        without_tables: Tables that snapshots do not have.
        first: The number of the first change that is remembered.
        overlap: How many changes that were told already are told again.
        before_data: Called before rows are put into a snapshot.
        after_data: Called after they were.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.clock = clock
        self.tables: dict[str, dict[tuple[str | None, ...], Row]] = {table: {} for table in COLUMNS}
        self.history: list[Entry] = []
        self.number = 0xFE
        self.first = self.number
        self.asked: list[Asked] = []
        self.next: defaultdict[str, deque[Misbehaviour]] = defaultdict(deque)
        self.later: dict[str, tuple[int, list[Misbehaviour]]] = {}
        self.token = ""
        self.tokens_given = 0
        self.lifetime: Any = 3600
        self.formats = {"json", "sqlite"}
        self.etag: str | None = None
        self.with_old_rows = True
        self.without_tables: set[str] = set()
        self.overlap = 0
        self.before_data: Callable[[], object] | None = None
        self.after_data: Callable[[], object] | None = None
        self._polls: list[tuple[Request, dict[str, list[str]]]] = []
        self.resource = _Everything(self._render)

    # The tables.

    def insert(self, table: str, selector: str, **columns: str | None) -> Row:
        """A new row."""
        row: Row = dict.fromkeys(COLUMNS[table]) | columns | {SELECTOR: selector}
        assert key_of(table, row) not in self.tables[table]
        self.tables[table][key_of(table, row)] = row
        self._happened(selector, 1, table, dict(row), None)
        return row

    def update(
        self, table: str, row: Mapping[str, str | None], toast: Iterable[str] = (), **columns: str | None
    ) -> Row:
        """Another content of a row; columns of `toast` are long texts that this does not change."""
        old = self.tables[table].pop(key_of(table, row))
        new = old | columns
        self.tables[table][key_of(table, new)] = new
        told = new | dict.fromkeys(toast, TOAST)
        self._happened(old[SELECTOR], 2, table, told, dict(old) if self.with_old_rows else None)
        return new

    def delete(self, table: str, row: Mapping[str, str | None]) -> None:
        """No such row any more; nobody is told where there is no REPLICA IDENTITY FULL."""
        old = self.tables[table].pop(key_of(table, row))
        self._happened(old[SELECTOR] if self.with_old_rows else None, 3, table, None, old)

    def purge(self) -> None:
        """Forget the history."""
        self.first = self.number
        self.history = []

    def somebody_elses(self) -> None:
        """A change that nobody asks for."""
        self._happened("somebody-else", 1, "kms.company", {"id": "1"}, None)

    def add_scope(self, scope_id: str, scope: str, cluster: str = CLUSTER) -> Row:
        """A tenant of a cluster."""
        return self.insert(
            "edgex.data_scope",
            cluster,
            id=scope_id,
            apid_cluster_id=cluster,
            scope=scope,
            org=f"org-{scope}",
            env="prod",
            org_scope=f"org-{scope}",
            env_scope=f"env-{scope}",
        )

    def _happened(self, selector: str | None, operation: int, table: str, new: Row | None, old: Row | None) -> None:
        self.number += 1
        self.history.append(Entry(self.number, selector, operation, table, new, old))
        waiting, self._polls = self._polls, []
        for request, arguments in waiting:
            if not request._disconnected and not request.finished:
                self._poll(request, arguments)

    # The requests.

    def of(self, what: str) -> list[Asked]:
        """The requests for this."""
        return [each for each in self.asked if each.what == what]

    def _render(self, request: Request) -> bytes | int:
        what = request.path.decode().strip("/").rpartition("/")[2]
        headers = {k.decode().lower(): v[0].decode() for k, v in request.requestHeaders.getAllRawHeaders()}
        arguments = {k.decode(): [each.decode() for each in v] for k, v in request.args.items()}
        what = {"accesstoken": "token"}.get(what, what)
        asked = Asked(what, headers["host"], headers, arguments)
        asked.path, asked.method = request.path.decode(), request.method.decode()
        asked.body = request.content.read().decode()
        self.asked.append(asked)
        if what in self.later and len(self.of(what)) > self.later[what][0]:
            self.next[what].extendleft(reversed(self.later.pop(what)[1]))
        if self.next[what]:
            return self.next[what].popleft()(request)
        if what == "token":
            return self._give_token(request)
        if headers.get("authorization") != f"Bearer {self.token}":
            return answer(401, b'{"code": "UNAUTHORIZED"}')(request)
        if not all(re.fullmatch("[0-9a-z_-]+", scope) for scope in arguments.get("scope", [])):
            return answer(400, b'{"code": "INVALID_SELECTOR"}')(request)
        serve = {"snapshots": self._redirect, "data": self._snapshot, "changes": self._poll}.get(what)
        return answer(404)(request) if serve is None else serve(request, arguments)

    def _give_token(self, request: Request) -> bytes:
        self.tokens_given += 1
        self.token = f"secret-token-{self.tokens_given}"
        return json.dumps({"accessToken": self.token, "expiresIn": self.lifetime}).encode()

    def _redirect(self, request: Request, arguments: dict[str, list[str]]) -> bytes:
        accepted = request.getHeader("accept")
        kind = {"application/json": "json", "application/transicator+sqlite": "sqlite"}.get(accepted)
        if kind not in self.formats:
            return answer(415)(request)  # type: ignore[return-value]
        selectors = "&".join(f"selector={scope}" for scope in arguments["scope"])
        location = f"/data?{selectors}&type={kind}"
        return answer(303, b"<a>See Other</a>", Location=location)(request)  # type: ignore[return-value]

    def _snapshot(self, request: Request, arguments: dict[str, list[str]]) -> bytes:
        if self.before_data is not None:
            self.before_data()
        rows = {
            table: [row for row in rows.values() if row[SELECTOR] in arguments["selector"]]
            for table, rows in self.tables.items()
            if table not in self.without_tables
        }
        version = f"{self.number}:{self.number}:"
        is_json = arguments["type"] == ["json"]
        content = json_snapshot(version, rows) if is_json else sqlite_snapshot(version, rows)
        if self.after_data is not None:
            self.after_data()
        if is_json:
            request.setHeader("Content-Type", "application/json")
            return content
        request.setHeader("Content-Type", "application/transicator+sqlite")
        request.setHeader("Transicator-Snapshot-TXID", version)
        request.setHeader("ETag", self.etag or f'"{hashlib.sha256(content).hexdigest()}"')
        return content

    def _poll(self, request: Request, arguments: dict[str, list[str]]) -> bytes | int:
        since = int(arguments.get("since", ["0.0.0"])[0].split(".")[1], 16)
        if "since" in arguments and "snapshot" in arguments and 0 < since < self.first:
            return self._give(request, recorded("changes-too-old.http")(request))
        limit = int(arguments["limit"][0])
        found = [e for e in self.history if e.number > since and e.selector in arguments["scope"]]
        if found and self.overlap:
            found = [e for e in self.history if e.number > since - self.overlap and e.selector in arguments["scope"]]
        last = found[limit - 1].number if len(found) > limit else self.number
        block = int(arguments["block"][0])
        if found or not block or self.first > since:
            changes = [entry.to_json() for entry in found[:limit]] or None
            return self._give(request, self._page(last, changes))
        if (request, arguments) not in self._polls:
            self._polls.append((request, arguments))
            over = self.clock.callLater(block, self._time_out, request)
            request.notifyFinish().addBoth(lambda _: over.cancel() if over.active() else None)
        return NOT_DONE_YET

    def _page(self, last: int, changes: Any) -> bytes:
        page = {"lastSequence": sequence(last), "firstSequence": sequence(self.first), "changes": changes}
        return json.dumps(page).encode()

    def _give(self, request: Request, body: bytes | int) -> int:
        assert isinstance(body, bytes)
        request.write(body)
        request.finish()
        return NOT_DONE_YET

    def _time_out(self, request: Request) -> None:
        self._polls = [each for each in self._polls if each[0] is not request]
        if not request._disconnected:
            self._give(request, self._page(self.number, None))


def json_snapshot(version: str, tables: Mapping[str, list[Row]]) -> bytes:
    """A snapshot as JSON: a null text is an empty one, and a table without rows has null."""
    found = [
        {
            "name": table,
            "rows": [{c: {"value": value or "", "type": 25} for c, value in row.items()} for row in rows] or None,
        }
        for table, rows in tables.items()
    ]
    return json.dumps({"snapshotInfo": version, "timestamp": "2026-11-23T20:44:15Z", "tables": found}).encode()


def sqlite_snapshot(version: str, tables: Mapping[str, list[Row]]) -> bytes:
    """A snapshot as a SQLite file, in WAL mode."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "snapshot")
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE _transicator_metadata (key varchar primary key, value varchar)")
        connection.execute("INSERT INTO _transicator_metadata VALUES ('snapshot', ?)", (version,))
        for table, rows in tables.items():
            name, columns = table.replace(".", "_"), (*COLUMNS[table], SELECTOR)
            key = ", ".join(KEYS.get(table, ("id", "tenant_id")))
            connection.execute(f"CREATE TABLE {name} ({', '.join(f'{c} text' for c in columns)}, primary key ({key}))")
            marks = ", ".join("?" * len(columns))
            connection.executemany(
                f"INSERT INTO {name} VALUES ({marks})", ([row.get(c) or "" for c in columns] for row in rows)
            )
        connection.close()
        return Path(path).read_bytes()


class _Everything(Resource):
    isLeaf = True  # noqa: N815 - as Twisted names it

    def __init__(self, render: Misbehaviour) -> None:
        super().__init__()
        self.render = render
