"""What many records a second need: `python -m benchmarks.scale [--records-per-second 1000000] [--help]`.

Arithmetic, no measurement: what one core does is taken from docs/performance.rst, and every figure is an option, so
that it can be exchanged for one of your own. docs/scale.rst shows what this prints; a test keeps it so.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Final

DAY: Final = 86_400
MB: Final = 10**6


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is given. A field is an option; the text beside it is its help."""

    records_per_second: float = 1_000_000
    record_bytes: float = 820
    stored_bytes: float = 200
    cpu_seconds_per_million: float = 5
    load: float = 0.5
    cores_per_machine: float = 8
    zones: float = 3
    tenants: float = 1000
    keys: float = 100_000
    cpu_seconds_per_file: float = 0.002
    collection_interval: float = 120
    journal_max_bytes: float = 256 * 1024**2
    outage_hours: float = 4
    kept_days: float = 30
    usd_per_1000_puts: float = 0.005
    usd_per_gb_month: float = 0.023


HELP: Final = {
    "records_per_second": "all collectors together",
    "record_bytes": "of JSON, as it is sent",
    "stored_bytes": "of a record, compressed",
    "cpu_seconds_per_million": "what a million records cost, by the size of batches",
    "load": "what part of a core is to be used",
    "cores_per_machine": "one is the parent's, the others are workers'",
    "zones": "any one may be lost",
    "tenants": "with records in each interval",
    "keys": "in the registry",
    "cpu_seconds_per_file": "what one more file costs",
    "collection_interval": "s",
    "journal_max_bytes": "as configured",
    "outage_hours": "how long the store may be away",
    "kept_days": "how long objects are kept",
    "usd_per_1000_puts": "the store's price",
    "usd_per_gb_month": "likewise",
}


@dataclass(frozen=True, slots=True)
class Fleet:
    """What follows, for the machines."""

    cores: float
    needed_machines: int
    machines: int
    workers: int
    ingress_mb: float
    stored_mb: float
    disk_write_mb: float
    disk_room_gb: float
    memory_gb: float
    stored_tb_a_day: float
    at_risk_records: float


@dataclass(frozen=True, slots=True)
class Objects:
    """What follows, for the objects."""

    files_a_day: float
    file_kb: float
    puts_a_second: float
    cores: float
    usd_a_day: float


def fleet(plan: Plan) -> Fleet:
    """How many machines, and what each has to have; figures of disk and memory are for one, with a zone lost."""
    cores = plan.records_per_second * plan.cpu_seconds_per_million / 1e6 / plan.load
    workers_each = int(plan.cores_per_machine) - 1
    needed = math.ceil(cores / workers_each)
    machines = math.ceil(needed / (plan.zones - 1)) * int(plan.zones)
    left = machines * (plan.zones - 1) / plan.zones
    stored = plan.records_per_second * plan.stored_bytes / MB
    outage = stored / left * plan.outage_hours * 3600
    journals = 2 * stored / left * plan.collection_interval
    catalog = plan.keys * 450 + plan.tenants * 3000
    return Fleet(
        cores=cores,
        needed_machines=needed,
        machines=machines,
        workers=machines * workers_each,
        ingress_mb=plan.records_per_second * plan.record_bytes / MB / left,
        stored_mb=stored,
        disk_write_mb=2 * stored / left,
        disk_room_gb=(outage + journals) / 1000 / 0.9,
        memory_gb=plan.cores_per_machine * (75 * MB + 2 * catalog + 128 * 1024**2) / 1e9,
        stored_tb_a_day=stored * DAY / MB,
        at_risk_records=plan.records_per_second / machines * (plan.collection_interval + 5 + 5),
    )


def objects(plan: Plan, *, machines_a_tenant: int | None = None) -> Objects:
    """How many objects: each journal becomes a file for each tenant in it.

    Args:
        plan: What is given.
        machines_a_tenant: How many machines take a tenant's records; by default all of them.
    """
    whole = fleet(plan)
    per_worker = whole.stored_mb * MB / whole.workers * plan.collection_interval
    journals = math.ceil(per_worker / plan.journal_max_bytes)
    workers = whole.workers if machines_a_tenant is None else whole.workers // whole.machines * machines_a_tenant
    files = plan.tenants * workers * journals * DAY / plan.collection_interval
    return Objects(
        files_a_day=files,
        file_kb=whole.stored_mb * DAY * 1000 / files,
        puts_a_second=files / DAY,
        cores=files * plan.cpu_seconds_per_file / DAY,
        usd_a_day=files / 1000 * plan.usd_per_1000_puts,
    )


def variants(plan: Plan) -> Sequence[tuple[str, Objects]]:
    """What can be done about the number of objects, each besides what stands before it."""
    large = replace(plan, journal_max_bytes=4 * 1024**3)
    long = replace(large, collection_interval=600)
    return (
        ("as configured", objects(plan)),
        ("journal_max_bytes: 4 GiB", objects(large)),
        ("collection_interval: 600", objects(long)),
        ("a tenant to one machine", objects(long, machines_a_tenant=1)),
    )


def given(plan: Plan) -> str:
    """The figures that it begins with."""
    return "\n".join(f"{name:24} {value:>13,.10g}  {HELP[name]}" for name, value in asdict(plan).items())


def told(plan: Plan) -> str:
    """All that follows, as text."""
    of = fleet(plan)
    stored_usd = of.stored_tb_a_day * 1000 * plan.kept_days * plan.usd_per_gb_month
    rows = [
        ("cores that take records", f"{of.cores:,.1f}"),
        ("machines that are needed", f"{of.needed_machines:,}"),
        (f"machines in {plan.zones:g} zones, one of which may be lost", f"{of.machines:,}"),
        ("worker processes", f"{of.workers:,}"),
        ("network in, a machine", f"{of.ingress_mb:,.0f} MB/s"),
        ("to the store, all together", f"{of.stored_mb:,.0f} MB/s"),
        ("disk writes, a machine", f"{of.disk_write_mb:,.0f} MB/s"),
        (f"disk, a machine, for {plan.outage_hours:g} h without a store", f"{of.disk_room_gb:,.0f} GB"),
        ("memory, a machine", f"{of.memory_gb:,.1f} GB"),
        ("into the store", f"{of.stored_tb_a_day:,.2f} TB a day"),
        (f"storage, for {plan.kept_days:g} days of it", f"{stored_usd:,.0f} USD a month"),
        ("on one machine only, before it is delivered", f"{of.at_risk_records / 1e6:,.1f} million records"),
    ]
    text = "\n".join(f"{name:52} {value:>22}" for name, value in rows)
    head = f"{'objects':26} {'a day':>12} {'kB each':>9} {'PUT/s':>7} {'cores':>6} {'USD a day':>10}"
    lines = [
        f"{name:26} {each.files_a_day:>12,.0f} {each.file_kb:>9,.0f} {each.puts_a_second:>7,.0f} {each.cores:>6.2f}"
        f" {each.usd_a_day:>10,.2f}"
        for name, each in variants(plan)
    ]
    return "\n".join([text, "", head, *lines])


def main() -> None:
    """Print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in fields(Plan):
        option = "--" + field.name.replace("_", "-")
        parser.add_argument(option, type=float, default=field.default, help=f"{HELP[field.name]} (%(default)s)")
    plan = Plan(**vars(parser.parse_args()))
    print(given(plan), told(plan), sep="\n\n")


if __name__ == "__main__":
    main()
