"""The precision of frozen features: what it changes, and what `auto` becomes in a search."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch

from gsfl_tune.experiment import Experiment, ExperimentError
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.training import Workspace, fit_precision, precision
from gsfl_tune.training import workspace as workspaces
from gsfl_tune.training.caches.engines import Rehearsal
from gsfl_tune.training.caches.features import CODE_VERSION
from gsfl_tune.training.caches.keys import digest

from .conftest import tiny_config

CPU = torch.device("cpu")
BF16 = {"model": {"feature_precision": "bf16"}}


@pytest.fixture
def units(monkeypatch):
    """A CPU that multiplies bf16; without units PyTorch computes the same, slowly."""
    for module in (workspaces, fit_precision, precision):
        monkeypatch.setattr(module, "has_bf16_units", lambda: True)


@pytest.fixture
def allowed(monkeypatch):
    """`auto` may choose bf16."""
    monkeypatch.setattr(fit_precision, "AUTO_MAY_BE_BF16", True)


def experiment(tmp_path, text="", name="resnet50"):
    file = tmp_path / "t.yaml"
    file.write_text(
        "name: t\ndata: {source: typefaces, image_size: 64}\n"
        f"model: {{backbone: {name}, weights: none}}\n{text}"
    )
    return Experiment.load(file)


@pytest.mark.usefixtures("units")
def test_bf16_features_are_near_and_have_a_key_and_groups_of_their_own(workspace):
    full, half = tiny_config(), tiny_config(**BF16)
    expected, found = workspace.features(full).clone(), workspace.features(half)
    distance = (found - expected).norm(dim=1)
    assert 1e-4 < distance.max() < 0.1
    keys = {workspace.extractor(each).key(workspace.dataset.pool) for each in (full, half)}
    assert len(keys) == 2
    # A number of groups that no other test with this cache asks for.
    three = {"groups": {"count": 3, "method": "spectral"}}
    workspace.groups(tiny_config(model=three))
    before = set((workspace.cache_dir / "groups").glob("*.npy"))
    workspace.groups(tiny_config(model={**BF16["model"], **three}))
    assert set((workspace.cache_dir / "groups").glob("*.npy")) - before


@pytest.mark.parametrize("asked", ["auto", "fp32"])
def test_fp32_keeps_the_key_of_earlier_versions(workspace, asked):
    config = tiny_config(model={"feature_precision": asked})
    extractor = workspace.extractor(config)
    recipe = asdict(extractor.recipe) | {"weights": extractor.backbone.digest}
    del recipe["gem_power"], recipe["arithmetic"], recipe["attention_heads"]
    pool = workspace.dataset.pool
    assert extractor.key(pool) == digest("features", CODE_VERSION, pool.digest, recipe, None)


def test_a_cpu_without_bf16_refuses_it(workspace, monkeypatch, tmp_path):
    for module in (workspaces, fit_precision):
        monkeypatch.setattr(module, "has_bf16_units", lambda: False)
    with pytest.raises(UserError, match="does not multiply bf16 numbers"):
        workspace.extractor(tiny_config(**BF16))
    asked = experiment(tmp_path, "training: {device: cpu}").fixed(
        {"model.feature_precision": "bf16"}
    )
    with pytest.raises(ExperimentError, match=r"model.feature_precision: found bf16.*auto, fp32"):
        fit_precision.refuse_unfit_precision(asked)
    fit_precision.refuse_unfit_precision(experiment(tmp_path))


@pytest.mark.usefixtures("units")
def test_activations_follow_it_before_the_precision_of_the_training(workspace):
    def low(feature_precision, training):
        config = tiny_config(
            model={"feature_precision": feature_precision},
            training={"precision": training, "finetune": {"epochs": 1, "blocks": 1}},
        )
        backbone = workspace.backbone(config)
        return precision.prefix_uses_bf16(config, backbone, CPU, workspace.cache_dir)

    assert low("bf16", "fp32")
    assert not low("fp32", "bf16")
    assert low("auto", "bf16")
    assert not low("auto", "fp32")


def decide(experiment, looked_at=10**7, full=10.0, half=30.0, *, alone=True, device=CPU):
    return fit_precision.decide(
        experiment,
        looked_at,
        alone=alone,
        device=device,
        measure=lambda: (Rehearsal(full / 2, full), Rehearsal(half / 2, 0.0, "it has no form")),
    )


@pytest.mark.usefixtures("units")
def test_auto_is_fp32_until_bf16_is_known_to_cost_nothing(tmp_path):
    assert decide(experiment(tmp_path)).precision == "fp32"


@pytest.mark.usefixtures("units", "allowed")
def test_auto_is_bf16_where_it_saves_time_and_says_why(tmp_path, monkeypatch):
    given = experiment(tmp_path)
    chosen = decide(given)
    assert chosen.precision == "bf16"
    assert chosen.reason == "auto: bf16 runs 15 images a second, fp32 10; by PyTorch"
    assert chosen.images_per_second == {
        "fp32 torch": 5.0, "fp32 openvino": 10.0, "bf16 torch": 15.0
    }  # fmt: skip
    assert "OpenVINO is not used: it has no form" in chosen.lines()
    assert decide(given, half=25.0).precision == "fp32"  # 12.5 are less than 1.3 times 10
    assert decide(given, looked_at=10).reason == "auto: features take less than 30 s"
    assert decide(given, alone=False).precision == "fp32"
    assert decide(given, device=torch.device("cuda")).precision == "fp32"
    slow = experiment(tmp_path, "training: {precision: fp32}")
    assert decide(slow).precision == "fp32"
    told = given.fixed({"model.feature_precision": "bf16"})
    assert decide(told, looked_at=10).reason == "as the experiment says"
    monkeypatch.setattr(fit_precision, "has_bf16_units", lambda: False)
    assert decide(given).precision == "fp32"


def test_the_guess_of_seconds_grows_with_images_and_operations(tmp_path, monkeypatch):
    monkeypatch.setattr(fit_precision, "usable_cores", lambda: 2)
    # ResNet-50 has 8.2 GFLOP at 224 px, and about (64 / 224)^2 of them at 64 px.
    found = fit_precision.estimate(experiment(tmp_path), 10_000)
    assert found == pytest.approx(10_000 * 8.2e9 * (64 / 224) ** 2 / 200e9, rel=0.05)


@pytest.mark.usefixtures("units", "allowed")
def test_a_run_keeps_its_precision(tmp_path, workspace: Workspace):
    def fitted(known):
        given, chosen = fit_precision.fit_precision(
            experiment(tmp_path, name="test_efficientnet"), workspace, known=known, alone=True
        )
        return given.values("model.feature_precision"), chosen.precision

    assert fitted(None) == (["auto"], "fp32")  # little to compute
    assert fitted({}) == (["auto"], "fp32")  # a run of an earlier version
    kept = decide(experiment(tmp_path)).to_json()
    assert fitted(kept) == (["bf16"], "bf16")
