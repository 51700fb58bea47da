"""What every test gets: a logged failure, a lost Deferred's failure, or a late thread's complaint fails it."""

import gc
import itertools
import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from twisted.logger import LogEvent, globalLogPublisher

from tests.effort import either

# Machines are shared and noisy: no test may fail for being slow. The examples of a run are not kept.
settings.register_profile(
    "axcollector",
    deadline=None,
    database=None,
    max_examples=either(100, 50),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("axcollector")


_tests_begun = itertools.count()

# Directories that tests make are such as services start in, whatever the umask of whoever runs the tests.
os.umask(0o022)

# Nor do they ignore Ctrl-C, which a shell has those do that it starts in the background.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


TESTS_BETWEEN_FULL_COLLECTIONS = 100
"""How often what earlier tests left is looked at again; to do so after each cost more than the tests."""


def pytest_runtest_setup() -> None:
    """What is there before a test stays: the collections of the test need not look at it again."""
    if next(_tests_begun) % TESTS_BETWEEN_FULL_COLLECTIONS == 0:
        gc.unfreeze()
        gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Let it be collected at the end."""
    gc.unfreeze()


class LoggedFailures:
    """The failures logged during a test; those not taken by its end fail it."""

    def __init__(self) -> None:
        self.events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_failure") is not None:
            self.events.append(event)

    def take(self, kind: type[BaseException]) -> list[BaseException]:
        """The failures of this kind logged so far, which are hereby expected."""
        gc.collect()
        taken = [event for event in self.events if event["log_failure"].check(kind)]
        self.events = [event for event in self.events if event not in taken]
        return [event["log_failure"].value for event in taken]


@pytest.fixture(autouse=True)
def logged_failures() -> Iterator[LoggedFailures]:
    """Fails the test that leaves a failure in the log; tests that cause one take it from here."""
    failures = LoggedFailures()
    globalLogPublisher.addObserver(failures)
    yield failures
    gc.collect()
    globalLogPublisher.removeObserver(failures)
    assert [event["log_failure"].getTraceback() for event in failures.events] == []


@pytest.fixture
def log_events() -> Iterator[list[LogEvent]]:
    """The events logged during the test, as they come."""
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)
