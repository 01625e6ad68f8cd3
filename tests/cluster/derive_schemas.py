"""Derives the JSON schemas in ``data/`` from what KubeRay, AWS and Google publish.

They hold names, types and choices of fields, nothing else, and allow no other fields. To renew::

    git clone https://github.com/ray-project/kuberay
    pip download --no-deps botocore google-api-python-client
    python tests/cluster/derive_schemas.py kuberay botocore-*.whl google_api_python_client-*.whl
"""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
from collections import Counter
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


def main() -> None:
    repository, botocore, google = sys.argv[1:]
    for name, schema in {
        "kuberay": kuberay(repository),
        "ec2-run-instances": ec2(botocore),
        "gcp-instance": gcp(google),
    }.items():
        path = DATA / f"{name}.json"
        path.write_text(json.dumps(schema, separators=(",", ":"), sort_keys=True) + "\n")
        print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
