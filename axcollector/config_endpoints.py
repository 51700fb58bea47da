"""Where to listen, as a kind of configuration value: the texts of Twisted's server endpoints.

Only what can be told from the text alone is checked here, without a reactor and without looking at files; what
remains is found out when `listening` makes endpoints of the texts.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from axcollector.config_values import Whole
from axcollector.core.errors import ConfigError

# A port belongs to these; what other kinds of endpoint take is theirs to say.
_WITH_PORT: Final = frozenset({"tcp", "tcp6", "ssl", "axtls"})
_TLS_ARGUMENTS: Final = ("certificate", "key", "client_ca", "interface", "port", "systemd")
_TLS_FORM: Final = "axtls:PORT:certificate=FILE:key=FILE, and where wanted :client_ca=FILE and :interface=ADDRESS"


_SHAREABLE: Final = frozenset({"tcp", "axtls", "systemd"})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A Twisted server endpoint, as text; an empty one where that means "do not listen"."""

    may_be_empty: bool = False
    unit: str = ""

    @property
    def allowed(self) -> str:
        """What endpoints look like."""
        empty = ", or nothing: do not listen" if self.may_be_empty else ""
        forms = "tcp:9000:interface=127.0.0.1, unix:/run/axcollector.sock or axtls:9443:certificate=FILE:key=FILE"
        return f"a Twisted server endpoint such as {forms}{empty}"

    def read(self, value: object) -> str:
        """Takes text of the form `kind:arguments`; ports must be ports."""
        if self.may_be_empty and (value is None or value == ""):
            return ""
        if not isinstance(value, str) or not value.isprintable() or value != value.strip():
            raise ValueError(value)
        kind, arguments, named = split_endpoint(value)
        if not kind or not any([*arguments, *named.values()]):
            raise ValueError(value)
        if kind in _WITH_PORT and not (kind == "axtls" and "systemd" in named):
            Whole(0, 65_535).read(named.get("port", arguments[0] if arguments else ""))
        return value


@dataclass(frozen=True, slots=True)
class Endpoints:
    """At least one endpoint."""

    unit: str = ""

    @property
    def allowed(self) -> str:
        """What endpoints look like."""
        return f"{Endpoint().allowed}, or a list of such"

    def read(self, value: object) -> tuple[str, ...]:
        """Takes one endpoint as text, or several in a sequence, each of them once."""
        given = [value] if isinstance(value, str) else value
        if not isinstance(given, Sequence) or not given or len(set(map(str, given))) != len(given):
            raise ValueError(value)
        return tuple(Endpoint().read(each) for each in given)


def split_endpoint(text: str) -> tuple[str, list[str], dict[str, str]]:
    r"""An endpoint's kind, its arguments by place, and those by name; `\:` and `\=` are no separators."""
    arguments: list[str] = []
    named: dict[str, str] = {}
    kind, *rest = re.split(r"(?<!\\):", text)
    for part in rest:
        name, *value = re.split(r"(?<!\\)=", part, maxsplit=1)
        if value:
            named[name] = _unquoted(value[0])
        else:
            arguments.append(_unquoted(part))
    return kind, arguments, named


def takes_any_port(endpoint: str) -> bool:
    """Whether an endpoint listens on whatever port is free (port 0), a different one each time."""
    kind, arguments, named = split_endpoint(endpoint)
    port = named.get("port", arguments[0] if arguments else "")
    return kind in _WITH_PORT and bool(port) and not int(port)


def may_be_shared(endpoint: str) -> bool:
    """Whether several processes can take connections of an endpoint, as far as its text tells."""
    return split_endpoint(endpoint)[0] in _SHAREABLE


def is_local(endpoint: str) -> bool:
    """Whether an endpoint can be reached from this machine only, as far as its text tells."""
    kind, arguments, named = split_endpoint(endpoint)
    if kind == "unix" or (kind == "systemd" and "UNIX" in {named.get("domain"), *arguments[:1]}):
        return True
    interface = named.get("interface", arguments[1] if kind == "tcp" and len(arguments) > 1 else "")
    if interface == "localhost" and kind != "axtls":
        return True
    try:
        return kind in _WITH_PORT and ipaddress.ip_address(interface).is_loopback
    except ValueError:
        return False


def check_tls_arguments(arguments: Sequence[str], named: Mapping[str, str]) -> None:
    """Refuse what `axtls:` does not take; raises `ConfigError`."""
    for name in ("certificate", "key"):
        if not named.get(name):
            raise ConfigError(f"axtls: {name} is missing; allowed is {_TLS_FORM}")
    unknown = [name for name, value in named.items() if name not in _TLS_ARGUMENTS or not value]
    if unknown or len(arguments) > 1:
        raise ConfigError(f"axtls: {(unknown or arguments[1:])[0]!r} is not understood; allowed is {_TLS_FORM}")
    if "systemd" in named and (arguments or {"port", "interface"} & set(named)):
        raise ConfigError("axtls: systemd names a socket that listens already; allowed is no port or interface with it")
    if "port" in named and arguments:
        raise ConfigError("axtls: there are two ports; allowed is one")
    interface = named.get("interface", "0.0.0.0")  # noqa: S104 - the default of TCP endpoints
    try:
        ipaddress.ip_address(interface)
    except ValueError:
        problem = f"axtls: interface={interface} is no address; allowed is such as 127.0.0.1 or \\:\\:1"
        raise ConfigError(problem) from None


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)
