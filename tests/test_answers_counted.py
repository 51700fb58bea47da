"""Each answer is counted once, whoever gives it."""

from pathlib import Path
from typing import Final

import pytest
from twisted.internet.task import Clock
from twisted.web.resource import Resource

from axcollector.core.tally import Tally
from axcollector.site import IngestSite
from tests.fakes import HeldThread
from tests.test_usual import Catalogued, catalog_of_two
from tests.test_webapi import ACME, JSON, Stand
from tests.wire import Connection, request

BODY: Final = b'{"records":[{"client_received_start_timestamp":1}]}'


def counted(tally: Tally) -> dict[tuple[str, int, str], int]:
    """How many were counted as what."""
    return {(each.route, each.status, each.code): each.count for each in tally.ingest().requests}


@pytest.mark.parametrize("parser", ["llhttp", "twisted"])
def test_answers_of_the_door(tmp_path: Path, parser: str) -> None:
    """By how the tenant was named, and what the answer says."""
    stand = Stand(tmp_path, parser=parser)
    stand.post(f"/analytics/{ACME.id}", BODY)
    stand.post(f"/analytics/{ACME.id}", BODY)
    stand.post(f"/analytics/{ACME.id}", b"nothing")
    stand.post("/axpublisher/organization/acme/environment/prod", BODY)
    stand.post("/analytics", BODY)
    stand.post("/nowhere", BODY)
    stand.ask(request("GET", f"/analytics/{ACME.id}"))
    described = Connection(stand.site)
    described.send(request("GET", "/openapi.json"))
    described.hang_up()
    assert counted(stand.tally) == {
        ("scope", 200, "ACCEPTED"): 2,
        ("scope", 400, "BAD_DATA"): 1,
        ("names", 200, "ACCEPTED"): 1,
        ("body", 400, "MISSING_FIELD"): 1,
        ("other", 404, "NOT_FOUND"): 1,
        ("other", 405, "METHOD_NOT_ALLOWED"): 1,
        ("other", 200, "OK"): 1,
    }
    assert stand.tally.ingest().accepted_records == 3


@pytest.mark.parametrize("parser", ["llhttp", "twisted"])
def test_answers_of_the_connection(tmp_path: Path, parser: str) -> None:
    """What is no HTTP, has too long a head, or does not come in time."""
    stand = Stand(tmp_path, parser=parser)
    stand.ask(b"what is this\r\n\r\n")
    stand.ask(b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n")
    slow = Connection(stand.site)
    slow.send(b"GET / HTTP")
    stand.clock.advance(61)
    slow.hang_up()
    assert counted(stand.tally) == {
        ("other", 400, "BAD_DATA"): 1,
        ("other", 431, "BAD_DATA"): 1,
        ("other", 408, "BAD_DATA"): 1,
    }


@pytest.mark.parametrize("parser", ["llhttp", "twisted"])
def test_who_hangs_up(tmp_path: Path, parser: str) -> None:
    """It is no failure of ours; what was sent is durable all the same."""
    writer = HeldThread()
    stand = Stand(tmp_path, parser=parser, writer=writer)
    connection = Connection(stand.site)
    connection.send(request("POST", f"/analytics/{ACME.id}", BODY, (JSON,)))
    connection.hang_up()
    writer.step()
    assert counted(stand.tally) == {("scope", 503, "BROKEN_OFF"): 1}
    assert stand.tally.ingest().accepted_records == 1


@pytest.mark.parametrize("parser", ["llhttp", "twisted"])
@pytest.mark.parametrize("fails", [False, True])
def test_who_hangs_up_after_usual_requests(tmp_path: Path, parser: str, fails: bool) -> None:
    """A client whose head is remembered by then is counted as any other, whatever becomes of its batch."""
    writer = HeldThread()
    directory = Catalogued(catalog_of_two())
    stand = Stand(tmp_path, parser=parser, writer=writer, directory=directory)
    connection = Connection(stand.site)
    post = request("POST", "/analytics/s1", BODY, (JSON,))
    for _ in range(3):
        connection.send(post)
        writer.step()
    assert counted(stand.tally) == {("scope", 200, "ACCEPTED"): 3}
    assert directory.asked == (2 if parser == "llhttp" else 3)
    stand.clock.advance(130)  # another interval, so another journal
    stand.disk.full = fails
    connection = Connection(stand.site) if connection.closing else connection
    connection.send(post)
    connection.hang_up()
    while writer.jobs:
        writer.step()
    assert counted(stand.tally) == {("scope", 200, "ACCEPTED"): 3, ("scope", 503, "BROKEN_OFF"): 1}
    assert stand.tally.ingest().accepted_records == (3 if fails else 4)


def test_who_is_turned_away() -> None:
    """One connection too many is told so, and is counted as refused too."""
    tally = Tally()
    site = IngestSite(
        Resource(),
        Clock(),
        max_body_bytes=9,
        max_pending_bytes=9,
        request_timeout_seconds=60,
        max_connections=1,
        tally=tally,
    )
    first = Connection(site)
    assert site.buildProtocol(None) is not None
    assert counted(tally) == {("other", 503, "OVERLOADED"): 1}
    assert (tally.ingest().connections, tally.ingest().refused_connections) == (1, 1)
    first.hang_up()
    assert tally.ingest().connections == 0
