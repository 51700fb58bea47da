"""What is asked of a public name that is to go: it works, and warns of it once a call.

Deprecate with `twisted.python.deprecate.deprecated(Version("axcollector", …), replacement=…)`, or, for a name in a
module, `deprecatedModuleAttribute`; `Version` is incremental's, and is the first one that warns. Then give it a test:

    def test_submit_records_is_deprecated():
        assert_deprecated(lambda: submit_records(collector, scope, records), "submit_records", since="1.3.0")
"""

import warnings
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def assert_deprecated(use: Callable[[], T], name: str, since: str) -> T:
    """Use a deprecated name: what that returns.

    Raises:
        AssertionError: It does not warn, or does not say since when, and what to use instead.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = use()
    told = [str(each.message) for each in caught if each.category is DeprecationWarning and name in str(each.message)]
    assert len(told) == 1, f"{name} does not warn, or more than once: {told}"
    assert f"was deprecated in axcollector {since}" in told[0], told
    assert "please use" in told[0], told
    return result
