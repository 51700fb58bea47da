"""Whether those who should not can send records, or read what others send: what is said of it once, at the start."""

from collections.abc import Sequence
from typing import Final

from axcollector.config_endpoints import is_local, split_endpoint

_WITH_TLS: Final = frozenset({"ssl", "axtls"})


def warning_of(endpoints: Sequence[str], *, tokens: bool) -> str | None:
    """What to set where endpoints can be reached from other machines without tokens or without TLS; None: all is well.

    What systemd hands over is taken for reachable, unless it is said to be a Unix socket.

    Args:
        endpoints: The texts of server endpoints.
        tokens: Whether requests need a token.
    """
    open_ones = [each for each in endpoints if not (is_local(each) or _is_handed_over_locally(each))]
    plain = [each for each in open_ones if split_endpoint(each)[0] not in _WITH_TLS]
    problems, remedies = [], []
    if open_ones and not tokens:
        problems.append(f"whoever reaches {', '.join(open_ones)} can send records for any scope")
        remedies.append("set ingest_auth: token")
    if plain:
        read = "records and tokens" if tokens else "records"
        problems.append(f"without TLS others can read the {read} that are sent to {', '.join(plain)}")
        remedies.append("listen on axtls:PORT:certificate=…:key=… or ssl:PORT:privateKey=…:certKey=…")
    if not problems:
        return None
    return f"{', and '.join(problems)}; {', and '.join(remedies)}, or listen on interface=127.0.0.1 or unix: only"


def _is_handed_over_locally(endpoint: str) -> bool:
    kind, _, named = split_endpoint(endpoint)
    return kind == "systemd" and named.get("domain") == "UNIX"
