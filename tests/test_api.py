"""The public names."""

import subprocess
import sys

import pytest

from axcollector import api

NAMES = {
    "AnalyticsAPI", "AxcollectorError", "Change", "ChangeList", "Collector", "Config", "ConfigError", "DirectoryInUse",
    "EndpointUnavailable", "LookupFailed", "NotReady", "Operation", "Overloaded", "Refusal", "Rejected", "Snapshot",
    "SpoolFailed", "Store", "SyncListener", "TenantRefused", "UploadFailed",
}  # fmt: skip


def test_the_names() -> None:
    """These are promised, each is there, and no other."""
    assert set(api.__all__) == NAMES
    assert {name for name in NAMES if not isinstance(getattr(api, name), type)} == set()
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = api.Nothing


def test_no_reactor_before_one_is_needed() -> None:
    """Importing the names installs no reactor and loads no klein; asking for what needs klein does."""
    code = (
        "import sys, axcollector.api as api; a = 'klein' in sys.modules, 'twisted.internet.reactor' in sys.modules;"
        "api.AnalyticsAPI; print(a, 'klein' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "(False, False) True\n"
