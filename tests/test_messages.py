"""What a parent and its workers say to each other."""

import pytest

from axcollector.core.messages import (
    MAX_MESSAGE_BYTES,
    Changes,
    Door,
    Leave,
    Orders,
    Ready,
    Reports,
    RowChange,
    Said,
    Setup,
    Shown,
    Situation,
    Snapshot,
    Standing,
    frame,
)

ORDERS = [
    Setup(
        settings={"listen": ["tcp:9000"], "workers": 1, "close_grace": 0.5, "use_caching": True, "store": None},
        instance_id="id",
        starts=3,
        worker=7,
        doors=[Door("tcp:9000", 5)],
        situation=Situation(None, 0),
        snapshot=Snapshot(1, "v1", "/registry.db"),
    ),
    Situation("no room", 1 << 40),
    Snapshot(2, "", "/r"),
    Changes(
        3, "v2", [RowChange(1, "kms.app", {"id": "ü", "name": None}, None), RowChange(3, "t", None, {})], more=True
    ),
    Changes(3, "v2", []),
    Leave(gently=True),
]
REPORTS = [
    Ready(),
    Shown(4, is_shown=False),
    Said("error", "axcollector.spool", "two\nlines"),
    Standing({"spool": None, "catalog": "why"}, {"a": 1}, 5),
]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1 << 20])
def test_messages_come_in_whatever_pieces(size: int) -> None:
    """Each is read once its last byte is there, with those behind it in the same piece."""
    orders, reports = Orders(), Reports()
    said = b"".join(map(frame, ORDERS))
    heard = [order for at in range(0, len(said), size) for order in orders.feed(said[at : at + size])]
    assert heard == ORDERS
    said = b"".join(map(frame, REPORTS))
    assert [each for at in range(0, len(said), size) for each in reports.feed(said[at : at + size])] == REPORTS


@pytest.mark.parametrize(
    "data",
    [
        (MAX_MESSAGE_BYTES + 1).to_bytes(4, "big"),
        b"\0\0\0\1\xc1",
        b"\0\0\0\0",
        frame(Ready()),
    ],
)
def test_what_is_no_message(data: bytes) -> None:
    """It is refused as soon as that can be told: too long, no MessagePack, or not what a parent says."""
    with pytest.raises(ValueError):  # noqa: PT011 - its text is for a log
        Orders().feed(data)


def test_what_no_worker_says() -> None:
    """An order is no report."""
    with pytest.raises(ValueError):  # noqa: PT011 - as above
        Reports().feed(frame(Leave(gently=False)))
