"""The token: how it is asked for, when anew, and what those see who need one."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, ClassVar
from urllib.parse import parse_qs

import pytest
from twisted.logger import LogEvent, LogLevel

from axcollector.core.errors import NoTokenYet
from axcollector.disk import Disk
from axcollector.sync.transicator_client import YEAR_SECONDS
from tests.conftest import LoggedFailures
from tests.transicator_server import Misbehaviour, answer, half, never
from tests.transicator_world import World, quick_directory


@pytest.fixture
def world() -> Iterator[World]:
    """A world that has not begun; in the end nothing may be left to happen."""
    with quick_directory() as directory:
        world = World(Path(directory))
        yield world
        world.stop()
        assert world.leftovers() == []


def test_how_it_is_asked_for(world: World) -> None:
    """A form and headers; the path is joined, double slashes collapsed."""
    world.base = "http://sync.test//edgemicro/"
    world.start()
    (asked,) = world.server.of("token")
    assert asked.path == "/edgemicro/accesstoken"
    assert asked.method == "POST"
    assert parse_qs(asked.body) == {
        "client_id": ["key"],
        "client_secret": ["secret-consumer"],
        "grant_type": ["client_credentials"],
    }
    expected = {
        "content-type": "application/x-www-form-urlencoded",
        "display_name": "host-1",
        "apid_instance_id": "instance-1",
        "apid_cluster_id": "cluster-1",
        "status": "ONLINE",
        "plugin_details": '[{"name":"apidAnalytics","schemaVer":"0.0.1"}]',
        "created_at_apid": "2023-11-14T22:13:20Z",
    }
    assert expected.items() <= asked.headers.items()
    assert "updated_at_apid" not in asked.headers
    assert "authorization" not in asked.headers


def test_a_new_instance_is_created_once(world: World) -> None:
    """`created_at_apid` until the first success, `updated_at_apid` afterwards, also after a restart."""
    world.server.next["token"] += [answer(500), answer(200, b"{}")]
    world.start().turn(5)
    world.stop()
    world.start()
    world.token.refused(world.token.current())
    world.turn(1)
    seen = ["created_at_apid" in each.headers for each in world.server.of("token")]
    assert seen == [True, True, True, False, False]
    assert ["updated_at_apid" in each.headers for each in world.server.of("token")] == [not each for each in seen]


def test_another_instance_is_new(world: World) -> None:
    """The marker says which instance it was."""
    (world.directory / "registered").write_text("instance-0\n")
    world.start()
    assert "created_at_apid" in world.server.of("token")[0].headers


def moments(world: World, seconds: float, step: float = 1.0) -> list[float]:
    """When tokens were asked for within so many seconds after the start."""
    begun = world.clock.seconds()
    world.start()
    found: list[float] = []
    while world.clock.seconds() - begun <= seconds:
        while len(found) < len(world.server.of("token")):
            found.append(round(world.clock.seconds() - begun, 3))
        world.turn(step, step=step)
    return found


def test_it_is_renewed_a_minute_before_its_end(world: World) -> None:
    """One that lives an hour after 59 minutes; the old one is used until the new one is there."""
    assert moments(world, 3650, step=10) == [0, 3540]


@pytest.mark.parametrize(("lifetime", "expected"), [(119, 59.5), (60, 30), (30, 15), (2, 1), (1, 1), (0.01, 1)])
def test_a_short_lived_token_makes_no_tight_loop(world: World, lifetime: float, expected: float) -> None:
    """One that lives less than two minutes is renewed at half its life, and none more often than every second."""
    world.server.lifetime = lifetime
    found = moments(world, expected * 3 + 0.2, step=0.5)
    assert found == [0, expected, expected * 2, expected * 3]


@pytest.mark.parametrize("lifetime", [0, -1, -3600, 10**12])
def test_no_lifetime_is_about_a_year(world: World, lifetime: int) -> None:
    """`expiresIn` of zero or less."""
    world.server.lifetime = lifetime
    assert moments(world, 7200, step=600) == [0]
    assert world.token._token is not None
    assert world.token._token.lifetime_seconds == YEAR_SECONDS
    assert world.token() == "secret-token-1"


def test_it_is_used_to_its_end_and_no_longer(world: World) -> None:
    """While it cannot be renewed the old one is used; then there is none."""
    world.start()
    world.server.next["token"] += [answer(500)] * 1000
    world.turn(3599, step=10)
    assert world.token() == "secret-token-1"
    world.turn(10)
    assert world.token.current() is None
    with pytest.raises(NoTokenYet, match="there is no token yet: the token server answered 500"):
        world.token()
    world.server.next["token"].clear()
    world.turn(121)
    assert world.token() == "secret-token-2"


def test_before_the_first_one(world: World) -> None:
    """Whoever needs it is told that it is being asked for."""
    world.server.next["token"].append(never)
    world.start()
    with pytest.raises(NoTokenYet, match="it is being asked for"):
        world.token()


BAD: list[tuple[Misbehaviour, str]] = [
    (answer(401), "the token server answered 401"),
    (answer(200, b""), "the token server's answer holds no token"),
    (answer(200, b"<html>secret-token</html>"), "the token server's answer holds no token"),
    (answer(200, b'{"accessToken": 5}'), "the token server's answer holds no token"),
    (answer(200, b'{"accessToken": ""}'), "the token server's answer holds no token"),
    (answer(200, b'{"accessToken": "secret-token x"}'), "the token server's answer holds no token"),
    (answer(200, b'{"accessToken": "secret-token", "expiresIn": "x"}'), "the token server's answer holds no token"),
    (answer(200, b'{"accessToken": "secret-token"}' + b" " * 70_000), "the token server's answer holds no token"),
    (answer(302, Location="http://evil.test/accesstoken"), "the token server answered 302"),
    (answer(503), "the token server answered 503"),
    (half, "the token server gave no proper answer: DataLoss"),
]


@pytest.mark.parametrize(("misbehaviour", "trouble"), BAD)
def test_what_is_no_token(world: World, log_events: list[LogEvent], misbehaviour: Misbehaviour, trouble: str) -> None:
    """One line, whatever comes, and it is asked for again; the secret goes nowhere else."""
    world.server.next["token"] += [misbehaviour] * 3
    world.start()
    assert world.source.trouble == trouble
    world.turn(3)
    told = [event["trouble"] for event in log_events if event["log_level"] == LogLevel.error]
    assert told == [trouble]
    assert world.source.trouble == ""
    assert {each.host for each in world.server.asked} == {"sync.test"}
    assert "secret" not in repr(log_events)
    assert world.kept() == world.expected()


def test_a_token_server_that_hangs(world: World) -> None:
    """Half a minute is enough."""
    world.server.next["token"].append(never)
    world.start().turn(29)
    assert len(world.server.of("token")) == 1
    world.turn(2)
    assert world.source.trouble == ""
    assert world.token() == "secret-token-1"


def test_a_token_without_expiry(world: World) -> None:
    """No `expiresIn` is one of zero."""
    world.server.next["token"].append(answer(200, b'{"accessToken": "t", "more": {}}'))
    world.server.token = "t"
    world.start()
    assert world.token() == "t"


def test_a_refused_token_is_replaced(world: World) -> None:
    """Also where somebody else than the source says so, such as the upload signer; an older one does not count."""
    world.start()
    world.token.refused("another")
    world.token.refused(None)
    assert world.token() == "secret-token-1"
    world.token.refused("secret-token-1")
    assert world.token.current() is None
    world.turn(1)
    assert world.token() == "secret-token-2"
    world.token.refused("secret-token-1")
    assert world.token() == "secret-token-2"


def test_tokens_refused_in_a_row_are_replaced_ever_later(world: World) -> None:
    """No tight loop, whoever refuses them; one that was good for a minute is not of the row."""
    world.start()
    for _ in range(2000):
        world.token.refused(world.token.current())
        world.turn(0.1, step=0.1)
    assert 7 < world.server.tokens_given < 13
    world.turn(200)
    given = world.server.tokens_given
    world.token.refused(world.token())
    world.turn(0.2, step=0.1)
    assert world.server.tokens_given == given + 1


def test_a_renewal_that_is_refused_at_once(world: World) -> None:
    """A token that is refused while somebody is told of it is replaced like any other."""
    world.make()
    world.token.available().addCallback(lambda _: world.token.refused(world.token.current()))
    world.source.startService()
    world.turn(1)
    assert world.token() == "secret-token-2"


def test_a_marker_that_cannot_be_written(world: World, log_events: list[LogEvent]) -> None:
    """The token is used all the same, for as long as it is good; the next success is to be noted again."""
    (world.directory / "registered.new").mkdir()
    world.start().turn(60, step=0.1)
    assert world.token() == "secret-token-1"
    assert world.server.tokens_given == 1
    assert world.kept() == world.expected()
    assert world.source.trouble == ""
    told = [event["reason"] for event in log_events if event["log_level"] == LogLevel.error]
    assert told == ["Is a directory"]
    (world.directory / "registered.new").rmdir()
    world.turn(3600, step=10)
    assert world.server.tokens_given == 2
    assert (world.directory / "registered").exists()


class BrokenDisk(Disk):
    """A disk that fails at first as no disk should."""

    problems: ClassVar[list[Exception]] = []

    def open(self, path: str) -> BinaryIO:
        if path.endswith("registered") and self.problems:
            raise self.problems.pop()
        return super().open(path)


def test_a_bug_does_not_end_it(world: World, logged_failures: LoggedFailures) -> None:
    """It is logged as one, and tried again."""
    world.disk = BrokenDisk()
    BrokenDisk.problems = [ZeroDivisionError()]
    world.start().turn(2)
    assert len(logged_failures.take(ZeroDivisionError)) == 1
    assert world.token() == "secret-token-1"
