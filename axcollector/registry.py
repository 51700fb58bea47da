"""The registry: tenants, scopes, developers and keys, asked and changed in its SQLite file. Blocking.

It answers as the catalog does, of which it is the slow twin, for those who use no caching. The command line changes
it: what a key needs (developer or company, app, product) is reused where the tenant has one of that name, or made.
"""

import secrets
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from axcollector.core import layout
from axcollector.core.amendment import tenant_of
from axcollector.core.catalog import lowest
from axcollector.core.errors import RegistryError
from axcollector.core.model import DeveloperInfo, Tenant
from axcollector.core.tables import APPS, COLUMNS, COMPANIES, DEVELOPERS, MAPPER, PRODUCTS, SCOPES, is_utf8, short_name
from axcollector.registry_file import RegistryFile

IDS_A_QUESTION: Final = 16_384
"""As many client ids are asked for at once; SQLite allows twice as many arguments."""

_EXACTLY: Final = "COLLATE BINARY"
"""Texts are equal if they are the same, whatever the table of a foreign file says."""

_NAMED: Final = f"org = ? {_EXACTLY} AND env = ? {_EXACTLY} AND id <> '' AND scope <> ''"
"""A scope has these names."""

_FIELDS: Final = """
    coalesce(p.name, ''), coalesce(a.name, ''),
    CASE WHEN a.company_id <> '' THEN '' ELSE coalesce(d.email, '') END,
    CASE WHEN a.company_id <> '' THEN coalesce(c.name, '') ELSE coalesce(d.username, '') END
"""
"""The fields of a `DeveloperInfo`; an app with a company id is the company's, whoever developed it."""

_WHOLE: Final = """
    p.id <> '' AND a.id <> '' AND CASE WHEN a.company_id <> '' THEN c.id <> '' ELSE d.id <> '' END
"""
"""Product, app and developer (or company) all exist."""


@dataclass(frozen=True, slots=True)
class Scope:
    """A scope, as it stands in the registry."""

    id: str
    tenant: Tenant


@dataclass(frozen=True, slots=True)
class Key:
    """A client id with one of its products and apps; a name that is missing is empty.

    Attributes:
        scope: The lowest scope id of its tenant id; empty where no scope has that.
        client_id: What its holder sends.
        product: The API product's name.
        app: The app's name.
        developer: The name of the app's developer.
        email: The developer's e-mail.
        company: The name of the app's company.
    """

    scope: str
    client_id: str
    product: str
    app: str
    developer: str = ""
    email: str = ""
    company: str = ""


def random_id() -> str:
    """A new id of a row."""
    return str(uuid.uuid4())


def random_key() -> str:
    """A new client id."""
    return secrets.token_hex(16)


class Registry(RegistryFile):
    """One connection to a registry. Every method may raise `RegistryError`, which names the file."""

    def tenant_of_scope(self, scope: str) -> Tenant | None:
        """As `Catalog.tenant_of_scope`."""
        found = self._scopes(f"id = ? {_EXACTLY}", scope, limit=1)
        return found[0].tenant if found else None

    def tenant_of_names(self, organization: str, environment: str) -> Tenant | None:
        """As `Catalog.tenant_of_names`."""
        found = self._scopes(_NAMED, organization, environment, limit=1)
        return found[0].tenant if found else None

    def scopes_of_names(self, organization: str, environment: str) -> tuple[str, ...]:
        """As `Catalog.scopes_of_names`."""
        return tuple(scope.id for scope in self._scopes(_NAMED, organization, environment, limit=-1))

    def developers(self, tenant_id: str, client_ids: Collection[str]) -> dict[str, DeveloperInfo]:
        """As `Catalog.developers`, in one question, or in several where that would be too long for SQLite.

        It has a power of two of places for client ids, so that there are few questions, each prepared once.
        """
        found: dict[str, list[DeveloperInfo]] = {client_id: [] for client_id in client_ids}
        ids = [client_id for client_id in found if client_id and is_utf8(client_id)]
        for start in range(0, len(ids), IDS_A_QUESTION):
            chunk = ids[start : start + IDS_A_QUESTION]
            places = 1 << (len(chunk) - 1).bit_length()
            marks = ", ".join("?" * places)
            where = (
                f"m.tenant_id = ? {_EXACTLY} AND m.tenant_id <> ''"
                f" AND m.appcred_id {_EXACTLY} IN ({marks}) AND {_WHOLE}"
            )
            question = f"SELECT m.appcred_id, {_FIELDS} FROM {self._joined()} WHERE {where}"  # noqa: S608 - our own
            unused = [None] * (places - len(chunk))
            for client_id, *fields in self._ask(question, tenant_id, *chunk, *unused):
                found[client_id].append(DeveloperInfo(*fields))
        return {client_id: lowest(infos) for client_id, infos in found.items()}

    def scopes(self) -> Sequence[Scope]:
        """Every scope that has a tenant, by organization, environment and id."""
        found = [(scope, tenant_of(*values)) for scope, *values in self.values(SCOPES)]
        scopes = [Scope(scope, tenant) for scope, tenant in found if scope and tenant]
        return sorted(scopes, key=lambda each: (each.tenant.organization, each.tenant.environment, each.id))

    def add_scope(
        self, organization: str, environment: str, scope_id: str | None = None, tenant_id: str | None = None
    ) -> Scope:
        """Add a scope; without a tenant id it shares that of the other scopes of these names, or gets a new one.

        Raises:
            RegistryError: There is a scope of this id, or the names cannot be used.
        """
        if not (organization and environment):
            raise RegistryError(f"{self.path} was not changed: organization and environment must not be empty")
        if not layout.fits(Tenant("", organization, environment)):
            limit = f"{layout.MAX_BUCKET_BYTES} bytes as a directory's name, or is not UTF-8"
            raise RegistryError(f"{self.path} was not changed: the organization with its environment exceeds {limit}")
        with self._transaction("BEGIN IMMEDIATE"):
            scope = scope_id or random_id()
            if self._ask("SELECT 1 FROM data_scope WHERE id = ?", scope):
                raise RegistryError(f"{self.path} has a scope {scope} already; remove that, or give another id")
            known = self.tenant_of_names(organization, environment)
            tenant = Tenant(tenant_id or (known.id if known else random_id()), organization, environment)
            self._insert(SCOPES, {"id": scope, "scope": tenant.id, "org": organization, "env": environment})
        return Scope(scope, tenant)

    def remove_scope(self, scope_id: str) -> None:
        """Remove a scope; its tenant's keys stay.

        Raises:
            RegistryError: There is no such scope.
        """
        if not self._change("DELETE FROM data_scope WHERE id = ?", scope_id):
            raise self._no_scope(scope_id)

    def keys(self, scope_id: str | None = None) -> Sequence[Key]:
        """The keys of the scope's tenant, or of all, with each of their products and apps, whole or not."""
        tenant_id = None if scope_id is None else self._tenant_id(scope_id)
        scopes = f"(SELECT scope, min(id) AS id FROM {self._source(SCOPES)} GROUP BY scope)"  # noqa: S608 - our own
        question = (
            "SELECT s.id, m.appcred_id, p.name, a.name, d.username, d.email, c.name"  # noqa: S608 - our own
            f" FROM {self._joined()} LEFT JOIN {scopes} s ON s.scope = m.tenant_id"
            " WHERE ? IS NULL OR m.tenant_id = ? ORDER BY s.id, m.appcred_id, p.name, a.name"
        )
        return [Key(*(str(text or "") for text in row)) for row in self._ask(question, tenant_id, tenant_id)]

    def add_key(
        self,
        scope_id: str,
        client_id: str | None = None,
        *,
        product: str,
        app: str,
        developer: str = "",
        email: str = "",
        company: str = "",
    ) -> Key:
        """Add a key to the scope's tenant, and the app, product, developer and company it names where they are new.

        Args:
            scope_id: A scope of the tenant.
            client_id: What its holder sends, or None for a random one.
            product: An API product's name.
            app: The name of an app of the company, or of the developer where there is no company.
            developer: A developer's name.
            email: The developer's e-mail; one known already gets this one.
            company: A company's name; the app is then the company's.

        Raises:
            RegistryError: The key has this product and app already, there is no such scope, or a name is empty.
        """
        if not (product and app and (developer or company)):
            raise RegistryError(f"{self.path} was not changed: a key needs a product, an app, a developer or a company")
        client_id = client_id or random_key()
        with self._transaction("BEGIN IMMEDIATE"):
            tenant_id = self._tenant_id(scope_id)
            developer_id = self._developer_id(tenant_id, developer, email) if developer else None
            company_id = self._id_of(COMPANIES, tenant_id, {"name": company}) if company else None
            row = {
                "tenant_id": tenant_id,
                "appcred_id": client_id,
                "app_id": self._app_id(tenant_id, app, developer_id, company_id),
                "apiprdt_id": self._id_of(PRODUCTS, tenant_id, {"name": product}),
            }
            if self._first(MAPPER, row, "tenant_id") is not None:
                raise RegistryError(f"{self.path} has key {client_id} with product {product} and app {app} already")
            self._insert(MAPPER, row)
        return Key(scope_id, client_id, product, app, developer, email, company)

    def remove_key(self, scope_id: str, client_id: str, product: str | None = None, app: str | None = None) -> int:
        """Remove a key of the scope's tenant, or only what it has to do with a product or app; says how many rows.

        Raises:
            RegistryError: There is no such key.
        """
        where, arguments = "tenant_id = ? AND appcred_id = ?", [client_id]
        with self._transaction("BEGIN IMMEDIATE"):
            tenant_id = self._tenant_id(scope_id)
            for table, column, name in ((PRODUCTS, "apiprdt_id", product), (APPS, "app_id", app)):
                if name is not None:
                    source = self._source(table)
                    where += f" AND {column} IN (SELECT id FROM {source} WHERE tenant_id = ? AND name = ?)"  # noqa: S608 - our own
                    arguments += [tenant_id, name]
            count = self._change(f"DELETE FROM {short_name(MAPPER)} WHERE {where}", tenant_id, *arguments)  # noqa: S608 - our own
            if not count:
                of = "".join(f" with {kind} {name}" for kind, name in (("product", product), ("app", app)) if name)
                what = f"{client_id}{of} in scope {scope_id}"
                raise RegistryError(f"{self.path} has no key {what}; `axcollector key list` shows those it has")
        return count

    def _scopes(self, where: str, *arguments: str, limit: int) -> Sequence[Scope]:
        if not all(text and is_utf8(text) for text in arguments):
            return []
        columns = COLUMNS[SCOPES]
        texts = ", ".join(f"CAST({column} AS text)" for column in columns)
        order = f"ORDER BY id {_EXACTLY} LIMIT {limit}"
        question = f"SELECT {texts} FROM {self._source(SCOPES)} WHERE {where} {order}"  # noqa: S608 - our own
        found = [Scope(scope, tenant) for scope, *row in self._ask(question, *arguments) if (tenant := tenant_of(*row))]
        return [scope for scope in found if layout.fits(scope.tenant)]

    def _tenant_id(self, scope_id: str) -> str:
        tenant = self.tenant_of_scope(scope_id)
        if tenant is None:
            raise self._no_scope(scope_id)
        return tenant.id

    def _no_scope(self, scope_id: str) -> RegistryError:
        return RegistryError(f"{self.path} has no scope {scope_id}; `axcollector scope list` shows those it has")

    def _joined(self) -> str:
        """What stands in `FROM` for each row of the mapper with what hangs on it."""
        names = {table: self._source(table) for table in COLUMNS}
        joined = f"{names[MAPPER]} m"
        for alias, table, of in (
            ("p", PRODUCTS, "m.apiprdt_id"),
            ("a", APPS, "m.app_id"),
            ("d", DEVELOPERS, "a.developer_id"),
            ("c", COMPANIES, "a.company_id"),
        ):
            on = f"{alias}.tenant_id = m.tenant_id {_EXACTLY} AND {alias}.id = {of} {_EXACTLY}"
            joined += f" LEFT JOIN {names[table]} {alias} ON {on}"
        return joined

    def _first(self, table: str, row: Mapping[str, str | None], column: str) -> str | None:
        """The lowest value of a column among the rows that have these values; a null and an empty one are equal."""
        where = " AND ".join(f"{each} = ?" if value else f"coalesce({each}, '') = ''" for each, value in row.items())
        question = f"SELECT min({column}) FROM {self._source(table)} WHERE {where}"  # noqa: S608 - our own
        found: str | None = self._ask(question, *(value for value in row.values() if value))[0][0]
        return found

    def _insert(self, table: str, row: Mapping[str, str | None]) -> None:
        there = {column: value for column, value in row.items() if value is not None}
        marks = ", ".join("?" * len(there))
        self._change(f"INSERT INTO {short_name(table)} ({', '.join(there)}) VALUES ({marks})", *there.values())  # noqa: S608 - our own

    def _id_of(self, table: str, tenant_id: str, row: Mapping[str, str | None], **more: str | None) -> str:
        """The id of the tenant's row with these values, which is made, with `more` in it, where there is none."""
        known = self._first(table, {"tenant_id": tenant_id, **row}, "nullif(id, '')")
        if known is not None:
            return known
        new = random_id()
        self._insert(table, {"tenant_id": tenant_id, "id": new, **row, **more})
        return new

    def _developer_id(self, tenant_id: str, name: str, email: str) -> str:
        known = self._id_of(DEVELOPERS, tenant_id, {"username": name}, email=email)
        if email:
            self._change("UPDATE developer SET email = ? WHERE tenant_id = ? AND id = ?", email, tenant_id, known)
        return known

    def _app_id(self, tenant_id: str, name: str, developer_id: str | None, company_id: str | None) -> str:
        """A company's app is known by the company's id, whoever developed it."""
        if company_id is not None:
            return self._id_of(APPS, tenant_id, {"name": name, "company_id": company_id}, developer_id=developer_id)
        return self._id_of(APPS, tenant_id, {"name": name, "developer_id": developer_id, "company_id": None})
