"""The tables that tenants and developers come from: their names, the columns used, and what a row is."""

from collections.abc import Mapping
from typing import Final

SCOPES: Final = "edgex.data_scope"
MAPPER: Final = "kms.app_credential_apiproduct_mapper"
APPS: Final = "kms.app"
PRODUCTS: Final = "kms.api_product"
DEVELOPERS: Final = "kms.developer"
COMPANIES: Final = "kms.company"

COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    SCOPES: ("id", "scope", "org", "env"),
    PRODUCTS: ("tenant_id", "id", "name"),
    DEVELOPERS: ("tenant_id", "id", "username", "email"),
    COMPANIES: ("tenant_id", "id", "name"),
    APPS: ("tenant_id", "id", "name", "developer_id", "company_id"),
    MAPPER: ("tenant_id", "appcred_id", "app_id", "apiprdt_id", "status"),
}
"""The columns used of each table, those of its primary key first; in this order of tables rows are read and written."""

KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(COLUMNS, ("tenant_id", "id")),
    SCOPES: ("id",),
    MAPPER: ("tenant_id", "appcred_id", "app_id", "apiprdt_id"),
}
"""The columns of each table's primary key."""

Row = Mapping[str, str | None]
"""A row as sources tell of it: its columns by name; what is missing is null."""

Values = tuple[str | None, ...]
"""A row as it is read from a registry: the values of its table's `COLUMNS`, in their order."""


def is_utf8(text: str) -> bool:
    """Whether a text can be stored and sent: a lone surrogate is no UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def short_name(table: str) -> str:
    """What a table (`kms.app`) is called in registry files and in exports (`app`)."""
    return table.partition(".")[2]
