"""treq as stores need it: nothing is followed, kept or rewritten.

Cookies are neither sent nor read: treq fails on those that are not in ASCII. A URL is sent as it is: treq would encode
its host, and take an IPv6 address for a name.
"""

from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Self, cast

from hyperlink import EncodedURL
from treq.client import HTTPClient
from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer


class PlainClient:
    """Sends one request after the other, each as it is."""

    def __init__(self, clock: IReactorTime, agent: IAgent) -> None:
        """Prepare.

        Args:
            clock: Named to treq only lest it should look for the global reactor.
            agent: What sends a request.
        """
        self._clock = cast("Any", clock)
        no_cookies: Any = CookieJar(DefaultCookiePolicy(allowed_domains=()))  # treq's own kind is not in older ones
        self._client = HTTPClient(_WithoutCookies(agent), no_cookies)

    def request(
        self, method: str, url: str, headers: Headers, body: IBodyProducer | None
    ) -> "defer.Deferred[IResponse]":
        """Send a request.

        Fires with the answer, whose body is yet to be received. Fails with what the agent fails with.

        Raises:
            ValueError: The URL is none, or names no host that can be asked; the message may hold it. Also a failure.
        """
        return self._client.request(  # type: ignore[return-value]  # treq wraps it
            method,
            _AsItIs.from_text(url),
            headers=headers,
            data=body,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._clock,
        )


@implementer(IAgent)
class _WithoutCookies:
    """Hides the cookies of answers."""

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,  # noqa: N803 - Twisted's name
    ) -> "defer.Deferred[IResponse]":
        answer: defer.Deferred[IResponse] = self._agent.request(method, uri, headers, bodyProducer)
        return answer.addCallback(_without_cookies)


def _without_cookies(response: IResponse) -> IResponse:
    response.headers.removeHeader("Set-Cookie")
    return response


class _AsItIs(EncodedURL):
    """A URL that is in ASCII already."""

    def to_uri(self) -> Self:
        return self
