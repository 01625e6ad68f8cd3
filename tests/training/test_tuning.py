"""How a finetune stage trains its blocks, against plain loops of torch."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from timm.optim import param_groups_weight_decay
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.models import Backbone, probe
from gsfl_tune.models.drop_path import DropPath
from gsfl_tune.training import Training
from gsfl_tune.training.seeds import mix

from .checks import check_cached_as_whole, check_resumes
from .conftest import tiny_config
from .test_training import assert_equal_states, run, state_of

FINETUNE = {"epochs": 2, "batch_size": 24, "blocks": 2, "optimizer": "sgd", "momentum": 0.0}
# Each takes part, in a stage of its own.
CHOICES = {
    "layer_decay": {"layer_decay": 0.5, "blocks": "all"},
    "drop_path": {"drop_path": 0.5, "backbone": "test_resnet"},
    "unfreeze": {"unfreeze": 1},
    "mixstyle": {"mixstyle": 0.7},
    "min_learning_rate": {"min_learning_rate": 0.5},
    "muon": {"optimizer": "muon"},
    "schedule_free": {"optimizer": "schedule_free", "warmup": 0.3},
    "norms": {"train": "norms"},
    "biases": {"train": "biases"},
    "lora": {"train": "lora", "adapter_rank": 3, "adapter_scale": 2.0},
    "dora": {"train": "dora", "adapter_rank": 3, "layer_decay": 0.5},
}


def without(*slow):
    """Returns the choices; those named are for the slow tests, as others go the same way."""
    mark = pytest.mark.slow
    return [pytest.param(v, marks=mark) if k in slow else v for k, v in CHOICES.items()]


def config(views=0, backbone="test_efficientnet", **finetune):
    return tiny_config(
        data={"views": views},
        model={"head": "linear", "backbone": backbone},
        training={"head": {"epochs": 0}, "finetune": {**FINETUNE, **finetune}},
    )


def weights(training):
    return training._current().module.state_dict()


def plain_loop(training, rate_of):
    """The weights after all epochs of SGD with a rate for every parameter.

    Args:
        training: Has not begun.
        rate_of: Name and share of the steps that are done to a rate.
    """
    stage = training._current()
    network = copy.deepcopy(stage.module)
    count, steps = 0, stage.batches * stage.config.epochs
    for epoch in range(stage.config.epochs):
        seed = mix(training.seed, epoch)
        network.train()
        for batch in stage._batches.train_batches(epoch, seed):
            loss = F.cross_entropy(network(batch.inputs).logits, batch.labels)
            trained = {n: p for n, p in network.named_parameters() if p.requires_grad}
            gradients = torch.autograd.grad(loss, list(trained.values()))
            with torch.no_grad():
                for (name, p), gradient in zip(trained.items(), gradients, strict=True):
                    rate = rate_of(name, count / steps)
                    decay = stage.config.weight_decay if p.ndim > 1 else 0.0
                    p -= rate * (gradient + decay * p)
            count += 1
    return network.state_dict()


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6, msg=name)


def check_exported(training, plain):
    """What is exported holds plain weights and predicts what was validated."""
    network = training.trained_network()
    plain = plain.trained_network()
    plain.load_state_dict(network.state_dict(), strict=True)
    workspace = training.workspace
    index = workspace.dataset.validation_index
    stage = training._current()
    with torch.inference_mode():
        batches = stage._evaluated(workspace.dataset.pool, "pool", index)
        found = torch.cat([plain.infer(batch) for batch in batches])
    expected = torch.from_numpy(training.predict("validation").logits)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def cosine(share):
    return 0.5 * (1 + math.cos(math.pi * share))


@pytest.mark.parametrize("blocks", ["all", 2])
def test_each_block_below_the_last_has_a_smaller_rate(workspace, tmp_path, blocks):
    settings = config(
        blocks=blocks, layer_decay=0.3, warmup=0, learning_rate=0.02, head_learning_rate=0.1
    )
    names = probe("test_efficientnet").block_names
    steps_below = {
        name: len(names) - 1 - place for place, each in enumerate(names) for name in each
    }

    def rate(name, share):
        if name.startswith("head."):
            return 0.1 * cosine(share)
        return 0.02 * 0.3 ** steps_below[name.removeprefix("backbone.model.")] * cosine(share)

    expected = plain_loop(Training(settings, workspace, tmp_path / "loop"), rate)
    assert_close(weights(run(Training(settings, workspace, tmp_path / "ours"))), expected)


def test_without_layer_decay_the_optimiser_is_that_of_before(workspace, tmp_path):
    stage = Training(config(optimizer="adamw"), workspace, tmp_path)._current()
    backbone, head = stage.module.backbone, stage.module.head
    trained = [p for p in backbone.parameters() if p.requires_grad]
    expected = [
        [p for p in trained if p.ndim > 1],
        [p for p in trained if p.ndim == 1],
        [head.classifier.weight],
        [head.classifier.bias],
    ]
    groups = stage.optimizer.param_groups
    assert [len(group["params"]) for group in groups] == [len(each) for each in expected]
    for group, each in zip(groups, expected, strict=True):
        assert all(one is other for one, other in zip(group["params"], each, strict=True))


TOKENS = {"backbone": "test_vit", "blocks": "all", "optimizer": "adamw", "weight_decay": 0.1}


@pytest.mark.parametrize("choice", [{}, {"layer_decay": 0.5}, {"unfreeze": 1}])
def test_position_embeddings_and_tokens_have_no_weight_decay(workspace, tmp_path, choice):
    """As the authors of the backbone train it, and as timm groups its parameters."""
    stage = Training(config(**TOKENS, **choice), workspace, tmp_path)._current()
    model = stage.module.backbone.model
    names = model.no_weight_decay()
    theirs = {
        id(parameter)
        for group in param_groups_weight_decay(model, 0.1, no_weight_decay_list=names)
        for parameter in group["params"]
        if group["weight_decay"] == 0
    }
    assert id(model.pos_embed) in theirs
    ours = {
        id(parameter)
        for group in stage.optimizer.param_groups
        for parameter in group["params"]
        if group["weight_decay"] == 0
    }
    assert theirs == ours & {id(parameter) for parameter in model.parameters()}


@pytest.mark.parametrize("choice", [{}, {"layer_decay": 0.5}])
def test_a_training_of_an_earlier_version_keeps_its_decay(workspace, tmp_path, monkeypatch, choice):
    settings = config(**TOKENS, **choice)
    with monkeypatch.context() as before:
        before.setattr(Backbone, "undecayed", Backbone.adapted_lengths)
        whole = run(Training(settings, workspace, tmp_path / "whole"))
        begun = Training(settings, workspace, tmp_path / "begun")
        begun.run_epoch()
        begun.save()
    going_on = Training(settings, workspace, tmp_path / "begun")
    assert going_on.restore()
    assert_equal_states(state_of(run(going_on)), state_of(whole))
    new = run(Training(settings, workspace, tmp_path / "new"))
    name = "backbone.model.pos_embed"
    assert not torch.equal(state_of(new)["module"][name], state_of(whole)["module"][name])


def test_the_cosine_ends_at_a_share_of_the_peak(workspace, tmp_path):
    settings = config(min_learning_rate=0.4, warmup=0, learning_rate=0.02, head_learning_rate=0.1)

    def rate(name, share):
        peak = 0.1 if name.startswith("head.") else 0.02
        return peak * (0.4 + 0.6 * cosine(share))

    expected = plain_loop(Training(settings, workspace, tmp_path / "loop"), rate)
    assert_close(weights(run(Training(settings, workspace, tmp_path / "ours"))), expected)


@pytest.mark.parametrize(
    ("part", "belongs"),
    [
        ("norms", lambda module, name: isinstance(module, nn.BatchNorm2d)),
        ("biases", lambda module, name: name == "bias"),
    ],
    ids=["norms", "biases"],
)
def test_a_part_of_the_blocks_is_trained_alone(workspace, tmp_path, part, belongs):
    settings = config(train=part, learning_rate=0.1, weight_decay=0.1, optimizer="adamw")
    training = Training(settings, workspace, tmp_path)
    before = copy.deepcopy(training._current().module)
    after = dict(run(training)._current().module.named_parameters())
    last_two = {name for block in probe("test_efficientnet").block_names[-2:] for name in block}
    changed = {n for n, p in before.named_parameters() if not torch.equal(p, after[n])}
    expected = {
        f"{path}.{name}"
        for path, module in before.named_modules()
        for name, _ in module.named_parameters(recurse=False)
        if f"{path}.{name}".removeprefix("backbone.model.") in last_two and belongs(module, name)
    }
    assert expected
    assert changed == expected | {"head.classifier.weight", "head.classifier.bias"}


@pytest.mark.parametrize("part", ["lora", "dora"])
def test_adapters_are_trained_as_a_plain_loop_trains_them(workspace, tmp_path, part):
    rank, scale = 3, 2.0
    settings = config(
        train=part, adapter_rank=rank, adapter_scale=scale, warmup=0, learning_rate=0.05,
        head_learning_rate=0.1, weight_decay=0.0, epochs=1,
    )  # fmt: skip
    training = Training(settings, workspace, tmp_path / "loop")
    stage = training._current()
    adapted = {
        name.removesuffix(".lora_A.default.weight"): p.detach().clone().flatten(1)
        for name, p in stage.module.named_parameters()
        if name.endswith(".lora_A.default.weight")
    }
    # Every projection of the last two blocks.
    plain = Training(config(), workspace, tmp_path / "plain")._current().module
    last_two = {name for block in probe("test_efficientnet").block_names[-2:] for name in block}
    assert set(adapted) == {
        path
        for path, module in plain.named_modules()
        if isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and f"{path}.weight".removeprefix("backbone.model.") in last_two
    }

    plain.requires_grad_(False)
    frozen = dict(plain.named_parameters())
    a = {path: each.requires_grad_() for path, each in adapted.items()}
    b = {p: torch.zeros(len(frozen[f"{p}.weight"]), rank, requires_grad=True) for p in a}
    m = {p: frozen[f"{p}.weight"].flatten(1).norm(dim=1).clone().requires_grad_() for p in a}
    own = {
        f"head.classifier.{n}": p.clone().requires_grad_()
        for n, p in plain.head.classifier.named_parameters()
    }

    def merged(path):
        weight = frozen[f"{path}.weight"]
        rows = weight.flatten(1) + scale * b[path] @ a[path]
        if part == "dora":  # the length is a constant for the gradient, section 4.3
            rows = m[path][:, None] * rows / rows.detach().norm(dim=1, keepdim=True)
        return rows.view_as(weight)

    steps = stage.batches
    plain.train()
    for module in plain.modules():  # nothing of them is trained
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    for count, batch in enumerate(stage._batches.train_batches(0, mix(training.seed, 0))):
        tensors = {f"{path}.weight": merged(path) for path in a} | own
        output = functional_call(plain, tensors, (batch.inputs,))
        trained = [*own.values(), *a.values(), *b.values(), *(m.values() if part == "dora" else ())]
        gradients = torch.autograd.grad(F.cross_entropy(output.logits, batch.labels), trained)
        with torch.no_grad():
            for place, (p, gradient) in enumerate(zip(trained, gradients, strict=True)):
                p -= (0.1 if place < len(own) else 0.05) * cosine(count / steps) * gradient
    expected = plain.state_dict() | own | {f"{path}.weight": merged(path) for path in a}
    found = run(Training(settings, workspace, tmp_path / "ours")).trained_network().state_dict()
    assert_close(found, {name: value.detach() for name, value in expected.items()})
    assert any(not torch.equal(found[f"{p}.weight"], frozen[f"{p}.weight"]) for p in a)


def test_nothing_that_could_be_trained_is_refused(workspace, tmp_path):
    training = Training(config(backbone="test_nfnet", train="norms"), workspace, tmp_path)
    message = r"train: found norms, but test_nfnet has no norm with weights in its trained blocks"
    with pytest.raises(UserError, match=message):
        training.run_epoch()


@pytest.mark.parametrize(
    "views",
    [pytest.param(0, id="images", marks=pytest.mark.slow), pytest.param(2, id="activations")],
)
@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_resuming_equals_never_having_stopped(workspace, tmp_path, choice, views):
    check_resumes(config(views, **choice), workspace, tmp_path, stop_after=1)


@pytest.fixture(scope="module")
def plain(workspace, tmp_path_factory):
    """A training without a choice, once for all that leave the same."""
    known: dict[tuple, Training] = {}

    def get(choice):
        rest = {key: choice[key] for key in ("blocks", "backbone") if key in choice}
        key = tuple(rest.items())
        if key not in known:
            folder = tmp_path_factory.mktemp("off")
            known[key] = run(Training(config(**rest), workspace, folder))
        return known[key]

    return get


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_it_changes_what_is_trained_and_the_fingerprint(workspace, tmp_path, plain, choice):
    one, other = run(Training(config(**choice), workspace, tmp_path)), plain(choice)
    assert one._fingerprint != other._fingerprint
    if choice.get("train") not in ("lora", "dora"):
        assert weights(one).keys() == weights(other).keys()
    name = "head.classifier.weight"
    assert not torch.equal(weights(one)[name], weights(other)[name])


@pytest.mark.parametrize(
    "choice", without("min_learning_rate", "muon", "biases", "dora"), ids=CHOICES
)
def test_the_cache_trains_as_the_whole_network_does(workspace, tmp_path, monkeypatch, choice):
    settings = config(views=2, learning_rate=1e-3, **{**choice, "blocks": 2})
    check_cached_as_whole(settings, workspace, tmp_path, monkeypatch)


def test_depth_is_drawn_apart_from_dropout(workspace, tmp_path):
    """Whether blocks drop changes no other random number of an epoch."""
    training = Training(config(**CHOICES["drop_path"], epochs=1), workspace, tmp_path)
    stage = training._current()
    assert any(isinstance(module, DropPath) for module in stage.module.modules())
    torch.manual_seed(3)
    before = torch.get_rng_state()
    stage.train_epoch(0, 5)
    assert torch.equal(before, torch.get_rng_state())


def test_what_is_validated_and_exported_drops_nothing(workspace, tmp_path):
    training = run(Training(config(backbone="test_resnet", drop_path=0.9), workspace, tmp_path))
    predicted = training.predict("validation").logits
    assert (predicted == training.predict("validation").logits).all()
    network = training.trained_network()
    images = torch.randn(3, 3, 32, 32)
    assert torch.equal(network.infer(images), network.infer(images))
    plain = config(backbone="test_resnet")
    plain = Training(plain, workspace, tmp_path / "plain").trained_network()
    plain.load_state_dict(network.state_dict())
    assert torch.equal(network.infer(images), plain.infer(images))


@pytest.mark.slow
@pytest.mark.parametrize("choice", [each for each in CHOICES if each != "schedule_free"])
def test_the_weight_average_resumes_and_is_exported(workspace, tmp_path, choice):
    choice = CHOICES[choice]
    settings = config(**choice).model_dump(mode="json")
    settings["training"]["ema"] = 0.5
    settings = type(config()).model_validate(settings)
    training = check_resumes(settings, workspace, tmp_path, stop_after=1)
    plain = config(backbone=choice.get("backbone", "test_efficientnet"))
    check_exported(training, Training(plain, workspace, tmp_path / "plain"))


def test_a_backbone_without_drop_path_is_refused(workspace, tmp_path):
    training = Training(config(backbone="densenet121", drop_path=0.1), workspace, tmp_path)
    with pytest.raises(
        UserError, match=r"drop_path: found 0\.1, but densenet121 takes no drop_path_rate"
    ):
        training.run_epoch()


def test_keys_at_their_defaults_make_the_training_of_before(workspace, tmp_path):
    one = run(Training(config(), workspace, tmp_path / "one"))
    explicit = config(layer_decay=1.0, drop_path=0.0, min_learning_rate=0.0)
    other = run(Training(explicit, workspace, tmp_path / "other"))
    assert one._fingerprint == other._fingerprint
    assert_equal_states(state_of(one), state_of(other))
