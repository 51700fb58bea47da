"""Who may send, and how much (SPEC sections 2 and 13): over HTTP, down to the journal."""

import base64
import itertools
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.logger import LogEvent, formatEvent

from axcollector.access import HOLD_BACK_SECONDS, MOST_HELD_BACK, STRANGERS_A_SECOND, Access
from axcollector.core.errors import LookupFailed, Unavailable
from axcollector.core.model import Tenant
from axcollector.core.rates import RateLimits
from axcollector.tokens import EVERY_NAME, Token, TokenBook, digest_of
from tests.conftest import LoggedFailures
from tests.test_webapi import (
    ACME,
    APART,
    FLAWS,
    JSON,
    LARGE,
    PUBLISHER,
    RECORD,
    TENANT_FLAWS,
    Asked,
    Flaw,
    Stand,
    asked_on,
    batch,
    checked,
    error,
    large_body,
)
from tests.wire import Answer, Connection, request

GOOD: Final = "axt_token-of-acme"
SECOND: Final = "axt_token-of-a-second-scope-of-acme"
OTHER: Final = "axt_token-of-another-tenant"
GONE: Final = "axt_token-of-a-scope-that-was-removed"
EVERYBODY: Final = "axt_token-of-everybody"
LATE: Final = "axt_token-of-yesterday"
SECRETS: Final = (GOOD, SECOND, OTHER, GONE, EVERYBODY, LATE)
NAMES: Final = batch(organization="acme", environment="prod")
ROUTES: Final = (("/analytics/s1", batch()), (PUBLISHER, batch()), ("/analytics", NAMES))
FORBIDDEN: Final = error("FORBIDDEN", "The token is not good for this scope, or there is no such scope")
LIMITS: Final = RateLimits(records_per_second=2, bytes_per_second=1_000_000, burst_seconds=1)


class Book:
    """The tokens of the tests; `is_unknown`: nobody can be told yes or no."""

    def __init__(self) -> None:
        names = {GOOD: "s1", SECOND: "s2", OTHER: "z", GONE: "gone", EVERYBODY: EVERY_NAME, LATE: "s1"}
        self.book = TokenBook(
            {
                digest_of(secret): Token(f"id-{name}", frozenset({name}), "", 0, 1 if secret == LATE else None)
                for secret, name in names.items()
            }
        )
        self.is_unknown = False

    def find(self, secret: str) -> Token | None:
        if self.is_unknown:
            raise Unavailable("Tokens cannot be checked at present")
        return self.book.find(secret, 10.0)


class Guarded(Stand):
    """The routes with tokens: scopes s1 and s2 are acme's, z is another's."""

    def __init__(self, root: Path, rates: RateLimits | None = None, **options: object) -> None:
        self.book = Book()
        super().__init__(root, tokens=self.book, rates=rates, **options)
        assert self.directory.known is not None
        self.directory.known |= {"s2": Tenant("s1", "acme", "prod"), "z": Tenant("z", "zoo", "prod")}

    def answer(
        self, target: str, body: bytes, token: str | None = GOOD, *headers: tuple[str, str | bytes]
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer to a POST; of the headers not the date."""
        bearer = () if token is None else (("Authorization", f"Bearer {token}"),)
        answer = self.ask(request("POST", target, body, (JSON, *bearer, *headers)))
        return answer.status, {name: value for name, value in answer.headers.items() if name != "date"}, answer.body

    def status(self, target: str, body: bytes, token: str | None = GOOD, *headers: tuple[str, str | bytes]) -> int:
        """The status alone."""
        return self.answer(target, body, token, *headers)[0]


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Guarded]:
    """One with tokens and no limits."""
    made = Guarded(tmp_path)
    yield made
    assert (made.site.pending.held, made.clock.getDelayedCalls()) == (0, [])


# Tokens


@pytest.mark.parametrize(("target", "body"), ROUTES)
def test_who_may_send(stand: Guarded, target: str, body: bytes) -> None:
    """A token of the scope is good on its route; where the tenant is named, one of any of its scopes."""
    expected = {GOOD: 200, SECOND: 403 if target == "/analytics/s1" else 200, EVERYBODY: 200}
    expected |= {OTHER: 403, GONE: 403, LATE: 401, "axt_nobody's": 401}
    assert {token: stand.status(target, body, token) for token in expected} == expected
    assert stand.status(target, body, None) == 401
    assert {tenant for tenant, _ in stand.kept()} == {"acme~prod"}
    assert len(stand.kept()) == sum(status == 200 for status in expected.values())


@pytest.mark.parametrize(("target", "body"), ROUTES)
def test_as_a_password(stand: Guarded, target: str, body: bytes) -> None:
    """What Apigee's client sends: the token as the password of Basic, with any user name."""
    for name, token, status in (
        ("key", GOOD, 200),
        ("", GOOD, 200),
        ("ü", GOOD, 200),
        (GOOD, "x", 401),
        ("k", "", 401),
    ):
        basic = base64.b64encode(f"{name}:{token}".encode()).decode()
        assert stand.status(target, body, None, ("authorization", f"bAsIc {basic}")) == status


@pytest.mark.parametrize(("target", "body"), ROUTES)
@pytest.mark.parametrize(
    "headers",
    [
        (),
        ("",),
        (GOOD,),
        ("Bearer",),
        (f"Bearer {GOOD} {GOOD}",),
        (f"Bearer {GOOD}", f"Bearer {GOOD}"),
        (f"Bearer {GOOD}", f"Bearer {OTHER}"),
        (b"Bearer \xff\xfe",),
        (b"Basic \xff",),
        ("Basic",),
        ("Basic !!!",),
        ("Basic dTp0==",),
        ("Basic " + base64.b64encode(b"\xff:\xff").decode(),),
        ("Basic " + base64.b64encode(GOOD.encode()).decode(),),
        ("Basic " + "A" * 12_000,),
        ("Bearer " + "x" * 12_000,),
        (f"Digest {GOOD}",),
    ],
)
def test_headers_without_a_token(stand: Guarded, target: str, body: bytes, headers: tuple[str | bytes, ...]) -> None:
    """They are a 401 that says how to send one, in both ways, whatever they hold."""
    status, answered, content = stand.answer(target, body, None, *(("Authorization", each) for each in headers))
    reason = "A token is needed, as a bearer token or as the password of basic authentication"
    unknown = "The token is not known: it may be expired or revoked"
    assert status == 401
    assert json.loads(content) in (error("UNAUTHORIZED", reason), error("UNAUTHORIZED", unknown))
    assert answered["www-authenticate"] == 'Bearer realm="axcollector", Basic realm="axcollector"'
    assert stand.kept() == []


def test_a_header_too_large(stand: Guarded) -> None:
    """What no request may have is refused before anybody looks into it, in JSON."""
    assert stand.status("/analytics/s1", batch(), "x" * 20_000) == 431


def test_a_token_in_the_query(stand: Guarded) -> None:
    """It would end in logs: it counts for nothing."""
    assert stand.status(f"/analytics/s1?access_token={GOOD}", batch(), None) == 401


@pytest.mark.parametrize("token", [OTHER, GONE, EVERYBODY])
def test_what_is_not_there_and_what_is_not_allowed(stand: Guarded, token: str) -> None:
    """They cannot be told apart: the whole answer is the same, also to the token of a scope that was removed."""
    answers = [
        stand.answer(target, body, token)
        for scope, names in (("nobody", "nobody"), ("gone", "nowhere"), ("s1", "acme"))
        for target, body in (
            (f"/analytics/{scope}", batch()),
            (f"/axpublisher/organization/{names}/environment/prod", batch()),
            ("/analytics", batch(organization=names, environment="prod")),
        )
        if not (token == EVERYBODY and scope == "s1")
    ]
    assert [status for status, *_ in answers] == [403] * len(answers)
    assert all(answer == answers[0] for answer in answers)
    assert json.loads(answers[0][2]) == FORBIDDEN


def test_a_stranger_causes_no_look_up(stand: Guarded) -> None:
    """Whether a scope exists is not even looked up for who has no token of it: no time tells."""
    stand.directory.problem = LookupFailed("The registry cannot be asked at present")
    assert [stand.status(f"/analytics/{scope}", batch(), OTHER) for scope in ("s1", "nobody")] == [403, 403]
    assert [stand.status("/analytics/s1", batch(), token) for token in (None, "axt_x")] == [401, 401]
    assert stand.status("/analytics/s1", batch()) == 500
    assert stand.status(PUBLISHER, batch(), OTHER) == 500


@pytest.mark.parametrize(("target", "body"), ROUTES)
def test_while_tokens_cannot_be_checked(stand: Guarded, target: str, body: bytes) -> None:
    """Nobody gets in, and nobody is told that a token is wrong: 503, come again."""
    stand.book.is_unknown = True
    for token in (GOOD, OTHER, "axt_nobody's"):
        status, headers, content = stand.answer(target, body, token)
        assert (status, headers["retry-after"]) == (503, "5")
        assert json.loads(content) == error("STORAGE_UNAVAILABLE", "Tokens cannot be checked at present")
    assert stand.kept() == []


@pytest.mark.parametrize(("target", "body"), [(target, b"") for target, _ in ROUTES[:2]])
def test_without_a_body(stand: Guarded, target: str, body: bytes) -> None:
    """Who sends nothing is asked for a token all the same, before anything is said of the body."""
    assert stand.status(target, body, None) == 401
    assert stand.status(target, body, OTHER) == 403
    assert stand.status(target, body) == 400


# The table of checks, with tokens and limits


def _exhausted(stand: Stand) -> None:
    assert stand.access.rates is not None
    stand.access.rates.unpack("s1", 0, 100, 0.0)


def _nearly_exhausted(stand: Stand) -> None:
    assert stand.access.rates is not None
    stand.access.rates.unpack("s1", 0, 1, 0.0)


def _unknown_tokens(stand: Stand) -> None:
    assert isinstance(stand, Guarded)
    stand.book.is_unknown = True


def _with(token: str) -> object:
    def make(asked: Asked) -> None:
        asked.authorization = token

    return make


def _state(state: object) -> object:
    return lambda asked: asked.states.append(state)


NEEDED: Final = "A token is needed, as a bearer token or as the password of basic authentication"
TOO_MANY: Final = "The scope has sent more than 2 records a second (rate_limit_records)"
UNKNOWN, LOOKUP = TENANT_FLAWS
ENTRY: Final = [
    Flaw("anonymous", 401, "UNAUTHORIZED", NEEDED, _with("Bearer")),
    Flaw("tokens", 503, "STORAGE_UNAVAILABLE", "Tokens cannot be checked at present", _state(_unknown_tokens)),
    Flaw("stranger", 403, "FORBIDDEN", FORBIDDEN["reason"], _with(f"Bearer {OTHER}")),
    Flaw("unknown", 403, "FORBIDDEN", FORBIDDEN["reason"], UNKNOWN.make),
    LOOKUP,
    Flaw("rate", 429, "RATE_LIMITED", TOO_MANY, _state(_exhausted)),
]
"""What is checked when the tenant is named, in place of `TENANT_FLAWS`."""
RECORDS: Final = Flaw("records", 429, "RATE_LIMITED", TOO_MANY, _state(_nearly_exhausted))
"""What is checked when it is known how many records there are."""
APART_HERE: Final = [*APART, {"anonymous", "stranger"}, {"rate", "records"}, {"stranger", "unknown"}]
APART_WITH_NAMES: Final = [{"stranger", "lookup"}]  # whose scopes cannot be asked for is nobody's


def rows(route: str) -> list[Flaw]:
    """The rows that a route has, in its order."""
    others = [flaw for flaw in FLAWS if flaw not in TENANT_FLAWS and (flaw.name != "names" or route == "body")]
    named = [flaw.name for flaw in others].index("names") + 1 if route == "body" else 6
    counted = [flaw.name for flaw in others].index("object")
    return [*others[:named], *ENTRY, *others[named:counted], RECORDS, *others[counted:]]


def compatible(flaws: Collection[Flaw], route: str) -> bool:
    """Whether a request can have all these flaws."""
    names = {flaw.name for flaw in flaws}
    apart = APART_HERE if route == "scope" else [*APART_HERE, *APART_WITH_NAMES]
    return all(len(names & each) < 2 for each in apart)


def check_answer(directory: Path, route: str, flaws: Collection[Flaw]) -> None:
    """A request with these flaws gets the first one's answer, and nothing of it is kept."""
    asked = asked_on(route)
    asked.authorization = f"Bearer {GOOD}"
    for flaw in sorted(flaws, key=[*FLAWS, *ENTRY, RECORDS].index):
        flaw.make(asked)
    stand = Guarded(directory, LIMITS)
    for state in asked.states:
        state(stand)
    answer = stand.ask(asked.data())
    first = next(flaw for flaw in rows(route) if flaw in flaws)
    assert (answer.status, json.loads(answer.body)) == (first.status, error(first.code, first.reason))
    assert stand.kept() == []


@pytest.mark.parametrize("route", ["scope", "names", "body"])
def test_each_row_and_each_pair(tmp_path: Path, route: str) -> None:
    """Of two rows that a request breaks, the first in the table answers; of those, one is of access."""
    table = rows(route)
    ours = [*ENTRY, RECORDS]
    for flaws in [*((flaw,) for flaw in table), *itertools.combinations(table, 2)]:
        if compatible(flaws, route) and (len(flaws) == 1 or any(flaw in ours for flaw in flaws)):
            check_answer(tmp_path, route, flaws)


@given(st.sampled_from(["scope", "names", "body"]), st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_rows(tmp_path: Path, route: str, data: st.DataObject) -> None:
    """However many rows a request breaks, the first in the table answers."""
    chosen: list[Flaw] = []
    for flaw in data.draw(st.lists(st.sampled_from(rows(route)), min_size=1, max_size=8, unique_by=id)):
        chosen += [flaw] if compatible([*chosen, flaw], route) else []
    check_answer(tmp_path, route, chosen)


# Limits


def limited(root: Path, rates: RateLimits = LIMITS, **options: object) -> Guarded:
    """A stand with limits, which holds refusals back."""
    stand = Guarded(root, rates, **options)
    stand.access.startService()
    return stand


def send(stand: Guarded, target: str = "/analytics/s1", body: bytes = batch(), token: str = GOOD) -> Connection:
    """A connection over which a batch was sent."""
    connection = Connection(stand.site)
    connection.send(request("POST", target, body, (JSON, ("Authorization", f"Bearer {token}"))))
    return connection


def answer_on(connection: Connection) -> Answer:
    """The one answer that has come."""
    (answer,) = checked(connection)
    return answer


def test_too_much(tmp_path: Path) -> None:
    """It is a 429 that says when to come again, held back for a while in which nothing is kept of the body."""
    stand = limited(tmp_path)
    assert answer_on(send(stand, body=batch(RECORD, RECORD))).status == 200
    connection = send(stand)
    assert checked(connection) == []
    assert stand.site.pending.held == 0
    assert answer_on(send(stand, "/analytics/z", token=OTHER)).status == 200
    stand.clock.advance(HOLD_BACK_SECONDS)
    answer = answer_on(connection)
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")
    assert json.loads(answer.body) == error("RATE_LIMITED", TOO_MANY)
    assert len(stand.kept()) == 3
    connection.send(request("POST", "/analytics/s1", batch(), (JSON, ("Authorization", f"Bearer {GOOD}"))))
    assert answer_on(connection).status == 200
    connection.hang_up()


def test_a_long_wait_is_told(tmp_path: Path) -> None:
    """In whole seconds, as many as it takes from the answer on."""
    stand = limited(tmp_path, RateLimits(records_per_second=1, burst_seconds=1))
    assert answer_on(send(stand, body=batch(*[RECORD] * 5))).status == 200
    connection = send(stand, body=batch(RECORD, RECORD))
    stand.clock.advance(HOLD_BACK_SECONDS)
    assert answer_on(connection).headers["retry-after"] == "4"
    stand.access.stopService()
    assert answer_on(send(stand)).headers["retry-after"] == "4"


def test_too_many_bytes(tmp_path: Path) -> None:
    """They are counted as sent; a body that is too large in any case counts as one of the largest size."""
    stand = limited(tmp_path, RateLimits(bytes_per_second=4000, burst_seconds=1))
    assert answer_on(send(stand, body=b" " * 5000)).status == 413
    connection = send(stand)
    stand.clock.advance(HOLD_BACK_SECONDS)
    answer = answer_on(connection)
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")
    assert json.loads(answer.body)["reason"] == "The scope has sent more than 4000 bytes a second (rate_limit_bytes)"
    assert answer_on(send(stand)).status == 200


def test_all_routes_count(tmp_path: Path) -> None:
    """Where a tenant is named it is the scope with the lowest id that sends; another of its scopes has its own."""
    stand = limited(tmp_path)
    for target, body in ROUTES[1:]:
        assert answer_on(send(stand, target, body)).status == 200
    assert answer_on(send(stand, "/analytics/s2", token=SECOND)).status == 200
    connection = send(stand)
    stand.clock.advance(HOLD_BACK_SECONDS)
    assert answer_on(connection).status == 429


def test_limits_without_tokens(tmp_path: Path) -> None:
    """They need none; of scopes that are made up nothing is kept."""
    stand = Stand(tmp_path, rates=LIMITS)
    for number in range(100):
        assert stand.post(f"/analytics/nobody-{number}", batch())[0] == 400
        assert stand.post(f"/axpublisher/organization/nobody-{number}/environment/prod", batch())[0] == 400
        assert stand.post("/analytics", batch(organization=f"nobody-{number}", environment="e"))[0] == 400
    assert stand.access.rates is not None
    assert len(stand.access.rates) == 0
    assert [stand.post(target, body)[0] for target, body in ROUTES] == [200, 200, 429]
    assert len(stand.access.rates) == 1


def test_bodies_that_are_taken_apart_twice(tmp_path: Path) -> None:
    """They count once: large ones, and such as need more care."""
    stand = limited(
        tmp_path, RateLimits(records_per_second=1000, bytes_per_second=1_000_000, burst_seconds=1), limits=LARGE
    )
    odd = batch(RECORD).replace(b'"key"', b'"\\ud800"')
    assert answer_on(send(stand, body=odd)).status == 200
    assert answer_on(send(stand, "/analytics", NAMES.replace(b'"key"', b'"\\ud800"'))).status == 200
    assert answer_on(send(stand, body=large_body())).status == 200
    records = len(json.loads(large_body())["records"])
    assert stand.access.rates is not None
    buckets = stand.access.rates._scopes["s1"]
    size = len(odd) + len(NAMES.replace(b'"key"', b'"\\ud800"')) + len(large_body())
    assert buckets.records._level == 1000 - records - 2
    assert buckets.bytes._level == 1_000_000 - size


def test_hanging_up_while_held_back(tmp_path: Path) -> None:
    """Nothing is left of it."""
    stand = limited(tmp_path)
    assert answer_on(send(stand, body=batch(RECORD, RECORD))).status == 200
    send(stand).hang_up()
    assert [call.time for call in stand.clock.getDelayedCalls() if call.time <= HOLD_BACK_SECONDS] == []
    assert len(stand.access._held) == 0


def test_stopping_while_held_back(tmp_path: Path) -> None:
    """All are answered at once, and none is held back any more."""
    stand = limited(tmp_path)
    assert answer_on(send(stand, body=batch(RECORD, RECORD))).status == 200
    held = [send(stand) for _ in range(3)]
    stand.access.stopService()
    assert [answer_on(connection).status for connection in [*held, send(stand)]] == [429] * 4


@pytest.mark.parametrize(("step", "told"), [(-3600.0, b"5"), (3600.0, b"4")])
def test_the_clock_steps_while_held_back(tmp_path: Path, step: float, told: bytes) -> None:
    """What was waited is taken off what is told: nothing where the clock went back, a second at most."""
    stand = limited(tmp_path, RateLimits(records_per_second=1, burst_seconds=1))
    assert answer_on(send(stand, body=batch(*[RECORD] * 5))).status == 200
    connection = send(stand)
    stand.clock.rightNow += step
    (late,) = stand.access._held
    late.callback(None)
    answer = answer_on(connection)
    assert (answer.status, answer.headers["retry-after"].encode()) == (429, told)


def test_a_batch_refused_for_its_records_costs_no_bytes(tmp_path: Path) -> None:
    """They may be sent by the next one."""
    body = batch(RECORD, RECORD, RECORD)
    stand = limited(tmp_path, RateLimits(records_per_second=1, bytes_per_second=len(body), burst_seconds=3))
    assert answer_on(send(stand, body=batch(RECORD))).status == 200
    before = stand.access.rates._scopes["s1"].bytes._level
    send(stand, body=body)
    assert stand.access.rates._scopes["s1"].bytes._level == before


def test_so_many_are_held_back(tmp_path: Path) -> None:
    """Others are answered at once: what is held back takes a connection."""
    stand = limited(tmp_path)
    assert answer_on(send(stand, body=batch(RECORD, RECORD))).status == 200
    held = [send(stand) for _ in range(MOST_HELD_BACK)]
    assert answer_on(send(stand)).status == 429
    assert all(checked(connection) == [] for connection in held)
    stand.clock.advance(HOLD_BACK_SECONDS)
    assert {answer_on(connection).status for connection in held} == {429}


@pytest.mark.parametrize(("target", "status"), [("/analytics/s1", 401), ("/analytics/z", 403)])
def test_a_flood_of_strangers(tmp_path: Path, target: str, status: int) -> None:
    """Some a second are told at once that they may not; of others, who wait, nothing is kept, and half may wait.

    Whoever may send is not touched.
    """
    stand = limited(tmp_path, RateLimits(records_per_second=100, burst_seconds=1))
    token = GOOD if status == 403 else "axt_nobody's"
    for _ in range(STRANGERS_A_SECOND):
        assert answer_on(send(stand, target, token=token)).status == status
    held = [send(stand, target, token=token) for _ in range(MOST_HELD_BACK // 2)]
    assert all(checked(connection) == [] for connection in held)
    assert stand.site.pending.held == 0
    assert answer_on(send(stand, target, token=token)).status == status
    assert answer_on(send(stand)).status == 200
    stand.clock.advance(HOLD_BACK_SECONDS)
    assert {answer_on(connection).status for connection in held} == {status}
    assert answer_on(send(stand, target, token=token)).status == status
    for connection in held:
        connection.hang_up()


# Secrets


def test_secrets_are_never_logged(tmp_path: Path, log_events: list[LogEvent], logged_failures: LoggedFailures) -> None:
    """Whatever happens: neither a line, nor a field, nor a traceback, nor the repr of what is in it has a token."""
    stand = limited(tmp_path)
    basic = base64.b64encode(f"user:{GOOD}".encode()).decode()
    secrets = (*SECRETS, basic, "axt_nobody's")

    def everything() -> None:
        for target, body in (*ROUTES, ("/nowhere", b""), ("/analytics/%ff", b""), ("/analytics/nobody", batch())):
            for token in (*SECRETS, "axt_nobody's"):
                stand.status(target, body, token)
            stand.status(target, body, None, ("Authorization", f"Basic {basic}"))
            stand.status(target, body, None, ("Authorization", f"Basic {basic}!"))
            stand.ask(request("GET", target, b"", (("Authorization", f"Bearer {GOOD}"),)))

    stand.access.stopService()
    everything()
    stand.directory.problem = ZeroDivisionError("a bug")
    everything()
    failures = [event["log_failure"] for event in log_events if event.get("log_failure") is not None]
    assert failures
    tracebacks = [failure.getTraceback(detail=detail) for failure in failures for detail in ("default", "verbose")]
    text = "".join([*(repr(event) + formatEvent(event) for event in log_events), *tracebacks])
    assert [secret for secret in secrets if secret in text] == []
    assert "token id-z is not good for 's1', or there is no such scope" in [formatEvent(event) for event in log_events]
    logged_failures.take(ZeroDivisionError)


def test_reprs(stand: Guarded) -> None:
    """Nor do the objects that a traceback might show."""
    visit = stand.access.visit([f"Bearer {GOOD}"])
    shown = repr((visit, stand.access, stand.book.book, stand.book.find(GOOD)))
    assert GOOD not in shown
    assert digest_of(GOOD).hex() not in shown


def test_an_access_without_anything(stand: Guarded) -> None:
    """By default nobody needs a token, and all may send what they like."""
    access = Access(stand.clock, stand.directory)
    visit = access.visit([])
    with pytest.raises(StopIteration) as result:
        visit.enter_names("acme", "prod").send(None)
    assert result.value.value == ACME
    visit.bring(1 << 40)
    visit.unpack(1 << 40)
