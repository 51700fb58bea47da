"""Import and export of a large registry: `python -m benchmarks.importing [--keys 1000000] [--json FILE]`.

Makes a file of rows (from a seed; all ids random, so the worst order for an index), and runs the real `axcollector
import` on it, into no registry, and `axcollector export`, as processes of their own. Prints seconds, rows a second and
peak memory. Exit status 1 where a bar is missed: 60 s for the import, and what is exported is what was imported.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from axcollector.core.rowtext import text_of
from axcollector.core.tables import APPS, DEVELOPERS, MAPPER, PRODUCTS, SCOPES, Values

ROOT = Path(__file__).parent.parent
BAR_SECONDS = 60.0
TENANTS = 100
PRODUCTS_A_TENANT = 10
COMMAND = [sys.executable, "-c", "from axcollector.cli import main; main()"]


def ids(chance: random.Random) -> Iterator[str]:
    """Random UUIDs."""
    while True:
        yield str(uuid.UUID(int=chance.getrandbits(128), version=4))


def rows(keys: int, chance: random.Random) -> Iterator[tuple[str, Values]]:
    """So many keys and apps, a fifth as many developers, and products, of a hundred tenants."""
    new = ids(chance)
    tenants = [next(new) for _ in range(TENANTS)]
    yield from ((SCOPES, (next(new), tenant, f"org-{at}", "prod")) for at, tenant in enumerate(tenants))
    products = {tenant: [next(new) for _ in range(PRODUCTS_A_TENANT)] for tenant in tenants}
    for tenant, made in products.items():
        yield from ((PRODUCTS, (tenant, each, f"product-{at}")) for at, each in enumerate(made))
    developers: dict[str, list[str]] = {tenant: [] for tenant in tenants}
    for at in range(max(TENANTS, keys // 5)):
        tenant = tenants[at % TENANTS]
        developers[tenant].append(developer := next(new))
        yield DEVELOPERS, (tenant, developer, f"developer-{at}", f"developer-{at}@example.com")
    for at in range(keys):
        tenant, app = chance.choice(tenants), next(new)
        yield APPS, (tenant, app, f"app-{at}", chance.choice(developers[tenant]), None)
        key = f"{chance.getrandbits(128):032x}"
        yield MAPPER, (tenant, key, app, chance.choice(products[tenant]), "APPROVED")


def write(path: Path, keys: int, seed: int) -> int:
    """Write the file; how many rows it has."""
    count = 0
    with path.open("wb") as file:
        for table, row in rows(keys, random.Random(seed)):
            file.write(text_of(table, [row]))
            count += 1
    return count


def run(directory: Path, *words: str) -> dict[str, Any]:
    """Run the command; seconds, and the most memory it had."""
    begun = time.monotonic()
    pid = os.posix_spawn(
        sys.executable, [*COMMAND, *words], {**os.environ, "PYTHONPATH": str(ROOT), "PWD": str(directory)}
    )
    _, status, usage = os.wait4(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, words
    return {"seconds": time.monotonic() - begun, "peak memory MB": usage.ru_maxrss / 1024}


def measure(keys: int, seed: int) -> dict[str, Any]:
    """Import, and export what was imported, and import that again over it."""
    with tempfile.TemporaryDirectory(prefix="axcollector-benchmark-") as name:
        directory = Path(name)
        made, registry = directory / "made.jsonl", directory / "registry.db"
        count = write(made, keys, seed)
        where = ("--registry", str(registry))
        results = {"import": run(directory, "import", str(made), *where)}
        results["export"] = run(directory, "export", str(directory / "first.jsonl"), *where)
        results["import again"] = run(directory, "import", str(directory / "first.jsonl"), *where)
        run(directory, "export", str(directory / "second.jsonl"), *where)
        first, second = ((directory / each).read_bytes() for each in ("first.jsonl", "second.jsonl"))
        is_same = first == second and sorted(first.split(b"\n")) == sorted(made.read_bytes().split(b"\n"))
        sizes = {"file MB": made.stat().st_size / 1e6, "registry MB": registry.stat().st_size / 1e6}
    for result in results.values():
        result["rows a second"] = count / result["seconds"]
    return {"keys": keys, "rows": count, **sizes, **results, "is the same": is_same}


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = measure(options.keys, options.seed)
    for name, value in result.items():
        figures = value if isinstance(value, dict) else {"": value}
        texts = (
            f"{what} {figure:,.1f}" if isinstance(figure, float) else f"{what} {figure}"
            for what, figure in figures.items()
        )
        print(f"{name:>16}: {', '.join(text.strip() for text in texts)}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    held = result["import"]["seconds"] <= BAR_SECONDS and result["is the same"]
    print("all bars held" if held else "a bar was missed")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
