"""Makes `twistd axcollector` known to Twisted."""

from twisted.application.service import ServiceMaker

axcollector = ServiceMaker(
    "axcollector",
    "axcollector.tap",
    "Collects API-traffic records over HTTP and delivers them to object storage.",
    "axcollector",
)
