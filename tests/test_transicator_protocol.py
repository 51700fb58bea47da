"""The sync protocol's rules, without servers: what is recorded is read, what is nonsense is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axcollector.core.errors import SyncFailed
from axcollector.core.tables import APPS, MAPPER, PRODUCTS, SCOPES
from axcollector.sync.events import Operation
from axcollector.sync.transicator_protocol import (
    UNCHANGED_TOAST,
    LogSequence,
    RowChange,
    RowEffect,
    Unusable,
    decode_page,
    effect_of,
    is_selector,
    scopes_of,
)
from tests.transicator_server import SAMPLES

fields = st.integers(0, 2**64 - 1)


@given(st.tuples(fields, fields, fields), st.tuples(fields, fields, fields))
def test_a_sequence_is_compared_as_numbers(one: tuple[int, int, int], other: tuple[int, int, int]) -> None:
    """Three hexadecimal fields, the first counting most; written and read again it is the same."""
    first, second = LogSequence(one), LogSequence(other)
    assert (one < other) == (first < second)
    assert LogSequence.parse(str(first)) == first


def test_a_sequence_is_not_compared_as_text() -> None:
    """`ff` comes before `100`."""
    assert LogSequence.parse("0.ff.0") < LogSequence.parse("0.100.0") < LogSequence.parse("0.100.A")


@pytest.mark.parametrize("text", ["", "0", "0.0", "0.0.0.0", "0.x.0", "0..0", "-1.0.0", "0.+1.0", "0. 1.0", "0.1_0.0"])
def test_what_is_no_sequence(text: str) -> None:
    """Anything else is no sequence."""
    with pytest.raises(SyncFailed):
        LogSequence.parse(text)


def test_scopes_are_those_of_our_cluster() -> None:
    """Distinct and not empty, and the cluster's id is one of them; other clusters' rows do not count."""
    rows: list[dict[str, str | None]] = [
        {"apid_cluster_id": "c", "scope": "b", "org_scope": "", "env_scope": "e"},
        {"apid_cluster_id": "c", "scope": "b", "org_scope": None, "env_scope": "d"},
        {"apid_cluster_id": "other", "scope": "x", "org_scope": "y", "env_scope": "z"},
    ]
    assert scopes_of(rows, "c") == ("b", "c", "d", "e")
    assert scopes_of([], "c") == ("c",)


@pytest.mark.parametrize(
    ("text", "expected"), [("a-b_9", True), ("A", False), ("", False), ("a b", False), ("ä", False)]
)
def test_selectors_are_lower_case(text: str, expected: bool) -> None:
    """Digits, lower case letters, `_` and `-`."""
    assert is_selector(text) is expected


def test_recorded_changes_are_read() -> None:
    """An update, an insert, a delete and an update, with null where there is nothing."""
    page = decode_page((SAMPLES / "changes-upd-ins-del.json").read_bytes())
    assert (str(page.first), str(page.last)) == ("0.199b5a8.0", "0.199b5a8.3")
    assert [(change.operation.name, change.table) for change in page.changes] == [
        ("UPDATE", "kms.developer"),
        ("INSERT", "kms.developer"),
        ("DELETE", MAPPER),
        ("UPDATE", PRODUCTS),
    ]
    assert page.changes[1].new is not None
    assert page.changes[1].new["username"] is None
    assert page.changes[1].old is None
    assert page.changes[2].new is None


def test_no_changes_are_null() -> None:
    """A poll that timed out says `null`."""
    assert decode_page((SAMPLES / "changes-empty.json").read_bytes()).changes == ()


NONSENSE: list[Any] = [
    b"",
    b"null",
    b"[]",
    b"<html>no</html>",
    b'{"lastSequence": "0.1.0"}',
    b'{"lastSequence": 1, "firstSequence": "0.0.0"}',
    b'{"lastSequence": "x", "firstSequence": "0.0.0"}',
    b'{"lastSequence": "0.1.0", "firstSequence": "0.0.0", "changes": {}}',
    b'{"lastSequence": "0.1.0", "firstSequence": "0.0.0", "changes": [1]}',
    b'{"lastSequence": "0.1.0", "firstSequence": "0.0.0", "changes": [{"operation": 1}]}',
    b'{"lastSequence": "0.1.0", "firstSequence": "0.0.0", "changes": [{"operation": 4, "table": "kms.app"}]}',
    (
        b'{"lastSequence": "0.1.0", "firstSequence": "0.0.0",'
        b' "changes": [{"operation": 1, "table": "t", "newRow": {"id": {"value": 1}}}]}'
    ),
    b'{"lastSequence": "0.1.0", "firstSequence": "0.0.0", "changes": ' + b"[" * 100_000,
    (
        b'{"lastSequence": "0.1.0", "firstSequence": "0.0.0",'
        b' "changes": [{"operation": 1, "table": "t", "newRow": {"id": {"value": "\xff"}}}]}'
    ),
]


@pytest.mark.parametrize("body", NONSENSE)
def test_nonsense_is_no_page(body: bytes) -> None:
    """It is refused in one line."""
    with pytest.raises(SyncFailed) as caught:
        decode_page(body)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 200


@given(st.integers(0, 9000))
def test_a_cut_page_is_no_page(length: int) -> None:
    """Wherever it is cut."""
    body = (SAMPLES / "changes-upd-ins-del.json").read_bytes()
    with pytest.raises(SyncFailed):
        decode_page(body[: min(length, len(body) - 2)])


OURS = ("tenant-a", "tenant-b")
KEY = {"tenant_id": "t", "id": "1"}
OLD = {**KEY, "name": "old", "developer_id": "d", "company_id": None, "_change_selector": "tenant-a"}
NEW = {**OLD, "name": "new"}


def made_of(operation: Operation, new: Any = None, old: Any = None, stored: Any = None, table: str = APPS) -> RowEffect:
    """What is made of a change."""
    return effect_of(RowChange(operation, table, new, old), OURS, lambda key: stored)


def kept(row: dict[str, Any]) -> dict[str, Any]:
    """The columns of an app that are kept."""
    return {column: row.get(column) for column in ("tenant_id", "id", "name", "developer_id", "company_id")}


def test_an_insert_puts_a_row() -> None:
    """With its key; replaying it puts it again."""
    assert made_of(Operation.INSERT, NEW) == RowEffect(None, kept(NEW))


def test_an_update_without_an_old_row_puts_a_row() -> None:
    """Old rows come from tables with REPLICA IDENTITY FULL only."""
    assert made_of(Operation.UPDATE, NEW) == RowEffect(None, kept(NEW))
    assert made_of(Operation.UPDATE, NEW, {"name": "x"}) == RowEffect(None, kept(NEW))


def test_an_update_of_a_key_removes_the_old_row() -> None:
    """The row of the old key goes, that of the new one comes."""
    assert made_of(Operation.UPDATE, {**NEW, "id": "2"}, OLD) == RowEffect(KEY, kept({**NEW, "id": "2"}))
    assert made_of(Operation.UPDATE, NEW, OLD) == RowEffect(None, kept(NEW))


def test_a_delete_removes_a_row() -> None:
    """Whatever selector it had."""
    assert made_of(Operation.DELETE, None, OLD) == RowEffect(KEY, None)


@pytest.mark.parametrize("selector", ["tenant-c", None, ""])
def test_a_row_that_moves_to_another_selector_is_deleted(selector: str | None) -> None:
    """It is delivered to the old selector only, as an update; by its old key, where that is told."""
    gone = {**NEW, "id": "2", "_change_selector": selector}
    assert made_of(Operation.UPDATE, gone, OLD) == RowEffect(KEY, None)
    assert made_of(Operation.UPDATE, gone) == RowEffect({**KEY, "id": "2"}, None)


def test_a_row_that_moves_between_our_selectors_stays() -> None:
    """As does one that does not tell its selector."""
    assert made_of(Operation.UPDATE, {**NEW, "_change_selector": "tenant-b"}, OLD).put == kept(NEW)
    assert made_of(Operation.UPDATE, {k: v for k, v in NEW.items() if k[0] != "_"}).put == kept(NEW)
    assert made_of(Operation.UPDATE, {**NEW, "_change_selector": UNCHANGED_TOAST}).put == kept(NEW)


def test_an_unchanged_toast_column_keeps_its_value() -> None:
    """That of the stored row; where there is none, that of the old row; null is a value too."""
    toast = {**NEW, "name": UNCHANGED_TOAST}
    assert made_of(Operation.UPDATE, toast, OLD, {**OLD, "name": "stored"}).put == kept({**NEW, "name": "stored"})
    assert made_of(Operation.UPDATE, toast, OLD).put == kept(OLD)
    assert made_of(Operation.UPDATE, toast, None, {**OLD, "name": None}).put == kept({**NEW, "name": None})
    key = {**NEW, "id": UNCHANGED_TOAST}
    assert made_of(Operation.UPDATE, key, OLD).put == kept(NEW)


def test_an_unchanged_toast_column_of_a_row_with_another_key() -> None:
    """Its value is that of the row that is stored under the old key."""
    new, old = {**NEW, "id": "2", "name": UNCHANGED_TOAST}, {**OLD, "name": UNCHANGED_TOAST}
    stored = {"1": {**OLD, "name": "stored"}}
    effect = effect_of(RowChange(Operation.UPDATE, APPS, new, old), OURS, lambda key: stored.get(str(key["id"])))
    assert effect == RowEffect(KEY, kept({**new, "name": "stored"}))


@pytest.mark.parametrize(
    ("operation", "new", "old"),
    [
        (Operation.DELETE, None, None),
        (Operation.DELETE, None, {"id": "1"}),
        (Operation.INSERT, None, None),
        (Operation.UPDATE, {"id": "1"}, None),
        (Operation.UPDATE, {**NEW, "id": ""}, None),
        (Operation.UPDATE, {**NEW, "id": None}, OLD),
        (Operation.UPDATE, {**NEW, "id": UNCHANGED_TOAST}, None),
        (Operation.UPDATE, {**NEW, "name": UNCHANGED_TOAST}, None),
        (Operation.UPDATE, {**NEW, "name": UNCHANGED_TOAST}, {**OLD, "name": UNCHANGED_TOAST}),
    ],
)
def test_what_cannot_be_applied(operation: Operation, new: Any, old: Any) -> None:
    """Only a snapshot can tell what the row is like."""
    with pytest.raises(Unusable):
        made_of(operation, new, old)


def test_every_table_has_its_key() -> None:
    """A scope is known by its id, a mapping by all that it maps."""
    scope = {"id": "s", "scope": "t", "_change_selector": "tenant-a"}
    assert made_of(Operation.DELETE, None, scope, table=SCOPES).removed == {"id": "s"}
    mapping = json.loads('{"tenant_id": "t", "appcred_id": "k", "app_id": "a", "apiprdt_id": "p"}')
    assert made_of(Operation.DELETE, None, {**mapping, "status": "x"}, table=MAPPER).removed == mapping
