"""Records × tenant × developer info → `Batch`: the lines as they will be delivered.

A record is not rebuilt. Its own bytes are kept, and what enrichment adds is spliced in before its last brace: exact
for every number and string that a client can send, and fast. Only a record that has a null or empty `organization` or
`environment` (or must have them overwritten) is looked into, to replace those where they stand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import msgspec
from msgspec import UNSET

from axcollector.core import jsontext
from axcollector.core.model import NO_DEVELOPER, Batch, DeveloperInfo, Tenant
from axcollector.core.payload import JSONText
from axcollector.core.records import CHUNK_RECORDS, Fields, Records, Rules
from axcollector.core.unpacking import NeedsCare

_DEVELOPER_KEYS: Final = ("api_product", "developer_app", "developer_email", "developer")


def enrich(
    records: Records, tenant: Tenant, known: Mapping[str, DeveloperInfo], rules: Rules, *, careful: bool = True
) -> Batch:
    """The batch that records of `tenant` make, enriched with what is `known` of their client ids (SPEC section 4).

    Raises:
        NeedsCare: One must be taken apart into its members, and `careful` is false.
    """
    if rules.overwrite_tenant:
        rules = _relaxed(records, tenant, rules)
    texts, fields = records.texts, records.fields
    writer = _Writer(_names_of(tenant), known, rules, careful)
    if len(texts) <= CHUNK_RECORDS:
        return Batch(tenant, writer.lines(texts, fields), len(texts))
    lines = bytearray()
    for start in range(0, len(texts), CHUNK_RECORDS):
        end = start + CHUNK_RECORDS
        lines += writer.lines(texts[start:end], fields[start:end])
    return Batch(tenant, lines, len(texts))


def _relaxed(records: Records, tenant: Tenant, rules: Rules) -> Rules:
    """Rules under which the same lines come out, without overwriting where there is nothing to be overwritten.

    Clients mostly send the names that are right, in every record; to take each apart would cost thirty times as much.
    A name may stay only where it surely stands once: a second one would be what some readers of the line see.
    """
    for text, f in zip(records.texts, records.fields, strict=True):
        for sent, name, key in (
            (f.organization, tenant.organization, b'"organization"'),
            (f.environment, tenant.environment, b'"environment"'),
        ):
            if sent and (sent != name or (line := bytes(text)).count(key) != 1 or b"\\u" in line):
                return rules
    return replace(rules, overwrite_tenant=False)


@dataclass(frozen=True, slots=True)
class _Names:
    """A tenant's names as JSON."""

    organization: bytes
    environment: bytes
    both: bytes


@lru_cache(maxsize=1024)
def _names_of(tenant: Tenant) -> _Names:
    """A tenant's names; made once for those of whom there are records all the time."""
    organization = msgspec.json.encode(tenant.organization)
    environment = msgspec.json.encode(tenant.environment)
    both = b',"organization":%b,"environment":%b' % (organization, environment)
    return _Names(organization, environment, both)


class _Writer:
    """Writes the lines of one tenant's records; keeps what it appends to plain ones, by client id."""

    __slots__ = ("_careful", "_known", "_names", "_rules", "_tails")

    # By place: a name costs time, and this is made for each request.
    def __init__(self, names: _Names, known: Mapping[str, DeveloperInfo], rules: Rules, careful: bool) -> None:  # noqa: FBT001
        self._names = names
        self._known = known
        self._rules = rules
        self._careful = careful
        self._tails: dict[str | None, bytes] = {}

    def lines(self, texts: Sequence[JSONText], fields: Sequence[Fields]) -> bytes:
        """The lines of these records.

        The hot path: one join, and for a plain record nothing but a look-up. It may not call anything for each record.
        """
        tails, unset = self._tails, UNSET
        parts: list[bytes | memoryview] = []
        for text, f in zip(texts, fields, strict=True):
            plain = (
                f.organization is unset
                and f.environment is unset
                and f.api_product is unset
                and f.developer_app is unset
                and f.developer_email is unset
                and f.developer is unset
            )
            if plain:
                client_id = f.client_id
                tail = tails.get(client_id)
                if tail is None:
                    info = NO_DEVELOPER if client_id is None else self._known.get(client_id, NO_DEVELOPER)
                    tail = tails[client_id] = _members(self._names, client_id, info) + b"}\n"
                parts += (memoryview(text)[:-1], tail)
            elif not self._careful and _must_be_taken_apart(f, self._rules):
                raise NeedsCare
            else:
                parts.append(_enrich_one(bytes(text), f, self._names, self._known, self._rules))
        return b"".join(parts)


def members_of(tenant: Tenant, client_id: str | None, info: DeveloperInfo) -> bytes:
    """What is appended to a plain record with this client id: the tenant's names, and whose it is, if it has one."""
    return _members(_names_of(tenant), client_id, info)


def _members(names: _Names, client_id: str | None, info: DeveloperInfo) -> bytes:
    return names.both if client_id is None else names.both + b"," + msgspec.json.encode(info)[1:-1]


def _info_members(fields: Fields, known: Mapping[str, DeveloperInfo]) -> list[bytes]:
    """The developer info that the record lacks, as members to append."""
    if fields.client_id is None:
        return []
    info = known.get(fields.client_id, NO_DEVELOPER)
    return [
        b',"%b":%b' % (key.encode(), msgspec.json.encode(getattr(info, key)))
        for key in _DEVELOPER_KEYS
        if getattr(fields, key) is UNSET
    ]


def _must_be_taken_apart(fields: Fields, rules: Rules) -> bool:
    """Whether the record has a name that is to be replaced."""
    names = (fields.organization, fields.environment)
    return any(sent is not UNSET and (not sent or rules.overwrite_tenant) for sent in names)


def _enrich_one(text: bytes, fields: Fields, names: _Names, known: Mapping[str, DeveloperInfo], rules: Rules) -> bytes:
    """The line of a record that has some of the members that enrichment may write."""
    added: list[bytes] = []
    replaced: dict[str, bytes] = {}
    for key, sent, value in (
        ("organization", fields.organization, names.organization),
        ("environment", fields.environment, names.environment),
    ):
        if sent is UNSET:
            added.append(b',"%b":%b' % (key.encode(), value))
        elif not sent or rules.overwrite_tenant:
            replaced[key] = value
    added += _info_members(fields, known)
    if replaced:
        text = _replace(text, replaced)
    return b"".join([text[:-1], *added, b"}\n"])


def _replace(text: bytes, values: Mapping[str, bytes]) -> bytes:
    """An object with these members' values replaced, each standing once, where it stood last."""
    places = [place for place in jsontext.places(text) if place.key in values]
    last = {place.key: place for place in places}
    parts: list[bytes] = []
    done = 0
    for place in places:
        parts.append(text[done : place.start])
        if last[place.key] is place:
            parts.append(b"%b:%b" % (place.key_text, values[place.key]))
            done = place.end
        else:  # with the comma behind it: another one follows
            done = place.next
    return b"".join([*parts, text[done:]])
