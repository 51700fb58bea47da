"""Telling the log of a failure that nobody foresaw, with its traceback and without the secrets in its words."""

import copy
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure

from axcollector.core.redaction import redacted

_MOST_WORDS = 16_384
"""A text that is longer is cut: a log is no place for what somebody has sent."""


class _Words(Exception):
    """What an exception says."""


def report(
    log: Logger,
    message: str,
    failure: Failure | None = None,
    **fields: Any,  # noqa: ANN401 - as for Logger
) -> None:
    """Log a failure, or the exception that is being handled.

    Args:
        log: The log.
        message: A format, as for `Logger.failure`.
        failure: The failure.
        fields: What the message names.
    """
    log.failure(message, without_secrets(Failure() if failure is None else failure), **fields)


def without_secrets(failure: Failure) -> Failure:
    """The same failure, of the same type and with the same traceback, whose exception is but its words, redacted."""
    told = copy.copy(failure)
    try:
        words = str(failure.value)[:_MOST_WORDS]
    except Exception:  # noqa: BLE001 - whatever somebody's exception does when it is asked for its words
        words = "(it does not say what it is)"
    told.value = _Words(redacted(words))
    return told
