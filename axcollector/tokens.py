"""Tokens: who may ask for what. The SQLite file of those that were given out, and a copy of it in memory. Blocking.

A token is 256 random bits as text, shown once, when it is made. What is kept is its SHA-256: whoever reads the file can
use none of them, and a token is found by its digest. Nothing has to be salted or slow, since nobody can guess 256 bits.

A token is bound to names: those of tenants, as the signing service's protocol writes them, or ids of scopes, at the
collector's door. Which of the two is kept with each token and is part of every question, so that one of the one kind
can never pass for one of the other, should both kinds ever get into one file. `*` stands for all names of its kind.

A revoked token is deleted. The file has mode 0600 and a write-ahead log.
"""

import enum
import hashlib
import hmac
import math
import os
import secrets
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Self

from axcollector.core.errors import TokensError
from axcollector.sqlite_file import BUSY_TIMEOUT_SECONDS, SqliteFile, connect, errors_as, make_file

EVERY_NAME: Final = "*"
"""A token bound to this is good for every name of its kind."""

_PREFIX: Final = "axt_"
"""Shows people, and programs that look for secrets in places where they should not be, what it is."""

_INDEXED_BYTES: Final = 8

_TABLES: Final = (
    """token (id text PRIMARY KEY NOT NULL, kind text NOT NULL, digest blob UNIQUE NOT NULL, label text NOT NULL,
        created integer NOT NULL, expires integer)""",
    "token_name (token text NOT NULL REFERENCES token (id), name text NOT NULL, PRIMARY KEY (token, name))",
)


class Bound(enum.StrEnum):
    """To what kind of names tokens are bound."""

    TENANTS = "tenants"
    SCOPES = "scopes"


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token; the token itself is not.

    Attributes:
        id: Its name, no secret.
        names: What it is good for; `*`: everything of its kind.
        label: What somebody wrote on it, maybe nothing.
        created: When it was made, in seconds since the epoch.
        expires: From when on it is good for nothing, likewise; None: never.
    """

    id: str
    names: frozenset[str]
    label: str
    created: int
    expires: int | None = None

    def covers(self, name: str) -> bool:
        """Whether it is good for this name."""
        return EVERY_NAME in self.names or name in self.names

    def covers_one_of(self, names: Collection[str]) -> bool:
        """Whether it is good for any of these names; for none where there are none."""
        return bool(names) if EVERY_NAME in self.names else not self.names.isdisjoint(names)

    def has_expired(self, now: float) -> bool:
        """Whether it is good for nothing any more."""
        return self.expires is not None and now >= self.expires


class TokenBook:
    """The tokens of one moment, to be looked up."""

    def __init__(self, by_digest: Mapping[bytes, Token]) -> None:
        """Take tokens by their digests."""
        self._by_beginning: dict[bytes, list[tuple[bytes, Token]]] = {}
        for digest, token in by_digest.items():
            self._by_beginning.setdefault(digest[:_INDEXED_BYTES], []).append((digest, token))

    def __len__(self) -> int:
        return sum(map(len, self._by_beginning.values()))

    def find(self, secret: str, now: float) -> Token | None:
        """The token of this text, unless it has expired.

        How long it takes tells nothing of use: the digest's beginning says where to look, and a digest cannot be
        steered without knowing the token; what is found there is compared whole, in constant time.
        """
        digest = digest_of(secret)
        for known, token in self._by_beginning.get(digest[:_INDEXED_BYTES], ()):
            if hmac.compare_digest(known, digest):
                return None if token.has_expired(now) else token
        return None


class TokenFile(SqliteFile):
    """One connection to a file of tokens, for those of one kind. Every method may raise `TokensError`."""

    def __init__(self, path: str, connection: sqlite3.Connection, kind: Bound) -> None:
        """Take over a connection; `open` and `create` make one."""
        super().__init__(path, connection)
        self._kind = kind

    @classmethod
    def open(cls, path: str, kind: Bound, busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS) -> Self:
        """Open a file that is there.

        Raises:
            TokensError: It is not there, cannot be read, or holds no tokens.
        """
        with errors_of(path):
            if not os.path.exists(path):
                raise TokensError(f"the file of tokens {path} does not exist")
            return cls(path, connect(path, busy_timeout_seconds), kind)._checked()  # noqa: SLF001 - our own

    @classmethod
    def create(cls, path: str, kind: Bound) -> Self:
        """Open a file, made before (mode 0600, its directory 0700) if it is missing."""
        with errors_of(path):
            make_file(path)
            file = cls(path, connect(path), kind)
        try:
            file._make_tables(_TABLES)
        except BaseException:
            file.close()
            raise
        return file._checked()

    def add(
        self, names: Iterable[str], now: float, *, label: str = "", expires_seconds: float | None = None
    ) -> tuple[Token, str]:
        """Make a token.

        Args:
            names: What it is to be good for, at least one name, or `*`.
            now: Seconds since the epoch.
            label: What to write on it.
            expires_seconds: How long it is to be good for, or None: until it is revoked.

        Returns:
            What is kept of it, and the token itself, which is nowhere else.
        """
        secret = _PREFIX + secrets.token_urlsafe(32)
        expires = None if expires_seconds is None else math.ceil(now + expires_seconds)
        token = Token(secrets.token_hex(6), frozenset(names), label, int(now), expires)
        if not token.names or "" in token.names:
            raise TokensError(f"{self.path} was not changed: a token needs names that it is good for")
        row = (token.id, self._kind.value, digest_of(secret), token.label, token.created, token.expires)
        with self._transaction("BEGIN IMMEDIATE"):
            self._change(
                "INSERT INTO token (id, kind, digest, label, created, expires) VALUES (?, ?, ?, ?, ?, ?)", *row
            )
            for name in sorted(token.names):
                self._change("INSERT INTO token_name (token, name) VALUES (?, ?)", token.id, name)
        return token, secret

    def revoke(self, token_id: str) -> Token:
        """Make a token good for nothing; it is forgotten.

        Raises:
            TokensError: There is none of this id.
        """
        with self._transaction("BEGIN IMMEDIATE"):
            found = [token for token in self._by_digest().values() if token.id == token_id]
            if not found:
                raise TokensError(f"{self.path} has no token {token_id} for {self._kind.value}")
            self._change("DELETE FROM token_name WHERE token = ?", token_id)
            self._change("DELETE FROM token WHERE id = ?", token_id)
        return found[0]

    def tokens(self) -> Sequence[Token]:
        """All of them, the oldest first, those that have expired too."""
        with self.reading():
            return sorted(self._by_digest().values(), key=lambda token: (token.created, token.id))

    def book(self) -> TokenBook:
        """All of them, to be looked up."""
        with self.reading():
            return TokenBook(self._by_digest())

    def _by_digest(self) -> dict[bytes, Token]:
        names: dict[str, set[str]] = {}
        for token_id, name in self._ask("SELECT token, name FROM token_name"):
            names.setdefault(token_id, set()).add(name)
        question = "SELECT digest, id, label, created, expires FROM token WHERE kind = ?"
        found = {}
        for digest, token_id, label, created, expires in self._ask(question, self._kind.value):
            # SQLite keeps whatever some other program has written into a column.
            if not (isinstance(digest, bytes) and isinstance(created, int) and isinstance(expires, int | None)):
                raise TokensError(f"{self.path} cannot be used: what it holds of token {token_id} is none of ours")
            found[digest] = Token(token_id, frozenset(names.get(token_id, ())), label, created, expires)
        return found

    def _errors(self) -> AbstractContextManager[None]:
        return errors_of(self.path)

    def _checked(self) -> Self:
        """Itself, if it holds tokens; else it is closed."""
        try:
            if {("token",), ("token_name",)} - set(self._ask("SELECT name FROM sqlite_master WHERE type = 'table'")):
                raise TokensError(f"{self.path} is no file of tokens: it has other tables")
        except TokensError:
            self.close()
            raise
        return self


def digest_of(secret: str) -> bytes:
    """What is kept of a token."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def errors_of(path: str) -> AbstractContextManager[None]:
    """What the library and the system raise becomes a `TokensError` that names the file."""
    return errors_as(TokensError, f"the file of tokens {path}")
