"""`axcollector check-config`: whether the service would start with a configuration, as far as that can be known before.

What the launcher does before it starts anything is done here too, so that the messages are the same. Then what the
start would find is looked at: whose the data directory is, whether it can be written, and, where no collector works
there at this moment, whether the ports are free.
"""

# ruff: noqa: N815 - Twisted's names

import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final

from twisted.internet.error import CannotListenError
from twisted.python import usage

from axcollector.cli.options import CommandOptions, printable, write_out
from axcollector.config_endpoints import split_endpoint
from axcollector.core.errors import AxcollectorError, CommandFailed
from axcollector.disk import Disk
from axcollector.locks import is_held
from axcollector.ownership import check_writable
from axcollector.premises import Premises

if TYPE_CHECKING:
    from axcollector.config import Config

_TCP: Final = frozenset({"tcp", "tcp6", "ssl", "axtls"})


@dataclass(slots=True)
class Checked:
    """What was found.

    Attributes:
        config: The settings; None: they cannot be read.
        problem: Why the service would not start; None: nothing is known that would keep it from that.
        warnings: With what it would start, but should not run.
        notes: What is worth knowing.
    """

    config: "Config | None" = None
    problem: str | None = None
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class CheckConfigOptions(CommandOptions):
    """Options of `check-config`."""

    required = ("file",)
    longdesc = (
        "Says whether `twistd axcollector --config FILE` would start, as far as can be known without starting it, and"
        " what it would warn of. Run it as the user that the service runs as. The exit status is 1 if it would not."
        " Options that are given to the service beside the file follow behind --."
        " Example: axcollector check-config /etc/axcollector/axcollector.yaml -- --workers 4"
    )
    optFlags: ClassVar[list[Any]] = [
        ["json", "j", "Write one JSON object, with all settings that would be in force; secrets are masked"]
    ]
    compData = usage.Completions(extraActions=[usage.CompleteFiles()])

    @property
    def synopsis(self) -> str:
        """What follows the command's name in its help."""
        return "FILE [options] [-- options of the service]"

    def parseArgs(self, *given: str) -> None:
        """Take the file, and what the service is given beside it."""
        super().parseArgs(*given[:1])
        self["service"] = given[1:]
        if given[1:] and not given[1].startswith("-"):
            raise usage.UsageError(f"too many arguments: {' '.join(given[1:])}")

    def overrides(self) -> dict[str, object]:
        """What the options of the service say, by key."""
        from axcollector.tap import Options  # noqa: PLC0415 - as below

        options = Options()  # type: ignore[no-untyped-call]  # untyped in Twisted
        options.parseOptions(self["service"])
        if options["config"] is not None:
            raise usage.UsageError("the file is named before --, and not with --config again")
        return options.overrides()

    def run(self) -> None:
        """Check it."""
        from twisted.internet import reactor  # noqa: PLC0415 - help and completion need none

        checked = check(reactor, self["file"], self.overrides())
        if self["json"]:
            write_out(json.dumps(_as_json(checked), indent=2) + "\n")
        for kind, texts in (("warning", checked.warnings), ("note", checked.notes)):
            for text in texts:
                sys.stderr.write(printable(f"{kind}: {text}") + "\n")
        if checked.problem is not None:
            raise CommandFailed(f"the service would not start: {checked.problem}")
        if not self["json"] and checked.config is not None:
            write_out(_summary(checked.config))


def check(reactor: Any, path: str, overrides: Mapping[str, object]) -> Checked:  # noqa: ANN401 - any Twisted reactor
    """What can be said of the configuration in a file, with what the command line says instead."""
    from axcollector.assembly import assemble  # noqa: PLC0415 - as above
    from axcollector.config_file import read_config  # noqa: PLC0415 - help needs none
    from axcollector.listening import check_endpoints  # noqa: PLC0415 - likewise
    from axcollector.tap import exposure_of  # noqa: PLC0415 - likewise

    checked = Checked()
    try:
        loaded = read_config(path, overrides)
        checked.config = config = loaded.config
        checked.notes += loaded.notes
        if warning := exposure_of(config):
            checked.warnings.append(warning)
        check_endpoints(reactor, "listen", config.listen)
        check_endpoints(reactor, "admin_listen", [config.admin_listen] if config.admin_listen else [])
        assemble(reactor, _without_systemd(config, checked))
        Premises(Disk(), config.local_storage_path, config.data_directory).check()
        _look_at_ports(config, checked)
    except (AxcollectorError, CannotListenError) as exc:
        checked.problem = " ".join(str(exc).split())
    except OSError as exc:
        checked.problem = f"{exc.filename}: {exc.strerror}" if exc.filename is not None else str(exc)
    else:
        checked.warnings += _troubles(config)
    return checked


def _without_systemd(config: "Config", checked: Checked) -> "Config":
    """The settings with other endpoints in the place of sockets that systemd gives to nobody but the service."""
    admin, *listen = [_stand_in(number, text) for number, text in enumerate([config.admin_listen, *config.listen])]
    if (admin, *listen) == (config.admin_listen, *config.listen):
        return config
    checked.notes.append("whether systemd has the sockets for the service cannot be told from here")
    return replace(config, admin_listen=admin, listen=listen)


def _stand_in(number: int, endpoint: str) -> str:
    return f"tcp:0:interface=127.0.0.{number + 1}" if _is_of_systemd(endpoint) else endpoint


def _is_of_systemd(endpoint: str) -> bool:
    kind, _, named = split_endpoint(endpoint)
    return kind == "systemd" or "systemd" in named


def _look_at_ports(config: "Config", checked: Checked) -> None:
    if is_held(os.path.join(config.local_storage_path, "lock")):
        checked.notes.append(
            f"a collector runs in {config.local_storage_path} at this moment, so whether its ports are free was not"
            " looked at; a second one would not start there"
        )
        return
    for endpoint in [*config.listen, config.admin_listen]:
        kind, arguments, named = split_endpoint(endpoint)
        if kind == "unix":
            check_writable(os.path.dirname(os.path.abspath(named.get("address", arguments[0] if arguments else ""))))
        elif kind in _TCP and not _is_of_systemd(endpoint):
            address = named.get("interface", arguments[1] if kind == "tcp" and len(arguments) > 1 else "")
            _look_at_port(address or ("::" if kind == "tcp6" else ""), int(named.get("port") or arguments[0]))


def _look_at_port(interface: str, port: int) -> None:
    """Bind to it for a moment, without listening, so that no client takes this for the service."""
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((interface, port))
        except OSError as exc:
            raise CannotListenError(interface, port, exc) from exc


def _troubles(config: "Config") -> Iterator[str]:
    """With what it would start, and then not do its work."""
    for key, path in (("registry_path", config.registry_file), ("bearer_token_file", config.bearer_token_file)):
        if path is None or (key == "registry_path" and not os.path.lexists(path)):
            continue
        try:
            with open(path, "rb"):
                pass
        except OSError as exc:
            yield f"{key}: {path} cannot be read: {exc.strerror}"
    if config.uap_server_base is None and config.store_url.startswith("file:"):
        directory = config.store_url.removeprefix("file:")
        try:
            check_writable(directory)
        except OSError as exc:
            yield f"store: {directory} cannot be written, so nothing would be delivered: {exc.strerror}"


def _summary(config: "Config") -> str:
    """What it would do, and which settings are not the defaults."""
    lines = [
        f"the service would start, and take records at {', '.join(config.listen)};",
        f"data in {config.data_directory}; files go to {config.uap_server_base or config.store_url}",
    ]
    values, defaults = masked_values(config), masked_values(type(config)())
    lines += [f"  {name}: {_written(value)}" for name, value in values.items() if value != defaults[name]]
    return "".join(printable(line) + "\n" for line in lines)


def masked_values(config: "Config") -> dict[str, object]:
    """The values in force, by key: of a secret only whether it is set, of a URL no password."""
    from axcollector.config import KEYS  # noqa: PLC0415 - help and completion need none

    return {name: key.masked(getattr(config, name)) for name, key in KEYS.items()}


def _written(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, Sequence | bool) else str(value)


def _as_json(checked: Checked) -> dict[str, Any]:
    return {
        "ok": checked.problem is None,
        "problem": checked.problem,
        "warnings": checked.warnings,
        "notes": checked.notes,
        "settings": None if checked.config is None else masked_values(checked.config),
    }
