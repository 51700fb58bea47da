"""The same load by wrk, where that is installed: a client that others know.

It sends what `ingest_client` sends, from the same file, in the same order, closed loop only. When its time is over it
hangs up without waiting for the last answers, one a connection, so that many requests more may be delivered than it
has counted.
"""

import json
import os
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.ingest_client import Plan

_PATIENCE_SECONDS = 60.0
_SCRIPT = """
local file = assert(io.open([[%(path)s]], "rb"))
local requests, at = {}, 0
for length in string.gmatch("%(lengths)s", "%%d+") do
  requests[#requests + 1] = file:read(tonumber(length))
end
file:close()

function request()
  at = at %% #requests + 1
  return requests[at]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\\nRESULT {"requests": %%d, "refused": %%d, "failed": %%d, "seconds": %%f, "p50": %%f, "p99": %%f, "max": %%f}\\n',
    summary.requests, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end
"""


def wrk() -> str | None:
    """The program, if it is installed."""
    return shutil.which("wrk")


def run(program: str, plan: Plan) -> dict[str, Any]:
    """Load a service as planned; what `ingest_client.run` says, and how many answers may have been missed.

    Raises:
        SystemExit: Connections failed.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT % {"path": Path(plan.path), "lengths": " ".join(map(str, plan.lengths))})
        script.flush()
        seconds = max(1, round(plan.seconds))
        options = ["-t1", f"-c{plan.connections}", f"-d{seconds}s", "--timeout", "30s", "-s", script.name]
        used = _children_seconds()
        output = _on_core(plan.cpu, [program, *options, f"http://127.0.0.1:{plan.port}/"], seconds)
    told = json.loads(output.rpartition("RESULT ")[2])
    return result(told, _children_seconds() - used, plan.connections)


def result(told: dict[str, Any], used: float, connections: int) -> dict[str, Any]:
    """What wrk told, in the words of `ingest_client.run`.

    Raises:
        SystemExit: Connections failed.
    """
    if told["failed"]:
        raise SystemExit(f"wrk: {told['failed']} connections, reads or writes failed")
    statuses = {"200": told["requests"] - told["refused"], "4xx, 5xx": told["refused"]}
    return {
        "statuses": {status: count for status, count in statuses.items() if count},
        "unread": connections,
        "seconds": told["seconds"],
        "cpu share": used / told["seconds"],
        "p50 ms": told["p50"],
        "p99 ms": told["p99"],
        "max ms": told["max"],
        "stall ms": 0.0,
    }


def _on_core(cpu: int, command: list[str], seconds: float) -> str:
    """What a program on this core prints; its threads are made there, so this process goes there while it starts it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    finally:
        os.sched_setaffinity(0, before)
    with program:
        try:
            output, _ = program.communicate(timeout=seconds + _PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            program.kill()
            raise SystemExit("wrk does not end") from None
    if program.returncode:
        raise SystemExit(f"wrk ended with status {program.returncode}")
    return output


def _children_seconds() -> float:
    """The CPU seconds of programs that this one started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
