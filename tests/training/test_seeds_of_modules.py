"""Modules that join a network begin with weights of the training's seed, as its head does."""

from __future__ import annotations

import pytest
import torch

from gsfl_tune.training import Training

from .conftest import tiny_config

FINETUNE = {"epochs": 1, "batch_size": 24, "blocks": 2}
JOINED = {
    "recurrent": {"method": "recurrent_attention", "recurrent_attention": {"scales": 3}},
    "attention": {"method": "counterfactual_attention"},
    "granularities": {"method": "pmg", "pmg": {"width": 8, "prediction": "joint"}},
    "backbone.restitution": {"finetune": {**FINETUNE, "snr": True}},
}


@pytest.mark.parametrize("name", JOINED)
def test_weights_are_of_the_seed_and_other_random_numbers_stay(workspace, tmp_path, name):
    training = {"head": {"epochs": 0}, "finetune": FINETUNE, **JOINED[name]}
    config = tiny_config(data={"image_size": 48}, training=training)

    def begun(seed: int) -> dict[str, torch.Tensor]:
        trained = Training(config, workspace, tmp_path, seed=seed)
        before = torch.get_rng_state()
        network = trained.network(trained.workspace.new_backbone(config))
        assert torch.equal(torch.get_rng_state(), before)
        return network.get_submodule(name).state_dict()

    one, again, two = begun(1), begun(1), begun(2)
    assert all(torch.equal(one[key], again[key]) for key in one)
    # What starts at zero or one does so with every seed.
    drawn = [key for key, value in one.items() if value.dim() > 1 and value.any()]
    assert drawn
    assert not any(torch.equal(one[key], two[key]) for key in drawn)
