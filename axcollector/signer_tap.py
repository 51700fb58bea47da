"""`twistd axsigner`: its options, and the signing service put together for a process of its own."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from twisted.application.service import IService
from twisted.logger import Logger

from axcollector import __version__
from axcollector.clock_steps import ClockSteps
from axcollector.connections import fitting, open_files_limit
from axcollector.core.errors import ConfigError
from axcollector.exposure import Door, warning_of
from axcollector.launch import KeyOptions, Launched, give_up
from axcollector.listening import Listeners, check_endpoints, endpoints_of
from axcollector.log_format import in_format
from axcollector.notify import Readiness, Supervisor
from axcollector.on_stop import OnStop
from axcollector.ownership import PrivateDirectory
from axcollector.reloading import Live
from axcollector.services import InOrder, WorkThread
from axcollector.signer.config import SIGNER_KEYS, SignerConfig, read_signer_config
from axcollector.supervised import Reread, supervised
from axcollector.token_watch import TokenWatch
from axcollector.tokens import Bound
from axcollector.unwaited import Unwaited

if TYPE_CHECKING:
    from axcollector.signer.api import Presigner

_PROGRAM: Final = "axsigner"
_MAX_BODY_BYTES: Final = 1024
"""A request to sign has no body; what some client sends all the same is dropped."""
_MAX_PENDING_BYTES: Final = 1 << 20
_MAX_CONNECTIONS: Final = 10_000
_CREDENTIALS_PATIENCE_SECONDS: Final = 20.0
"""How long a request waits for credentials: less than collectors wait for an answer."""

_log = Logger()

_EXAMPLE: Final = """
Signs URLs that collectors put their files to, so that a fleet of them needs no
credentials of the object storage, only a token each. The credentials are this
process's own, found where the AWS tools look for them. For example:

    axcollector signer-token new acme~prod --tokens /var/lib/axsigner/tokens.db
    twistd -n axsigner --config axsigner.yaml

where axsigner.yaml holds lines such as

    listen: axtls:9010:certificate=/etc/axsigner/cert.pem:key=/etc/axsigner/key.pem
    s3_url: s3://analytics/records
    s3_region: eu-central-1
    tokens_path: /var/lib/axsigner/tokens.db

and each collector is configured with

    uap_server_base: https://signer.example.com:9010
    bearer_token_file: /etc/axcollector/token
"""


class Options(KeyOptions):
    """The command line: `--config`, and an option for every key."""

    program = _PROGRAM
    settings = SIGNER_KEYS
    example = _EXAMPLE


def makeService(options: Options) -> IService:
    """The service that `twistd axsigner` runs. Reads the configuration and does no other I/O.

    Raises:
        CannotStart: The configuration cannot be used; the reason was printed.
    """
    from twisted.internet import reactor  # noqa: PLC0415 - importing this module must not choose one

    read = Reread(options["config"], options.overrides())
    try:
        config = read(read_signer_config)
        whole = assemble(reactor, config)
    except ConfigError as exc:
        give_up(_PROGRAM, exc)
    service = supervised(
        reactor,
        whole.service,
        Readiness(reactor, Supervisor(os.environ), whole.tokens.problem, f"signing at {', '.join(config.listen)}"),
        SIGNER_KEYS,
        config,
        lambda: checked(reactor, config, read(read_signer_config)),
        live=Live(),
        certificates=whole.listeners.certificates,
    )
    return launched(service, config, in_format(config.log_format, options))


def checked(reactor: Any, running: SignerConfig, found: SignerConfig) -> SignerConfig:  # noqa: ANN401 - any reactor
    """A configuration of which it is known that its new endpoints, with their certificates, could be used."""
    check_endpoints(reactor, "listen", [each for each in found.listen if each not in running.listen])
    return found


def launched(service: IService, config: SignerConfig, join: Callable[[object], object] = lambda _: None) -> IService:
    """The service of a process of its own, which says what it runs with."""
    result: IService = Launched(_PROGRAM, service, lambda: _announce(config), join)
    return result


@dataclass(frozen=True, slots=True)
class Whole:
    """A signing service and its door: all of it, who knows tokens, and what listens."""

    service: InOrder
    tokens: TokenWatch
    listeners: Listeners


def make_service(reactor: Any, config: SignerConfig) -> IService:  # noqa: ANN401 - what every Twisted reactor is
    """A signing service and its door, for a process that looks after signals itself. Starts nothing yet.

    Raises:
        ConfigError: An endpoint cannot be made, or what signs is not installed.
    """
    service: IService = assemble(reactor, config).service
    return service


def assemble(reactor: Any, config: SignerConfig) -> Whole:  # noqa: ANN401 - as above
    """A signing service and its door. Starts nothing yet.

    Raises:
        ConfigError: An endpoint cannot be made, or what signs is not installed.
    """
    # Importing klein installs a reactor, and it is the launcher's to choose one.
    from axcollector.signer.api import SignerAPI  # noqa: PLC0415 - klein: see above
    from axcollector.site import IngestSite  # noqa: PLC0415 - likewise

    token_thread = WorkThread(reactor, "tokens")
    credential_thread = Unwaited(reactor, "credentials")
    tokens = TokenWatch(reactor, token_thread, config.tokens_path, Bound.TENANTS)
    site = IngestSite(
        SignerAPI(tokens, _presigner(reactor, credential_thread, config)).resource(),
        reactor,
        max_body_bytes=_MAX_BODY_BYTES,
        max_pending_bytes=_MAX_PENDING_BYTES,
        request_timeout_seconds=config.request_timeout,
        max_connections=fitting(_MAX_CONNECTIONS, open_files_limit()),
    )
    listeners = Listeners("listen", endpoints_of(reactor, "listen", config.listen), site)
    service = InOrder(
        [
            ClockSteps(reactor, time.time, time.monotonic),
            PrivateDirectory(os.path.dirname(config.tokens_path)),
            credential_thread,
            token_thread,
            tokens,
            OnStop(site.close_idle),
            listeners,
        ]
    )
    return Whole(service, tokens, listeners)


def _presigner(reactor: Any, thread: WorkThread, config: SignerConfig) -> "Presigner":  # noqa: ANN401 - as above
    try:
        from axcollector.signer.presigner import S3Presigner  # noqa: PLC0415 - needs an extra
        from axcollector.stores.s3_credentials import CredentialCache, SessionCredentials  # noqa: PLC0415 - likewise
        from axcollector.stores.s3_signing import S3Signer  # noqa: PLC0415 - likewise
    except ModuleNotFoundError as exc:
        if not (exc.name or "").startswith("botocore"):
            raise
        raise ConfigError("s3_url needs botocore, which is not installed: pip install 'axcollector[s3]'") from exc
    credentials = CredentialCache(
        reactor,
        thread,
        SessionCredentials(_PROGRAM),
        _PROGRAM,
        patience_seconds=_CREDENTIALS_PATIENCE_SECONDS,
    )
    signer = S3Signer(config.bucket, config.prefix, config.s3_region, config.s3_endpoint_url)
    return S3Presigner(signer, credentials.current, reactor.seconds, expires_seconds=config.expires)


def _announce(config: SignerConfig) -> None:
    if warning := warning_of(Door(config.listen, "tokens")):
        _log.warn("{warning}", warning=warning)
    _log.info(
        "axsigner {version} signs at {listen} for {s3_url}; URLs are good for {expires} s; tokens lie in {tokens_path}",
        version=__version__,
        listen=", ".join(config.listen),
        s3_url=config.s3_url,
        expires=config.expires,
        tokens_path=config.tokens_path,
    )
