"""What is made is for its owner alone, whatever the umask; and nothing starts where others could change it."""

import contextlib
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.web.server import Site

from axcollector.collector import Collector
from axcollector.config import Config
from axcollector.core.errors import UnsafeDirectory
from axcollector.core.layout import Stage
from axcollector.disk import Disk, ensure_within
from axcollector.ownership import PrivateDirectory, check_above, check_private, is_group_of_one, objection
from axcollector.premises import Premises
from axcollector.sqlite_file import make_file
from tests.running import Running, until
from tests.test_cli_registry import run
from tests.test_demo import ROOT
from tests.test_transicator_service import RECORD, Servers, add_key, config_of, knows_key

STARTED = '{"client_received_start_timestamp": 1, "id": 1}'
OURS = {"a directory": 0o700, "a file": 0o600}


@pytest.fixture(params=[0o000, 0o777], ids=["everything allowed", "nothing allowed"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """The two umasks that could do most harm."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@contextlib.contextmanager
def generous() -> Iterator[None]:
    """A umask that takes nothing away."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def modes(root: Path) -> dict[str, int]:
    """What is there, and its permissions."""
    return {str(path): stat.S_IMODE(path.lstat().st_mode) for path in [root, *root.rglob("*")]}


def foul(root: Path) -> dict[str, str]:
    """What is not for its owner alone."""
    kinds = {path: "a directory" if Path(path).is_dir() else "a file" for path in modes(root)}
    return {path: oct(mode) for path, mode in modes(root).items() if mode != OURS[kinds[path]]}


def test_hands(tmp_path: Path, umask: int) -> None:
    """Files and directories, those of SQLite's too."""
    disk = Disk()
    here = ensure_within(disk, str(tmp_path), "a", "b")
    disk.create(f"{here}/c").close()
    make_file(f"{here}/d/e/f.db")
    assert foul(tmp_path / "a") == {}
    assert len(modes(tmp_path / "a")) == 6


def test_the_premises(tmp_path: Path, umask: int) -> None:
    """The lock, the count, the id and the stages."""
    place = Premises(Disk(), str(tmp_path / "x" / "data"), str(tmp_path / "x" / "data" / "ax"))
    place.acquire(None, lambda: "made", 0)
    place.release()
    names = {Path(path).name for path in modes(tmp_path / "x")}
    assert names == {"x", "data", "lock", "starts", "instance_id", "ax", *Stage}
    assert foul(tmp_path / "x") == {}


@pytest_twisted.ensureDeferred
async def test_a_whole_run(tmp_path: Path) -> None:
    """Records taken, split, delivered; a damaged journal kept: at no time is anything there for others."""
    with generous():
        damaged = tmp_path / "data" / "ax" / "tmp" / "20260102030400.20260102030500_i_writer_1-0-0.journal"
        ensure_within(Disk(), str(tmp_path), "data", "ax", "tmp")
        with Disk().create(str(damaged)) as file:
            file.write(b"no journal")
        running = await Running(tmp_path / "data", collection_interval=3600).start()
        scope = await running.scope("acme", "prod", "key")
        await running.send(scope, [STARTED])
        seen = {path.suffix for path in (tmp_path / "data").rglob("*")}
        assert {".journal", ".db", ".db-wal", ".db-shm"} <= seen
        assert foul(tmp_path / "data") == {}
        await running.stop()
        left = [path.name for path in (tmp_path / "data" / "ax").glob("*/*/*.gz")]
        running = await Running(tmp_path / "data").start()
        await until(lambda: running.stored() == 1)
        assert foul(tmp_path / "data") == {}
        await running.stop()
    assert left
    assert (tmp_path / "data" / "ax" / "recovered" / "unreadable").is_dir()
    assert foul(tmp_path / "data") == {}


@pytest_twisted.ensureDeferred
async def test_a_run_with_sync_servers(tmp_path: Path) -> None:
    """Registry files that come of snapshots and changes, and the note that there was a token."""
    servers = Servers()
    servers.sync.add_scope("scope-1", "tenant-a")
    sync, signer = servers.listen(Site(servers.sync.resource)), servers.listen(servers.signer.site())
    with generous():
        collector = Collector(reactor, config_of(tmp_path / "data", sync, signer))
        collector.startService()
        await until(collector.directory.ready)
        add_key(servers.sync)
        await until(lambda: knows_key(collector))
        await collector.submit("scope-1", [RECORD])
        await until(lambda: servers.signer.objects)
        assert foul(tmp_path / "data") == {}
        await collector.stopService()
    assert len(list((tmp_path / "data").rglob("registry-*.db"))) == 1
    assert foul(tmp_path / "data") == {}
    await servers.close()


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The registry, what is exported of it, and the signing service's tokens."""
    (tmp_path / "here").mkdir(mode=0o700)
    with generous(), contextlib.chdir(tmp_path / "here"):
        assert run("scope", "add", "acme", "prod") == 0
        scope = capsys.readouterr().out.strip()
        assert run("key", "add", scope, "k", "--product", "p", "--app", "a", "--developer", "d") == 0
        assert run("export", "all.jsonl") == 0
        assert run("export", "all.jsonl.gz") == 0
        assert run("import", "all.jsonl") == 0
        assert run("signer-token", "new", "acme~prod") == 0
    assert {path.name for path in (tmp_path / "here").rglob("*.*")} >= {"registry.db", "all.jsonl", "tokens.db"}
    assert foul(tmp_path / "here") == {}


@pytest.mark.parametrize("directory", ["wanted", None])
def test_a_demo(tmp_path: Path, directory: str | None) -> None:
    """All that the demo leaves, its configuration and log too."""
    (tmp_path / "here").mkdir(mode=0o700)
    wanted = [] if directory is None else ["--directory", directory]
    script = "import sys; from axcollector.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", script, "demo", "--records", "50", *wanted]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path / "here", umask=0, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "here").rglob("*")}
    assert {"registry.db", "lock", "starts", "instance_id"} <= names
    assert foul(tmp_path / "here") == {}


def facts(mode: int, uid: int = 1000, gid: int = 1000) -> os.stat_result:
    """What the system says of something."""
    return os.stat_result((mode, 0, 0, 1, uid, gid, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (facts(stat.S_IFDIR | 0o700), None),
        (facts(stat.S_IFDIR | 0o755), None),
        (facts(stat.S_IFDIR | 0o755, uid=0), None),
        (
            facts(stat.S_IFDIR | 0o770),
            "/a b can be written by others (its mode is 0770), who could change what lies there: chmod go-w '/a b'",
        ),
        (
            facts(stat.S_IFDIR | 0o1777),
            "/a b can be written by others (its mode is 1777), who could change what lies there: chmod go-w '/a b'",
        ),
        (
            facts(stat.S_IFDIR | 0o700, uid=7),
            (
                "/a b belongs to another user (7), who could change what lies there:"
                " chown -R 1000 '/a b', or run as that user"
            ),
        ),
        (
            facts(stat.S_IFLNK | 0o777),
            (
                "/a b is a symbolic link, which is not followed here: put the directory itself in its place"
                " (local_storage_path may be a link)"
            ),
        ),
        (facts(stat.S_IFREG | 0o600), "/a b is no directory: move it away"),
    ],
)
def test_objections(seen: os.stat_result, reason: str | None) -> None:
    """What is wrong with a directory, and the command that puts it right."""
    assert objection("/a b", seen, 1000) == reason


@pytest.mark.parametrize("place", ["data", "data/x", "data/x/ax", *(f"data/x/ax/{stage}" for stage in Stage)])
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_directory_that_others_can_write(tmp_path: Path, place: str, mode: int) -> None:
    """The collector does not start on it, wherever it is, and touches nothing; after what it says was done it does."""
    config = Config(local_storage_path=str(tmp_path / "data"), data_path="/x/ax", sync="none")
    premises = Premises(Disk(), config.local_storage_path, config.data_directory)
    premises.acquire(None, lambda: "made", 0)
    premises.release()
    (tmp_path / place).chmod(mode)
    collector = Collector(reactor, config)
    with pytest.raises(UnsafeDirectory) as caught:
        collector.startService()
    assert str(caught.value).endswith(f": chmod go-w {tmp_path / place}")
    assert (tmp_path / "data" / "starts").read_text() == "1\n"
    (tmp_path / place).chmod(mode & ~0o1022)
    premises.acquire(None, lambda: "other", 0)
    assert premises.starts == 2
    premises.release()


@pytest.mark.parametrize("stage", Stage)
def test_a_stage_that_is_a_link(tmp_path: Path, stage: Stage) -> None:
    """It is refused; a link in the place of `local_storage_path`, or on the way to the stages, is not."""
    (tmp_path / "real" / "there").mkdir(parents=True, mode=0o700)
    (tmp_path / "data").symlink_to("real")
    (tmp_path / "real" / "ax").symlink_to("there")
    premises = Premises(Disk(), str(tmp_path / "data"), str(tmp_path / "data" / "ax"))
    premises.acquire(None, lambda: "made", 0)
    premises.release()
    (tmp_path / "real" / "there" / stage).rename(tmp_path / "moved")
    (tmp_path / "real" / "there" / stage).symlink_to(tmp_path / "moved")
    with pytest.raises(UnsafeDirectory, match="is a symbolic link, which is not followed here"):
        premises.acquire(None, lambda: "made", 0)


def test_directories_above(tmp_path: Path) -> None:
    """Where others can write one above, they could put another directory in its place; the sticky bit prevents that."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b")
    places = [str(tmp_path / "a" / "b" / "data"), str(tmp_path / "link" / "data"), str(tmp_path / "link")]
    for mode in (0o755, 0o1777, 0o700):
        (tmp_path / "a").chmod(mode)
        for place in places:
            check_above(place)
    (tmp_path / "a").chmod(0o777)
    for place in places:
        with pytest.raises(UnsafeDirectory, match=f"chmod go-w {tmp_path / 'a'}, or choose another place"):
            check_above(place)
    with pytest.raises(UnsafeDirectory):
        Premises(Disk(), places[0], f"{places[0]}/ax").acquire(None, lambda: "made", 0)
    assert os.listdir(tmp_path / "a" / "b") == []


def test_links_on_the_way(tmp_path: Path) -> None:
    """A link that leads to another one is as good as the directory that the other one lies in; circles end."""
    for name in ("first", "between", "last"):
        (tmp_path / name).mkdir()
    (tmp_path / "first" / "link").symlink_to("../between/link")
    (tmp_path / "between" / "link").symlink_to(tmp_path / "last")
    place = str(tmp_path / "first" / "link" / "data")
    check_above(place)
    for name in ("first", "between", "last"):
        (tmp_path / name).chmod(0o777)
        with pytest.raises(UnsafeDirectory, match=f"^{tmp_path}/.* can be written by others"):
            check_above(place)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "last" / "circle").symlink_to(tmp_path / "last" / "circle")
    check_above(str(tmp_path / "last" / "circle"))


def test_groups_of_one() -> None:
    """Root's group, which others seldom are in, is one; a group of nobody's, and one of others, is not."""
    assert is_group_of_one(0, 0)
    assert not is_group_of_one(2**31 - 7, 0)
    assert not is_group_of_one(2**31 - 7, 2**31 - 7)
    assert not is_group_of_one(1, 0)


def test_the_signing_service(tmp_path: Path) -> None:
    """Whoever could write beside the tokens could put some of their own there; before they are made there are none."""
    PrivateDirectory(str(tmp_path / "missing")).startService()
    PrivateDirectory(str(tmp_path)).startService()
    tmp_path.chmod(0o702)
    with pytest.raises(UnsafeDirectory, match="chmod go-w"):
        PrivateDirectory(str(tmp_path)).startService()
    tmp_path.chmod(0o700)
    check_private(str(tmp_path))


def test_what_a_user_sees(tmp_path: Path) -> None:
    """One line that says what to do, and status 1."""
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data").chmod(0o777)
    command = [sys.executable, "-m", "twisted", "axcollector", "--local-storage-path", str(tmp_path / "data")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        f"axcollector cannot start: {tmp_path / 'data'} can be written by others (its mode is 0777),"
        f" who could change what lies there: chmod go-w {tmp_path / 'data'}\n"
    )
