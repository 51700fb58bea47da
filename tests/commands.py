"""The `axcollector` command, run in the tests' own process."""

from axcollector.cli import main


def run(*argv: str) -> int:
    """The exit status of `axcollector` with these arguments."""
    try:
        main(argv)
    except SystemExit as exc:
        return int(exc.code or 0)
    return 0
