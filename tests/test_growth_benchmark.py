"""The growth benchmark: its worlds, its judge, and a run of seconds over the real service."""

import gzip
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from axcollector.buckets import look_into
from axcollector.disk import Disk
from axcollector.registry import Registry
from benchmarks.growth import checked, delivered_between, judged, problems, row, series_of
from benchmarks.growth_world import (
    AXES,
    BACKLOG_RECORDS,
    Cell,
    fill_backlog,
    keys_of,
    make_registry,
    scope_id,
    series,
    sized,
    write_requests,
)
from benchmarks.ingest_load import client_ids, record
from benchmarks.service import ROOT

MANY = Cell("tenants", 7, 3, tenants=7, keys=50)


def cell(**other: Any) -> dict[str, Any]:
    """A cell with which all is well, but for this."""
    return {
        "axis": "keys",
        "value": 10,
        "records a request": 10,
        "records/s": 1000.0,
        "of Y": 0.5,
        "Y": 2000.0,
        "of Y by CPU": 0.6,
        "MB/s": 1.0,
        "CPU s a million": 20.0,
        "p50 ms": 1.0,
        "p99 ms": 2.0,
        "peak MB": 70.0,
        "other answers": {},
        "client is the bottleneck": False,
        **other,
    }


def test_registry(tmp_path: Path) -> None:
    """Each tenant has its scope and its share of the keys, each with a product, an app and a developer of its own."""
    make_registry(tmp_path / "registry.db", MANY, 1)
    ids = client_ids(1, 50)
    with Registry.open(str(tmp_path / "registry.db"), 1.0) as registry:
        assert {scope.id for scope in registry.scopes()} == {scope_id(n) for n in range(7)}
        for tenant in range(7):
            own = list(keys_of(ids, tenant, 7))
            assert {key.client_id for key in registry.keys(scope_id(tenant))} == set(own)
            known = registry.developers(f"t{tenant}", own)
            assert set(known) == set(own)
            assert all(msgspec.structs.astuple(info)[0].startswith("product-") for info in known.values())
    assert len(ids) == len(set(ids)) == 50


def test_requests(tmp_path: Path) -> None:
    """All tenants in turn, one request each at least; clients are keys of the request's tenant; the same each time."""
    made = write_requests(tmp_path / "a", MANY, 1, 10)
    assert made.lengths == write_requests(tmp_path / "b", MANY, 1, 10).lengths
    data = (tmp_path / "a").read_bytes()
    assert data == (tmp_path / "b").read_bytes()
    assert (len(made.lengths), made.records, sum(made.lengths)) == (7, 3, len(data))
    ids = client_ids(1, 50)
    for tenant, length in enumerate(made.lengths):
        head, _, body = data[:length].partition(b"\r\n\r\n")
        assert head.startswith(b"POST /analytics/%b HTTP/1.1\r\n" % scope_id(tenant).encode())
        found = json.loads(body)["records"]
        assert len(found) == 3
        assert {each.get("client_id") for each in found} - {None} <= set(keys_of(ids, tenant, 7))
        data = data[length:]


@pytest.mark.parametrize("size", [200, 1_000, 20_000])
def test_sizes(size: int) -> None:
    """Within a tenth of what was asked for, and no record without the time that every record needs."""
    chance = random.Random(1)
    texts = [sized(record(chance, ["key"]), size, chance, ["some", "words"]) for _ in range(50)]
    assert all(size * 0.85 <= len(text) <= size for text in texts)
    assert all("client_received_start_timestamp" in json.loads(text) for text in texts)
    natural = record(chance, ["key"])
    assert sized(natural, 0, chance, []) == msgspec.json.encode(natural)


def test_large_records_are_fewer(tmp_path: Path) -> None:
    """The requests' file does not grow with the size of a record."""
    made = write_requests(tmp_path / "a", Cell("size", 20_000, 10, record_bytes=20_000), 1, 400)
    assert len(made.lengths) == 2


def test_backlog(tmp_path: Path) -> None:
    """As the service leaves it: each bucket is one that the uploader takes, with records that count."""
    fill_backlog(tmp_path, Cell("backlog", 250, 10, backlog=250))
    staging = tmp_path / "ax" / "staging"
    buckets = sorted(path.name for path in staging.iterdir())
    assert len(buckets) == 250
    for bucket in buckets:
        found = look_into(Disk(), str(staging), bucket)
        (file,) = found.files
        assert (found.foreign, found.is_whole) == ((), True)
        assert gzip.decompress((staging / bucket / file.name).read_bytes()).count(b"\n") == BACKLOG_RECORDS


def test_series() -> None:
    """What the documentation says is measured, is; each series begins with the smallest."""
    cells = [each for name in AXES for each in series(name)]
    wanted = {(cell.axis, cell.value, cell.per_request) for each in cells for cell in each}
    assert {value for axis, value, _ in wanted if axis == "tenants"} == {1, 100, 10_000}
    assert {per for axis, _, per in wanted if axis == "tenants"} == {1, 10}
    assert {value for axis, value, _ in wanted if axis == "keys"} == {10_000, 100_000, 1_000_000}
    assert {value for axis, value, _ in wanted if axis == "connections"} == {1, 64, 1_000}
    assert {value for axis, value, _ in wanted if axis == "size"} == {200, 1_000, 20_000}
    assert {value for axis, value, _ in wanted if axis == "backlog"} == {0, 10_000}
    assert all([cell.value for cell in each] == sorted(cell.value for cell in each) for each in cells)
    (many,) = series("keys", [7])
    assert (many[0].keys, many[0].tenants, many[0].per_request) == (7, 1, 10)


def test_judged() -> None:
    """Less than half of the first value, by Y, is marked; the first never is."""
    found = judged([cell(), cell(**{"of Y": 0.26}), cell(**{"of Y": 0.24, "p99 ms": 8.0})])
    assert [each["fell"] for each in found] == [False, False, True]
    assert [each["rate to first"] for each in found] == [1.0, 0.52, 0.48]
    assert found[2]["p99 to first"] == 4.0
    assert [row(each)[7] for each in found] == ["", "", "!"]
    assert [len(problems(each)) for each in found] == [0, 0, 1]
    assert "0.48 of the first value's" in problems(found[2])[0]


def test_noise_falls_out() -> None:
    """A machine that is half as fast meanwhile is half as fast for the yardstick too."""
    slower = cell(**{"records/s": 500.0, "of Y": 0.5, "Y": 1000.0, "MB/s": 0.5})
    assert judged([cell(), slower])[1]["rate to first"] == 1.0
    assert judged([cell(axis="size"), slower | {"axis": "size"}])[1]["rate to first"] == 1.0


def test_sizes_are_judged_by_bytes() -> None:
    """A tenth of the records of a hundred times the size is ten times the bytes; a hundredth of a tenth is not."""
    first = cell(axis="size")
    good = cell(**{"axis": "size", "records/s": 100.0, "of Y": 0.05, "of Y by CPU": 0.06, "MB/s": 10.0})
    bad = cell(**{"axis": "size", "records/s": 4.0, "of Y": 0.002, "of Y by CPU": 0.002, "MB/s": 0.4})
    found = judged([first, good, bad])
    assert [each["fell"] for each in found] == [False, False, True]
    assert found[1]["by CPU to first"] == pytest.approx(10.0)
    assert "bytes a second" in problems(found[2])[0]


def test_only_200_counts() -> None:
    """Other answers, and a client that was too slow, are no result."""
    (found,) = judged([cell(**{"other answers": {"503": 3}, "client is the bottleneck": True})])
    assert len(problems(found)) == 2


def test_files_that_came_meanwhile(tmp_path: Path) -> None:
    """By when they were written."""
    for name, written in (("a", 10), ("b", 20), ("c", 30)):
        (tmp_path / f"{name}.gz").touch()
        os.utime(tmp_path / f"{name}.gz", (written, written))
    assert delivered_between(tmp_path, 15, 30) == 2


def test_choice() -> None:
    """Of the axes, and of their values."""
    assert [each[0].axis for each in series_of(checked([]))] == ["tenants", "tenants", *list(AXES)[1:]]
    some = series_of(checked(["--only", "keys,tenants", "--values", "5,10000"]))
    assert [[each.value for each in one] for one in some] == [[5, 10_000]] * 3


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--only", "keys,moon"], ["--runs", "0"], ["--cpus", "999,1000"], ["--pool", "10"], ["--values", "0"]),
        *(["--seconds", "1", "--interval", "2"], ["--json", "/nowhere/at/all"], ["--tenants-interval", "3"]),
    ],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Ends with 2, and a line that says what is wrong."""
    with pytest.raises(SystemExit) as ended:
        checked(arguments)
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_a_short_run(tmp_path: Path) -> None:
    """Everything accepted is delivered, the backlog too, and the table and the figures say so."""
    cpu = str(min(os.sched_getaffinity(0)))
    command = [sys.executable, "-m", "benchmarks.growth", "--quick", "--only", "backlog", "--values", "0,120"]
    command += ["--seconds", "1.2", "--interval", "1", "--pool", "200", "--yardstick-seconds", "0.1"]
    command += ["--cpus", f"{cpu},{cpu}", "--json", str(tmp_path / "figures.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode in {0, 1}, done.stderr
    none, some = json.loads((tmp_path / "figures.json").read_text())["cells"]
    assert [(each["axis"], each["other answers"], each["records"] > 0) for each in (none, some)] == [
        ("backlog", {}, True)
    ] * 2
    assert some["files/s beside"] >= none["files/s beside"] == 0.0
    assert "shared one core" in done.stdout
    assert "rec/req" in done.stdout
