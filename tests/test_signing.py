"""What the signing service may be asked for: tenants, paths and queries that are taken, and all others."""

import posixpath
from urllib.parse import quote, unquote, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from axcollector.core import layout
from axcollector.core.errors import Rejected
from axcollector.core.layout import key_of_file, tenant_directory
from axcollector.core.model import Tenant
from axcollector.core.signing import SigningRequest, is_path, parse_request, parse_tenant, tenant_parameter

PATH = "date=2026-01-31/time=23-59-59/4f2a_20260131235959.20260201000159_id_writer_1-0-0.txt.gz"


def query(**parameters: str) -> bytes:
    """A query as our own collector writes it, with what it always says unless that is given."""
    return urlencode(
        {"tenant": "acme~prod", "relative_file_path": PATH, **parameters}, quote_via=quote, safe=""
    ).encode()


def refusal_of(raw: bytes) -> tuple[str, str]:
    """Code and reason of a query's refusal."""
    with pytest.raises(Rejected) as caught:
        parse_request(raw)
    assert caught.value.status == 400
    return caught.value.code, caught.value.reason


def test_what_a_collector_asks_for() -> None:
    """The key is the tenant's place and the path; content type and encryption are as asked for."""
    asked = query(file_content_type="application/x-gzip", encrypt="true")
    assert parse_request(asked) == SigningRequest("acme~prod", f"acme~prod/{PATH}", "application/x-gzip", True)


def test_what_need_not_be_said() -> None:
    """Without content type or encryption neither is signed; parameters that nobody knows change nothing."""
    assert parse_request(query(extra="1")) == SigningRequest("acme~prod", f"acme~prod/{PATH}", None, False)
    assert parse_request(query(file_content_type="", encrypt="")) == parse_request(query(encrypt="false"))


@pytest.mark.parametrize(
    "path",
    [
        PATH,
        "date=2017-01-30/time=16-32/1069_20170130163200.20170130163400_218e3d99_writer_0.txt.gz",
        "date=2024-02-29/time=00-00-00/a.txt.gz",
        f"date=2026-01-31/time=00-00-00/{'a' * 248}.txt.gz",
        "date=2026-01-31/time=00-00-00/.txt.gz.txt.gz",
        "date=2026-01-31/time=00-00-00/a~b'(c)*!;=:@&+,$?#[]|.txt.gz",
    ],
)
def test_paths_that_are_taken(path: str) -> None:
    """Those of collectors, those of apidAnalytics, and whatever has a name of visible characters."""
    assert is_path(path)
    assert parse_request(query(relative_file_path=path)).key == f"acme~prod/{path}"


HEAD = "date=2026-01-31/time=23-59-59/"
NOON = "date=2026-01-31/time=12-00-00"
HOSTILE_NAMES = [
    *("", ".", "..", ".txt.gz", "a.txt", "a.gz", "a.txt.gz.exe", "a.TXT.GZ", "atxt.gz", "a" * 249 + ".txt.gz"),
    *("../a.txt.gz", "..txt.gz", "a..txt.gz", "a..b.txt.gz", "....txt.gz", "a/b.txt.gz", "/a.txt.gz", "a.txt.gz/"),
    *("a\\b.txt.gz", "..\\a.txt.gz", "\\..\\a.txt.gz", "../../../x~y/a.txt.gz"),
    *("%2e%2e%2fa.txt.gz", "a%2fb.txt.gz", "a%00.txt.gz", "%.txt.gz", "a%.txt.gz", "%61.txt.gz"),
    *("a b.txt.gz", "a\tb.txt.gz", "a\nb.txt.gz", "a\rb.txt.gz", "a\0.txt.gz", "\x7f.txt.gz", "a.txt.gz\n"),
    *("a.txt.gz ",),
    *("\x80.txt.gz", "é.txt.gz", "\u2028.txt.gz", "a.txt.gz\u202e", "\uff0e\uff0e.txt.gz", "\u2215.txt.gz"),
    *("\uff0f.txt.gz",),
]  # fmt: skip
HOSTILE_DIRECTORIES = [
    *("date=2026-02-29/time=00-00-00", "date=2026-13-01/time=00-00-00", "date=2026-00-01/time=00-00-00"),
    *("date=0000-01-01/time=00-00-00", "date=2026-1-1/time=00-00-00", "date=20260131/time=00-00-00"),
    *("date=2026-01-31/time=24-00-00", "date=2026-01-31/time=23-60-00", "date=2026-01-31/time=23-59-60"),
    *("date=2026-01-31/time=23", "date=2026-01-31/time=23-59-", "date=2026-01-31/time=23:59:59"),
    *("date=2026-01-31/time=2-3-4", "date=2026-01-31", "time=00-00-00/date=2026-01-31"),
    *("date=2026-01-31//time=12-00-00",),
    *("date=२०२६-01-31/time=00-00-00", "Date=2026-01-31/time=00-00-00", "date=2026-01-31/TIME=00-00-00"),
    *("date=../time=..", "date=/time=", "", ".", "..", "date=2026-01-31\\time=00-00-00"),
    *("date=2026-01-31%2Ftime=00-00-00",),
    *(f"/{NOON}", f"./{NOON}", f"../{NOON}", f"x/{NOON}", f" {NOON}", f"{NOON} ", f"{NOON}/", f"{NOON}/.."),
    *(f"{NOON}\0",),
    *(f"s3://other/{NOON}", f"//other/{NOON}", f"x~y/{NOON}", f"{NOON}/x", f"{NOON}/{NOON}", f"\n{NOON}", f"{NOON}\n"),
]  # fmt: skip
HOSTILE_PATHS = [*(HEAD + name for name in HOSTILE_NAMES), *(f"{each}/a.txt.gz" for each in HOSTILE_DIRECTORIES), NOON]


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_paths_that_are_refused(path: str) -> None:
    """Whatever is not exactly a date, a time and a file's name; the answer does not repeat what was asked."""
    assert not is_path(path)
    code, reason = refusal_of(query(relative_file_path=path))
    assert code == "BAD_DATA"
    assert reason.startswith("relative_file_path has to be date=YYYY-MM-DD/time=HH-MM-SS/{name}.txt.gz")


def test_an_encoded_path_is_decoded_once() -> None:
    """A path that is percent-encoded twice is none."""
    once = query(relative_file_path=quote(PATH, safe=""))
    assert refusal_of(once)[0] == "BAD_DATA"
    assert refusal_of(query(relative_file_path=HEAD + "%2561.txt.gz"))[0] == "BAD_DATA"


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


@given(NAMES, NAMES)
@example("a~b", "c")
@example("a", "b~c")
@example("%7E", "%257E")
@example("..", ".")
def test_tenants_are_written_in_one_way(organization: str, environment: str) -> None:
    """Each tenant's text leads back to it, and to no other's place in the store."""
    if not layout.fits(Tenant("", organization, environment)):
        return
    text = tenant_parameter(organization, environment)
    assert parse_tenant(text) == (organization, environment)
    asked = parse_request(query(tenant=text))
    assert asked.tenant == text
    assert asked.key == f"{tenant_directory(organization, environment)}/{PATH}"


@given(st.text(max_size=40))
@example("a%7e~b")
@example("a%2%7E5~b")
@example("%61~b")
def test_there_is_no_second_way(text: str) -> None:
    """A text that is taken is the one that its tenant is written with: two texts are never the same tenant."""
    try:
        names = parse_tenant(text)
    except ValueError:
        return
    assert tenant_parameter(*names) == text


@pytest.mark.parametrize(
    ("tenant", "complaint"),
    [
        ("acme", "it has to be {organization}~{environment}"),
        ("acme~prod~x", "it has to be {organization}~{environment}"),
        ("*", "it has to be {organization}~{environment}"),
        ("acme/prod", "it has to be {organization}~{environment}"),
        ("~prod", "neither its organization nor its environment may be empty"),
        ("acme~", "neither its organization nor its environment may be empty"),
        ("a%20b~prod", "a % in it has to be written %25"),
        ("a%7eb~prod", "a % in it has to be written %25"),
        ("100%~prod", "a % in it has to be written %25"),
        ("a\nb~prod", "it has a control character in it"),
        ("a\0~prod", "it has a control character in it"),
        ("a~prod\x7f", "it has a control character in it"),
        ("a~prod\x85", "it has a control character in it"),
        ("x" * 200 + "~prod", "it is too long"),
        ("é" * 40 + "~prod", "it is too long"),
    ],
)
def test_tenants_that_are_refused(tenant: str, complaint: str) -> None:
    """Each with what is wrong with it."""
    code, reason = refusal_of(query(tenant=tenant))
    assert (code, reason[: len("tenant cannot be used: ")]) == ("BAD_DATA", "tenant cannot be used: ")
    assert complaint in reason


def test_a_tenant_that_is_no_text() -> None:
    """Arguments of a command line may hold bytes that are no UTF-8."""
    with pytest.raises(ValueError, match="not UTF-8"):
        parse_tenant("a\udcff~prod")


@pytest.mark.parametrize(
    ("raw", "code", "reason"),
    [
        (b"", "MISSING_FIELD", "Missing Required field: tenant"),
        (b"tenant=&relative_file_path=x", "MISSING_FIELD", "Missing Required field: tenant"),
        (b"tenant=acme~prod", "MISSING_FIELD", "Missing Required field: relative_file_path"),
        (query() + b"&tenant=other~prod", "BAD_DATA", "A parameter of the query is given twice"),
        (query() + b"&relative_file_path=", "BAD_DATA", "A parameter of the query is given twice"),
        (query() + b"&a" * 40, "BAD_DATA", "The query cannot be read"),
        (b"tenant=acme~pr%ffod&relative_file_path=x", "BAD_DATA", "The query cannot be read"),
        (b"tenant=acme~pr\xc3\xb6d&relative_file_path=x", "BAD_DATA", "The query cannot be read"),
        (query(encrypt="yes"), "BAD_DATA", "encrypt has to be true or false"),
        (query(file_content_type="text"), "BAD_DATA", "file_content_type has to be a media type"),
        (query(file_content_type="a/b\r\nx-amz-acl: public-read"), "BAD_DATA", "file_content_type has to be"),
        (query(file_content_type="a/" + "b" * 65), "BAD_DATA", "file_content_type has to be"),
    ],
)
def test_queries_that_are_refused(raw: bytes, code: str, reason: str) -> None:
    """What is missing, given twice, no text, or none of what it may be."""
    refusal = refusal_of(raw)
    assert refusal[0] == code
    assert refusal[1].startswith(reason)


PIECES = st.sampled_from(
    [
        *("date=2026-01-31", "time=23-59-59", "time=23-59", "a.txt.gz", ".txt.gz", "a"),
        *"/.~%\\\0\n é",
        "..",
        "%2e",
        "%2f",
    ]
)


@given(
    st.one_of(
        st.lists(PIECES, max_size=8).map("".join),
        st.lists(PIECES, max_size=4).map(lambda pieces: HEAD + "".join(pieces) + ".txt.gz"),
        st.text(st.characters(max_codepoint=255), max_size=12).map(lambda name: f"{HEAD}{name}.txt.gz"),
    ),
    NAMES,
)
def test_whatever_is_taken_stays_below_its_tenant(path: str, organization: str) -> None:
    """A key that is signed lies in its tenant's place: as it is, normalised, decoded again, or without its case."""
    if not layout.fits(Tenant("", organization, "prod")):
        return
    try:
        key = parse_request(query(tenant=tenant_parameter(organization, "prod"), relative_file_path=path)).key
    except Rejected:
        return
    place = tenant_directory(organization, "prod") + "/"
    assert key == place + path
    assert posixpath.normpath(key) == key
    assert posixpath.normpath(key.replace("\\", "/")).startswith(place + "date=")
    assert unquote(path) == path
    assert path.count("/") == 2
    assert len(key) < 500
    assert path.isascii()
    assert path.isprintable()


@given(
    st.integers(0, 253402300799), st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=99)
)
def test_every_path_of_a_collector_is_taken(start: int, name: str) -> None:
    """What `layout.key_of_file` makes of a bucket and a file is a path, whatever the moment."""
    name = name.replace("/", "").replace("\\", "").replace("%", "").replace(".", "") or "x"
    assert is_path(key_of_file(start, name + ".txt.gz"))
