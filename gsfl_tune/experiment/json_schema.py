"""The JSON schema of an experiment file, for editors that complete and check YAML."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from gsfl_tune.experiment.conditions import COMPARISONS
from gsfl_tune.experiment.fields import Leaf, leaves, sections
from gsfl_tune.experiment.names import Automatic

_SCALAR = {"type": ["string", "number", "boolean", "null"]}
_COMMON = {
    "when": {"$ref": "#/$defs/when"},
    "default": {**_SCALAR, "description": "Value of `train` and of the first trial."},
    "else": {**_SCALAR, "description": "Value while the condition does not hold."},
}


def json_schema() -> dict[str, Any]:
    """Returns the schema, draft 2020-12; every searchable leaf also takes distributions."""
    definitions: dict[str, Any] = {
        **_when(),
        "named": _named(),
        "int": _range("int", "integer"),
        "float": _range("float", "number"),
    }
    searched = [leaf for leaf in leaves().values() if leaf.not_searched is None]
    definitions.update({leaf.path: _distribution(leaf) for leaf in searched})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gsfl-tune experiment",
        **_section("", definitions),
        "$defs": definitions,
    }


def _section(path: str, definitions: dict[str, Any]) -> dict[str, Any]:
    model = sections()[path]
    properties: dict[str, Any] = {}
    for key, field in model.model_fields.items():
        inner = f"{path}.{key}" if path else key
        if inner in sections():
            properties[key] = _section(inner, definitions)
            if field.description:
                properties[key]["description"] = field.description
        else:
            properties[key] = _leaf(leaves()[inner], inner in definitions)
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if not path:
        # Training needs data, but no key of `data` is required by every source.
        schema["required"] = ["name", "data"]
    else:
        schema["description"] = model.__doc__
        required = [key for key, field in model.model_fields.items() if field.is_required()]
        required = [key for key in required if f"{path}.{key}" not in sections()]
        if required:
            schema["required"] = required
        else:
            schema["type"] = ["object", "null"]
    open_to_names = any(name.startswith(f"{path}." if path else "") for name in definitions)
    schema["additionalProperties"] = {"$ref": "#/$defs/named"} if open_to_names else False
    return schema


def _leaf(leaf: Leaf, searched: bool) -> dict[str, Any]:
    scalar = _scalar(leaf)
    if any(isinstance(item, Automatic) for item in leaf.field.metadata):
        scalar = {"anyOf": [scalar, {"const": "auto"}]}
    schema: dict[str, Any] = {}
    if searched:
        one = {"$ref": f"#/$defs/{leaf.path}"}
        alternatives = {"type": "array", "items": one, "minItems": 1}
        schema["anyOf"] = [scalar, one, alternatives]
    else:
        schema.update(scalar)
    if leaf.field.description:
        schema["description"] = leaf.field.description
    if not leaf.required and leaf.default is not None:
        schema["default"] = leaf.default
    return schema


def _scalar(leaf: Leaf) -> dict[str, Any]:
    return TypeAdapter(leaf.annotation).json_schema()


def _distribution(leaf: Leaf) -> dict[str, Any]:
    scalar = _scalar(leaf)
    kinds: list[dict[str, Any]] = [
        {
            "type": "object",
            "description": "One of these values.",
            "properties": {
                "choice": {"type": "array", "items": scalar, "minItems": 1, "uniqueItems": True},
                **_COMMON,
            },
            "required": ["choice"],
            "additionalProperties": False,
        }
    ]
    types = {part.get("type") for part in scalar.get("anyOf", [scalar])}
    if "integer" in types or "number" in types:
        kinds.append({"$ref": "#/$defs/int"})
    if "number" in types:
        kinds.append({"$ref": "#/$defs/float"})
    return {"anyOf": kinds} if len(kinds) > 1 else kinds[0]


def _range(kind: str, number: str) -> dict[str, Any]:
    pair = {"type": "array", "items": {"type": number}, "minItems": 2, "maxItems": 2}
    return {
        "type": "object",
        "description": "A range, both ends included.",
        "properties": {
            kind: {**pair, "description": "[low, high]"},
            "log": {"type": "boolean", "description": "Draw evenly on a logarithmic scale."},
            "step": {"type": number, "exclusiveMinimum": 0, "description": "Distance of values."},
            **_COMMON,
        },
        "required": [kind],
        "additionalProperties": False,
    }


def _when() -> dict[str, Any]:
    compare = {
        "type": "object",
        "properties": {name: {"type": "number"} for name in COMPARISONS},
        "additionalProperties": False,
        "minProperties": 1,
    }
    condition = {"anyOf": [_SCALAR, {"type": "array", "items": _SCALAR, "minItems": 1}, compare]}
    reference = {"$ref": "#/$defs/condition"}
    when = {
        "type": "object",
        "description": "Dotted path to value, list of values, or {gt: 0} and the like; all must "
        "hold for the parameter to take part.",
        "properties": {path: reference for path, leaf in leaves().items() if not leaf.takes_list},
        "additionalProperties": reference,
        "minProperties": 1,
    }
    return {"condition": condition, "when": when}


def _named() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "A choice of named mappings, merged into this section.",
        "properties": {
            "choice": {
                "type": "object",
                "additionalProperties": {"type": ["object", "null"]},
                "minProperties": 1,
            },
            "when": {"$ref": "#/$defs/when"},
            "default": {"type": "string", "description": "Name of one of the mappings."},
            "else": {"type": "string", "description": "Name while the condition does not hold."},
        },
        "required": ["choice"],
        "additionalProperties": False,
    }
