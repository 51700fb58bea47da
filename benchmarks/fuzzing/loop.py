"""The loop that runs a target where atheris is not installed: seeded mutations, guided by what the target says.

An input that leads to something that was not seen before (another outcome, and how many times as long it is) is kept
and mutated further. The same seed makes the same inputs.
"""

import random
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from benchmarks.fuzzing.target import Target

_KEPT = 2000


class Mutations:
    """An endless supply of inputs: first the seeds, then what is made of those and of what was kept."""

    def __init__(self, target: Target, seed: int) -> None:
        self._chance = random.Random(seed)
        self._target = target
        self._corpus = list(target.seeds)

    def keep(self, data: bytes) -> None:
        """Mutate this one, too."""
        if len(self._corpus) >= _KEPT:
            self._corpus[self._chance.randrange(len(self._target.seeds), _KEPT)] = data
        else:
            self._corpus.append(data)

    def __iter__(self) -> Iterator[bytes]:
        yield from self._target.seeds
        while True:
            data = bytearray(self._chance.choice(self._corpus))
            for _ in range(self._chance.choice((1, 1, 1, 2, 3, 5, 8))):
                self._change(data)
            yield bytes(data[: self._target.longest_bytes])

    def _change(self, data: bytearray) -> None:
        chance = self._chance
        at = chance.randrange(len(data) + 1)
        size = chance.choice((0, 1, 1, 2, 4, chance.randrange(len(data) + 1)))
        other = chance.choice(self._corpus)
        start = chance.randrange(len(other) + 1)
        kind = chance.randrange(9)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        elif kind == 1 and data:
            data[at % len(data)] = chance.randrange(256)
        elif kind in {2, 3}:
            data[at : at + (size if kind == 3 else 0)] = chance.choice(self._target.words)
        elif kind == 4:
            del data[at : at + size]
        elif kind == 5:
            data[at:at] = data[at : at + size]
        elif kind == 6:
            data[at : at + size] = other[start : start + size]
        elif kind == 7:
            del data[at:]
        else:
            data[at:] = other[start:]


@dataclass
class Report:
    """What a run came to.

    Attributes:
        target: The target's name.
        engine: What ran it.
        executions: How many inputs there were.
        seconds: How long it took.
        crashes: Paths of saved inputs, each with why it is there.
        outcomes: How often each outcome was seen; empty where the engine does not tell.
    """

    target: str
    engine: str
    executions: int = 0
    seconds: float = 0.0
    crashes: list[str] = field(default_factory=list)
    outcomes: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        rate = self.executions / self.seconds if self.seconds else 0.0
        return (
            f"{self.target}: {self.executions:,} executions in {self.seconds:.0f} s ({rate:,.0f}/s, {self.engine}),"
            f" {len(self.crashes)} crashes"
        )


def run(
    target: Target,
    *,
    seconds: float = float("inf"),
    executions: int | None = None,
    seed: int = 0,
    save: Callable[[str, bytes, str], str],
    progress: Callable[[Report], None] = lambda _: None,
) -> Report:
    """Run a target until the time is over, so many inputs were run, or the first crash.

    Args:
        target: What to run.
        seconds: How long, at most.
        executions: How many inputs, at most.
        seed: From which all inputs follow.
        save: Keeps an input that led to a crash, given the target's name, the input and the traceback; says where.
        progress: Told how far it is, every few inputs.
    """
    report = Report(target.name, "mutations")
    inputs = Mutations(target, seed)
    begun = time.monotonic()
    for data in inputs:
        report.seconds = time.monotonic() - begun
        if report.seconds > seconds or (executions is not None and report.executions >= executions):
            break
        report.executions += 1
        try:
            outcome = target.run(data)
        except BaseException as exc:
            if isinstance(exc, KeyboardInterrupt):
                raise
            report.crashes.append(save(target.name, data, "".join(traceback.format_exception(exc))))
            break
        kind = f"{outcome} ({len(data).bit_length()} bits long)"
        if kind not in report.outcomes:
            inputs.keep(data)
        report.outcomes[kind] = report.outcomes.get(kind, 0) + 1
        progress(report)
    return report
