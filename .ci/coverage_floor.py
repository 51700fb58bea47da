"""Fails where a module is covered less than it has to be: `coverage_floor.py REPORT.json PERCENT`."""  # noqa: INP001

import json
import sys
from pathlib import Path


def main() -> int:
    """Print the modules below the floor; 1 where there are any."""
    report, floor = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), float(sys.argv[2])
    covered = {name: file["summary"]["percent_covered"] for name, file in report["files"].items()}
    below = {name: percent for name, percent in covered.items() if percent < floor}
    for name, percent in sorted(below.items()):
        sys.stdout.write(f"{name}: {percent:.1f} % covered, {floor:g} % needed\n")
    if not covered:
        sys.stdout.write("no module was measured\n")
    return 1 if below or not covered else 0


sys.exit(main())
