"""Looking at the stages, and at a store that may hang, now and then."""

from pathlib import Path

from twisted.internet.task import Clock

from axcollector.core.layout import QUARANTINE, Stage
from axcollector.disk import Disk
from axcollector.stages import Stages
from axcollector.surveying import SURVEY_SECONDS, Surveying
from tests.fakes import HeldThread, SameThread, result_of


def test_a_store_that_hangs(tmp_path: Path) -> None:
    """It is known since when; the stages are looked at all the same, and a stop does not wait for it."""
    for stage in (*Stage, QUARANTINE):
        (tmp_path / stage).mkdir()
    clock, looker = Clock(), HeldThread()
    surveying = Surveying(clock, SameThread(), Stages(Disk(), str(tmp_path)), looker, lambda: "it is full")
    surveying.startService()
    looker.step()
    assert (surveying.store_problem, surveying.store_is_seen, surveying.looking_since) == ("it is full", True, None)
    clock.advance(SURVEY_SECONDS)
    (tmp_path / Stage.FAILED / "acme~prod~20260101000000").mkdir()
    clock.pump([SURVEY_SECONDS] * 50)
    assert surveying.looking_since == SURVEY_SECONDS
    assert surveying.stages.found[Stage.FAILED].buckets == 1
    assert [(job.name, job.runs) for job in surveying.jobs] == [("survey of the stages", 52), ("look at the store", 1)]
    result_of(surveying.stopService())
    assert clock.getDelayedCalls() == []
    looker.step()
    assert surveying.looking_since is None


def test_a_store_that_cannot_be_looked_at(tmp_path: Path) -> None:
    """Then nothing is known of it but what uploads tell."""
    clock = Clock()
    surveying = Surveying(clock, SameThread(), Stages(Disk(), str(tmp_path)), SameThread(), None)
    surveying.startService()
    assert (surveying.store_is_seen, [job.name for job in surveying.jobs]) == (False, ["survey of the stages"])
    result_of(surveying.stopService())
