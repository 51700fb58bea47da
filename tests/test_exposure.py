"""What is said at the start where others can reach a service: one line that says what to set, or nothing."""

import pytest

from axcollector.exposure import Door, ingest_door, warning_of

TLS = "listen on axtls:PORT:certificate=…:key=…"
OR = "or listen on interface=127.0.0.1 or unix: only"
LOCAL = [
    ["tcp:9000:interface=127.0.0.1"],
    ["tcp6:9000:interface=\\:\\:1", "unix:/run/axcollector.sock"],
    ["ssl:9000:privateKey=k:certKey=c:interface=127.0.0.1"],
    ["axtls:9000:certificate=c:key=k:interface=127.0.0.1"],
    ["systemd:domain=UNIX:index=0"],
    [""],
]


@pytest.mark.parametrize("endpoints", LOCAL)
def test_nobody_else_reaches_it(endpoints: list[str]) -> None:
    """On this machine alone nothing is amiss."""
    doors = (ingest_door(endpoints, tokens=True), ingest_door(endpoints, tokens=False), Door(endpoints, "tokens"))
    assert warning_of(*doors) is None


@pytest.mark.parametrize("endpoint", ["ssl:9000:privateKey=k:certKey=c", "axtls:9000:certificate=c:key=k"])
def test_with_tls(endpoint: str) -> None:
    """It needs tokens, and nothing more."""
    assert warning_of(ingest_door([endpoint], tokens=True), Door([endpoint], "admin token")) is None
    assert warning_of(ingest_door(["unix:/x", endpoint], tokens=False)) == (
        f"whoever reaches {endpoint} can send records for any scope; set ingest_auth: token, {OR}"
    )


def test_with_mutual_tls() -> None:
    """Who gets in has a certificate of ours: tokens are one's own choice. Beside it others count as ever."""
    mutual = "axtls:9443:certificate=c:key=k:client_ca=a"
    assert warning_of(ingest_door([mutual], tokens=False)) is None
    assert warning_of(ingest_door([mutual], tokens=True)) is None
    assert warning_of(ingest_door([mutual, "axtls:1:certificate=c:key=k"], tokens=False)) == (
        f"whoever reaches axtls:1:certificate=c:key=k can send records for any scope; set ingest_auth: token, {OR}"
    )


@pytest.mark.parametrize(
    "endpoint", ["tcp:9000", "tcp6:9000", "tcp:9000:interface=10.0.0.1", "systemd:domain=INET:index=0"]
)
def test_without_tls(endpoint: str) -> None:
    """It needs both; one line says so."""
    assert warning_of(ingest_door([endpoint, "tcp:1:interface=127.0.0.1"], tokens=True)) == (
        f"without TLS others can read the records and tokens sent to {endpoint}; {TLS}, {OR}"
    )
    assert warning_of(ingest_door([endpoint, "axtls:9443:certificate=c:key=k"], tokens=False)) == (
        f"whoever reaches {endpoint}, axtls:9443:certificate=c:key=k can send records for any scope,"
        f" and without TLS others can read the records sent to {endpoint};"
        f" set ingest_auth: token, and {TLS}, {OR}"
    )


def test_several_doors() -> None:
    """They share one line, and each remedy is named once."""
    admin = Door(["tcp:9001"], "admin token")
    assert warning_of(ingest_door(["tcp:9000"], tokens=True), admin) == (
        "without TLS others can read the records and tokens sent to tcp:9000, and the admin token sent to tcp:9001;"
        f" {TLS}, {OR}"
    )
    assert warning_of(ingest_door(["tcp:1:interface=127.0.0.1"], tokens=False), admin) == (
        f"without TLS others can read the admin token sent to tcp:9001; {TLS}, {OR}"
    )
