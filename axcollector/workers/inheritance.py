"""What a worker process is started with: its command, its environment, its settings. No secret is in any of them."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Final

import axcollector
from axcollector.config import KEYS, Config

COMMAND: Final[Sequence[str]] = (sys.executable, "-P", "-m", "axcollector.worker")
"""`-P`: what lies in the directory that we work in is no module of ours."""
_NOT_INHERITED: Final = ("LISTEN_", "NOTIFY_SOCKET", "WATCHDOG_", "AWS_")
"""What names in the environment begin with that are meant for the parent alone: systemd's, and credentials."""
OF_WORKERS: Final = frozenset(
    {
        "base_path",
        "buffer_channel_size",
        "collection_interval",
        "durability",
        "ingest_auth",
        "invalid_records",
        "journal_max_bytes",
        "max_batch_records",
        "max_body_bytes",
        "max_clock_skew",
        "max_connections",
        "max_connections_per_address",
        "max_decompressed_bytes",
        "max_pending_bytes",
        "max_record_age",
        "overwrite_tenant",
        "rate_limit_burst",
        "rate_limit_bytes",
        "rate_limit_records",
        "request_timeout",
        "use_caching",
    }
)
"""The keys that say something to workers alone: with new workers they can be exchanged."""


def environment_of_workers(environment: Mapping[str, str]) -> dict[str, str]:
    """What workers inherit of the parent's environment, with this package to be found wherever they work."""
    kept = {name: value for name, value in environment.items() if not name.startswith(_NOT_INHERITED)}
    ours = os.path.dirname(os.path.dirname(os.path.abspath(axcollector.__file__)))
    paths = [ours, *filter(None, kept.get("PYTHONPATH", "").split(os.pathsep))]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths)}


def settings_of_workers(config: Config) -> Mapping[str, Any]:
    """The configuration as workers get it: what only the parent does is left out, and with it all secrets."""
    left_out: dict[str, Any] = {name: None for name, key in KEYS.items() if key.is_private}
    left_out |= {"workers": 1, "sync": "none", "admin_listen": "", "bearer_token_file": None}
    reduced = replace(config, **left_out)
    return {each.name: getattr(reduced, each.name) for each in fields(reduced)}


def worker_count(configured: int, cores: int) -> int:
    """How many workers there are to be; 0 is configured for one a core."""
    return configured or max(cores, 1)
