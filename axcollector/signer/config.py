"""`SignerConfig`: every setting of the signing service, made from the same table as the collector's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from axcollector.config_endpoints import Endpoints
from axcollector.config_keys import Key, arguments_of, keys_of, read_values
from axcollector.config_urls import S3Url, Url
from axcollector.config_values import Choice, Path, Seconds, Text, Whole
from axcollector.config_yaml import read_yaml
from axcollector.core.errors import ConfigError

LONGEST_EXPIRY_SECONDS: Final = 7 * 86_400
"""No store takes a signed URL that is to be good for longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerConfig:
    """The settings of one signing service.

    Raises:
        ConfigError: A value cannot be used, or `s3_url` is missing.
    """

    listen: Annotated[
        Sequence[str], Endpoints(), "where collectors ask for URLs; on the command line it may be repeated"
    ] = ("tcp:9010:interface=127.0.0.1",)
    s3_url: Annotated[str | None, S3Url(), "what URLs are signed for; there is no default"] = None
    s3_region: Annotated[
        str, Text(r"[A-Za-z0-9-]{1,64}", "a region's name, such as eu-central-1"), "where the bucket is"
    ] = "us-east-1"  # fmt: skip
    s3_endpoint_url: Annotated[str | None, Url(), "whom the URLs name in place of AWS: MinIO, Ceph, R2 and others"] = (
        None
    )
    expires: Annotated[int, Whole(1, LONGEST_EXPIRY_SECONDS, "s"), "how long a URL is good for"] = 900
    tokens_path: Annotated[
        str, Path(), "the SQLite file of the collectors' tokens; made, with mode 0600, if absent"
    ] = "./axsigner-data/tokens.db"  # fmt: skip
    request_timeout: Annotated[float, Seconds(0.01), "a request not received whole by then is cut"] = 60.0
    log_format: Annotated[str, Choice(("text", "json")), "how log lines are written"] = "text"

    def __post_init__(self) -> None:
        """Read every value by its kind."""
        read_values(self, SIGNER_KEYS)
        if self.s3_url is None:
            raise ConfigError(f"s3_url is missing; allowed is {S3Url().allowed}")

    @property
    def bucket(self) -> str:
        """The bucket that URLs are signed for."""
        return (self.s3_url or "").removeprefix("s3://").partition("/")[0]

    @property
    def prefix(self) -> str:
        """What all keys begin with there; maybe nothing."""
        return (self.s3_url or "").removeprefix("s3://").partition("/")[2].rstrip("/")


SIGNER_KEYS: Final[Mapping[str, Key]] = keys_of(SignerConfig)
"""Every key, by name, in the order of the documentation."""


def read_signer_config(path: str | None, overrides: Mapping[str, object]) -> SignerConfig:
    """Read a configuration file, and put what a command line says over it.

    Args:
        path: The YAML file, or None: all defaults.
        overrides: Values by key (text, or a list of texts where a key takes several); they win.

    Raises:
        ConfigError: The file cannot be read, a key is unknown or missing, or a value cannot be used.
    """
    values = {} if path is None else read_yaml(path)
    return SignerConfig(**arguments_of(SIGNER_KEYS, {**values, **overrides}))
