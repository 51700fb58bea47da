"""`axcollector retry`: failed buckets back to staging, by the collector that runs, or in its place."""

# ruff: noqa: N815 - Twisted's names

import json
import os
from typing import Any, ClassVar

import msgspec
from twisted.python import usage

from axcollector.cli.admin_client import AdminClient, NotThere
from axcollector.cli.data_options import AdminOptions, DataOptions
from axcollector.cli.options import write_out
from axcollector.core.errors import CommandFailed, DirectoryInUse
from axcollector.disk import Disk
from axcollector.stopped import possession, return_failed


class Retried(msgspec.Struct, frozen=True):
    """The answer to `POST /retry`."""

    retried: int


class RetryOptions(AdminOptions, DataOptions):
    """Options of `retry`."""

    optional = ("bucket",)
    longdesc = (
        "Moves a bucket of failed, or all, back to staging, so that it is delivered: by the admin port of the collector"
        " that runs, at once; where none runs, in its place, for when it is started (or for `axcollector drain`)."
        " Example: axcollector retry --all"
    )
    optFlags: ClassVar[list[Any]] = [
        ["all", "a", "All of them"],
        ["json", "j", "Write what was done as one JSON object"],
    ]

    def postOptions(self) -> None:
        """They are chosen in one way."""
        if bool(self["bucket"]) == bool(self["all"]):
            raise usage.UsageError("name one of BUCKET (as `axcollector ls failed` shows it) and --all")

    def run(self) -> None:
        """Move them."""
        settings = self.settings()
        is_live = bool(self["url"])
        retried = 0
        if not is_live:
            require_data(settings.local_storage_path, settings.data_directory)
            try:
                with possession(settings.local_storage_path):
                    retried = return_failed(Disk(), settings.data_directory, self["bucket"])
            except DirectoryInUse:
                is_live = True
        if is_live:
            retried = self._asked(AdminClient.of_options(self, settings))
        if self["bucket"] and not retried:
            raise CommandFailed(f"there is no {self['bucket']!r} in failed; see `axcollector ls failed`")
        self._tell(retried, is_live=is_live)

    def _asked(self, client: AdminClient) -> int:
        asked = {"all": True} if self["all"] else {"bucket": self["bucket"]}
        try:
            return client.post("/retry", asked, "retry", Retried).retried
        except NotThere as exc:
            if self["all"]:
                raise
            raise CommandFailed(f"{exc}; see `axcollector ls failed`") from exc

    def _tell(self, retried: int, *, is_live: bool) -> None:
        if self["json"]:
            write_out(json.dumps({"retried": retried, "live": is_live}) + "\n")
        elif not retried:
            write_out("nothing is in failed\n")
        else:
            what, they = ("1 bucket goes", "it is") if retried == 1 else (f"{retried:,} buckets go", "they are")
            then = "tried again now" if is_live else "delivered when the collector is started"
            write_out(f"{what} back to staging; {they} {then}\n")


def require_data(root: str, directory: str) -> None:
    """See that there is a data directory.

    Raises:
        CommandFailed: There is none.
    """
    if not os.path.isdir(directory) or not os.path.isdir(root):
        raise CommandFailed(
            f"there is no data in {directory}; name the place with --config or --local-storage-path, or say with --url"
            " where the admin port of a running collector listens"
        )
