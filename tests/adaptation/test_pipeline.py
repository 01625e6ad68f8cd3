"""The whole way: accuracy on held-out images of the other domain rises, and OUT is a bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import gsfl_tune
from gsfl_tune import AdaptationFailed, UserError, load_bundle
from gsfl_tune.data.labelled_images import open_for_evaluation


@pytest.fixture
def run(stripes_home, tmp_path):
    """Adapts the bundle to the other camera's images, in three epochs."""

    def adapted(out: str = "out", bundle: str = "bundle", **given):
        torch.set_num_threads(1)
        settings = {"epochs": 3, "device": "cpu", "cache_dir": stripes_home / "cache", **given}
        images = settings.pop("images", stripes_home / "target")
        place = settings.pop("out_of", tmp_path) / out
        return gsfl_tune.adapt(stripes_home / bundle, images, place, **settings)

    return adapted


def accuracy(path, images):
    """Accuracy of a loaded bundle, which is not a number of the adaptation's own."""
    bundle = load_bundle(path, "cpu")
    data = open_for_evaluation(images, bundle.preprocessing.side, bundle.preprocessing.fit)
    return bundle.evaluate(data.images, data.classes)["accuracy"]


def test_accuracy_on_held_out_images_of_the_other_camera_rises(
    run, stripes_home, tmp_path, monkeypatch
):
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(stripes_home / "cache"))
    records = []
    judge = stripes_home / "judge"
    found = run(judge=judge, on_record=records.append)
    before, after = (accuracy(path, judge) for path in (stripes_home / "bundle", tmp_path / "out"))
    assert before < 0.6
    assert after > before + 0.2
    # The report has what the bundles really do.
    assert found.judged.before == pytest.approx(before)
    assert found.judged.after == pytest.approx(after)
    assert found.judged.difference.interval.low > 0
    assert found.judged.images == 80
    assert [record["epoch"] for record in records] == [0, 1, 2, 3]
    assert found.records == records
    assert found.records[-1]["agreement"] > found.records[0]["agreement"]
    assert not (tmp_path / "out.adapting").exists()


def test_out_is_a_bundle_that_says_what_it_is(run, stripes_home, tmp_path):
    found = run(epochs=1)
    source, out = (load_bundle(path, "cpu") for path in (stripes_home / "bundle", tmp_path / "out"))
    assert out.classes == source.classes
    assert out.groups == source.groups
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "classes.json",
        "config.json",
        "groups.json",
        "metrics.json",
        "model.safetensors",
    ]
    # The classifier is frozen, bit for bit.
    states = [load_file(each.path / "model.safetensors") for each in (source, out)]
    assert states[0].keys() == states[1].keys()
    for name in states[0]:
        same = torch.equal(states[0][name], states[1][name])
        assert same or not name.startswith("head.classifier")
    image = str(stripes_home / "judge" / "flat" / "0.png")
    assert len(out.predict(image, top=2)[0].classes) == 2
    with pytest.raises(UserError, match="by adapt"):
        out.predict(image, threshold="auto")
    (facts,) = json.loads((tmp_path / "out" / "config.json").read_text())["adapted"]
    assert facts["images"] == 80
    assert facts["images_digest"] == found.digest
    assert facts["settings"]["epochs"] == 1
    assert facts["source"] == str(stripes_home / "bundle")
    assert found.removed == ["test results (metrics.json)"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "on 80 images" in card
    assert found.digest in card
    assert "Not tested yet." in card
    assert "0.9" not in card.split("## Test")[1].split("## Classes")[0]
    assert "It was not judged on labelled images." in card
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["adaptation"]["changed"] == found.changed


def test_an_adapted_bundle_is_adapted_again(run, stripes_home, tmp_path):
    run(epochs=1)
    found = run("again", tmp_path / "out", epochs=1, seed=1, blocks=1)
    facts = json.loads((tmp_path / "again" / "config.json").read_text())["adapted"]
    assert [each["settings"]["seed"] for each in facts] == [0, 1]
    assert found.source == str(tmp_path / "out")


def test_nothing_is_written_where_something_is(run, stripes_home, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="exists and is not an empty directory"):
        run()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(UserError, match=r"--batch-size: found 90 for 80 images"):
        run("new", batch_size=90)
    with pytest.raises(UserError, match="among those adapted to"):
        run("new", judge=stripes_home / "target")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_directory_stays_where_it_is(run, tmp_path, monkeypatch):
    """It may be a link, a mount, or the current directory, as for an export."""
    (tmp_path / "large disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "large disk")
    run(epochs=1, blocks=0)
    assert (tmp_path / "out").is_symlink()
    assert load_bundle(tmp_path / "large disk").classes
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run(".", epochs=1, blocks=0, out_of=Path())
    assert Path.cwd() == tmp_path / "here"
    assert load_bundle(".").classes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "large disk", "out"]


def test_what_appears_in_out_meanwhile_is_left_and_the_training_kept(run, tmp_path):
    def disturb(record):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "mine.txt").write_text("mine")

    with pytest.raises(UserError, match=r"is not an empty directory.*for --resume"):
        run(epochs=1, blocks=0, on_record=disturb)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    (tmp_path / "out" / "mine.txt").unlink()
    run(epochs=1, blocks=0, resume=True)
    assert load_bundle(tmp_path / "out").classes


def test_a_failure_writes_no_bundle(run, tmp_path):
    with pytest.raises(AdaptationFailed):
        run(learning_rate=1e30)
    assert list(tmp_path.iterdir()) == []


def test_another_adaptation_is_not_resumed(run, stripes_home, tmp_path):
    with pytest.raises(UserError, match="found no adaptation to resume"):
        run(resume=True)

    def stop(record):
        if record["epoch"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(on_record=stop)
    with pytest.raises(UserError, match="allowed with --resume"):
        run()
    with pytest.raises(UserError, match=r"beta: was 0\.3, found 0\.1"):
        run(beta=0.1, resume=True)
    with pytest.raises(UserError, match="images: was"):
        run(images=stripes_home / "judge", resume=True)
    resumed = run(resume=True)
    whole = run("whole")
    assert [each["epoch"] for each in resumed.records] == [0, 1, 2, 3]
    files = [tmp_path / name / "model.safetensors" for name in ("out", "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert resumed.changed == whole.changed


def trained_by(folder, source, train):
    """Copies a bundle as if its last two blocks had been fine-tuned in another way."""
    shutil.copytree(source, folder)
    facts = json.loads((folder / "config.json").read_text())
    facts["experiment"]["training"]["finetune"] |= {"train": train, "blocks": 2}
    (folder / "config.json").write_text(json.dumps(facts))
    return folder


def test_what_was_not_fine_tuned_is_not_adapted(run, stripes_home, tmp_path):
    source = trained_by(tmp_path / "norms", stripes_home / "bundle", "norms")
    found = run("out", source, epochs=1, norms="kept")
    states = [load_file(tmp_path / name / "model.safetensors") for name in ("norms", "out")]
    changed = {name for name in states[0] if not torch.equal(states[0][name], states[1][name])}
    backbone = load_bundle(source, "cpu").network.backbone
    norms = {id(each) for each in backbone.train_last(2, "norms")}
    allowed = {name for name, each in backbone.named_parameters("backbone") if id(each) in norms}
    trained = {name for name in changed if name.startswith("backbone.")}
    assert trained
    assert trained <= allowed
    assert found.settings.part == "norms"
    assert "norms of the backbone's last 2 blocks" in (tmp_path / "out" / "README.md").read_text()
    # Blocks that are asked for are trained as a whole.
    assert run("asked", source, epochs=1, blocks=1).settings.part == "all"


def test_a_bundle_of_adapters_keeps_its_backbone_unless_it_is_asked_for(
    run, stripes_home, tmp_path
):
    source = trained_by(tmp_path / "lora", stripes_home / "bundle", "lora")
    found = run("out", source, epochs=1)
    assert found.settings.blocks == 0
    assert any("trained by adapters (lora)" in line for line in found.notices)
    asked = run("asked", source, epochs=1, blocks="all")
    assert asked.settings.blocks == "all"
    assert not any("adapters" in line for line in asked.notices)
