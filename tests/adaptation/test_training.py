"""Which parts are trained, what is resumed, and how an adaptation fails."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gsfl_tune.adaptation import AdaptationFailed, Settings
from gsfl_tune.adaptation.images import open_images
from gsfl_tune.adaptation.training import Adapting
from gsfl_tune.experiment.data_config import AugmentConfig
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export import load_bundle


@pytest.fixture
def make(stripes_home, tmp_path):
    """Makes an adaptation of the bundle to the other camera's images."""

    def adapting(name: str = "one", images: str = "target", **settings) -> Adapting:
        torch.set_num_threads(1)
        bundle = load_bundle(stripes_home / "bundle", "cpu")
        found = open_images(bundle, [str(stripes_home / images)], stripes_home / "cache")
        own = Settings(**{"epochs": 2, "batch_size": 20, **settings})
        how, augment = bundle.preprocessing, AugmentConfig(flip=False, scale=0.6)
        return Adapting(bundle.network, found, own, how, augment, 32, tmp_path / name)

    return adapting


def state(training: Adapting) -> dict[str, torch.Tensor]:
    return {name: each.clone() for name, each in training.network.state_dict().items()}


def changed(before, after) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_the_classifier_stays_and_the_rest_is_trained(make):
    training = make()
    before = state(training)
    training.begin()
    training.run_epoch()
    found = changed(before, state(training))
    assert not any(name.startswith("head.classifier") for name in found)
    assert any(name.startswith("head.discriminative") for name in found)
    parameters = {name for name, _ in training.network.backbone.named_parameters("backbone")}
    assert parameters <= found
    # Batch norms have statistics of the new images, through all layers.
    norms = [name for name in before if name.endswith("running_mean")]
    assert norms
    assert set(norms) <= found


def test_frozen_blocks_stay_as_they_are_with_their_norms(make):
    training = make(blocks=1)
    before = state(training)
    training.begin()
    training.run_epoch()
    found = changed(before, state(training))
    trained = {
        name for name, parameter in training.network.named_parameters() if parameter.requires_grad
    }
    assert 0 < len(trained) < len(list(training.network.parameters())) / 2
    assert trained <= found
    frozen = {name for name in before if name.startswith("backbone.model.conv_stem")}
    frozen |= {name for name in before if name.startswith("backbone.model.blocks.0")}
    assert frozen
    assert not frozen & found


def test_the_encoder_alone_or_the_blocks_alone(make):
    training = make(blocks=0)
    before = state(training)
    training.begin()
    training.run_epoch()
    assert {name.split(".")[1] for name in changed(before, state(training))} == {"discriminative"}
    training = make("other", blocks=1, train_encoder=False)
    before = state(training)
    training.begin()
    training.run_epoch()
    assert {name.split(".")[0] for name in changed(before, state(training))} == {"backbone"}


def test_a_record_says_what_is_made_of_all_images(make):
    training = make()
    first = training.begin()
    assert (first["epoch"], first["changed"], sum(first["counts"])) == (0, 0.0, 80)
    record = training.run_epoch()
    look = training.look()
    assert record["agreement"] == pytest.approx(
        float((look.labels == look.predictions).float().mean()), abs=1e-5
    )
    different = (look.predictions != training.first).float().mean()
    assert record["changed"] == pytest.approx(float(different), abs=1e-5)
    logits = torch.from_numpy(training.logits(training.images)).double()
    shares = logits.softmax(1)
    entropy = float(-(shares * shares.log()).sum(1).mean())
    assert record["entropy"] == pytest.approx(entropy, abs=1e-4)
    assert record["counts"] == torch.bincount(logits.argmax(1), minlength=4).tolist()
    assert record["train/loss"] == pytest.approx(
        record["train/entropy"] - record["train/diversity"] + 0.3 * record["train/pseudo"], abs=1e-4
    )


def test_a_resumed_adaptation_has_the_same_bits(make):
    whole = make("whole")
    whole.begin()
    whole.run_epoch()
    whole.run_epoch()
    part = make("part")
    part.begin()
    part.run_epoch()
    resumed = make("part")
    assert resumed.restore()
    assert (resumed.epoch, resumed.finished) == (1, False)
    resumed.run_epoch()
    assert resumed.finished
    assert not changed(state(whole), state(resumed))
    records = [[{**each, "seconds": 0} for each in one.log.read()] for one in (whole, resumed)]
    assert records[0] == records[1]
    other = make("seed", seed=1)
    other.begin()
    other.run_epoch()
    other.run_epoch()
    assert changed(state(whole), state(other))


def test_a_broken_checkpoint_is_refused(make, tmp_path):
    training = make()
    assert not training.restore()
    training.begin()
    (tmp_path / "one" / "checkpoint.pt").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read"):
        make().restore()


def test_a_collapse_is_a_failure(make):
    training = make(images="source/train", learning_rate=1e-9)
    assert min(training.begin()["counts"]) > 10

    class Same(nn.Linear):
        def forward(self, x):
            return super().forward(x) + torch.tensor([0.0, 1e4, 0.0, 0.0])

    own = training.network.head.classifier
    training.network.head.classifier = Same(own.in_features, own.out_features)
    with pytest.raises(AdaptationFailed, match="all 96 images have one class"):
        training.run_epoch()


def test_a_loss_that_is_not_finite_is_a_failure(make):
    training = make(learning_rate=1e30)
    training.begin()
    with pytest.raises(AdaptationFailed, match="finite"):
        training.run_epoch()


def norms_of(training: Adapting) -> dict[str, torch.Tensor]:
    return {name: each for name, each in state(training).items() if "running_" in name}


def test_statistics_of_norms_are_kept_or_new(make):
    kept = make("kept", norms="kept")
    before = norms_of(kept)
    assert kept.begin()["new_norms"] is False
    kept.run_epoch()
    assert not changed(before, norms_of(kept))
    new = make("new", norms="new")
    first = new.begin()
    assert first["new_norms"] is True
    # The first record is of the bundle as it was, pseudo-labels are of the network with new norms.
    assert first["entropy"] == kept.log.read()[0]["entropy"]
    assert changed(before, norms_of(new)) == set(before)
    assert new.look().entropy != pytest.approx(first["entropy"], abs=1e-3)


def test_norms_are_new_where_answers_become_surer_and_more_diverse(make):
    training = make()
    record = training.begin()
    look = training.look()
    assert record["new_norms"] is True
    assert look.entropy - look.spread < record["entropy"] - record["spread"]
    # Statistics of the images that they were found on change nothing for the better.
    again = make("again")
    again.network.load_state_dict(training.network.state_dict())
    before = norms_of(again)
    assert again.begin()["new_norms"] is False
    assert not changed(before, norms_of(again))


def test_a_network_without_trained_norms_keeps_them(make):
    training = make(blocks=0, norms="new")
    before = norms_of(training)
    assert training.begin()["new_norms"] is False
    training.run_epoch()
    assert not changed(before, norms_of(training))
