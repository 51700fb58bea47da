"""What a fuzz target is: one function of bytes, and what mutations of its inputs begin with.

The same function runs under atheris, in the loop of `loop`, in the fast tests and on one saved input.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One thing that takes bytes from outside.

    Attributes:
        name: What the command line calls it.
        run: Makes of an input what the package makes of it, and holds that against an oracle. Says in a few words what
            it was; any exception is a crash.
        seeds: Inputs to begin with, good ones mostly.
        words: Pieces that mean something to it.
        longest_bytes: How long inputs get.
    """

    name: str
    run: Callable[[bytes], str]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...]
    longest_bytes: int = 4096
