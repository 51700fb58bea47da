"""Sending records that were set aside to a collector again, over HTTP like any client.

The collector that runs decides, by the rules that it has now. What it takes leaves the quarantine, and is noted as gone
(`QuarantineFile.finish_lines`) as soon as it has said so: whoever is killed between its answer and that note sends at
most one request's records twice, and the same holds where a connection breaks before the answer has come.

What no configuration would let through (`Rules()`: not the rules on age) is not even sent, and stays.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Final
from urllib.parse import quote

from axcollector.cli.interrupts import Interrupted, Interrupts
from axcollector.cli.quarantine_client import Answer, Client
from axcollector.core import quarantine
from axcollector.core.errors import QuarantineError
from axcollector.core.quarantine import Entry
from axcollector.core.records import Rules
from axcollector.quarantine_files import QuarantineFile, Reason

GROUP_RECORDS: Final = 500
GROUP_BYTES: Final = 1 << 19
MAX_WAITS: Final = 5
MAX_WAIT_SECONDS: Final = 60.0
_OF_RECORD: Final = re.compile(r"(.*) \(record (\d{1,9})\)", re.DOTALL)
_OK, _UNAUTHORIZED, _TOO_LARGE = 200, 401, 413
_NO_SCOPE: Final = frozenset({"UNKNOWN_SCOPE", "FORBIDDEN"})
"""What is said of a scope that is gone; where tokens are wanted, nobody is told more than that it is forbidden."""
_BUSY: Final = frozenset({429, 503})


class Patience(Interrupts):
    """A context in which the first signal only asks for the end (`check`), so that no answer is missed."""

    number: int | None = None

    def check(self) -> None:
        """End here, if somebody has asked for it.

        Raises:
            Interrupted: Somebody has.
        """
        if self.number is not None:
            raise Interrupted(self.number)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            super()._interrupt(number, frame)
        self.number = number


@dataclass(slots=True)
class Outcome:
    """What became of the records.

    Attributes:
        accepted: Were taken, and will be delivered.
        quarantined: Were taken, and set aside again by the collector, with a new reason.
        stayed: Failed again, and stay where they are.
        problems: Why, where it is no fault of theirs.
    """

    accepted: int = 0
    quarantined: int = 0
    stayed: int = 0
    problems: dict[str, None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    entry: Entry


class Retry:
    """Sends the records of files again, one file after the other."""

    def __init__(
        self,
        client: Client,
        now: float,
        wait: Callable[[float], object],
        check: Callable[[], object],
        advance: Callable[[int], object],
    ) -> None:
        """Nothing is sent yet.

        Args:
            client: Speaks with the collector.
            now: Seconds since the epoch.
            wait: Waits so many seconds.
            check: Raises where the work is to be given up.
            advance: Is told how many records more were looked at.
        """
        self._client = client
        self._now = now
        self._wait = wait
        self._check = check
        self._advance = advance
        self.outcome = Outcome()

    def send(self, file: QuarantineFile) -> None:
        """Send what is in a file; what fails stays in it, with its new reason.

        Raises:
            QuarantineDamaged: It is damaged; it is read to its end first, so nothing of it was sent.
            QuarantineError: The collector cannot be asked. What was taken until then is gone.
        """
        for _ in file.lines():
            self._check()
        reasons: dict[int, Reason] = {}
        try:
            for group in _groups(file):
                self._check()
                self._send_group(file, self._sifted(group, reasons), reasons)
                self._advance(len(group))
        finally:
            file.close()
            if file.was_changed or reasons:
                file.rewrite(reasons)

    def _sifted(self, group: list[_Line], reasons: dict[int, Reason]) -> list[_Line]:
        """Those that some configuration would let through."""
        _, bad = quarantine.sift([line.entry.record for line in group], Rules(), self._now)
        for each in bad:
            self._keep(group[each.index], (each.code, each.reason), reasons)
        wrong = {each.index for each in bad}
        return [line for index, line in enumerate(group) if index not in wrong]

    def _keep(self, line: _Line, reason: Reason, reasons: dict[int, Reason]) -> None:
        self.outcome.stayed += 1
        if reason != (line.entry.code, line.entry.reason):
            reasons[line.number] = reason

    def _send_group(self, file: QuarantineFile, lines: list[_Line], reasons: dict[int, Reason]) -> None:
        """Send lines of one tenant and scope until each has its answer."""
        while lines:
            answer = self._ask(lines)
            match = _OF_RECORD.fullmatch(answer.reason)
            if answer.status == _OK:
                self._taken(file, lines, answer)
                return
            if match is not None and int(match[2]) < len(lines):
                self._keep(lines.pop(int(match[2])), (answer.code, match[1]), reasons)
            elif answer.status == _TOO_LARGE and len(lines) > 1:
                half = len(lines) // 2
                self._send_group(file, lines[:half], reasons)
                lines = lines[half:]
            elif answer.status == _TOO_LARGE:
                self._keep(lines.pop(), (answer.code, answer.reason), reasons)
            else:
                self._not_theirs(lines, answer)
                return

    def _ask(self, lines: list[_Line]) -> Answer:
        """What the collector says of them, having been given time where it asked for some."""
        body = b'{"records":[%b]}' % b",".join(bytes(line.entry.record) for line in lines)
        paths = _paths(lines[0].entry, self._client.base_path)
        waits = 0
        while True:
            answer = self._client.post(paths[0], body)
            if answer.code in _NO_SCOPE and len(paths) > 1:
                paths = paths[1:]
            elif answer.status in _BUSY and waits < MAX_WAITS:
                waits += 1
                self._wait(min(max(answer.retry_after, 1.0), MAX_WAIT_SECONDS))
                self._check()
            else:
                return answer

    def _taken(self, file: QuarantineFile, lines: list[_Line], answer: Answer) -> None:
        if answer.accepted + answer.quarantined != len(lines):
            raise QuarantineError(f"what answers at {self._client.url} is no collector; no record has left quarantine")
        file.finish_lines(line.number for line in lines)
        self.outcome.accepted += answer.accepted
        self.outcome.quarantined += answer.quarantined

    def _not_theirs(self, lines: list[_Line], answer: Answer) -> None:
        """Leave them as they are; other tenants' may still be taken, unless the collector takes none."""
        said = f"{answer.status} {answer.code}: {answer.reason}"
        if answer.status == _UNAUTHORIZED:
            raise QuarantineError(f"the collector wants a token ({said}): name one with --token-file")
        if answer.code not in _NO_SCOPE:
            raise QuarantineError(f"the collector at {self._client.url} answers {said}; try again later")
        entry = lines[0].entry
        self.outcome.stayed += len(lines)
        self.outcome.problems[f"records of {entry.organization} {entry.environment} were not taken: {said}"] = None


def _groups(file: QuarantineFile) -> Iterator[list[_Line]]:
    """The lines of a file, in their order, in groups of one tenant and scope, of limited number and size."""
    group: list[_Line] = []
    size = 0
    for number, line, entry in file.lines():
        if group and (
            len(group) >= GROUP_RECORDS or size + len(line) > GROUP_BYTES or _whose(entry) != _whose(group[0].entry)
        ):
            yield group
            group, size = [], 0
        group.append(_Line(number, entry))
        size += len(line)
    if group:
        yield group


def _whose(entry: Entry) -> tuple[str, str, str | None]:
    return entry.organization, entry.environment, entry.scope


def _paths(entry: Entry, base_path: str) -> list[str]:
    """Where to send a record: as it was sent, or, where the scope is not known any more, by the tenant's names."""
    names = quote(entry.organization, safe=""), quote(entry.environment, safe="")
    by_names = "/axpublisher/organization/%s/environment/%s" % names  # noqa: UP031 - the line is long enough
    return [by_names] if entry.scope is None else [f"{base_path}/{quote(entry.scope, safe='')}", by_names]
