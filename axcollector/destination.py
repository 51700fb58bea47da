"""Where files go, as the configuration says: which store is made, and what it needs."""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from axcollector.config import Config
from axcollector.core.errors import ConfigError
from axcollector.disk import Disk
from axcollector.services import Worker
from axcollector.stores.base import Store
from axcollector.stores.directory import DirectoryStore
from axcollector.stores.signed import SignedStore


class Bearer(Protocol):
    """What gives the token for the signing service, and is told when that refuses it."""

    def __call__(self) -> str | None:
        """The token to use now, or None where there is none."""
        ...

    def refused(self, token: str | None, /) -> None:
        """The signing service does not know this token."""
        ...


StoreMaker = Callable[[Bearer], Store]


def store_maker(reactor: Any, worker: Worker, disk: Disk, config: Config) -> StoreMaker:  # noqa: ANN401 - any reactor
    """What makes the configured store, given the token for the signing service.

    Args:
        reactor: Provides time and TCP.
        worker: Whose thread does what blocks.
        disk: The hands.
        config: Says where files go.

    Raises:
        ConfigError: What the store needs is not installed.
    """
    server_base = config.uap_server_base
    reads_a_file = config.bearer_token_file is not None
    if server_base is not None:
        return lambda bearer: SignedStore.over_network(
            reactor,
            disk,
            server_base,
            partial(worker.run, bearer) if reads_a_file else bearer,  # whose file may lie where nobody answers
            bearer.refused,
            timeout_seconds=config.upload_timeout,
            concurrency=config.upload_concurrency,
            proxy=config.upload_proxy,
        )
    if config.store_url.startswith("s3:"):
        return _s3_maker(reactor, worker, disk, config)
    return lambda _: DirectoryStore(worker, disk, config.store_url.removeprefix("file:"))


def _s3_maker(reactor: Any, worker: Worker, disk: Disk, config: Config) -> StoreMaker:  # noqa: ANN401 - any reactor
    try:
        from axcollector.stores.s3 import S3Store  # noqa: PLC0415 - who has no such store need not have its library
        from axcollector.stores.s3_signing import S3Signer  # noqa: PLC0415 - likewise
    except ModuleNotFoundError as exc:
        raise ConfigError(
            f"store: {config.store_url!r} needs {(exc.name or '').partition('.')[0]}, which is not installed;"
            " allowed is file:PATH, or s3: after pip install 'axcollector[s3]'"
        ) from exc
    bucket, _, prefix = config.store_url.removeprefix("s3://").partition("/")
    return lambda _: S3Store.over_network(
        reactor,
        worker,
        disk,
        S3Signer(bucket, prefix, config.s3_region, config.s3_endpoint_url),
        timeout_seconds=config.upload_timeout,
        concurrency=config.upload_concurrency,
        proxy=config.upload_proxy,
    )
