"""The page on the public API: its examples run, in order, and say what they are said to; so do those on deprecation."""

import doctest
import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import greenlet
import pytest
import pytest_twisted
from twisted.internet import defer, reactor, task
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Site

from axcollector import api
from axcollector.registry import Registry
from tests.deprecations import assert_deprecated
from tests.docs_blocks import DOCS, blocks


def own_store() -> Any:
    """The store in `docs/examples`."""
    spec = importlib.util.spec_from_file_location("own_store", DOCS / "examples" / "own_store.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["own_store"] = module
    spec.loader.exec_module(module)
    return module


def wait(deferred: "defer.Deferred[object]") -> object:
    """What a Deferred fires with; the reactor goes on turning meanwhile. Only within `waiting`."""
    current = greenlet.getcurrent()
    outcomes: list[object] = []

    def settle(outcome: object) -> None:
        outcomes.append(outcome)
        if greenlet.getcurrent() is not current:
            current.switch()

    deferred.addBoth(settle)
    if not outcomes:
        current.parent.switch()
    if isinstance(outcomes[0], Failure):
        outcomes[0].raiseException()
    return outcomes[0]


async def waiting(function: Callable[[], object]) -> object:
    """Call a function that may `wait`: what it returns."""
    await task.deferLater(reactor, 0)  # from here on this is the reactor's greenlet
    result: defer.Deferred[object] = defer.Deferred()

    def run() -> None:
        outcome = defer.maybeDeferred(function)
        reactor.callLater(0, outcome.chainDeferred, result)  # not from here: this greenlet ends

    greenlet.greenlet(run).switch()
    return await result


class World:
    """What the examples take for granted."""

    def __init__(self, root: Path) -> None:
        self.directory = str(root / "data")
        self.root = root
        self.reactor = reactor
        self.ports: list[Any] = []

    def wait_until(self, condition: Callable[[], object]) -> None:
        for _ in range(3000):
            if condition():
                return
            wait(task.deferLater(reactor, 0.02))
        raise AssertionError("not so after a minute")

    def new_scope(self, organization: str, environment: str) -> str:
        with Registry.open(f"{self.directory}/registry.db") as registry:
            scope = registry.add_scope(organization, environment).id
        self.wait_until(lambda: self.names["collector"].sync.catalog.tenant_of_scope(scope))
        return scope

    def registry_of(self, organization: str, environment: str) -> str:
        path = str(self.root / "given.db")
        with Registry.create(path) as registry:
            registry.add_scope(organization, environment)
        return path

    def serve(self, resource: Resource) -> str:
        self.ports.append(reactor.listenTCP(0, Site(resource), interface="127.0.0.1"))
        return f"http://127.0.0.1:{self.ports[-1].getHost().port}"

    def begin(self) -> dict[str, Any]:
        """The names that examples begin with."""
        given = ("directory", "reactor", "wait_until", "new_scope", "registry_of", "serve")
        self.names: dict[str, Any] = {"wait": wait, **{name: getattr(self, name) for name in given}}
        return self.names


@pytest_twisted.ensureDeferred
async def test_examples(tmp_path: Path) -> None:
    """Each says what is printed below it; all names of the page are of the API, and all of the API are on the page."""
    own_store()
    world = World(tmp_path)
    text = "\n".join(block.text for block in blocks("api.rst", "pycon"))
    found = doctest.DocTestParser().get_doctest(text, world.begin(), "api.rst", "api.rst", 0)
    world.names = found.globs
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    told: list[str] = []
    await waiting(lambda: runner.run(found, out=told.append, clear_globs=False))
    assert "".join(told) == ""
    for port in world.ports:
        await defer.maybeDeferred(port.stopListening)
    del sys.modules["own_store"]
    page = (DOCS / "api.rst").read_text()
    assert [name for name in api.__all__ if not re.search(rf"\b{name}\b", page)] == []


@pytest_twisted.ensureDeferred
async def test_a_store_of_ones_own(tmp_path: Path) -> None:
    """It delivers whole files, and fails in each of the ways that a store may."""
    root, file = tmp_path / "archive", tmp_path / "file"
    file.write_bytes(b"x" * 100)
    store = own_store().ArchiveStore(str(root), max_bytes=100)

    def put() -> "defer.Deferred[None]":
        return store.put("acme~prod", "date=1/file.gz", str(file))

    with pytest.raises(api.EndpointUnavailable) as unavailable:
        await put()
    assert unavailable.value.retry_after == 30
    root.mkdir()
    with pytest.raises(api.TenantRefused) as refused:
        await put()
    assert {unavailable.value.authority, refused.value.authority} == set(store.authorities("acme~prod"))
    (root / "acme~prod").mkdir()
    assert await put() is None
    assert await put() is None
    assert [path.read_bytes() for path in root.rglob("*.gz*")] == [file.read_bytes()]
    file.write_bytes(b"x" * 101)
    with pytest.raises(api.FileRefused):
        await put()
    file.write_bytes(b"x")
    (root / "acme~prod" / "date=1" / "file.gz.new").mkdir()
    with pytest.raises(api.UploadFailed, match="Is a directory"):
        await put()
    await store.close()


OPENED = """
import os, sys
root, file = sys.argv[1:]
begun = []
def note(event, arguments):
    if event == "os.rename":
        begun.append(True)
    elif event == "open" and begun and isinstance(arguments[0], str) and arguments[0].startswith(root):
        print(os.path.relpath(arguments[0], root))
sys.path.insert(0, "docs/examples")
from own_store import ArchiveStore
store = ArchiveStore(root)
sys.addaudithook(note)
store._put("acme~prod", "date=1/time=2/file.gz", file)
"""


def test_what_it_delivers_survives(tmp_path: Path) -> None:
    """When a file has its name, the names above it are synced too, the nearest first: its source is deleted then."""
    (tmp_path / "archive" / "acme~prod").mkdir(parents=True)
    (tmp_path / "file").write_bytes(b"x")
    command = [sys.executable, "-c", OPENED, str(tmp_path / "archive"), str(tmp_path / "file")]
    said = subprocess.check_output(command, text=True, cwd=DOCS.parent)
    assert said.splitlines() == ["acme~prod/date=1/time=2", "acme~prod/date=1", "acme~prod", "."]


def test_a_deprecation() -> None:
    """The convention as the page shows it is what `assert_deprecated` asks for, and what does not warn is found."""
    (example,) = blocks("api.rst", "python")
    names: dict[str, Any] = {}
    exec(compile(example.text, "api.rst", "exec"), names)
    assert_deprecated(lambda: names["submit_records"](None, "scope", []), "submit_records", since="1.3.0")
    with pytest.raises(AssertionError, match="does not warn"):
        assert_deprecated(lambda: None, "submit_records", since="1.3.0")
