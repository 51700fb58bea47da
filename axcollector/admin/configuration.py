"""`GET /configuration`: what is in force, key by key, without what is secret in it."""

from collections.abc import Mapping
from typing import Any

import msgspec
from klein import Klein
from twisted.web.iweb import IRequest

from axcollector import answers
from axcollector.config_keys import Key


class Setting(msgspec.Struct, frozen=True):
    """A key and what it is set to.

    Attributes:
        key: The key.
        value: Its value, as one would write it in the configuration; nothing, where it has none.
        is_default: Whether that is what it is where nothing is configured.
        unit: The unit of a number, or nothing.
        description: What it is for.
    """

    key: str
    value: str
    is_default: bool
    unit: str
    description: str


class InForce:
    """The configuration in force; it can be exchanged."""

    def __init__(self, keys: Mapping[str, Key], config: object) -> None:
        self._keys = keys
        self._config = config

    def use(self, config: object) -> None:
        """From now on this one is."""
        self._config = config

    def settings(self) -> list[Setting]:
        """All of it, in the order of the documentation."""
        return [setting_of(key, getattr(self._config, key.name)) for key in self._keys.values()]


def setting_of(key: Key, value: object) -> Setting:
    """How a key is shown."""
    default = None if key.default is None else key.read(key.default)
    return Setting(key.name, shown(key, value), value == default, key.kind.unit, key.description)


def shown(key: Key, value: object) -> str:
    """A value as one would write it; a secret is not shown, nor is the login of a URL that may have one."""
    value = key.masked(value)
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.15g}"
        case tuple() | list():
            return " ".join(map(str, value))
        case _:
            return str(value)


def add_configuration(app: Klein, in_force: InForce) -> None:
    """Give an app the route of the configuration."""

    @app.route("/configuration", methods=["GET"])
    def in_force_now(request: IRequest) -> bytes:
        """All keys."""
        body: dict[str, Any] = {"settings": in_force.settings()}
        return answers.give(request, 200, msgspec.json.encode(body))
