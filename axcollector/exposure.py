"""Whether strangers can send to a service, or read what others send to it: what is said of it, once, at the start."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from axcollector.config_endpoints import is_local, split_endpoint

_WITH_TLS: Final = frozenset({"ssl", "axtls"})


@dataclass(frozen=True, slots=True)
class Door:
    """Where one kind of clients gets in.

    Attributes:
        endpoints: The texts of server endpoints; empty ones are nowhere.
        carries: What clients send there that others are not to read: "records and tokens".
        open_to: What whoever reaches it can do, where clients need no token; None: they need one.
        remedy: What makes them need one.
    """

    endpoints: Sequence[str]
    carries: str
    open_to: str | None = None
    remedy: str = ""


def ingest_door(endpoints: Sequence[str], *, tokens: bool) -> Door:
    """Where records come in, with or without tokens."""
    if tokens:
        return Door(endpoints, "records and tokens")
    return Door(endpoints, "records", "send records for any scope", "set ingest_auth: token")


def warning_of(*doors: Door) -> str | None:
    """What to set where doors can be reached from other machines without tokens or without TLS; None: all is well.

    What systemd hands over is taken for reachable, unless it is said to be a Unix socket. Whoever has to show a
    certificate of his own is no stranger.
    """
    problems, remedies, readable = [], [], []
    for door in doors:
        reachable = [each for each in door.endpoints if each and not is_local(each)]
        strangers = ", ".join(each for each in reachable if not _is_mutual(each))
        plain = ", ".join(each for each in reachable if not _has_tls(each))
        if strangers and door.open_to:
            problems.append(f"whoever reaches {strangers} can {door.open_to}")
            remedies.append(door.remedy)
        if plain:
            readable.append(f"the {door.carries} sent to {plain}")
    if readable:
        problems.append(f"without TLS others can read {', and '.join(readable)}")
        remedies.append("listen on axtls:PORT:certificate=…:key=…")
    if not problems:
        return None
    return f"{', and '.join(problems)}; {', and '.join(remedies)}, or listen on interface=127.0.0.1 or unix: only"


def _has_tls(endpoint: str) -> bool:
    return split_endpoint(endpoint)[0] in _WITH_TLS


def _is_mutual(endpoint: str) -> bool:
    kind, _, named = split_endpoint(endpoint)
    return kind == "axtls" and "client_ca" in named
