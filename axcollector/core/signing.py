"""What the signing service is asked for: the two ends of the protocol's words (SPEC section 7), and what is refused.

    GET /analytics?tenant={org}~{env}&relative_file_path=date=…/time=…/{name}.txt.gz&file_content_type=…&encrypt=…

*A tenant* is written with its `%` as `%25` and its `~`, but for the one between the two names, as `%7E`. There is one
way to write each tenant, and any other is refused: two texts are the same tenant only if they are equal, and a token
bound to a text cannot be had to serve another tenant by writing it differently.

*A path* is exactly what a collector makes of a bucket and a file (`layout.key_of_file`), or what apidAnalytics does,
whose times have no seconds; a fleet may have both. Nothing in it has to be decoded, joined or shortened, so whatever is
accepted lies below its tenant's place, as long as nobody decodes it a second time: it has no `%`.
"""

import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qsl

from axcollector.core import layout
from axcollector.core.errors import Rejected
from axcollector.core.model import Tenant

MAX_NAME_BYTES: Final = 255
"""What file systems allow; a store allows 1024 bytes for the whole key."""

_MAX_PARAMETERS: Final = 32
_ESCAPES: Final = (("%", "%25"), ("~", "%7E"))
_PATH: Final = re.compile(
    r"date=(\d{4})-(\d{2})-(\d{2})/time=(\d{2})-(\d{2})(?:-(\d{2}))?/(?P<name>[!-~]+\.txt\.gz)", re.ASCII
)
_NOT_IN_NAMES: Final = re.compile(r"[/\\%]|\.\.")
_MEDIA_TYPE: Final = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,64}/[A-Za-z0-9!#$&^_.+-]{1,64}")
_FLAGS: Final = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class SigningRequest:
    """A signed URL is asked for, in words that are in order; whether it may be is another question.

    Attributes:
        tenant: The tenant, as the protocol writes it: what tokens are bound to.
        key: Where the file is to go in the store, below its prefix.
        content_type: The `Content-Type` that it is to be put with, or None: any.
        is_encrypted: Whether the store is to encrypt it.
    """

    tenant: str
    key: str
    content_type: str | None
    is_encrypted: bool


def tenant_parameter(organization: str, environment: str) -> str:
    """How the protocol writes a tenant, before that is encoded for a query."""
    return "~".join(map(_escaped, (organization, environment)))


def parse_tenant(text: str) -> tuple[str, str]:
    """Organization and environment of what `tenant_parameter` wrote.

    Raises:
        ValueError: It never writes `text`, or no file of such a tenant can be delivered; the message says why.
    """
    if text.count("~") != 1:
        message = "it has to be {organization}~{environment}, a ~ in either of them being written %7E"
        raise ValueError(message)
    organization, environment = (_unescaped(name) for name in text.split("~"))
    if tenant_parameter(organization, environment) != text:
        message = "a % in it has to be written %25, and nothing else but ~ may be percent-encoded"
        raise ValueError(message)
    if not organization or not environment:
        message = "neither its organization nor its environment may be empty"
        raise ValueError(message)
    if any(unicodedata.category(each) in {"Cc", "Cs"} for each in text):
        message = "it has a control character in it, or is not UTF-8"
        raise ValueError(message)
    if not layout.fits(Tenant("", organization, environment)):
        message = "it is too long"
        raise ValueError(message)
    return organization, environment


def parse_request(query: bytes) -> SigningRequest:
    """What a query asks for; parameters that are not the protocol's are passed over.

    Args:
        query: What stands behind the `?`, as it came.

    Raises:
        Rejected: It asks for nothing that could be signed.
    """
    given = _parameters(query)
    for name in ("tenant", "relative_file_path"):
        if not given.get(name):
            raise Rejected("MISSING_FIELD", f"Missing Required field: {name}")
    try:
        organization, environment = parse_tenant(given["tenant"])
    except ValueError as exc:
        raise Rejected("BAD_DATA", f"tenant cannot be used: {exc}") from exc
    if not is_path(given["relative_file_path"]):
        form = "date=YYYY-MM-DD/time=HH-MM-SS/{name}.txt.gz"
        raise Rejected("BAD_DATA", f"relative_file_path has to be {form}, with a name of visible ASCII characters")
    content_type = given.get("file_content_type") or None
    if content_type is not None and not _MEDIA_TYPE.fullmatch(content_type):
        raise Rejected("BAD_DATA", "file_content_type has to be a media type without parameters")
    encrypt = given.get("encrypt") or "false"
    if encrypt not in _FLAGS:
        raise Rejected("BAD_DATA", "encrypt has to be true or false")
    key = f"{layout.tenant_directory(organization, environment)}/{given['relative_file_path']}"
    return SigningRequest(given["tenant"], key, content_type, _FLAGS[encrypt])


def is_path(text: str) -> bool:
    """Whether it is a path of a file, at a date and time that there are."""
    match = _PATH.fullmatch(text)
    if match is None or len(match["name"]) > MAX_NAME_BYTES or _NOT_IN_NAMES.search(match["name"]):
        return False
    year, month, day, hour, minute, second = (int(number or 0) for number in match.groups()[:6])
    try:
        datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return False
    return True


def _parameters(query: bytes) -> dict[str, str]:
    """The parameters of a query, decoded once."""
    try:
        pairs = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS
        )
    except ValueError as exc:
        raise Rejected("BAD_DATA", "The query cannot be read: it has to be percent-encoded UTF-8") from exc
    given = dict(pairs)
    if len(given) != len(pairs):
        raise Rejected("BAD_DATA", "A parameter of the query is given twice")
    return given


def _escaped(name: str) -> str:
    for character, escape in _ESCAPES:
        name = name.replace(character, escape)
    return name


def _unescaped(name: str) -> str:
    for character, escape in reversed(_ESCAPES):
        name = name.replace(escape, character)
    return name
