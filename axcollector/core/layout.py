"""Names on disk, keys in the store, and back again.

    {data}/tmp/{journal}.journal                      a journal, open or waiting for its split
    {data}/tmp/{journal}.split/{bucket}/{file}        what it is split into, until it lies in staging
    {data}/tmp/{journal}.split/quarantine/{bucket}/…  likewise, until it lies in quarantine
    {data}/staging/{bucket}/{file}                    to be uploaded
    {data}/failed/{bucket}/{file}                     gave up for now
    {data}/quarantine/{bucket}/{file}                 records that were set aside, until somebody deals with them
    {data}/recovered/{journal}.journal~recoveredTS~T  left by a crash, found at T
    {data}/recovered/{journal}.split~recoveredTS~T    its split, or one whose journal is gone already
    {data}/recovered/{bucket}~recoveredTS~T/{file}    a bucket as the reference leaves it, its files torn or whole
    {data}/recovered/{bucket}.salvage~recoveredTS~T/  the whole lines of it, as {bucket}/{file}
    {data}/recovered/unreadable/                      what has damage in it, for a person to look at

A bucket is `{org}~{env}~{start}`; org and env are percent-encoded, so that no tenant's name can leave the stage or
be confused with another's. A file is `{4 hex}_{start}.{end}_{instance}_writer_{starts}-{worker}-{sequence}.txt.gz`; its
name follows from the tenant and the journal's name alone, so a repeated split writes the same names. Times are UTC.
"""

import enum
import hashlib
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Self
from urllib.parse import quote, unquote

from axcollector.core.model import BucketName, Interval, Tenant
from axcollector.core.stamps import STAMP_LENGTH, stamp, stamp_milliseconds, unstamp

FILE_SUFFIX: Final = ".txt.gz"
JOURNAL_SUFFIX: Final = ".journal"
SPLIT_SUFFIX: Final = ".split"
SALVAGE_SUFFIX: Final = ".salvage"
RECOVERED_MARK: Final = "~recoveredTS~"
UNREADABLE: Final = "unreadable"
QUARANTINE: Final = "quarantine"
"""Beside the stages, where it is used; the uploader never looks there, and it has a quota of its own."""
MAX_BUCKET_BYTES: Final = 200
"""A tenant whose directory name would be longer is refused; file systems allow 255, and salvage appends a mark."""

_JOURNAL: Final = re.compile(
    r"(?P<start>\d{14})\.(?P<end>\d{14})_(?P<instance>[0-9A-Za-z-]+)_writer_(?P<starts>\d+)-(?P<worker>\d+)-(?P<sequence>\d+)"
    r"(?P<suffix>\.journal|\.split)(?:~recoveredTS~(?P<recovered>\d{14}\.\d{3}))?",
    re.ASCII,
)
_END: Final = re.compile(r"[0-9a-f]{4}_\d{14}\.(?P<end>\d{14})_", re.ASCII)
_MILLISECONDS: Final = re.compile(r"\d{14}\.\d{3}", re.ASCII)
_COPY: Final = re.compile(r"(?P<original>.+)_recovered(?:_\d{14}\.\d{3})?", re.ASCII)


class Stage(enum.StrEnum):
    """The directories below `{local_storage_path}{data_path}`; the one a bucket lies in is its state."""

    TMP = "tmp"
    STAGING = "staging"
    FAILED = "failed"
    RECOVERED = "recovered"


def encode_part(name: str) -> str:
    """One tenant name as it stands in directory names: ASCII letters, digits, `-`, `_`, `.`; the rest as %XX."""
    encoded = quote(name, safe="").replace("~", "%7E")
    return encoded.replace(".", "%2E") if name in {".", ".."} else encoded


def decode_part(text: str) -> str:
    """What `encode_part` was given.

    Raises:
        ValueError: `encode_part` never writes `text`.
    """
    name = unquote(text, errors="strict")
    if encode_part(name) != text:
        message = f"not an encoded name: {text!r}"
        raise ValueError(message)
    return name


@lru_cache(maxsize=4096)
def tenant_directory(organization: str, environment: str) -> str:
    """`{org}~{env}`, encoded: the tenant's part of bucket names and of keys."""
    return f"{encode_part(organization)}~{encode_part(environment)}"


def split_tenant_directory(text: str) -> tuple[str, str]:
    """Organization and environment of what `tenant_directory` wrote.

    Raises:
        ValueError: `tenant_directory` never writes `text`.
    """
    organization, tilde, environment = text.partition("~")
    if not tilde:
        message = f"not an organization and environment: {text!r}"
        raise ValueError(message)
    return decode_part(organization), decode_part(environment)


def fits(tenant: Tenant) -> bool:
    """Whether the tenant's bucket directories have names that a file system takes."""
    try:
        name = tenant_directory(tenant.organization, tenant.environment)
    except UnicodeEncodeError:  # a lone surrogate: no UTF-8, so no name
        return False
    return len(name) + 1 + STAMP_LENGTH <= MAX_BUCKET_BYTES


def bucket_directory(bucket: BucketName) -> str:
    """`{org}~{env}~{start}`: the bucket's directory in whatever stage it is."""
    return f"{tenant_directory(bucket.organization, bucket.environment)}~{stamp(bucket.start)}"


def parse_bucket_directory(text: str) -> BucketName:
    """The bucket whose directory is called `text`; a reference's `~recoveredTS~…` behind it is ignored.

    Raises:
        ValueError: It is no bucket's name.
    """
    name = text.partition(RECOVERED_MARK)[0]
    tenant, _, start = name.rpartition("~")
    organization, environment = split_tenant_directory(tenant)
    return BucketName(unstamp(start), organization, environment)


def key_of_file(start: int, file_name: str) -> str:
    """`date=YYYY-MM-DD/time=HH-MM-SS/{file name}`: where a file of a bucket goes, below its tenant's place."""
    moment = datetime.fromtimestamp(start, UTC)
    return f"date={moment.date().isoformat()}/time={moment:%H-%M-%S}/{file_name}"


def end_of_file(name: str, otherwise: float) -> float:
    """When the interval of a file ended, as its name says; or what is given, where it does not."""
    found = _END.match(name)
    try:
        return otherwise if found is None else unstamp(found["end"])
    except ValueError:
        return otherwise


@dataclass(frozen=True, slots=True)
class JournalName:
    """What a journal's name says.

    Attributes:
        interval: Whose batches it holds.
        instance_id: This installation's UUID.
        starts: How often the data directory had been started when it was made.
        worker: The process that wrote it.
        sequence: Its number within that process; with the three before, unique.
        recovered: When it was found after a crash, as `stamp_milliseconds`, or "".
    """

    interval: Interval
    instance_id: str
    starts: int
    worker: int
    sequence: int
    recovered: str = ""

    @property
    def identity(self) -> str:
        """The part that stays the same through recovery and names no other journal."""
        return (
            f"{stamp(self.interval.start)}.{stamp(self.interval.end)}_{self.instance_id}"
            f"_writer_{self.starts}-{self.worker}-{self.sequence}"
        )

    @property
    def journal(self) -> str:
        """The journal's own file name."""
        return self.identity + JOURNAL_SUFFIX + self._mark

    @property
    def split(self) -> str:
        """The directory beside the journal that it is split into."""
        return self.identity + SPLIT_SUFFIX + self._mark

    @property
    def _mark(self) -> str:
        return RECOVERED_MARK + self.recovered if self.recovered else ""

    def found(self, now: float) -> Self:
        """The name under which it is recovered, having been found at `now` after a crash."""
        return self if self.recovered else replace(self, recovered=stamp_milliseconds(now))

    def file_of(self, tenant: str) -> str:
        """The name of the file that a tenant (as `tenant_directory`) gets of this journal."""
        recovered = f"_recovered_{self.recovered}" if self.recovered else ""
        rest = f"{self.identity}{recovered}{FILE_SUFFIX}"
        spread = hashlib.blake2b(f"{tenant}/{rest}".encode(), digest_size=2).hexdigest()
        return f"{spread}_{rest}"

    def bucket_of(self, tenant: str) -> str:
        """The bucket directory that a tenant's records of this journal belong to."""
        return f"{tenant}~{stamp(self.interval.start)}"

    @classmethod
    def parse(cls, name: str) -> tuple[Self, str]:
        """The journal that `name` speaks of, and whether it is its `.journal` or its `.split`.

        Raises:
            ValueError: It is neither.
        """
        match = _JOURNAL.fullmatch(name)
        if match is None:
            message = f"not the name of a journal: {name!r}"
            raise ValueError(message)
        journal = cls(
            Interval(unstamp(match["start"]), unstamp(match["end"])),
            match["instance"],
            int(match["starts"]),
            int(match["worker"]),
            int(match["sequence"]),
            match["recovered"] or "",
        )
        if name not in (journal.journal, journal.split):  # zeros before a number
            message = f"not the name of a journal: {name!r}"
            raise ValueError(message)
        return journal, match["suffix"]


@dataclass(frozen=True, slots=True)
class ReferenceName:
    """What the name of a bucket's directory in `recovered/` says, whoever put it there.

    Attributes:
        prefix: The name as it is, up to the mark.
        bucket: The bucket.
        recovered: When it was found after a crash, as `stamp_milliseconds`, or "".
    """

    prefix: str
    bucket: BucketName
    recovered: str = ""

    @property
    def directory(self) -> str:
        """Its own name."""
        return self.prefix + (RECOVERED_MARK + self.recovered if self.recovered else "")

    @property
    def salvage(self) -> str:
        """The directory beside it that its whole lines are put into."""
        return f"{self.prefix}{SALVAGE_SUFFIX}{RECOVERED_MARK}{self.recovered}"

    def found(self, now: float) -> Self:
        """The name under which it is recovered, having been found at `now`."""
        return self if self.recovered else replace(self, recovered=stamp_milliseconds(now))

    def file_of(self, name: str) -> str:
        """The name of the file that the whole lines of its file `name` go to."""
        stem = name.removesuffix(FILE_SUFFIX).removesuffix(f"_recovered_{self.recovered}")
        return f"{stem}_recovered_{self.recovered}{FILE_SUFFIX}"

    @classmethod
    def parse(cls, name: str) -> tuple[Self, bool]:
        """The directory that `name` speaks of, and whether it is the one beside it, with the whole lines.

        The reference writes names of organizations and environments as they are; what `bucket_directory` may have
        written is taken for that. Where a `~` stands in one of them it cannot be told where the other begins.

        Raises:
            ValueError: It is no bucket's directory, or could be several tenants', or that of a tenant with too long
                a name, or has a mark that is none.
        """
        prefix, mark, recovered = name.partition(RECOVERED_MARK)
        if mark and _MILLISECONDS.fullmatch(recovered) is None:
            message = f"not a mark of recovery: {name!r}"
            raise ValueError(message)
        is_salvage = bool(mark) and prefix.endswith(SALVAGE_SUFFIX)
        if is_salvage:
            prefix = prefix.removesuffix(SALVAGE_SUFFIX)
        try:
            bucket = parse_bucket_directory(prefix)
        except ValueError:
            organization, environment, start = prefix.split("~")
            bucket = BucketName(unstamp(start), organization, environment)
        if not fits(Tenant("", bucket.organization, bucket.environment)):
            message = f"the name is too long: {name!r}"
            raise ValueError(message)
        return cls(prefix, bucket, recovered), is_salvage


def original_of(name: str) -> str | None:
    """Of which file the one called `name` is the copy that the reference makes in recovery; None: of none."""
    match = _COPY.fullmatch(name.removesuffix(FILE_SUFFIX))
    return match["original"] + FILE_SUFFIX if match and name.endswith(FILE_SUFFIX) else None
