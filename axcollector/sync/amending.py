"""A change becomes a part of an amendment: what it takes away first, then what it puts."""

from axcollector.core.amendment import Amendment
from axcollector.core.model import Tenant
from axcollector.sync.events import Change, Operation


def amend(amendment: Amendment, change: Change, refused: list[Tenant]) -> None:
    """Put a change aside; a tenant that it brings and that is refused is added to those."""
    if change.old_row is not None and change.operation is not Operation.INSERT:
        amendment.remove(change.table, change.old_row)
    if change.new_row is not None and change.operation is not Operation.DELETE:
        tenant = amendment.put(change.table, change.new_row)
        if tenant is not None:
            refused.append(tenant)
