"""The torture can fail: each kind of wrong store is told as what it is, and a service that breaks its word is found."""

import contextlib
import gzip
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest

from axcollector.core.layout import tenant_directory
from axcollector.stores.signed import tenant_parameter
from benchmarks.torture import main
from benchmarks.torture_clients import TENANTS
from benchmarks.torture_ledger import Ledger, Sent, Stored, Tenant, reconcile, record
from benchmarks.torture_rounds import End, plan
from benchmarks.torture_run import Torture, summary
from benchmarks.torture_service import CHECKOUT
from benchmarks.torture_store import TOKEN, Store

SERVING = 6854
"""A seed with which the first rounds are killed while they serve."""
ACME = ("acme", "prod")
OTHER = ("a~b", "c%")
LEDGER = Ledger(
    [
        [Sent(ACME, 3, 8, acknowledged=True), Sent(OTHER, 1, 8, acknowledged=True)],
        [Sent(ACME, 2, 8), Sent(OTHER, 2, 8)],
    ]
)
"""Batches 0.0 (acme, 3 records) and 0.1 (other, 1) were acknowledged, 1.0 (acme, 2) and 1.1 (other, 2) were not."""


def line(name: str, **changes: Any) -> bytes:
    """The line of a record, as the service writes it."""
    client, number, index = map(int, name.split("."))
    sent = LEDGER.clients[client][number]
    organization, environment = sent.tenant
    content = record(client, number, index, sent) | {"organization": organization, "environment": environment}
    return json.dumps(content | changes).encode() + b"\n"


def stored(tenant: Tenant, *lines: bytes, key: str = "k") -> Stored:
    """An object of the store."""
    return Stored(tenant, key, gzip.compress(b"".join(lines)))


WHOLE = stored(ACME, line("0.0.0"), line("0.0.1"), line("0.0.2"))
SINGLE = stored(OTHER, line("0.1.0"))


def found(*objects: Stored) -> Mapping[str, int]:
    """What is wrong with a store of these objects; what was counted has an example."""
    findings = reconcile(LEDGER, objects)
    assert findings.counts.keys() == findings.examples.keys()
    return findings.counts


def test_all_is_well() -> None:
    """What was acknowledged is there once; what was not is there whole, or not at all."""
    members = Stored(ACME, "m", gzip.compress(line("1.0.0")) + gzip.compress(line("1.0.1")))
    assert found(WHOLE, SINGLE) == {}
    assert found(WHOLE, SINGLE, members) == {}


def test_lost() -> None:
    """Acknowledged and nowhere."""
    assert found(WHOLE) == {"lost": 1}
    assert found() == {"lost": 2}


def test_doubled() -> None:
    """Under two keys, or twice in one object, acknowledged or not."""
    unacknowledged = (line("1.0.0"), line("1.0.1"))
    assert found(WHOLE, SINGLE, stored(OTHER, line("0.1.0"), key="other")) == {"doubled": 1}
    assert found(WHOLE, stored(OTHER, line("0.1.0"), line("0.1.0"))) == {"doubled": 1}
    assert found(WHOLE, SINGLE, stored(ACME, *unacknowledged * 2, key="other")) == {"doubled": 1}


def test_half() -> None:
    """A part is there, of a batch that was acknowledged or not; perhaps that part twice."""
    assert found(stored(ACME, line("0.0.0"), line("0.0.2")), SINGLE) == {"half": 1}
    assert found(WHOLE, SINGLE, stored(ACME, line("1.0.1"), key="other")) == {"half": 1}
    assert found(stored(ACME, line("0.0.0"), line("0.0.0"), line("0.0.1")), SINGLE) == {"half": 1, "doubled": 1}


def test_misplaced() -> None:
    """In another tenant's place; what is there twice, once in the right place, is doubled besides."""
    assert found(WHOLE, stored(ACME, line("0.1.0"), key="other")) == {"misplaced": 1}
    assert found(WHOLE, SINGLE, stored(ACME, line("0.1.0"), key="other")) == {"misplaced": 1, "doubled": 1}
    assert found(WHOLE, SINGLE, stored(("a", "b~c%"), line("1.1.0"), line("1.1.1"))) == {"misplaced": 2}


@pytest.mark.parametrize("torn", [b'{"id": "0.1.', b"[]\n", b'"0.1.0"\n', b"\n", b"\xff\n", line("0.1.0")[:-1]])
def test_torn(torn: bytes) -> None:
    """A line that is no JSON object, or that has no end."""
    assert found(WHOLE, SINGLE, stored(OTHER, torn, key="other")) == {"torn": 1}


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data + b"more", lambda data: b""])
def test_unreadable(damage: Any) -> None:
    """A file that gzip does not read whole; what is in it counts as not there."""
    assert found(WHOLE, Stored(OTHER, "k", damage(SINGLE.data))) == {"unreadable": 1, "lost": 1}


def test_a_flipped_bit_is_unreadable() -> None:
    """The checksum in a member covers its content."""
    data = bytearray(SINGLE.data)
    data[len(data) // 2] ^= 4
    assert found(WHOLE, Stored(OTHER, "k", bytes(data))) == {"unreadable": 1, "lost": 1}


@pytest.mark.parametrize("name", ["0.1.1", "0.2.0", "2.0.0", "0.1", "0.1.-1", "0.1.x", 7, None])
def test_never_sent(name: object) -> None:
    """A record under a name that was not given."""
    assert found(WHOLE, SINGLE, stored(OTHER, line("0.1.0", id=name), key="other")) == {"foreign": 1}


@pytest.mark.parametrize(
    "changes", [{"text": "00"}, {"organization": "acme"}, {"client_received_start_timestamp": 1}, {"more": 1}]
)
def test_altered(changes: Mapping[str, Any]) -> None:
    """A record that is not as it was sent, or was enriched for another tenant."""
    assert found(WHOLE, stored(OTHER, line("0.1.0", **changes))) == {"foreign": 1}


def test_a_seed_decides() -> None:
    """The same seed plans the same rounds, and a few hundred of them have all kinds of ends."""
    plans = [[plan(chance) for _ in range(300)] for chance in (random.Random(7), random.Random(7), random.Random(8))]
    assert plans[0] == plans[1] != plans[2]
    assert {each.end for each in plans[0]} == set(End)


def test_the_store_keeps_tenants_apart(tmp_path: Path) -> None:
    """It understands what the service calls the tenants, and tells a key put again from one put with other content."""
    store = Store(str(tmp_path / "objects"), random.Random(1))
    store.behave = True
    store.start()
    try:
        for tenant in TENANTS:
            name = quote(tenant_parameter(tenant_directory(*tenant)), safe="")
            query = f"tenant={name}&relative_file_path={quote('date=d/time=t/f', safe='')}"
            asked = Request(f"{store.url}/analytics?{query}", headers={"Authorization": f"Bearer {TOKEN}"})
            with urlopen(asked) as answer:
                url = json.loads(answer.read())["url"]
            for _ in range(2):
                urlopen(Request(url, repr(tenant).encode(), method="PUT")).close()
        expected = [Stored(tenant, "date=d/time=t/f", repr(tenant).encode()) for tenant in TENANTS]
        assert (list(store.objects()), store.changed, store.tally["kept again"]) == (expected, [], len(TENANTS))
        store.keep(ACME, "date=d/time=t/f", b"other")
        assert len(store.changed) == 1
    finally:
        store.stop()


@pytest.mark.parametrize(
    "arguments", [["--rounds", "0"], ["--rounds", "x"], ["--round-timeout", "0"], ["--json", "/nowhere/at/all"], ["-x"]]
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Ends with 2, and a line that says what is wrong."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_a_directory_with_something_in_it_is_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is there could be somebody's data."""
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended:
        main(["--directory", str(tmp_path)])
    assert ended.value.code == 2
    assert "is not an empty directory" in capsys.readouterr().err


def command(directory: Path, *options: str) -> Sequence[str]:
    """A run in this directory."""
    return [sys.executable, "-m", "benchmarks.torture", "--seed", "1", "--directory", str(directory), *options]


@pytest.mark.slow
def test_three_rounds(tmp_path: Path) -> None:
    """The service keeps its word, one line says so, and nothing is left of the run."""
    arguments = command(tmp_path / "run", "--rounds", "3", "--json", str(tmp_path / "figures.json"))
    done = subprocess.run(arguments, cwd=CHECKOUT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["rounds"], figures["acknowledged"] > 0) == (3, True)
    assert done.stdout == summary(figures) + "\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_three_rounds_and_a_thief(tmp_path: Path) -> None:
    """What is taken away between the rounds is missed."""

    def steal(done: int, acknowledged: int, seconds: float) -> None:
        for journal in (tmp_path / "data" / "ax" / "tmp").glob("*.journal"):
            journal.unlink()

    torture = Torture(str(tmp_path), rounds=3, seed=SERVING, clients=8, durability="fsync", timeout_seconds=60)
    torture.run(steal)
    results = torture.results()
    assert results["lost"] > 0, results
    assert (results["rounds"], results["failed"]) == (3, 0), results
    assert f": {results['lost']:,} lost, 0 doubled" in summary(results)


def processes_in(directory: Path) -> Sequence[int]:
    """The processes whose working directory that is, or was until it was deleted."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            if os.readlink(entry).removesuffix(" (deleted)") == str(directory):
                found.append(int(entry.parent.name))
    return found


@pytest.mark.slow
def test_interrupted(tmp_path: Path) -> None:
    """Ctrl-C leaves no service running, and no files."""
    run = tmp_path / "run"
    driver = subprocess.Popen(command(run, "--rounds", "20"), cwd=CHECKOUT, stderr=subprocess.PIPE, text=True)
    try:
        assert driver.stderr is not None
        assert driver.stderr.readline().startswith("round 1 of 20")
        while not processes_in(run):
            assert driver.poll() is None
        driver.send_signal(signal.SIGINT)
        assert (driver.wait(60), run.exists(), processes_in(run)) == (130, False, [])
    finally:
        driver.kill()
        driver.communicate()
