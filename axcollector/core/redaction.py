"""Taking out of a text what may be a secret: for the words of exceptions that nobody foresaw. Pure.

What we raise ourselves holds no secret (`stores.base` says so); what a library, or a store or sync source of an
embedding program, puts into an exception is not ours to choose, and is often the URL that was asked for. Too much is
taken out rather than too little: of a URL the scheme, the host and the path are left.
"""

import re
from typing import Final

_TAKEN: Final = "…"
# Each takes time in proportion to the text, whatever the text is: no repetition begins where another one could have.
_URL: Final = re.compile(
    r"://"
    r"(?:[^\s/?#]*@|[^\s/?#@:]*:\S*@)?"  # a password may hold what it should not, such as / and @
    r"(?P<rest>[^\s?#]*)(?P<query>[?#]\S*)?"
)
_AUTHORIZATION: Final = re.compile(r"\b(Bearer|Basic|Digest|AWS4-HMAC-SHA256)(\s+|%20|\+)[^\r\n]+", re.IGNORECASE)
_NAMED: Final = re.compile(
    r"((?:signature|credential|token|secret|password|passwd|passphrase|pwd|authorization|(?:api|access|private)[_-]?key|\bsig)"
    r"[\w-]{0,40}[\"']?\s*(?:=|%3D|:)\s*)"
    r"[\[(]*(?:[bru]{0,2}(?:\"(?:\\.|[^\"\\])*(?:\"|\Z)|'(?:\\.|[^'\\])*(?:'|\Z))|[^\s&,\"']+)",
    re.IGNORECASE | re.DOTALL,
)
_COOKIES: Final = re.compile(r"\b(cookie[\"']?\s*[:=]\s*)[^\r\n]+", re.IGNORECASE)
_PRIVATE_KEY: Final = re.compile(
    r"(-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----).*?(?:-----END [A-Z ]{0,20}PRIVATE KEY-----|\Z)", re.DOTALL
)
_TOKEN: Final = re.compile(r"\baxt_[A-Za-z0-9_-]+")


def redacted(text: str) -> str:
    """A text without what may be a secret in it: users and queries of URLs, credentials, what is named as a secret."""
    text = _PRIVATE_KEY.sub(rf"\1{_TAKEN}", text)
    text = _URL.sub(_without_query, text)
    text = _COOKIES.sub(rf"\1{_TAKEN}", text)
    text = _AUTHORIZATION.sub(rf"\1 {_TAKEN}", text)
    text = _NAMED.sub(rf"\1{_TAKEN}", text)
    return _TOKEN.sub(_TAKEN, text)


def _without_query(found: "re.Match[str]") -> str:
    query = found["query"]
    return f"://{found['rest']}{query[0] + _TAKEN if query else ''}"
