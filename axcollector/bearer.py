"""The token for the signing service: a fixed one, or one that a file holds and somebody renews there."""

import os
import re
from typing import Final, Protocol

from twisted.logger import Logger

_TOKEN: Final = re.compile(rb"\s*([!-~]{1,16384})\s*")


class TokenSettings(Protocol):
    """Where the token is; a `Config` is one."""

    @property
    def bearer_token(self) -> str | None:
        """The token itself."""
        ...

    @property
    def bearer_token_file(self) -> str | None:
        """The file that holds it."""
        ...


class BearerToken:
    """Call it for the token to use now, or None where there is none.

    A file is looked at on each call, and read again when it is another one or was written since. While it is
    missing or holds no token, the last good one is given, and one log line says so; the line never holds a token.
    """

    _log = Logger()

    def __init__(self, settings: TokenSettings) -> None:
        """Nothing is read yet."""
        self._token = settings.bearer_token
        self._path = settings.bearer_token_file
        self._seen: object = None

    def __call__(self) -> str | None:
        """The token."""
        if self._path is not None:
            self._look(self._path)
        return self._token

    def refused(self, token: str | None) -> None:
        """The signer does not know it; somebody else has to put another one in its place."""

    def _look(self, path: str) -> None:
        try:
            status = os.stat(path)
            state: object = (status.st_ino, status.st_mtime_ns, status.st_size)
            if state == self._seen:
                return
            with open(path, "rb") as file:
                match = _TOKEN.fullmatch(file.read(1 << 15))
            problem = None if match else "it does not hold one token"
        except OSError as exc:
            state, match, problem = exc.errno, None, exc.strerror
        if match:
            self._token = match[1].decode("ascii")
        elif state != self._seen:
            self._log.error(
                "bearer_token_file {path} cannot be used: {problem}; {instead}",
                path=path,
                problem=problem,
                instead="there is no token" if self._token is None else "the last good token is used",
            )
        self._seen = state
