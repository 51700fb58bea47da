"""The registry: it answers as the catalog does, from files of ours and foreign ones, and is changed whole or not."""

import os
import sqlite3
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings

from axcollector.core.catalog import Catalog
from axcollector.core.errors import RegistryError
from axcollector.core.model import NO_DEVELOPER, DeveloperInfo, Tenant
from axcollector.core.tables import COLUMNS, COMPANIES, KEYS, MAPPER, SCOPES, Row, short_name
from axcollector.registry import IDS_A_QUESTION, Key, Registry, Scope
from tests.effort import either
from tests.test_catalog import LONG, Tables, everything_of, put, some_rows

FOREIGN = """
    CREATE TABLE API_PRODUCT (id text, Tenant_Id text, name text, quota_interval int, PRIMARY KEY (tenant_id, id));
    CREATE TABLE DEVELOPER (id text, tenant_id text, USERNAME text, first_name text, email text,
        PRIMARY KEY (tenant_id, id));
    CREATE TABLE APP (id text, tenant_id text, name text, developer_id text, PRIMARY KEY (tenant_id, id));
    CREATE TABLE APP_CREDENTIAL_APIPRODUCT_MAPPER (tenant_id text, appcred_id text, app_id text, apiprdt_id text,
        _change_selector text, PRIMARY KEY (appcred_id, app_id, apiprdt_id, tenant_id));
    CREATE TABLE DATA_SCOPE (id text, apid_cluster_id text, scope text, org text, env text, PRIMARY KEY (id));
    INSERT INTO APP_CREDENTIAL_APIPRODUCT_MAPPER VALUES ('tenantid', 'testapikey', 'testappid', 'testproductid', '1');
    INSERT INTO APP VALUES ('testappid', 'tenantid', 'testapp', 'testdeveloperid');
    INSERT INTO API_PRODUCT VALUES ('testproductid', 'tenantid', 'testproduct', 5);
    INSERT INTO DEVELOPER VALUES ('testdeveloperid', 'tenantid', 'testdeveloper', NULL, 'testdeveloper@test.com');
    INSERT INTO DATA_SCOPE VALUES ('testid', 'cluster', 'tenantid', 'testorg', 'testenv');
"""


def execute(path: Path, script: str) -> None:
    """Run a script on a file with the library alone."""
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.close()


def nullable(path: Path) -> None:
    """Make the tables as foreign files have them: keys may be null."""
    tables = (
        f"CREATE TABLE {short_name(table)} ({', '.join(f'{column} text' for column in columns)},"
        f" PRIMARY KEY ({', '.join(KEYS[table])}));"
        for table, columns in COLUMNS.items()
    )
    execute(path, "".join(tables))


class AsCatalog(Catalog):
    """A registry with the catalog's interface."""

    def __init__(self, registry: Registry) -> None:
        super().__init__()
        self.registry = registry

    def tenant_of_scope(self, scope: str) -> Tenant | None:
        return self.registry.tenant_of_scope(scope)

    def tenant_of_names(self, organization: str, environment: str) -> Tenant | None:
        return self.registry.tenant_of_names(organization, environment)

    def scopes_of_names(self, organization: str, environment: str) -> tuple[str, ...]:
        return self.registry.scopes_of_names(organization, environment)

    def developer(self, tenant_id: str, client_id: str) -> DeveloperInfo:
        return self.registry.developers(tenant_id, [client_id])[client_id]


@settings(max_examples=either(50, 25))
@given(some_rows)
def test_registry_and_catalog_agree(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, Row]]) -> None:
    """Asked the same, the registry and a catalog built from it answer the same, whatever is in the tables."""
    path = tmp_path_factory.mktemp("registry") / "registry.db"
    nullable(path)
    tables: Tables = {}
    for table, row in rows:
        put(tables, table, row)
    connection = sqlite3.connect(path)
    for table, by_key in tables.items():
        for row in by_key.values():
            marks = ", ".join("?" * len(row))
            connection.execute(
                f"INSERT INTO {short_name(table)} ({', '.join(row)}) VALUES ({marks})", tuple(row.values())
            )
    connection.commit()
    connection.close()
    catalog = Catalog()
    with Registry.open(str(path)) as registry, registry.reading():
        for table in COLUMNS:
            for row in registry.rows(table):
                catalog.put(table, row)
        assert everything_of(catalog) == everything_of(AsCatalog(registry))


def test_foreign_files(tmp_path: Path) -> None:
    """A file in the reference's schema, other case, without `company`, is read as it is and can be changed."""
    path = tmp_path / "foreign.db"
    execute(path, FOREIGN)
    with Registry.open(str(path)) as registry:
        tenant = Tenant("tenantid", "testorg", "testenv")
        assert tenant == registry.tenant_of_scope("testid")
        assert tenant == registry.tenant_of_names("testorg", "testenv")
        info = DeveloperInfo("testproduct", "testapp", "testdeveloper@test.com", "testdeveloper")
        assert {"testapikey": info, "other": NO_DEVELOPER} == registry.developers("tenantid", ["testapikey", "other"])
        assert list(registry.rows(COMPANIES)) == []
        assert list(registry.rows(SCOPES)) == [
            {"id": "testid", "scope": "tenantid", "org": "testorg", "env": "testenv"}
        ]
        with pytest.raises(RegistryError, match=r"foreign\.db cannot be used: no such table: company"):
            registry.add_key("testid", "k", product="p", app="a", company="c")
        added = registry.add_key("testid", "k", product="testproduct", app="testapp", developer="testdeveloper")
        expected = Key("testid", "k", "testproduct", "testapp", "testdeveloper", "testdeveloper@test.com")
        assert expected == registry.keys("testid")[0]
        assert Key("testid", "k", "testproduct", "testapp", "testdeveloper") == added
    assert os.listdir(tmp_path) == ["foreign.db"]


@pytest.mark.parametrize("declared", ["", "integer", "real", "blob", "numeric", "varchar(9)", "text COLLATE NOCASE"])
def test_columns_of_other_types(tmp_path: Path, declared: str) -> None:
    """Whatever columns are declared as, the registry answers as a catalog that was built from it does."""
    path = tmp_path / "foreign.db"
    for table, columns in COLUMNS.items():
        execute(path, f"CREATE TABLE {short_name(table)} ({', '.join(f'{column} {declared}' for column in columns)})")
    blob = "'k'" if "text" in declared or "char" in declared else "x'6b'"
    values = {"appcred_id": blob, "env": "'e'", "company_id": "NULL", "username": "'Ada'"}
    for table, columns in COLUMNS.items():
        for number in ("1", "'a'"):
            row = ", ".join(values.get(column, number) for column in columns)
            execute(path, f"INSERT INTO {short_name(table)} VALUES ({row})")
        execute(path, f"UPDATE {short_name(table)} SET {columns[-2]} = 2 WHERE {columns[0]} = 1")
    execute(path, f"INSERT INTO {short_name(MAPPER)} VALUES (1, 1, 1, 1, 1), ('a', 'K', 'a', 'a', 'a')")
    texts = ["1", "01", "1.0", " 1", "2", "a", "A", "k", "K"]
    with Registry.open(str(path)) as registry:
        catalog = Catalog()
        for table in COLUMNS:
            catalog.load(table, registry.values(table))
        for text in texts:
            assert catalog.tenant_of_scope(text) == registry.tenant_of_scope(text)
            assert catalog.tenant_of_names(text, "e") == registry.tenant_of_names(text, "e")
            for client_id in texts:
                assert catalog.developers(text, [client_id]) == registry.developers(text, [client_id])


def test_a_table_that_comes_later_is_seen(tmp_path: Path) -> None:
    """What tables there are is looked at again when another connection has changed that."""
    path = tmp_path / "foreign.db"
    execute(path, FOREIGN)
    with Registry.open(str(path)) as registry:
        assert list(registry.rows(COMPANIES)) == []
        execute(path, "CREATE TABLE company (tenant_id, id, name); INSERT INTO company VALUES ('t', 7, 'c')")
        assert list(registry.rows(COMPANIES)) == [{"tenant_id": "t", "id": "7", "name": "c"}]


def test_own_files(tmp_path: Path) -> None:
    """A file of ours, and its directory, are for their owner only; it has a write-ahead log."""
    path = tmp_path / "deep" / "data" / "registry.db"
    for _ in range(2):
        with Registry.create(str(path)) as registry:
            assert [row for table in COLUMNS for row in registry.rows(table)] == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "does not exist"),
        (b"", "is no registry: it has no table data_scope"),
        (b"not SQLite at all" * 100, "cannot be used: file is not a database"),
    ],
)
def test_what_is_no_registry(tmp_path: Path, content: bytes | None, problem: str) -> None:
    """A file that is missing, empty or something else is refused by its name."""
    path = tmp_path / "registry.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RegistryError, match=f"{path}.* {problem}"):
        Registry.open(str(path))


def test_other_databases_are_left_alone(tmp_path: Path) -> None:
    """Somebody else's database is not made a registry."""
    path = tmp_path / "other.db"
    execute(path, "CREATE TABLE app (tenant_id, id)")
    with pytest.raises(RegistryError, match="is no registry: it has no table data_scope"):
        Registry.create(str(path))
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("app",)]
    connection.close()


def test_tables_without_keys(tmp_path: Path) -> None:
    """A table that lacks a column of its key is no table of ours."""
    path = tmp_path / "registry.db"
    execute(path, "CREATE TABLE data_scope (id, scope, org, env); CREATE TABLE app (id, name)")
    with pytest.raises(RegistryError, match="its table app has no column tenant_id"):
        Registry.open(str(path))


def test_a_file_that_cannot_be_made(tmp_path: Path) -> None:
    """What the system or the library refuse names the file; nothing else is raised."""
    (tmp_path / "file").write_bytes(b"something" * 200)
    with pytest.raises(RegistryError, match=r"file/registry\.db cannot be used: File exists"):
        Registry.create(str(tmp_path / "file" / "registry.db"))
    with pytest.raises(RegistryError, match="file cannot be used: file is not a database"):
        Registry.create(str(tmp_path / "file"))
    with pytest.raises(RegistryError, match="cannot be used: unable to open database file"):
        Registry.open(str(tmp_path))


def test_locked_files(tmp_path: Path) -> None:
    """A file that somebody else has locked for longer than one waits is an error."""
    path = tmp_path / "foreign.db"
    execute(path, FOREIGN)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(RegistryError, match=r"foreign\.db cannot be used: database is locked"):
        Registry.open(str(path), busy_timeout_seconds=0)
    other.close()


def test_scopes(tmp_path: Path) -> None:
    """Scopes are added, found by their lowest id, listed and removed; those of the same names share a tenant."""
    with Registry.create(str(tmp_path / "registry.db")) as registry:
        first = registry.add_scope("acme", "prod", "b")
        second = registry.add_scope("acme", "prod", "a")
        made = registry.add_scope("acme", "dev")
        given = registry.add_scope("acme", "prod", "c", tenant_id="t")
        assert Scope("b", Tenant(first.tenant.id, "acme", "prod")) == first
        assert first.tenant == second.tenant
        assert Tenant("t", "acme", "prod") == given.tenant
        assert first.tenant.id != made.tenant.id
        assert [made, second, first, given] == registry.scopes()
        registry.remove_scope("a")
        registry.remove_scope("b")
        assert given.tenant == registry.tenant_of_names("acme", "prod")
        with pytest.raises(RegistryError, match="has no scope b"):
            registry.remove_scope("b")
        with pytest.raises(RegistryError, match="has a scope c already"):
            registry.add_scope("other", "prod", "c")


@pytest.mark.parametrize(
    ("organization", "environment", "problem"),
    [
        ("", "e", "must not be empty"),
        ("o", "", "must not be empty"),
        (LONG, "e", "exceeds 200"),
        ("\ud800", "e", "UTF-8"),
    ],
)
def test_scopes_with_unusable_names(tmp_path: Path, organization: str, environment: str, problem: str) -> None:
    """Names that make no directory are refused, and nothing is changed."""
    with Registry.create(str(tmp_path / "registry.db")) as registry:
        with pytest.raises(RegistryError, match=problem):
            registry.add_scope(organization, environment)
        assert registry.scopes() == []


def test_keys(tmp_path: Path) -> None:
    """A key makes what it needs, or uses what is there by that name; the developer's last e-mail counts."""
    with Registry.create(str(tmp_path / "registry.db")) as registry:
        tenant = registry.add_scope("acme", "prod", "s").tenant
        registry.add_key("s", "k", product="gold", app="weather", developer="ada", email="old@example.com")
        made = registry.add_key("s", product="gold", app="weather", developer="ada", email="ada@example.com")
        registry.add_key("s", "k", product="silver", app="weather", developer="ada")
        registry.add_key("s", "c", product="gold", app="weather", developer="ada", company="ACME")
        registry.add_key("s", "c", product="gold", app="trains", company="ACME")
        counts = [len(list(registry.rows(table))) for table in COLUMNS]
        assert dict(zip(COLUMNS, [1, 2, 1, 1, 3, 5], strict=True)) == dict(zip(COLUMNS, counts, strict=True))
        ada = DeveloperInfo("gold", "weather", "ada@example.com", "ada")
        company = DeveloperInfo("gold", "trains", "", "ACME")
        expected = {"k": ada, made.client_id: ada, "c": company, "\ud800": NO_DEVELOPER, "": NO_DEVELOPER}
        assert expected == registry.developers(tenant.id, ["k", made.client_id, "c", "\ud800", ""])
        assert len(made.client_id) == 32
        keys = registry.keys()
        assert Key("s", "c", "gold", "trains", "", "", "ACME") in keys


def test_keys_that_are_there_already(tmp_path: Path) -> None:
    """The same key with the same product and app is refused, and its failed addition leaves nothing behind."""
    with Registry.create(str(tmp_path / "registry.db")) as registry:
        registry.add_scope("acme", "prod", "s")
        registry.add_key("s", "k", product="gold", app="weather", developer="ada", email="ada@example.com")
        with pytest.raises(RegistryError, match="has key k with product gold and app weather already"):
            registry.add_key("s", "k", product="gold", app="weather", developer="ada", email="new@example.com")
        assert [Key("s", "k", "gold", "weather", "ada", "ada@example.com")] == registry.keys("s")
        with pytest.raises(RegistryError, match="has no scope other"):
            registry.add_key("other", "k", product="gold", app="weather", developer="ada")
        with pytest.raises(RegistryError, match="needs a product, an app"):
            registry.add_key("s", "k", product="gold", app="weather")
        with pytest.raises(RegistryError, match="cannot hold a text that is not UTF-8"):
            registry.add_key("s", "\udcff", product="gold", app="weather", developer="ada")


def test_keys_are_removed(tmp_path: Path) -> None:
    """A key is removed whole, or only with a product or an app; one that is not there is an error."""
    with Registry.create(str(tmp_path / "registry.db")) as registry:
        registry.add_scope("acme", "prod", "s")
        for product, app in (("gold", "a"), ("gold", "b"), ("silver", "a"), ("silver", "b"), ("tin", "c")):
            registry.add_key("s", "k", product=product, app=app, developer="ada")
        assert registry.remove_key("s", "k", product="gold", app="a") == 1
        assert registry.remove_key("s", "k", app="a") == 1
        assert registry.remove_key("s", "k", product="silver") == 1
        with pytest.raises(RegistryError, match="has no key k with product tin with app a in scope s"):
            registry.remove_key("s", "k", product="tin", app="a")
        assert registry.remove_key("s", "k") == 2
        with pytest.raises(RegistryError, match="has no key k in scope s"):
            registry.remove_key("s", "k")
        assert registry.keys() == []


def test_many_client_ids(tmp_path: Path) -> None:
    """More client ids than SQLite takes variables are asked for in several questions."""
    with Registry.create(str(tmp_path / "registry.db")) as registry:
        tenant = registry.add_scope("acme", "prod", "s").tenant
        registry.add_key("s", "69999", product="gold", app="a", developer="ada")
        found = registry.developers(tenant.id, [str(number) for number in range(70_000)])
        assert [client_id for client_id, info in found.items() if info != NO_DEVELOPER] == ["69999"]
        assert len(found) == 70_000


def test_texts_that_cannot_be_there(tmp_path: Path) -> None:
    """A text that is no UTF-8, or nothing, is nobody's: no error."""
    with Registry.create(str(tmp_path / "registry.db")) as registry:
        assert registry.tenant_of_scope("\ud800") is None
        assert registry.tenant_of_scope("") is None
        assert registry.tenant_of_names("a", "\ud800") is None
        assert registry.scopes_of_names("a", "\ud800") == ()


def test_data_version_and_log(tmp_path: Path) -> None:
    """The data version changes with others' commits, not with our own, nor with emptying the log."""
    path = tmp_path / "registry.db"
    log = tmp_path / "registry.db-wal"
    with Registry.create(str(path)) as watcher, Registry.open(str(path)) as writer:
        before = watcher.data_version()
        assert before == watcher.data_version()
        writer.add_scope("acme", "prod", "s")
        after = watcher.data_version()
        assert before != after
        assert log.stat().st_size > 0
        watcher.checkpoint()
        assert log.stat().st_size == 0
        assert after == watcher.data_version()
        with writer.reading():
            assert len(writer.scopes()) == 1
            watcher.remove_scope("s")
            watcher.checkpoint()
            assert len(writer.scopes()) == 1
        assert writer.scopes() == []


def test_texts_that_are_no_utf8(tmp_path: Path) -> None:
    """One such text keeps no other row from being read."""
    path = str(tmp_path / "registry.db")
    with Registry.create(path) as registry:
        scope = registry.add_scope("acme", "prod")
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO developer (id, tenant_id, username) VALUES ('d', 't', CAST(X'FF' AS TEXT))")
    connection.commit()
    connection.close()
    with Registry.open(path) as registry:
        assert [dict(row)["username"] for row in registry.rows("kms.developer")] == ["\ufffd"]
        assert registry.tenant_of_scope(scope.id) == scope.tenant


def test_a_batch_is_one_question(tmp_path: Path) -> None:
    """However many client ids a batch has, they are asked for at once; in few different questions, prepared once."""
    with Registry.create(str(tmp_path / "r.db")) as registry:
        registry.add_scope("acme", "prod", "s", "t")
        registry.add_key("s", "k\0l", product="gold", app="weather", developer="ada")
        questions: list[str] = []
        registry._connection.set_trace_callback(lambda text: questions.append(text) if "appcred_id" in text else None)
        for size in (1, 2, 3, 50, 100, 127, 128, 500):
            asked = ["k\0l", *(f"{number}" for number in range(size - 1))]
            before = len(questions)
            known = registry.developers("t", asked)
            assert len(questions) == before + 1
            assert set(asked) == set(known)
            assert [client_id for client_id, info in known.items() if info != NO_DEVELOPER] == ["k\0l"]
        before = len(questions)
        known = registry.developers("t", [str(number) for number in range(IDS_A_QUESTION + 1)])
        assert len(questions) == before + 2
        assert len(known) == IDS_A_QUESTION + 1


def test_generated_columns(tmp_path: Path) -> None:
    """A foreign column that is computed is a column."""
    execute(
        tmp_path / "r.db",
        "CREATE TABLE data_scope (id text, scope text, org text, env text GENERATED ALWAYS AS ('prod') VIRTUAL);"
        "CREATE TABLE app_credential_apiproduct_mapper (tenant_id, appcred_id, app_id, apiprdt_id);"
        "INSERT INTO data_scope (id, scope, org) VALUES ('s', 't', 'acme');",
    )
    with Registry.open(str(tmp_path / "r.db")) as registry:
        assert Tenant("t", "acme", "prod") == registry.tenant_of_scope("s")
