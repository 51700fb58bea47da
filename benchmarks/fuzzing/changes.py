"""Target `changes`: whatever a change server or an embedding program tells, all of it is shown or none.

An input is read as an answer of a change server, as a snapshot in JSON, and as a list of changes whose parts may be of
any type. The oracle keeps tables as dicts and builds a catalog from what they come to.
"""

import io
import json
from collections.abc import Mapping
from typing import Any

from twisted.internet import defer
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher

from axcollector.core.catalog import Catalog
from axcollector.core.errors import SyncFailed
from axcollector.core.tables import APPS, COLUMNS, COMPANIES, DEVELOPERS, KEYS, MAPPER, PRODUCTS, SCOPES, Row
from axcollector.sync.events import Change, ChangeList, Operation, Snapshot
from axcollector.sync.listener import SyncListener
from axcollector.sync.rebuilding import Built
from axcollector.sync.transicator_json import JsonSnapshot
from axcollector.sync.transicator_protocol import Unusable, decode_page, effect_of
from benchmarks.fuzzing.target import Target

_IDS = ("", "1", "2", "3", "t", "u", "k", "é")
_INITIAL: tuple[tuple[str, dict[str, str | None]], ...] = (
    (SCOPES, {"id": "1", "scope": "t", "org": "acme", "env": "prod"}),
    (SCOPES, {"id": "2", "scope": "u", "org": "acme", "env": "prod"}),
    (PRODUCTS, {"tenant_id": "t", "id": "1", "name": "gold"}),
    (DEVELOPERS, {"tenant_id": "t", "id": "1", "username": "ann", "email": "ann@example.com"}),
    (COMPANIES, {"tenant_id": "t", "id": "1", "name": "inc"}),
    (APPS, {"tenant_id": "t", "id": "1", "name": "shop", "developer_id": "1", "company_id": None}),
    (APPS, {"tenant_id": "t", "id": "2", "name": "till", "developer_id": None, "company_id": "1"}),
    (MAPPER, {"tenant_id": "t", "appcred_id": "k", "app_id": "1", "apiprdt_id": "1", "status": "APPROVED"}),
)
Tables = dict[str, dict[tuple[str, ...], Row]]


def check(data: bytes) -> str:
    """Read it in three ways."""
    return f"{_page(data)}, {_snapshot(data)}, {_told(data)}"


def _page(data: bytes) -> str:
    """An answer of the change server is one or is refused; what its changes do is told or cannot be."""
    try:
        page = decode_page(data)
    except SyncFailed:
        return "no page"
    assert type(page.last).parse(str(page.last)) == page.last
    kinds = {f"{len(page.changes).bit_length()} bits of changes"}
    for change in page.changes:
        if change.table in KEYS:
            try:
                effect = effect_of(change, ("t",), lambda key: {**key, "name": "stored"})
            except Unusable:
                kinds.add("unusable")
            else:
                assert effect.removed is not None or effect.put is not None
                kinds.add("usable")
    _listen([Change(c.operation, c.table, c.new, c.old) for c in page.changes])
    return " ".join(sorted(kinds))


def _snapshot(data: bytes) -> str:
    snapshot = JsonSnapshot(io.BytesIO(data))
    try:
        count = sum(1 for _ in snapshot.rows())
    except SyncFailed:
        return "no snapshot"
    return f"a snapshot of {count.bit_length()} bits of rows"


def _told(data: bytes) -> str:
    """A list of `[operation, table, new row, old row]`, of whatever types they are."""
    try:
        found = json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return "no list"
    if not isinstance(found, list):
        return "no list"
    return _listen([_change(each) for each in found])


def _change(given: Any) -> Any:
    if not isinstance(given, list) or len(given) != 4:
        return given
    operation, table, new, old = given
    is_operation = isinstance(operation, int) and operation in (1, 2, 3)
    return Change(Operation(operation) if is_operation else operation, table, new, old)


class _Worker:
    """Builds the initial catalog, whatever file it is asked to read."""

    def run(self, function: Any, *arguments: Any) -> "defer.Deferred[Any]":
        catalog = Catalog()
        for table, row in _INITIAL:
            catalog.put(table, row)
        return defer.succeed(Built(catalog, ()))


def _listen(changes: list[Any]) -> str:
    """Tell a listener, and compare what it shows with what the tables come to."""
    bugs: list[LogEvent] = []
    globalLogPublisher.addObserver(bugs.append)
    try:
        catalog, shown = _tell(changes)
    finally:
        globalLogPublisher.removeObserver(bugs.append)
    assert [event for event in bugs if event.get("log_failure") is not None] == []
    is_usable = all(map(_is_usable, changes))
    assert shown == [is_usable]
    tables: Tables = {table: {} for table in COLUMNS}
    for table, row in _INITIAL:
        _put(tables, table, row)
    if is_usable:
        for change in changes:
            _apply(tables, change)
    built = Catalog()
    for table, rows in tables.items():
        for row in rows.values():
            built.put(table, row)
    _compare(catalog, built, changes if is_usable else [])
    return f"{len(changes).bit_length()} bits of {'usable' if is_usable else 'unusable'} changes told"


def _tell(changes: list[Any]) -> tuple[Catalog, list[bool]]:
    """The catalog afterwards, and what the listener says of the changes."""
    clock = Clock()
    listener = SyncListener(clock, _Worker())
    listener.startService()
    listener.snapshot_received(Snapshot("1", "registry"))
    shown: list[bool] = []
    listener.changes_received(ChangeList(changes)).addCallback(shown.append)
    while clock.getDelayedCalls():
        clock.advance(0)
    catalog = listener.catalog
    assert catalog is not None
    listener.stopService()
    return catalog, shown


def _is_usable(change: Any) -> bool:
    if not isinstance(change, Change) or not isinstance(change.operation, Operation):
        return False
    if not isinstance(change.table, str):
        return False
    needed = change.old_row if change.operation is Operation.DELETE else change.new_row
    rows = [row for row in (change.new_row, change.old_row) if row is not None]
    return needed is not None and all(
        isinstance(row, Mapping) and all(value is None or _is_text(value) for value in row.values()) for row in rows
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def _apply(tables: Tables, change: Change) -> None:
    if change.table not in tables:
        return
    if change.operation is not Operation.INSERT and change.old_row is not None:
        tables[change.table].pop(tuple(change.old_row.get(c) or "" for c in KEYS[change.table]), None)
    if change.operation is not Operation.DELETE and change.new_row is not None:
        _put(tables, change.table, change.new_row)


def _put(tables: Tables, table: str, row: Row) -> None:
    key = tuple(row.get(column) or "" for column in KEYS[table])
    if all(key):
        tables[table][key] = row


def _compare(one: Catalog, other: Catalog, changes: list[Change]) -> None:
    texts = {*_IDS}
    names = {("acme", "prod")}
    for change in changes:
        for row in (change.new_row or {}, change.old_row or {}):
            texts |= {value for value in row.values() if value}
            names.add((row.get("org") or "", row.get("env") or ""))
    few = sorted(texts)[:40]
    for text in few:
        assert one.tenant_of_scope(text) == other.tenant_of_scope(text)
        assert one.developers(text, few) == other.developers(text, few)
    for organization, environment in names:
        assert one.tenant_of_names(organization, environment) == other.tenant_of_names(organization, environment)
    assert one.counts() == other.counts()


def _row(**columns: str | None) -> dict[str, dict[str, str | None]]:
    return {name.replace("selector", "_change_selector"): {"value": value} for name, value in columns.items()}


def _page_of(*changes: Mapping[str, object]) -> bytes:
    page = {"lastSequence": "0.199b5a8.3", "firstSequence": "0.1.0", "changes": changes}
    return json.dumps(page, ensure_ascii=False, separators=(",", ":")).encode()


_OLD = _row(tenant_id="t", id="1")
_UNCHANGED = '"unchanged-toast-datum"'

CHANGES = Target(
    "changes",
    check,
    seeds=(
        _page_of(),
        _page_of({"operation": 2, "table": PRODUCTS, "newRow": _row(tenant_id="t", id="1", name="é", selector="t")}),
        _page_of(
            {"operation": 3, "table": APPS, "oldRow": _OLD},
            {"operation": 1, "table": APPS, "newRow": _row(tenant_id="t", id="1", name="a", developer_id="1")},
        ),
        _page_of(
            {"operation": 2, "table": APPS, "oldRow": _OLD, "newRow": _row(tenant_id="t", id="2", name=_UNCHANGED)}
        ),
        _page_of({"operation": 1, "table": SCOPES, "newRow": _row(id="3", scope="t", org="acme", env=None)}),
        _page_of({"operation": 2, "table": DEVELOPERS, "oldRow": _OLD, "newRow": _row(id="1", selector="u")}),
        json.dumps(
            {
                "snapshotInfo": "1",
                "tables": [{"name": PRODUCTS, "rows": [_OLD, _OLD]}, {"name": SCOPES, "rows": None}],
            }
        ).encode(),
        json.dumps(
            [
                [2, MAPPER, {"tenant_id": "t", "appcred_id": "k", "app_id": "2", "apiprdt_id": "1"}, None],
                [3, MAPPER, None, {"tenant_id": "t", "appcred_id": "k", "app_id": "1", "apiprdt_id": "1"}],
                [2, SCOPES, {"id": "3", "scope": "u", "org": "acme", "env": "prod"}, {"id": "1"}],
            ]
        ).encode(),
        json.dumps([[1, COMPANIES, {"tenant_id": "t", "id": "1", "name": 5}, None], 7, [9, 5, [], {}]]).encode(),
        json.dumps([[3, "kms.unheard_of", None, {"id": "\ud800"}], [1, PRODUCTS, None, None]]).encode(),
        b'[[3,"kms.app",null,{"tenant_id":"t","id":"\\ud800"}]]',
        b'{"x":' + b"[" * 3000,
    ),
    words=(
        *(
            b"{",
            b"}",
            b"[",
            b"]",
            b",",
            b":",
            b'"',
            b"null",
            b"1",
            b"2",
            b"3",
            b"[]",
            b"{}",
            b'""',
            b"\\ud800",
            b"\xff",
        ),
        *(
            f'"{name}"'.encode()
            for name in (*COLUMNS, "id", "tenant_id", "org", "env", "scope", "name", "app_id", "t", "k")
        ),
        *(
            b'"operation":',
            b'"table":',
            b'"newRow":',
            b'"oldRow":',
            b'{"value":"1"}',
            b'{"value":null}',
            b'"changes":[',
        ),
        *(
            b'"lastSequence":',
            b'"firstSequence":"0.0.0"',
            b'"snapshotInfo":',
            b'"tables":[',
            b'"rows":[',
            b'"company_id":',
        ),
        *(b'"\\"unchanged-toast-datum\\""', b'"_change_selector"', b"[" * 60, b"9" * 60, b"1" * 5000, b"[" * 1500),
    ),
)
