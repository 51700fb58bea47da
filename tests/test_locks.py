"""Locks on files: one owner, patience, and what is no lock's doing."""

import os
import threading
from pathlib import Path

import pytest

from axcollector.core.errors import DirectoryInUse
from axcollector.locks import Lock, lock_file


def test_patience(tmp_path: Path) -> None:
    """Who is patient gets it when it is given back, and otherwise is told who has it; giving back twice is fine."""
    first, second = Lock(str(tmp_path / "lock")), Lock(str(tmp_path / "lock"))
    first.acquire()
    with pytest.raises(DirectoryInUse, match=str(os.getpid())):
        second.acquire(0.05)
    waiting = threading.Thread(target=second.acquire, args=(60.0,))
    waiting.start()
    first.release()
    first.release()
    waiting.join(60)
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    with pytest.raises(DirectoryInUse):
        first.acquire()
    second.release()


def test_what_cannot_be_locked(tmp_path: Path) -> None:
    """What goes wrong otherwise is not taken for somebody else's lock."""
    descriptor = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
    assert lock_file(descriptor)
    os.close(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        lock_file(descriptor)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="Invalid argument"):
        Lock(str(tmp_path / "pipe")).acquire()
