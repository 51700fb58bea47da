"""A very large file, in a process of its own whose memory is measured."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SIZE = 2 * 1024**3
MAX_MEGABYTES = 60


@pytest.fixture
def sink() -> Iterator[str]:
    """A signing service and a store that keeps nothing, in a process of its own; its URL."""
    command = [sys.executable, "-m", "benchmarks.sink"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.stdin.close()


@pytest.mark.slow
def test_two_gigabytes_in_constant_memory(tmp_path: Path, sink: str) -> None:
    """A file of 2 GiB is uploaded with at most 60 MB more than a small one takes."""
    small, large = tmp_path / "small.txt.gz", tmp_path / "large.txt.gz"
    small.write_bytes(b"x" * 1000)
    with large.open("wb") as file:
        file.truncate(SIZE)  # sparse
    command = [sys.executable, "-m", "tests.large_upload", str(small), str(large), sink]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    assert 0 <= float(run.stdout) <= MAX_MEGABYTES, run.stdout
