"""The transicator source against its servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.transicator_world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A world that has not begun; in the end nothing may be left to happen."""
    world = World(tmp_path)
    yield world
    world.stop()
    assert [call for call in world.clock.getDelayedCalls() if "_time_out" not in str(call)] == []


def test_a_first_snapshot(world: World) -> None:
    """A token, the boot snapshot, the last sequence, the data snapshot: then the catalog shows the tenants."""
    world.server.insert("kms.developer", "tenant-a", id="d1", tenant_id="tenant-a", username="ada", email="a@x")
    world.start()
    assert [each.what for each in world.server.asked] == [
        *("token", "snapshots", "data", "changes", "snapshots", "data", "changes")
    ]
    assert world.kept() == world.expected()
    world.server.update("kms.developer", {"id": "d1", "tenant_id": "tenant-a"}, username="bob")
    world.turn()
    assert world.kept() == world.expected()
    print(world.files(), world.listener.lists)
