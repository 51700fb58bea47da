"""Runs one target under atheris: `python -m benchmarks.fuzzing.guided TARGET SECONDS EXECUTIONS SEED DIRECTORY`.

A process of its own, because libFuzzer ends the process it runs in, and because the package must be instrumented
before anybody imports it. What leads to a crash is left in the directory.
"""

import sys
import tempfile
from pathlib import Path

try:
    import atheris
except ImportError:  # the command then uses the loop of mutations
    atheris = None  # type: ignore[assignment]


_LONGEST_WORD_BYTES = 64
"""libFuzzer takes no longer ones."""


def _quoted(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def main() -> None:
    name, seconds, executions, seed, directory = sys.argv[1:]
    with atheris.instrument_imports(include=["axcollector"]):
        from benchmarks.fuzzing.targets import TARGETS
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as work:
        corpus = Path(work, "corpus")
        corpus.mkdir()
        for at, data in enumerate(target.seeds):
            (corpus / str(at)).write_bytes(data)
        words = Path(work, "words")
        words.write_text("".join(f'"{_quoted(word)}"\n' for word in target.words if len(word) <= _LONGEST_WORD_BYTES))
        options = {
            "max_total_time": seconds,
            "runs": executions,
            "seed": seed,
            "max_len": str(target.longest_bytes),
            "dict": str(words),
            "artifact_prefix": f"{directory}/{name}-",
            "print_final_stats": "1",
            "timeout": "60",
        }
        atheris.Setup([sys.argv[0], *(f"-{key}={value}" for key, value in options.items()), str(corpus)], target.run)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
