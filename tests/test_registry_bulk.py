"""Many rows at once: upserts in one transaction, logged where they are few, and everything in order."""

import sqlite3
from pathlib import Path

import pytest

from axcollector.core.errors import RegistryError
from axcollector.core.tables import APPS, COLUMNS, COMPANIES, PRODUCTS, SCOPES, Values
from axcollector.registry import Registry
from axcollector.registry_bulk import BulkRegistry
from axcollector.registry_log import MAX_CHANGED_ROWS
from tests.test_registry import FOREIGN, execute


def all_rows(registry: BulkRegistry) -> dict[str, list[Values]]:
    """What is in the tables that have something."""
    found = {table: [row for rows in registry.ordered(table) for row in rows] for table in COLUMNS}
    return {table: rows for table, rows in found.items() if rows}


def apps(count: int, name: str = "n") -> list[Values]:
    """So many apps of one tenant."""
    return [("t", f"{at:06}", name, None, None) for at in range(count)]


def load_and_fail(registry: BulkRegistry, rows: list[Values], *, replace: bool) -> None:
    """Put apps, and be interrupted."""
    with registry.loading(replace=replace) as loading:
        loading.put(APPS, rows)
        raise KeyboardInterrupt


def load(registry: BulkRegistry, *tables: tuple[str, list[Values]]) -> None:
    """Put rows of some tables."""
    with registry.loading() as loading:
        for table, rows in tables:
            loading.put(table, rows)


def logged(path: Path) -> int:
    """How many entries the change log has."""
    connection = sqlite3.connect(path)
    [(count,)] = connection.execute("SELECT count(*) FROM axcollector_change").fetchall()
    connection.close()
    return int(count)


def test_rows_are_put_by_their_keys(tmp_path: Path) -> None:
    """A row replaces the one of its key, whole; others stay, and all are given in the order of their keys."""
    with BulkRegistry.create(str(tmp_path / "registry.db")) as registry:
        with registry.loading() as loading:
            loading.put(APPS, [("u", "a", "x", "d", "c"), ("t", "b", "x", "d", "c"), ("t", "a", "x", None, "")])
            loading.put(PRODUCTS, [("t", "p", "gold")])
            loading.put(APPS, [("t", "b", None, "e", None)])
        assert dict(loading.counts)[APPS] == 4
        assert all_rows(registry) == {
            PRODUCTS: [("t", "p", "gold")],
            APPS: [("t", "a", "x", None, ""), ("t", "b", None, "e", None), ("u", "a", "x", "d", "c")],
        }
        assert {table: count for table, count in registry.counts().items() if count} == {PRODUCTS: 1, APPS: 3}
        with registry.loading(replace=True) as loading:
            loading.put(APPS, [("t", "z", None, None, None)])
        assert all_rows(registry) == {APPS: [("t", "z", None, None, None)]}


def test_all_or_nothing(tmp_path: Path) -> None:
    """What ends with an exception has changed nothing, many rows or few, replaced or not."""
    path = str(tmp_path / "registry.db")
    with BulkRegistry.create(path) as registry, registry.loading() as loading:
        loading.put(APPS, apps(3))
    for count, replace in ((3, False), (3, True), (MAX_CHANGED_ROWS + 1, False), (MAX_CHANGED_ROWS + 1, True)):
        with BulkRegistry.open(path) as registry:
            before = sorted(registry._connection.iterdump())
            with pytest.raises(KeyboardInterrupt):
                load_and_fail(registry, apps(count, "other"), replace=replace)
            assert sorted(registry._connection.iterdump()) == before


def test_few_rows_are_logged_and_many_are_not(tmp_path: Path) -> None:
    """The change log has each of a few rows, none that was not changed, and begins anew where there are many."""
    path = tmp_path / "registry.db"
    with BulkRegistry.create(str(path)) as registry:
        beginning = logged(path)
        with registry.loading() as loading:
            loading.put(APPS, apps(MAX_CHANGED_ROWS))
        assert logged(path) - beginning == MAX_CHANGED_ROWS
        with registry.loading() as loading:
            loading.put(APPS, apps(MAX_CHANGED_ROWS))
        assert logged(path) - beginning == MAX_CHANGED_ROWS
        with registry.loading() as loading:
            loading.put(APPS, apps(1, "other"))
            loading.put(APPS, apps(MAX_CHANGED_ROWS))
        assert logged(path) == 1
        with registry.loading(replace=True) as loading:
            loading.put(APPS, apps(1))
        assert logged(path) == 1
    with Registry.open(str(path)) as after:
        after.add_scope("acme", "prod")
    assert logged(path) == 2


def test_foreign_files(tmp_path: Path) -> None:
    """A file of others is read with nulls for what it lacks; what it cannot hold is refused, the rest is put."""
    path = tmp_path / "foreign.db"
    execute(path, FOREIGN)
    with BulkRegistry.open(str(path)) as registry:
        before = all_rows(registry)
        assert before[APPS] == [("tenantid", "testappid", "testapp", "testdeveloperid", None)]
        for table, rows, problem in (
            (APPS, [("t", "a", None, None, "c")], "its table app has no column company_id, which a row has"),
            (COMPANIES, [("t", "c", None)], "it has no table company"),
        ):
            with pytest.raises(RegistryError, match=f"was not changed: {problem}"):
                load(registry, (SCOPES, [("s", "t", "o", "e")]), (table, rows))
            assert all_rows(registry) == before
        with registry.loading() as loading:
            loading.put(APPS, [("tenantid", "testappid", "other", None, None)])
        assert all_rows(registry) == {**before, APPS: [("tenantid", "testappid", "other", None, None)]}


def test_tables_without_a_primary_key(tmp_path: Path) -> None:
    """Where a file has no unique key, nothing can be replaced by it: that is an error."""
    path = tmp_path / "foreign.db"
    execute(path, "CREATE TABLE data_scope (id, scope, org, env)")
    with (
        BulkRegistry.open(str(path)) as registry,
        pytest.raises(RegistryError, match="its table data_scope has no primary key of id"),
    ):
        load(registry, (SCOPES, [("s", "t", "o", "e")]))


def test_locked_files(tmp_path: Path) -> None:
    """While somebody else changes the file, that is said, and what to do."""
    path = str(tmp_path / "registry.db")
    with (
        BulkRegistry.create(path) as other,
        BulkRegistry.open(path, busy_timeout_seconds=0) as registry,
        other.loading(),
        pytest.raises(RegistryError, match="database is locked; somebody else is changing it, so try again"),
    ):
        load(registry)
