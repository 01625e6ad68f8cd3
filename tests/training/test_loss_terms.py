"""Terms of the loss in real trainings: their state is kept, and any head may use some of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsfl_tune.training import Training
from gsfl_tune.training.checkpoint import load_checkpoint, save_checkpoint

from .checks import check_resumes
from .conftest import tiny_config
from .test_training import assert_equal_states, run, state_of

BOTH = {"head": {"epochs": 2, "batch_size": 16}, "finetune": {"epochs": 2, "batch_size": 24}}
TERMS = {
    "center": {"center": {"weight": 0.05, "rate": 0.5}},
    "isda": {"isda": {"weight": 1.0, "strength": 2.0}},
    "isda-full": {"isda": {"weight": 0.5, "covariance": "full"}},
    "pairs": {"pairwise_confusion": {"weight": 1.0}},
    "metric": {"metric_learning": {"weight": 0.1, "kind": "soft_triple", "centers": 2}},
}
# Those that read the shared part.
SHARED = {
    "hsic": {"independence": {"weight": 10.0}},
    "variance": {"shared_variance": {"weight": 1.0}},
    "reversal": {"group_reversal": {"weight": 1.0, "hidden": 8}},
    "unlearning": {"group_unlearning": {"weight": 1.0, "hidden": 8}},
}
CASES = [
    *(
        pytest.param(head, loss, id=f"{name}-{head}")
        for name, loss in TERMS.items()
        for head in ("gsfl", "plain")
    ),
    *(pytest.param("gsfl", loss, id=name) for name, loss in SHARED.items()),
]


@pytest.mark.parametrize(("head", "loss"), CASES)
def test_resuming_equals_never_having_stopped(workspace, tmp_path, head, loss):
    config = tiny_config(model={"head": head}, loss=loss, training=BOTH)
    whole = check_resumes(config, workspace, tmp_path, stop_after=3)
    name = next(iter(loss))
    values = [record[f"train/{name}"] for record in whole.log.read()]
    assert all(np.isfinite(values))
    assert any(value > 0 for value in values)


@pytest.mark.parametrize(
    ("head", "loss"),
    [
        *(pytest.param("plain", loss, id=name) for name, loss in TERMS.items()),
        *(pytest.param("gsfl", loss, id=name) for name, loss in SHARED.items()),
    ],
)
def test_a_term_changes_what_is_trained_and_nothing_at_weight_0(workspace, tmp_path, head, loss):
    head = {"head": head}
    without = run(Training(tiny_config(model=head), workspace, tmp_path / "without"))
    name, settings = next(iter(loss.items()))
    off = tiny_config(model=head, loss={name: {**settings, "weight": 0}})
    ignored = run(Training(off, workspace, tmp_path / "off"))
    assert_equal_states(state_of(without)["module"], state_of(ignored)["module"])
    # It is the same training: what is there may be used.
    assert ignored._fingerprint == without._fingerprint
    trained = run(Training(tiny_config(model=head, loss=loss), workspace, tmp_path / "on"))
    # The shared part does not reach the classifier, and one term does not reach that part.
    reads_d = head["head"] == "plain" or name == "group_unlearning"
    weight = "classifier.weight" if reads_d else "shared.3.weight"
    assert not torch.equal(state_of(trained)["module"][weight], state_of(without)["module"][weight])
    fresh = [Training(each.config, workspace, tmp_path / "fresh") for each in (without, trained)]
    assert_equal_states(*(each.head.state_dict() for each in fresh))


@pytest.mark.parametrize("loss", SHARED.values(), ids=SHARED)
def test_a_control_without_a_shared_part_has_no_term_of_it(workspace, tmp_path, loss):
    plain = {"head": "plain"}
    with_term = run(Training(tiny_config(model=plain, loss=loss), workspace, tmp_path / "with"))
    without = run(Training(tiny_config(model=plain), workspace, tmp_path / "without"))
    assert_equal_states(state_of(with_term)["module"], state_of(without)["module"])


def test_parameters_of_a_term_are_trained_and_are_a_function_of_the_seed(workspace, tmp_path):
    loss = {**TERMS["metric"], **SHARED["reversal"]}
    one, other = (
        Training(tiny_config(loss=terms, training=BOTH), workspace, tmp_path / name)
        for name, terms in (("both", loss), ("alone", SHARED["reversal"]))
    )
    key = "states.term_group_reversal.classifier.0.weight"
    begun = one.loss.state_dict()[key].clone()
    # Another term, which draws too, does not change it; another seed does.
    assert torch.equal(begun, other.loss.state_dict()[key])
    seeded = Training(tiny_config(loss=loss, training=BOTH), workspace, tmp_path / "s", seed=5)
    assert not torch.equal(begun, seeded.loss.state_dict()[key])
    before = {name: each.clone() for name, each in one.loss.state_dict().items()}
    for stage in ("head", "finetune"):
        one.run_epoch()
        one.run_epoch()
        assert one.log.read()[-1]["stage"] == stage
        after = one.loss.state_dict()
        for name, _ in one.loss.named_parameters():
            assert not torch.equal(before[name], after[name]), (stage, name)
        before = {name: each.clone() for name, each in after.items()}


def test_the_variance_of_the_shared_part_is_held(workspace, tmp_path):
    found = {}
    for weight in (0.0, 5.0):
        config = tiny_config(
            loss={"shared_center": 1.0, "shared_variance": {"weight": weight, "floor": 0.5}},
            training={"head": {"epochs": 12, "learning_rate": 0.003}},
        )
        training = run(Training(config, workspace, tmp_path / str(weight)))
        features = workspace.features(config)[training.context.train_positions]
        with torch.inference_mode():
            s = training.head.eval()(features).shared
        found[weight] = float(s.std(0).mean())
    assert found[5.0] > 2 * found[0.0]


def test_centre_loss_draws_a_plain_heads_classes_together(workspace, tmp_path):
    spread = {}
    for weight in (0.0, 0.5):
        config = tiny_config(
            model={"head": "plain", "dropout": 0.0},
            loss={"center": {"weight": weight}},
            training={"head": {"epochs": 12, "learning_rate": 0.003}},
        )
        training = run(Training(config, workspace, tmp_path / str(weight)))
        index = training.context.train_positions.numpy()
        d = training._current().discriminative(index)
        labels = training.context.labels[training.context.train_positions]
        means = torch.stack([d[labels == k].mean(0) for k in range(int(labels.max()) + 1)])
        inside = (d - means[labels]).square().sum(1).mean()
        spread[weight] = float(inside / (means - means.mean(0)).square().sum(1).mean())
    assert spread[0.5] < 0.8 * spread[0.0]


def test_a_checkpoint_of_an_earlier_version_keeps_its_centres(workspace, tmp_path):
    training = Training(tiny_config(), workspace, tmp_path)
    training.run_epoch()
    training.save()
    state = load_checkpoint(training.checkpoint_path)
    # As it was written when class centres were the only state of a loss.
    state["centers"] = training.centers.state_dict()
    del state["loss"]
    save_checkpoint(training.checkpoint_path, state)
    again = Training(tiny_config(), workspace, tmp_path)
    assert again.restore()
    assert torch.equal(again.centers.centers, training.centers.centers)
    assert float(again.centers.centers.abs().max()) > 0
