"""`rclone serve s3`: a store that verifies signatures as AWS does. `tests/setup_rclone.sh` brings the program."""

import os
import re
import subprocess
import threading
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "rclone" / "rclone"
ACCESS_KEY = "KEYID"
SECRET_KEY = "a secret key"
BUCKET = "bucket"


def need_rclone() -> None:
    """Skip the test where the program is missing; in CI fail it."""
    if not PROGRAM.exists():
        message = "rclone is missing: run tests/setup_rclone.sh"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)


class RcloneServer:
    """A server on a port that the system chose, with one bucket.

    Attributes:
        url: Where it is.
        bucket: The directory that is its bucket.
    """

    def __init__(self, directory: Path, *options: str) -> None:
        need_rclone()
        self.bucket = directory / BUCKET
        self.bucket.mkdir(parents=True)
        command = [str(PROGRAM), "serve", "s3", "--config", os.devnull, "--addr", "127.0.0.1:0"]
        self._process = subprocess.Popen(
            [*command, "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", *options, str(directory)],
            stderr=subprocess.PIPE,
            text=True,
        )
        self._watchdog = threading.Timer(120, self._process.kill)
        self._watchdog.daemon = True
        self._watchdog.start()
        self.url = self._address()

    def _address(self) -> str:
        assert self._process.stderr is not None
        lines = []
        for line in self._process.stderr:
            lines.append(line)
            if match := re.search(r"Starting s3 server on \[(https?://[0-9.:]+)/\]", line):
                return match[1]
        raise AssertionError("".join(lines))

    def objects(self) -> dict[str, bytes]:
        """What was put, by key."""
        files = [path for path in self.bucket.rglob("*") if path.is_file()]
        return {str(path.relative_to(self.bucket)): path.read_bytes() for path in files}

    def close(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.communicate(timeout=30)
        self._watchdog.cancel()
