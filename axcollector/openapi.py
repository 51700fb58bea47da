"""The OpenAPI 3.1 document of the ingest routes, built from two tables. Pure.

It is served at `/openapi.json` beside the routes, and the documentation's page on HTTP takes its tables from here;
tests hold it against the errors in `core.errors`, and the running service against it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from axcollector import __version__

PATH: Final = "/openapi.json"


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """One way of saying no.

    Attributes:
        status: The HTTP status that goes with it.
        when: When it is said, as what follows "where".
        asks_to_wait: Whether `Retry-After` says when to come again.
    """

    status: int
    when: str
    asks_to_wait: bool = False


ERRORS: Final[Mapping[str, ErrorCode]] = {
    "NOT_FOUND": ErrorCode(404, "there is nothing at the path"),
    "METHOD_NOT_ALLOWED": ErrorCode(405, "the path has other methods, which `Allow` lists"),
    "INTERNAL_SERVER_ERROR": ErrorCode(500, "no tenants are known yet, because no snapshot has come"),
    "UNSUPPORTED_CONTENT_TYPE": ErrorCode(400, "the media type is not `application/json`, or the charset not UTF-8"),
    "OVERLOADED": ErrorCode(503, "too many batches or bytes are waiting", asks_to_wait=True),
    "STORAGE_UNAVAILABLE": ErrorCode(
        503, "there is no room on disk, writing failed, or tokens cannot be checked", asks_to_wait=True
    ),
    "UNAUTHORIZED": ErrorCode(
        401, "a token is needed (`ingest_auth`), and there is none, or none that is known; `WWW-Authenticate` says how"
    ),
    "FORBIDDEN": ErrorCode(403, "the token is not good for this scope or tenant, or there is no such scope or tenant"),
    "UNKNOWN_SCOPE": ErrorCode(
        400, "there is no such scope, or no such organization and environment; with tokens it is a 403"
    ),
    "INTERNAL_SEARCH_ERROR": ErrorCode(500, "the registry could not be asked"),
    "RATE_LIMITED": ErrorCode(429, "the scope sends more than it may", asks_to_wait=True),
    "UNSUPPORTED_CONTENT_ENCODING": ErrorCode(400, "the content encoding is neither `gzip` nor `identity`"),
    "PAYLOAD_TOO_LARGE": ErrorCode(413, "`max_body_bytes`, `max_decompressed_bytes` or `max_batch_records` is passed"),
    "BAD_DATA": ErrorCode(400, "the gzip data or the JSON cannot be read, or something in it is not of the right type"),
    "MISSING_FIELD": ErrorCode(400, "a required field of the body or of a record is absent"),
    "NO_RECORDS": ErrorCode(400, "`records` is absent, null or empty"),
}
"""Every `errorCode`, in the order in which the checks are made; those of the body's content as it comes up."""

AT_THE_DOOR: Final = {
    408: "the request was not received whole within `request_timeout`",
    414: "the request line is too long",
    417: "something else is expected than `100-continue`",
    431: "there are too many headers, or too large ones",
}
"""What no route gets to see, is answered with `BAD_DATA`, and closes the connection, by status."""

_OF_NO_ROUTE: Final = frozenset({"METHOD_NOT_ALLOWED"})


@dataclass(frozen=True, slots=True)
class Route:
    """One route that takes records.

    Attributes:
        name: The operation's.
        path: With its parameters in braces; `{base_path}` is what is configured.
        tenant: How the request names its tenant.
        names_in_body: Whether the body has to have `organization` and `environment`.
    """

    name: str
    path: str
    tenant: str
    names_in_body: bool = False


ROUTES: Final = (
    Route("postForScope", "{base_path}/{scope}", "The scope, a UUID, names the tenant."),
    Route(
        "postNamedInBody",
        "{base_path}",
        "The body names the tenant: `organization` and `environment` stand beside `records`.",
        names_in_body=True,
    ),
    Route(
        "postForNames",
        "/axpublisher/organization/{organization}/environment/{environment}",
        "The path names the tenant, whatever the body says. This is what Apigee's microgateway sends.",
    ),
)

_PARAMETERS: Final = {
    "scope": "The id of a scope, as `axcollector scope add` prints it.",
    "organization": "The tenant's organization.",
    "environment": "The tenant's environment.",
}


def document(base_path: str) -> dict[str, Any]:
    """The document of a collector whose native routes begin with `base_path`, as what JSON can hold."""
    paths: dict[str, Any] = {
        route.path.replace("{base_path}", quote(base_path)): {"post": _operation(route)} for route in ROUTES
    }
    paths[PATH] = {"get": _own_operation()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "axcollector",
            "version": __version__,
            "description": "Collects API-traffic records and delivers them to object storage, losing none.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        # Where the document lies, so that it is right behind a proxy and in another program's site too.
        "servers": [{"url": "."}],
        "paths": paths,
        "components": {"schemas": _SCHEMAS, "responses": _error_responses()},
    }


def statuses_of_errors() -> dict[int, list[str]]:
    """The codes of each status, in the order of the table."""
    found: dict[int, list[str]] = {}
    for code, error in ERRORS.items():
        found.setdefault(error.status, []).append(code)
    return found


def _operation(route: Route) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "description": text, "schema": {"type": "string"}}
        for name, text in _PARAMETERS.items()
        if "{" + name + "}" in route.path
    ]
    body = _reference("schemas", "BatchWithNames" if route.names_in_body else "Batch")
    of_routes = [status for status, codes in statuses_of_errors().items() if not _OF_NO_ROUTE.issuperset(codes)]
    errors = {str(status): _reference("responses", _name(status)) for status in sorted([*of_routes, *AT_THE_DOOR])}
    return {
        "operationId": route.name,
        "summary": "Take a batch of records, whole or not at all.",
        "description": f"{route.tenant} The body may have `Content-Encoding: gzip`.",
        "parameters": parameters,
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": _answer("The batch is taken, so durably as `durability` says.", "Accepted"), **errors},
    }


def _own_operation() -> dict[str, Any]:
    return {
        "operationId": "getDescription",
        "summary": "This document.",
        "responses": {
            "200": {
                "description": "An OpenAPI 3.1 document.",
                "content": {"application/json": {"schema": {"type": "object", "required": ["openapi", "paths"]}}},
            }
        },
    }


def _name(status: int) -> str:
    return f"Error{status}"


def _error_responses() -> dict[str, Any]:
    of_routes = {_name(status): _error_response(codes) for status, codes in statuses_of_errors().items()}
    return {**of_routes, **{_name(status): _error_response(["BAD_DATA"], when) for status, when in AT_THE_DOOR.items()}}


def _error_response(codes: list[str], when: str = "") -> dict[str, Any]:
    of_these = {"properties": {"errorCode": {"enum": codes}}}
    response: dict[str, Any] = {
        "description": "\n".join(f"* `{code}`: {when or ERRORS[code].when}" for code in codes),
        "content": {"application/json": {"schema": {"allOf": [_reference("schemas", "Error"), of_these]}}},
    }
    if any(ERRORS[code].asks_to_wait for code in codes):
        response["headers"] = {"Retry-After": {"description": "In seconds.", "schema": {"type": "integer"}}}
    if "UNAUTHORIZED" in codes:
        response["headers"] = {"WWW-Authenticate": {"description": "How.", "schema": {"type": "string"}}}
    return response


def _answer(description: str, schema: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/json": {"schema": _reference("schemas", schema)}},
    }


def _reference(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}


_TEXT: Final = {"type": ["string", "null"]}
_MILLISECONDS: Final = "Milliseconds since the epoch."

_BATCH: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["records"],
    "properties": {"records": {"type": "array", "minItems": 1, "items": _reference("schemas", "Record")}},
}

_SCHEMAS: Final[Mapping[str, Any]] = {
    "Batch": _BATCH,
    "BatchWithNames": {
        **_BATCH,
        "required": ["organization", "environment", "records"],
        "properties": {**_BATCH["properties"], "organization": {"type": "string"}, "environment": {"type": "string"}},
    },
    "Record": {
        "type": "object",
        "description": "One API call. What is not listed here is kept exactly as it was sent.",
        "required": ["client_received_start_timestamp"],
        "properties": {
            "client_received_start_timestamp": {"type": "integer", "description": _MILLISECONDS},
            "client_received_end_timestamp": {
                "type": ["integer", "null"],
                "description": f"{_MILLISECONDS} Not before the start.",
            },
            "client_id": {**_TEXT, "description": "The consumer key; tells product, app and developer."},
            "organization": _TEXT,
            "environment": _TEXT,
        },
        "examples": [{"client_received_start_timestamp": 1480000080000, "request_uri": "/v1/orders"}],
    },
    "Accepted": {
        "type": "object",
        "additionalProperties": False,
        "required": ["accepted", "rejected"],
        "properties": {
            "accepted": {"type": "integer", "minimum": 0, "description": "How many records were taken."},
            "rejected": {"const": 0, "description": "A batch is taken whole or not at all."},
            # With a quarantine.
            "quarantined": {"type": "integer", "minimum": 0, "description": "How many were set aside as invalid."},
        },
    },
    "Error": {
        "type": "object",
        "additionalProperties": False,
        "required": ["errorCode", "reason"],
        "properties": {
            "errorCode": {"type": "string", "enum": list(ERRORS)},
            "reason": {"type": "string", "description": "One sentence for whoever reads the client's log."},
        },
    },
}
