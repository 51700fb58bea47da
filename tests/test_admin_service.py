"""The admin pages of the real service: what the status page asks for is there, and what it asks to be done is done."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest_twisted
import treq
from twisted.logger import Logger

from axcollector.core.layout import bucket_directory
from axcollector.core.model import BucketName
from tests.running import Running, until


class Asking(Running):
    """A service whose admin port is asked."""

    async def get(self, path: str) -> Any:
        """The document at a path."""
        response = await treq.get(self.admin + path, agent=self._agent)
        assert response.code == 200
        return json.loads(await response.content())

    async def change(self, path: str, document: object) -> tuple[int, Any]:
        """Status and document of what a change is answered."""
        headers = {"X-Axcollector": "retry"}
        response = await treq.post(self.admin + path, json.dumps(document).encode(), headers=headers, agent=self._agent)
        return response.code, json.loads(await response.content())


@pytest_twisted.ensureDeferred
async def test_what_the_page_asks_for(tmp_path: Path) -> None:
    """The page, its samples and events, the configuration, the quarantine; what is retried or drained is delivered."""
    running = Asking(tmp_path / "data", collection_interval=3600, max_upload_attempts=1)
    failed = tmp_path / "data" / "ax" / "failed" / bucket_directory(BucketName(1_767_323_040, "acme", "prod"))
    await running.start()
    scope = await running.scope("acme", "prod")
    await running.send(scope, ['{"client_received_start_timestamp": 1}'])
    page = await treq.get(running.admin + "/", agent=running._agent)
    assert b"<title>axcollector</title>" in await page.content()
    assert (await running.get("/history"))["columns"][:2] == ["at", "records"]
    assert (await running.get("/quarantine"))["buckets"] == []
    Logger("test").info("said {what}", what="so")
    assert (await running.get("/events"))["events"][-1]["text"] == "said so"
    settings = {each["key"]: each["value"] for each in (await running.get("/configuration"))["settings"]}
    assert settings["collection_interval"] == "3600"
    failed.mkdir(mode=0o700)
    (failed / "0000_x.txt.gz").write_bytes(gzip.compress(b"{}\n"))
    assert await running.change("/retry", {"bucket": failed.name}) == (200, {"retried": 1})
    await until(lambda: not failed.exists() and any((tmp_path / "data" / "store").rglob("0000_x.txt.gz")))
    assert (await running.change("/retry", {"bucket": failed.name}))[0] == 404
    assert await running.change("/drain", {}) == (202, {"draining": True})
    await until(lambda: running.stored() == 2)
    await running.stop()
