from __future__ import annotations

import logging
import os
from pathlib import Path
from zipfile import ZipFile

import pytest

from gsfl_tune.cluster import (
    load_for_cluster,
    missing_files,
    parse_environment,
    prepare,
    survey,
)
from gsfl_tune.cluster.jobs.upload import MAX_BYTES
from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.errors import ExperimentError, UserError

TEXT = """\
name: birds
data: {source: folder, path: data/birds}
model:
  weights: {choice: [imagenet, weights/own.pth]}
  groups: {method: taxonomy, taxonomy: families.csv}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout as users have them: rules, a run, data, and what git and Python leave."""
    files = {
        "birds.yaml": TEXT,
        "families.csv": "class,group\n",
        "data/birds/a/1.png": "x" * 100,
        "data/birds/b/2.png": "x" * 100,
        "weights/own.pth": "w" * 1000,
        "runs/old/study.journal": "j" * 5000,
        "notes/keep.txt": "k",
        "notes/drop.log": "d",
        "notes/.gitignore": "*.log\n",
        ".gitignore": "runs/\n",
        ".git/objects/ab": "g" * 3000,
        "pkg/__pycache__/m.pyc": "c",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _load(file: str = "birds.yaml", *overrides: str) -> Experiment:
    return load_for_cluster(file, overrides, {})


def _prepare(file: str = "birds.yaml", *, run_dir: str = "/shared/runs/birds", **options):
    return prepare(_load(file, *options.get("overrides", ())), file, run_dir=run_dir, **options)


def test_the_list_is_what_ray_would_upload(project: Path, tmp_path_factory) -> None:
    from ray._private import ray_constants
    from ray._private.runtime_env.packaging import create_package

    archive = tmp_path_factory.mktemp("zip") / "package.zip"
    create_package(
        str(project),
        archive,
        include_gitignore=True,
        excludes=ray_constants.get_runtime_env_default_excludes(),
        logger=logging.getLogger("quiet"),
    )
    with ZipFile(archive) as zipped:
        inside = {info.filename: info.file_size for info in zipped.infolist() if not info.is_dir()}
    package = survey(project)
    assert package.sizes == inside
    assert "runs/old/study.journal" not in inside
    assert archive.stat().st_size >= package.total
    assert package.largest(1) == [("weights/own.pth", 1000)]
    assert package.folders()[:2] == [("weights/", 1, 1000), ("data/", 2, 200)]


def test_too_much_is_refused_with_the_largest_files(project: Path) -> None:
    with (project / "huge.bin").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(UserError) as caught:
        survey(project)
    lines = str(caught.value).splitlines()
    assert "found 90.0 MiB in" in lines[0]
    assert ".rayignore" in lines[0]
    assert lines[1].split() == ["90.0", "MiB", "huge.bin"]
    assert lines[2].endswith("weights/own.pth")
    (project / ".rayignore").write_text("huge.bin\n")
    assert "huge.bin" not in survey(project).sizes


def test_a_named_pipe_is_refused_before_anything_reads_it(project: Path) -> None:
    os.mkfifo(project / "events")
    with pytest.raises(UserError, match=r"events: found a named pipe or a device, allowed are"):
        survey(project)
    (project / ".rayignore").write_text("events\n")
    assert "events" not in survey(project).sizes


def test_rules_that_leave_out_the_directory_itself_are_refused(project: Path) -> None:
    # Ray would upload an empty archive under a name that never changes: old code would run.
    (project / ".rayignore").write_text(".*\n")
    with pytest.raises(UserError, match=r"a rule in \.rayignore matches the directory itself"):
        survey(project)
    (project / ".rayignore").write_text(".[!.]*\n")
    assert "birds.yaml" in survey(project).sizes


def test_an_empty_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing would be uploaded"):
        survey(tmp_path)


def test_everything_needed_goes_along(project: Path) -> None:
    assert missing_files(survey(project), _load()) == []


@pytest.mark.parametrize(
    ("rules", "complaints"),
    [
        (
            "data/\n",
            ["data.path: data/birds: 2 of 2 files are left out of the upload by .gitignore"],
        ),
        ("b/\n", ["data.path: data/birds: 1 of 2 files are left out of the upload by .gitignore"]),
        ("*.pth\n", ["model.weights: weights/own.pth: it is left out of the upload by .gitignore"]),
        (
            "*.csv\n",
            ["model.groups.taxonomy: families.csv: it is left out of the upload by .gitignore"],
        ),
    ],
)
def test_what_ignore_rules_leave_out_is_said(
    project: Path, rules: str, complaints: list[str]
) -> None:
    (project / ".gitignore").write_text(rules)
    assert missing_files(survey(project), _load()) == complaints


def test_a_folder_with_brackets_is_no_pattern(project: Path) -> None:
    (project / "data" / "birds").rename(project / "data" / "birds [2024]")
    (project / ".gitignore").write_text("data/\n")
    experiment = _load("birds.yaml", "data.path=data/birds [2024]")
    [found] = missing_files(survey(project), experiment)
    assert found.startswith("data.path: data/birds [2024]: 2 of 2 files are left out")


@pytest.mark.parametrize("path", ["/shared/birds", "s3://bucket/birds", "$CLUSTER_DATA/birds"])
def test_what_only_the_cluster_has_is_its_business(project: Path, path: str) -> None:
    overrides = [f"data.path={path}", "model.weights=/shared/own.pth"]
    experiment = _load("birds.yaml", *overrides)
    assert missing_files(survey(project), experiment) == []
    assert experiment.values("model.weights") == ["/shared/own.pth"]


def test_what_is_missing_here_is_refused_with_everything_else(project: Path) -> None:
    with pytest.raises(ExperimentError) as caught:
        _load("birds.yaml", "data.path=data/bees", "model.weights=/shared/x.pth", "search.trails=3")
    assert len(caught.value.problems) == 2
    assert f"data.path: found '{project}/data/bees', which does not exist" in str(caught.value)
    assert "trails" in str(caught.value)


def test_what_lies_beside_the_directory_is_not_uploaded(project: Path, tmp_path_factory) -> None:
    beside = tmp_path_factory.mktemp("beside")
    [found] = missing_files(survey(project), _load("birds.yaml", f"data.path={beside}"))
    assert found == (
        f"data.path: {beside} is not uploaded, the cluster must have it under this path"
    )


def test_the_experiment_itself_must_go_along(project: Path, tmp_path_factory) -> None:
    (project / "notes" / ".gitignore").write_text("*.yaml\n")
    (project / "notes" / "birds.yaml").write_text(TEXT)
    with pytest.raises(UserError, match=r"left out of the upload by notes/\.gitignore"):
        _prepare("notes/birds.yaml")
    outside = tmp_path_factory.mktemp("elsewhere") / "birds.yaml"
    outside.write_text(TEXT)
    with pytest.raises(UserError, match="lies outside of what is uploaded"):
        _prepare(str(outside))


def test_a_relative_run_directory_is_refused(project: Path) -> None:
    with pytest.raises(UserError, match=r"--run-dir runs/x: found a relative path.*absolute"):
        _prepare(run_dir="runs/x")


def test_the_commands_that_run_and_resume(project: Path) -> None:
    submission = _prepare(
        overrides=["search.trials=3", "model.weights=/w/my weights.pth"],
        environment={"GSFL_TUNE_CACHE": "/nvme/cache"},
    )
    assert submission.command == (
        "gsfl-tune search birds.yaml --run-dir /shared/runs/birds --set search.trials=3 "
        "--set 'model.weights=/w/my weights.pth'"
    )
    assert submission.resume_command("http://head:8265") == (
        "gsfl-tune submit birds.yaml --address http://head:8265 --run-dir /shared/runs/birds "
        "--env GSFL_TUNE_CACHE=/nvme/cache --resume --set search.trials=3 "
        "--set 'model.weights=/w/my weights.pth'"
    )
    assert "--resume" in _prepare(resume=True).command


def test_code_in_the_upload_is_said(project: Path) -> None:
    (project / "gsfl_tune").mkdir()
    (project / "gsfl_tune" / "__init__.py").touch()
    assert any("its code runs" in warning for warning in _prepare().warnings)


def test_secrets_in_the_upload_are_said(project: Path) -> None:
    assert _prepare().warnings == []
    (project / ".env").write_text("KEY=1")
    (project / "notes" / "head.pem").touch()
    said = [warning.split()[0] for warning in _prepare().warnings]
    assert said == [".env", "notes/head.pem"]


@pytest.mark.parametrize(
    "entry",
    [
        "AWS_SECRET_ACCESS_KEY=x",
        "AZURE_STORAGE_ACCOUNT_KEY=x",
        "AZURE_STORAGE_CONNECTION_STRING=x",
        "AZURE_STORAGE_KEY=x",
        "AZURE_STORAGE_SAS=x",
        "RAY_AUTH_TOKEN",
        "WANDB_API_KEY=x",
        "my_password=1",
    ],
)
def test_secrets_do_not_travel_as_variables(entry: str) -> None:
    with pytest.raises(UserError, match="looks like a secret"):
        parse_environment([entry])


def test_variables_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_HERE", "1")
    assert parse_environment(["A=b=c", "FROM_HERE"]) == {"A": "b=c", "FROM_HERE": "1"}
    harmless = ["TOKENIZERS_PARALLELISM=false", "GOOGLE_APPLICATION_CREDENTIALS=/etc/own.json"]
    harmless += ["AWS_WEB_IDENTITY_TOKEN_FILE=/etc/token", "HTTP_PROXY=http://proxy:3128"]
    assert len(parse_environment(harmless)) == 4
    with pytest.raises(UserError, match="--env HTTP_PROXY: found a URL with a password") as refused:
        parse_environment(["HTTP_PROXY=http://me:hunter2@proxy:3128"])
    assert "hunter2" not in str(refused.value)
    with pytest.raises(UserError, match="is not set here"):
        parse_environment(["NOT_FROM_HERE"])
    with pytest.raises(UserError, match="no name"):
        parse_environment(["1A=2"])
