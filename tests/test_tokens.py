"""The file of tokens, and the copy of it that tokens are looked up in."""

import contextlib
import hashlib
import os
import shutil
import sqlite3
import stat
from pathlib import Path
from typing import Self

import pytest
from twisted.internet import task
from twisted.logger import LogEvent, formatEvent

from axcollector.core.errors import TokensError, Unavailable
from axcollector.token_watch import STALE_SECONDS, WATCH_SECONDS, TokenWatch
from axcollector.tokens import EVERY_NAME, Bound, Token, TokenBook, TokenFile, digest_of
from tests.fakes import HeldThread, SameThread, result_of

NOW = 1_800_000_000.5


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where a file of tokens may be made."""
    return str(tmp_path / "below" / "tokens.db")


def add(path: str, *names: str, expires_seconds: float | None = None, kind: Bound = Bound.TENANTS) -> tuple[Token, str]:
    """A new token in the file, which is made where it is missing."""
    with TokenFile.create(path, kind) as file:
        return file.add(names, NOW, label="a label", expires_seconds=expires_seconds)


def test_a_token_is_kept_as_its_digest(path: str) -> None:
    """The token itself has 256 random bits, and stands nowhere in the files, which only their owner can read."""
    token, secret = add(path, "acme~prod", "acme~test")
    assert (token.names, token.label, token.created) == ({"acme~prod", "acme~test"}, "a label", 1_800_000_000)
    assert len(secret.removeprefix("axt_")) == 43
    assert add(path, "acme~prod")[1] != secret
    with sqlite3.connect(path) as connection:
        digests = [row[0] for row in connection.execute("SELECT digest FROM token ORDER BY rowid")]
        assert digests[0] == hashlib.sha256(secret.encode()).digest()
    connection.close()
    directory = os.path.dirname(path)
    assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
    for name in os.listdir(directory):
        file = Path(directory) / name
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert secret.encode() not in file.read_bytes()
        assert secret.removeprefix("axt_").encode() not in file.read_bytes()


def test_the_file_has_a_write_ahead_log(path: str) -> None:
    """Whoever adds a token keeps nobody from reading."""
    add(path, "acme~prod")
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
    connection.close()


def test_tokens_are_listed_and_revoked(path: str) -> None:
    """The oldest comes first; a revoked one is gone, as is the right that it gave."""
    first, _ = add(path, "acme~prod")
    with TokenFile.open(path, Bound.TENANTS) as file:
        second, secret = file.add([EVERY_NAME], NOW + 1)
        assert file.tokens() == [first, second]
        assert file.revoke(first.id) == first
        assert file.tokens() == [second]
        with pytest.raises(TokensError, match=f"{path} has no token {first.id} for tenants"):
            file.revoke(first.id)
        assert file.revoke(second.id) == second
        assert file.book().find(secret, NOW) is None
        assert len(file.book()) == 0


def test_what_a_token_is_good_for() -> None:
    """For its names, exactly as they are; `*` for all."""
    token = Token("i", frozenset({"acme~prod", "a~b"}), "", 0)
    assert [
        name for name in ("acme~prod", "a~b", "acme~pro", "ACME~prod", "acme~prod ", "*", "") if token.covers(name)
    ] == [
        "acme~prod",
        "a~b",
    ]
    assert Token("i", frozenset({EVERY_NAME}), "", 0).covers("anything")


def test_a_token_without_names(path: str) -> None:
    """It would be good for nothing."""
    with TokenFile.create(path, Bound.TENANTS) as file:
        for names in ([], [""]):
            with pytest.raises(TokensError, match="a token needs names that it is good for"):
                file.add(names, NOW)
        assert file.tokens() == []


def test_a_token_expires(path: str) -> None:
    """From its moment on it is good for nothing, though it is still listed."""
    token, secret = add(path, "acme~prod", expires_seconds=60)
    assert token.expires == 1_800_000_061
    with TokenFile.open(path, Bound.TENANTS) as file:
        book = file.book()
        assert book.find(secret, NOW + 60) == token
        assert book.find(secret, 1_800_000_061) is None
        assert file.tokens() == [token]
    assert [token.has_expired(now) for now in (NOW, 1_800_000_061.0)] == [False, True]


def test_tokens_of_scopes_are_none_of_tenants(path: str) -> None:
    """In one file the two kinds know nothing of each other: one cannot be used, listed or revoked as the other."""
    tenants, for_tenants = add(path, EVERY_NAME)
    scopes, for_scopes = add(path, EVERY_NAME, kind=Bound.SCOPES)
    with TokenFile.open(path, Bound.TENANTS) as file:
        assert (file.book().find(for_tenants, NOW), file.book().find(for_scopes, NOW)) == (tenants, None)
        assert file.tokens() == [tenants]
        with pytest.raises(TokensError, match="no token"):
            file.revoke(scopes.id)
    with TokenFile.open(path, Bound.SCOPES) as file:
        assert (file.book().find(for_tenants, NOW), file.book().find(for_scopes, NOW)) == (None, scopes)


def test_looking_up() -> None:
    """Only the whole token is found, whatever else is given; tokens whose digests begin alike are told apart."""
    token, other = Token("i", frozenset({"a"}), "", 0), Token("j", frozenset({"a"}), "", 0)
    digest = digest_of("secret")
    book = TokenBook({digest[:8] + bytes(24): other, digest: token})
    assert len(book) == 2
    assert book.find("secret", NOW) == token
    assert [book.find(text, NOW) for text in ("secre", "secrets", "", "Secret", "\udcff", "é")] == [None] * 6


def test_files_that_are_none_of_ours(tmp_path: Path) -> None:
    """What cannot be read, or holds something else, is an error that names the file, and is left as it is."""
    missing = str(tmp_path / "missing.db")
    with pytest.raises(TokensError, match=f"the file of tokens {missing} does not exist"):
        TokenFile.open(missing, Bound.TENANTS)
    text = tmp_path / "text"
    text.write_text("no database" * 100)
    with pytest.raises(TokensError, match=f"the file of tokens {text} cannot be used: file is not a database"):
        TokenFile.create(str(text), Bound.TENANTS)
    assert text.read_text() == "no database" * 100
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE data_scope (id text)")
    connection.close()
    for opening in (TokenFile.open, TokenFile.create):
        with pytest.raises(TokensError, match=f"{other} is no file of tokens: it has other tables"):
            opening(str(other), Bound.TENANTS)
    with pytest.raises(TokensError, match=r"the file of tokens /dev/null/t\.db cannot be used: "):
        TokenFile.create("/dev/null/t.db", Bound.TENANTS)


def test_labels_that_are_no_text(path: str) -> None:
    """Nothing is kept then."""
    with TokenFile.create(path, Bound.TENANTS) as file:
        with pytest.raises(TokensError, match="cannot hold a text that is not UTF-8"):
            file.add(["a"], NOW, label="\udcff")
        assert file.tokens() == []


class Watched:
    """A watch with a clock that is turned by hand, and a thread that is the caller's."""

    def __init__(self, path: str) -> None:
        self.clock = task.Clock()
        self.clock.advance(NOW)
        self.watch = TokenWatch(self.clock, SameThread(), path, Bound.TENANTS)

    def __enter__(self) -> Self:
        self.watch.startService()
        return self

    def __exit__(self, *_: object) -> None:
        result_of(self.watch.stopService())

    def look(self) -> None:
        """Let it look once more."""
        self.clock.advance(WATCH_SECONDS)


def test_a_watch_makes_the_file(path: str) -> None:
    """A missing file is made, empty: nobody has a token then, which is no trouble."""
    with Watched(path) as watched:
        assert watched.watch.find("anything") is None
        assert watched.watch.problem() is None
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_a_file_that_cannot_be_used_keeps_the_watch_from_starting(tmp_path: Path) -> None:
    """The reason is raised."""
    with pytest.raises(TokensError, match=r"the file of tokens /dev/null/t\.db cannot be used"):
        TokenWatch(task.Clock(), SameThread(), "/dev/null/t.db", Bound.TENANTS).startService()


def test_what_others_change_is_seen_at_the_next_look(path: str, log_events: list[LogEvent]) -> None:
    """New tokens are found, and revoked ones are not, within half a second; what did not change is not read again."""
    with Watched(path) as watched:
        token, secret = add(path, "acme~prod")
        assert watched.watch.find(secret) is None
        watched.look()
        assert watched.watch.find(secret) == token
        watched.look()
        with TokenFile.open(path, Bound.TENANTS) as file:
            file.revoke(token.id)
        watched.look()
        assert watched.watch.find(secret) is None
    counts = [formatEvent(event).split()[0] for event in log_events if "tokens are in" in formatEvent(event)]
    assert counts == ["0", "1", "0"]
    assert all(secret not in formatEvent(event) for event in log_events)


def test_a_clock_that_is_set_back(path: str) -> None:
    """A look of before the step does not count for as long as the step was: until the next one nobody is told."""
    _, secret = add(path, "acme~prod")
    with Watched(path) as watched:
        watched.clock.rightNow -= 3600
        with pytest.raises(Unavailable):
            watched.watch.find(secret)


def test_a_token_expires_between_looks(path: str) -> None:
    """The clock of the moment counts."""
    token, secret = add(path, "acme~prod", expires_seconds=0.2)
    with Watched(path) as watched:
        assert watched.watch.find(secret) == token
        watched.clock.advance(0.5)
        assert watched.watch.find(secret) is None


def test_another_file_in_its_place(path: str) -> None:
    """The tokens of the file that lies there now count."""
    _, old = add(path, "acme~prod")
    with Watched(path) as watched:
        token, new = add(path + ".new", "acme~prod")
        os.rename(path + ".new", path)
        watched.look()
        assert (watched.watch.find(old), watched.watch.find(new)) == (None, token)


def test_a_file_that_is_copied_over(path: str) -> None:
    """As people restore files: the tokens of the copy count, though it is the same file to the system."""
    _, old = add(path, "acme~prod")
    token, new = add(path + ".new", "acme~prod")
    with Watched(path) as watched:
        shutil.copy(path + ".new", path)
        os.utime(path, ns=(0, 0))
        watched.look()
        assert (watched.watch.find(old), watched.watch.find(new)) == (None, token)


@pytest.mark.parametrize("change", ["expires = 'soon'", "digest = 5", "digest = 'x'", "created = 'x'"])
def test_columns_of_another_type(path: str, change: str) -> None:
    """SQLite lets other programs write them: the file cannot be used, which is not a token's fault."""
    _, secret = add(path, "acme~prod")
    with Watched(path) as watched:
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(f"UPDATE token SET {change}")
        for _ in range(6):
            watched.look()
        with pytest.raises(Unavailable):
            watched.watch.find(secret)
        assert "is none of ours" in str(watched.watch.problem())


def test_a_file_that_cannot_be_read_any_more(path: str, log_events: list[LogEvent]) -> None:
    """For a while the copy is used; before a revocation could be missed for two seconds nobody is told yes or no."""
    token, secret = add(path, "acme~prod")
    with Watched(path) as watched:
        os.rename(path, path + ".away")
        watched.look()
        assert watched.watch.find(secret) == token
        for _ in range(int(STALE_SECONDS / WATCH_SECONDS)):
            watched.look()
        with pytest.raises(Unavailable) as caught:
            watched.watch.find(secret)
        assert (caught.value.status, caught.value.code, caught.value.retry_after) == (503, "STORAGE_UNAVAILABLE", 5.0)
        assert watched.watch.problem() == f"the file of tokens {path} cannot be used: No such file or directory"
        os.rename(path + ".away", path)
        watched.look()
        assert watched.watch.find(secret) == token
        assert watched.watch.problem() is None
    lines = [formatEvent(event) for event in log_events if "0x" not in formatEvent(event)]
    assert lines == [
        f"1 tokens are in {path}",
        f"tokens cannot be checked: the file of tokens {path} cannot be used: No such file or directory",
        f"{path} can be read again",
        f"1 tokens are in {path}",
    ]


def test_before_the_first_look_is_done(path: str) -> None:
    """Nobody is told yes or no, and the stop waits for the look."""
    clock, thread = task.Clock(), HeldThread()
    watch = TokenWatch(clock, thread, path, Bound.TENANTS)
    watch.startService()
    assert watch.problem() == "the tokens have not been read yet"
    with pytest.raises(Unavailable):
        watch.find("anything")
    thread.step()
    assert watch.find("anything") is None
    clock.advance(WATCH_SECONDS)
    clock.advance(STALE_SECONDS)
    with pytest.raises(Unavailable):
        watch.find("anything")
    clock.advance(0.1)
    thread.step()  # it has been under way for two seconds: what was changed meanwhile may be missing
    with pytest.raises(Unavailable):
        watch.find("anything")
    clock.advance(WATCH_SECONDS)
    stopped = watch.stopService()
    thread.step()
    assert not stopped.called
    thread.step()
    result_of(stopped)
