"""What /openapi.json says about a worker: what predict takes and gives, and how it answers when something is wrong."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from .inputs import output_schema
from .model import Model

OPENAPI_VERSION = "3.1.0"
API_VERSION = "1"
"""The document has to name one, and a worker has none; a deployment's revisions are the platform's business."""

CHUNKS: Mapping[str, Any] = {
    "type": "object",
    "properties": {"chunks": {"type": "array", "items": {}}},
    "additionalProperties": True,
}
"""The outputs of a predict that streams, unless it returns others at its end."""

EVENTS = "An event for each chunk, without a name; then one named `done`, with the outputs, or `error`."

DEFINITIONS = "$defs"

ERROR_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string", "enum": ["invalid_request_error", "server_error"]},
                "param": {"type": ["string", "null"], "description": "Where in the input the mistake is: items.0.name"},
                "code": {"type": "string"},
            },
        }
    },
}

ERRORS = {
    "400": "The body is no JSON object.",
    "413": "The body is too large; large inputs go as files.",
    "422": "The input does not fit; `param` says where.",
    "500": "Predict failed.",
    "503": "The model is busy, setting up or draining.",
}


def document(model: Model, predict_path: str) -> dict[str, Any]:
    """Describe a worker in OpenAPI 3.1.

    Args:
        model: the worker.
        predict_path: where it answers requests.
    """
    definitions: dict[str, Any] = {"Error": ERROR_SCHEMA}
    inputs = _hoisted(model.inputs.schema(), definitions, "{}")
    outputs = _hoisted(CHUNKS if model.streams else output_schema(model.signature), definitions, "{}-Output")
    return {
        "openapi": OPENAPI_VERSION,
        "info": _without_none(title=model.name, version=API_VERSION, description=_doc(model.cls)),
        "paths": {predict_path: {"post": _operation(model, inputs, outputs)}},
        "components": {"schemas": definitions},
    }


def _operation(model: Model, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> dict[str, Any]:
    content = _json(outputs)
    if model.streams:
        content["text/event-stream"] = {"schema": {"type": "string", "description": EVENTS}}
    answers: dict[str, Any] = {"200": {"description": "The outputs.", "content": content}}
    for status, text in ERRORS.items():
        answers[status] = {"description": text, "content": _json({"$ref": "#/components/schemas/Error"})}
    return _without_none(
        operationId="predict",
        description=_doc(model.method),
        requestBody={"required": True, "content": _json(inputs)},
        responses=answers,
    )


def _hoisted(schema: Mapping[str, Any], definitions: dict[str, Any], name: str) -> dict[str, Any]:
    """Move what a schema defines for itself to where the whole document finds it."""
    for defined, definition in schema.get(DEFINITIONS, {}).items():
        definitions[name.format(defined)] = definition
    return {key: value for key, value in schema.items() if key != DEFINITIONS}


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _doc(thing: Any) -> str | None:
    """Give a docstring of the author's own; that of a base class would describe sprocket."""
    text = vars(thing).get("__doc__") if isinstance(thing, type) else thing.__doc__
    return inspect.cleandoc(text) if text else None


def _without_none(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
