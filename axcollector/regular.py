"""Opening files that are opened again while the service runs: never a pipe, which might keep us waiting for ever."""

import errno
import os
import stat


def regular(path: str, flags: int, mode: int = 0o600) -> int:
    """What opens files for `open(…, opener=regular)`: regular ones only, and without waiting.

    Args:
        path: The file.
        flags: As for `os.open`.
        mode: What a file that is made with it may be used for.

    Raises:
        OSError: It cannot be opened, or is something else.
    """
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISREG(kind):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise OSError(errno.EINVAL, "It is no regular file", path)
