"""Makes `twistd axcollector` and `twistd axsigner` known to Twisted."""

from twisted.application.service import ServiceMaker

axcollector = ServiceMaker(
    "axcollector",
    "axcollector.tap",
    "Collects API-traffic records over HTTP and delivers them to object storage.",
    "axcollector",
)

axsigner = ServiceMaker(
    "axsigner",
    "axcollector.signer_tap",
    "Signs URLs for collectors, which then need no credentials of the object storage.",
    "axsigner",
)
