"""The OpenAPI 3.1 document, made of the operations and their models."""

from __future__ import annotations

__all__ = ["document_of"]

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from uvian_worker.gateway.endpoints.plain_paths import PLAIN_PATHS, SCHEMES
from uvian_worker.gateway.http.operations import Operation
from uvian_worker.gateway.http.problems import PROBLEMS, answers_of

_TEMPLATE: Final = "#/components/schemas/{model}"
_PROBLEM: Final = {
    "type": "object",
    "description": "RFC 9457; `code` is stable, `errors` names fields.",
    "required": ["type", "title", "status", "code", "instance"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "enum": sorted(PROBLEMS)},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "code", "message"],
                "properties": {name: {"type": "string"} for name in ("field", "code", "message")},
            },
        },
    },
}

Mode = Any
Schemas = Mapping[Any, dict[str, Any]]


def document_of(operations: Sequence[Operation], *, version: str) -> dict[str, Any]:
    """The document of these operations, and of the few paths that are none."""
    models: list[tuple[type[BaseModel], Mode]] = []
    for operation in operations:
        models += [(answer, "serialization") for answer in operation.answers.values() if answer]
        if operation.body is not None:
            models.append((operation.body, "validation"))
    schemas, definitions = models_json_schema(list(dict.fromkeys(models)), ref_template=_TEMPLATE)
    paths: dict[str, Any] = {}
    for operation in operations:
        entry = paths.setdefault(operation.route, {})
        entry[operation.method.lower()] = _operation(operation, schemas, operations)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "uvian-worker gateway",
            "version": version,
            "description": "Jobs, conversations and their results for signed-in users of a Supabase project.",
        },
        "security": [{"supabase": []}],
        "paths": {**paths, **PLAIN_PATHS},
        "components": {
            "schemas": {**definitions.get("$defs", {}), "Problem": _PROBLEM},
            "securitySchemes": {
                "supabase": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "The access token of a signed-in user.",
                },
                **SCHEMES,
            },
        },
    }


def _operation(
    operation: Operation, schemas: Schemas, all_operations: Sequence[Operation]
) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": [
            *_parameters(operation.path, "path"),
            *_parameters(operation.query, "query"),
        ],
        "responses": {
            **_answers(operation, schemas, all_operations),
            **answers_of(operation.all_problems),
        },
    }
    if operation.body is not None:
        schema = schemas[operation.body, "validation"]
        required = any(each.is_required() for each in operation.body.model_fields.values())
        entry["requestBody"] = {
            "required": required,
            "content": {"application/json": {"schema": schema}},
        }
    return entry


def _parameters(model: type[BaseModel], where: str) -> list[dict[str, Any]]:
    schema = model.model_json_schema(ref_template=_TEMPLATE)
    required = set(schema.get("required", ()))
    return [
        {
            "name": name,
            "in": where,
            "required": where == "path" or name in required,
            "schema": {key: value for key, value in field.items() if key != "description"},
            **({"description": field["description"]} if "description" in field else {}),
        }
        for name, field in schema.get("properties", {}).items()
    ]


def _answers(
    operation: Operation, schemas: Schemas, all_operations: Sequence[Operation]
) -> dict[str, Any]:
    links = {
        other.id: {"operationId": other.id, "parameters": {operation.names: "$response.body#/id"}}
        for other in all_operations
        if operation.names in other.path.model_fields
    }
    answers: dict[str, Any] = {}
    for status, model in operation.answers.items():
        answer: dict[str, Any] = {"description": HTTPStatus(status).phrase}
        if model is not None:
            answer["content"] = {"application/json": {"schema": schemas[model, "serialization"]}}
        answers[str(status)] = {**answer, **({"links": links} if links else {})}
    return answers
