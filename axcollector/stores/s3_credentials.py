"""Whose right to write to S3 we use: looked up by botocore, kept for a while, looked up anew where they are refused.

botocore knows the places where credentials are: the environment, `~/.aws`, a process that prints them, a container's or
a machine's metadata service, a role to assume. Asking may mean network I/O and takes as long as it takes, so it is done
in a thread. Temporary credentials are renewed by botocore when they are asked for within the last quarter of an hour of
their life; it fails to give them when nothing could be renewed for the last ten minutes of it.

So they are asked for every `FRESH_SECONDS` while files are sent, without keeping any file waiting, and what is older
than `USABLE_SECONDS` is not used: no request is ever signed with credentials that have expired, and a metadata service
that is away for a few minutes is not even noticed.
"""

from collections.abc import Callable
from typing import Any, Final, NoReturn

import botocore.exceptions
import botocore.session
from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from axcollector.core.errors import CredentialsRefused
from axcollector.services import Worker
from axcollector.stores.s3_signing import Credentials

FRESH_SECONDS: Final = 60.0
USABLE_SECONDS: Final = 300.0
"""Less than what botocore leaves of a life, see above."""

_LOOK_UP_ERRORS: Final = (
    *(botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError),
    *(OSError, RuntimeError, ValueError, LookupError),  # what its providers let through
)
_LONGEST_REASON: Final = 300


class SessionCredentials:
    """Call it for credentials; blocking, in one thread only. Where they come from is botocore's business.

    Args:
        authority: Who is asked with them, for errors.
        find: Makes what gives credentials, or None where there are none; by default botocore's chain of providers.
    """

    def __init__(self, authority: str, find: Callable[[], Any] | None = None) -> None:
        self._authority = authority
        self._find = find or _of_a_new_session
        self._found: Any = None

    def __call__(self, anew: bool) -> Credentials:  # noqa: FBT001 - it goes through `Worker.run`
        """The credentials of the moment.

        Args:
            anew: Whether to look in all places again, instead of renewing what was found there.

        Raises:
            CredentialsRefused: There are none, or they cannot be had at present.
        """
        try:
            if anew or self._found is None:
                self._found = self._find()
            frozen = None if self._found is None else self._found.get_frozen_credentials()
        except _LOOK_UP_ERRORS as exc:
            reason = " ".join(str(exc).split())[:_LONGEST_REASON] or type(exc).__name__
            raise CredentialsRefused(self._authority, f"credentials cannot be looked up: {reason}") from exc
        if frozen is None or not frozen.access_key or not frozen.secret_key:
            self._found = None
            message = "there are no credentials where the AWS tools look for them (environment, ~/.aws, metadata)"
            raise CredentialsRefused(self._authority, message)
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token or None)


def _of_a_new_session() -> Any:  # noqa: ANN401 - botocore has no types
    return botocore.session.Session().get_credentials()


class CredentialCache:
    """Credentials that are looked up in a thread, one look-up at a time."""

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        worker: Worker,
        look_up: Callable[[bool], Credentials],
        authority: str,
        *,
        patience_seconds: float,
    ) -> None:
        """Look nothing up yet.

        Args:
            clock: What tells and schedules time.
            worker: Who looks up.
            look_up: Gives credentials, or raises; told whether to begin anew.
            authority: Who is asked with them, for errors.
            patience_seconds: How long anybody waits for a look-up.
        """
        self._clock = clock
        self._worker = worker
        self._look_up = look_up
        self._authority = authority
        self._patience = patience_seconds
        self._credentials: Credentials | None = None
        self._since = 0.0
        self._anew = False
        self._is_looking = False
        self._waiters: list[defer.Deferred[Credentials]] = []

    def current(self) -> "defer.Deferred[Credentials]":
        """The credentials to sign with now.

        Fires at once while there are some that are good; they may be looked up again meanwhile. Fails with
        `CredentialsRefused`. Cancelling forgets the result.
        """
        age = self._clock.seconds() - self._since
        credentials = self._credentials if 0 <= age < USABLE_SECONDS else None
        result = self._next() if credentials is None else defer.succeed(credentials)
        if (credentials is None or age >= FRESH_SECONDS) and not self._is_looking:
            self._begin()
        return result

    def _next(self) -> "defer.Deferred[Credentials]":
        """Those that the next look-up to end will give."""
        waiter: defer.Deferred[Credentials] = defer.Deferred(self._forget)
        self._waiters.append(waiter)
        return waiter.addTimeout(self._patience, self._clock, self._timed_out)

    def _forget(self, waiter: "defer.Deferred[Credentials]") -> None:
        self._waiters.remove(waiter)

    def refused(self, credentials: Credentials) -> None:
        """These were not taken: the next ones are looked for in all places."""
        if credentials == self._credentials:
            self._credentials = None
            self._anew = True

    def _begin(self) -> None:
        self._is_looking = True
        anew, self._anew = self._anew, False
        self._worker.run(self._look_up, anew).addCallbacks(self._found, self._not_found)

    def _found(self, credentials: Credentials) -> None:
        if self._anew:  # while these were on their way, the same were refused
            self._begin()
            return
        self._is_looking = False
        self._credentials, self._since = credentials, self._clock.seconds()
        self._tell(credentials)

    def _not_found(self, failure: Failure) -> None:
        self._is_looking = False
        if self._credentials is not None and not self._waiters:
            self._log.warn("{reason}; those that are there are used", reason=failure.getErrorMessage())
        self._tell(failure)

    def _tell(self, outcome: Credentials | Failure) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(outcome)

    def _timed_out(self, _: object, seconds: float) -> NoReturn:
        message = f"looking the credentials up takes longer than {seconds:g} s"
        raise CredentialsRefused(self._authority, message)
