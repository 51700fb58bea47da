"""Which of the sockets that share a port takes a connection: they take turns, by the port that the client has.

By itself the kernel chooses by a hash, as if it tossed a coin for each connection. A classic BPF program in its place
(no privilege is needed for one) has no memory of who came before, but it sees the first packet, with the client's port.
Clients mostly get their ports in ascending order. Linux goes up by 2, 4, ... or 16 from one connection to the next that
goes to the same server, so by 9 in the mean (before 2022 by 2, so all are even or all odd); others go up by 1. So a
socket has the connections from a run of ports, the next socket those from the run after it, and round again. Among odd
ports all are one socket further, so that who goes up by 1 does not stay with one for a whole run.

The shorter the runs, the sooner does a client that connects a few times reach all sockets; but with runs that are not
longer than a step of 9 ports the next connection's socket is a matter of chance again. Decision 0035 has the figures.

Any number that is no socket's leaves the choice to the hash. The program gives one for what it does not understand, and
so does one that was made for more sockets than there are.
"""

import errno
import os
import socket
import struct
import sys
from array import array
from collections.abc import Sequence
from typing import Final, NamedTuple

RUN_PORTS: Final = 16
"""The longest run of ports, which two or three sockets have."""
ROUND_PORTS: Final = 48
"""Within so many ports more sockets than that have a turn each, up to 24 of them."""
NOBODY: Final = 0xFFFF_FFFF
"""No socket's number."""
_SO_ATTACH_REUSEPORT_CBPF: Final = 51
"""Linux's, since 4.6 for TCP; the standard library does not name it."""

NETWORK_HEADER: Final = 0x1_0000_0000 - 0x10_0000
"""Where the IP header begins, as programs address it: what they get begins behind the TCP header."""
LOAD_BYTE: Final = 0x30
LOAD_TWO_BYTES: Final = 0x28
AND: Final = 0x54
ADD: Final = 0x04
DIVIDE: Final = 0x34
REMAINDER: Final = 0x94
JUMP_IF_EQUAL: Final = 0x15
JUMP_IF_ANY_BIT: Final = 0x45
JUMP: Final = 0x05
RETURN: Final = 0x16
RETURN_CONSTANT: Final = 0x06
"""What instructions do to the accumulator, from <linux/bpf_common.h>; with their constant, all but RETURN."""


class Instruction(NamedTuple):
    """One of a program: `struct sock_filter`.

    Attributes:
        code: What it does.
        if_so: Of a jump on a condition, how many instructions are left out where it holds.
        if_not: And where not.
        constant: What it does that with; of the jump without a condition, how many are left out.
    """

    code: int
    if_so: int
    if_not: int
    constant: int


def run_ports(sockets: int) -> int:
    """How many ports in a row are one socket's, where there are so many sockets: an even number."""
    return max(2, min(RUN_PORTS, ROUND_PORTS // sockets // 2 * 2))


def program(sockets: int) -> Sequence[Instruction]:
    """What gives each connection the number of a socket; `NOBODY` for packets of other shapes."""
    run = run_ports(sockets)
    return (
        # IPv4, with a header of 5 words? Options are not worth following: almost nobody lets them through.
        Instruction(LOAD_BYTE, 0, 0, NETWORK_HEADER),
        Instruction(JUMP_IF_EQUAL, 0, 2, 0x45),
        # Then TCP begins at 20, with the client's port.
        Instruction(LOAD_TWO_BYTES, 0, 0, NETWORK_HEADER + 20),
        Instruction(JUMP, 0, 0, 5),
        # IPv6, whose version is half a byte, with TCP (6) right behind its header?
        Instruction(AND, 0, 0, 0xF0),
        Instruction(JUMP_IF_EQUAL, 0, 8, 0x60),
        Instruction(LOAD_BYTE, 0, 0, NETWORK_HEADER + 6),
        Instruction(JUMP_IF_EQUAL, 0, 6, 6),
        # Then TCP begins at 40.
        Instruction(LOAD_TWO_BYTES, 0, 0, NETWORK_HEADER + 40),
        # An odd port is one run further.
        Instruction(JUMP_IF_ANY_BIT, 0, 1, 1),
        Instruction(ADD, 0, 0, run),
        # Each socket has a run, and round again.
        Instruction(DIVIDE, 0, 0, run),
        Instruction(REMAINDER, 0, 0, sockets),
        Instruction(RETURN, 0, 0, 0),
        # Neither.
        Instruction(RETURN_CONSTANT, 0, 0, NOBODY),
    )


def take_turns(sharing: Sequence[socket.socket], platform: str = sys.platform) -> None:
    """Have the sockets that listen at a port take turns; from then on, and for as long as they are open.

    Args:
        sharing: All of them, each with SO_REUSEPORT, listening.
        platform: Where we are.

    Raises:
        OSError: This system has no such programs; the kernel goes on spreading connections by chance.
    """
    if platform != "linux":  # where the option's number may mean anything
        raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))
    instructions = program(len(sharing))
    code = array("B", b"".join(struct.pack("=HBBI", *each) for each in instructions))
    # `struct sock_fprog`. The kernel copies what it points to.
    pointed = struct.pack("@HP", len(instructions), code.buffer_info()[0])
    sharing[0].setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, pointed)
