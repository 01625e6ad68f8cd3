"""A batch in pieces, for want of memory, trains what the whole batch does."""

from __future__ import annotations

import pytest
import torch

from gsfl_tune.training import Training
from gsfl_tune.training.out_of_memory import out_of_memory

from .conftest import tiny_config
from .test_training import run, state_of


def config(**training):
    # Dropout draws other numbers for other batches, and batch norm looks at the pieces.
    model = {"dropout": 0.0, "backbone": "test_convnext"}
    return tiny_config(model=model, training=training)


@pytest.mark.parametrize(
    "training",
    [
        {"head": {"epochs": 2, "batch_size": 15, "optimizer": "sgd", "clip_norm": 1.0}},
        {
            "head": {"epochs": 0},
            "finetune": {"epochs": 2, "batch_size": 17, "accumulate": 2, "optimizer": "sgd"},
        },
    ],
    ids=["head", "finetune"],
)
def test_pieces_train_what_the_whole_does(workspace, tmp_path, training):
    settings = config(**training)
    whole = run(Training(settings, workspace, tmp_path / "whole"))
    halves = run(Training(settings, workspace, tmp_path / "halves", pieces=2))
    for ours, theirs in zip(halves.log.read(), whole.log.read(), strict=True):
        for key in ("train/loss", "train/cross_entropy", "validation/nll"):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-4)
    ours, theirs = state_of(halves), state_of(whole)
    # Centres too: one update an optimiser step, from all of its pieces.
    torch.testing.assert_close(ours["loss"], theirs["loss"], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(ours["module"], theirs["module"], rtol=1e-3, atol=1e-5)
    # A checkpoint of the one is a checkpoint of the other.
    whole.save()
    assert Training(settings, workspace, tmp_path / "whole", pieces=2).restore()


@pytest.mark.parametrize("mixup", [0.0, 1.0])
@pytest.mark.parametrize(("batch_size", "pieces"), [(9, 4), (7, 3), (5, 8)])
def test_batches_that_cannot_be_cut_into_as_many_are_cut_into_fewer(
    workspace, tmp_path, batch_size, pieces, mixup
):
    head = {"epochs": 1, "batch_size": batch_size, "optimizer": "sgd", "mixup": mixup}
    settings = config(head=head)
    whole = run(Training(settings, workspace, tmp_path / "whole"))
    cut = run(Training(settings, workspace, tmp_path / "cut", pieces=pieces))
    ours, theirs = state_of(cut), state_of(whole)
    torch.testing.assert_close(ours["module"], theirs["module"], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(ours["loss"], theirs["loss"], rtol=1e-3, atol=1e-5)


def test_batch_norm_never_sees_a_single_image(workspace, tmp_path):
    settings = tiny_config(
        training={"head": {"epochs": 0}, "finetune": {"epochs": 1, "batch_size": 3}}
    )
    run(Training(settings, workspace, tmp_path, pieces=2))


def test_words_for_memory_that_ran_out():
    with pytest.raises(RuntimeError) as real:
        torch.empty(1 << 50, dtype=torch.uint8)
    complaint = out_of_memory(real.value)
    assert complaint is not None
    assert "can't allocate memory" in complaint
    assert "\n" not in complaint
    wrapped = ValueError("cannot load")
    wrapped.__cause__ = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    assert out_of_memory(wrapped) == "CUDA out of memory. Tried to allocate 2.00 GiB"
    assert out_of_memory(OSError(12, "Cannot allocate memory")) is not None
    assert out_of_memory(MemoryError()) == "the process could not allocate memory"
    assert out_of_memory(OSError(28, "No space left on device")) is None
    assert out_of_memory(RuntimeError("the GPU is on fire")) is None
