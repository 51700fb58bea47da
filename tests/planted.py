"""Secrets that tests plant, and where they are looked for afterwards."""

import base64
import gzip
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus

ROOT = Path(__file__).parent.parent


def forms(secret: str) -> set[bytes]:
    """The shapes in which a text may be written down; of base64, wherever in a longer text it begins."""
    raw = secret.encode()
    texts = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), quote(quote(secret, safe=""), safe="")}
    texts |= {quote(secret, safe="").lower(), repr(secret)[1:-1], secret.replace("/", "\\/")}
    found = {text.encode() for text in texts} | {raw.hex().encode()}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for before in range(3):
            encoded = encode(bytes(before) + raw)
            # What other bytes before or behind it have a part in is left out.
            found.add(encoded[(before * 8 + 5) // 6 : (before + len(raw)) * 8 // 6])
    return found


def places(secrets: Mapping[str, str], written: Mapping[str, bytes]) -> list[str]:
    """Where any of the secrets stands in what was written: `what: which secret`."""
    return [
        f"{where}: {name}"
        for where, data in written.items()
        for name, secret in secrets.items()
        if any(form in data for form in forms(secret))
    ]


def files_below(*directories: Path) -> dict[str, bytes]:
    """Every file below some directories, its name before its content, and unpacked too where it is gzip."""
    found: dict[str, bytes] = {}
    for directory in directories:
        for path in directory.rglob("*"):
            if path.is_file():
                data = path.read_bytes()
                found[str(path)] = os.fsencode(path) + b"\n" + data
                if path.suffix == ".gz":
                    found[f"{path} unpacked"] = gzip.decompress(data)
    return found


class Watched:
    """A service of ours in a process of its own, that tells the most it can; whose log is a file.

    Attributes:
        log: The file with all that it has written to stdout and stderr.
    """

    def __init__(self, directory: Path, plugin: str, config: str, **environment: str) -> None:
        directory.mkdir(exist_ok=True, mode=0o700)
        self.log = directory / "log"
        command = [sys.executable, "-m", "twisted", "--log-level=debug", "--log-format=json", plugin]
        with self.log.open("wb") as log:
            self.popen = subprocess.Popen(
                [*command, "--config", config],
                cwd=directory,
                env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
                stdout=log,
                stderr=log,
            )
        self._given = environment
        self._watchdog = threading.Timer(120, self.popen.kill)
        self._watchdog.daemon = True
        self._watchdog.start()

    def text(self) -> str:
        """What it has logged."""
        return self.log.read_text(errors="replace")

    def process(self) -> dict[str, bytes]:
        """What others can see of the process: its arguments; and of its environment what it was not given."""
        place = Path(f"/proc/{self.popen.pid}")
        given = {name.encode() for name in self._given}
        variables = (place / "environ").read_bytes().split(b"\0")
        own = [each for each in variables if each.partition(b"=")[0] not in given]
        return {"arguments": (place / "cmdline").read_bytes(), "environment": b"\0".join(own)}

    def kill(self) -> None:
        """End it, if it runs."""
        self._watchdog.cancel()
        self.popen.kill()
        self.popen.wait()
