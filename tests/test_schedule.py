"""What is uploaded next."""

from collections import Counter
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from axcollector.core.schedule import Schedule, StagedFile


def staged(tenant: str, start: int, name: str = "f") -> StagedFile:
    """A file."""
    return StagedFile(start, f"{tenant}~{start}", name, tenant, 10)


def sweep(schedule: Schedule, files: Iterable[StagedFile]) -> None:
    """A sweep that finds these."""
    schedule.refresh()
    schedule.add(files)


def everybody(tenant: str) -> bool:
    """Nobody is paused."""
    return True


def take(schedule: Schedule, limit: int = 1000) -> list[StagedFile]:
    """All that may go now."""
    taken: list[StagedFile] = []
    while len(taken) < limit and (file := schedule.next(everybody)) is not None:
        taken.append(file)
    return taken


def test_tenants_take_turns_oldest_first() -> None:
    """The tenant with the oldest bucket begins; each tenant's own come oldest first."""
    schedule = Schedule(100, 3)
    sweep(schedule, [staged("b", 1), staged("a", 2), staged("a", 3), staged("b", 4), staged("c", 5)])
    assert take(schedule) == [staged("b", 1), staged("a", 2), staged("c", 5), staged("b", 4), staged("a", 3)]
    assert schedule.next(everybody) is None


def test_no_tenant_holds_more_than_half() -> None:
    """The other half of the slots is for others, also between sweeps."""
    schedule = Schedule(4, 3)
    sweep(schedule, [staged("a", n) for n in range(10)])
    assert len(take(schedule)) == 2
    sweep(schedule, [*(staged("a", n) for n in range(10)), staged("b", 99)])
    assert take(schedule) == [staged("b", 99)]
    schedule.delivered(staged("a", 0))
    assert take(schedule) == [staged("a", 2)]
    assert schedule.in_flight == 3


def test_one_slot_is_for_everybody() -> None:
    """With a single slot a tenant may hold it, and takes turns with the others."""
    schedule = Schedule(1, 3)
    files = [staged("a", 1), staged("a", 2), staged("b", 3)]
    sweep(schedule, files)
    order = []
    while taken := take(schedule):
        order += taken
        schedule.delivered(taken[0])
    assert order == [staged("a", 1), staged("b", 3), staged("a", 2)]
    assert schedule.idle


def test_turns_outlast_a_sweep() -> None:
    """A new sweep does not begin with the tenant that was just served, though its files are older."""
    schedule = Schedule(1, 3)
    files = [staged("a", 1), staged("a", 2), staged("b", 3)]
    sweep(schedule, files)
    assert schedule.next(everybody) == files[0]
    sweep(schedule, files)
    schedule.delivered(files[0])
    assert take(schedule) == [files[2]]


def test_paused_tenants_are_skipped() -> None:
    """Others go on; nothing is lost of those that wait."""
    schedule = Schedule(10, 3)
    sweep(schedule, [staged("a", 1), staged("b", 2)])
    assert schedule.next(lambda tenant: tenant != "a") == staged("b", 2)
    assert schedule.ready == 0
    assert schedule.supplied(100) == {"a"}
    assert take(schedule) == []
    schedule.resume()
    assert take(schedule) == [staged("a", 1)]


def test_who_is_set_aside_is_asked_once() -> None:
    """However often somebody looks for the next file; a sweep forgets them and their files, until they are added."""
    asked: list[str] = []

    def nobody(tenant: str) -> bool:
        asked.append(tenant)
        return False

    schedule = Schedule(10, 3)
    files = [staged("b", 1), staged("a", 2)]
    sweep(schedule, files)
    assert [schedule.next(nobody), schedule.next(nobody)] == [None, None]
    assert asked == ["b", "a"]
    assert schedule.waiting == 2
    schedule.refresh()
    assert schedule.idle
    schedule.add(files)
    assert take(schedule) == files


def test_a_window_is_extended() -> None:
    """What comes later and is older goes first; what is known is not queued twice; who has enough is named."""
    schedule = Schedule(4, 3)
    sweep(schedule, [staged("a", n) for n in (5, 6, 7)])
    schedule.add([staged("a", 1), staged("a", 5), staged("b", 9)])
    assert schedule.ready == 5
    assert schedule.supplied(4) == {"a"}
    assert take(schedule) == [staged("a", 1), staged("b", 9), staged("a", 5)]
    assert schedule.ready == 0
    schedule.delivered(staged("a", 1))
    assert schedule.ready == 2
    assert take(schedule) == [staged("a", 6)]


def test_what_is_under_way_is_not_taken_again() -> None:
    """Neither by a sweep nor by an addition; what waits already is not queued twice."""
    schedule = Schedule(10, 3)
    sweep(schedule, [staged("a", 1), staged("a", 2)])
    assert schedule.next(everybody) == staged("a", 1)
    schedule.add([staged("a", 1), staged("a", 2), staged("b", 3)])
    assert take(schedule) == [staged("a", 2), staged("b", 3)]
    sweep(schedule, [staged("a", 1)])
    assert take(schedule) == []
    assert not schedule.idle


def test_a_bucket_fails_once_a_sweep() -> None:
    """However many of its files fail; each of them gets its one try; the next sweep tries all again."""
    schedule = Schedule(10, 2)
    files = [staged("a", 1, name) for name in "xyz"]
    sweep(schedule, files)
    assert take(schedule) == files
    assert [schedule.failed(file) for file in files] == [1, 1, 1]
    schedule.add(files)
    assert take(schedule) == []
    assert not schedule.exhausted("a~1")
    sweep(schedule, files)
    assert take(schedule) == files
    assert schedule.failed(files[0]) == 2
    assert not schedule.exhausted("a~1")
    schedule.delivered(files[1])
    assert not schedule.exhausted("a~1")
    schedule.delivered(files[2])
    assert schedule.exhausted("a~1")
    assert schedule.attempts("a~1") == 2


def test_late_failures_belong_to_their_sweep() -> None:
    """Uploads that began before the bucket's last counted failure do not count again."""
    schedule = Schedule(10, 3)
    files = [staged("a", 1, name) for name in "xyz"]
    sweep(schedule, files)
    take(schedule)
    assert schedule.failed(files[0]) == 1
    sweep(schedule, files)
    assert schedule.failed(files[1]) == 1
    assert take(schedule) == [files[0]]
    assert schedule.failed(files[2]) == 1
    assert schedule.failed(files[0]) == 2


def test_postponed_files_cost_no_attempt() -> None:
    """They wait for the next sweep."""
    schedule = Schedule(10, 1)
    sweep(schedule, [staged("a", 1)])
    take(schedule)
    schedule.postpone(staged("a", 1))
    assert take(schedule) == []
    assert schedule.attempts("a~1") == 0
    assert not schedule.exhausted("a~1")
    sweep(schedule, [staged("a", 1)])
    assert take(schedule) == [staged("a", 1)]


def test_a_bucket_that_is_given_up_is_left_alone() -> None:
    """While it is being moved no sweep takes its files up; when it comes back it begins anew."""
    schedule = Schedule(10, 1)
    sweep(schedule, [staged("a", 1)])
    take(schedule)
    schedule.failed(staged("a", 1))
    assert schedule.exhausted("a~1")
    schedule.give_up("a~1")
    assert not schedule.idle
    sweep(schedule, [staged("a", 1)])
    assert take(schedule) == []
    schedule.forget("a~1")
    assert schedule.idle
    assert schedule.attempts("a~1") == 0
    sweep(schedule, [staged("a", 1)])
    assert take(schedule) == [staged("a", 1)]


def test_attempts_outlast_sweeps_that_do_not_show_the_bucket() -> None:
    """A window may not reach it; but what has not failed for very many sweeps is forgotten."""
    schedule = Schedule(10, 3)
    sweep(schedule, [staged("a", 1)])
    take(schedule)
    schedule.failed(staged("a", 1))
    assert schedule.idle
    for _ in range(998):
        schedule.refresh()
    assert schedule.attempts("a~1") == 1
    for _ in range(1001):
        schedule.refresh()
    assert schedule.attempts("a~1") == 0


tenants = st.sampled_from("abcdef")
backlogs = st.lists(st.tuples(tenants, st.integers(0, 30), st.sampled_from("xyz")), unique=True)


@given(backlogs, st.integers(1, 8), st.data())
def test_everything_is_delivered_within_the_limits(
    backlog: list[tuple[str, int, str]], concurrency: int, data: st.DataObject
) -> None:
    """Each file is taken exactly once, whatever the order of ends; slots and halves are kept; each tenant in order."""
    schedule = Schedule(concurrency, 3)
    files = sorted(staged(*entry) for entry in backlog)
    sweep(schedule, files)
    delivered: list[StagedFile] = []
    under_way: list[StagedFile] = []
    while True:
        under_way += take(schedule)
        if not under_way:
            break
        assert len(under_way) == schedule.in_flight <= concurrency
        assert max(Counter(file.tenant for file in under_way).values()) <= max(1, concurrency // 2)
        file = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
        schedule.delivered(file)
        delivered.append(file)
        if data.draw(st.booleans()):
            sweep(schedule, [file for file in files if file not in delivered])
    assert files == sorted(delivered)
    assert schedule.idle


@given(st.integers(2, 6), st.integers(1, 50))
def test_a_newcomer_waits_for_nobodys_backlog(concurrency: int, backlog: int) -> None:
    """The newest file of one tenant goes as soon as a sweep has found it, however much others have waiting."""
    schedule = Schedule(concurrency, 3)
    files = [staged("a", n) for n in range(backlog)]
    sweep(schedule, files)
    take(schedule)
    sweep(schedule, [*files, staged("b", 1000)])
    assert take(schedule, 1) == [staged("b", 1000)]
