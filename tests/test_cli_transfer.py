"""`axcollector import` and `export`: whole or not at all, lossless, and clear about what is wrong."""

import contextlib
import gzip
import json
import os
import pty
import re
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axcollector.cli.interrupts import Interrupted, Interrupts
from axcollector.cli.transfer_files import MAX_LINE_BYTES, target
from axcollector.core.catalog import Catalog
from axcollector.core.model import DeveloperInfo
from axcollector.core.rowtext import text_of
from axcollector.core.tables import COLUMNS, KEYS, Row, Values, short_name
from axcollector.registry import Registry
from tests.effort import either
from tests.test_catalog import everything_of, some_rows
from tests.test_cli_registry import run
from tests.test_registry import FOREIGN, AsCatalog, execute, nullable
from tests.test_rowtext import rows as any_row

Capture = pytest.CaptureFixture[str]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
SCRIPT = "from axcollector.cli import main; main()"
APP = b'{"table":"app","tenant_id":"t","id":"a","name":"weather"}\n'
PACKED = gzip.compress(APP, mtime=0)
DOCUMENTATION = Path(__file__).parent.parent / "docs" / "cli.rst"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """An empty current directory with a registry.db, which has an app of another name and a product."""
    with contextlib.chdir(tmp_path):
        Path("first.jsonl").write_bytes(
            APP.replace(b"weather", b"old") + b'{"table":"api_product","tenant_id":"t","id":"p"}\n'
        )
        assert run("import", "first.jsonl", "-r", "registry.db") == 0
        os.unlink("first.jsonl")
        yield tmp_path


def content(path: str = "registry.db") -> list[str]:
    """All that is in a database."""
    connection = sqlite3.connect(path)
    statements = list(connection.iterdump())
    connection.close()
    return statements


def process(*words: str, **settings: object) -> "subprocess.CompletedProcess[bytes]":
    """The command as a process of its own."""
    command = [sys.executable, "-W", "error", "-c", SCRIPT, *words]
    return subprocess.run(command, capture_output=True, check=False, env=ENVIRONMENT, **settings)  # type: ignore[call-overload, no-any-return]


def canonical(rows: Sequence[tuple[str, Values]]) -> bytes:
    """What an export of these rows is: of those with the same key, the last."""
    by_key = {(table, row[: len(KEYS[table])]): row for table, row in rows}
    order = list(COLUMNS)
    in_order = sorted(by_key.items(), key=lambda each: (order.index(each[0][0]), [str(t).encode() for t in each[0][1]]))
    return b"".join(text_of(table, [row]) for (table, _), row in in_order)


@settings(max_examples=either(40, 15))
@given(st.lists(any_row, max_size=20))
def test_what_is_imported_is_exported(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, Values]]) -> None:
    """An export of imported rows is these rows in order, byte by byte; whichever order they came in."""
    with contextlib.chdir(tmp_path_factory.mktemp("transfer")):
        Path("in").write_bytes(b"".join(text_of(table, [row]) for table, row in rows))
        assert run("import", "in", "-r", "registry.db") == 0
        assert run("export", "out", "-r", "registry.db") == 0
        assert Path("out").read_bytes() == canonical(rows)
        assert run("import", "out", "-r", "registry.db", "--replace") == 0
        assert run("export", "again", "-r", "registry.db") == 0
        assert Path("again").read_bytes() == canonical(rows)


@settings(max_examples=either(40, 15))
@given(some_rows)
def test_an_exported_registry_answers_alike(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, Row]]
) -> None:
    """Whatever is in a registry, foreign ones with rows of no use too, an import of its export answers the same."""
    with contextlib.chdir(tmp_path_factory.mktemp("transfer")):
        nullable(Path("foreign.db"))
        connection = sqlite3.connect("foreign.db")
        for table, row in rows:
            marks = ", ".join("?" * len(row))
            into = f"INSERT OR REPLACE INTO {short_name(table)} ({', '.join(row)}) VALUES ({marks})"
            connection.execute(into, tuple(row.values()))
        connection.commit()
        connection.close()
        assert run("export", "out", "-r", "foreign.db") == 0
        assert run("import", "out", "-r", "registry.db") == 0
        answers: list[list[object]] = []
        for path in ("foreign.db", "registry.db"):
            with Registry.open(path) as registry:
                answers.append(everything_of(AsCatalog(registry)))
        assert answers[0] == answers[1]


@settings(max_examples=either(40, 15))
@given(st.lists(any_row, max_size=5), st.binary(min_size=1).filter(lambda line: line.strip()), st.booleans())
def test_a_line_that_is_no_row_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, Values]], line: bytes, replace: bool
) -> None:
    """Whatever else is in the file: it is refused with the line's number, and the registry is as it was."""
    with contextlib.chdir(tmp_path_factory.mktemp("transfer")):
        Path("good").write_bytes(APP)
        assert run("import", "good", "-r", "registry.db") == 0
        before = content()
        line = b"!" + line.replace(b"\n", b"")
        Path("bad").write_bytes(b"".join(text_of(table, [row]) for table, row in rows) + line + b"\n" + APP)
        done = run("import", "bad", "-r", "registry.db", *(["--replace"] if replace else []))
        assert (done, content()) == (1, before)


def test_counts_are_said(here: Path, capsys: Capture) -> None:
    """How many rows of each table goes to stderr, and with --json to stdout as an object."""
    Path("in.jsonl").write_bytes(b"\n" + APP + b" \r\n" + APP.replace(b'"a"', b'"b"').removesuffix(b"\n"))
    assert run("import", "in.jsonl", "-r", "registry.db", "--json") == 0
    out, err = capsys.readouterr()
    nothing = {short_name(table): 0 for table in COLUMNS}
    assert json.loads(out) == {**nothing, "app": 2}
    assert err.splitlines()[-1] == "imported into registry.db: 2 of app"
    assert run("export", "out.jsonl", "-r", "registry.db", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {**nothing, "app": 2, "api_product": 1}
    assert err == "exported from registry.db: 1 of api_product, 2 of app\n"
    Path("empty").touch()
    assert run("import", "empty", "-r", "new.db", "--replace") == 0
    assert capsys.readouterr() == ("", "imported into new.db: no rows\n")


def test_rows_are_put_or_the_registry_replaced(here: Path, capsys: Capture) -> None:
    """Without --replace other rows stay; with it the registry holds what the file does."""
    Path("in.jsonl").write_bytes(APP)
    product = b'{"table":"api_product","tenant_id":"t","id":"p"}\n'
    for words, expected in (((), product + APP), (("--replace",), APP)):
        assert run("import", "in.jsonl", "-r", "registry.db", *words) == 0
        assert run("export", "out.jsonl", "-r", "registry.db") == 0
        assert Path("out.jsonl").read_bytes() == expected


def test_the_exported_file(here: Path, capsys: Capture) -> None:
    """It is its owner's only, replaces what a link leads to, and nothing else is left in the directory."""
    Path("real.jsonl").write_text("old")
    os.symlink("real.jsonl", "link.jsonl")
    assert run("export", "link.jsonl", "-r", "registry.db") == 0
    assert os.path.islink("link.jsonl")
    assert Path("real.jsonl").read_bytes().count(b"\n") == 2
    assert stat.S_IMODE(os.stat("real.jsonl").st_mode) == 0o600
    assert sorted(os.listdir()) == ["link.jsonl", "real.jsonl", "registry.db"]


def test_the_registry_is_no_target(here: Path, capsys: Capture) -> None:
    """Who takes FILE for what is exported does not lose the registry, by whatever name he calls it."""
    before = Path("registry.db").read_bytes()
    os.symlink("registry.db", "link.db")
    for name in ("registry.db", "link.db", "./registry.db"):
        assert run("export", name, "-r", "registry.db") == 1
        assert f"{name} is the registry itself; nothing was exported" in capsys.readouterr().err
    assert before == Path("registry.db").read_bytes()


def test_gzip(here: Path, capsys: Capture) -> None:
    """A name in .gz means gzip both ways, of several members too; equal registries are equal files."""
    for name in ("one.gz", "two.gz", "plain"):
        assert run("export", name, "-r", "registry.db") == 0
    assert Path("one.gz").read_bytes() == Path("two.gz").read_bytes()
    assert gzip.decompress(Path("one.gz").read_bytes()) == Path("plain").read_bytes()
    Path("both.gz").write_bytes(PACKED + gzip.compress(APP.replace(b'"a"', b'"b"')))
    assert run("import", "both.gz", "-r", "registry.db") == 0
    assert capsys.readouterr().err.splitlines()[-1] == "imported into registry.db: 2 of app"


def test_foreign_registries_are_exported(tmp_path: Path, capsys: Capture) -> None:
    """A file of others is exported with what it has; rows that nobody could find are left out, and that is said."""
    with contextlib.chdir(tmp_path):
        execute(Path("foreign.db"), FOREIGN + "INSERT INTO APP VALUES (NULL, 't', 'n', 'd'), ('', 't', 'n', 'd');")
        assert run("export", "out", "-r", "foreign.db") == 0
        err = capsys.readouterr().err
        assert 'left out 2 rows that nobody could find; of the first, it has no "id"; a row of app needs' in err
        assert run("import", "out", "-r", "registry.db") == 0
        with Registry.open("registry.db") as registry:
            info = DeveloperInfo("testproduct", "testapp", "testdeveloper@test.com", "testdeveloper")
            assert registry.developers("tenantid", ["testapikey"]) == {"testapikey": info}


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("in", APP + b'\n{"table":"app"}\n', 'in, line 3: it has no "tenant_id", "id"; a row of app needs'),
        ("in", APP + b"x" * (2 * MAX_LINE_BYTES + 1), f"in, line 2: is longer than {MAX_LINE_BYTES} bytes;"),
        ("in.gz", APP, "in.gz is no gzip file, or a damaged one: Not a gzipped file"),
        ("in.gz", PACKED[:-9], "in.gz is cut off: its gzip stream has no end;"),
        ("in.gz", PACKED[:10] + b"\xff" * 40, "in.gz is no gzip file, or a damaged one: "),
        ("in.gz", PACKED + b"rest", "in.gz is no gzip file, or a damaged one: Not a gzipped file"),
        ("missing", None, "missing cannot be read: No such file or directory;"),
        (".", None, ". cannot be read: Is a directory;"),
    ],
)
def test_what_cannot_be_imported(here: Path, capsys: Capture, name: str, data: bytes | None, problem: str) -> None:
    """The file, the line and the reason are said in one line, and the registry is as it was."""
    if data is not None:
        Path(name).write_bytes(data)
    before = content()
    capsys.readouterr()
    assert run("import", name, "-r", "registry.db", "--replace") == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"axcollector: {problem}")
    assert err.endswith("; nothing was imported\n")
    assert content() == before


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("/dev/full", "/dev/full cannot be written: No space left on device"),
        (".", ". cannot be written: Is a directory"),
        ("missing/out", "missing/out cannot be written: No such file or directory"),
        ("registry.db/out", "registry.db/out cannot be written: Not a directory"),
    ],
)
def test_what_cannot_be_exported(here: Path, capsys: Capture, name: str, problem: str) -> None:
    """The file and the reason are said in one line, and nothing is left behind."""
    capsys.readouterr()
    assert run("export", name, "-r", "registry.db") == 1
    assert capsys.readouterr() == ("", f"axcollector: {problem}\n")
    assert os.listdir() == ["registry.db"]


def test_registries_that_cannot_be_used(here: Path, capsys: Capture) -> None:
    """Garbage, and no registry at all: one line each, and what to do."""
    Path("in").write_bytes(APP)
    Path("garbage.db").write_bytes(b"garbage" * 100)
    for words, problem in (
        (("import", "in", "-r", "garbage.db"), "the registry garbage.db cannot be used: file is not a database"),
        (("export", "out", "-r", "garbage.db"), "the registry garbage.db cannot be used: file is not a database"),
        (("export", "out", "-r", "missing.db"), "there is no registry missing.db; name it with --registry or"),
    ):
        capsys.readouterr()
        assert run(*words) == 1
        err = capsys.readouterr().err
        assert err.startswith(f"axcollector: {problem}")
        assert err.count("\n") == 1
    assert sorted(os.listdir()) == ["garbage.db", "in", "registry.db"]


def test_wrong_calls(here: Path, capsys: Capture) -> None:
    """Standard output cannot be the rows and the report."""
    capsys.readouterr()
    assert run("export", "-", "--json") == 2
    assert "--json: stdout holds the rows already" in capsys.readouterr().err
    assert run("import") == 2
    assert capsys.readouterr().err == "axcollector: missing: FILE; see `axcollector import --help`\n"


def test_standard_input_and_output(here: Path) -> None:
    """`-` is a pipe from or to others, or a file that the shell has opened."""
    done = process("export", "-", "-r", "registry.db")
    assert (done.returncode, done.stdout.count(b"\n")) == (0, 2)
    piped = process("import", "-", "-r", "two.db", input=done.stdout)
    assert piped.stderr == b"imported into two.db: 1 of api_product, 1 of app\n"
    Path("in").write_bytes(done.stdout)
    with open("in", "rb") as file:
        assert process("import", "-", "-r", "three.db", stdin=file).returncode == 0
    outputs = [process("export", "-", "-r", name).stdout for name in ("two.db", "three.db")]
    assert outputs == [done.stdout] * 2
    bad = process("import", "-", "-r", "two.db", input=b"x")
    assert bad.stderr.startswith(b"axcollector: standard input, line 1: it is not JSON")


def test_a_reader_that_goes_away(here: Path) -> None:
    """An export that nobody reads to its end says nothing, and fails."""
    Path("many").write_bytes(b"".join(APP.replace(b'"a"', f'"{at}"'.encode()) for at in range(5000)))
    assert run("import", "many", "-r", "registry.db") == 0
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", SCRIPT, "export", "-", "-r", "registry.db"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False, env=ENVIRONMENT)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("words", ["export -", "scope list", "import rows --json"])
def test_closed_outputs(here: Path, words: str) -> None:
    """Where the shell has closed standard output, that is one line; standard error may be closed too."""
    Path("rows").write_bytes(APP)
    call = f"{sys.executable} -W error -c '{SCRIPT}' {words} -r registry.db"
    done = subprocess.run(["bash", "-c", f"{call} >&-"], capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert done.returncode == 1
    assert re.fullmatch(r"axcollector: .*standard output.*", done.stderr.splitlines()[-1])
    assert "Traceback" not in done.stderr
    assert (
        subprocess.run(["bash", "-c", f"{call} 2>&-"], capture_output=True, check=False, env=ENVIRONMENT).returncode
        == 0
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_import(here: Path, number: signal.Signals) -> None:
    """Ctrl-C in the midst of it leaves one line, the status that shells know, and the registry as it was."""
    before = content()
    command = [sys.executable, "-c", SCRIPT, "import", "fifo", "-r", "registry.db", "--replace"]
    os.mkfifo("fifo")
    importing = subprocess.Popen(command, stderr=subprocess.PIPE, env=ENVIRONMENT)
    with open("fifo", "wb", buffering=0) as fifo:  # waits until the other end is open
        # What does not fit into the pipe has been read when this returns, so the import is under way.
        fifo.write(APP * 10_000)
        importing.send_signal(number)
        # A signal that comes just before a read begins is looked at when that read has got something.
        with contextlib.suppress(BrokenPipeError):
            fifo.writelines(APP for _ in range(100_000))
        _, err = importing.communicate()
    assert importing.returncode == 128 + number
    assert err == b"axcollector: interrupted; nothing was imported\n"
    assert content() == before


def test_an_interrupted_export(here: Path) -> None:
    """Ctrl-C in the midst of it leaves one line and the status that shells know."""
    Path("many").write_bytes(b"".join(APP.replace(b'"a"', f'"{at}"'.encode()) for at in range(5000)))
    assert run("import", "many", "-r", "registry.db") == 0
    os.mkfifo("fifo")
    command = [sys.executable, "-c", SCRIPT, "export", "fifo", "-r", "registry.db"]
    exporting = subprocess.Popen(command, stderr=subprocess.PIPE, env=ENVIRONMENT)
    with open("fifo", "rb", buffering=0) as fifo:
        assert len(fifo.read(1)) == 1  # the rest does not fit into the pipe, so the export is under way
        exporting.send_signal(signal.SIGINT)
        while fifo.read(1 << 16):  # a signal that comes just before a write begins is looked at behind it
            pass
        _, err = exporting.communicate()
    assert (exporting.returncode, err) == (130, b"axcollector: interrupted; nothing was exported\n")


def test_what_is_not_whole_is_removed(here: Path) -> None:
    """Whatever ends an export, the file is as it was, and nothing is left beside it."""
    Path("out").write_text("old")

    def write_a_part(name: str) -> None:
        with target(name) as file:
            file.write(APP)
            raise Interrupted(signal.SIGINT)

    for name in ("out", "new.gz"):
        with pytest.raises(Interrupted):
            write_a_part(name)
    assert Path("out").read_text() == "old"
    assert sorted(os.listdir()) == ["out", "registry.db"]


def test_signals_are_held_at_the_end() -> None:
    """A signal raises once, and never when the work is as good as done; afterwards it means what it did before."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with Interrupts() as interrupts:
            interrupts.hold()
            signal.raise_signal(signal.SIGTERM)
        with Interrupts():
            with pytest.raises(Interrupted) as raised:
                signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
    assert raised.value.number == signal.SIGTERM


def test_progress_on_a_terminal(here: Path) -> None:
    """On a terminal there is a bar over the file's bytes, or over the rows, before the last line."""
    Path("in").write_bytes(APP)
    for words, expected in (
        (("import", "in"), rf"read +\S+  {len(APP)} of {len(APP)} bytes"),
        (("export", "out"), r"written +\S+  2 of 2 rows"),
        (("import", "-"), rf"read +{len(APP)} bytes"),
    ):
        ours, theirs = pty.openpty()
        command = [sys.executable, "-c", SCRIPT, *words, "-r", "registry.db"]
        subprocess.run(command, stderr=theirs, input=APP, check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        os.close(theirs)
        shown = os.read(ours, 10_000).decode()
        os.close(ours)
        assert re.search(expected, shown)
        assert re.fullmatch(r"(imported|exported) .*", shown.splitlines()[-1])


def test_the_documented_example(tmp_path: Path, capsys: Capture) -> None:
    """The example in the documentation, copied as it stands, makes a registry that knows its key."""
    _, _, rest = DOCUMENTATION.read_text(encoding="utf-8").partition("   :caption: rows.jsonl\n\n")
    lines = [line[3:] for line in rest.partition("\n\n")[0].splitlines()]
    with contextlib.chdir(tmp_path):
        Path("rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        assert run("import", "rows.jsonl", "-r", "registry.db") == 0
        catalog = Catalog()
        with Registry.open("registry.db") as registry:
            for table in COLUMNS:
                for row in registry.rows(table):
                    catalog.put(table, row)
        tenant = catalog.tenant_of_scope("6f0c6f1e-9c0b-4b53-8f0e-0d0c35a1f7a2")
        assert tenant is not None
        assert (tenant.organization, tenant.environment) == ("acme", "prod")
        expected = DeveloperInfo("gold", "weather", "ada@example.com", "ada")
        assert catalog.developer(tenant.id, "a-key") == expected
        assert catalog.developer(tenant.id, "b-key") == DeveloperInfo("gold", "trains", "", "ACME")
