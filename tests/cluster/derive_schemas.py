"""Derives the JSON schemas in ``data/`` from what KubeRay, AWS, Google and Grafana publish.

They hold names, types and choices of fields, nothing else, and allow no other fields. To renew::

    git clone https://github.com/ray-project/kuberay
    pip download --no-deps botocore google-api-python-client
    pip download --no-deps 'grafana-foundation-sdk==1769699379!11.6.0'
    python tests/cluster/derive_schemas.py kuberay kuberay
    python tests/cluster/derive_schemas.py ec2-run-instances botocore-*.whl
    python tests/cluster/derive_schemas.py gcp-instance google_api_python_client-*.whl
    python tests/cluster/derive_schemas.py grafana-dashboard grafana_foundation_sdk-*.whl
"""

from __future__ import annotations

import enum
import gzip
import hashlib
import inspect
import json
import re
import subprocess
import sys
import types
import typing
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import yaml

DATA = Path(__file__).parent / "data"
_KEPT = ("type", "enum", "required", "pattern")
_AWS_TYPES = {
    "long": "integer",
    "double": "number",
    "float": "number",
    "timestamp": "string",
    "blob": "string",
}
_INT_OR_STRING = {"type": ["integer", "string"]}
_PYTHON_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}
# The panels that the dashboard has; another kind has options of its own.
_PANELS = ("stat", "timeseries")


def kuberay(repository: str) -> dict[str, Any]:
    """Of the custom resources RayCluster and RayJob."""
    kinds = {}
    for kind in ("RayCluster", "RayJob"):
        path = f"ray-operator/config/crd/bases/ray.io_{kind.lower()}s.yaml"
        text = _git(repository, "show", f"HEAD:{path}")
        [version] = [v for v in yaml.safe_load(text)["spec"]["versions"] if v["name"] == "v1"]
        spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
        kinds[kind] = {
            "type": "object",
            "required": ["apiVersion", "kind", "metadata", "spec"],
            "properties": {
                "apiVersion": {"enum": ["ray.io/v1"]},
                "kind": {"enum": [kind]},
                "metadata": _closed("name", "namespace", "labels", "annotations"),
                "spec": _pruned(spec),
            },
            "additionalProperties": False,
        }
    version = _git(repository, "describe", "--tags", "HEAD").strip()
    return _shared(kinds, f"KubeRay {version}, CRDs ray.io_rayclusters and ray.io_rayjobs")


def ec2(wheel: str) -> dict[str, Any]:
    """Of the parameters of RunInstances."""
    with ZipFile(wheel) as archive:
        name = max(n for n in archive.namelist() if "data/ec2/" in n and "service-2" in n)
        shapes = json.loads(gzip.decompress(archive.read(name)))["shapes"]
    found: dict[str, Any] = {}

    def convert(name: str) -> dict[str, Any]:
        shape = shapes[name]
        kind = shape["type"]
        if kind == "structure":
            if name not in found:
                found[name] = {}
                members = {key: convert(value["shape"]) for key, value in shape["members"].items()}
                found[name] = {
                    "type": "object",
                    "properties": members,
                    "required": shape.get("required", []),
                    "additionalProperties": False,
                }
            return {"$ref": f"#/$defs/{name}"}
        if kind == "list":
            return {"type": "array", "items": convert(shape["member"]["shape"])}
        if kind == "string":
            return (
                {"enum": shape["enum"]}
                if len(shape.get("enum", [])) in range(1, 30)
                else {"type": "string"}
            )
        return {"type": _AWS_TYPES.get(kind, kind)}

    top = convert("RunInstancesRequest")
    # Ray counts the instances itself.
    found["RunInstancesRequest"]["required"] = []
    return {"source": f"{Path(wheel).name}, EC2 RunInstances", **top, "$defs": found}


def gcp(wheel: str) -> dict[str, Any]:
    """Of what may be set in a Compute Engine instance."""
    with ZipFile(wheel) as archive:
        text = archive.read("googleapiclient/discovery_cache/documents/compute.v1.json")
    document = json.loads(text)
    found: dict[str, Any] = {}

    def convert(entry: dict[str, Any]) -> dict[str, Any]:
        if "$ref" in entry:
            name = entry["$ref"]
            if name not in found:
                found[name] = {}
                found[name] = convert(document["schemas"][name])
            return {"$ref": f"#/$defs/{name}"}
        if entry["type"] == "array":
            return {"type": "array", "items": convert(entry["items"])}
        if entry["type"] == "object":
            if "additionalProperties" in entry:
                return {
                    "type": "object",
                    "additionalProperties": convert(entry["additionalProperties"]),
                }
            return {
                "type": "object",
                "properties": {
                    key: convert(value)
                    for key, value in entry.get("properties", {}).items()
                    if not value.get("readOnly")
                    and not value.get("description", "").startswith("[Output Only]")
                },
                "additionalProperties": False,
            }
        if entry["type"] == "any":
            return {}
        if "enum" in entry:
            return {"enum": entry["enum"]}
        if entry.get("format") in ("int64", "uint64"):
            return _INT_OR_STRING
        return {"type": entry["type"]}

    top = convert({"$ref": "Instance"})
    revision = document["revision"]
    return {"source": f"Compute Engine API v1, {revision}, Instance", **top, "$defs": found}


def grafana(wheel: str) -> dict[str, Any]:
    """Of a dashboard whose panels ask Prometheus, from the classes that Grafana Labs generates."""
    sys.path.insert(0, str(Path(wheel).resolve()))
    dashboard, prometheus, *kinds = (
        import_module(f"grafana_foundation_sdk.models.{name}")
        for name in ("dashboard", "prometheus", *_PANELS)
    )
    found: dict[str, Any] = {}

    def fields(model: type) -> dict[str, Any]:
        """Returns the schema of each field; ``from_json`` says what it is called in a file."""
        hints = typing.get_type_hints(model)
        read = inspect.getsource(model.from_json)
        called = re.findall(r'if "(\w+)" in data:.*?args\["(\w+)"\]', read, re.DOTALL)
        names = {attribute: name for name, attribute in called}
        # What is the same in every file is not read.
        fixed = {attribute: attribute.removesuffix("_val") for attribute in hints}
        return {name: convert(hints[key]) for key, name in {**fixed, **names}.items()}

    def convert(kind: Any) -> dict[str, Any]:
        inner = typing.get_args(kind)
        origin = typing.get_origin(kind)
        if origin is typing.Literal:
            return {"enum": list(inner)}
        if origin in (typing.Union, types.UnionType):
            options = [convert(each) for each in inner if each is not type(None)]
            return options[0] if len(options) == 1 else {"anyOf": options}
        if origin is list:
            return {"type": "array", "items": convert(inner[0])}
        if origin is dict:
            return {"type": "object", "additionalProperties": convert(inner[1])}
        if kind in _PYTHON_TYPES:
            return {"type": _PYTHON_TYPES[kind]}
        if issubclass(kind, enum.Enum):
            return {"enum": [each.value for each in kind]}
        if kind.__name__ == "Dataquery":
            kind = prometheus.Dataquery
        return {} if kind is object else reference(kind)

    def reference(model: type) -> dict[str, Any]:
        name = f"{model.__module__.rpartition('.')[2]}.{model.__name__}"
        if name not in found:
            found[name] = {}
            properties = fields(model)
            found[name] = {
                "type": "object", "properties": properties, "additionalProperties": False,
            }  # fmt: skip
        return {"$ref": f"#/$defs/{name}"}

    top = reference(dashboard.Dashboard)
    panel = found["dashboard.Panel"]
    panel["properties"]["type"] = {"enum": list(_PANELS)}
    panel["allOf"] = []
    for name, module in zip(_PANELS, kinds, strict=True):
        own = {"options": reference(module.Options)}
        if hasattr(module, "FieldConfig"):
            custom = {"properties": {"custom": reference(module.FieldConfig)}}
            own["fieldConfig"] = {"properties": {"defaults": custom}}
        panel["allOf"].append(
            {"if": {"properties": {"type": {"const": name}}}, "then": {"properties": own}}
        )
    return {"source": f"{Path(wheel).name}, Dashboard", **top, "$defs": found}


def _pruned(entry: Any) -> dict[str, Any]:
    if entry.get("x-kubernetes-int-or-string"):
        return dict(_INT_OR_STRING)
    kept = {key: entry[key] for key in _KEPT if key in entry}
    kept.pop("pattern", None)
    if "items" in entry:
        kept["items"] = _pruned(entry["items"])
    if "properties" in entry:
        kept["properties"] = {name: _pruned(value) for name, value in entry["properties"].items()}
        if not entry.get("x-kubernetes-preserve-unknown-fields"):
            kept["additionalProperties"] = False
    elif isinstance(entry.get("additionalProperties"), dict):
        kept["additionalProperties"] = _pruned(entry["additionalProperties"])
    return kept


def _closed(*names: str) -> dict[str, Any]:
    properties = dict.fromkeys(names, True)
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _shared(kinds: dict[str, Any], source: str) -> dict[str, Any]:
    """Moves what occurs more than once into ``$defs``."""
    counts: Counter[str] = Counter()

    def text(entry: Any) -> str:
        return json.dumps(entry, sort_keys=True)

    def count(entry: Any) -> None:
        if isinstance(entry, dict):
            # A field may be called `type` too.
            if isinstance(entry.get("type"), str) and len(key := text(entry)) > 200:
                counts[key] += 1
            for value in entry.values():
                count(value)

    definitions: dict[str, Any] = {}

    def replace(entry: Any) -> Any:
        if not isinstance(entry, dict):
            return entry
        inner = {key: replace(value) for key, value in entry.items()}
        key = text(entry)
        if counts[key] > 1:
            name = hashlib.sha256(key.encode()).hexdigest()[:8]
            definitions[name] = inner
            return {"$ref": f"#/$defs/{name}"}
        return inner

    count(kinds)
    replaced = {kind: replace(schema) for kind, schema in kinds.items()}
    return {"source": source, "kinds": replaced, "$defs": definitions}


def _git(repository: str, *arguments: str) -> str:
    command = ["git", "-C", repository, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


_DERIVED = {
    "kuberay": kuberay,
    "ec2-run-instances": ec2,
    "gcp-instance": gcp,
    "grafana-dashboard": grafana,
}


def main() -> None:
    name, source = sys.argv[1:]
    path = DATA / f"{name}.json"
    schema = _DERIVED[name](source)
    path.write_text(json.dumps(schema, separators=(",", ":"), sort_keys=True) + "\n")
    print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
