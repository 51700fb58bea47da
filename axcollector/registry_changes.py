"""A registry file that is followed: what has changed in it since a moment. Blocking."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from axcollector.core.tables import COLUMNS, KEYS, Row
from axcollector.registry_file import RegistryFile, errors_of
from axcollector.registry_log import LogPosition


@dataclass(frozen=True, slots=True)
class ChangedRow:
    """A row that was inserted, updated or deleted.

    Attributes:
        table: Its table's full name, such as `kms.app`.
        key: Its primary key.
        row: The row as it is now, its key included; None where it is gone.
    """

    table: str
    key: Row
    row: Row | None


class FollowedRegistry(RegistryFile):
    """One connection to a registry file. What is asked within one `reading` is of one moment, `data_version` too."""

    def schema_version(self) -> int:
        """A number that is another than before where anyone has changed tables, or triggers, in between."""
        with errors_of(self.path):
            return self._log.schema_version()

    def log_position(self) -> LogPosition | None:
        """Where the change log ends now; None where the file has none that can be believed."""
        with errors_of(self.path):
            return self._log.position()

    def tells_since(self, position: LogPosition) -> bool:
        """Whether the file has been in that state, and the log tells all that was changed since."""
        with errors_of(self.path):
            return self._log.holds_all_since(position)

    def changed_since(self, position: LogPosition) -> Sequence[ChangedRow] | None:
        """The rows changed since then as they are now, by table in the order of `catalog.COLUMNS`.

        Returns:
            None where that cannot be told, or they are too many: then a snapshot tells.
        """
        with errors_of(self.path):
            keys = self._log.keys_since(position)
        if keys is None:
            return None
        changed = []
        for key in keys:
            named = dict(zip(KEYS[key.table], key.values, strict=True))
            rows = self._rows_of(key.table, named)
            if len(rows) > 1:
                return None
            changed.append(ChangedRow(key.table, named, rows[0] if rows else None))
        return changed

    def _rows_of(self, table: str, key: Mapping[str, str]) -> list[Row]:
        """The rows of this key; several where texts and blobs, which SQLite tells apart, read the same."""
        columns = COLUMNS[table]
        texts = ", ".join(f"CAST({column} AS text)" for column in columns)
        where = " AND ".join(f"{column} IN (?, CAST(? AS blob))" for column in key)
        twice = [value for value in key.values() for _ in range(2)]
        question = f"SELECT {texts} FROM {self._source(table)} WHERE {where}"  # noqa: S608 - our own
        return [dict(zip(columns, values, strict=True)) for values in self._ask(question, *twice)]
