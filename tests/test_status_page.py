"""The status page in a real browser, of a collector that is not there (`page_world`): what it shows, and to whom.

`tests/setup_browser.sh` installs the browser. It is shown nothing but addresses of this machine.
"""

import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.keys import Keys

from tests.page_world import HOSTILE

T = TypeVar("T")

ROOT = Path(__file__).parent.parent
STATIC = ROOT / "axcollector" / "admin" / "static"
AXE = Path(__file__).parent / "axe" / "axe.min.js"
CHROMIUM, DRIVER, NODE = (shutil.which(program) for program in ("chromium", "chromedriver", "node"))
SETUP = "run tests/setup_browser.sh"
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--window-size=1280,900",
)  # fmt: skip
PATIENCE_SECONDS = 30
"""It takes a second or two; only where something is broken, or the machine does nothing for us, it takes as long."""


class World:
    """`page_world` in a process of its own."""

    def __init__(self, age: int, tenants: int, failed: int) -> None:
        command = [sys.executable, "-m", "tests.page_world", str(age), str(tenants), str(failed)]
        self._popen = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._popen.stdout is not None
        self.url = f"http://localhost:{int(self._popen.stdout.readline())}/"

    def order(self, line: str) -> None:
        """Have something become so."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(line + "\n")
        self._popen.stdin.flush()

    def end(self) -> None:
        """It is gone."""
        self._popen.communicate(timeout=PATIENCE_SECONDS)


class Page:
    """The page as a person has it before him."""

    def __init__(self, browser: Any, world: World) -> None:
        self.browser = browser
        self.world = world

    def open(self, width: int = 1280, height: int = 900, *, dark: bool = False) -> None:
        """Load it anew."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        wishes = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in wishes.items()]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.browser.get(self.world.url)
        self.until(lambda: self.text("#state") != "…" and self.all("#tenant-rows tr") and self.all("#settings tr"))
        self.until(lambda: len(self.all("#failed tr")) >= 3)

    def until(self, condition: Callable[[], T]) -> T:
        """What the condition gives as soon as it is something."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(StaleElementReferenceException):
                if found := condition():
                    return found
            time.sleep(0.05)
        raise AssertionError(f"not so: {condition}; the console says {self.browser.get_log('browser')}")

    def run(self, script: str, *arguments: object) -> Any:
        """What a script gives."""
        return self.browser.execute_script(script, *arguments)

    def all(self, selector: str) -> list[Any]:
        """The elements."""
        return list(self.browser.find_elements("css selector", selector))

    def one(self, selector: str) -> Any:
        """The element."""
        return self.browser.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        """What is in it."""
        return str(self.run("return document.querySelector(arguments[0]).textContent", selector))

    def texts(self, selector: str) -> list[str]:
        """What is in each."""
        script = "return [...document.querySelectorAll(arguments[0])].map((node) => node.textContent)"
        return [str(text) for text in self.run(script, selector)]

    def complaints(self) -> list[Any]:
        """What the console says."""
        return list(self.browser.get_log("browser"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser that nobody has used."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip(f"there is no chromium, or no chromedriver: {SETUP}")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with contextlib.closing(_Quitting(webdriver.Chrome(options, webdriver.ChromeService(DRIVER)))) as quitting:
        yield quitting.browser


class _Quitting:
    def __init__(self, browser: Any) -> None:
        self.browser = browser

    def close(self) -> None:
        self.browser.quit()


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A collector that has run for half an hour, with ten thousand tenants."""
    world = World(1900, 10_000, 0)
    yield world
    world.end()


@pytest.fixture
def page(browser: Any, world: World) -> Iterator[Page]:
    """Its page, with three failed buckets."""
    world.order("failed 3")
    page = Page(browser, world)
    page.open()
    yield page
    browser.get("about:blank")
    world.order("well")
    assert page.complaints() == []


@pytest.mark.slow
def test_it_lives(page: Page) -> None:
    """Charts and numbers move while somebody looks; text from outside is text; no console error, and no other host."""
    assert page.text("#state") == "Ready"
    assert len(page.all(".chart canvas")) == 4
    drawn = "return document.querySelector('.chart canvas').toDataURL()"
    before, records = page.run(drawn), page.text("#flow li:last-child b")
    page.until(lambda: page.run(drawn) != before and page.text("#flow li:last-child b") != records)
    assert page.texts("#flow .name") == ["Requests", "Commit", "Journals", "Staging", "Store"]
    shown = page.text("body")
    for where in ("#paused", "#failed", "#quarantine", "#event-list", "#jobs"):
        assert HOSTILE in page.text(where)
    assert "admin_token" in shown
    assert "a-secret" not in page.run("return document.documentElement.outerHTML")
    assert page.all("img:not([src='static/icon.svg'])") == []
    assert page.browser.title == "axcollector"
    asked = page.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [url for url in asked if not url.startswith(page.world.url)] == []
    page.world.order("sick")
    page.until(lambda: page.text("#state") == "Not ready: spool")
    assert "spool: The last commit failed" in page.texts("#checks li")
    page.until(lambda: "it is sick" in page.text("#event-list"))


@pytest.mark.slow
def test_tenants(page: Page) -> None:
    """Ten thousand are sorted and searched before one notices, and shown a page at a time."""
    first = "#tenant-rows tr:first-child th"
    assert page.text(first) == "org-00000"
    assert page.text("#tenant-page") == "1–25 of 10,001"
    assert page.all("#tenant-head [aria-sort='descending']")[0].text.startswith("Records")
    page.run("document.querySelectorAll('.sort')[0].click()")
    assert page.text(first) == HOSTILE
    took = page.run("const began = performance.now(); document.querySelectorAll('.sort')[4].click();"
                    "return performance.now() - began")  # fmt: skip
    assert page.text(first) == "org-09999"
    assert took < 1000  # 20 ms, on a machine at rest
    page.one("#tenant-search").send_keys("org-0123")
    assert page.text("#tenant-page") == "1–10 of 10 found of 10,001"
    assert sorted(page.texts("#tenant-rows th")) == [f"org-0123{n}" for n in range(10)]
    page.one("#tenant-search").send_keys("x")
    assert page.text("#tenant-page") == "No tenant found"
    page.one("#tenant-search").send_keys(Keys.CONTROL + "a", Keys.BACKSPACE)
    page.until(lambda: page.text("#tenant-page") == "1–25 of 10,001")
    page.one("#tenant-after").click()
    assert page.text("#tenant-page") == "26–50 of 10,001"
    page.one("#tenant-first").click()
    assert page.text("#tenant-page") == "1–25 of 10,001"


@pytest.mark.slow
def test_retry(page: Page) -> None:
    """A failed bucket, and all of them, are sent back by a button that the keyboard reaches; what remains stays."""
    assert len(page.all("#failed tr")) == 3
    button = page.one("#failed tr:nth-child(2) button")
    assert button.get_attribute("aria-label").startswith(f"Retry now: {HOSTILE} / prod, ")
    button.send_keys(Keys.ENTER)
    page.until(lambda: len(page.all("#failed tr")) == 2)
    assert page.text("#told").startswith(f"1 bucket goes back to staging: {HOSTILE} / prod")
    page.one("#retry-all").send_keys(Keys.SPACE)
    page.until(lambda: not page.one("#failed-part").is_displayed())
    assert page.text("#told") == "2 buckets go back to staging: all failed buckets."


@pytest.mark.slow
def test_when_nobody_answers_and_when_nobody_looks(page: Page) -> None:
    """It says so, keeps what there was, and goes on asking; while it is hidden it does not."""
    hide = "Object.defineProperty(document, 'hidden', {value: arguments[0], configurable: true});"
    page.run(hide + "document.dispatchEvent(new Event('visibilitychange'))", True)
    asked = "return performance.getEntriesByType('resource').length"
    quiet = page.until(lambda: still(page, asked))
    page.run(hide + "document.dispatchEvent(new Event('visibilitychange'))", False)
    page.until(lambda: page.run(asked) > quiet)
    page.run("globalThis.fetch = () => Promise.reject(new TypeError('gone'))")
    page.until(lambda: page.one("#silent").is_displayed())
    assert page.text("#silent").startswith("The collector does not answer since ")
    assert page.one("#silent").get_attribute("role") == "alert"
    assert page.text("#flow .name") == "Requests"


def still(page: Page, script: str) -> Any:
    """What a script gives, if it gives the same after the next time that it would have asked."""
    before = page.run(script)
    time.sleep(2.5)
    return before if page.run(script) == before else None


@pytest.mark.slow
def test_people_who_use_it_differently(page: Page) -> None:
    """Every control is reached by keyboard, and seen to be; nothing is wider than a phone; dark is dark."""
    reached = []
    page.one("body").send_keys(Keys.TAB)
    assert page.run("return document.activeElement.className") == "skip"
    while page.run("return document.activeElement !== document.body"):
        reached.append(page.run("return document.activeElement.id || document.activeElement.textContent"))
        seen = page.run("return getComputedStyle(document.activeElement).outlineStyle")
        assert seen != "none", reached[-1]
        page.browser.switch_to.active_element.send_keys(Keys.TAB)
        assert len(reached) < 100
    wanted = ["tenant-search", "tenant-after", "retry-all", "Retry now", "event-level", "only-changed", "Records ▼"]
    assert [name for name in wanted if name not in reached] == []
    assert hindrances(page) == []
    for dark in (False, True):
        page.open(360, 800, dark=dark)
        assert page.run("return document.documentElement.scrollWidth <= innerWidth")
        color = page.run("return getComputedStyle(document.body).backgroundColor")
        assert color == ("rgb(15, 20, 25)" if dark else "rgb(245, 246, 248)")
    assert hindrances(page) == []


def hindrances(page: Page) -> Any:
    """What axe-core finds that keeps somebody out."""
    if not AXE.exists():
        pytest.skip(f"axe-core is not there: {SETUP}")
    page.run(AXE.read_text())
    script = "const done = arguments[0]; axe.run().then((found) => done(found.violations.map("
    script += "({ id, impact, nodes }) => [impact, id, nodes.slice(0, 3).map((node) => node.html)])))"
    return page.browser.execute_async_script(script)


@pytest.mark.skipif(NODE is None, reason="there is no node, which would read the scripts")
def test_scripts_are_scripts() -> None:
    """Each is read by a parser that does not run it."""
    assert NODE is not None
    for path in sorted(STATIC.glob("*.js")):
        command = [NODE, "--check", "--input-type=module"]
        done = subprocess.run(command, input=path.read_text(), capture_output=True, text=True, check=False)
        assert (path.name, done.stderr, done.returncode) == (path.name, "", 0)
        assert path.read_text().count("\n") <= 180
        assert not any(word in path.read_text() for word in ("innerHTML", "outerHTML", "insertAdjacent", "eval("))
