"""The signing service's routes: `GET /analytics` answers a signed URL, to whoever has a token of the tenant.

    check                                              status   errorCode
    the path, the method                               404 405  NOT_FOUND, METHOD_NOT_ALLOWED
    one `Authorization: Bearer` with a token of ours   401      UNAUTHORIZED
    the query says what is to be signed                400      MISSING_FIELD, BAD_DATA
    the token is good for that tenant                  403      FORBIDDEN
    tokens and credentials can be had                  503      STORAGE_UNAVAILABLE
    it is signed                                       200      {"url": …}

Neither a token nor a signed URL is logged, nor is either in an error's text.
"""

from collections.abc import Mapping
from typing import Protocol

import msgspec
from klein import Klein
from klein.resource import KleinResource
from twisted.internet import defer
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest

from axcollector import answers
from axcollector.admin.health import add_health
from axcollector.core.authorization import token_in
from axcollector.core.errors import Rejected
from axcollector.core.signing import SigningRequest, parse_request
from axcollector.core.status import Check, required_checks
from axcollector.reception import Reception
from axcollector.tokens import Token
from axcollector.webapi import JSONResource, answer_to_failure, headers_of, plain


class Presigner(Protocol):
    """Who signs."""

    def presign(self, request: SigningRequest, /) -> "defer.Deferred[str]":
        """Fires with a URL. Fails with `Unavailable` where there is nothing to sign with."""
        ...

    def problem(self) -> str | None:
        """Why there is nothing to sign with; None: there is, as far as known."""
        ...


class Tokens(Protocol):
    """Who knows tokens."""

    def find(self, secret: str, /) -> Token | None:
        """The token of this text, if it is good for anything; raises `Unavailable` where that is not known."""
        ...

    def problem(self) -> str | None:
        """Why that is not known at present; None: it is."""
        ...


class SignerAPI:
    """The routes of a signing service."""

    _log = Logger()

    def __init__(self, tokens: Tokens, presigner: Presigner) -> None:
        self._tokens = tokens
        self._presigner = presigner
        self._app = Klein()
        self._app.route("/analytics", methods=["GET"], strict_slashes=False)(plain(self._sign))
        add_health(self._app, self)

        @self._app.handle_errors(Exception)
        def failed(request: IRequest, failure: Failure) -> bytes:
            return answer_to_failure(request, failure, self._log)

    def resource(self) -> KleinResource:
        """The resource; its answers are JSON, errors included."""
        return JSONResource(self._app)

    def checks(self) -> Mapping[str, Check]:
        """What has to be well for it to sign, by name."""
        return required_checks({"tokens": self._tokens.problem(), "credentials": self._presigner.problem()})

    async def _sign(self, request: IRequest) -> bytes:
        token = self._token_of(request)
        reception: Reception = getattr(request, "reception", None) or Reception()
        if reception.oversize or reception.shed:
            raise Rejected("PAYLOAD_TOO_LARGE", "A request to sign has no body")
        asked = parse_request(request.uri.partition(b"?")[2])
        if not token.covers(asked.tenant):
            self._log.info("token {id} is not good for tenant {tenant}", id=token.id, tenant=asked.tenant)
            raise Rejected("FORBIDDEN", "The token is not good for this tenant")
        url = await self._presigner.presign(asked)
        self._token_of(request)  # credentials may have taken a while, in which it may have been revoked
        self._log.debug("signed {key} for token {id}", key=asked.key, id=token.id)
        request.setHeader(b"Cache-Control", b"no-store")
        return answers.give(request, 200, msgspec.json.encode({"url": url}))

    def _token_of(self, request: IRequest) -> Token:
        secret = token_in(headers_of(request, b"authorization"))
        if secret is None:
            raise Rejected("UNAUTHORIZED", "A bearer token is needed")
        token = self._tokens.find(secret)
        if token is None:
            raise Rejected("UNAUTHORIZED", "The bearer token is not known: it may be expired or revoked")
        return token
