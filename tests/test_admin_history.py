"""What the status page's charts, events and configuration are made of."""

import json

import pytest
from msgspec import structs
from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure
from twisted.web.server import Site

from axcollector.admin import events as events_module
from axcollector.admin.configuration import InForce, add_configuration
from axcollector.admin.events import Events, add_events
from axcollector.admin.health import HealthAPI
from axcollector.admin.history import KEPT, SAMPLE_SECONDS, History, add_history, quantile, sample_between, sampling
from axcollector.config import KEYS, Config
from axcollector.config_keys import MASK
from axcollector.core.status import Histogram, Status
from axcollector.webapi import JSONResource
from tests.page_world import World
from tests.wire import Connection, request

NOW = 1_767_323_045.0


def status_at(seconds: float, records: int = 0, **ingest: object) -> Status:
    """A collector so many seconds after it began."""
    status = World(NOW).status(NOW + seconds)
    counted = {"accepted_records": records, "accepted_bytes": 400 * records, **ingest}
    return structs.replace(status, ingest=structs.replace(status.ingest, **counted))


def ask(app: object, target: str) -> tuple[int, dict]:
    """Status and document of an answer."""
    connection = Connection(Site(JSONResource(app), reactor=Clock()))
    connection.send(request("GET", target))
    (answer,) = connection.answers()
    connection.hang_up()
    return answer.status, json.loads(answer.body)


def test_a_sample() -> None:
    """What has happened between two statuses, a second."""
    latency = Histogram((0.001, 0.002), [0, 0, 0])
    before = status_at(10, 1000, commit_seconds=latency)
    after = status_at(14, 3000, commit_seconds=Histogram((0.001, 0.002), [10, 10, 0]))
    sample = sample_between(before, after)
    assert (sample.at, sample.records, sample.bytes) == (NOW + 14, 500, 200_000)
    assert (sample.commit_median, sample.commit_slow) == (0.001, 0.00198)
    assert sample.waiting == 131


def test_totals_that_fall() -> None:
    """Nothing is said to have happened where less is told of than before."""
    sample = sample_between(status_at(10, 1000), status_at(12, 900, commit_seconds=Histogram((1.0,), [0, 0])))
    assert (sample.records, sample.bytes, sample.commit_median) == (0, 0, None)


def test_nothing_delivered_is_no_lag() -> None:
    """The lag of what was delivered is told when something was, and nothing waits where there is no stage."""
    status = structs.replace(status_at(10), stages=[])
    sample = sample_between(status, structs.replace(status, now=NOW + 12))
    assert (sample.lag, sample.waiting) == (None, None)


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ([0, 0, 0], 0.5, None),
        ([4, 0, 0], 0.5, 0.5),
        ([0, 4, 0], 0.5, 1.5),
        ([0, 0, 4], 0.5, 2.0),
        ([2, 2, 0], 0.5, 1.0),
    ],
)
def test_quantiles(counts: list[int], share: float, expected: float | None) -> None:
    """As far as ranges tell; of what lies beyond the last bound, that one."""
    assert quantile(Histogram((1.0, 2.0), counts), share) == expected


def test_history() -> None:
    """Samples are numbered, and come since a number; of what is not kept any more, the oldest that is."""
    history = History()
    assert history.since(0) == (0, [])
    for number in range(KEPT + 11):
        history.note(status_at(2 * number, 100 * number))
    first, samples = history.since(0)
    assert (first, len(samples), samples[0].at) == (10, KEPT, NOW + 22)
    first, samples = history.since(KEPT + 8)
    assert (first, [sample.at for sample in samples]) == (KEPT + 8, [NOW + 2 * (KEPT + 9), NOW + 2 * (KEPT + 10)])
    assert history.since(KEPT + 10) == (KEPT + 10, [])
    assert history.since(10**6) == (KEPT + 10, [])


def test_a_clock_that_was_set_back() -> None:
    """Gives no sample, and no rate below nothing."""
    history = History()
    for seconds in (10, 12, 4, 6):
        history.note(status_at(seconds))
    assert [sample.at - NOW for sample in history.since(0)[1]] == [12, 6]


def test_the_route_of_samples() -> None:
    """Columns by name; taken every two seconds while the collector runs."""
    clock, history, world, app = Clock(), History(), World(0.0), HealthAPI(World(NOW)).app
    world_now = world.status
    world.status = lambda: world_now(clock.seconds())
    add_history(app, history)
    periodic = sampling(clock, world, history)
    periodic.startService()
    clock.pump([SAMPLE_SECONDS] * 3)
    periodic.stopService()
    status, told = ask(app, "/history?since=1")
    assert (status, told["first"], told["next"], told["run"]) == (200, 1, 3, 0.0)
    assert [dict(zip(told["columns"], row, strict=True))["at"] for row in told["rows"]] == [4.0, 6.0]
    assert ask(app, "/history?since=99")[1]["first"] == 3


@pytest.mark.parametrize(
    "query", ["since=", "since=x", "since=-1", "since=1.5", "since=1&since=2", f"since={'9' * 16}"]
)
def test_numbers_that_are_none(query: str) -> None:
    """They are refused, in one place for all routes."""
    app = HealthAPI(World(NOW)).app
    add_history(app, History())
    assert ask(app, f"/history?{query}")[0] == 400


def test_events() -> None:
    """Of level info and above, since a number, as text without secrets; only while it runs."""
    publisher, app = LogPublisher(), HealthAPI(World(NOW)).app
    events = Events(publisher)
    said = Logger("axcollector.uploader", observer=publisher)
    add_events(app, events)
    said.info("before")
    events.startService()
    said.debug("not for operators")
    said.info("delivered {what}", what="it")
    said.warn("asked https://user:secret@host/path?signature=secret")
    said.failure("it broke", Failure(ValueError("token=secret")))
    publisher({"log_time": 3.0})
    events.stopService()
    said.info("after")
    status, told = ask(app, "/events")
    shown = [(event["number"], event["level"], event["text"]) for event in told["events"]]
    assert (status, told["next"]) == (200, 3)
    assert shown == [
        (0, "info", "delivered it"),
        (1, "warn", "asked https://host/path?…"),
        (2, "critical", "it broke: token=…"),
    ]
    assert {event["source"] for event in told["events"]} == {"axcollector.uploader"}
    assert ask(app, "/events?since=2")[1]["events"][0]["number"] == 2
    assert ask(app, "/events?since=3")[1] == {"next": 3, "events": []}


def test_events_are_bounded() -> None:
    """The last ones are kept, and of a long text its beginning."""
    publisher = LogPublisher()
    events = Events(publisher)
    events.startService()
    said = Logger("x", observer=publisher)
    for number in range(events_module.KEPT + 5):
        said.info("{number} {text}", number=number, text="x" * 5000)
    events.stopService()
    kept = events.since(0)
    assert [kept[0].number, len(kept), len(kept[0].text)] == [5, events_module.KEPT, 2000]


def test_an_event_that_says_nothing() -> None:
    """A failure without a message says what failed."""
    event = {"log_level": LogLevel.critical, "log_failure": Failure(ValueError("broken")), "log_format": None}
    assert events_module.text_of(event) == "broken"


def test_configuration() -> None:
    """Every key, as it is in force; secrets are masked, and so are logins of URLs."""
    app = HealthAPI(World(NOW)).app
    config = Config(
        admin_token="planted", bearer_token="planted", upload_proxy="http://me:planted@proxy:3128", use_caching=False,
        listen=["tcp:9000", "tcp:9002"], upload_interval=2.5, store="file:/data/a@b",
    )  # fmt: skip
    in_force = InForce(KEYS, config)
    add_configuration(app, in_force)
    status, told = ask(app, "/configuration")
    settings = {setting["key"]: setting for setting in told["settings"]}
    assert (status, list(settings)) == (200, list(KEYS))
    assert "planted" not in json.dumps(told)
    shown = {
        key: settings[key]["value"] for key in ("admin_token", "bearer_token", "upload_proxy", "store", "instance_id")
    }
    assert shown == {
        "admin_token": MASK, "bearer_token": MASK, "upload_proxy": "http://…@proxy:3128", "store": "file:/data/a@b",
        "instance_id": "",
    }  # fmt: skip
    assert [settings[key]["value"] for key in ("use_caching", "listen", "upload_interval")] == [
        "false", "tcp:9000 tcp:9002", "2.5",
    ]  # fmt: skip
    assert [key for key in settings if not settings[key]["is_default"]] == [
        "listen", "upload_interval", "use_caching", "store", "bearer_token", "admin_token", "upload_proxy",
    ]  # fmt: skip
    in_force.use(Config(upload_interval=7))
    assert "7" in [setting["value"] for setting in ask(app, "/configuration")[1]["settings"]]
