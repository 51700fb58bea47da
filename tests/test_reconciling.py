"""The books agree: whatever was accepted is delivered or lies on disk, through faults, restarts and kills."""

import gzip
import json
import os
import signal
import time
import urllib.request
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_twisted
from twisted.internet import reactor

from axcollector.core.frames import FrameReader
from axcollector.core.layout import JOURNAL_SUFFIX, JournalName
from axcollector.core.status import Status
from tests.running import Running, until
from tests.signing_server import SigningServer, answer, url_of
from tests.test_process import Process, processes
from tests.test_workers import Parent, gone, prepared

__all__ = ["processes"]  # a fixture

pytestmark = pytest.mark.slow

GOOD = {"client_received_start_timestamp": 1}


def lines_of(data: bytes) -> int:
    """How many records a file holds."""
    return len(gzip.decompress(data).splitlines())


def on_disk(root: Path) -> tuple[int, int]:
    """How many records lie in the stages, in journals too; and how many that were set aside."""
    kept = aside = 0
    for path in (root / "ax").rglob("*"):
        if path.is_file() and JOURNAL_SUFFIX in path.name:
            reader = FrameReader(JournalName.parse(path.name)[0].identity)
            for frame in [*reader.feed(path.read_bytes()), *reader.finish()]:
                kept, aside = kept + frame.records, aside + frame.aside_records
        elif path.is_file() and "quarantine" in path.parts:
            aside += lines_of(path.read_bytes())
        elif path.is_file() and path.name.endswith(".txt.gz"):
            kept += lines_of(path.read_bytes())
    return kept, aside


def in_store(server: SigningServer) -> int:
    """How many records were put."""
    return sum(map(lines_of, server.objects.values()))


def accepted(status: Status) -> tuple[int, int]:
    """How many records were accepted, and how many set aside."""
    return status.ingest.accepted_records, status.ingest.quarantined_records


async def send_all_sorts(service: Running, scope: str) -> tuple[int, int]:
    """Good, half good, bad and refused batches; how many records the answers say were kept, and set aside."""
    kept = aside = 0
    bodies: list[tuple[str, Any]] = [
        *((scope, {"records": [GOOD] * count}) for count in (1, 7, 30)),
        (scope, {"records": [GOOD, {"no": "start"}, GOOD]}),
        (scope, {"records": [{"no": "start"}]}),
        (scope, {"records": []}),
        (scope, "nothing"),
        ("unknown", {"records": [GOOD]}),
    ]
    for path, body in bodies:
        status, said = await service.post(f"/analytics/{path}", json.dumps(body).encode())
        if status == 200:
            kept, aside = kept + said["accepted"], aside + said["quarantined"]
    return kept, aside


@pytest_twisted.ensureDeferred
async def test_a_store_that_fails_and_a_restart(tmp_path: Path) -> None:
    """The store away, then failing, a restart between: at each point the counts are what lies where it lies."""
    server = SigningServer()
    port = reactor.listenTCP(0, server.site(), interface="127.0.0.1")
    settings = {
        "uap_server_base": url_of(port),
        "bearer_token": server.token,
        "invalid_records": "quarantine",
        "collection_interval": 3600,
    }
    server.next_signs.extend([answer(503, Retry_After="1")] * 10_000)
    try:
        first = await Running(tmp_path, **settings).start()
        scope = await first.scope("acme", "prod")
        sent = [await send_all_sorts(first, scope)]
        before = accepted(first.collector.status())
        assert before == sent[0] == (40, 2)
        assert on_disk(tmp_path) == before  # in a journal that is being written
        await first.stop()
        assert on_disk(tmp_path) == before  # in staging
        assert in_store(server) == 0

        server.next_signs = deque()
        server.next_puts.extend([answer(400)] * 2)
        second = await Running(tmp_path, **{**settings, "collection_interval": 1}).start()
        try:
            sent += [await send_all_sorts(second, scope) for _ in range(3)]
            status = second.collector.status()
            assert accepted(status) == (120, 6)
            await until(lambda: second.collector.status().delivery.delivered_records == 160)
            assert in_store(server) == 160
            await until(lambda: on_disk(tmp_path) == (0, 8))
            delivery = second.collector.status().delivery
            assert delivery.attempts["failed"] == 2
            assert delivery.delivered_files == len(server.objects)
            assert delivery.delivered_bytes == sum(map(len, server.objects.values()))
            codes = {(each.status, each.code): each.count for each in status.ingest.requests}
            assert codes == {
                (200, "ACCEPTED"): 15,
                (400, "NO_RECORDS"): 3,
                (400, "BAD_DATA"): 3,
                (400, "UNKNOWN_SCOPE"): 3,
            }
            assert sum(traffic.records for piece in second.collector.traffic.pieces(10) for traffic in piece) == 120
        finally:
            await second.stop()
    finally:
        await port.stopListening()


class Asked:
    """The admin port of a process."""

    def __init__(self, process: Process) -> None:
        line = next(line for line in process.lines if "admin_listen: listening on" in line)
        self._port = line.partition("port=")[2].partition(")")[0]

    def get(self, path: str) -> bytes:
        """A page."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=30) as response:
            content: bytes = response.read()
        return content

    def status(self) -> Status:
        """How it is."""
        return msgspec.json.decode(self.get("/status"), type=Status)

    def until(self, condition: Callable[[Status], bool]) -> Status:
        """The first status of which this is so."""
        deadline = time.monotonic() + 60
        while not condition(status := self.status()):
            assert time.monotonic() < deadline, status
            time.sleep(0.05)
        return status


def test_workers_that_are_killed(tmp_path: Path, processes: list[Process]) -> None:
    """What those that have ended had counted stays in the sums, and what they had acknowledged is delivered."""
    scope = prepared(tmp_path)
    options = ("--collection-interval", "1", "--upload-interval", "0.1", "--admin-listen", "tcp:0:interface=127.0.0.1")
    parent = Parent(tmp_path, *options).started()
    processes.append(parent)
    parent.wait_for_lines("admin_listen: listening on", 1)
    asked = Asked(parent)
    parent.send(scope, 0, 20)
    status = asked.until(lambda status: status.ingest.accepted_records == 200)
    assert [worker.ready for worker in status.workers] == [True, True]
    victims = parent.pids()
    assert {worker.pid for worker in status.workers} == set(victims)
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    gone(*victims)
    parent.wait_for_lines("takes records", 5)
    assert asked.status().ingest.accepted_records == 200
    parent.send(scope, 200, 5)
    assert parent.post("/analytics/unknown", b"{}")[0] == 400
    status = asked.until(lambda status: status.delivery.delivered_records == 250 and status.ingest.connections == 0)
    assert status.ingest.accepted_records == 250
    assert {(each.code, each.count) for each in status.ingest.requests} == {("ACCEPTED", 25), ("UNKNOWN_SCOPE", 1)}
    assert sum(status.ingest.commit_batches.counts) == status.ingest.commits == 25
    assert status.ready
    assert (status.catalog.source, status.catalog.rows["edgex.data_scope"]) == ("registry", 1)
    assert {worker.number for worker in status.workers} == {2, 3}
    (tenant,) = msgspec.json.decode(asked.get("/tenants"))
    assert (tenant["organization"], tenant["records"]) == ("acme", 250)
    assert b"axcollector_workers_ready 2.0" in asked.get("/metrics")
    assert on_disk(tmp_path / "axcollector-data") == (0, 0)
    log = parent.end()[1]
    assert "Traceback" not in log
