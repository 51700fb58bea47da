"""What can be asked of a collector: to send again what has failed, and to send everything now.

    POST /retry   {"bucket": NAME} or {"all": true}     {"retried": how many went back to staging}
    POST /drain   {}                                    202 {"draining": true}; GET /status tells how far it is

Both need the header `X-Axcollector`, which other web pages cannot send (`site`).
"""

from typing import Protocol

import msgspec
from klein import Klein
from twisted.internet import defer
from twisted.logger import Logger
from twisted.web.iweb import IRequest

from axcollector import answers
from axcollector.admin.asked import document_asked
from axcollector.core.errors import Rejected, SpoolFailed

_WHICH = 'Say which: {"bucket": NAME} or {"all": true}'


class Obliging(Protocol):
    """Who can be asked."""

    def retry_failed(self, bucket: str | None = None) -> "defer.Deferred[int]":
        """As `Collector.retry_failed`."""
        ...

    def drain(self) -> None:
        """As `Collector.drain`."""
        ...


class Retry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which buckets to send again."""

    bucket: str | None = None
    all: bool = False


class Drain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing more to say."""


_log = Logger()


def add_actions(app: Klein, obliging: Obliging) -> None:
    """Give an app the routes that change something."""

    @app.route("/retry", methods=["POST"])
    async def retry(request: IRequest) -> bytes:
        """Move failed buckets back to staging, and deliver them."""
        asked = document_asked(request, Retry)
        if (asked.bucket is None) != asked.all:
            raise Rejected("BAD_DATA", _WHICH)
        try:
            retried = await obliging.retry_failed(asked.bucket)
        except OSError as exc:
            _log.error("failed buckets cannot be moved back to staging: {problem}", problem=str(exc))
            raise SpoolFailed(f"Not all could be moved back to staging: {exc.strerror}") from exc
        if not retried and not asked.all:
            raise Rejected("NOT_FOUND", "There is no such bucket in failed; it may be under way already")
        return answers.give(request, 200, msgspec.json.encode({"retried": retried}))

    @app.route("/drain", methods=["POST"])
    def drain(request: IRequest) -> bytes:
        """Finish open journals, and deliver all that is there."""
        document_asked(request, Drain)
        obliging.drain()
        return answers.give(request, 202, b'{"draining": true}')
