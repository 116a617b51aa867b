"""The OpenAPI 3.1 document, built from the declarations that also validate requests."""

import re
from collections.abc import Iterable
from typing import Any, get_origin

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from app.access.permissions import OPEN
from app.errors import DomainError
from app.http.route import Route
from app.version import VERSION

_PATH_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")
_REF = "#/components/schemas/{model}"

_ERROR = {
    "Error": {
        "type": "object",
        "required": ["detail"],
        "properties": {
            "detail": {"type": "string", "description": "The problem and its remedy."},
            "code": {
                "type": "string",
                "description": "Tells it from others of its status, where there are any.",
            },
        },
    },
    "ValidationError": {
        "type": "object",
        "required": ["detail"],
        "properties": {
            "detail": {
                "anyOf": [
                    {"type": "string"},
                    {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["type", "loc", "msg"],
                            "properties": {
                                "type": {"type": "string"},
                                "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
                                "msg": {"type": "string"},
                                "input": {},
                                "ctx": {"type": "object"},
                            },
                        },
                    },
                ]
            }
        },
    },
}
_BINARY = {"type": "string", "format": "binary"}
_RECEIVED = {"application/json": {"type": "object"}}
_SECURITY = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A token of a trusted issuer. Not needed while authentication is off.",
    }
}


def build_document(routes: Iterable[Route], *, asks_who: bool) -> dict[str, Any]:
    """The document of `routes` with all their models; `asks_who` is False if authentication is off."""
    routes = list(routes)
    schemas, references = _schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = _PATH_PARAMETER.sub(r"{\1}", route.rule)
        operation = _operation(route, references)
        if asks_who and route.permission not in OPEN:
            operation["security"] = [{"token": []}]
        paths.setdefault(path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Workspaces",
            "version": VERSION,
            "description": "The workspace control plane that people trust to delete things.",
        },
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": {**schemas, **_ERROR}, "securitySchemes": _SECURITY},
    }


def _schemas(routes: list[Route]) -> tuple[dict[str, Any], dict[tuple[Any, JsonSchemaMode], Any]]:
    models: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {}
    for route in routes:
        if route.body:
            models[route.body, "validation"] = None
        if _is_model(route.returns):
            models[route.returns, "serialization"] = None
    references, definitions = models_json_schema(list(models), ref_template=_REF)
    return definitions.get("$defs", {}), dict(references)


def _is_model(returns: Any) -> bool:
    return isinstance(returns, type) and get_origin(returns) is None and issubclass(returns, BaseModel)


def _operation(route: Route, references: dict[tuple[Any, JsonSchemaMode], Any]) -> dict[str, Any]:
    summary, _, description = (route.handler.__doc__ or "").strip().partition("\n\n")
    operation: dict[str, Any] = {
        "operationId": f"{route.handler.__name__}_{route.method.lower()}",
        "tags": [route.tag],
        "summary": summary,
        "description": " ".join(description.split()),
        "x-permission": route.permission.value,
        "parameters": [*_path_parameters(route), *_query_parameters(route)],
        "responses": _responses(route, references),
    }
    if route.body:
        schema = references[route.body, "validation"]
        operation["requestBody"] = {
            "required": not route.body_is_optional,
            "content": {"application/json": {"schema": schema}},
        }
    elif route.receives:
        operation["requestBody"] = {
            "required": True,
            "content": {type_: {"schema": _RECEIVED.get(type_, _BINARY)} for type_ in route.receives},
        }
    elif route.upload:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/octet-stream": {"schema": _BINARY}},
        }
    return operation


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"minLength": 1, **type_.json_schema()},
        }
        for name, type_ in route.path.items()
    ]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    if route.query is None:
        return []
    schema = route.query.model_json_schema(ref_template=_REF)
    definitions = schema.get("$defs", {})
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "description": spec.get("description", ""),
            "schema": _inlined(spec, definitions),
        }
        for name, spec in schema.get("properties", {}).items()
    ]


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _inlined(definitions[schema["$ref"].rsplit("/", 1)[-1]], definitions)
        return {key: _inlined(value, definitions) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_inlined(one, definitions) for one in schema]
    return schema


def _responses(route: Route, references: dict[tuple[Any, JsonSchemaMode], Any]) -> dict[str, Any]:
    success: dict[str, Any] = {"description": "Done."}
    if route.media_type != "application/json":
        success["content"] = {route.media_type: {"schema": {"type": "string"}}}
    elif route.status != 204:
        success["content"] = {"application/json": {"schema": _returned(route, references)}}
    answers = {str(route.status): success}
    errors: dict[int, list[type[DomainError]]] = {status: [] for status in _common_errors(route)}
    for error in route.raises:
        errors.setdefault(error.status, []).append(error)
    for status, raised in sorted(errors.items()):
        lines = [" ".join((error.__doc__ or "").split()) for error in raised]
        schema = {"$ref": _REF.format(model="ValidationError" if status == 422 else "Error")}
        answers[str(status)] = {
            "description": " ".join(lines) or _COMMON_DESCRIPTIONS[status],
            "content": {"application/json": {"schema": schema}},
        }
    return answers


def _common_errors(route: Route) -> list[int]:
    """Statuses that every route of this sort may answer."""
    statuses = [400, 421, 422, 503]
    if route.permission not in OPEN:
        statuses += [401, 403]
    if route.body or route.upload or route.receives:
        statuses.append(413)
    if route.action == "write":
        statuses.append(429)
    return statuses


_COMMON_DESCRIPTIONS = {
    400: "A header, filter or sort is malformed.",
    401: "Missing or invalid credentials.",
    403: "You are not permitted to do this, or the resource does not exist.",
    413: "The body is too large.",
    421: "The Host is not a name of this server.",
    429: "Too many writes; try again later.",
    422: "The body or a parameter is invalid.",
    503: "The database did not answer in time; try again.",
}


def _returned(route: Route, references: dict[tuple[Any, JsonSchemaMode], Any]) -> Any:
    if _is_model(route.returns):
        return references[route.returns, "serialization"]
    return TypeAdapter(route.returns).json_schema(ref_template=_REF)
