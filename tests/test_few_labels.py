"""The recipe for one iconic image of each class, as shipped, on small pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gsfl_tune.cli import main
from gsfl_tune.data.sources import TypefacesSource
from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.data_config import TypefacesConfig
from gsfl_tune.training import Training
from gsfl_tune.training.standalone import open_workspace

RECIPE = Path(__file__).parents[1] / "search_spaces" / "few_labels.yaml"
CLASSES = 6
# What the folder of each part holds of each class.
PARTS = {"train": 1, "val": 2, "test": 2}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One image of each class to learn from, others to judge by, and many without labels."""
    root = tmp_path_factory.mktemp("pictures")
    source = TypefacesSource(TypefacesConfig(train=9, test=1, size=40))
    seen = dict.fromkeys(range(CLASSES), 0)
    for position, reader in source.readers(range(len(source.samples))):
        label = source.samples[position].label
        if label not in seen:
            continue
        number, place = seen[label], root / "unlabelled"
        seen[label] += 1
        for part, count in PARTS.items():
            if number < count:
                place = root / "labelled" / part / f"class {label}"
                break
            number -= count
        place.mkdir(parents=True, exist_ok=True)
        reader().save(place / f"{position:03d}.png")
    return root


def settings(root: Path) -> list[str]:
    return [
        f"data.path={root / 'labelled'}",
        f"data.unlabelled={root / 'unlabelled'}",
        "data.image_size=32",
        "model.backbone=test_efficientnet",
        "model.weights=none",
        "model.latent_dim=16",
        "model.groups.count=3",
        "training.device=cpu",
        "training.head.epochs=1",
        "training.finetune.epochs=2",
        "training.finetune.batch_size=6",
        "training.fixmatch.threshold=0.05",
    ]


def test_it_passes_check(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = [word for each in settings(pictures) for word in ("--set", each)]
    assert main(["check", str(RECIPE), *changes]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "training.fixmatch.mu" in shown
    assert "no effect" not in shown


def test_one_image_of_each_class_and_many_without_labels_are_trained_on(
    pictures: Path, tmp_path: Path
) -> None:
    experiment = Experiment.load(RECIPE, settings(pictures))
    assert experiment.warnings == []
    workspace = open_workspace(experiment, tmp_path / "cache")
    dataset = workspace.dataset
    labels = np.asarray(dataset.pool.labels)[dataset.train_index]
    assert sorted(labels) == list(range(CLASSES))
    assert (len(dataset.validation_index), len(dataset.test)) == (2 * CLASSES, 2 * CLASSES)
    assert dataset.unlabelled is not None
    assert len(dataset.unlabelled) == 5 * CLASSES
    config = experiment.configure(experiment.default_params())
    training = Training(config, workspace, tmp_path / "training")
    while not training.finished:
        training.run_epoch()
    head, *finetune = training.log.read()
    assert "train/pseudo" not in head
    assert all(0 < record["train/pseudo_share"] <= 1 for record in finetune)
    assert np.isfinite(training.predict("test").logits).all()
