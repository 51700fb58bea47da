"""URLs as kinds of configuration values, and how a value that may hold a login is shown."""

import re
import reprlib
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from axcollector.config_values import URL_PATH, Path

MAX_S3_PREFIX: Final = 500
"""A whole key may have 1024 bytes; what is put behind the prefix has up to 480."""

_VISIBLE: Final = re.compile(r"[!-~]+")
_S3: Final = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/(?!\.{1,2}(/|$))[!\"$-.0-~]+)*/?")

_LOGIN: Final = re.compile(r"^((?:[A-Za-z][A-Za-z0-9+.-]*:)?(?://)?).*@", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Url:
    """An address of a web service, to which paths are added."""

    unit: str = ""
    allowed: str = "an http:// or https:// URL without user name, query or fragment"

    def read(self, value: object) -> str:
        """Takes text; a slash at its end is dropped."""
        text, parts = _split_url(value)
        if "@" in parts.netloc:
            raise ValueError(value)
        return text.rstrip("/")


@dataclass(frozen=True, slots=True)
class ProxyUrl:
    """An address of a forward proxy; it may hold a user name and a password."""

    unit: str = ""
    allowed: str = "http://HOST:PORT or https://HOST:PORT, with or without USER:PASSWORD@ before the host"

    def read(self, value: object) -> str:
        """Takes text; a slash at its end is dropped."""
        text, parts = _split_url(value)
        if parts.path not in {"", "/"} or parts.username == "":
            raise ValueError(value)
        return text.rstrip("/")


def _split_url(value: object) -> tuple[str, SplitResult]:
    """A URL of a web service without query and fragment, and its parts."""
    if not isinstance(value, str) or not _VISIBLE.fullmatch(value) or "?" in value or "#" in value:
        raise ValueError(value)
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
        raise ValueError(value)
    return value, parts


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """Where files go: `file:PATH` or `s3://bucket/prefix`; of the prefix no part is empty, `.` or `..`."""

    unit: str = ""
    allowed: str = "file:PATH or s3://bucket/prefix"

    def read(self, value: object) -> str:
        """Takes text; the path of a `file:` becomes absolute."""
        if not isinstance(value, str):
            raise ValueError(value)
        if value.startswith("file:"):
            path = value.removeprefix("file:")
            return "file:" + Path().read(path.removeprefix("//") if path.startswith("///") else path)
        if not _S3.fullmatch(value):
            raise ValueError(value)
        return value


@dataclass(frozen=True, slots=True)
class S3Url:
    """A bucket, and what the keys of all objects in it begin with."""

    unit: str = ""

    @property
    def allowed(self) -> str:
        """The form."""
        return f"s3://bucket/prefix, the prefix without . and .. and empty parts, at most {MAX_S3_PREFIX} characters"

    def read(self, value: object) -> str:
        """Takes text; a slash at its end is dropped."""
        if not isinstance(value, str) or not _S3.fullmatch(value):
            raise ValueError(value)
        prefix = value.removeprefix("s3://").partition("/")[2].rstrip("/")
        if len(prefix) > MAX_S3_PREFIX or (prefix and not URL_PATH.fullmatch("/" + prefix)):
            raise ValueError(value)
        return value.rstrip("/")


def without_login(url: str) -> str:
    """A URL without its user name and password."""
    return _LOGIN.sub(r"\1…@", url)


def shortly(value: object) -> str:
    """A value in one line of bearable length, without the user names and passwords of URLs."""
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = 120
    # Before it is shortened, which could leave half a password without the @ behind it.
    return shortener.repr(without_login(value) if isinstance(value, str) else value)
