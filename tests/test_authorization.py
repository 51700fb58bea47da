"""The token in `Authorization` headers."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axcollector.core.authorization import token_in

TOKEN = "axt_wL0c9W8pGm0dJ4Tz4hTnqLzJ2c5cY1lqYxXn0bVw3k8"


def basic(pair: bytes, scheme: str = "Basic") -> str:
    """A header's value with a user's name and password."""
    return f"{scheme} {base64.b64encode(pair).decode()}"


@pytest.mark.parametrize("value", [f"Bearer {TOKEN}", f"bearer  {TOKEN}", f"BEARER {TOKEN}  "])
def test_bearer(value: str) -> None:
    """The scheme is written in any case, and blanks around the token do no harm."""
    assert token_in([value]) == token_in([value], as_password=True) == TOKEN


@pytest.mark.parametrize("name", [b"", b"key", b"x y\xff", b"Bearer", b"a\nb"])
def test_basic(name: bytes) -> None:
    """The password is the token, whatever the name; only where that is wanted."""
    for scheme in ("Basic", "basic", "bASIC"):
        value = basic(name + b":" + TOKEN.encode(), scheme)
        assert token_in([value], as_password=True) == TOKEN
        assert token_in([value]) is None


def test_the_password_may_hold_colons() -> None:
    """The first one ends the name."""
    assert token_in([basic(b"a:b:c")], as_password=True) == "b:c"


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        [TOKEN],
        ["Bearer"],
        ["Bearer "],
        [f"Bearer{TOKEN}"],
        [f" Bearer {TOKEN}"],
        [f"Bearer\t{TOKEN}"],
        [f"Bearer {TOKEN} {TOKEN}"],
        [f"Bearer {TOKEN}", f"Bearer {TOKEN}"],
        [f"Bearer {TOKEN}", ""],
        [basic(b"u:" + TOKEN.encode()), f"Bearer {TOKEN}"],
        [f"Bearer {TOKEN}, Bearer {TOKEN}"],
        ["Bearer \xff\xfe"],
        [f"Token {TOKEN}"],
        [f"Digest username={TOKEN}"],
        ["Basic"],
        ["Basic "],
        ["Basic ="],
        ["Basic a"],
        ["Basic !!!!"],
        ["Basic dTp0=="],
        ["Basic dTp0=AAA"],
        ["Basic dT==dTp0"],
        ["Basic dT p0"],
        ["Basic \xff\xff\xff\xff"],
        [basic(b"")],
        [basic(b"no colon")],
        [basic(b"u:")],
        [basic(b"u:\xff\xfe")],
        [basic("u:tökén".encode())],
        [basic(b"u:a b")],
        [basic(b"u:a\n")],
        ["Basic " + "A" * 1_000_001],
        ["Bearer " + "a" * 1_000_000 + "\xff"],
    ],
)
def test_what_holds_none(values: list[str]) -> None:
    """It is as if nothing had been sent: no exception, which could end in a log with what was sent."""
    assert token_in(values, as_password=True) is None


@given(st.lists(st.binary().map(lambda value: value.decode("latin-1")), max_size=2), st.booleans())
def test_any_values(values: list[str], as_password: bool) -> None:
    """Whatever is sent, it is visible ASCII or nothing."""
    found = token_in(values, as_password=as_password)
    assert found is None or (found.isascii() and found.isprintable() and " " not in found)


@given(st.sampled_from(["Basic ", "basic  ", "Bearer "]), st.binary())
def test_any_credentials(scheme: str, credentials: bytes) -> None:
    """The same behind a scheme that is known, and for any pair."""
    for text in (credentials.decode("latin-1"), base64.b64encode(credentials).decode()):
        found = token_in([scheme + text], as_password=True)
        assert found is None or (found.isascii() and found.isprintable() and " " not in found)
