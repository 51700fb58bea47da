"""Quarantine with the service as a process of its own: killed, started again, and asked to take records once more."""

import gzip
import json
import random
from collections import Counter
from pathlib import Path
from signal import SIGKILL

import pytest

from axcollector.cli import main
from axcollector.core.layout import QUARANTINE
from axcollector.disk import Disk
from axcollector.quarantine_files import files_in
from tests.running import delivered_below, ids_of
from tests.test_process import Process, add_scope, processes

__all__ = ["processes"]
MODE = ("--invalid-records", "quarantine")
QUICK = ("--collection-interval", "1", "--close-grace", "0", "--upload-interval", "0.1")


@pytest.fixture
def scope(tmp_path: Path) -> str:
    """A scope in the registry."""
    (tmp_path / "axcollector-data").mkdir(mode=0o700)
    return add_scope(tmp_path)


def batch(good: list[int], bad: list[int]) -> bytes:
    """A body of these records, by their ids."""
    records = [{"id": i, "client_received_start_timestamp": 1} for i in good] + [{"id": i} for i in bad]
    return json.dumps({"records": records}).encode()


def quarantined(root: Path) -> Counter[int]:
    """How often each record is in quarantine."""
    directory = str(root / "axcollector-data" / "ax" / QUARANTINE)
    return Counter(json.loads(bytes(e.record))["id"] for f in files_in(Disk(), directory) for _, _, e in f.lines())


def test_killed_and_restarted(tmp_path: Path, scope: str, processes: list[Process]) -> None:
    """What was acknowledged before each kill -9, good or bad, is where it belongs, once."""
    for run in range(3):
        processes.append(Process(tmp_path, *MODE, "--collection-interval", "3600").started())
        for i in range(4):
            first = 100 * run + 10 * i
            answer = processes[-1].post(f"/analytics/{scope}", batch([first, first + 1], [first + 2]))
            assert answer == (200, {"accepted": 2, "rejected": 0, "quarantined": 1})
        answer = processes[-1].post(f"/analytics/{scope}", batch([], [100 * run + 50]))
        assert answer == (200, {"accepted": 0, "rejected": 0, "quarantined": 1})
        answer = processes[-1].post(f"/analytics/{scope}", batch([100 * run + 60], []))
        assert answer == (200, {"accepted": 1, "rejected": 0, "quarantined": 0})
        processes[-1].end(SIGKILL)
    processes.append(Process(tmp_path, "--upload-interval", "0.1").started())  # the mode may have changed since
    store = tmp_path / "axcollector-data" / "store"
    while sum(map(len, delivered_below(store).values())) < 27:
        processes[-1].wait_for("delivered")
    good = [100 * r + 10 * i + k for r in range(3) for i in range(4) for k in (0, 1)] + [60, 160, 260]
    bad = [100 * r + 10 * i + 2 for r in range(3) for i in range(4)] + [50, 150, 250]
    assert ids_of(delivered_below(store)["acme~prod"]) == dict.fromkeys(good, 1)
    answer = processes[-1].post(f"/analytics/{scope}", batch([1], [2]))
    assert answer[0] == 400
    _, log = processes[-1].end()
    assert "Traceback" not in log
    assert quarantined(tmp_path) == dict.fromkeys(bad, 1)


def test_retry(
    tmp_path: Path,
    scope: str,
    processes: list[Process],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Records that were too old are taken when the rule is gone; one that breaks another rule stays."""
    processes.append(Process(tmp_path, *MODE, *QUICK, "--max-record-age", "60").started())
    answer = processes[-1].post(f"/analytics/{scope}", batch([1, 2, 3], [4]))
    assert answer == (200, {"accepted": 0, "rejected": 0, "quarantined": 4})
    processes[-1].wait_for("go to quarantine")
    processes[-1].end()
    assert quarantined(tmp_path) == dict.fromkeys([1, 2, 3, 4], 1)
    processes.append(Process(tmp_path, *MODE, *QUICK).started())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_status:
        main(["quarantine", "retry", "--all", "--url", f"http://127.0.0.1:{processes[-1].port}"])
    assert exit_status.value.code == 1
    assert capsys.readouterr().out == "accepted 3\nquarantined 0\nstayed 1\n"
    store = tmp_path / "axcollector-data" / "store"
    while sum(map(len, delivered_below(store).values())) < 3:
        processes[-1].wait_for("delivered")
    processes[-1].end()
    assert ids_of(delivered_below(store)["acme~prod"]) == dict.fromkeys([1, 2, 3], 1)
    assert quarantined(tmp_path) == {4: 1}


def test_retry_of_large_records(
    tmp_path: Path,
    scope: str,
    processes: list[Process],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One that could only be sent gzip'd is sent so again; one that is too large in any case holds up no other."""
    processes.append(Process(tmp_path, *MODE, *QUICK, "--max-record-age", "60").started())
    letters = random.Random(1)
    for number, text in enumerate(("a" * (24 << 20), letters.randbytes(4 << 20).hex(), "small")):
        record = {"id": number, "text": text, "client_received_start_timestamp": 1}
        body = gzip.compress(json.dumps({"records": [record]}).encode(), 1)
        assert processes[-1].post(f"/analytics/{scope}", body, Content_Encoding="gzip")[0] == 200
        processes[-1].wait_for("go to quarantine")
    processes[-1].end()
    processes.append(Process(tmp_path, *MODE, *QUICK, "--max-body-bytes", str(1 << 20)).started())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_status:
        main(["quarantine", "retry", "--all", "--url", f"http://127.0.0.1:{processes[-1].port}"])
    assert exit_status.value.code == 1
    assert capsys.readouterr().out == "accepted 2\nquarantined 0\nstayed 1\n"
    processes[-1].end()
    assert quarantined(tmp_path) == {1: 1}


def test_retry_with_tokens(
    tmp_path: Path,
    scope: str,
    processes: list[Process],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A collector that wants tokens is asked with one, and takes nothing without."""
    processes.append(Process(tmp_path, *MODE, *QUICK, "--max-record-age", "60").started())
    assert processes[-1].post(f"/analytics/{scope}", batch([1, 2], []))[0] == 200
    processes[-1].end()
    monkeypatch.chdir(tmp_path)
    main(["token", "new", scope])
    (tmp_path / "token").write_text(capsys.readouterr().out)
    processes.append(Process(tmp_path, *MODE, *QUICK, "--ingest-auth", "token").started())
    retry = ["quarantine", "retry", "--all", "--url", f"http://127.0.0.1:{processes[-1].port}"]
    with pytest.raises(SystemExit):
        main(retry)
    out, err = capsys.readouterr()
    assert out == "accepted 0\nquarantined 0\nstayed 0\n"
    assert "the collector wants a token (401 UNAUTHORIZED: " in err
    assert quarantined(tmp_path) == {1: 1, 2: 1}
    main([*retry, "--token-file", "token"])
    assert capsys.readouterr().out == "accepted 2\nquarantined 0\nstayed 0\n"
    processes[-1].end()
    assert quarantined(tmp_path) == {}
