"""Opening log files anew under their names, for those who rotate logs by renaming them.

Neither twistd nor `python -m twisted` does so on a signal (twistd rotates by itself, and on SIGUSR1). A new file is put
under the descriptor of the old one: that is one step, so that no thread finds a closed file, and it works with
whatever writes to the descriptor.
"""

import os
import stat
from collections.abc import Iterable, Iterator

from twisted.logger import LogPublisher, globalLogPublisher
from twisted.python.logfile import BaseLogFile

from axcollector.regular import regular

_WITHIN = ("_observer", "observer", "legacyObserver", "__self__")
"""Where Twisted's observers that pass events on keep whom they pass them to."""


def reopen_log_files(publisher: LogPublisher = globalLogPublisher) -> list[str]:
    """Open the log files of this process anew; the names of those that another file now lies under. Blocking.

    Raises:
        OSError: One could not be opened; what it was goes on being written.
    """
    reopened = []
    for file in _files_of(getattr(publisher, "_observers", ())):
        path = file.path if isinstance(file, BaseLogFile) else getattr(file, "name", None)
        written = file._file if isinstance(file, BaseLogFile) else file  # noqa: SLF001 - Twisted tells it nowhere else
        descriptor = _descriptor_of(written)
        if isinstance(path, str) and descriptor is not None and _put_under(descriptor, path):
            if hasattr(file, "size"):
                file.size = os.fstat(descriptor).st_size  # from which twistd tells when to rotate by itself
            reopened.append(path)
    return reopened


def _put_under(descriptor: int, path: str) -> bool:
    """Have a descriptor write to the file of that name, if it is another one than it writes to."""
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        return False
    new = regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, stat.S_IMODE(facts.st_mode))
    try:
        if os.path.sameopenfile(new, descriptor):
            return False
        os.dup2(new, descriptor, inheritable=False)
    finally:
        os.close(new)
    return True


def _descriptor_of(file: object) -> int | None:
    try:
        descriptor: int = file.fileno()  # type: ignore[attr-defined]  # caught below
    except (AttributeError, OSError, ValueError):
        return None
    # Standard output and the like are somebody else's to open.
    return descriptor if descriptor > 2 else None


def _files_of(observers: Iterable[object]) -> Iterator[object]:
    """What these observers write to; each of them is looked at once, should they lead in a circle."""
    waiting, seen = list(observers)[::-1], dict[int, object]()
    while waiting:
        observer = waiting.pop()
        if observer is None or id(observer) in seen:
            continue
        seen[id(observer)] = observer
        file = getattr(observer, "_outFile", None)
        if file is not None:
            yield file
        waiting += [getattr(observer, name, None) for name in _WITHIN]
