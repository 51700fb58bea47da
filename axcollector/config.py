"""`Config`: every setting, its default, what it may be, and what it is for. The one table that everything is made from.

The class is the table (`config_keys`). `config_file` reads it from YAML and the command line; an embedding program
makes one directly. Either way an invalid value cannot be made.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final

from axcollector.config_endpoints import Endpoint, Endpoints, is_local, may_be_shared, takes_any_port
from axcollector.config_keys import MIB, Key, keys_of, read_values
from axcollector.config_urls import ProxyUrl, StoreUrl, Url, shortly
from axcollector.config_values import (
    Choice,
    Duration,
    Flag,
    Path,
    PathPart,
    Seconds,
    Size,
    Text,
    Whole,
)
from axcollector.core.errors import ConfigError
from axcollector.threads import KINDS, LEAST

INSTANCE_ID: Final = Text(r"[A-Za-z0-9-]{1,64}", "a UUID, or another name of up to 64 letters, digits and dashes")
"""It becomes part of file names, where `_` and `.` separate; installations of apid have ids that are no UUIDs."""

_NEEDED: Final = "needed with sync: transicator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of one collector. Paths are absolute, whatever was given.

    Raises:
        ConfigError: A value cannot be used; the message names the key, the value and what is allowed.
    """

    listen: Annotated[
        Sequence[str], Endpoints(), "where gateways send their records; on the command line it may be repeated"
    ] = ("tcp:9000:interface=127.0.0.1",)
    admin_listen: Annotated[
        str, Endpoint(may_be_empty=True), "where health is asked for, never the port that takes records"
    ] = "tcp:9001:interface=127.0.0.1"
    base_path: Annotated[str, PathPart(), "what the paths of the native routes begin with"] = "/analytics"
    local_storage_path: Annotated[str, Path(), "the data directory; made, with mode 0700, if absent"] = (
        "./axcollector-data"
    )
    data_path: Annotated[str, PathPart(), "the directory below local_storage_path that holds the stages"] = "/ax"
    collection_interval: Annotated[int, Whole(1, 86_400, "s"), "how long an interval is"] = 120
    close_grace: Annotated[float, Seconds(), "how long after its end an interval is closed"] = 5.0
    journal_max_bytes: Annotated[int, Size(), "a journal of this size is followed by another in the same interval"] = (
        256 * MIB
    )
    upload_interval: Annotated[float, Seconds(0.01), "how often staging is swept"] = 5.0
    upload_concurrency: Annotated[
        int, Whole(1, 1024, "files"), "how many are uploaded at a time; no tenant holds more than half of the slots"
    ] = 16
    upload_timeout: Annotated[
        float, Seconds(0.01), "an upload without progress for so long has failed, as has one below 100 kB/s overall"
    ] = 60.0
    max_upload_attempts: Annotated[int, Whole(1, 1000), "failures after which a bucket goes to failed/"] = 3
    failed_retry_batch: Annotated[
        int, Whole(1, 100_000, "buckets"), "how many go back from failed/ to staging/ at a time"
    ] = 10
    buffer_channel_size: Annotated[
        int, Whole(1, 1_000_000, "batches"), "how many may wait for a commit before new ones get 503"
    ] = 1000
    max_pending_bytes: Annotated[
        int, Size(), "bodies being received or waiting, as sent, before new ones get 503"
    ] = 128 * MIB  # fmt: skip
    max_body_bytes: Annotated[int, Size(), "the largest body, as sent"] = 10 * MIB
    max_decompressed_bytes: Annotated[int, Size(), "the largest body, after gunzip"] = 50 * MIB
    max_batch_records: Annotated[int, Whole(1, 10_000_000, "records"), "the largest batch"] = 20_000
    request_timeout: Annotated[float, Seconds(0.01), "a request not received whole by then is cut"] = 60.0
    max_connections: Annotated[
        int,
        Whole(1, 1_000_000, "connections"),
        "how many clients may be connected; more get 503. Fewer where the process may not open so many files",
    ] = 10_000
    max_connections_per_address: Annotated[
        int,
        Whole(0, 1_000_000, "connections"),
        "how many may be from one address; 0: any number, as a load balancer's may all be",
    ] = 0
    durability: Annotated[
        str,
        Choice(("fsync", "write", "memory")),
        "what a 200 means: on stable storage; handed to the kernel; queued in memory",
    ] = "fsync"
    spool_quota_bytes: Annotated[
        int,
        Size(0),
        "how large the stages may be together before new batches get 503;"
        " 0: until less than 10 % of the file system is free. Nothing is ever deleted to make room",
    ] = 0
    compression: Annotated[
        str, Choice(("fast", "small")), "small: files are packed again when a journal is split"
    ] = "fast"  # fmt: skip
    use_caching: Annotated[bool, Flag(), "false: the registry is asked for every batch"] = True
    cache_refresh_interval: Annotated[
        float, Seconds(), "how often the catalog is rebuilt in full, should an event have been missed; 0: never"
    ] = 1800.0
    uap_server_base: Annotated[
        str | None, Url(), "the signing service; when set, it says where files go, and store is not used"
    ] = None
    store: Annotated[
        str | None, StoreUrl(), "where files go without a signing service; by default file:, local_storage_path, /store"
    ] = None
    s3_endpoint_url: Annotated[
        str | None, Url(), "for s3: in place of AWS, what speaks S3: MinIO, Ceph, R2, Google Cloud Storage"
    ] = None
    s3_region: Annotated[
        str, Text(r"[A-Za-z0-9-]{1,64}", "a region's name, such as eu-west-1"), "for s3: where the bucket is"
    ] = "us-east-1"
    bearer_token: Annotated[str | None, Text(), "the token for the signing service"] = field(default=None, repr=False)
    bearer_token_file: Annotated[
        str | None, Path(), "a file that holds the token for the signing service; read again when it changes"
    ] = None
    instance_id: Annotated[
        str | None, INSTANCE_ID, "this installation's id, part of file names; by default made once and kept"
    ] = None
    registry_path: Annotated[
        str | None, Path(), "the SQLite file of scopes and developers; by default registry.db in local_storage_path"
    ] = None
    sync: Annotated[
        str,
        Choice(("registry", "transicator", "none")),
        "where snapshots and changes come from; none: an embedding program tells them",
    ] = "registry"
    apigeesync_proxy_server_base: Annotated[str | None, Url(), f"where tokens come from; {_NEEDED}"] = None
    apigeesync_snapshot_server_base: Annotated[str | None, Url(), f"where snapshots come from; {_NEEDED}"] = None
    apigeesync_change_server_base: Annotated[str | None, Url(), f"where changes come from; {_NEEDED}"] = None
    apigeesync_consumer_key: Annotated[str | None, Text(), f"whom tokens are given to; {_NEEDED}"] = None
    apigeesync_consumer_secret: Annotated[str | None, Text(), f"what proves it; {_NEEDED}"] = field(
        default=None, repr=False
    )
    apigeesync_cluster_id: Annotated[str | None, Text(), f"whose tenants they are; {_NEEDED}"] = None
    apigeesync_poll_interval: Annotated[
        float, Duration(1), "how long to wait at most after failures of the sync servers"
    ] = 120.0
    apigeesync_instance_name: Annotated[
        str | None, Text(), "what this installation is called there; by default the host's name"
    ] = None
    max_record_age: Annotated[float, Seconds(0, 1e11), "how far back a record's start may lie; 0: any time"] = 0.0
    max_clock_skew: Annotated[float, Seconds(0, 1e11), "how far ahead a record's start may lie; 0: any time"] = 0.0
    overwrite_tenant: Annotated[
        bool, Flag(), "true: a record's organization and environment are its scope's, whatever was sent"
    ] = False
    invalid_records: Annotated[
        str,
        Choice(("reject_batch", "quarantine")),
        "what one bad record does to its batch; quarantine: the others are kept, and it is set aside with the reason",
    ] = "reject_batch"
    quarantine_quota_bytes: Annotated[
        int,
        Size(0),
        "how much may be set aside before batches with bad records get 503; not a part of spool_quota_bytes;"
        " 0: as much as the disk takes",
    ] = 1024 * MIB
    ingest_auth: Annotated[str, Choice(("none", "token")), "whether requests need a token of their scope"] = "none"
    rate_limit_records: Annotated[
        int, Whole(0, 10**9, "records/s"), "what each scope may send before its batches get 429; 0: any number"
    ] = 0
    rate_limit_bytes: Annotated[
        int, Size(0), "the same for bytes of bodies a second, as sent; 0: any number"
    ] = 0  # fmt: skip
    rate_limit_burst: Annotated[
        float, Seconds(1, 86_400), "what comes in so long at these rates may be sent at once"
    ] = 10.0  # fmt: skip
    admin_token: Annotated[
        str | None, Text(), "the token for admin_listen; needed where that can be reached from other machines"
    ] = field(default=None, repr=False)
    admin_token_file: Annotated[str | None, Path(), "a file that holds it; read at the start and on SIGHUP"] = None
    workers: Annotated[int, Whole(0, 1024, "processes"), "how many take records; 0: one a core"] = 1
    work_threads: Annotated[
        int,
        Whole(LEAST, 64, "threads"),
        "how many threads a process may have for work that waits, beside the reactor's; one only writes journals, and"
        f" the others are started when needed. With fewer than {KINDS} kinds of work wait for each other",
    ] = KINDS
    http_parser: Annotated[str, Choice(("llhttp", "twisted")), "what parses requests"] = "llhttp"
    upload_proxy: Annotated[
        str | None, ProxyUrl(), "the forward proxy for uploads and sync; with a password, better not on a command line"
    ] = field(default=None, repr=False)
    log_format: Annotated[str, Choice(("text", "json")), "how log lines are written"] = "text"

    def __post_init__(self) -> None:
        """Read every value by its kind, then look at those that must suit each other."""
        read_values(self, KEYS)
        _check_together(self)

    @property
    def data_directory(self) -> str:
        """The directory that holds the stages."""
        return self.local_storage_path + self.data_path

    @property
    def registry_file(self) -> str:
        """The registry's file."""
        return self.registry_path or os.path.join(self.local_storage_path, "registry.db")

    @property
    def tokens_file(self) -> str:
        """The file of the tokens of `ingest_auth: token`."""
        return os.path.join(self.local_storage_path, "tokens.db")

    @property
    def store_url(self) -> str:
        """Where files go without a signing service."""
        return self.store or "file:" + os.path.join(self.local_storage_path, "store")


KEYS: Final[Mapping[str, Key]] = keys_of(Config)
"""Every key, by name, in the order of the documentation."""


def _check_together(config: Config) -> None:
    """Refuse values that do not suit each other; the message names both keys."""
    if config.bearer_token is not None and config.bearer_token_file is not None:
        raise ConfigError("bearer_token and bearer_token_file are both set; allowed is one of them")
    if config.admin_listen in config.listen and not takes_any_port(config.admin_listen):
        raise ConfigError(
            f"admin_listen and listen are both {config.admin_listen!r}; allowed are different endpoints,"
            " because whoever sends records is not to see the admin pages"
        )
    _check_admin(config)
    _check_sync(config)
    _check_workers(config)
    for key, path in (("store", config.store_url.removeprefix("file:")), ("registry_path", config.registry_file)):
        if os.path.isabs(path) and os.path.commonpath([path, config.data_directory]) == config.data_directory:
            raise ConfigError(
                f"{key}: {path!r} lies in {config.data_directory!r}, which data_path keeps for the stages;"
                " allowed is a path outside of it"
            )


def _check_workers(config: Config) -> None:
    """Refuse what several processes cannot share."""
    if config.workers == 1:
        return
    for endpoint in config.listen:
        if not may_be_shared(endpoint):
            raise ConfigError(
                f"listen: {endpoint!r} cannot be shared by worker processes, and workers is {config.workers};"
                " allowed are tcp:, axtls: and systemd:, or workers: 1"
            )
    if config.sync == "none":
        raise ConfigError(
            f"sync: none leaves it to an embedding program to tell one collector, and workers is {config.workers};"
            " allowed is sync: registry or transicator, or workers: 1"
        )


def _check_admin(config: Config) -> None:
    """Refuse an admin port that others can reach and that asks nobody for a token."""
    if config.admin_token is not None and config.admin_token_file is not None:
        raise ConfigError("admin_token and admin_token_file are both set; allowed is one of them")
    has_token = config.admin_token is not None or config.admin_token_file is not None
    if config.admin_listen and not has_token and not is_local(config.admin_listen):
        raise ConfigError(
            f"admin_token is missing; it is needed because admin_listen, {shortly(config.admin_listen)}, may be reached"
            " from other machines: set it in the configuration file, or add interface=127.0.0.1"
        )


SYNC_KEYS: Final = tuple(name for name in KEYS if name.startswith("apigeesync_"))
"""The keys of `sync: transicator`; they say nothing to the other sources."""


def _check_sync(config: Config) -> None:
    """With `sync: transicator`, refuse what is missing, and a cluster that the servers cannot be asked for."""
    if config.sync != "transicator":
        return
    for name in SYNC_KEYS:
        if getattr(config, name) is None and KEYS[name].description.endswith(_NEEDED):
            raise ConfigError(f"{name} is missing; it is {_NEEDED}")
    if not re.fullmatch("[0-9a-z_-]+", config.apigeesync_cluster_id or ""):
        shown = KEYS["apigeesync_cluster_id"].shown(config.apigeesync_cluster_id)
        raise ConfigError(f"{shown} is not allowed; allowed are lower case letters, digits, _ and -")
