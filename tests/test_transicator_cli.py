"""The command line where the registry is a copy of the servers': it may be read, and not changed."""

from pathlib import Path

import pytest

from axcollector.cli import main
from tests.transicator_server import CLUSTER
from tests.transicator_world import World

CONFIG = """
local_storage_path: {root}
sync: transicator
apigeesync_proxy_server_base: http://sync.test
apigeesync_snapshot_server_base: http://sync.test
apigeesync_change_server_base: http://sync.test
apigeesync_consumer_key: key
apigeesync_consumer_secret: secret
apigeesync_cluster_id: {cluster}
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    """A configuration file."""
    path = tmp_path / "axcollector.yaml"
    path.write_text(CONFIG.format(root=tmp_path / "data", cluster=CLUSTER))
    return str(path)


def test_lists_read_the_newest_file(tmp_path: Path, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever it is called, also while the collector runs."""
    world = World(tmp_path / "data").start()
    main(["scope", "list", "--config", config])
    assert "scope-1  org-tenant-a  prod         tenant-a" in capsys.readouterr().out
    world.server.add_scope("scope-2", "tenant-b")
    world.turn(1)
    main(["scope", "list", "--config", config])
    assert "scope-2" in capsys.readouterr().out
    main(["key", "list", "--config", config])
    assert capsys.readouterr().err == ""
    main(["export", str(tmp_path / "rows"), "--config", config])
    assert (tmp_path / "rows").read_text().count("org-tenant") == 2
    world.stop()


@pytest.mark.parametrize(
    "command", ["scope add a b", "scope remove scope-1", "key add scope-1 -p p -a a -d d", "import /dev/null"]
)
def test_changes_are_refused(tmp_path: Path, config: str, capsys: pytest.CaptureFixture[str], command: str) -> None:
    """The servers would not know of them, and the next snapshot would undo them."""
    world = World(tmp_path / "data").start()
    world.stop()
    with pytest.raises(SystemExit) as caught:
        main([*command.split(), "--config", config])
    assert caught.value.code not in {0, None}
    error = capsys.readouterr().err
    assert "nothing was changed: with sync: transicator the registry is a copy of the servers'" in error
    assert error.count("\n") == 1


def test_before_the_first_snapshot(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """There is nothing to read, which is said."""
    with pytest.raises(SystemExit):
        main(["scope", "list", "--config", config])
    assert "yet: no snapshot has been taken" in capsys.readouterr().err
