"""`axcollector key`: whose a record's `client_id` is."""

# ruff: noqa: N815 - Twisted's names

import dataclasses
from typing import Any, ClassVar, Final

from twisted.python import usage

from axcollector.cli.options import CommandOptions, ListOptions, ObjectOptions, free_texts
from axcollector.registry import Key, Registry

COLUMNS: Final = tuple(field.name for field in dataclasses.fields(Key))
"""What `list` shows of a key."""


class AddOptions(ObjectOptions):
    """Options of `key add`."""

    longdesc = (
        "Adds a key to the scope's tenant and prints the client id, a random one where none is given. The product,"
        " app, developer and company are made where the tenant has none of that name. Example: axcollector key add"
        " SCOPE --product gold --app weather --developer ada --email ada@example.com"
    )
    required = ("scope",)
    optional = ("client_id",)
    optParameters: ClassVar[list[Any]] = [
        ["product", "p", None, "The API product's name"],
        ["app", "a", None, "The app's name"],
        ["developer", "d", None, "The name of the app's developer"],
        ["email", "e", None, "The developer's e-mail; one that is known already gets this one"],
        ["company", None, None, "The name of the app's company, where it is a company's"],
    ]
    compData = usage.Completions(optActions=free_texts("product", "app", "developer", "email", "company"))

    def postOptions(self) -> None:
        """A key is of no use without a product, an app, and whose it is."""
        missing = [f"--{name}" for name in ("product", "app") if not self[name]]
        if not (self["developer"] or self["company"]):
            missing.append("--developer or --company")
        if missing:
            raise usage.UsageError(f"missing: {', '.join(missing)}")
        if self["email"] and not self["developer"]:
            raise usage.UsageError("--email is the developer's: name one with --developer")
        if self["client_id"] == "":
            raise usage.UsageError("the client id is empty; leave it out to get a random one")

    def run(self) -> None:
        """Add it; the client id goes to stdout."""
        with self.open_registry(Registry) as registry:
            key = registry.add_key(
                self["scope"],
                self["client_id"],
                product=self["product"],
                app=self["app"],
                developer=self["developer"] or "",
                email=self["email"] or "",
                company=self["company"] or "",
            )
        self.write(dataclasses.asdict(key), f"{key.client_id}\n")


class KeyListOptions(ListOptions):
    """Options of `key list`."""

    longdesc = "Lists the keys of the scope's tenant, or of all. Example: axcollector key list --json"
    optional = ("scope",)

    def run(self) -> None:
        """List them."""
        with self.open_registry(Registry) as registry:
            keys = registry.keys(self["scope"])
        self.write(COLUMNS, [dataclasses.asdict(key) for key in keys])


class RemoveOptions(ObjectOptions):
    """Options of `key remove`."""

    longdesc = (
        "Removes a key of the scope's tenant, or, with --product or --app, only that part of it."
        " Example: axcollector key remove SCOPE CLIENT_ID"
    )
    required = ("scope", "client_id")
    optParameters: ClassVar[list[Any]] = [
        ["product", "p", None, "Only with this API product"],
        ["app", "a", None, "Only with this app"],
    ]
    compData = usage.Completions(optActions=free_texts("product", "app"))

    def run(self) -> None:
        """Remove it."""
        with self.open_registry(Registry) as registry:
            count = registry.remove_key(self["scope"], self["client_id"], self["product"], self["app"])
        only = {name: self[name] for name in ("product", "app") if self[name] is not None}
        self.write({"scope": self["scope"], "client_id": self["client_id"], **only, "removed": count})


class KeyOptions(CommandOptions):
    """Options of the group."""

    longdesc = "Example: axcollector key add SCOPE --product gold --app weather --developer ada --email ada@example.com"
    subCommands: ClassVar[list[Any]] = [
        ["add", None, AddOptions, "Add a key and print its client id"],
        ["list", None, KeyListOptions, "List the keys"],
        ["remove", None, RemoveOptions, "Remove a key"],
    ]
