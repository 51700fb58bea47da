"""The fuzz targets: a bounded run of each, and that they find what is wrong."""

import gzip
import importlib.util
import json
from pathlib import Path

import pytest

from benchmarks import fuzz
from benchmarks.fuzzing import bodies, changes, coded, names, torn
from benchmarks.fuzzing.loop import Mutations, Report, run
from benchmarks.fuzzing.target import Target
from benchmarks.fuzzing.targets import TARGETS

OUTCOMES = {
    "payload": [
        *("accepted", "Not a valid JSON payload", "fast", "careful", "in one pass"),
        *("Missing Required field", "No analytics"),
    ],
    "gzip": ["unpacked, some text", "no gzip", "too large"],
    "salvage": ["0 bits of frames", "3 bits of frames", "2 of lines", "1 dropped"],
    "names": ["a tenant", "a tenant that does not fit", "a journal", "a bucket", "a reference's bucket", "a copy"],
    "changes": ["no page", "unusable", "usable", "a snapshot of 2 bits of rows", "bits of usable changes told"],
}
"""Parts of what each target says: a run that reaches none of them proves little."""


def fail(name: str, data: bytes, why: str) -> str:
    """A crash is a failure, with its input."""
    message = f"{name}: {data!r}\n{why}"
    raise AssertionError(message)


@pytest.mark.parametrize("name", TARGETS)
def test_bounded_runs(name: str) -> None:
    """Some hundred mutations of each target's seeds break nothing, and reach what is to be reached."""
    executions = 150 if name == "salvage" else 400  # each of its inputs costs ten times those of others
    report = run(TARGETS[name], executions=executions, seed=2026, save=fail)
    assert report.executions == executions
    seen = "\n".join(report.outcomes)
    assert [part for part in OUTCOMES[name] if part not in seen] == []


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_what_they_should_be(name: str) -> None:
    """Each seed is within the target's length, and the same seed makes the same inputs."""
    target = TARGETS[name]
    assert [seed for seed in target.seeds if len(seed) > target.longest_bytes] == []
    one, other = (iter(Mutations(target, 5)) for _ in range(2))
    assert [next(one) for _ in range(300)] == [next(other) for _ in range(300)]


def refuse_zeros(data: bytes) -> str:
    """A target that one byte breaks."""
    if b"\0" in data:
        raise ValueError("a zero")
    return "fine"


BROKEN = Target("broken", refuse_zeros, seeds=(b"abc",), words=(b"\0",))


def test_a_crash_is_kept_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The input lies in a file, the path is printed, the exit status is 1, and the file breaks it again."""
    keep, figures = tmp_path / "kept", tmp_path / "figures.json"
    arguments = ["--target", "broken", "--engine", "mutations", "--keep", str(keep), "--json", str(figures)]
    assert fuzz.main([*arguments, "--runs", "1000"], {"broken": BROKEN}) == 1
    (path,) = keep.iterdir()
    said = capsys.readouterr().out
    assert f"kept in {path}" in said
    assert "ValueError: a zero" in said
    assert json.loads(figures.read_text())[0]["crashes"] == [str(path)]
    with pytest.raises(ValueError, match="a zero"):
        fuzz.main(["--replay", str(path), "--target", "broken"], {"broken": BROKEN})


def test_a_run_without_crash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says how much was run, keeps nothing, and exits with 0."""
    keep = tmp_path / "kept"
    assert fuzz.main(["--target", "names", "--engine", "mutations", "--runs", "50", "--keep", str(keep)]) == 0
    assert "names: 50 executions" in capsys.readouterr().out
    assert not keep.exists()
    input_ = tmp_path / "input"
    input_.write_bytes(b"acme\0prod")
    assert fuzz.main(["--replay", str(input_), "--target", "names"]) == 0


@pytest.mark.parametrize(
    "arguments", [["--seconds", "0"], ["--replay", "x"], ["--target", "nothing"], ["--engine", "nothing"]]
)
def test_bad_options(arguments: list[str]) -> None:
    """What makes no sense is said, and nothing run."""
    with pytest.raises(SystemExit) as end:
        fuzz.main(arguments)
    assert end.value.code == 2


def test_under_atheris(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same targets, where it is installed; elsewhere it is said what to install."""
    arguments = ["--target", "names", "--engine", "atheris", "--runs", "200", "--keep", str(tmp_path / "kept")]
    if importlib.util.find_spec("atheris") is None:
        with pytest.raises(SystemExit):
            fuzz.main(arguments)
        assert "axcollector[fuzz]" in capsys.readouterr().err
        return
    assert fuzz.main(arguments) == 0
    assert "names: 200 executions in" in capsys.readouterr().out


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    """A line now and then, not one an input."""
    progress = fuzz.Progress()
    progress(Report("x", "y"))
    assert capsys.readouterr().out == ""
    progress._next = 0.0
    progress("now")
    progress("not yet")
    assert capsys.readouterr().out == "now\n"


def test_oracles_know_the_difference() -> None:
    """Each oracle says what it should of plain cases, so that agreeing with it means something."""
    assert coded.expected(gzip.compress(b"x")) == b"x"
    assert coded.expected(gzip.compress(b"x")[:-1]) == {coded.BAD}
    assert coded.expected(gzip.compress(bytes(20_001))) == {coded.TOO_LARGE}
    assert coded.expected(b'{"type":"Buffer","data":[256]}') == {coded.BAD}
    frames = torn._journal(3)
    assert [sequence for sequence, *_ in torn._journal_oracle(frames[:-1])] == [0, 1]
    assert torn._gzip_oracle(torn._flushed((b"{}\n", b'{"a":')), 99) == (b"{}\n", 0)
    assert torn._gzip_oracle(gzip.compress(b"{}\n[]\n{}")[:-1], 99) == (b"{}\n", 1)
    assert changes._told(b'[[1, "kms.api_product", {"tenant_id": "t", "id": "9", "name": "n"}, null]]').endswith(
        "usable changes told"
    )
    assert names.check(b"a\0b") == "a tenant"
    assert "accepted" in bodies.check_body(bodies.PAYLOAD.seeds[0])
