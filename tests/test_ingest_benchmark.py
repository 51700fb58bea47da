"""The ingest benchmark: its judge, its client's reading of answers, and a run of a second over the real service."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from axcollector.registry import Registry
from benchmarks import ingest_wrk
from benchmarks.ingest import BARS, checked, client_of, medians, misses, table
from benchmarks.ingest_cell import delivered_bytes, figures
from benchmarks.ingest_client import Plan, length_of, percentile
from benchmarks.ingest_load import Yardstick, client_ids, make_registry, records, write_requests
from benchmarks.ingest_profile import Share, shares, tops
from benchmarks.service import ROOT

RUN: dict[str, Any] = {
    "statuses": {"200": 10},
    "seconds": 2.0,
    "cpu": 2.0,
    "cpu behind": 0.5,
    "sent MB": 5.0,
    "delivered": 1000,
    "cpu share": 0.5,
    "service share": 0.9,
    "p50 ms": 1.0,
    "p99 ms": 2.0,
    "max ms": 3.0,
    "stall ms": 0.0,
    "peak MB": 100.0,
    "bytes a record": 150.0,
    "of gzip -6": 1.2,
}
Y = Yardstick(100.0, 250.0), Yardstick(300.0, 250.0)


def cell(**other: Any) -> dict[str, Any]:
    """A cell of 100 records a request with which all is well, but for this."""
    made = medians([figures(RUN, 100, *Y)]) | {"records a request": 100, "coding": "plain", "compression": "fast"}
    return made | {"paced": False, "of Y": 2.0, "stall ms rebuilding": 0.0} | other


def test_records() -> None:
    """They are the same for the same seed, of the size that is said, and each client is a key of the registry."""
    made = records(500, 1)
    assert made == records(500, 1) != records(500, 2)
    assert len(set(made)) == 500
    assert 780 < sum(map(len, made)) / 500 < 860
    clients = {json.loads(record).get("client_id") for record in made}
    assert clients - {None} <= set(client_ids(1))


def test_registry(tmp_path: Path) -> None:
    """It knows every key."""
    scope = make_registry(tmp_path / "registry.db", 1)
    with Registry.open(str(tmp_path / "registry.db"), 1.0) as registry:
        assert {key.client_id for key in registry.keys(scope)} == set(client_ids(1))


@pytest.mark.parametrize("gzipped", [False, True])
def test_requests(tmp_path: Path, gzipped: bool) -> None:
    """All of the pool is sent, in requests of so many records each."""
    pool = records(7, 1)
    made = write_requests(tmp_path / "requests", "/p", pool, 3, gzipped=gzipped)
    data = (tmp_path / "requests").read_bytes()
    sent = []
    for length in made.lengths:
        head, _, body = data[:length].partition(b"\r\n\r\n")
        assert (b"Content-Encoding: gzip" in head) is gzipped
        assert f"Content-Length: {len(body)}".encode() in head
        sent += json.loads(gzip.decompress(body) if gzipped else body)["records"]
        data = data[length:]
    assert (data, sent, made.records) == (b"", [json.loads(record) for record in pool[:6]], 3)


@pytest.mark.parametrize(
    ("answer", "length"),
    [
        (b"", 0),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", 0),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", 40),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\nX: y\r\n\r\n{}", 57 - 6),
    ],
)
def test_length_of_an_answer(answer: bytes, length: int) -> None:
    """Known as soon as its head is there."""
    end = answer.find(b"\r\n\r\n")
    assert length_of(answer) == (0 if end < 0 else end + 4 + (2 if b": 2" in answer else 12))
    assert bool(length) is (end >= 0)


def test_percentiles() -> None:
    """Of a hundred values, and of none."""
    ordered = [float(n) for n in range(1, 101)]
    assert (percentile(ordered, 0.5), percentile(ordered, 0.99), percentile(ordered, 1.0)) == (51.0, 100.0, 100.0)
    assert percentile([], 0.5) == 0.0


def test_figures() -> None:
    """The CPU behind the load is paid for, and Y is the middle of the two."""
    found = figures(RUN, 100, *Y)
    assert (found["records/s"], found["Y"], found["of Y"], found["MB/s"]) == (400.0, 200.0, 2.0, 2.0)
    assert (found["of Y by CPU"], found["CPU s a million"]) == (2.0, 2000.0)
    assert (found["other answers"], found["client is the bottleneck"]) == ({}, False)


@pytest.mark.parametrize("delivered", [999, 1001])
def test_a_record_lost_or_doubled(delivered: int) -> None:
    """There is no figure then."""
    with pytest.raises(SystemExit, match=f"1000 records were accepted, {delivered} lie in the store"):
        figures(RUN | {"delivered": delivered}, 100, *Y)


def test_answers_that_were_not_waited_for() -> None:
    """Where a client hangs up at the end, one request a connection may have been taken without its knowing."""
    assert figures(RUN | {"delivered": 1200, "unread": 2}, 100, *Y)["records"] == 1000
    with pytest.raises(SystemExit, match="1201 lie in the store"):
        figures(RUN | {"delivered": 1201, "unread": 2}, 100, *Y)


WRK = """#!/bin/sh
echo "$@" > "$0.arguments"
for last in "$@"; do :; case "$last" in *.lua) cp "$last" "$0.lua";; esac; done
echo 'Running 1s test'
echo 'RESULT {"requests": 7, "refused": %d, "failed": %d, "seconds": 1.5, "p50": 2, "p99": 3, "max": 4}'
"""


def load_by(program: Path, text: str, tmp_path: Path) -> dict[str, Any]:
    """What a load by this program comes to."""
    program.write_text(text)
    program.chmod(0o700)
    plan = Plan(1234, str(tmp_path / "requests"), [10, 20], 5, 1.2, 0.0, min(os.sched_getaffinity(0)))
    return ingest_wrk.run(str(program), plan)


def test_wrk(tmp_path: Path) -> None:
    """It is told what to send where, and what it tells is what our own client would."""
    found = load_by(tmp_path / "wrk", WRK % (2, 0), tmp_path)
    assert found.pop("cpu share") >= 0
    latencies = {"p50 ms": 2, "p99 ms": 3, "max ms": 4, "stall ms": 0.0}
    assert found == {"statuses": {"200": 5, "4xx, 5xx": 2}, "unread": 5, "seconds": 1.5} | latencies
    arguments = (tmp_path / "wrk.arguments").read_text()
    assert arguments.startswith("-t1 -c5 -d1s ")
    assert arguments.endswith(" http://127.0.0.1:1234/\n")
    assert f"io.open([[{tmp_path / 'requests'}]]" in (tmp_path / "wrk.lua").read_text()


@pytest.mark.parametrize("text", [WRK % (0, 1), "#!/bin/sh\nexit 3\n"])
def test_wrk_fails(tmp_path: Path, text: str) -> None:
    """There is no figure then."""
    with pytest.raises(SystemExit, match=r"wrk: 1 connections|status 3"):
        load_by(tmp_path / "wrk", text, tmp_path)


def test_who_sends() -> None:
    """Gzip'd bodies, and where it is said, all of them, are sent by our own client."""
    assert client_of("auto", "gzip") is client_of("own", "plain") is None
    assert client_of("auto", "plain") == ingest_wrk.wrk()


def test_only_200_counts() -> None:
    """Other answers are told, and miss whatever the rate."""
    found = figures(RUN | {"statuses": {"200": 10, "503": 7}}, 100, *Y)
    assert (found["records"], found["other answers"]) == (1000, {"503": 7})
    assert medians([found, found])["other answers"] == {"503": 14}


def test_medians() -> None:
    """Value by value; a client that was the bottleneck once was it."""
    runs = [figures(RUN | {"p99 ms": p99}, 100, *Y) for p99 in (1.0, 9.0, 2.0)]
    assert medians(runs)["p99 ms"] == 2.0
    hindered = figures(RUN | {"cpu share": 0.95, "service share": 0.6}, 100, *Y)
    assert medians([*runs, hindered])["client is the bottleneck"] is True


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, ""),
        ({"of Y": BARS[100, "plain"] * 0.91}, ""),
        ({"of Y": BARS[100, "plain"] * 0.89}, "1.60 Y < 1.8 Y"),
        ({"peak MB": 151.0}, "peak memory"),
        ({"of gzip -6": 1.41}, "of gzip's bytes > 1.4"),
        ({"of gzip -6": 1.2, "compression": "small"}, "of gzip's bytes > 1.1"),
        ({"other answers": {"503": 1}}, "answers other than 200"),
        ({"client is the bottleneck": True}, "no figure of the service"),
        ({"paced": True, "of Y": 0.1}, ""),
        ({"paced": True, "p50 ms": 5.1}, "p50 ms 5.1 > 5"),
        ({"paced": True, "p99 ms": 26.0}, "p99 ms 26.0 > 25"),
        ({"paced": True, "stall ms": 101.0}, "stall ms 101.0 > 100"),
        ({"paced": True, "stall ms rebuilding": 101.0}, "stall ms rebuilding 101.0 > 100"),
    ],
)
def test_bars(wrong: dict[str, Any], said: str) -> None:
    """Each is missed by what misses it, and by nothing else."""
    found = misses(cell(**wrong))
    assert len(found) == bool(said)
    assert said in "".join(found)


def test_delivered_bytes(tmp_path: Path) -> None:
    """Lines are counted over all files and members; what gzip makes of them is what they are measured by."""
    lines = b"".join(b'{"n":%d}\n' % n for n in range(1000))
    (tmp_path / "a.gz").write_bytes(gzip.compress(lines, 6))
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"{}\n") + gzip.compress(b"{}\n"))
    found = delivered_bytes(sorted(tmp_path.iterdir()))
    assert found["delivered"] == 1002
    assert found["of gzip -6"] == pytest.approx(1.0, abs=0.01)
    assert delivered_bytes([])["delivered"] == 0


def test_profile() -> None:
    """A function's own time and what it called; one that calls itself counts once."""
    found = shares(["main (a.py);work (a.py) 3", "main (a.py);work (a.py);work (a.py) 1", "main (a.py) 1"])
    assert found == [Share("work (a.py)", 0.8, 0.8), Share("main (a.py)", 0.2, 1.0)]
    assert list(tops(found, 1))[1::2] == ["  80.0%   80.0%  work (a.py)", " 100.0%   20.0%  main (a.py)"]


def test_table() -> None:
    """Columns are as wide as they must be."""
    assert table([("a", "bcd"), ("ef", "g")]) == " a  bcd\nef    g"


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--cells", "0"], ["--cells", "x"], ["--runs", "0"], ["--cpus", "999,1000"], ["--pool", "10"]),
        *(["--seconds", "1", "--interval", "2"], ["--json", "/nowhere/at/all"], ["-x"]),
        ["--profile", "/nowhere/at/all", "--json", "figures.json"],
    ],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Ends with 2, and a line that says what is wrong."""
    with pytest.raises(SystemExit) as ended:
        checked(arguments)
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize("mode", [[], ["--latency"]])
def test_a_short_run(tmp_path: Path, mode: list[str]) -> None:
    """Everything accepted is delivered, and the table and the figures say so, whatever the machine reaches."""
    cpu = str(min(os.sched_getaffinity(0)))
    command = [sys.executable, "-m", "benchmarks.ingest", "--quick", "--cells", "10", "--encoding", "gzip", *mode]
    command += ["--seconds", "1.2", "--interval", "1", "--pool", "500", "--yardstick-seconds", "0.1"]
    command += ["--cpus", f"{cpu},{cpu}", "--connections", "8", "--json", str(tmp_path / "figures.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode in {0, 1}, done.stderr
    (found,) = json.loads((tmp_path / "figures.json").read_text())["cells"]
    assert found["records"] > 0
    assert (found["other answers"], found["coding"], found["paced"]) == ({}, "gzip", bool(mode))
    assert "shared one core" in done.stdout
    assert "records/s" in done.stdout
    assert ("rebuilding: p50 ms" in done.stdout) is bool(mode)
