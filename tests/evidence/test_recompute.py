"""``gsfl-tune evidence RUN``: from a finished run's files, whole and with files gone."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

from gsfl_tune.cli import main
from gsfl_tune.evidence import Retrained, recompute_evidence
from gsfl_tune.experiment import UserError
from gsfl_tune.export import bundle_from_network
from gsfl_tune.run import read_json, write_json
from gsfl_tune.run.results import Calibration, Score
from tests.evidence.conftest import small_config


@pytest.fixture(scope="module")
def complete(finished_run, cache_dir):
    """The evidence with every file there."""
    notices: list[str] = []
    content = recompute_evidence(finished_run, cache_dir=cache_dir, notice=notices.append)
    assert notices == []
    return content


def test_a_finished_run_has_every_part(finished_run, complete):
    assert read_json(finished_run / "evidence.json") == complete
    assert [row["part"] for row in complete["probes"]["parts"]][-1] == "d of the control"
    assert {"swap", "map", "calibration", "gradcam", "confusion"} <= set(complete)
    assert "notes" not in complete


def test_the_bundle_stands_in_for_the_first_seed(
    run_copy, cache_dir, complete, capsys, monkeypatch
):
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(cache_dir))
    shutil.rmtree(run_copy / "finals")
    assert main(["evidence", str(run_copy), "--json"]) == 0
    printed = capsys.readouterr()
    assert "1 of 2 retrained models are gone" in printed.err
    assert "control's models" in printed.err
    assert "predictions of the retrains" in printed.err
    content = json.loads(printed.out)
    assert content == read_json(run_copy / "evidence.json")
    # Of the first seed alone, and that is the same model.
    assert content["map"] == complete["map"]
    assert [row["part"] for row in content["probes"]["parts"]] == ["f", "s", "d"]
    assert content["probes"]["parts"][0] == complete["probes"]["parts"][0]


def test_a_bundle_with_a_temperature_gives_the_logits_of_the_training(run_copy, workspace):
    config = small_config()
    folder = run_copy / "finals" / "search-3" / "retrain" / "seed-1"
    whole = Retrained(config, {1: folder})
    network = next(whole.models(workspace, 1)).network.cpu()
    score = {name: Score.of([0.5]) for name in ("nll", "ece")}
    bundle_from_network(
        run_copy / "best", network, config, classes=workspace.dataset.classes,
        groups=workspace.groups(config).tolist(), side=workspace.dataset.pool.side, metrics={},
        calibration=Calibration(3.0, 10, 1, 5, score, score),
    )  # fmt: skip
    expected = whole.predictions()[0].logits
    (folder / "checkpoint.pt").unlink()
    bundle = (run_copy / "best", run_copy / "best-training")
    found = next(Retrained(config, {1: folder}, bundle).models(workspace, 1)).predictions()
    np.testing.assert_allclose(found.logits, expected, rtol=1e-3, atol=1e-3)


def test_says_what_is_gone(run_copy, cache_dir, tmp_path):
    for path in run_copy.rglob("checkpoint.pt"):
        path.unlink()
    shutil.rmtree(run_copy / "best")
    with pytest.raises(UserError, match=r"(?s)checkpoint\.pt.*best/model\.safetensors"):
        recompute_evidence(run_copy, cache_dir=cache_dir)
    (run_copy / "results.json").unlink()
    with pytest.raises(UserError, match="not finished"):
        recompute_evidence(run_copy)
    (run_copy / "experiment.yaml").unlink()
    with pytest.raises(UserError, match="not a run directory"):
        recompute_evidence(run_copy)
    with pytest.raises(UserError, match="no such run"):
        recompute_evidence(tmp_path / "nowhere")


def test_other_or_missing_images_are_refused(run_copy, cache_dir):
    manifest = read_json(run_copy / "run.json")
    write_json(run_copy / "run.json", manifest | {"data": "0123456789abcdef"})
    with pytest.raises(UserError, match="differ from those of the run"):
        recompute_evidence(run_copy, cache_dir=cache_dir)
    results = read_json(run_copy / "results.json")
    results["winner"]["config"]["data"] |= {"source": "folder", "path": str(run_copy / "gone")}
    write_json(run_copy / "results.json", results)
    with pytest.raises(UserError, match=r"(?s)needs the images of the run.*gone"):
        recompute_evidence(run_copy, cache_dir=cache_dir)


def test_the_command_prints_numbers_and_changes_nothing_else(
    run_copy, cache_dir, capsys, monkeypatch, tmp_path
):
    def state():
        return {
            path: (path.stat().st_mtime_ns, path.read_bytes())
            for path in run_copy.rglob("*")
            if path.is_file() and "evidence" not in path.relative_to(run_copy).parts[0]
        }

    monkeypatch.setenv("GSFL_TUNE_CACHE", str(cache_dir))
    monkeypatch.setenv("COLUMNS", "80")
    before = state()
    assert main(["evidence", str(run_copy)]) == 0
    assert state() == before
    out = capsys.readouterr().out
    for words in ("Swap test", "Linear probes", "shared part s", "worst tenth", "pictures: "):
        assert words in out
    lines = [line for line in out.splitlines() if str(run_copy) not in line]
    assert max(map(len, lines)) <= 80
    assert main(["evidence", str(tmp_path / "nowhere")]) == 2
    assert "no such run directory" in capsys.readouterr().err


def test_pictures_that_fail_are_a_part_that_failed(run_copy, cache_dir, capsys, monkeypatch):
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(cache_dir))
    shutil.rmtree(run_copy / "evidence", ignore_errors=True)
    (run_copy / "evidence").write_text("no folder")
    assert main(["evidence", str(run_copy)]) == 1
    assert "pictures of confused pairs could not be computed" in capsys.readouterr().err
    content = read_json(run_copy / "evidence.json")
    assert content["pictures"] == []
    assert "pictures of confused pairs" in content["failed"]


def test_a_file_that_cannot_be_written_is_one_message(run_copy, cache_dir, capsys, monkeypatch):
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(cache_dir))
    file = run_copy / "evidence.json"
    file.unlink(missing_ok=True)
    file.mkdir()
    assert main(["evidence", str(run_copy)]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith(f"{file}: cannot be written (Is a directory)")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_run_of_somebody_else_is_refused_before_it_is_computed(run_copy, cache_dir):
    run_copy.chmod(0o555)
    try:
        with pytest.raises(UserError, match=r"small: cannot be written \(Permission denied\)"):
            recompute_evidence(run_copy, cache_dir=cache_dir, notice=pytest.fail)
    finally:
        run_copy.chmod(0o755)
