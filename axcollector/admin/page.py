"""The status page: the files that a browser loads, as they lie in `static`, read once.

They are the same for everybody until the program is another; a browser keeps them and asks, with their tag, whether it
is. The page asks for everything else itself, from the routes beside it, so nothing is put into its text here; what
scripts and styles it may load is said by its headers (Content-Security-Policy): those files, and nothing else.
"""

import hashlib
import os
from dataclasses import dataclass
from typing import Final

from klein import Klein
from twisted.web.http import CACHED
from twisted.web.iweb import IRequest

from axcollector import answers
from axcollector.core.errors import Rejected
from axcollector.webapi import NOTHING_HERE

_DIRECTORY: Final = os.path.join(os.path.dirname(__file__), "static")
_PAGE: Final = "index.html"
_KINDS: Final = {
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".svg": b"image/svg+xml",
}
"""What is served, by the end of its name; licences and versions lie beside it."""
_POLICY: Final = b"default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_HEADERS: Final = (
    (b"Content-Security-Policy", _POLICY),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"X-Frame-Options", b"DENY"),
    (b"Referrer-Policy", b"no-referrer"),
    (b"Cross-Origin-Opener-Policy", b"same-origin"),
    (b"Cache-Control", b"no-cache"),
)


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file that is served.

    Attributes:
        kind: Its media type.
        tag: Stands for its content.
        content: That.
    """

    kind: bytes
    tag: bytes
    content: bytes


def static_files() -> dict[str, StaticFile]:
    """All that is served, by its path below `static`. Blocking."""
    found = {}
    for directory, _, names in os.walk(_DIRECTORY):
        for name in names:
            kind = _KINDS.get(os.path.splitext(name)[1])
            if kind is not None:
                path = os.path.join(directory, name)
                with open(path, "rb") as file:
                    content = file.read()
                tag = b'"%b"' % hashlib.sha256(content).hexdigest()[:32].encode()
                found[os.path.relpath(path, _DIRECTORY)] = StaticFile(kind, tag, content)
    return found


def add_page(app: Klein) -> None:
    """Give an app the page, and the files that it is made of."""
    files = static_files()

    @app.route("/", methods=["GET"])
    def page(request: IRequest) -> bytes:
        """The page itself."""
        return give_file(request, files[_PAGE])

    @app.route("/static/<path:name>", methods=["GET"])
    def part(request: IRequest, name: str) -> bytes:
        """A part of it."""
        file = files.get(name)
        if file is None:
            raise Rejected("NOT_FOUND", NOTHING_HERE)
        return give_file(request, file)


def give_file(request: IRequest, file: StaticFile) -> bytes:
    """Answer with a file, or that the browser has it."""
    for name, value in _HEADERS:
        request.setHeader(name, value)
    if request.setETag(file.tag) is CACHED:
        return b""
    body = answers.give(request, 200, file.content)
    request.setHeader(b"Content-Type", file.kind)
    return body
