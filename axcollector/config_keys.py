"""A configuration as a table: what there is to know of each key, made of a class that holds the settings.

A field of the class is a key, and its annotation holds the kind of value and the text that the command line's help and
the documentation show:

    listen: Annotated[Sequence[str], Endpoints(), "where to listen"] = ("tcp:9000",)

A field without a `repr` is a secret, or may hold one. Each program of ours has one such class.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, get_type_hints

from axcollector.config_urls import ProxyUrl, shortly, without_login
from axcollector.config_values import Kind
from axcollector.core.errors import ConfigError

MIB: Final = 1 << 20
MASK: Final = "(set, not shown)"
"""What stands for a secret."""


@dataclass(frozen=True, slots=True)
class Key:
    """What there is to know of a key.

    Attributes:
        name: Its name.
        kind: What it takes.
        description: What it is for.
        default: Its value when it is not given; None: there is none, or it follows from other keys.
        secret: Whether its value must never be shown, nor be given on a command line.
        is_private: Whether its value is a secret, or may hold a password.
    """

    name: str
    kind: Kind
    description: str
    default: Any
    secret: bool
    is_private: bool

    def read(self, value: object) -> object:
        """The value as `Config` holds it; raises `ConfigError`."""
        try:
            return self.kind.read(value)
        except ValueError as exc:
            problem = ConfigError(f"{self.shown(value)} is not allowed; allowed is {self.kind.allowed}")
            # What a kind raised holds the value, which may be a secret, or hold one.
            raise problem from (None if self.is_private else exc)

    def masked(self, value: object) -> object:
        """A value that may be shown: of a secret only that it is set, of what may hold a login all but that."""
        if value is None or not self.is_private:
            return value
        return MASK if self.secret else without_login(str(value))

    @property
    def default_text(self) -> str:
        """The default as one would write it, or nothing."""
        match self.default:
            case None:
                return ""
            case bool():
                return str(self.default).lower()
            case int() if self.default >= MIB and not self.default % MIB:
                return f"{self.default // MIB} MiB"
            case float():
                return f"{self.default:g}"
            case tuple():
                return " ".join(self.default)
            case _:
                return str(self.default)

    def shown(self, value: object) -> str:
        """The key and a value, in one line, for messages; of a secret the key alone."""
        return f"{self.name}: the given value" if self.secret else f"{self.name}: {shortly(value)}"


def keys_of(settings: type[Any]) -> dict[str, Key]:
    """The keys of a dataclass of settings, by name, in the order in which they stand there."""
    hints = get_type_hints(settings, include_extras=True)
    keys = {}
    for each in fields(settings):
        kind, description = hints[each.name].__metadata__
        is_secret = not each.repr and not isinstance(kind, ProxyUrl)
        keys[each.name] = Key(each.name, kind, description, each.default, is_secret, not each.repr)
    return keys


def read_values(settings: object, keys: Mapping[str, Key]) -> None:
    """Replace each value of a new instance by what its kind makes of it; raises `ConfigError`."""
    for key in keys.values():
        value = getattr(settings, key.name)
        if value is not None or key.default is not None:
            object.__setattr__(settings, key.name, key.read(value))


def arguments_of(keys: Mapping[str, Key], values: Mapping[str, object]) -> dict[str, Any]:
    """What to make an instance of; refuses null where there is a default that is not, elsewhere null is the default.

    Raises:
        ConfigError: A key is unknown, or null.
    """
    for name, value in values.items():
        if name not in keys:
            raise unknown_key(name, list(keys))
        if value is None and keys[name].default is not None:
            keys[name].read(value)
    return dict(values)


def nearest(name: str, known: Sequence[str]) -> str:
    """A hint at the known name that looks most like an unknown one."""
    return f"the nearest is {difflib.get_close_matches(name, known, n=1, cutoff=0)[0]}"


def unknown_key(key: str, known: Sequence[str]) -> ConfigError:
    """The complaint about a key that there is not."""
    return ConfigError(f"{key!r} is no key of the configuration; {nearest(key, known)}")
