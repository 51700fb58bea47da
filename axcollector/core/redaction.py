"""Taking out of a text what may be a secret: for the words of exceptions that nobody foresaw. Pure.

What we raise ourselves holds no secret (`stores.base` says so); what a library, or a store or sync source of an
embedding program, puts into an exception is not ours to choose, and is often the URL that was asked for. Too much is
taken out rather than too little: of a URL the scheme, the host and the path are left.
"""

import re
from typing import Final

_TAKEN: Final = "…"
_URL: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?:[^\s/?#@]*@)?(?P<rest>[^\s?#]*)(?P<query>[?#]\S*)?")
_AUTHORIZATION: Final = re.compile(r"\b(Bearer|Basic|Digest|AWS4-HMAC-SHA256)(\s+|%20|\+)[^\r\n]+", re.IGNORECASE)
_NAMED: Final = re.compile(
    r"([\w-]*(?:signature|credential|token|secret|password|passwd|authorization|\bsig)[\w-]*[\"']?\s*(?:=|%3D|:)\s*)"
    r"(?:\"[^\"]*\"|'[^']*'|[^\s&,;\"']+)",
    re.IGNORECASE,
)
_TOKEN: Final = re.compile(r"\baxt_[A-Za-z0-9_-]+")


def redacted(text: str) -> str:
    """A text without what may be a secret in it: users and queries of URLs, credentials, what is named as a secret."""
    text = _URL.sub(_without_query, text)
    text = _AUTHORIZATION.sub(rf"\1 {_TAKEN}", text)
    text = _NAMED.sub(rf"\1{_TAKEN}", text)
    return _TOKEN.sub(_TAKEN, text)


def _without_query(found: "re.Match[str]") -> str:
    query = found["query"]
    return f"{found['scheme']}{found['rest']}{query[0] + _TAKEN if query else ''}"
