"""The members of a journal: found whatever is between them, at any pace, and brought to another file."""

import io
import zlib

from hypothesis import given
from hypothesis import strategies as st

from axcollector.core import deflate, frames
from axcollector.courtesy import Courtesy
from axcollector.members import members_in

IDENTITY = "20161124150800.20161124151000_id_writer_1-0-0"


class Counting(Courtesy):
    """Counts how often it may step back."""

    steps = 0

    def step_back(self) -> None:
        self.steps += 1


LINES = st.tuples(st.sampled_from(["acme~prod", "zoo~test"]), st.integers(1, 4), st.integers(0, 2))


@given(st.lists(LINES, max_size=20), st.integers(0, 400_000), st.booleans())
def test_what_a_journal_holds(lines: list[tuple[str, int, int]], zeros: int, damaged: bool) -> None:
    """Every member, of records and of what was set aside, where it lies and how many are in it, slice by slice."""
    journal = b""
    expected: dict[tuple[str, bool], bytes] = {}
    counts = {False: 0, True: 0}
    for sequence, (tenant, count, aside_count) in enumerate(lines):
        text, aside = b"%d\n" % sequence * count, b"a%d\n" % sequence * aside_count
        aside_member = deflate.member(aside) if aside else b""
        journal += frames.write(IDENTITY, sequence, tenant, count, deflate.member(text), aside_member, aside_count)
        for is_aside, part, number in ((False, text, count), (True, aside, aside_count)):
            if part:
                expected[tenant, is_aside] = expected.get((tenant, is_aside), b"") + part
                counts[is_aside] += number
    content = (b"x" * 1000 if damaged else b"") + journal + bytes(zeros)
    courtesy = Counting()
    found = members_in(io.BytesIO(content), IDENTITY, courtesy)
    assert courtesy.steps == -(-len(content) // (1 << 18))
    assert (found.contents.records, found.contents.aside_records) == (counts[False], counts[True])
    assert found.contents.frames == len(lines)
    assert found.blank is (not lines and not damaged)
    assert (found.damaged > 0) is damaged
    read = {
        (tenant, is_aside): b"".join(
            zlib.decompress(content[at : at + length], 31)
            for at, length in zip(members.offsets, members.lengths, strict=True)
        )
        for is_aside, tenants in ((False, found.contents.tenants), (True, found.contents.aside))
        for tenant, members in tenants.items()
    }
    assert read == expected
    assert bool(found.contents) is bool(lines)
