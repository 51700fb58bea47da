"""What a configuration means for the stations: the plain values that the collector gives them."""

import os

from axcollector.config import Config
from axcollector.core.layout import Stage
from axcollector.core.records import Rules
from axcollector.core.unpacking import Limits
from axcollector.journal import Durability, JournalPlan
from axcollector.premises import Identity
from axcollector.threads import Threads


def journal_plan(config: Config, identity: Identity) -> JournalPlan:
    """What journals are to be like; `identity` is a part of their names."""
    return JournalPlan(
        directory=os.path.join(config.data_directory, Stage.TMP),
        instance_id=identity.instance_id,
        starts=identity.starts,
        worker=identity.worker,
        interval_seconds=config.collection_interval,
        max_bytes=config.journal_max_bytes,
        durability=Durability(config.durability),
    )


def limits_of(config: Config) -> Limits:
    """How large a batch may be."""
    return Limits(config.max_body_bytes, config.max_decompressed_bytes, config.max_batch_records)


def rules_of(config: Config) -> Rules:
    """What is asked of records; with tokens a record's tenant is always its scope's."""
    overwrite_tenant = config.overwrite_tenant or config.ingest_auth == "token"
    return Rules(config.max_record_age, config.max_clock_skew, overwrite_tenant=overwrite_tenant)


def shared_threads(config: Config) -> Threads:
    """The threads for all blocking work but the writing of journals, which has one of its own."""
    return Threads(config.work_threads - 1)
