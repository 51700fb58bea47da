"""The page on operations: every event is on it, at its level, and nothing else is."""

import json
import re
from pathlib import Path

from twisted.logger import LogLevel

from axcollector.log_json import RESERVED, json_line
from tests.docs_blocks import blocks
from tests.log_calls import PASSES_ON, events

PAGE = (Path(__file__).parent.parent / "docs" / "operations.rst").read_text()
ENTRIES = re.findall(
    r"^``(.+)``\n   \*(\w+)(?: level)?\.\*((?: .*\n)(?:   .*\n)*)", PAGE.partition("\nEvents\n---")[2], re.MULTILINE
)


def told() -> set[tuple[str, str]]:
    """The events of the package, each with its level; a traceback is no part of them."""
    return {(event.format.partition("\n")[0], event.level) for event in events()}


def test_every_event_is_there() -> None:
    """Whoever adds a log line says on the page what it means and what to do; one that is gone is taken off it."""
    listed = {(event, level) for event, level, _ in ENTRIES}
    assert told() - listed == set(), "not in docs/operations.rst, section Events"
    assert listed - told() == set(), "in docs/operations.rst, but logged nowhere"
    assert len(ENTRIES) == len(listed)


def test_what_to_do() -> None:
    """Each has a meaning; an error, with which somebody should look, says what to do."""
    silent = {
        event for event, level, text in ENTRIES if level == "error" and not re.search(r"\*\*Do|Nothing, unless", text)
    }
    assert silent == set()
    assert [event for event, _, text in ENTRIES if len(text.strip()) < 6 and "Nothing." not in text] == []


def test_fields() -> None:
    """What a format names is given with it, and none is called as what every JSON line has."""
    for event in events():
        passed_on = PASSES_ON | {"workers.process._pass_on"}
        taken = event.fields & RESERVED
        assert taken <= ({"event", "traceback"} if event.place in passed_on else set()), event
        named = set(re.findall(r"\{(\w+)", event.format))
        assert event.fields == frozenset() or event.place in passed_on or named <= event.fields, event


def test_the_line_that_is_shown() -> None:
    """It is one that is written: an event of the package, with its fields and what every line has."""
    (shown,) = [json.loads(block.text) for block in blocks("operations.rst", "json")]
    (event,) = [event for event in events() if event.format == shown["event"]]
    fields = {name: shown[name] for name in event.fields}
    logged = {"log_format": event.format, "log_time": shown["log_time"], "log_level": LogLevel.info, **fields}
    line = json.loads(json_line({**logged, "log_namespace": shown["namespace"]}))
    assert (line["text"], line["time"]) == (shown["text"], shown["time"])
    assert (line.keys(), line["level"]) == (shown.keys(), shown["level"])


def test_the_reader_finds_them() -> None:
    """So many that it cannot have missed a way of logging; of each way one that is known."""
    found = {(event.format, event.level, event.place) for event in events()}
    assert len(found) > 80
    assert {
        ("{authority} works again", "info", "outcomes.works_again"),
        ("a commit failed", "critical", "spool._failed"),
        ("there is a token again", "info", "sync.transicator_token.__init__"),
        ("{warning}", "warn", "tap._announce"),
        ("worker {worker}: {said}", "any", "workers.process._pass_on"),
    } <= found
