"""The token for the signing service: fixed, or from a file that changes under way."""

import os
from pathlib import Path

from twisted.logger import LogEvent, formatEvent

from axcollector.bearer import BearerToken
from axcollector.config import Config


def complaints(events: list[LogEvent]) -> list[str]:
    """What was logged, as text."""
    return [str(formatEvent(event)) for event in events]


def test_fixed_token() -> None:
    """The configured token is the token; without one there is none."""
    assert BearerToken(Config(bearer_token="abc"))() == "abc"
    assert BearerToken(Config())() is None


def test_token_from_a_file(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """A file's token is taken without the space around it, and a new one as soon as it is there."""
    path = tmp_path / "token"
    path.write_text("one\n")
    token = BearerToken(Config(bearer_token_file=str(path)))
    assert [token(), token()] == ["one", "one"]
    path.write_text("second")
    assert token() == "second"
    replacement = tmp_path / "new"
    replacement.write_text("thirds")
    os.utime(replacement, ns=(0, path.stat().st_mtime_ns))
    replacement.rename(path)
    assert token() == "thirds"
    assert complaints(log_events) == []


def test_an_unusable_file_is_told_once(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """While the file is missing or holds no token, the last good one is used, and each reason is logged once."""
    path = tmp_path / "token"
    token = BearerToken(Config(bearer_token_file=str(path)))
    assert [token(), token()] == [None, None]
    path.write_text("good")
    assert token() == "good"
    path.write_text("not one token")
    assert [token(), token()] == ["good", "good"]
    path.unlink()
    assert [token(), token()] == ["good", "good"]
    path.write_text("better")
    assert token() == "better"
    prefix = f"bearer_token_file {path} cannot be used: "
    assert complaints(log_events) == [
        prefix + "No such file or directory; there is no token",
        prefix + "it does not hold one token; the last good token is used",
        prefix + "No such file or directory; the last good token is used",
    ]


def test_a_directory_is_no_token_file(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """What cannot be read is like what is not there."""
    token = BearerToken(Config(bearer_token_file=str(tmp_path)))
    assert [token(), token()] == [None, None]
    assert complaints(log_events) == [
        f"bearer_token_file {tmp_path} cannot be used: Is a directory; there is no token",
    ]
