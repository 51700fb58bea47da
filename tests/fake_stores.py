"""Stores that deliver to memory."""

from collections.abc import Callable

from twisted.internet import defer

from axcollector.core.errors import EndpointUnavailable


class MemoryStore:
    """A `Store` that keeps what it gets, can be switched off, told to refuse, and told to make uploads wait.

    Attributes:
        objects: What was delivered: (tenant, key) to bytes.
        puts: Every put that was asked for, in order, successful or not.
        up: Whether it is there at all.
        retry_after: What it asks for while it is not.
        refuse: Called with tenant and key; what it returns, if anything, is what the put fails with.
        is_slow: Whether puts wait for `step`.
    """

    AUTHORITY = "memory"

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], bytes] = {}
        self.puts: list[tuple[str, str]] = []
        self.up = True
        self.retry_after: float | None = None
        self.refuse: Callable[[str, str], Exception | None] = lambda tenant, key: None
        self.is_slow = False
        self.is_closed = False
        self._waiting: list[tuple[defer.Deferred[None], tuple[str, str, str]]] = []

    def put(self, tenant: str, key: str, path: str) -> "defer.Deferred[None]":
        """Keep the file's content, now or when stepped."""
        self.puts.append((tenant, key))
        if not self.is_slow:
            return defer.maybeDeferred(self._keep, tenant, key, path)
        result: defer.Deferred[None] = defer.Deferred(self._forget)
        self._waiting.append((result, (tenant, key, path)))
        return result

    def _keep(self, tenant: str, key: str, path: str) -> None:
        if not self.up:
            raise EndpointUnavailable(self.AUTHORITY, "it is down", self.retry_after)
        if (refusal := self.refuse(tenant, key)) is not None:
            raise refusal
        with open(path, "rb") as file:
            self.objects[tenant, key] = file.read()

    def _forget(self, result: "defer.Deferred[None]") -> None:
        self._waiting = [entry for entry in self._waiting if entry[0] is not result]

    @property
    def waiting(self) -> list[tuple[str, str]]:
        """Tenant and key of the puts that wait for `step`."""
        return [(tenant, key) for _, (tenant, key, _) in self._waiting]

    def step(self, number: int = 0) -> None:
        """Let a waiting put go on, by default the oldest."""
        result, arguments = self._waiting.pop(number)
        defer.maybeDeferred(self._keep, *arguments).chainDeferred(result)

    def authorities(self, tenant: str) -> tuple[str, ...]:
        """Only this store."""
        return (self.AUTHORITY,)

    def close(self) -> "defer.Deferred[None]":
        """Note it."""
        self.is_closed = True
        return defer.succeed(None)
