"""Threads for blocking work: few, started when there is work for them, and shared by kinds of work that may wait.

A `services.WorkThread` stands for one kind of work, whose functions run one after the other. Several of them may share
`Threads`: then as many kinds as there are threads run at a time, in turn, a function each. The first thread is started
with the first user, each of the others when more work waits than there are threads; all end with the last user.
"""

import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Final

KINDS: Final = 11
"""So many kinds of work a whole collector has. With a thread for each none waits for another."""
LEAST: Final = 2
"""The writer of journals has one to itself, lest a commit should wait for a split; all others share at least one."""

Turn = Callable[[], tuple[Callable[[], None], bool]]
"""Does a piece of work; may not raise. What tells of it, to be called then, and whether it is to have another turn."""


def start_daemon(loop: Callable[[], None]) -> None:
    """Run this in a new thread, which keeps no process alive; raises `RuntimeError` where the system gives none."""
    threading.Thread(target=loop, name="axcollector", daemon=True).start()


class Threads:
    """At most so many threads. They are daemons: work that never ends (a hung disk) does not keep a process alive."""

    def __init__(self, limit: int = 1, start: Callable[[Callable[[], None]], None] = start_daemon) -> None:
        """Start nothing yet.

        Args:
            limit: How many there may be.
            start: Starts one.
        """
        self._limit = limit
        self._start_thread = start
        self._lock = threading.Lock()
        self._turns: queue.SimpleQueue[Turn | None] = queue.SimpleQueue()
        self._users = self._count = self._unfinished = 0

    def join(self) -> None:
        """Somebody begins to use them.

        Raises:
            RuntimeError: The system gives no thread, not even one.
        """
        with self._lock:
            if not self._count:
                self._start()
            self._users += 1

    def leave(self) -> None:
        """Somebody who has nothing under way uses them no more; from whatever thread."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
            for _ in range(self._count):
                self._turns.put(None)
            self._turns = queue.SimpleQueue()
            self._count = self._unfinished = 0

    def put(self, turn: Turn) -> None:
        """Have this called in one of the threads, behind those that wait already."""
        with self._lock:
            self._unfinished += 1
            self._turns.put(turn)
            if self._count < min(self._unfinished, self._limit):
                try:
                    self._start()
                except RuntimeError:  # the system gives no more; those that are there get to it
                    self._limit = self._count

    def _start(self) -> None:
        """Start a thread; with the lock."""
        self._start_thread(partial(self._loop, self._turns))
        self._count += 1

    def _loop(self, turns: "queue.SimpleQueue[Turn | None]") -> None:
        while (turn := turns.get()) is not None:
            tell, goes_on = turn()
            if goes_on:
                turns.put(turn)
            else:
                with self._lock:
                    self._unfinished -= 1
            tell()  # not before: whoever is told may have more work, and that is to need no other thread
            del turn, tell  # what they hold is not to wait for the next
