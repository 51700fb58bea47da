"""Delivered files are plain gzip'd JSON lines that others' readers accept, copied members and packed ones."""

import gzip
import json
import subprocess
from pathlib import Path

import duckdb
import pytest
from twisted.internet.task import Clock

from axcollector.core import deflate, frames
from axcollector.core.layout import JournalName, Stage
from axcollector.core.model import Interval
from axcollector.disk import Disk
from axcollector.splitter import Splitter
from axcollector.stores.directory import DirectoryStore
from axcollector.uploader import Uploader
from tests.fakes import SameThread

NAME = JournalName(Interval(1_480_000_080, 1_480_000_200), "id", 1, 0, 0)
RECORDS = [
    {"id": i, "client_received_start_timestamp": 1_480_000_080_000 + i, "path": f"/ü/{i % 7}", "nested": {"a": [i]}}
    for i in range(3000)
]


@pytest.fixture(params=[1, 500], ids=["packed", "copied"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A `file:` store with one delivered file, of batches of so many records."""
    for stage in Stage:
        (tmp_path / "ax" / stage).mkdir(parents=True)
    batches = [RECORDS[i : i + request.param] for i in range(0, len(RECORDS), request.param)]
    lines = ["".join(json.dumps(record) + "\n" for record in batch).encode() for batch in batches]
    journal = [frames.write(NAME.identity, i, "acme~prod", 1, deflate.member(text)) for i, text in enumerate(lines)]
    (tmp_path / "ax" / "tmp" / NAME.journal).write_bytes(b"".join(journal))
    Splitter(Disk(), str(tmp_path / "ax"), Stage.TMP, pack_all=False).work()
    uploader = Uploader(
        Clock(), SameThread(), Disk(), DirectoryStore(SameThread(), Disk(), str(tmp_path / "store")),
        str(tmp_path / "ax"), interval_seconds=1, concurrency=2, max_attempts=1, failed_retry_batch=1, chance=float,
    )  # fmt: skip
    uploader.startService()
    uploader.stopService()
    return tmp_path / "store"


def only_file(store: Path) -> Path:
    """The one that was delivered."""
    (path,) = store.rglob("*.txt.gz")
    return path


def test_gzip_and_python(store: Path) -> None:
    """`gzip -t` finds nothing wrong, and Python reads every record."""
    path = only_file(store)
    assert subprocess.run(["gzip", "-t", str(path)], check=False).returncode == 0
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        assert [json.loads(line) for line in lines] == RECORDS


def test_duckdb(store: Path) -> None:
    """DuckDB reads it in one query, with date and time as partitions."""
    query = f"""
        SELECT count(*), sum(id), min(path), any_value("date"), any_value("time")
        FROM read_json('{store}/*/*/*/*.txt.gz', format = 'newline_delimited',
                       hive_types = {{'date': DATE, 'time': VARCHAR}})
    """
    count, total, path, date, time = duckdb.connect().execute(query).fetchone()
    assert (count, total, path) == (3000, sum(range(3000)), "/ü/0")
    assert (str(date), str(time)) == ("2016-11-24", "15-08-00")
