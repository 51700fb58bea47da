"""Having the launcher of a process write its log as lines of JSON, into whatever file it would have written text to.

Where lines go is the launcher's to say: `twistd --logfile`, `python -m twisted --log-file`. It makes its observer after
the service, and before the first line is written: twistd takes the one that its application has, if it has any, and
`python -m twisted` the factory among its options. With `twistd --logger` and `--syslog` others say how lines are
written, and go on doing so.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.logger import FileLogObserver, ILogObserver
from twisted.python.components import Componentized
from twisted.python.usage import Options
from twisted.scripts._twistd_unix import UnixAppLogger

from axcollector.log_json import json_line, json_observer


def in_format(log_format: str, options: Options) -> Callable[[object], None]:
    """What is to be done with the application that a launcher makes, for its log to be in a format.

    Args:
        log_format: As in the configuration.
        options: The service's own; their parent is the launcher's.
    """
    return partial(_write_json, options.parent) if log_format == "json" else _leave_it


def _leave_it(application: object) -> None:
    """The launcher writes text by itself."""


def _write_json(launcher: Any, application: object) -> None:  # noqa: ANN401 - the options of either launcher, or none
    if launcher is None or not isinstance(application, Componentized):
        return
    if "fileLogObserverFactory" in launcher:  # python -m twisted
        launcher["fileLogObserverFactory"] = json_observer
    elif not launcher.get("logger") and not launcher.get("syslog"):
        observer = UnixAppLogger(launcher)._getLogObserver()  # noqa: SLF001 - twistd's own file, with its rotation
        if isinstance(observer, FileLogObserver):
            observer.formatEvent = json_line
        application.setComponent(ILogObserver, observer)
