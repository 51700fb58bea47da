"""`Authorization` headers → the token in them: that of Bearer (RFC 6750), or the password of Basic (RFC 7617).

What holds no token is not said to be wrong in any particular way, and no exception is raised for it: one would carry
what was sent, and could end in a log.
"""

import base64
import re
from collections.abc import Sequence
from typing import Final

BEARER: Final = "Bearer"
"""The challenge of a door that takes bearer tokens only."""

BEARER_OR_BASIC: Final = 'Bearer realm="axcollector", Basic realm="axcollector"'
"""The challenge of one that takes them as passwords too."""

_BEARER: Final = re.compile(r"Bearer +([!-~]+) *", re.IGNORECASE)
_BASIC: Final = re.compile(r"Basic +([A-Za-z0-9+/]+={0,2}) *", re.IGNORECASE)
_PASSWORD: Final = re.compile(rb"[^:]*:([!-~]+)", re.DOTALL)


def token_in(values: Sequence[str], *, as_password: bool = False) -> str | None:
    """The token that the values of a request's `Authorization` headers hold; None: there is none, or not just one.

    Args:
        values: The values, one a header, whatever bytes they hold, as Latin-1.
        as_password: Whether it may also be the password of Basic, whatever the user's name.
    """
    if len(values) != 1:
        return None
    if match := _BEARER.fullmatch(values[0]):
        return match[1]
    return _password_in(values[0]) if as_password else None


def _password_in(value: str) -> str | None:
    match = _BASIC.fullmatch(value)
    if match is None or len(match[1]) % 4:  # else it is base64, which no decoder refuses
        return None
    found = _PASSWORD.fullmatch(base64.b64decode(match[1]))
    return None if found is None else found[1].decode("ascii")
