"""The kinds of values that a configuration has: what each takes, and how it says what it takes.

A kind reads what a YAML file, a command line or an embedding program gives, all by the same rules, and returns the
value as `Config` holds it. What it does not take raises `ValueError`; `allowed` is the text that says what it takes,
in errors, on the command line and in the documentation alike. Kinds touch no file.
"""

import math
import os
import re
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

N = TypeVar("N", int, float)

_UNITS: Final = {
    "": 1,
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
}
_SIZE: Final = re.compile(r"(\d{1,18}) ?([A-Za-z]*)", re.ASCII)
_WHOLE: Final = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_DECIMAL: Final = re.compile(r"[+-]?\d{1,15}(\.\d{1,15})?", re.ASCII)
_DURATION: Final = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)(ms|s|m|h)", re.ASCII)
_DURATIONS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_FLAGS: Final = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(("false", "no", "off", "0"), False)
URL_PATH: Final = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~!$&'()*+,;=:@-]+)+")


class Kind(Protocol):
    """What a key takes."""

    @property
    def unit(self) -> str:
        """The unit of a number, or nothing."""
        ...

    @property
    def allowed(self) -> str:
        """What is taken, as it ends the sentence "allowed is …"."""
        ...

    def read(self, value: object, /) -> object:
        """The value as `Config` holds it.

        Raises:
            ValueError: It is not taken.
        """
        ...


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number; truth values are none."""

    minimum: int
    maximum: int | None = None
    unit: str = ""

    @property
    def allowed(self) -> str:
        """The range."""
        return f"a whole number{f' ({self.unit})' if self.unit else ''}, {_range(self.minimum, self.maximum)}"

    def read(self, value: object) -> int:
        """Takes integers and their decimal text."""
        if isinstance(value, str) and _WHOLE.fullmatch(value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(value)
        return _in_range(value, self.minimum, self.maximum)


@dataclass(frozen=True, slots=True)
class Seconds:
    """A length of time, in seconds; fractions are fine."""

    minimum: float = 0
    maximum: float = 366 * 86_400
    unit: str = "s"

    @property
    def allowed(self) -> str:
        """The range."""
        return f"a number of seconds, {_range(self.minimum, self.maximum)}"

    def read(self, value: object) -> float:
        """Takes numbers and their decimal text."""
        if isinstance(value, str) and _DECIMAL.fullmatch(value):
            value = float(value)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise ValueError(value)
        return float(_in_range(value, self.minimum, self.maximum))


@dataclass(frozen=True, slots=True)
class Duration:
    """A length of time, in seconds, or as Go programs write it."""

    minimum: float = 0
    unit: str = "s"

    @property
    def allowed(self) -> str:
        """The range, and the forms."""
        return f"{Seconds(self.minimum).allowed}, or such as 90s, 2m or 1h"

    def read(self, value: object) -> float:
        """Takes numbers, and text of a number and a unit."""
        if isinstance(value, str) and (match := _DURATION.fullmatch(value)):
            value = float(match[1]) * _DURATIONS[match[2]]
        return Seconds(self.minimum).read(value)


@dataclass(frozen=True, slots=True)
class Size:
    """A number of bytes."""

    minimum: int = 1
    unit: str = "bytes"

    @property
    def allowed(self) -> str:
        """The range, and the forms."""
        return f"a number of bytes, {_range(self.minimum, None)}, such as 4096, 10MB or 256 MiB"

    def read(self, value: object) -> int:
        """Takes integers, and text of an integer and a unit: powers of 1000 (`MB`) or of 1024 (`MiB`)."""
        if isinstance(value, str) and (match := _SIZE.fullmatch(value)) and match[2] in _UNITS:
            value = int(match[1]) * _UNITS[match[2]]
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(value)
        return _in_range(value, self.minimum, None)


@dataclass(frozen=True, slots=True)
class Flag:
    """Yes or no."""

    unit: str = ""
    allowed: str = "true or false (or yes, no, on, off, 1, 0)"

    def read(self, value: object) -> bool:
        """Takes truth values and, in any case, the words for them."""
        if isinstance(value, str):
            value = _FLAGS.get(value.lower())
        if not isinstance(value, bool):
            raise ValueError(value)
        return value


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several words."""

    words: tuple[str, ...]
    unit: str = ""

    @property
    def allowed(self) -> str:
        """The words."""
        return " or ".join(self.words)

    def read(self, value: object) -> str:
        """Takes the words as they are."""
        if not isinstance(value, str) or value not in self.words:
            raise ValueError(value)
        return str(value)


@dataclass(frozen=True, slots=True)
class Text:
    """Visible ASCII characters, of a given form."""

    form: str = r"[!-~]{1,4096}"
    allowed: str = "visible ASCII characters, without spaces"
    unit: str = ""

    def read(self, value: object) -> str:
        """Takes text of the form."""
        if not isinstance(value, str) or not re.fullmatch(self.form, value):
            raise ValueError(value)
        return value


@dataclass(frozen=True, slots=True)
class Path:
    """A file or directory; relative ones are below the directory that the process was started in."""

    unit: str = ""
    allowed: str = "a path"

    def read(self, value: object) -> str:
        """Takes text and path objects; returns an absolute path, so that a later change of directory is harmless."""
        path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
        if not path or not isinstance(path, str) or "\0" in path:
            raise ValueError(value)
        return os.path.abspath(path)


@dataclass(frozen=True, slots=True)
class PathPart:
    """A path that begins with a slash and is put behind something else: a URL path, a directory below another."""

    unit: str = ""
    allowed: str = "a path such as /analytics: it begins with / and does not end in /, and has no empty, . or .. parts"

    def read(self, value: object) -> str:
        """Takes text of characters that need no quoting in URLs."""
        if not isinstance(value, str) or not URL_PATH.fullmatch(value):
            raise ValueError(value)
        return value


def _in_range(value: N, minimum: float, maximum: float | None) -> N:
    if value < minimum or (maximum is not None and value > maximum):
        raise ValueError(value)
    return value


def _range(minimum: float, maximum: float | None) -> str:
    return f"{minimum:.15g} or more" if maximum is None else f"{minimum:.15g} to {maximum:.15g}"
