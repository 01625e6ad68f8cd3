"""The files of ``clusters/``, each read by the rules of the tool it is for."""

from __future__ import annotations

import copy
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from gsfl_tune.cli import _parser

ROOT = Path(__file__).parents[2]
CLUSTERS = ROOT / "clusters"
DATA = Path(__file__).parent / "data"
CLOUDS = ("aws", "gcp", "azure")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((CLUSTERS / name).read_text()))


def _ray(name: str) -> dict[str, Any]:
    """A configuration of ``ray up`` with Ray's defaults, as Ray would use it."""
    [config] = _documents(f"{name}.yaml")
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def _validate(content: Any, schema: dict[str, Any]) -> None:
    # `jsonschema.validate` would check the schema itself every time, which takes seconds.
    jsonschema.Draft202012Validator(schema).validate(content)


def _schema(name: str) -> dict[str, Any]:
    return json.loads((DATA / f"{name}.json").read_text())


# --- ray up -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["on-prem", *CLOUDS])
def test_ray_takes_the_configuration(name: str) -> None:
    config = _ray(name)
    misspelt = {**config, "setup_command": []}
    with pytest.raises(jsonschema.ValidationError):
        validate_config(misspelt)


@pytest.mark.parametrize("name", ["on-prem", *CLOUDS])
def test_clusters_ask_for_a_token_and_dashboards_stay_on_loopback(name: str) -> None:
    config = _ray(name)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("chmod 600 ~/.ray/auth_token" in line for line in config["setup_commands"])
    [head] = [line for line in config["head_start_ray_commands"] if "ray start" in line]
    [worker] = [line for line in config["worker_start_ray_commands"] if "ray start" in line]
    assert "--dashboard-host=127.0.0.1" in head
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in head
    assert "--address=$RAY_HEAD_IP:6379" in worker
    if name == "on-prem":
        assert all("RAY_AUTH_MODE=token" in line for line in (head, worker))
    else:
        assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]


@pytest.mark.parametrize("name", CLOUDS)
def test_workers_are_spot_machines_and_the_head_is_not(name: str) -> None:
    config = _ray(name)
    head, worker = (config["available_node_types"][kind] for kind in ("head", "worker"))
    spot = {"aws": "MarketType: spot", "gcp": "provisioningModel: SPOT", "azure": "priority: Spot"}
    assert spot[name] in yaml.safe_dump(worker["node_config"])
    assert "spot" not in yaml.safe_dump(head["node_config"]).lower()
    assert config["head_node_type"] == "head"
    assert head["resources"] == {"CPU": 0}
    # A search counts the nodes when it starts.
    assert worker["min_workers"] == worker["max_workers"] == config["max_workers"] == 4


@pytest.mark.parametrize("name", CLOUDS)
def test_runs_are_on_storage_that_every_node_mounts(name: str) -> None:
    config = _ray(name)
    assert "--volume /mnt/gsfl-tune:/shared" in config["docker"]["run_options"]
    assert any("mount -t nfs" in line for line in config["initialization_commands"])


@pytest.mark.parametrize("kind", ["head", "worker"])
def test_aws_knows_every_parameter(kind: str) -> None:
    node = _ray("aws")["available_node_types"][kind]["node_config"]
    schema = _schema("ec2-run-instances")
    _validate(node, schema)
    with pytest.raises(jsonschema.ValidationError):
        _validate({**node, "MetadataOptions": {"HttpToken": "required"}}, schema)


@pytest.mark.parametrize("kind", ["head", "worker"])
def test_google_cloud_knows_every_field(kind: str) -> None:
    node = _ray("gcp")["available_node_types"][kind]["node_config"]
    schema = _schema("gcp-instance")
    _validate(node, schema)
    with pytest.raises(jsonschema.ValidationError):
        _validate({**node, "scheduling": {"provisioningModel": "CHEAP"}}, schema)


@pytest.mark.parametrize("kind", ["head", "worker"])
def test_azure_knows_every_parameter(kind: str) -> None:
    template = Path(ray.autoscaler.__file__).parent / "_private/_azure/azure-vm-template.json"
    parameters = json.loads(template.read_text())["parameters"]
    node = _ray("azure")["available_node_types"][kind]["node_config"]
    assert set(node) == {"azure_arm_parameters"}
    types = {"string": str, "int": int, "object": dict}
    for name, value in node["azure_arm_parameters"].items():
        assert isinstance(value, types[parameters[name]["type"]]), name


# --- Kubernetes -------------------------------------------------------------------------------


def _resource(file: str, kind: str) -> dict[str, Any]:
    [found] = [document for document in _documents(file) if document["kind"] == kind]
    return found


@pytest.mark.parametrize(
    ("file", "kind"), [("kuberay.yaml", "RayCluster"), ("kuberay-job.yaml", "RayJob")]
)
def test_kuberay_knows_every_field(file: str, kind: str) -> None:
    schema = _schema("kuberay")
    schema = {**schema["kinds"][kind], "$defs": schema["$defs"]}
    resource = _resource(file, kind)
    _validate(resource, schema)

    def groups(resource: dict[str, Any]) -> dict[str, Any]:
        return resource["spec"].get("rayClusterSpec", resource["spec"])

    for place in (
        lambda r: r["spec"],
        lambda r: groups(r)["headGroupSpec"],
        lambda r: groups(r)["workerGroupSpecs"][0]["template"]["spec"]["containers"][0],
    ):
        misspelt = copy.deepcopy(resource)
        place(misspelt)["imagePullPolice"] = "Always"
        with pytest.raises(jsonschema.ValidationError):
            _validate(misspelt, schema)


@pytest.mark.parametrize(
    ("file", "kind"), [("kuberay.yaml", "RayCluster"), ("kuberay-job.yaml", "RayJob")]
)
def test_pods_ask_for_a_token_share_the_volume_and_are_nobody(file: str, kind: str) -> None:
    spec = _resource(file, kind)["spec"]
    spec = spec.get("rayClusterSpec", spec)
    assert spec["authOptions"] == {"mode": "token"}
    head, [worker] = spec["headGroupSpec"], spec["workerGroupSpecs"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert worker["replicas"] == worker["minReplicas"] == worker["maxReplicas"]
    assert "nodeSelector" not in head["template"]["spec"]
    for pod in (head["template"]["spec"], worker["template"]["spec"]):
        assert pod["securityContext"]["runAsNonRoot"] is True
        [container] = pod["containers"]
        assert {"name": "shared", "mountPath": "/shared"} in container["volumeMounts"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {
            volume["name"] for volume in pod["volumes"]
        }
    [claim] = [v for v in pod["volumes"] if v["name"] == "shared"]
    volume = _resource("kuberay.yaml", "PersistentVolumeClaim")
    assert claim["persistentVolumeClaim"]["claimName"] == volume["metadata"]["name"]
    assert volume["spec"]["accessModes"] == ["ReadWriteMany"]


def test_only_the_job_shows_its_dashboard_to_other_pods() -> None:
    cluster = _resource("kuberay.yaml", "RayCluster")["spec"]
    assert cluster["headGroupSpec"]["rayStartParams"]["dashboard-host"] == "127.0.0.1"


def test_the_job_starts_what_the_image_has() -> None:
    spec = _resource("kuberay-job.yaml", "RayJob")["spec"]
    command, *words = shlex.split(spec["entrypoint"])
    assert command == "gsfl-tune"
    arguments = _parser().parse_args(words)
    # It is started again when the head is lost.
    assert arguments.resume is None
    assert arguments.run_dir.is_relative_to("/shared")
    file = str(arguments.file)
    assert (ROOT / file.removeprefix("/opt/gsfl-tune/")).is_file()
    variables = yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]
    assert int(variables["RAY_JOB_STOP_WAIT_TIME_S"]) >= 60


# --- Grafana ----------------------------------------------------------------------------------


def test_grafana_knows_every_field_of_the_dashboard() -> None:
    schema = _schema("grafana-dashboard")
    board = json.loads((CLUSTERS / "grafana.json").read_text())
    _validate(board, schema)
    # Each panel by itself tells where a fault is; the schema of the whole says "none of these".
    panels = {"$ref": "#/$defs/dashboard.Panel", "$defs": schema["$defs"]}
    for panel in board["panels"]:
        _validate(panel, panels)
        # Neither is told by the schema, and without one a panel is empty.
        assert all(target["expr"] and target["refId"] for target in panel["targets"])
    first = board["panels"][0]
    for wrong in (
        {**first, "targets": [{"expr": "up", "refId": "A", "legend": "{{study}}"}]},
        {**first, "gridPos": {"x": "0", "y": 0, "w": 12, "h": 8}},
        {**first, "options": {"graphMode": "area"}},  # of a stat
        {**first, "type": "time-series"},
        {**first, "fieldConfig": {"defaults": {"custom": {"drawStyle": "lines"}}}},
    ):
        with pytest.raises(jsonschema.ValidationError):
            _validate({**board, "panels": [wrong]}, schema)
    with pytest.raises(jsonschema.ValidationError):
        _validate({**board, "refreshes": "10s"}, schema)


# --- scripts and image ------------------------------------------------------------------------


def _scripts() -> list[Path]:
    return sorted(CLUSTERS.glob("*.sh"))


@pytest.mark.parametrize("script", _scripts(), ids=lambda script: script.name)
def test_shells_and_shellcheck_take_the_scripts(script: Path) -> None:
    shell = re.match(r"#!.*\b(bash|sh)\n", script.read_text())
    assert shell
    subprocess.run([shell[1], "-n", script], check=True)
    shellcheck = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run([shellcheck, script], capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""
    assert os.access(script, os.X_OK)


def test_slurm_directives() -> None:
    text = (CLUSTERS / "slurm.sh").read_text()
    # Slurm stops reading at the first command.
    before = text[: text.index("\nset -euo pipefail")]
    directives = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", before, re.MULTILINE))
    assert len(directives) == text.count("#SBATCH ")
    allowed = {
        "job-name": r"[\w-]+",
        "nodes": r"[1-9]\d*",
        "ntasks-per-node": "1",
        "cpus-per-task": r"[1-9]\d*",
        "gpus-per-node": r"(\w+:)?[1-9]\d*",
        "mem": r"\d+[KMGT]",
        "time": r"(\d+-)?\d\d:\d\d:\d\d",
        # To the script, before the limit: time for trials to save.
        "signal": r"B:TERM@(?!\d\d$)\d+",
        "requeue": "",
        "open-mode": "append|truncate",
        "output": r"[\w%.-]+",
    }
    assert set(directives) == set(allowed)
    for name, value in directives.items():
        assert re.fullmatch(allowed[name], value), name


def test_the_image_is_built_of_what_is_there() -> None:
    text = (CLUSTERS / "Dockerfile").read_text().replace("\\\n", " ")
    steps = [line.split(maxsplit=1) for line in text.splitlines() if re.match(r"[A-Z]+ ", line)]
    assert {step for step, _ in steps} <= {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER"}
    rules = (CLUSTERS / "Dockerfile.dockerignore").read_text().split()
    for step, rest in steps:
        for source in rest.split()[:-1] if step == "COPY" else []:
            assert (ROOT / source).exists(), source
            assert any(fnmatch(source, rule[1:]) for rule in rules if rule[0] == "!"), source
    assert ["USER", "gsfl"] in steps
    version = re.search(r"FROM python:3\.(\d+)-slim", text)
    assert version
    low, high = re.findall(r"3\.(\d+)", PROJECT["requires-python"])
    assert int(low) <= int(version[1]) < int(high)
    [extras] = re.findall(r"'\.\[([\w,]+)\]'", text)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


def test_every_file_names_the_image_of_this_version() -> None:
    found = {
        match
        for path in CLUSTERS.iterdir()
        for match in re.findall(r"REGISTRY/gsfl-tune:([\w.]+)", path.read_text())
    }
    assert found == {PROJECT["version"]}


def test_the_readme_tells_of_every_file() -> None:
    readme = (CLUSTERS / "README.md").read_text()
    for path in CLUSTERS.iterdir():
        if path.name not in ("README.md", "Dockerfile.dockerignore"):
            assert f"| `{path.name}` |" in readme, path.name
