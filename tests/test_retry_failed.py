"""Asked for: another chance for what has failed, at once and out of turn."""

import os
from pathlib import Path

import pytest
from twisted.internet import defer
from twisted.logger import LogEvent, LogLevel

from axcollector.apart import apart
from axcollector.backlog import RETURNED_LIMIT
from axcollector.core.stamps import stamp
from axcollector.disk import Disk
from tests.fakes import HeldThread, result_of
from tests.test_uploader import NOW, Place, place, texts

__all__ = ["place"]  # a fixture


def retried(place: Place, bucket: str | None = None) -> int:
    """How many came back."""
    return result_of(defer.Deferred.fromCoroutine(place.uploader.retry_failed(bucket)))


def failed_later(place: Place, *after: int) -> list[str]:
    """Buckets that come to failed when the uploader has looked there; their names."""
    return [place.stage("acme~test", f"f{each}", after=each, stage="failed").name for each in after]


def test_all(place: Place, log_events: list[LogEvent]) -> None:
    """However many that are, and whatever a batch of another chance is; they are delivered at once."""
    place.uploader.startService()
    failed_later(place, 1, 2, 3, 4, 5)
    assert retried(place) == 5
    assert place.delivered() == ["f1", "f2", "f3", "f4", "f5"]
    assert place.left("failed") == []
    assert "5 buckets of failed get another chance" in texts(log_events, LogLevel.info)
    assert retried(place) == 0


def test_all_of_very_many(place: Place) -> None:
    """More than are brought back by themselves; those that an earlier listing has left, and those that came later."""
    place.store.is_slow = True
    place.make(failed_retry_batch=1).startService()
    names = failed_later(place, *range(RETURNED_LIMIT + 60))
    place.clock.advance(600)
    assert len(os.listdir(place.root / "failed")) == RETURNED_LIMIT + 59
    failed_later(place, RETURNED_LIMIT + 60)
    assert retried(place) == RETURNED_LIMIT + 60
    assert set(names) <= set(os.listdir(place.root / "staging"))


def test_one(place: Place) -> None:
    """That one, and no other; a second time there is none of its name, and its turn is no trouble when it comes."""
    place.make(failed_retry_batch=0).startService()
    _, second, _ = failed_later(place, 1, 2, 3)
    assert retried(place, second) == 1
    assert place.delivered() == ["f2"]
    assert len(os.listdir(place.root / "failed")) == 2
    assert retried(place, second) == 0
    assert retried(place) == 2


@pytest.mark.parametrize(
    "name", ["", "..", ".", "../staging", "acme~test", f"acme~test~{stamp(NOW)}", "a/b~c~20260102030405"]
)
def test_names_of_none(place: Place, name: str) -> None:
    """What is no bucket, or is not there, is not looked for elsewhere."""
    place.make(failed_retry_batch=0).startService()
    failed_later(place, 1)
    assert retried(place, name) == 0
    assert len(os.listdir(place.root / "failed")) == 1


def test_a_file_of_that_name(place: Place) -> None:
    """It is no bucket, which is said."""
    place.make(failed_retry_batch=0).startService()
    name = f"acme~test~{stamp(NOW)}"
    (place.root / "failed" / name).write_text("no directory")
    with pytest.raises(OSError, match="it is no directory"):
        retried(place, name)


class Stuck(Disk):
    """A disk on which nothing is renamed."""

    def rename(self, source: str, target: str) -> None:
        """As with a disk that fails."""
        raise OSError(5, "Input/output error")


def test_a_bucket_that_cannot_be_moved(place: Place) -> None:
    """Asked for alone, that is an answer; of all, the others are moved, and it is told as anything in the way is."""
    place.make(disk=Stuck(), failed_retry_batch=0).startService()
    (name,) = failed_later(place, 1)
    with pytest.raises(OSError, match="it cannot be moved to staging: Input/output error"):
        retried(place, name)
    assert retried(place) == 0
    assert os.listdir(place.root / "failed") == [name]


def test_stopping_ends_it(tmp_path: Path) -> None:
    """Between two slices; what was moved by then stays moved."""
    place, thread = Place(tmp_path), HeldThread()
    uploader = place.make(worker=thread)
    uploader._supply.start()
    failed_later(place, *range(600))
    found: list[int] = []
    defer.Deferred.fromCoroutine(uploader.retry_failed()).addCallback(found.append)
    thread.step()
    uploader._supply.stop()
    while thread.jobs:
        thread.step()
    assert found == [0]


def test_work_that_goes_on_alone() -> None:
    """Whoever waited may go; it fires and fails as the work does."""
    waited_for: list[defer.Deferred[int]] = []
    done: list[str] = []

    async def work() -> int:
        waited_for.append(defer.Deferred())
        result = await waited_for[-1]
        done.append("done")
        return result

    left = apart(work())
    left.addErrback(lambda failure: failure.trap(defer.CancelledError) and None)
    left.cancel()
    kept, failing = apart(work()), apart(work())
    waited_for[0].callback(1)
    waited_for[1].callback(2)
    waited_for[2].errback(ValueError("broken"))
    assert (done, result_of(kept)) == (["done", "done"], 2)
    with pytest.raises(ValueError, match="broken"):
        result_of(failing)
