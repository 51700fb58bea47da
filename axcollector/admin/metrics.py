"""`/metrics` on the admin port: for Prometheus and whatever reads its formats.

There is a registry for each app, and none is global: several collectors in one process do not mix.
"""

from collections.abc import Iterator
from typing import Protocol

from klein import Klein
from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from twisted.web.iweb import IRequest

from axcollector import answers
from axcollector.admin.families import families
from axcollector.core.status import Status
from axcollector.webapi import headers_of


class Subject(Protocol):
    """Whose metrics they are."""

    def status(self) -> Status:
        """How it is."""
        ...


class _Families(Collector):
    """What prometheus-client asks for metrics."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def describe(self) -> Iterator[Metric]:
        """Nothing, before anybody asks."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """The metrics of this moment."""
        return families(self._subject.status())


def add_metrics(app: Klein, subject: Subject) -> None:
    """Give an app the route; with the memory, the descriptors and the start of this process."""
    registry = CollectorRegistry()
    registry.register(_Families(subject))
    ProcessCollector(registry=registry)

    @app.route("/metrics", methods=["GET"])
    def metrics(request: IRequest) -> bytes:
        """All of them, in the format that is asked for."""
        encode, content_type = choose_encoder(",".join(headers_of(request, b"accept")))
        body = answers.give(request, 200, encode(registry))
        request.setHeader(b"Content-Type", content_type.encode())
        request.setHeader(b"Cache-Control", b"no-store")
        return body
