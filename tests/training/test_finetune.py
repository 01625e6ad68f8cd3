"""The finetune stage: what its choices may change, and what they may not."""

from __future__ import annotations

import shutil

import pytest
import torch

from gsfl_tune.data import Batch, Targets
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.models import Backbone, CannotCut
from gsfl_tune.training import Training
from gsfl_tune.training.stages import FinetuneStage, HeadStage
from gsfl_tune.training.stages.meter import LossMeter

from .conftest import tiny_config
from .test_training import assert_equal_states, run, state_of


def config(**finetune):
    finetune = {"epochs": 2, "batch_size": 24, **finetune}
    return tiny_config(training={"head": {"epochs": 0}, "finetune": finetune})


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="the compiler of the CPU is g++")
def test_a_compiled_network_trains_and_resumes_as_any_other(workspace, tmp_path):
    plain = run(Training(config(), workspace, tmp_path / "plain"))
    settings = config(compile=True)
    whole = run(Training(settings, workspace, tmp_path / "whole"))
    for ours, theirs in zip(whole.log.read(), plain.log.read(), strict=True):
        assert ours["train/loss"] == pytest.approx(theirs["train/loss"], rel=1e-4)
    assert state_of(whole)["module"].keys() == state_of(plain)["module"].keys()

    first = Training(settings, workspace, tmp_path / "parts")
    first.run_epoch()
    first.save()
    second = Training(settings, workspace, tmp_path / "parts")
    assert second.restore()
    assert_equal_states(state_of(run(second)), state_of(whole))


@pytest.mark.slow
def test_a_compiler_that_fails_is_the_users_error(workspace, tmp_path, monkeypatch):
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    monkeypatch.setattr("torch._inductor.config.force_disable_caches", True)
    training = Training(config(compile=True), workspace, tmp_path)
    with pytest.raises(UserError, match=r"finetune\.compile: found true.*allowed: false"):
        FinetuneStage(training.context).rehearse()  # before a search is paid for
    torch.compiler.reset()


def test_the_fast_copy_of_frozen_blocks_trains_as_the_whole_does(workspace, tmp_path, monkeypatch):
    settings = config(blocks=2).model_dump(mode="json")
    settings["training"]["ema"] = 0.5
    settings = type(config()).model_validate(settings)
    parts = run(Training(settings, workspace, tmp_path / "parts"))

    def refuse(self, image_size):
        raise CannotCut("no place to cut")

    monkeypatch.setattr(Backbone, "split", refuse)
    whole = run(Training(settings, workspace, tmp_path / "whole"))
    for ours, theirs in zip(parts.log.read(), whole.log.read(), strict=True):
        for key in ("train/loss", "train/cross_entropy", "validation/nll"):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-5)
    assert state_of(parts)["module"].keys() == state_of(whole)["module"].keys()


@pytest.mark.parametrize("views", [0, 1])
def test_a_rehearsal_takes_a_step_and_caches_nothing(workspace, tmp_path, views):
    settings = config(blocks=2).model_dump(mode="json")
    settings["data"]["views"] = views
    training = Training(type(config()).model_validate(settings), workspace, tmp_path)
    stage = FinetuneStage(training.context)
    before = {name: value.clone() for name, value in stage.module.state_dict().items()}
    folder = workspace.cache_dir / "prefix"
    files = set(folder.iterdir()) if folder.exists() else set()
    stage.rehearse()
    after = stage.module.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("backbone.model.blocks") for name in changed)
    assert any(name.startswith("head.") for name in changed)
    assert (set(folder.iterdir()) if folder.exists() else set()) == files


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["head", "finetune"])
def test_a_step_does_not_wait_for_the_gpu(workspace, tmp_path, name):
    settings = config(blocks=2).model_dump(mode="json")
    settings["training"] |= {"device": "cuda", "ema": 0.5}
    settings["training"][name] |= {"epochs": 1, "clip_norm": 1.0}
    training = Training(type(config()).model_validate(settings), workspace, tmp_path)
    stage = (FinetuneStage if name == "finetune" else HeadStage)(training.context)
    stage.rehearse()  # kernels are loaded, the state of the optimiser is there
    labels = torch.zeros(24, dtype=torch.int64, device="cuda")
    if name == "finetune":
        inputs = stage._batches.of_images(torch.randn(24, 3, 32, 32, device="cuda"))
    else:
        inputs = torch.randn(24, stage.module.feature_dim, device="cuda")
    batch = Batch((inputs,), Targets(labels), torch.arange(24))
    meter = LossMeter()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(3):
            meter.add(stage._step(batch), len(batch))
            stage._update(step, 10)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert meter.means()["train/loss"] > 0
