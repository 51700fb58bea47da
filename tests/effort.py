"""How much of a search without an end is done in one run: what finds a likely fault, or much more.

Sweeps and random searches take a sample each time that the tests are run, by hand or for a change; the random ones
another sample each time. With `AXCOLLECTOR_PROOFS=thorough` they go as far as is worth an hour, before a release.
"""

import os
from typing import Final

THOROUGH: Final = os.environ.get("AXCOLLECTOR_PROOFS") == "thorough"


def either(thorough: int, usual: int) -> int:
    """How many, of what there are more than any run can try."""
    return thorough if THOROUGH else usual
