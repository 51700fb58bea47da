"""The program in the kernel by which workers take turns: what it makes of packets, clients' ports, and connections.

What it is worth depends on the ports that clients happen to get, so connections are not counted here: each is to be
where its port says. By chance that would be so for one in so many as there are sockets.
"""

import errno
import operator
import random
import socket
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Final

import pytest

from axcollector.workers import spreading
from axcollector.workers.places import Place, open_places
from axcollector.workers.spreading import NETWORK_HEADER, NOBODY, program, run_ports, take_turns

TCP: Final = 6
EPHEMERAL: Final = range(32768, 61000)
"""Where Linux has its clients' ports from."""
LOADS: Final = {spreading.LOAD_BYTE: "!B", spreading.LOAD_TWO_BYTES: "!H"}
ARITHMETIC: Final = {
    spreading.AND: operator.and_,
    spreading.ADD: operator.add,
    spreading.DIVIDE: operator.floordiv,
    spreading.REMAINDER: operator.mod,
}
CONDITIONS: Final = {spreading.JUMP_IF_EQUAL: operator.eq, spreading.JUMP_IF_ANY_BIT: operator.and_}


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """What is closed when the test ends."""
    with ExitStack() as stack:
        yield stack


def run(sockets: int, packet: bytes) -> int:
    """What the program answers to a packet that begins with its IP header, as a kernel would have it executed."""
    instructions = program(sockets)
    accumulator, at = 0, 0
    while True:
        code, if_so, if_not, constant = instructions[at]
        at += 1
        if code in LOADS:
            (accumulator,) = struct.unpack_from(LOADS[code], packet, constant - NETWORK_HEADER)
        elif code in ARITHMETIC:
            accumulator = ARITHMETIC[code](accumulator, constant)
        elif code in CONDITIONS:
            at += if_so if CONDITIONS[code](accumulator, constant) else if_not
        elif code == spreading.JUMP:
            at += constant
        else:
            assert code in {spreading.RETURN, spreading.RETURN_CONSTANT}
            return accumulator if code == spreading.RETURN else constant


def ipv4(port: int, options: bytes = b"") -> bytes:
    """A packet from this port to port 9000."""
    header = struct.pack("!BBHHHBBHII", 0x45 + len(options) // 4, 0, 0, 0, 0, 64, TCP, 0, 0x7F000001, 0x7F000001)
    return header + options + struct.pack("!HH", port, 9000) + bytes(16)


def ipv6(port: int, following: int = TCP, label: int = 0) -> bytes:
    """Likewise; with what follows the header, and the bits that come right after the version."""
    return struct.pack("!IHBB", 0x60000000 | label, 20, following, 64) + bytes(32) + struct.pack("!HH", port, 9000)


def turn(port: int, sockets: int) -> int:
    """Whose turn it is, in other words: each has a run of ports, and among odd ones all are one further."""
    return (port // run_ports(sockets) + port % 2) % sockets


@pytest.mark.parametrize("sockets", [2, 3, 7, 64])
def test_packets(sockets: int) -> None:
    """The client's port is found behind either header, whatever else is in that, and says whose turn it is."""
    for port in (0, 1, 80, 15999, 16000, 32768, 32783, 32784, 60999, 65534, 65535):
        expected = turn(port, sockets)
        assert (
            run(sockets, ipv4(port))
            == run(sockets, ipv6(port))
            == run(sockets, ipv6(port, label=0xFFFFFFF))
            == expected
        )
    assert {run(sockets, ipv4(port)) for port in EPHEMERAL[:2000]} == set(range(sockets))


def test_packets_of_other_shapes() -> None:
    """No socket is named for them: the kernel's hash finds one."""
    assert run(2, ipv4(40000, options=bytes(4))) == NOBODY
    assert run(2, ipv6(40000, following=0)) == NOBODY
    assert run(2, b"\x00" * 60) == NOBODY


def test_runs_are_even() -> None:
    """Clients that go up by two would be spread unevenly else. They get shorter with more sockets, but never empty."""
    assert [run_ports(count) for count in (2, 3, 4, 5, 8, 12, 24, 25, 1000)] == [16, 16, 12, 8, 6, 4, 2, 2, 2]


def largest_share(sockets: int, ports: Sequence[int]) -> int:
    """How many of the connections from these ports the socket with most of them has."""
    return max(Counter(turn(port, sockets) for port in ports).values())


def test_steps_of_one_and_of_two() -> None:
    """Two sockets have half each of who goes up so, wherever it begins; of more, none has more than two shares."""
    for first in EPHEMERAL[:96]:
        for step in (1, 2):
            ports = range(first, first + 64 * step, step)
            assert largest_share(2, ports) == 32
            assert [largest_share(count, ports) <= most for count, most in ((3, 32), (4, 24), (8, 16))] == [True] * 3
        assert largest_share(2, range(first, first + 4)) < 4


def test_steps_of_chance() -> None:
    """As Linux takes them now: more than 60 % of 64 are at most a quarter as likely as where coins are tossed."""
    chance = random.Random(35)
    over = {"turns": 0, "coins": 0}
    for _ in range(2000):
        port, ports = chance.choice(EPHEMERAL[:20000:2]), []
        for _ in range(64):
            port += 2 * chance.randint(1, 8)
            ports.append(port)
        tossed = chance.getrandbits(64).bit_count()
        over["turns"] += largest_share(2, ports) > 38
        over["coins"] += max(tossed, 64 - tossed) > 38
    assert over["turns"] <= over["coins"] // 4
    assert over["coins"] > 150


def taken(place: Place, opened: ExitStack) -> list[list[int]]:
    """The clients' ports of the connections that wait in the queue of each socket; all are taken."""
    found: list[list[int]] = []
    for each in place.sockets:
        found.append([])
        while True:
            try:
                connection, address = each.accept()
            except BlockingIOError:
                break
            opened.enter_context(connection)
            found[-1].append(address[1])
    return found


@pytest.mark.parametrize(
    ("sockets", "interface", "clients"),
    [
        (2, "127.0.0.1", [("127.0.0.1", None)]),
        (3, "127.0.0.1", [("127.0.0.1", None)]),
        (2, r"\:\:1", [("::1", None)]),
        (4, r"\:\:", [("::1", None), ("127.0.0.1", None)]),
        (2, "0.0.0.0", [("127.0.0.1", "127.0.0.2"), ("127.0.0.3", "127.0.0.4")]),
    ],
)
def test_connections(
    opened: ExitStack, sockets: int, interface: str, clients: Sequence[tuple[str, str | None]]
) -> None:
    """Each is in the queue of the socket whose turn it is, by IPv4 and IPv6, from whatever address."""
    (place,) = open_places([f"tcp:0:interface={interface}"], sockets, int)
    opened.callback(place.close)
    port = place.address.port  # type: ignore[union-attr]
    for at in range(64):
        host, source = clients[at % len(clients)]
        opened.enter_context(socket.create_connection((host, port), source_address=(source, 0) if source else None))
    found = taken(place, opened)
    assert sum(map(len, found)) == 64
    assert all(found)
    assert [[turn(port, sockets) for port in ports] for ports in found] == [
        [number] * len(ports) for number, ports in enumerate(found)
    ]


def test_fewer_sockets_than_it_was_made_for(opened: ExitStack) -> None:
    """Connections whose socket is gone are taken by one of those that are left."""
    (place,) = open_places(["tcp:0:interface=127.0.0.1"], 3, int)
    opened.callback(place.close)
    address = place.sockets[0].getsockname()
    place.sockets[1].close()
    for _ in range(64):
        opened.enter_context(socket.create_connection(address))
    assert sum(map(len, taken(Place("", [place.sockets[0], place.sockets[2]]), opened))) == 64


def test_where_there_are_no_such_programs(opened: ExitStack) -> None:
    """Another system is not asked, for whom the option's number may be anything; and what the kernel says is raised."""
    alone = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
    with pytest.raises(OSError, match="not available") as unknown:
        take_turns([alone, alone], platform="darwin")
    assert unknown.value.errno == errno.ENOPROTOOPT
    with pytest.raises(OSError, match="Invalid argument"):
        take_turns([alone, alone])
