"""Which precision the finetune stage computes in."""

from __future__ import annotations

import json

import pytest
import torch

from gsfl_tune.training import Training, precision
from gsfl_tune.training.pretrain.pretraining import uses_bf16 as pretraining_uses_bf16
from gsfl_tune.training.stages import FinetuneStage

from .conftest import tiny_config
from .test_training import run

CPU = torch.device("cpu")


def config(**training):
    finetune = {"epochs": 1} | training.pop("finetune", {})
    return tiny_config(training={"head": {"epochs": 0}, **training, "finetune": finetune})


def _uses(settings, workspace):
    return precision.uses_bf16(settings, workspace.backbone(settings), CPU, workspace.cache_dir)


def _prefix_uses(settings, workspace):
    backbone = workspace.backbone(settings)
    return precision.prefix_uses_bf16(settings, backbone, CPU, workspace.cache_dir)


def test_what_the_file_says_is_done(workspace):
    assert _uses(config(precision="bf16"), workspace)
    assert _prefix_uses(config(precision="bf16"), workspace)
    assert not _uses(config(precision="fp32"), workspace)
    assert not _prefix_uses(config(precision="fp32"), workspace)


def test_a_cpu_without_bf16_units_measures_nothing(workspace, monkeypatch):
    monkeypatch.setattr(precision, "has_bf16_units", lambda: False)
    monkeypatch.setattr(precision, "_time_both", None)
    assert not _uses(config(precision="auto"), workspace)


def test_a_head_alone_needs_no_decision(workspace, monkeypatch):
    monkeypatch.setattr(precision, "has_bf16_units", lambda: True)
    monkeypatch.setattr(precision, "_time_both", None)
    settings = config(precision="auto", head={"epochs": 1}, finetune={"epochs": 0})
    assert not _uses(settings, workspace)


def test_the_decision_is_measured_once_and_kept(workspace, monkeypatch):
    monkeypatch.setattr(precision, "has_bf16_units", lambda: True)
    settings = config(precision="auto", finetune={"blocks": 2})
    first = _uses(settings, workspace)
    [file] = (workspace.cache_dir / "precision").glob("*.json")
    seconds = json.loads(file.read_text())
    assert set(seconds) == {"fp32", "bf16", "prefix fp32", "prefix bf16"}
    assert first == (seconds["fp32"] >= 1.1 * seconds["bf16"])
    # Another process of this node reads it.
    slow_prefix = {"prefix fp32": 1.0, "prefix bf16": 1.1}
    file.write_text(json.dumps({"fp32": 2.0, "bf16": 1.0, **slow_prefix}))
    assert _uses(settings, workspace)
    assert not _prefix_uses(settings, workspace)
    # The frozen part is judged by itself.
    file.write_text(json.dumps({"fp32": 2.0, "bf16": 1.9, "prefix fp32": 1.5, "prefix bf16": 1.0}))
    assert not _uses(settings, workspace)
    assert _prefix_uses(settings, workspace)


def test_another_machine_and_another_number_of_threads_measure_anew(
    workspace, tmp_path, monkeypatch
):
    """Nodes may share the disk of a cache."""
    measured = []

    def time_both(*_):
        measured.append(1)
        return {"fp32": 1.0, "bf16": 1.0}

    monkeypatch.setattr(precision, "has_bf16_units", lambda: True)
    monkeypatch.setattr(precision, "_time_both", time_both)
    settings = config(precision="auto", finetune={"blocks": 2})
    backbone = workspace.backbone(settings)
    threads = torch.get_num_threads()
    for count, name in ((threads, "one"), (threads + 1, "one"), (threads, "other")):
        monkeypatch.setattr(precision, "processor", lambda name=name: name)
        torch.set_num_threads(count)
        try:
            for _ in range(2):
                precision.uses_bf16(settings, backbone, CPU, tmp_path)
        finally:
            torch.set_num_threads(threads)
    assert len(measured) == 3


def test_a_gpu_that_only_emulates_bf16_computes_in_float32(workspace, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: (
        including_emulation
    ))  # fmt: skip
    settings, gpu = config(precision="auto"), torch.device("cuda")
    backbone = workspace.backbone(settings)
    assert not precision.uses_bf16(settings, backbone, gpu, workspace.cache_dir)
    assert not pretraining_uses_bf16(settings, gpu)


@pytest.mark.parametrize("blocks", ["all", 2])
def test_a_training_in_bf16_is_near_one_in_float32_and_ends_with_ordinary_layers(
    workspace, tmp_path, blocks
):
    finetune = {"epochs": 2, "blocks": blocks, "batch_size": 24}
    trained = {
        name: run(
            Training(config(precision=name, finetune=finetune, ema=0.5), workspace, tmp_path / name)
        )
        for name in ("fp32", "bf16")
    }
    half, full = (trained[name].log.read()[-1] for name in ("bf16", "fp32"))
    assert half["train/loss"] == pytest.approx(full["train/loss"], rel=0.02)
    assert half["train/loss"] != full["train/loss"]
    stage = FinetuneStage(trained["bf16"].context)
    assert any(type(m).__name__.startswith("Full") for m in stage.module.modules())
    network = trained["bf16"].trained_network()
    assert not any(type(m).__name__.startswith("Full") for m in network.modules())


def trained_in(trained, frozen):
    return trained if trained == frozen else f"{trained} (frozen blocks {frozen})"


@pytest.mark.parametrize("measured", [("bf16", "bf16"), ("bf16", "fp32"), ("fp32", "fp32")])
def test_a_trial_that_moves_keeps_the_precision_that_its_first_node_chose(
    workspace, tmp_path, measured
):
    """Nodes differ in what they measured, and so does one node under load."""
    settings = config(precision="auto", finetune={"epochs": 2, "blocks": 2})
    trained, frozen = (each == "bf16" for each in measured)
    first = Training(settings, workspace, tmp_path / "trial")
    first.context.autocast, first.context.frozen_bf16 = trained, frozen
    first.run_epoch()
    first.save()
    second = Training(settings, workspace, tmp_path / "trial")
    second.context.autocast, second.context.frozen_bf16 = not trained, not frozen
    assert second.restore()
    assert (second.context.autocast, second.context.frozen_bf16) == (trained, frozen)
    assert torch.equal(
        torch.from_numpy(first.predict("test").logits),
        torch.from_numpy(second.predict("test").logits),
    )
    second.run_epoch()
    said = {record["precision"] for record in second.log.read()}
    assert said == {trained_in(*measured)}
    alone = Training(settings, workspace, tmp_path / "alone")
    alone.context.autocast, alone.context.frozen_bf16 = trained, frozen
    assert torch.equal(
        torch.from_numpy(run(alone).predict("test").logits),
        torch.from_numpy(run(second).predict("test").logits),
    )


def test_a_head_alone_says_nothing_of_a_precision(workspace, tmp_path):
    settings = config(head={"epochs": 1}, finetune={"epochs": 1}, precision="bf16")
    head, finetune = run(Training(settings, workspace, tmp_path)).log.read()
    assert "precision" not in head
    assert finetune["precision"] == "bf16"


@pytest.mark.parametrize(
    ("settings", "again"),
    [
        ({"precision": "fp32"}, False),
        ({"precision": "bf16"}, True),
        ({"precision": "bf16", "head": {"epochs": 1}, "finetune": {"epochs": 0}}, False),
        # Without views nothing of a trained network is cached.
        ({"precision": "fp32", "cache_precision": "fp16"}, False),
        (
            {
                "precision": "fp32",
                "cache_precision": "fp16",
                "views": 2,
                "finetune": {"blocks": 2},
            },
            True,
        ),
        ({"precision": "fp32", "frozen": "bf16", "finetune": {"blocks": 2}}, True),
        ({"precision": "fp32", "frozen": "bf16", "finetune": {"blocks": "all"}}, False),
        ({"precision": "fp32", "frozen": "int8", "finetune": {"blocks": 2}}, False),
    ],
)
def test_answers_are_computed_again_where_a_training_computes_in_less(settings, again):
    views, frozen = settings.pop("views", 0), settings.pop("frozen", "auto")
    found = config(**settings)
    found = found.model_copy(
        update={
            "data": found.data.model_copy(update={"views": views}),
            "model": found.model.model_copy(update={"feature_precision": frozen}),
        }
    )
    assert precision.answers_again(found) == again


@pytest.mark.parametrize("device", ["auto", "cpu", "mps"])
@pytest.mark.parametrize("units", [True, False])
def test_an_automatic_precision_is_that_of_the_machine(device, units, monkeypatch):
    monkeypatch.setattr(precision, "has_bf16_units", lambda: units)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings = config(precision="auto", device=device)
    assert precision.answers_again(settings) == (units and device != "mps")


def test_features_are_computed_again_where_they_are_rounded():
    assert not precision.features_again(config(precision="bf16"))
    assert precision.features_again(config(cache_precision="fp16"))
