"""How many connections there may be: what the process's open files leave, and what happens where none is left."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from axcollector.connections import Connections, fitting, host_of


@pytest.mark.parametrize(
    ("wanted", "open_files", "expected"),
    [
        (10_000, 1024, 768),
        (500, 1024, 500),
        (10_000, 20_000, 10_000),
        (10_000, 300, 150),
        (10_000, 1, 1),
        (10_000, -1, 10_000),
    ],
)
def test_fitting(wanted: int, open_files: int, expected: int) -> None:
    """There may be as many as wanted, where enough open files are left for everything else."""
    assert expected == fitting(wanted, open_files)


def test_addresses() -> None:
    """An address is counted without its port; what has none is not."""
    addresses = IPv4Address("TCP", "192.0.2.1", 1), IPv6Address("TCP", "::1", 2), UNIXAddress(b"/x"), None
    assert [host_of(each) for each in addresses] == ["192.0.2.1", "::1", None, None]


def test_unix_sockets_have_no_address() -> None:
    """A limit for each address is none for those without."""
    connections = Connections(Clock(), 0, 1)
    for _ in range(5):
        assert connections.has_room(None)
        connections.entered(None)


def test_addresses_are_forgotten() -> None:
    """Nothing is kept of an address from which no connection is left, however many there were."""
    connections = Connections(Clock(), 0, 2)
    for number in range(100):
        connections.entered(f"192.0.2.{number}")
        connections.left(f"192.0.2.{number}")
    assert (connections.count, len(connections._by_host)) == (0, 0)


def test_it_is_logged_now_and_then(log_events: list[LogEvent]) -> None:
    """A line says that it is full, and by which limit; not one for each connection. All are counted."""
    clock = Clock()
    connections = Connections(clock, 2, 1)
    connections.entered("192.0.2.1")
    for _ in range(3):
        assert not connections.has_room("192.0.2.1")
    connections.entered("192.0.2.2")
    assert not connections.has_room("192.0.2.3")
    clock.advance(60)
    assert not connections.has_room("192.0.2.3")
    assert [(event["limit"], event["host"]) for event in log_events] == [(1, "192.0.2.1"), (2, None)]
    assert (connections.count, connections.refused) == (2, 5)
    connections.left("192.0.2.2")
    assert connections.has_room("192.0.2.3")


NO_FILES_LEFT = """
    import resource, socket, time
    from twisted.internet import defer, reactor, task
    from twisted.web.resource import Resource
    from axcollector.site import IngestSite

    class Page(Resource):
        isLeaf = True
        def render(self, request):
            return b"x"

    site = IngestSite(Page(), reactor, max_body_bytes=9, max_pending_bytes=9, request_timeout_seconds=60)
    port = reactor.listenTCP(0, site, interface="127.0.0.1").getHost().port
    REQUEST = b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n"

    def connect():
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", port))
        return client

    async def answer(client):
        client.send(REQUEST)
        for _ in range(1000):
            await task.deferLater(reactor, 0.01)
            try:
                return client.recv(9999).split(b" ")[1]
            except BlockingIOError:
                pass

    async def main(reactor):
        first = connect()
        print(await answer(first))
        clients = [connect() for _ in range(40)]
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (clients[-1].fileno() + 11, hard))
        while len(site.channels) < 3:
            await task.deferLater(reactor, 0.01)
        await task.deferLater(reactor, 0.2)
        began = time.process_time()
        await task.deferLater(reactor, 0.5)
        print(time.process_time() - began < 0.25, 2 < len(site.channels) < 41)
        print(await answer(first))
        for client in clients:
            client.close()
        again = connect()
        print(await answer(again))
        while len(site.channels) != 2:
            await task.deferLater(reactor, 0.01)

    task.react(lambda reactor: defer.ensureDeferred(main(reactor)))
"""


def test_no_open_files_left() -> None:
    """Where a process may open no more files, it serves those that it has, does not spin, and listens on."""
    code = textwrap.dedent(NO_FILES_LEFT)
    root = Path(__file__).parent.parent
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False, timeout=60
    )
    assert (ran.stdout.split("\n"), ran.stderr) == (["b'200'", "True True", "b'200'", "b'200'", ""], "")
