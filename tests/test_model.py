"""A model of the whole pipeline behind the door, with a store that comes and goes and crashes at any moment.

The invariant is the contract: every acknowledged record is on disk or in the store, once, and none is in another
tenant's bucket.
"""

import gzip
import os
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.internet.task import Clock

from axcollector.closing import Closing
from axcollector.core.commit import GroupCommit
from axcollector.core.errors import Refusal, UploadFailed
from axcollector.core.frames import FrameReader
from axcollector.core.layout import UNREADABLE, JournalName, Stage, parse_bucket_directory, tenant_directory
from axcollector.core.model import Batch, Tenant
from axcollector.journal import JournalPlan, JournalWriter
from axcollector.premises import Premises
from axcollector.splitter import Splitter
from axcollector.spool import Spool
from axcollector.takeover import take_over
from axcollector.uploader import Uploader
from tests.effort import either
from tests.fake_stores import MemoryStore
from tests.fakes import MortalDisk, SameThread, result_of

TENANTS = [Tenant("1", "acme", "prod"), Tenant("1", "acme", "te~st"), Tenant("2", "zoo", "..")]
NAMES = {tenant_directory(t.organization, t.environment): t for t in TENANTS}
INTERVAL = 10


class Run:
    """One process: everything between a start and the next crash."""

    def __init__(self, root: str, store: MemoryStore, now: float) -> None:
        self.clock = Clock()
        self.clock.rightNow = now
        self.disk = MortalDisk()
        data = os.path.join(root, "ax")
        self.premises = Premises(self.disk, root, data)
        self.premises.acquire(None, lambda: "instance", now)
        take_over(self.disk, data, now)
        thread = SameThread()
        plan = JournalPlan(
            os.path.join(data, Stage.TMP), self.premises.instance_id, self.premises.starts, INTERVAL, max_bytes=2000
        )
        writer = JournalWriter(self.disk, plan)
        self.spool = Spool(self.clock, thread, writer, GroupCommit(100, 1 << 20))
        self.closing = Closing(self.clock, thread, self.spool, Splitter(self.disk, data, Stage.TMP, pack_all=False), 2)
        self.recovery = Splitter(self.disk, data, Stage.RECOVERED, pack_all=True)
        self.uploader = Uploader(
            self.clock, thread, self.disk, store, data,
            interval_seconds=5, concurrency=4, max_attempts=2, failed_retry_batch=3, chance=lambda: 0.5,
        )  # fmt: skip
        self.uploader.startService()
        self.closing.startService()


class Pipeline(RuleBasedStateMachine):
    """Submits, passes time, breaks things; the invariant is looked at after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.root = tempfile.mkdtemp(prefix="axcollector-model-")
        self.store = MemoryStore()
        self.acknowledged: Counter[tuple[str, str]] = Counter()
        self.uncertain: set[tuple[str, str]] = set()
        self.made = 0
        self.run: Run

    @initialize(now=st.integers(1_480_000_000, 1_480_000_100))
    def start(self, now: int) -> None:
        """The first process."""
        self.run = Run(self.root, self.store, now)

    @rule(tenant=st.sampled_from(TENANTS), count=st.integers(1, 4))
    def submit(self, tenant: Tenant, count: int) -> None:
        """A batch; when it is refused it may have been kept, whole."""
        lines = [f'{{"id":{self.made + i}}}' for i in range(count)]
        self.made += count
        batch = Batch(tenant, "".join(f"{line}\n" for line in lines).encode(), count)
        name = tenant_directory(tenant.organization, tenant.environment)
        try:
            result_of(self.run.spool.submit(batch))
        except Refusal:
            self.uncertain |= {(name, line) for line in lines}
        else:
            self.acknowledged.update((name, line) for line in lines)

    @rule(seconds=st.sampled_from([0.25, 1, 5, INTERVAL, 3 * INTERVAL, 700]))
    def pass_time(self, seconds: float) -> None:
        """Heartbeats, sweeps, retries of failed."""
        self.run.clock.pump([seconds / 4] * 4)

    @rule(seconds=st.integers(-30, 30))
    def step_clock(self, seconds: int) -> None:
        """The wall clock is set, forward or back."""
        self.run.clock.rightNow += seconds

    @rule()
    def recover(self) -> None:
        """The background's work on what a crash left."""
        self.run.recovery.work()

    @rule(up=st.booleans())
    def switch_store(self, up: bool) -> None:
        """The store goes or comes."""
        self.store.up = up

    @rule(refusing=st.booleans())
    def refuse(self, refusing: bool) -> None:
        """The store refuses one tenant's files, or none."""
        bad = next(iter(NAMES))
        self.store.refuse = lambda tenant, key: UploadFailed("no") if refusing and tenant == bad else None

    @rule(changes=st.integers(0, 25))
    def crash_soon(self, changes: int) -> None:
        """The process ends after so many more changes to the disk, whatever it is doing then."""
        if self.run.disk.left is None:
            self.run.disk.left = changes

    @precondition(lambda self: self.run.disk.left is not None and self.run.disk.left < 0)
    @rule()
    def restart_after_the_crash(self) -> None:
        """Another process takes over."""
        self._restart()

    @rule()
    def crash_now(self) -> None:
        """The process ends and another takes over."""
        self._restart()

    @rule()
    def restart(self) -> None:
        """An ordered stop and start."""
        result_of(self.run.closing.stopService())
        result_of(self.run.uploader.stopService())
        self._restart()

    def _restart(self) -> None:
        self.run.premises.release()
        self.run = Run(self.root, self.store, self.run.clock.seconds())

    def _journal_lines(self, path: str, name: JournalName) -> Iterator[tuple[str, str]]:
        reader = FrameReader(name.identity)
        with open(path, "rb") as file:
            frames = [*reader.feed(file.read()), *reader.finish()]
        for frame in frames:
            for line in zlib.decompress(frame.member, 31).decode().splitlines():
                yield frame.tenant, line

    def _bucket_lines(self, bucket: str, held: dict[tuple[str, str], bytes]) -> None:
        name = parse_bucket_directory(os.path.basename(bucket))
        tenant = tenant_directory(name.organization, name.environment)
        for file in os.listdir(bucket):
            with open(os.path.join(bucket, file), "rb") as opened:
                held[tenant, file] = opened.read()

    def _found(self) -> Counter[tuple[str, str]]:
        """Every record on disk or in the store, with how often it is there; one file under one name counts once."""
        found: Counter[tuple[str, str]] = Counter()
        held = {(tenant, key.rpartition("/")[2]): data for (tenant, key), data in self.store.objects.items()}
        for stage in (Stage.TMP, Stage.RECOVERED):
            names = set(os.listdir(os.path.join(self.root, "ax", stage))) - {UNREADABLE}
            for entry in names:
                name, kind = JournalName.parse(entry)
                path = os.path.join(self.root, "ax", stage, entry)
                if kind == ".journal":
                    found.update(self._journal_lines(path, name))
                elif name.journal not in names:
                    for bucket in os.listdir(path):
                        self._bucket_lines(os.path.join(path, bucket), held)
        for stage in (Stage.STAGING, Stage.FAILED):
            for bucket in os.listdir(os.path.join(self.root, "ax", stage)):
                self._bucket_lines(os.path.join(self.root, "ax", stage, bucket), held)
        for (tenant, _), data in held.items():
            found.update((tenant, line) for line in gzip.decompress(data).decode().splitlines())
        return found

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        """Acknowledged records are there once; refused ones once or not at all; no others."""
        found = self._found()
        assert {record: n for record, n in found.items() if n != 1} == {}
        assert set(self.acknowledged) - set(found) == set()
        assert set(found) - set(self.acknowledged) - self.uncertain == set()

    def teardown(self) -> None:
        """With the store up, quiet sweeps empty staging, and every acknowledged record is in the store."""
        try:
            if hasattr(self, "run"):
                self.store.up = True
                self.store.refuse = lambda tenant, key: None
                result_of(self.run.closing.stopService())
                self._restart()
                self.run.recovery.work()
                for _ in range(8):
                    self.run.clock.pump([100] * 8)
                left = {stage: set(os.listdir(os.path.join(self.root, "ax", stage))) for stage in Stage}
                left[Stage.RECOVERED].discard(UNREADABLE)  # journals that held nothing but a torn frame
                assert left == {stage: set() for stage in Stage}
                self.nothing_is_lost_or_doubled()
                self.run.premises.release()
        finally:
            shutil.rmtree(self.root)


TestPipeline = Pipeline.TestCase
TestPipeline.settings = settings(max_examples=either(60, 30), stateful_step_count=40, deadline=None)
