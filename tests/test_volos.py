"""A real client: npm's volos-analytics-apigee, unmodified, driven as Apigee's microgateway does (SPEC section 12)."""

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import threads

from axcollector.tokens import Bound, TokenFile
from tests.running import Running, until

HERE = Path(__file__).parent / "volos"
COUNT = 1203
"""Some flushes are full, and the last is not."""
DEVELOPER = {
    "api_product": "p-key-1",
    "developer_app": "a-key-1",
    "developer_email": "key-1@x.y",
    "developer": "d-key-1",
}

needs_volos = pytest.mark.skipif(
    shutil.which("node") is None or not (HERE / "node_modules" / "volos-analytics-apigee").is_dir(),
    reason="needs node and its packages: run tests/setup_node.sh",
)


def drive(configuration: dict[str, Any]) -> list[dict[str, Any]]:
    """The records that the client was given and has sent, when it has ended. Blocking."""
    command = ["node", "send.js", json.dumps(configuration)]
    result = subprocess.run(command, cwd=HERE, capture_output=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, b"")
    return [json.loads(line) for line in result.stdout.splitlines()]


def enriched(record: dict[str, Any]) -> dict[str, Any]:
    """What is to become of a record."""
    tenant = {"organization": "acme", "environment": "prod"}
    return {**tenant, **(DEVELOPER if record.get("client_id") else {}), **record}


@needs_volos
@pytest.mark.parametrize(("compress", "ingest_auth"), [(False, "none"), (True, "none"), (False, "token")])
@pytest_twisted.ensureDeferred
async def test_every_record_of_a_microgateway_arrives(tmp_path: Path, compress: bool, ingest_auth: str) -> None:
    """What the client sends is delivered, each record once, equal to what it was given plus enrichment.

    Its secret is the token, where one is needed.
    """
    service = await Running(tmp_path / "data", ingest_auth=ingest_auth).start()
    scope = await service.scope("acme", "prod", "key-1")
    with TokenFile.create(service.config.tokens_file, Bound.SCOPES) as file:
        _, secret = file.add([scope], time.time())
    watch = service.collector._ingesting._tokens
    await until(lambda: watch is None or (watch.problem() is None and watch.find(secret) is not None))
    configuration = {
        "uri": f"{service.url}/axpublisher/organization/acme/environment/prod",
        "source": "microgateway",
        "key": "key-of-the-microgateway",
        "secret": secret,
        "proxy": "dummy",
        "proxy_revision": 1,
        "compress": compress,
        "flushInterval": 50,
        "bufferSize": 10_000,
        "batchSize": 100,
        "count": COUNT,
    }
    sent = await threads.deferToThread(drive, configuration)
    assert len({record["request_uri"] for record in sent}) == COUNT
    await until(lambda: service.stored() >= COUNT)
    found = {tenant: [json.loads(line) for line in lines] for tenant, lines in service.delivered().items()}
    assert list(found) == ["acme~prod"]
    in_order = sorted(found["acme~prod"], key=lambda record: record["request_uri"])
    assert in_order == sorted(map(enriched, sent), key=lambda record: record["request_uri"])
    await service.stop()
