"""Conservation: whatever changes, fails, crashes and restarts, in the end the registry equals the server's tables."""

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from axcollector.disk import Disk
from axcollector.sync.events import Snapshot
from tests.transicator_server import CLUSTER, SELECTOR, Misbehaviour, answer, half, never, recorded
from tests.transicator_world import DyingDisk, Told, World

TABLES = {
    "kms.developer": ("username", "email", "first_name"),
    "kms.app": ("name", "developer_id", "company_id"),
    "kms.api_product": ("name", "description"),
    "kms.company": ("name",),
    "kms.app_credential": ("status",),
    "kms.company_developer": (),
    "kms.app_credential_apiproduct_mapper": ("status",),
}
"""The tables whose rows change, and the columns that an update changes."""
SELECTORS = ("tenant-a", "tenant-b", "org-tenant-a", "nobodys")
TENANTS = SELECTORS[:2]
IDS = ("1", "2")

FAULTS: tuple[Misbehaviour, ...] = (
    *(answer(401), answer(500), answer(503, Retry_After="2"), answer(304), answer(400, b"{}"), answer(404)),
    *(answer(200, b"<html>"), answer(200, b'{"lastSequence": "0.0.0", "firstSequence": "0.0.0"}'), half, never),
    *(answer(302, Location="http://other.test/x"), answer(302, Location="/nowhere"), recorded("changes-too-old.http")),
)

tables = st.sampled_from(sorted(TABLES))
selectors = st.sampled_from(SELECTORS)
texts = st.sampled_from([None, "", "x", "y", "é", 'a "quoted" \\ text'])


def key(table: str, tenant: str, one: str, other: str) -> dict[str, str | None]:
    """The key columns of a row."""
    if table == "kms.app_credential_apiproduct_mapper":
        return {"tenant_id": tenant, "appcred_id": one, "app_id": other, "apiprdt_id": one}
    if table == "kms.company_developer":
        return {"tenant_id": tenant, "company_id": one, "developer_id": other}
    return {"tenant_id": tenant, "id": one}


class Conservation(RuleBasedStateMachine):
    """The servers and a client, between which everything happens that can."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.world = World(Path(self.directory.name))
        self.world.start()

    @property
    def server(self) -> Any:
        return self.world.server

    @rule(table=tables, selector=selectors, tenant=st.sampled_from(TENANTS), ids=st.tuples(*[st.sampled_from(IDS)] * 2))
    def put(self, table: str, selector: str, tenant: str, ids: tuple[str, str]) -> None:
        """Insert a row, if there is none of its key."""
        columns = key(table, tenant, *ids)
        rows = self.server.tables[table].values()
        if not any(columns.items() <= row.items() for row in rows):
            references = {"kms.app": {"developer_id": ids[1], "company_id": None}}.get(table, {})
            self.server.insert(table, selector, **columns, **references)

    def row_of(self, table: str, data: Any) -> Any:
        rows = list(self.server.tables[table].values())
        return data.draw(st.sampled_from(rows)) if rows else None

    @rule(table=tables, data=st.data())
    def update(self, table: str, data: Any) -> None:
        """Change some columns; some of the others are too long to be told again."""
        row = self.row_of(table, data)
        if row is not None:
            changed = {c: data.draw(texts) for c in TABLES[table] if data.draw(st.booleans())}
            toast = [c for c in TABLES[table] if c not in changed and data.draw(st.booleans())]
            self.server.update(table, row, toast, **changed)

    @rule(table=tables, selector=selectors, data=st.data())
    def move(self, table: str, selector: str, data: Any) -> None:
        """Move a row of ours to another selector; of one that comes from nobody's nobody would be told."""
        row = self.row_of(table, data)
        if row is not None and row[SELECTOR] in self.world.scopes():
            self.server.update(table, row, _change_selector=selector)

    @rule(table=st.sampled_from(["kms.developer", "kms.app"]), data=st.data())
    def rename(self, table: str, data: Any) -> None:
        """Change a row's primary key."""
        row = self.row_of(table, data)
        taken = {(other["tenant_id"], other["id"]) for other in self.server.tables[table].values()}
        if row is not None and (row["tenant_id"], "3") not in taken:
            self.server.update(table, row, id="3")

    @rule(table=tables, data=st.data())
    def delete(self, table: str, data: Any) -> None:
        """Delete a row."""
        row = self.row_of(table, data)
        if row is not None:
            self.server.delete(table, row)

    @rule(number=st.sampled_from(["1", "2", "3"]), scope=st.sampled_from(["tenant-a", "tenant-b", "Bad", ""]))
    def toggle_scope(self, number: str, scope: str) -> None:
        """A scope comes, changes or goes."""
        row = self.server.tables["edgex.data_scope"].get((f"scope-{number}",))
        if row is None:
            cluster = "another" if number == "3" else CLUSTER
            self.server.insert(
                "edgex.data_scope",
                CLUSTER,
                id=f"scope-{number}",
                apid_cluster_id=cluster,
                scope=scope,
                org="o",
                env="e",
            )
        elif row["scope"] == scope:
            self.server.delete("edgex.data_scope", row)
        else:
            self.server.update("edgex.data_scope", row, scope=scope)

    @rule()
    def purge(self) -> None:
        """The change server forgets."""
        self.server.purge()

    @rule()
    def somebody_elses(self) -> None:
        """A change of others."""
        self.server.somebody_elses()

    @rule(overlap=st.integers(0, 5), lifetime=st.sampled_from([0, 2, 3600]))
    def habits(self, overlap: int, lifetime: int) -> None:
        """Changes are told again; tokens live shorter."""
        self.server.overlap, self.server.lifetime = overlap, lifetime

    @rule(formats=st.sampled_from([{"json"}, {"sqlite"}, {"json", "sqlite"}]))
    def formats(self, formats: set[str]) -> None:
        """Snapshots come in another format."""
        self.server.formats = formats

    @rule(data=st.data(), what=st.sampled_from(["token", "snapshots", "data", "changes"]), count=st.integers(1, 3))
    def fault(self, data: Any, what: str, count: int) -> None:
        """The next answers are no good."""
        self.server.next[what] += [data.draw(st.sampled_from(FAULTS)) for _ in range(count)]

    @precondition(lambda self: self.server.before_data is None)
    @rule(table=tables, data=st.data())
    def meanwhile(self, table: str, data: Any) -> None:
        """Something is deleted just before the next snapshot is taken, and after the sequence was read."""
        row = self.row_of(table, data)

        def happen() -> None:
            self.server.before_data = None
            if row is not None and row in self.server.tables[table].values():
                self.server.delete(table, row)

        self.server.before_data = happen

    @rule(seconds=st.sampled_from([0, 0, 1, 5, 50]))
    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.world.turn(seconds)

    @rule()
    def restart(self) -> None:
        """The client is stopped and started."""
        self.world.stop()
        self.world.start()

    @rule(left=st.integers(0, 12), seconds=st.sampled_from([0, 1, 3]))
    def crash(self, left: int, seconds: int) -> None:
        """The client dies after so many changes to the disk, now or while it starts; then it is started again."""
        self.world.die()
        self.world.disk = disk = DyingDisk()
        disk.left = left
        self.world.start().turn(seconds)
        self.world.die()
        self.world.disk = Disk()
        self.world.start()

    @invariant()
    def there_is_one_file_or_two(self) -> None:
        """No file is left lying about."""
        assert len(self.world.registries()) <= 2

    @rule()
    def catch_up(self) -> None:
        """When faults stop, the registry soon equals the server's tables, and the catalog the registry."""
        world = self.world
        for queue in self.server.next.values():
            queue.clear()
        for _ in range(60):
            world.turn(10, step=2)
            if world.listener.registry is not None and world.kept() == world.expected():
                break
        assert world.kept() == world.expected()
        assert len(world.registries()) == 1
        built = Told(world.clock)
        assert world.listener.registry is not None
        built.snapshot_received(Snapshot("", world.listener.registry))
        assert catalog_of(world.listener) == catalog_of(built)

    def teardown(self) -> None:
        try:
            self.catch_up()
        finally:
            self.world.die()
            self.directory.cleanup()


def catalog_of(listener: Told) -> Any:
    """All that a catalog can be asked here."""
    catalog = listener.catalog
    assert catalog is not None
    scopes = [catalog.tenant_of_scope(f"scope-{number}") for number in "123"]
    return scopes, [catalog.developer(tenant, client_id) for tenant in TENANTS for client_id in IDS]


def test_conservation() -> None:
    """For any sequence of changes, faults, crashes and restarts, the registry ends equal to the server's tables."""
    run_state_machine_as_test(Conservation, settings=settings(max_examples=25, stateful_step_count=25))
