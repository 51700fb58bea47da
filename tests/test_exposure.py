"""What is said at the start where others can reach the collector: one line that says what to set, or nothing."""

import pytest

from axcollector.exposure import warning_of


@pytest.mark.parametrize(
    "endpoints",
    [
        ["tcp:9000:interface=127.0.0.1"],
        ["tcp6:9000:interface=\\:\\:1", "unix:/run/axcollector.sock"],
        ["ssl:9000:privateKey=k:certKey=c:interface=127.0.0.1"],
        ["axtls:9000:certificate=c:key=k:interface=127.0.0.1"],
        ["systemd:domain=UNIX:index=0"],
    ],
)
@pytest.mark.parametrize("tokens", [True, False])
def test_nobody_else_reaches_it(endpoints: list[str], tokens: bool) -> None:
    """On this machine alone nothing is amiss."""
    assert warning_of(endpoints, tokens=tokens) is None


@pytest.mark.parametrize("endpoint", ["ssl:9000:privateKey=k:certKey=c", "axtls:9000:certificate=c:key=k"])
def test_with_tls(endpoint: str) -> None:
    """It needs tokens, and nothing more."""
    assert warning_of([endpoint], tokens=True) is None
    assert warning_of(["unix:/x", endpoint], tokens=False) == (
        f"whoever reaches {endpoint} can send records for any scope; set ingest_auth: token,"
        " or listen on interface=127.0.0.1 or unix: only"
    )


@pytest.mark.parametrize(
    "endpoint", ["tcp:9000", "tcp6:9000", "tcp:9000:interface=10.0.0.1", "systemd:domain=INET:index=0"]
)
def test_without_tls(endpoint: str) -> None:
    """It needs both; one line says so."""
    tls = "listen on axtls:PORT:certificate=…:key=… or ssl:PORT:privateKey=…:certKey=…"
    assert warning_of([endpoint, "tcp:1:interface=127.0.0.1"], tokens=True) == (
        f"without TLS others can read the records and tokens that are sent to {endpoint};"
        f" {tls}, or listen on interface=127.0.0.1 or unix: only"
    )
    assert warning_of([endpoint, "axtls:9443:certificate=c:key=k"], tokens=False) == (
        f"whoever reaches {endpoint}, axtls:9443:certificate=c:key=k can send records for any scope,"
        f" and without TLS others can read the records that are sent to {endpoint};"
        f" set ingest_auth: token, and {tls}, or listen on interface=127.0.0.1 or unix: only"
    )
