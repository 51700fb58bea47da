"""From a YAML file and a command line to a `Config`, apid's files included.

Keys may carry the prefix `apidanalytics_`. A file with any `apidanalytics_` or `apigeesync_` key is an apid
configuration: it configures all of apid, so that apid core's own keys and those of its sync plugin stand in it too.
Those that say something to us are taken over; the others are known, but nothing is made of them, which is noted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from twisted.internet.endpoints import quoteStringArgument

from axcollector.config import KEYS, SYNC_KEYS, Config
from axcollector.config_keys import arguments_of, unknown_key
from axcollector.config_yaml import read_yaml
from axcollector.core.errors import ConfigError

PREFIX: Final = "apidanalytics_"
_APID_PREFIXES: Final = (PREFIX, "apigeesync_")

ALIASES: Final = {
    "apigeesync_bearer_token": "bearer_token",
    "apigeesync_apid_instance_id": "instance_id",
    "configcompletefwdp": "upload_proxy",
}
"""Other names of our keys, in any file."""

_CORE_KEYS: Final = frozenset(
    {
        "api_expvar_path",
        "api_healthy",
        "api_ready",
        "data_driver",
        "data_path",
        "data_source",
        "data_trace_log_level",
        "events_buffer_size",
        "log_level",
    }
)
_CORE_PREFIX: Final = "db_config_"
_API_LISTEN: Final = "api_listen"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, and what an operator should know about where it came from.

    Attributes:
        config: The settings.
        notes: Sentences to be logged once, at the start.
    """

    config: Config
    notes: tuple[str, ...] = ()


def load_config(path: str | None, overrides: Mapping[str, object]) -> Config:
    """The settings of `read_config`, without the notes."""
    return read_config(path, overrides).config


def read_config(path: str | None, overrides: Mapping[str, object]) -> Loaded:
    """Read a configuration file, and put what a command line says over it.

    Args:
        path: The YAML file, or None: all defaults.
        overrides: Values by key (text, or a list of texts where a key takes several); they win.

    Raises:
        ConfigError: The file cannot be read, a key is unknown or a value cannot be used.
    """
    values: dict[str, object] = {}
    ignored: set[str] = set()
    if path is not None:
        values, ignored = _settings(read_yaml(path))
    for_sync = {name for name in SYNC_KEYS if values.get(name) is not None}
    for name, value in overrides.items():
        values[name] = value
    config = Config(**arguments_of(KEYS, values))
    unused = ignored if config.sync == "transicator" else ignored | for_sync
    if not unused:
        return Loaded(config)
    note = f"{path} is an apid configuration; it sets these keys, which are not used here: {', '.join(sorted(unused))}"
    why = "; those that begin with apigeesync_ are for sync: transicator" if unused & for_sync else ""
    return Loaded(config, (note + why,))


def _settings(document: Mapping[str, object]) -> tuple[dict[str, object], set[str]]:
    """Our keys' values in a file, and the keys of it that nothing is made of."""
    is_apid = any(key.lower().startswith(_APID_PREFIXES) for key in document)
    values: dict[str, object] = {}
    ranks: dict[str, tuple[int, str]] = {}
    ignored: set[str] = set()
    for key, value in document.items():
        # apid does not care for the case of keys.
        found = _meaning(key.lower() if is_apid else key, is_apid=is_apid)
        if found is None:
            ignored.add(key)
            continue
        rank, name, convert = found
        losers = [key]
        if name not in ranks or rank < ranks[name][0]:
            losers = [ranks[name][1]] if name in ranks else []
            values[name], ranks[name] = convert(value), (rank, key)
        elif rank == ranks[name][0]:
            raise ConfigError(f"{key} and {ranks[name][1]} are the same key; allowed is one of them")
        ignored.update(losers)
    return values, ignored


def _meaning(key: str, *, is_apid: bool) -> tuple[int, str, Callable[[object], object]] | None:
    """What a key of a file sets: how far behind others that set the same, which of ours, and how its value is read.

    None: nothing. Raises `ConfigError` for an unknown key.
    """
    if key.removeprefix(PREFIX) in KEYS and key.startswith(PREFIX):
        return 0, key.removeprefix(PREFIX), _as_it_is
    if is_apid and (key in _CORE_KEYS or key.startswith(_CORE_PREFIX)):
        return None
    if key in KEYS:
        return 1, key, _as_it_is
    if key in ALIASES:
        return 2, ALIASES[key], _as_it_is
    if is_apid and key == _API_LISTEN:
        return 2, "listen", _endpoint_of_api_listen
    known = [*KEYS, *ALIASES, *(PREFIX + name for name in KEYS)]
    raise unknown_key(key, [*known, *_CORE_KEYS, _API_LISTEN] if is_apid else known)


def _as_it_is(value: object) -> object:
    return value


def _endpoint_of_api_listen(value: object) -> str:
    """`host:port` or `:port`, as Go's listeners take them."""
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not colon or not port.isdecimal() or int(port[:6]) > 65_535 or (":" in host and not host.startswith("[")):
        raise ConfigError(f"{_API_LISTEN}: {value!r} is not allowed; allowed is host:port or :port")
    host = host.removeprefix("[").removesuffix("]")
    return f"tcp:{port}" + (f":interface={quoteStringArgument(host)}" if host else "")
