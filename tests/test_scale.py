"""Past one machine: the arithmetic of docs/scale.rst, and its queries over what a real pipeline has delivered."""

import gzip
import json
import re
import textwrap
from dataclasses import fields, replace
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pytest
import pytest_twisted
from twisted.internet import reactor

from benchmarks import scale
from benchmarks.scale import Plan, fleet, objects
from tests.running import Running, until

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "scale.rst").read_text()
PERFORMANCE = (DOCS / "performance.rst").read_text()
QUERIES = [textwrap.dedent(each) for each in re.findall(r"\.\. code-block:: sql\n    :force:\n\n((?: .*\n|\n)+)", PAGE)]
SHOWN = [
    textwrap.dedent(each).strip()
    for each in re.findall(
        r"::\n\n((?:    .*\n|\n)+)",
        PAGE.partition("benchmarks.scale begins here")[2].partition("benchmarks.scale ends here")[0],
    )
]
TENANTS = [("acme", "prod"), ("acme", "test"), ("zoo", "prod")]


def test_the_page_shows_what_is_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Both parts, word for word; and an option exchanges a figure."""
    monkeypatch.setattr("sys.argv", ["scale"])
    scale.main()
    assert capsys.readouterr().out.strip().split("\n\n", 1) == SHOWN
    monkeypatch.setattr("sys.argv", ["scale", "--cpu-seconds-per-million", "21"])
    scale.main()
    assert re.search(r"cores that take records +42\.0\n", capsys.readouterr().out)
    assert {field.name for field in fields(Plan)} == set(scale.HELP)


def test_what_it_begins_with_was_measured() -> None:
    """The figures of one machine are those of the page on performance."""
    plan = Plan()
    a_hundred = re.search(r"^100 +(\d+) +200,000$", PERFORMANCE, re.MULTILINE)
    assert a_hundred is not None
    assert float(a_hundred[1]) == plan.cpu_seconds_per_million
    for words in (
        "A record of 820 bytes takes about 200 bytes compressed, and is written twice",
        "for each tenant with records in an interval, about two milliseconds of CPU for its file",
        "half of what it can is a good load",
        "A process has 70 to 75 MB",
    ):
        assert words in " ".join(PERFORMANCE.replace("**Cores.**", "").split()), words


def test_the_arithmetic() -> None:
    """By hand: a tenth of everything, in round numbers."""
    plan = replace(
        Plan(), records_per_second=100_000, cpu_seconds_per_million=10, load=0.5, cores_per_machine=3, zones=2
    )
    of = fleet(plan)
    # A second has 1 s of work, on 2 cores at half load; two workers a machine do it; either of two zones is enough.
    assert (of.cores, of.needed_machines, of.machines, of.workers) == (2.0, 1, 2, 4)
    assert (of.stored_mb, of.ingress_mb, of.disk_write_mb) == (20.0, 82.0, 40.0)
    assert of.stored_tb_a_day == pytest.approx(1.728)
    # Four hours of 20 MB/s and two intervals of it; a tenth stays free.
    assert of.disk_room_gb == pytest.approx((288 + 4.8) / 0.9)
    # 5 MB/s a worker make 600 MB in 120 s: three journals of 256 MiB, of each of four workers, 720 times a day.
    assert objects(plan).files_a_day == 1000 * 4 * 3 * 720
    assert objects(plan, machines_a_tenant=1).files_a_day == 1000 * 2 * 3 * 720
    assert objects(plan).file_kb * objects(plan).files_a_day == pytest.approx(1.728e9)
    assert objects(plan).usd_a_day == pytest.approx(8640 * 0.005)


@pytest.mark.parametrize("records", [1, 10_000, 1_000_000, 30_000_000])
@pytest.mark.parametrize("zones", [2, 3, 4])
def test_a_zone_may_be_lost(records: int, zones: int) -> None:
    """What is left then is what is needed, and no zone could be smaller."""
    of = fleet(replace(Plan(), records_per_second=records, zones=zones))
    a_zone = of.machines // zones
    assert of.machines == a_zone * zones
    assert of.machines - a_zone >= of.needed_machines > (a_zone - 1) * (zones - 1)


@pytest.mark.parametrize("time", ["18-04-15", "00-00-00", "23-59-59"])
def test_a_time_that_could_be_a_day(tmp_path: Path, time: str) -> None:
    """Where every interval's time is like 18-04-15, the query still gives times, not days of the year 18."""
    partition = tmp_path / "store" / "acme~prod" / "date=2026-11-24" / f"time={time}"
    partition.mkdir(parents=True)
    with gzip.open(partition / "one.txt.gz", "wt") as lines:
        lines.write('{"id":1,"organization":"acme"}\n')
    first, copied = (query.replace("store/", f"{tmp_path}/store/") for query in QUERIES)
    assert duckdb.connect().execute(first).fetchall() == [(date(2026, 11, 24), time, "acme", 1)]
    copy = tmp_path / "day.parquet"
    duckdb.connect().execute(copied.replace("date=2016", "date=2026").replace("day.parquet", str(copy)))
    assert duckdb.connect().execute(f"SELECT date, time FROM '{copy}'").fetchall() == [(date(2026, 11, 24), time)]


@pytest_twisted.ensureDeferred
async def test_duckdb_reads_what_was_delivered(tmp_path: Path) -> None:
    """One query over tenants and intervals, by partition; each record is there once, in the interval that took it."""
    service = await Running(tmp_path / "data").start()
    scopes = [await service.scope(*names) for names in TENANTS]
    sent: dict[int, float] = {}
    for interval in range(2):
        for which, scope in enumerate(scopes):
            records = [{"id": 100 * interval + 10 * which + i, "client_received_start_timestamp": 1} for i in range(10)]
            records[0][f"only_{which}"] = "text"
            await service.send(scope, [json.dumps(record) for record in records], gzipped=which == 0)
            sent |= {record["id"]: reactor.seconds() for record in records}
        await until(lambda: service.stored() == len(sent))  # noqa: B023 - it is over before the next
    await service.stop()

    first, copied = (query.replace("store/", f"{tmp_path}/data/store/") for query in QUERIES)
    connection = duckdb.connect()
    rows = connection.execute(first).fetchall()
    assert sum(count for *_, count in rows) == len(sent) == 60
    assert {organization for _, _, organization, _ in rows} == {"acme", "zoo"}
    days = {day.isoformat() for day, *_ in rows}
    starts = [f"{day} {time}" for day, time, *_ in rows]
    assert len(set(starts)) >= 2
    source = re.search(r"read_json\(.*?\)\n", first, re.DOTALL)
    assert source is not None
    for ident, day, time in connection.execute(f"SELECT id, date, time FROM {source[0]}").fetchall():
        start = datetime.strptime(f"{day} {time}", "%Y-%m-%d %H-%M-%S").replace(tzinfo=UTC).timestamp()
        assert start <= sent[ident]
    partition = rows[0][:2]
    found = connection.execute(f"SELECT count(*) FROM {source[0]} WHERE date = ? AND time = ?", partition).fetchone()
    assert found == (sum(count for *key, _, count in rows if tuple(key) == partition),)
    copies = 0
    for day in days:
        query = copied.replace("date=2016-11-24", f"date={day}").replace("day.parquet", f"{tmp_path}/{day}.parquet")
        copies += connection.execute(query).fetchone()[0]
    assert copies == 60
    columns = [column for column, *_ in connection.execute(f"DESCRIBE SELECT * FROM '{tmp_path}/*.parquet'").fetchall()]
    assert {"id", "organization", "environment", "only_0", "only_1", "only_2"} <= set(columns)
