"""Checkpoints of an earlier version stay good: a key added since takes no part at its default."""

import pytest

from gsfl_tune.experiment.config import Config
from gsfl_tune.training.fingerprint import fingerprint

# As a version without `data.shots` and `training.balanced_sampling` computed them. Where a key was
# added to the schema and this fails, the key belongs into the list of later ones.
WRITTEN = {
    "36632d0ae194e53d11cc003925ca930c": {},
    "7cca20c5c7fecf5f19a0a887dcd84aaf": {
        "training": {"finetune": {"epochs": 4}},
        "loss": {"reconstruction": 0.5},
    },
}


@pytest.mark.parametrize("written", WRITTEN)
def test_a_training_is_known_by_what_an_earlier_version_wrote(written):
    sections = WRITTEN[written]
    config = Config.model_validate({"name": "birds", "data": {"path": "photos"}, **sections})
    assert fingerprint(config) == written


@pytest.mark.parametrize(
    "section",
    [
        {"data": {"path": "photos", "shots": 3}},
        {"loss": {"class_weights": 0.5}},
        {"loss": {"logit_adjustment": 1.0}},
        {"loss": {"focal": 2.0}},
        {"training": {"balanced_sampling": 0.5}},
        {"model": {"gem_power": 4}},
        {"training": {"finetune": {"cutmix": 0.2}}},
        {"training": {"finetune": {"unfreeze": 1}}},
        {"training": {"finetune": {"start_size": 0.5}}},
    ],
)
def test_a_key_that_takes_part_makes_another_training(section):
    sections = {"data": {"path": "photos"}, **section}
    config = Config.model_validate({"name": "birds", **sections})
    assert fingerprint(config) not in WRITTEN
