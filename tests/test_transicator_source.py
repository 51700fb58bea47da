"""The transicator source against its servers: each fact of the protocol, and each of its traps."""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from twisted.internet import defer
from twisted.logger import LogEvent, LogLevel
from twisted.web.http import Request

from axcollector.core.model import DeveloperInfo, Tenant
from axcollector.core.tables import COLUMNS
from axcollector.disk import AppendFile, Disk
from axcollector.registry import Registry
from axcollector.sync.events import Operation, Snapshot
from tests.conftest import LoggedFailures
from tests.fakes import result_of
from tests.transicator_server import (
    CLUSTER,
    SAMPLES,
    TOAST,
    Misbehaviour,
    answer,
    half,
    json_snapshot,
    never,
    recorded,
)
from tests.transicator_world import POLL_INTERVAL, Ended, Told, World, quick_directory

DEVELOPER = {"id": "d1", "tenant_id": "tenant-a"}


@pytest.fixture
def world() -> Iterator[World]:
    """A world that has not begun; in the end nothing may be left to happen."""
    with quick_directory() as directory:
        world = World(Path(directory) / "data")
        yield world
        world.stop()
        assert world.leftovers() == []


def with_a_key(world: World) -> World:
    """A world whose server has a developer, an app, a product and a key of tenant-a."""
    server, tenant = world.server, "tenant-a"
    server.insert("kms.developer", tenant, **DEVELOPER, username="ada", email="ada@x")
    server.insert("kms.app", tenant, id="a1", tenant_id=tenant, name="app", developer_id="d1")
    server.insert("kms.api_product", tenant, id="p1", tenant_id=tenant, name="gold", description="long")
    server.insert(
        "kms.app_credential_apiproduct_mapper",
        tenant,
        tenant_id=tenant,
        appcred_id="key",
        app_id="a1",
        apiprdt_id="p1",
        status="APPROVED",
    )
    return world


def info(world: World) -> DeveloperInfo:
    """What the catalog knows of the key."""
    assert world.listener.catalog is not None
    return world.listener.catalog.developer("tenant-a", "key")


def errors_in(events: list[LogEvent]) -> list[str]:
    """What was logged as an error, as a reader sees it."""
    return [str(event.get("trouble", event["log_format"])) for event in events if event["log_level"] == LogLevel.error]


def polls(world: World) -> list[dict[str, list[str]]]:
    """The arguments of the requests for changes."""
    return [each.arguments for each in world.server.of("changes")]


# Snapshots.


@pytest.mark.parametrize("formats", [{"sqlite"}, {"json"}, {"json", "sqlite"}])
def test_a_snapshot_in_either_format(world: World, formats: set[str]) -> None:
    """SQLite is asked for first, JSON where there is none (415); the catalog shows the same."""
    world.server.formats = formats
    with_a_key(world).start()
    assert world.kept() == world.expected()
    assert info(world) == DeveloperInfo("gold", "app", "ada@x", "ada")
    accepted = [each.headers["accept"] for each in world.server.of("snapshots")]
    both = ["application/transicator+sqlite", "application/json"]
    assert accepted == (both[:1] if "sqlite" in formats else both) * 2


def test_neither_format(world: World, log_events: list[LogEvent]) -> None:
    """A server that has neither is a trouble like any other."""
    world.server.formats = set()
    world.start().turn(60)
    assert errors_in(log_events) == ["the snapshot server answered 415"]
    world.server.formats = {"json"}
    world.turn(POLL_INTERVAL)
    assert world.kept() == world.expected()


def test_what_is_asked_first_to_last(world: World) -> None:
    """A token, the boot snapshot, the last sequence, the data snapshot, then changes since that sequence."""
    world.start()
    assert [each.what for each in world.server.asked] == [
        *("token", "snapshots", "data", "changes", "snapshots", "data", "changes")
    ]
    assert world.server.of("snapshots")[0].arguments == {"scope": [CLUSTER]}
    scopes = [CLUSTER, "env-tenant-a", "org-tenant-a", "tenant-a"]
    assert world.server.of("snapshots")[1].arguments == {"scope": scopes}
    assert polls(world) == [
        {"block": ["0"], "limit": ["1000"], "scope": [CLUSTER]},
        {"block": ["45"], "limit": ["1000"], "since": ["0.ff.0"], "snapshot": ["255:255:"], "scope": scopes},
    ]


def test_common_headers(world: World) -> None:
    """Both servers get the token and who we are, also where they redirect to on their own origin."""
    world.start()
    for each in world.server.asked[1:]:
        assert each.headers["authorization"] == "Bearer secret-token-1"
        assert each.headers["apid_instance_id"] == "instance-1"
        assert each.headers["apid_cluster_id"] == CLUSTER
        assert each.headers["updated_at_apid"] == "2023-11-14T22:13:20Z"


def test_scopes_are_those_of_our_cluster(world: World) -> None:
    """Rows of other clusters name none of ours, empty ones are none."""
    world.server.add_scope("scope-9", "tenant-z", cluster="another")
    world.server.insert(
        "edgex.data_scope", CLUSTER, id="scope-2", apid_cluster_id=CLUSTER, scope="tenant-b", org_scope=""
    )
    world.start()
    asked = world.server.of("snapshots")[-1].arguments["scope"]
    assert asked == [CLUSTER, "env-tenant-a", "org-tenant-a", "tenant-a", "tenant-b"]


def test_a_scope_that_servers_do_not_take_is_left_out(world: World, log_events: list[LogEvent]) -> None:
    """Selectors are lower case; one that is not would spoil the whole request with 400."""
    world.server.add_scope("scope-2", "Tenant-B")
    world.start().turn(100)
    assert world.server.of("changes")[-1].arguments["scope"] == [CLUSTER, "env-tenant-a", "org-tenant-a", "tenant-a"]
    assert len(errors_in(log_events)) == 3
    assert len(world.listener.snapshots) == 1


def test_a_table_without_rows_has_null_rows(world: World) -> None:
    """The recorded JSON snapshots are taken as they are: rows of `null`, and NULL text that is empty."""
    world.server.formats = {"json"}
    world.server.next["data"] += [recorded("snapshot.json"), recorded("snapshot.json")]
    world.start()
    assert world.listener.catalog is not None
    assert world.listener.catalog.tenant_of_scope("scope-uuid-1") == Tenant("tenant-a", "org-a", "env-a")
    found = world.listener.catalog.developer("tenant-a", "key-1")
    assert found == DeveloperInfo("prod1", "app1", "dev1@example.org", 'dev "one"')
    assert world.registries() == ["registry-756%3A756%3A.db"]


@pytest.mark.parametrize("headers", [{}, {"Transicator_Snapshot_TXID": "77:77:"}])
def test_a_recorded_sqlite_snapshot(world: World, headers: dict[str, str]) -> None:
    """It is read though it is in WAL mode; its version is that of the header, or that in its metadata."""
    content = (SAMPLES / "snapshot.sqlite").read_bytes()
    etag = hashlib.sha256(content).hexdigest()
    world.server.next["snapshots"] += [recorded("snapshot-redirect.http")] * 2
    world.server.next["data"] += [answer(200, content, ETag=etag, **headers)] * 2
    world.start()
    assert world.listener.catalog is not None
    found = world.listener.catalog.developer("tenant-a", "key-1")
    assert found == DeveloperInfo("prod1", "app1", "dev1@example.org", 'dev "one"')
    assert world.registries() == [f"registry-{'77%3A77%3A' if headers else '756%3A756%3A'}.db"]


@pytest.mark.parametrize("name", ["snapshot.json", "snapshot.sqlite"])
def test_recorded_changes_lead_to_the_next_recorded_snapshot(world: World, name: str) -> None:
    """An update, an insert, a delete and an update; applied again, they change nothing."""
    body = (SAMPLES / name).read_bytes()
    start = b'{"lastSequence": "0.199b5a8.0", "firstSequence": "0.199b5a8.0", "changes": null}'
    again = (
        (SAMPLES / "changes-upd-ins-del.json")
        .read_bytes()
        .replace(b'"0.199b5a8.3",\n  "first', b'"0.199b5a8.4",\n  "first')
    )
    world.server.next["data"] += [answer(200, body), answer(200, body)]
    world.server.next["changes"] += [answer(200, start), recorded("changes-upd-ins-del.json"), answer(200, again)]
    world.server.next["changes"] += [never]
    world.start()
    document = json.loads((SAMPLES / "snapshot-empty-tables-null-rows.json").read_bytes())
    rows = {table["name"]: table["rows"] or [] for table in document["tables"]}
    for table, columns in COLUMNS.items():
        if table.startswith("kms"):
            assert world.kept()[table] == {tuple(row[c]["value"] or "" for c in columns) for row in rows[table]}
    assert [change.operation for change in world.listener.lists[0].changes][2] is Operation.DELETE
    assert len(world.listener.lists) == 2


def test_a_wrong_etag_is_a_damaged_snapshot(world: World, log_events: list[LogEvent]) -> None:
    """The ETag is the file's SHA-256; a file that is another one is not used. Other kinds of ETags say nothing."""
    world.server.etag = f'"{"0" * 64}"'
    world.start().turn(5)
    assert world.listener.snapshots == []
    assert errors_in(log_events) == ["the snapshot is damaged: its SHA-256 is not what its ETag says"]
    world.server.etag = 'W/"5f-1a2b"'
    world.turn(POLL_INTERVAL)
    assert world.kept() == world.expected()


BAD_SNAPSHOTS: list[tuple[Misbehaviour, str]] = [
    (answer(200, b"<html>welcome</html>", Content_Type="text/html"), "the JSON snapshot is damaged"),
    (answer(200, b""), "the JSON snapshot is damaged"),
    (answer(200, b"{}"), "the snapshot has no usable version"),
    (answer(200, b'{"snapshotInfo": "", "tables": []}'), "the snapshot has no usable version"),
    (answer(200, b'{"snapshotInfo": "\\ud800", "tables": []}'), "the snapshot has no usable version"),
    (answer(200, b'{"snapshotInfo": "1\\n2", "tables": []}'), "the snapshot has no usable version"),
    (answer(200, b'{"snapshotInfo": "1", "tables": []}'), "the snapshot has no table edgex.data_scope"),
    (answer(200, b"SQLite format 3\0" + b"x" * 5000), "the snapshot cannot be used: file is not a database"),
    (answer(200, (SAMPLES / "snapshot.sqlite").read_bytes()[:40_000]), "the snapshot cannot be used: "),
    (answer(404, b"<html>"), "the snapshot server answered 404"),
    (answer(500, b'{"code": "DATABASE_ERROR"}'), "the snapshot server answered 500 (DATABASE_ERROR)"),
    (half, "the snapshot server gave no proper answer: "),
]


@pytest.mark.parametrize(("misbehaviour", "trouble"), BAD_SNAPSHOTS)
@pytest.mark.parametrize("which", [0, 1])
def test_what_is_no_snapshot(
    world: World, log_events: list[LogEvent], misbehaviour: Misbehaviour, trouble: str, which: int
) -> None:
    """The boot snapshot or the data snapshot: one line tells, and it is asked for again."""
    world.start_with("data", which, misbehaviour).turn(1)
    assert [error.startswith(trouble) for error in errors_in(log_events)] == [True]
    assert world.kept() == world.expected()
    assert world.registries() == ["registry-255%3A255%3A.db"]


def test_scopes_that_change_while_the_snapshot_is_taken(world: World) -> None:
    """It is taken again with those that its own rows name; the changes in between are not missed."""
    count = 0

    def meanwhile() -> None:
        nonlocal count
        count += 1
        if count == 2:
            world.server.add_scope("scope-2", "tenant-b")
            world.server.insert("kms.developer", "tenant-b", id="d2", tenant_id="tenant-b", username="bob")

    world.server.before_data = meanwhile
    world.start()
    assert world.kept() == world.expected()
    assert len(world.server.of("data")) == 3
    assert len(world.listener.snapshots) == 1


def test_scopes_that_never_settle(world: World, log_events: list[LogEvent]) -> None:
    """Snapshots are not taken without end: after some it waits, ever longer."""
    count = 1

    def meanwhile() -> None:
        nonlocal count
        count += 1
        world.server.add_scope(f"scope-{count}", f"tenant-{count}")

    world.server.before_data = meanwhile
    world.start().turn(100)
    assert len(world.server.of("data")) < 60
    assert "the scopes were others each time that a snapshot had been taken" in errors_in(log_events)
    world.server.before_data = None
    world.turn(POLL_INTERVAL)
    assert world.kept() == world.expected()


@pytest.mark.parametrize("moment", ["before_data", "after_data"])
def test_the_sequence_is_read_before_the_snapshot(world: World, moment: str) -> None:
    """What changes after it, in the snapshot or not, is told by changes: twice does no harm, nothing is missed."""
    with_a_key(world)
    count = 0

    def meanwhile() -> None:
        nonlocal count
        count += 1
        if count == 2:
            world.server.update("kms.developer", DEVELOPER, email="new@x")
            world.server.delete("kms.api_product", {"id": "p1", "tenant_id": "tenant-a"})

    setattr(world.server, moment, meanwhile)
    world.start()
    assert len(world.listener.lists[0].changes) == 2
    assert world.kept() == world.expected()


def test_the_last_sequence_is_at_the_end_of_all_pages(world: World) -> None:
    """Without a sequence the server tells all that it remembers, page by page; we go on after the last."""
    for number in range(1000):
        world.server.insert("edgex.apid_cluster", CLUSTER, id=str(number))
    world.start()
    assert [(each["block"], each.get("since")) for each in polls(world)] == [
        (["0"], None),
        (["0"], ["0.4e6.0"]),
        (["45"], ["0.4e7.0"]),
    ]


# Changes.


def test_changes_are_waited_for(world: World) -> None:
    """A long poll of 45 s, whose end without a change is no failure: `changes` is null."""
    with_a_key(world).start()
    world.turn(44)
    assert len(polls(world)) == 2
    world.turn(2)
    assert len(polls(world)) == 3
    world.server.update("kms.developer", DEVELOPER, email="new@x")
    world.turn()
    assert info(world).developer_email == "new@x"
    assert world.kept() == world.expected()
    assert polls(world)[-1]["since"] == ["0.104.0"]


def test_null_changes(world: World) -> None:
    """The recorded answer of a poll that timed out; nothing is told to the listener."""
    world.start_with("changes", 1, recorded("changes-empty.json"))
    assert world.listener.lists == []


def test_a_server_that_does_not_wait_is_not_asked_without_end(world: World) -> None:
    """Answers that come at once and have nothing new are a second apart."""
    page = b'{"lastSequence": "0.ff.0", "firstSequence": "0.fe.0", "changes": null}'
    world.server.next["changes"] += [answer(200, page)] * 100
    world.start().turn(20)
    assert 15 < len(polls(world)) < 25


def test_a_server_that_does_not_wait_but_moves_on(world: World) -> None:
    """Answers that come at once are a second apart too where only the sequence is new."""
    pages = [f'{{"lastSequence": "0.ff.{at:x}", "firstSequence": "0.fe.0", "changes": null}}' for at in range(1, 100)]
    world.start_with("changes", 1, *(answer(200, page.encode()) for page in pages)).turn(20)
    assert 15 < len(polls(world)) < 25


def test_inserts_updates_and_deletes(world: World) -> None:
    """All kinds of changes of all tables, in the file and in the catalog."""
    with_a_key(world).start()
    server, tenant = world.server, "tenant-a"
    company = server.insert("kms.company", tenant, id="c1", tenant_id=tenant, name="acme")
    server.update("kms.app", {"id": "a1", "tenant_id": tenant}, company_id="c1", developer_id=None)
    world.turn()
    assert info(world) == DeveloperInfo("gold", "app", "", "acme")
    server.update("kms.api_product", {"id": "p1", "tenant_id": tenant}, name="silver")
    server.update("kms.company", company, name="umbrella")
    server.delete("kms.developer", DEVELOPER)
    world.turn()
    assert info(world) == DeveloperInfo("silver", "app", "", "umbrella")
    assert world.kept() == world.expected()


def test_null_is_null(world: World) -> None:
    """In changes NULL is JSON null; to the catalog that is an empty text."""
    with_a_key(world).start()
    world.server.update("kms.developer", DEVELOPER, email=None)
    world.turn()
    assert info(world).developer_email == ""
    assert world.kept() == world.expected()


def test_an_app_of_a_company(world: World) -> None:
    """It has a company and no developer: the developer is the company's name, the e-mail is empty."""
    with_a_key(world).server.insert("kms.company", "tenant-a", id="c1", tenant_id="tenant-a", name="acme")
    world.server.update("kms.app", {"id": "a1", "tenant_id": "tenant-a"}, company_id="c1", developer_id=None)
    world.start()
    assert info(world) == DeveloperInfo("gold", "app", "", "acme")


def test_a_sequence_is_compared_as_numbers(world: World) -> None:
    """`0.100.0` is newer than `0.ff.0`, though as text it is not."""
    world.start()
    assert world.server.number == 0xFF
    world.server.insert("kms.company", "tenant-a", id="c1", tenant_id="tenant-a", name="acme")
    world.turn()
    assert world.kept() == world.expected()
    assert polls(world)[-1]["since"] == ["0.100.0"]


def test_last_sequence_moves_on_for_others_changes(world: World) -> None:
    """We go on from there, and nobody is told."""
    world.start()
    world.server.somebody_elses()
    world.turn(50)
    assert polls(world)[-1]["since"] == ["0.100.0"]
    assert world.listener.lists == []
    world.stop()
    world.start()
    assert polls(world)[-1]["since"] == ["0.100.0"]


@pytest.mark.parametrize("last", ["0.ff.0", "0.fe.0", "0.0.0"])
def test_an_answer_that_is_not_newer_is_ignored(world: World, last: str) -> None:
    """Whatever it says."""
    change = {"operation": 1, "table": "kms.company", "newRow": {"id": {"value": "x"}, "tenant_id": {"value": "t"}}}
    page = {"lastSequence": last, "firstSequence": "0.0.0", "changes": [change]}
    world.start_with("changes", 1, answer(200, json.dumps(page).encode())).turn(2)
    assert world.listener.lists == []
    assert world.kept() == world.expected()
    assert polls(world)[-1]["since"] == ["0.ff.0"]


@pytest.mark.parametrize("with_old_rows", [True, False])
def test_an_unchanged_toast_column_keeps_its_value(world: World, with_old_rows: bool) -> None:
    """The literal, quotes and all, stands for the old value, in the file and in what the listener is told."""
    world.server.with_old_rows = with_old_rows
    with_a_key(world).start()
    world.server.update("kms.api_product", {"id": "p1", "tenant_id": "tenant-a"}, toast=["name", "description"])
    world.turn()
    (change,) = world.listener.lists[-1].changes
    assert change.new_row == {"tenant_id": "tenant-a", "id": "p1", "name": "gold"}
    assert info(world).api_product == "gold"
    assert world.kept() == world.expected()


def test_a_toast_column_of_an_unknown_row_needs_a_snapshot(world: World) -> None:
    """Where neither the stored nor the old row tells, only a snapshot does."""
    with_a_key(world).start()
    row = {"id": {"value": "p2"}, "tenant_id": {"value": "tenant-a"}, "name": {"value": TOAST}}
    change = {"operation": 2, "table": "kms.api_product", "newRow": row}
    page = {"lastSequence": "0.200.0", "firstSequence": "0.fe.0", "changes": [change]}
    world.server.next["changes"].append(answer(200, json.dumps(page).encode()))
    world.turn(46)
    assert len(world.listener.snapshots) == 2
    assert world.kept() == world.expected()


def test_the_recorded_toast_and_new_scope(world: World) -> None:
    """The product keeps its description's fellow columns; the new scope means a new snapshot with its selectors."""
    start = b'{"lastSequence": "0.19dd990.0", "firstSequence": "0.19d4e50.0", "changes": null}'
    body = (SAMPLES / "snapshot.json").read_bytes()
    world.server.next["data"] += [answer(200, body), answer(200, body), answer(200, body)]
    world.server.next["changes"] += [answer(200, start), recorded("changes-toast-and-scope-insert.json")]
    world.start()
    assert len(world.listener.lists) == 1
    assert [change.table for change in world.listener.lists[0].changes] == ["kms.api_product", "edgex.data_scope"]
    assert len(world.listener.snapshots) == 2


@pytest.mark.parametrize("selector", ["somebody-else", None])
def test_a_row_moved_to_another_selector_is_deleted(world: World, selector: str | None) -> None:
    """It is delivered to the old selector only, as an update."""
    with_a_key(world).start()
    world.server.update("kms.developer", DEVELOPER, _change_selector=selector)
    world.turn()
    assert world.listener.lists[-1].changes[0].operation is Operation.DELETE
    assert world.kept() == world.expected()
    assert world.kept()["kms.developer"] == set()


def test_a_row_moved_between_our_selectors_stays(world: World) -> None:
    """As long as its new selector is one of ours it is an update like any other."""
    with_a_key(world).start()
    world.server.update("kms.developer", DEVELOPER, _change_selector="org-tenant-a", email="new@x")
    world.turn()
    assert info(world).developer_email == "new@x"


def test_tables_without_replica_identity_full(world: World) -> None:
    """They tell of updates without old rows, and of no deletes."""
    world.server.with_old_rows = False
    with_a_key(world).start()
    world.server.update("kms.developer", DEVELOPER, email="new@x")
    world.turn()
    assert world.kept() == world.expected()


def test_an_update_of_the_primary_key(world: World) -> None:
    """The old row's key goes."""
    with_a_key(world).start()
    world.server.update("kms.developer", DEVELOPER, id="d9")
    world.turn()
    assert world.kept() == world.expected()
    assert world.kept()["kms.developer"] == {("tenant-a", "d9", "ada", "ada@x")}


def test_changes_delivered_twice(world: World) -> None:
    """Replayed after a crash or by the server, inserts and deletes do no harm."""
    with_a_key(world).start()
    world.server.delete("kms.developer", DEVELOPER)
    world.server.insert("kms.company", "tenant-a", id="c1", tenant_id="tenant-a", name="acme")
    world.turn()
    entries = world.server.history[-2:]
    for number in (0x200, 0x201):
        page = {
            "lastSequence": f"0.{number:x}.0",
            "firstSequence": "0.fe.0",
            "changes": [each.to_json() for each in entries],
        }
        world.server.next["changes"].append(answer(200, json.dumps(page).encode()))
    world.turn(50)
    assert len(world.listener.lists) == 4
    assert world.kept() == world.expected()


def test_unknown_tables_are_ignored(world: World) -> None:
    """A table that the snapshot had and that is not ours: the sequence moves on, nobody is told."""
    world.start()
    world.server.insert("kms.company_developer", "tenant-a", tenant_id="tenant-a", company_id="c", developer_id="d")
    world.turn()
    assert world.listener.lists == []
    assert polls(world)[-1]["since"] == ["0.100.0"]
    assert len(world.listener.snapshots) == 1


# What calls for a new snapshot.


def test_snapshot_too_old(world: World) -> None:
    """The recorded 400 means a new data snapshot, at once."""
    with_a_key(world).start()
    world.server.next["changes"].append(recorded("changes-too-old.http"))
    world.turn(46)
    assert len(world.listener.snapshots) == 2
    assert world.kept() == world.expected()
    assert world.registries() == ["registry-259%3A259%3A-2.db"]


def test_a_purged_history(world: World) -> None:
    """Changes that were purged before we got them: the server says so, and a snapshot tells what they did."""
    with_a_key(world).start()
    world.stop()
    world.server.update("kms.developer", DEVELOPER, email="new@x")
    world.server.purge()
    world.start()
    assert world.kept() == world.expected()
    assert info(world).developer_email == "new@x"


def test_a_sequence_below_the_first_one(world: World) -> None:
    """`since=0.0.0` is never answered SNAPSHOT_TOO_OLD, even after a purge: we see it by `firstSequence`."""
    world.start_with("changes", 0, answer(200, b'{"lastSequence": "0.0.0", "firstSequence": "0.0.0"}'))
    assert polls(world)[1]["since"] == ["0.0.0"]
    assert len(world.listener.snapshots) == 2
    assert polls(world)[-1]["since"] == ["0.ff.0"]
    assert world.kept() == world.expected()


def test_a_table_that_the_snapshot_did_not_have(world: World) -> None:
    """A change to it means a new data snapshot."""
    world.server.without_tables = {"kms.company"}
    world.start()
    world.server.without_tables = set()
    world.server.insert("kms.company", "tenant-a", id="c1", tenant_id="tenant-a", name="acme")
    world.turn()
    assert len(world.listener.snapshots) == 2
    assert world.kept() == world.expected()


def test_a_table_that_no_snapshot_has(world: World) -> None:
    """Snapshots that do not help are taken ever more rarely; other changes arrive all the same."""
    world.server.without_tables = {"kms.company_developer"}
    with_a_key(world).start()
    for number in range(20):
        world.server.insert(
            "kms.company_developer", "tenant-a", tenant_id="tenant-a", company_id=str(number), developer_id="d"
        )
        world.turn(3)
    assert 3 < len(world.listener.snapshots) < 11
    world.server.update("kms.developer", DEVELOPER, email="new@x")
    world.turn(POLL_INTERVAL)
    assert world.kept() == world.expected()


def test_changed_scopes_need_a_snapshot(world: World) -> None:
    """A new row of `edgex.data_scope`, or one that goes, changes what we ask for, and what we keep."""
    with_a_key(world).start()
    row = world.server.add_scope("scope-2", "tenant-b")
    world.server.insert("kms.developer", "tenant-b", id="d2", tenant_id="tenant-b", username="bob")
    world.turn()
    assert "tenant-b" in polls(world)[-1]["scope"]
    assert world.kept() == world.expected()
    world.server.delete("edgex.data_scope", row)
    world.turn(1)
    assert "tenant-b" not in polls(world)[-1]["scope"]
    assert world.kept() == world.expected()
    assert len(world.registries()) == 1


def test_scope_rows_that_leave_the_scopes_as_they_are(world: World) -> None:
    """Another environment of the same tenant is a change like any other."""
    world.start()
    world.server.insert(
        "edgex.data_scope", CLUSTER, id="scope-2", apid_cluster_id=CLUSTER, scope="tenant-a", org="o", env="e"
    )
    world.turn()
    assert world.listener.catalog is not None
    assert world.listener.catalog.tenant_of_scope("scope-2") == Tenant("tenant-a", "o", "e")
    assert len(world.listener.snapshots) == 1


def test_what_calls_for_a_snapshot_is_not_forgotten(world: World) -> None:
    """Not by a crash between the change and the snapshot."""
    world.start()
    world.server.next["snapshots"] += [answer(500)] * 3
    world.server.add_scope("scope-2", "tenant-b")
    world.server.insert("kms.developer", "tenant-b", id="d2", tenant_id="tenant-b", username="bob")
    world.turn()
    assert world.kept() != world.expected()
    world.stop()
    world.start()
    world.turn(5)
    assert world.kept() == world.expected()


def test_a_snapshot_of_the_same_version_leaves_the_live_file_alone(world: World) -> None:
    """The live database is neither truncated nor overwritten: the new file has another name."""
    with_a_key(world).start()
    assert world.listener.registry is not None
    with Registry.open(world.listener.registry) as open_file:
        world.server.next["changes"].append(recorded("changes-too-old.http"))
        world.turn(46)
        assert open_file.tenant_of_scope("scope-1") is not None
    assert world.registries() == ["registry-259%3A259%3A-2.db"]
    world.server.next["changes"].append(recorded("changes-too-old.http"))
    world.turn(46)
    assert world.registries() == ["registry-259%3A259%3A.db"]


def test_snapshots_that_are_always_too_old(world: World) -> None:
    """Ever longer waits, no tight loop."""
    world.server.next["changes"] += [
        answer(200, b'{"lastSequence": "0.ff.0", "firstSequence": "0.ff.0"}'),
        recorded("changes-too-old.http"),
    ] * 500
    world.start().turn(300)
    assert 5 < len(world.listener.snapshots) < 16


# Failures.


FAILURES: list[tuple[Misbehaviour, str]] = [
    (answer(304), "the change server answered 304"),
    (answer(400, b'{"code": "SOMETHING_NEW"}'), "the change server answered 400 (SOMETHING_NEW)"),
    (answer(500, b'{"code": "SNAPSHOT_TOO_OLD"}'), "the change server answered 500 (SNAPSHOT_TOO_OLD)"),
    (answer(400, b"no"), "the change server answered 400"),
    (answer(400, b'{"code": "a b\\nc"}'), "the change server answered 400"),
    (answer(404), "the change server answered 404"),
    (answer(500), "the change server answered 500"),
    (answer(503), "the change server answered 503"),
    (answer(302), "the change server redirects to nowhere"),
    (answer(302, Location="http://:80/x"), "the change server redirects to nowhere"),
    (answer(302, Location="ftp://sync.test/x"), "the change server redirects to nowhere"),
    (answer(302, Location="http://me:secret-password@sync.test/x"), "the change server redirects to nowhere"),
    (answer(302, Location="http://sync.test:99999/x"), "the change server redirects to nowhere"),
    (answer(200, b"<html>Welcome to the proxy</html>"), "the change server's answer is no change list: "),
    (answer(200, b'{"lastSequence": 5}'), "the change server's answer is no change list: "),
    (half, "the change server gave no proper answer: "),
]


@pytest.mark.parametrize(("misbehaviour", "trouble"), FAILURES)
def test_anything_else_is_an_error_with_backoff(
    world: World, log_events: list[LogEvent], misbehaviour: Misbehaviour, trouble: str
) -> None:
    """304 and an unknown 400 among it: one line however often, no traceback, and it goes on afterwards."""
    with_a_key(world).start()
    world.server.next["changes"] += [misbehaviour] * 5
    world.server.update("kms.developer", DEVELOPER, email="new@x")
    world.turn(60)
    assert [error.startswith(trouble) for error in errors_in(log_events)] == [True]
    assert world.kept() == world.expected()
    assert world.source.trouble == ""
    assert "the sync gets on again" in [event["log_format"] for event in log_events]
    assert len(world.listener.snapshots) == 1


def test_a_server_that_hangs(world: World, log_events: list[LogEvent]) -> None:
    """Changes may take their block and 15 s; then it is asked again at once, having waited enough."""
    with_a_key(world).start_with("changes", 1, never)
    world.server.update("kms.developer", DEVELOPER, email="new@x")
    world.turn(59)
    assert len(polls(world)) == 2
    world.turn(2)
    assert errors_in(log_events) == ["the change server: nothing moved for 60 s"]
    assert world.kept() == world.expected()


def test_a_snapshot_server_that_hangs(world: World, log_events: list[LogEvent]) -> None:
    """Its first byte may take five minutes, after that a minute without progress is too long."""
    stuck: list[Request] = []

    def slow(request: Request) -> int:
        stuck.append(request)
        return never(request)

    world.server.next["data"].append(slow)
    world.start().turn(299)
    assert errors_in(log_events) == []
    stuck[0].write(b"{")
    world.turn(59)
    stuck[0].write(b" ")
    world.turn(59)
    assert errors_in(log_events) == []
    world.turn(2)
    assert errors_in(log_events) == ["the snapshot server: nothing moved for 60 s"]
    assert world.kept() == world.expected()


def test_backoff(world: World) -> None:
    """200 ms × 2ⁿ, with jitter, up to the poll interval."""
    world.server.next["snapshots"] += [answer(500)] * 14
    world.start()
    moments = [0.0]
    now = world.clock.seconds()
    while len(moments) < 14:
        world.turn(0.05, step=0.05)
        if len(world.server.of("snapshots")) > len(moments):
            moments.append(world.clock.seconds() - now)
    waits = [later - earlier for earlier, later in itertools.pairwise(moments)]
    longest = [min(0.2 * 2**n, POLL_INTERVAL) for n in range(13)]
    for wait, most in zip(waits, longest, strict=True):
        assert wait == pytest.approx(0.1 + 0.5 * (most - 0.1), abs=0.06)


def test_backoff_begins_anew_after_an_attempt_that_took_long(world: World) -> None:
    """After an attempt of a second or more the next comes soon, however many have failed."""

    def slow(request: Request) -> int:
        def fail() -> None:
            request.setResponseCode(500)
            request.finish()

        world.clock.callLater(1.5, fail)
        return never(request)

    world.server.next["snapshots"] += [slow] * 20
    world.start().turn(20, step=0.05)
    assert len(world.server.of("snapshots")) >= 11
    world.server.next.clear()
    world.turn(2)


@pytest.mark.parametrize(("asked", "expected"), [("20", 20), ("100000", 300), ("0", 0)])
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_obeyed(world: World, asked: str, expected: float, status: int) -> None:
    """As far as it is bearable: five minutes."""
    world.start_with("changes", 1, answer(status, Retry_After=asked))
    world.turn(expected - 1)
    assert len(polls(world)) == 2 or not expected
    world.turn(2)
    assert len(polls(world)) == 3


@pytest.mark.parametrize("what", ["snapshots", "data", "changes"])
def test_401_means_a_new_token(world: World, what: str) -> None:
    """From any server; the old one is used no more."""
    world.start_with(what, 1, answer(401)).turn(2)
    assert world.server.tokens_given == 2
    assert world.server.asked[-1].headers["authorization"] == "Bearer secret-token-2"
    assert world.kept() == world.expected()


def test_401_for_ever_is_no_tight_loop(world: World, log_events: list[LogEvent]) -> None:
    """New tokens are fetched ever more rarely."""
    world.server.next["snapshots"] += [answer(401)] * 1000
    world.start().turn(600)
    assert 5 < world.server.tokens_given < 25
    assert errors_in(log_events) == ["the snapshot server does not know our token (it answered 401)"]


def test_a_redirect_loop_ends(world: World, log_events: list[LogEvent]) -> None:
    """Five redirections are enough."""
    world.start_with("data", 1, *[answer(303, Location="/data?selector=x&type=json")] * 5)
    assert errors_in(log_events) == ["the snapshot server redirects too often"]
    world.turn(5)
    assert world.kept() == world.expected()


@pytest.mark.parametrize(
    "origin", ["http://other.test", "http://sync.test:8080", "//other.test", "http://sync.test.evil.test"]
)
def test_the_token_is_never_sent_to_another_origin(world: World, origin: str, log_events: list[LogEvent]) -> None:
    """Where a redirection leads elsewhere it is followed without the token, and without anything of ours."""
    content = json_snapshot("9:9:", {"edgex.data_scope": []})
    world.server.next["snapshots"] += [answer(303, Location=f"{origin}/signed/data?signature=confidential")] * 2
    world.server.next["data"] += [answer(200, content)] * 2
    world.start()
    elsewhere = world.server.of("data")
    assert [each.host for each in elsewhere] == [origin.partition("//")[2]] * 2
    for each in elsewhere:
        assert "authorization" not in each.headers
        assert "secret" not in repr(each.headers)
        assert not [name for name in each.headers if name.startswith("apid")]
    assert "confidential" not in repr(log_events)


def test_a_redirect_that_comes_back_has_the_token_again(world: World) -> None:
    """What counts is the origin, however it is spelt."""
    world.server.next["snapshots"].append(answer(303, Location="http://other.test/snapshots"))
    world.server.next["snapshots"].append(answer(302, Location="http://SYNC.test:80/v1/snapshots?scope=cluster-1"))
    world.start()
    asked = world.server.of("snapshots")
    assert ["authorization" in each.headers for each in asked[:3]] == [True, False, True]
    assert world.kept() == world.expected()


def test_a_401_of_another_origin_says_nothing_of_our_token(world: World, log_events: list[LogEvent]) -> None:
    """It was not sent there."""
    world.server.next["snapshots"].append(answer(303, Location="http://other.test/data"))
    world.server.next["data"].append(answer(401))
    world.start().turn(2)
    assert errors_in(log_events) == ["the snapshot server answered 401"]
    assert world.server.tokens_given == 1


@pytest.mark.parametrize("scheme", ["https", "HTTPS"])
def test_https_is_not_left_for_http(world: World, log_events: list[LogEvent], scheme: str) -> None:
    """A redirection to where everybody could read and change the snapshot is not followed."""
    world.base = f"{scheme}://sync.test"
    world.server.next["snapshots"].append(answer(303, Location="http://sync.test/data"))
    world.start().turn(2)
    assert errors_in(log_events) == ["the snapshot server redirects from https to http, which is not followed"]
    assert world.kept() == world.expected()


def test_too_many_changes_for_one_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Less is asked for at a time; more again once it works."""
    long = b'{"lastSequence": "' + b" " * (1 << 26)
    world.start_with("changes", 1, answer(200, long)).turn(2)
    assert [each["limit"] for each in polls(world)] == [["1000"], ["1000"], ["125"]]
    world.server.somebody_elses()
    world.turn(50)
    assert polls(world)[-1]["limit"] == ["1000"]


# Start, stop, refresh.


def test_a_restart_without_any_server(world: World) -> None:
    """What the last run left is served at once."""
    with_a_key(world).start()
    world.server.update("kms.developer", DEVELOPER, email="new@x")
    world.turn()
    world.stop()
    for what in ("token", "snapshots", "changes"):
        world.server.next[what] += [answer(500)] * 1000
    world.start()
    assert info(world).developer_email == "new@x"
    world.turn(100)
    assert "answered 500" in world.source.trouble


def test_a_restart_goes_on_from_its_sequence(world: World) -> None:
    """No snapshot is taken; what happened meanwhile is told by changes."""
    with_a_key(world).start()
    world.stop()
    world.server.update("kms.developer", DEVELOPER, email="new@x")
    world.start()
    assert len(world.server.of("snapshots")) == 2
    assert world.kept() == world.expected()
    assert info(world).developer_email == "new@x"


def test_another_cluster(world: World) -> None:
    """A file of another cluster is not used."""
    with_a_key(world).start()
    world.stop()
    world.cluster = "cluster-2"
    world.server.add_scope("scope-9", "tenant-z", cluster="cluster-2")
    world.start()
    assert world.kept() == world.expected()
    assert world.listener.catalog is not None
    assert world.listener.catalog.tenant_of_scope("scope-1") is None


def test_a_refresh(tmp_path: Path) -> None:
    """After its interval a snapshot of the current file is sent in any case, also while no server answers."""
    world = with_a_key(World(tmp_path, refresh=200)).start()
    world.turn(150)
    assert len(world.listener.snapshots) == 1
    world.turn(100)
    assert len(world.listener.snapshots) == 2
    for what in ("token", "snapshots", "changes"):
        world.server.next[what] += [answer(500)] * 1000
    world.turn(400)
    assert len(world.listener.snapshots) >= 3
    assert len(world.server.of("snapshots")) == 2
    world.stop()


def test_a_refresh_while_there_is_no_token(tmp_path: Path) -> None:
    """Waiting for a token does not keep the catalog from being rebuilt."""
    world = with_a_key(World(tmp_path, refresh=10)).start()
    world.stop()
    world.server.next["token"] += [answer(500)] * 1000
    world.start().turn(35)
    assert len(world.listener.snapshots) == 4
    world.stop()


def test_a_file_that_is_deleted(world: World) -> None:
    """A registry file that somebody removes is replaced by a new snapshot."""
    with_a_key(world).start()
    assert world.listener.registry is not None
    os.unlink(world.listener.registry)
    world.server.update("kms.developer", DEVELOPER, email="new@x")
    world.turn(5)
    assert world.kept() == world.expected()


def test_stopping_at_any_moment(tmp_path: Path) -> None:
    """It ends at once, whatever is under way, and can be started again."""
    for what, which in (("token", 0), ("snapshots", 0), ("data", 0), ("changes", 0), ("data", 1), ("changes", 1)):
        world = World(tmp_path / f"{what}-{which}")
        world.start_with(what, which, never)
        stopped = world.source.stopService()
        assert result_of(stopped) is None
        assert world.leftovers() == []
        world.source.startService()
        world.turn()
        assert world.kept() == world.expected()
        world.stop()


def test_stopping_before_starting(world: World) -> None:
    """It is nothing."""
    world.make()
    assert result_of(world.source.stopService()) is None
    world.start()


def test_secrets_are_not_told(world: World, log_events: list[LogEvent]) -> None:
    """Neither the token nor the secret is in the log, in a repr or in what keeps us from getting on."""
    for what in ("token", "snapshots", "data", "changes"):
        for status in (400, 401, 500, 503):
            world.server.next[what].append(answer(status, b'{"code": "secret-code"}', Location="/secret"))
    world.start().turn(600)
    assert world.kept() == world.expected()
    told: list[Any] = [log_events, world.source, world.token, world.token.current and world.token._token]
    told += [world.source._client._servers, world.server.tokens_given]
    assert "secret-token" not in repr(told)
    assert "secret-consumer" not in repr(told)


class Deaf(Told):
    """A listener that does not hear of snapshots until it listens."""

    is_deaf = True

    def snapshot_received(self, snapshot: Snapshot) -> "defer.Deferred[bool]":
        if self.is_deaf:
            self.snapshots.append(snapshot)
            return defer.Deferred()
        return super().snapshot_received(snapshot)


def test_changes_wait_until_the_snapshot_is_shown(world: World) -> None:
    """A change list is never told before: the catalog might be built from a later state than that it amends."""
    world.listener_class = Deaf
    world.start().turn(100)
    assert len(world.listener.snapshots) == 1
    assert len(polls(world)) == 1


def test_the_old_file_stays_until_the_new_one_is_shown(world: World) -> None:
    """Until then somebody may be reading it."""
    with_a_key(world).start()
    world.stop()
    world.listener_class = Deaf
    world.make()
    world.listener.is_deaf = False  # type: ignore[attr-defined]
    world.source.startService()
    world.turn()
    world.listener.is_deaf = True  # type: ignore[attr-defined]
    world.server.add_scope("scope-2", "tenant-b")
    world.turn(10)
    assert len(world.registries()) == 2


def test_a_file_that_goes_before_it_is_shown(world: World) -> None:
    """It is noticed, and another snapshot is taken."""
    world.listener_class = Deaf
    world.start()
    os.unlink(world.listener.snapshots[0].registry)
    world.listener.is_deaf = False  # type: ignore[attr-defined]
    world.turn(32)
    assert world.kept() == world.expected()


class Refusing(Told):
    """A listener that refuses the first events, and one that is broken at first."""

    problems: ClassVar[list[Any]] = []

    def snapshot_received(self, snapshot: Snapshot) -> "defer.Deferred[bool]":
        if self.problems:
            problem = self.problems.pop()
            if problem is not None:
                raise problem
            return defer.succeed(result=False)
        return super().snapshot_received(snapshot)


def test_a_snapshot_that_is_not_taken_is_sent_again(world: World, log_events: list[LogEvent]) -> None:
    """Whatever the reason."""
    world.listener_class = Refusing
    Refusing.problems = [None, None]
    world.start().turn(2)
    assert errors_in(log_events) == ["the catalog did not take a snapshot"]
    assert world.kept() == world.expected()


def test_a_bug_does_not_end_it(world: World, logged_failures: LoggedFailures) -> None:
    """It is logged as one, and tried again."""
    world.listener_class = Refusing
    Refusing.problems = [ZeroDivisionError()]
    world.start().turn(2)
    assert len(logged_failures.take(ZeroDivisionError)) == 1
    assert world.kept() == world.expected()


class FullFile(AppendFile):
    """A file on a full disk."""

    def write(self, data: bytes | memoryview) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


class FullDisk(Disk):
    """A disk that is full at first."""

    files = 2

    def create(self, path: str) -> AppendFile:
        file = super().create(path)
        if not path.endswith("download") or self.files <= 0:
            return file
        self.files -= 1
        file.close()
        return FullFile(path, os.open(path, os.O_RDWR))


def test_a_full_disk(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """It is told, and tried again."""
    world = World(tmp_path, disk=FullDisk()).start().turn(2)
    assert errors_in(log_events) == ["the snapshot cannot be stored: No space left on device"]
    assert world.kept() == world.expected()
    world.stop()


def test_a_snapshot_that_is_too_long(world: World, log_events: list[LogEvent]) -> None:
    """What is longer than any snapshot is not received."""
    world.max_snapshot_bytes = 100
    world.start()
    assert errors_in(log_events) == ["the snapshot server's answer is too long"]


def test_a_redirect_to_what_cannot_be_asked(world: World, log_events: list[LogEvent]) -> None:
    """A host name that is none is a failure like any other, and is not told."""
    world.server.next["snapshots"].append(answer(303, Location="http://xn--secret-\x7f.test/x"))
    world.server.next["snapshots"].append(answer(303, Location="http://[secret]/x"))
    world.server.next["snapshots"].append(answer(303, Location="http://a..secret/x"))
    world.start().turn(5)
    assert "secret" not in repr(log_events)
    assert world.kept() == world.expected()


def test_a_worker_that_does_not_run(world: World) -> None:
    """Nothing can be done, and no noise is made; it ends when it is told to."""
    world.worker = Ended()
    world.start().turn(300)
    assert world.server.asked == []


def test_changes_that_cannot_be_stored(world: World, log_events: list[LogEvent]) -> None:
    """That they were received is no success: they are asked for ever more rarely, and it is told once."""
    with_a_key(world).start()
    assert world.listener.registry is not None
    before = len(polls(world))
    blocker = sqlite3.connect(world.listener.registry, isolation_level=None)
    blocker.execute("CREATE TRIGGER full BEFORE INSERT ON developer BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
    world.server.update("kms.developer", DEVELOPER, email="new@x")
    world.turn(60, step=0.1)
    assert len(polls(world)) - before < 12
    assert errors_in(log_events) == [f"the registry {world.listener.registry} cannot be used: disk is full"]
    blocker.execute("DROP TRIGGER full")
    blocker.close()
    world.turn(POLL_INTERVAL)
    assert world.kept() == world.expected()


def damage(path: str) -> None:
    """Make the page of a table unreadable; what else the file holds stays as it is."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'developer'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with open(path, "r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)


def test_a_file_that_is_damaged(world: World, log_events: list[LogEvent]) -> None:
    """Though it can still say whose it is: changes that cannot be applied to it call for a new snapshot."""
    with_a_key(world).start()
    path = world.listener.registry
    assert path is not None
    damage(path)
    world.server.update("kms.developer", DEVELOPER, email="new@x")
    world.turn(5)
    assert world.kept() == world.expected()
    assert info(world).developer_email == "new@x"
    assert world.registries() == [os.path.basename(str(world.listener.registry))]
    assert errors_in(log_events) == [f"the registry {path} cannot be used: database disk image is malformed"]


def test_a_file_that_was_damaged_between_runs(world: World) -> None:
    """The catalog cannot be built of it; so another snapshot is taken, for good."""
    with_a_key(world).start()
    world.stop()
    damage(str(world.directory / world.registries()[0]))
    world.start().turn(35)
    assert world.kept() == world.expected()
    assert info(world).developer == "ada"
    world.stop()
    world.start()
    assert info(world).developer == "ada"
