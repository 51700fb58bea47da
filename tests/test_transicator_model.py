"""Conservation: whatever changes, fails, crashes and restarts, in the end the registry equals the server's tables."""

from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from axcollector.disk import Disk
from axcollector.sync.events import Snapshot
from tests.effort import either
from tests.transicator_server import CLUSTER, SELECTOR, Misbehaviour, answer, half, never, recorded
from tests.transicator_world import DyingDisk, Told, World, quick_directory

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
FORMATS: tuple[set[str], ...] = ({"json"}, {"sqlite"}, {"json", "sqlite"})

FAULTS: tuple[Misbehaviour, ...] = (
    *(answer(401), answer(500), answer(503, Retry_After="2"), answer(304), answer(400, b"{}"), answer(404)),
    *(answer(200, b"<html>"), answer(200, b'{"lastSequence": "0.0.0", "firstSequence": "0.0.0"}'), half, never),
    *(answer(302, Location="http://other.test/x"), answer(302, Location="/nowhere"), recorded("changes-too-old.http")),
)

KINDS = ("put", "put", "update", "move", "rename", "delete")
numbers = st.integers(0, 11)
operations = st.lists(st.tuples(st.sampled_from(KINDS), numbers, numbers, numbers, numbers), min_size=1, max_size=10)
"""What happens to rows; the numbers choose of what there is."""
TEXTS = (None, "", "x", "y", "é", 'a "quoted" \\ text')


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
        self.directory = quick_directory()
        self.world = World(Path(self.directory.name))
        for number in range(24):
            self.happen("put", number, number, number // 2, number)
        self.world.start()

    @property
    def server(self) -> Any:
        return self.world.server

    @rule(operations=operations)
    def change(self, operations: list[tuple[str, int, int, int, int]]) -> None:
        """Rows come, change and go."""
        for kind, *choices in operations:
            self.happen(kind, *choices)

    @rule(operations=operations)
    def change_and_catch_up(self, operations: list[tuple[str, int, int, int, int]]) -> None:
        """Likewise, and what was wrong is seen before a snapshot puts it right."""
        self.catch_up()
        self.change(operations)
        self.catch_up()

    def happen(self, kind: str, a: int, b: int, c: int, d: int) -> None:
        """One thing to one row, if it can happen to it."""
        table = sorted(TABLES)[a % len(TABLES)]
        rows = list(self.server.tables[table].values())
        if kind == "put":
            self.put(table, SELECTORS[b % 4], key(table, TENANTS[c % 2], IDS[d % 2], IDS[d // 2 % 2]))
        elif rows:
            getattr(self, kind)(table, rows[b % len(rows)], c, d)

    def put(self, table: str, selector: str, columns: dict[str, str | None]) -> None:
        """Insert a row, if there is none of its key."""
        rows = self.server.tables[table].values()
        if not any(columns.items() <= row.items() for row in rows):
            references = {"kms.app": {"developer_id": "1", "company_id": None}}.get(table, {})
            self.server.insert(table, selector, **columns, **references)

    def update(self, table: str, row: Any, c: int, d: int) -> None:
        """Change some columns; some of the others are too long to be told again."""
        columns = TABLES[table]
        changed = {column: TEXTS[(d + at) % len(TEXTS)] for at, column in enumerate(columns) if c >> at & 1}
        self.server.update(table, row, [column for column in columns if column not in changed and d % 2], **changed)

    def move(self, table: str, row: Any, c: int, d: int) -> None:
        """Move a row of ours to another selector; of one that comes from nobody's nobody would be told."""
        if row[SELECTOR] in self.world.scopes():
            self.server.update(table, row, ["name"] * (d % 2), _change_selector=SELECTORS[c % 4])

    def rename(self, table: str, row: Any, c: int, d: int) -> None:
        """Change a row's primary key."""
        name = "app_id" if table == "kms.app_credential_apiproduct_mapper" else "id"
        taken = {tuple(other[k] for k in key(table, "", "", "")) for other in self.server.tables[table].values()}
        new = {**row, name: str(c % 4)}
        if name in row and tuple(new[k] for k in key(table, "", "", "")) not in taken:
            self.server.update(table, row, **{name: str(c % 4)})

    def delete(self, table: str, row: Any, c: int, d: int) -> None:
        """Delete a row."""
        self.server.delete(table, row)

    @rule(number=st.sampled_from("123"), scope=st.sampled_from(["tenant-a", "tenant-b", "Bad", ""]))
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

    @rule(is_purged=st.sampled_from([False, False, True]))
    def somebody_elses(self, is_purged: bool) -> None:
        """A change of others; then perhaps the change server forgets all."""
        self.server.somebody_elses()
        if is_purged:
            self.server.purge()

    @rule(overlap=st.integers(0, 5), lifetime=st.sampled_from([0, 2, 3600]), formats=st.sampled_from(FORMATS))
    def habits(self, overlap: int, lifetime: int, formats: set[str]) -> None:
        """Changes are told again; tokens live shorter; snapshots come in another format."""
        self.server.overlap, self.server.lifetime, self.server.formats = overlap, lifetime, formats

    @rule(
        what=st.sampled_from(["token", "snapshots", "data", "changes"]),
        faults=st.lists(st.sampled_from(FAULTS), min_size=1, max_size=3),
    )
    def fault(self, what: str, faults: list[Misbehaviour]) -> None:
        """The next answers are no good."""
        self.server.next[what] += faults

    @rule(operations=operations, skipped=st.integers(0, 2), moment=st.sampled_from(["before_data", "after_data"]))
    def meanwhile(self, operations: list[tuple[str, int, int, int, int]], skipped: int, moment: str) -> None:
        """A new snapshot is needed; while it is taken, before or after some data was read, rows change."""
        left = skipped

        def happen() -> None:
            nonlocal left
            left -= 1
            if left < 0:
                setattr(self.server, moment, None)
                self.change(operations)

        self.catch_up()
        setattr(self.server, moment, happen)
        self.server.next["changes"].append(recorded("changes-too-old.http"))
        self.server.somebody_elses()
        self.world.turn(1)
        self.catch_up()

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
        for step in (0, *[2] * 60, *[10] * 60):
            world.turn(step, step=2)
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
    developers = [catalog.developer(tenant, client_id) for tenant in TENANTS for client_id in IDS]
    return scopes, developers, dict(catalog.counts())


def test_conservation() -> None:
    """For any sequence of changes, faults, crashes and restarts, the registry ends equal to the server's tables."""
    run_state_machine_as_test(Conservation, settings=settings(max_examples=either(25, 12), stateful_step_count=25))
