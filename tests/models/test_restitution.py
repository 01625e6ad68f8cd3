"""Style normalisation and restitution in front of trained blocks."""

import copy

import numpy as np
import pytest
import torch

from gsfl_tune.losses import Causality, LossInput, Sizes
from gsfl_tune.models import (
    BackboneError,
    boundary_shape,
    create_backbone,
    restitution_channels,
    restitution_problem,
    restitution_size,
)
from gsfl_tune.models.restitution import Restitution


def trained(channels):
    torch.manual_seed(0)
    module = Restitution(channels).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module


def parts_of(module, maps):
    """Means of F~, F~+ and F~-, and F~+ itself, image by image and channel by channel."""
    scale, shift = module.scale.detach().numpy(), module.shift.detach().numpy()
    first, last = module.gate[0], module.gate[2]
    found = []
    for image in maps.numpy():
        normal = np.stack(
            [
                scale[c] * (own - own.mean()) / np.sqrt(own.var() + 1e-5) + shift[c]
                for c, own in enumerate(image)
            ]
        )
        residual = image - normal
        hidden = first.weight.detach().numpy() @ residual.mean((1, 2)) + first.bias.detach().numpy()
        score = last.weight.detach().numpy() @ np.maximum(hidden, 0) + last.bias.detach().numpy()
        gate = (1 / (1 + np.exp(-score)))[:, None, None]
        relevant, other = normal + gate * residual, normal + (1 - gate) * residual
        found.append((relevant, *(each.mean((1, 2)) for each in (normal, relevant, other))))
    return [np.stack(each) for each in zip(*found, strict=True)]


def test_it_is_that_of_the_equations():
    module, maps = trained(20), torch.randn(3, 20, 4, 5, dtype=torch.float64)
    relevant, *means = parts_of(module, maps)
    given = module.train()(maps)
    np.testing.assert_allclose(given.detach().numpy(), relevant, rtol=1e-9)
    for found, expected in zip(module.take(), means, strict=True):
        np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-7, atol=1e-9)
    # Parts are of a pass that is trained, and are taken once.
    assert module.take() is None
    with torch.no_grad():
        module(maps)
    module.eval()(maps)
    assert module.take() is None
    module.train()(maps)
    assert copy.deepcopy(module.eval()).take() is None
    assert sum(each.numel() for each in module.parameters()) == restitution_size(20)


def test_it_starts_close_to_what_it_was_given():
    maps = 3 + 2 * torch.randn(2, 8, 5, 5)
    found = Restitution(8)(maps)
    distance = (found - maps).norm() / maps.norm()
    assert 0 < distance < 0.03
    # A map of one position has no deviation, and no infinite value.
    assert torch.isfinite(Restitution(8)(maps[:, :, :1, :1])).all()


def test_the_loss_compares_entropies():
    torch.manual_seed(0)
    term = Causality()
    term.build(Sizes(4, 4, 3, extras={"restituted": 6}))
    plain, given, other = torch.randn(3, 5, 6)
    labels = torch.tensor([0, 1, 2, 0, 1])
    batch = LossInput(
        features=torch.zeros(5, 4),
        discriminative=torch.zeros(5, 4),
        logits=torch.zeros(5, 3),
        labels=labels,
        classifier=torch.zeros(3, 4),
        cross_entropy=lambda logits: torch.nn.functional.cross_entropy(logits, labels),
        extras={"restituted": (plain, given, other)},
    )
    weight, bias = (each.detach().double().numpy() for each in term.classifier.parameters())

    def probabilities(part):
        scores = np.exp(part.double().numpy() @ weight.T + bias)
        return scores / scores.sum(1, keepdims=True)

    def entropy(part):
        return -(probabilities(part) * np.log(probabilities(part))).sum(1)

    expected = np.log1p(np.exp(entropy(given) - entropy(plain)))
    expected += np.log1p(np.exp(entropy(plain) - entropy(other)))
    expected -= np.log(probabilities(given)[np.arange(5), labels.numpy()])
    assert term(batch).item() == pytest.approx(expected.mean(), rel=1e-5)


@pytest.mark.parametrize("blocks", [1, 2, "all"])
def test_it_is_at_the_cut_and_follows_copies(blocks):
    backbone = create_backbone("test_efficientnet", "none")
    images = torch.randn(2, 3, 64, 64)
    before = backbone(images)
    backbone.restitute(blocks, 64)
    channels = restitution_channels("test_efficientnet", blocks, 64)
    count = 4 if blocks == "all" else blocks
    assert channels == boundary_shape("test_efficientnet", count, 64)[0]
    torch.nn.init.normal_(backbone.restitution.scale)
    after = backbone(images)
    assert (after - before).abs().max() > 1e-4
    twin = copy.deepcopy(backbone)
    torch.nn.init.ones_(backbone.restitution.scale)
    torch.testing.assert_close(twin(images), after)
    if blocks != "all":
        twin.train_last(blocks)
        split = twin.split(64)
        torch.testing.assert_close(split.suffix(split.prefix(images)), after)
        own = [p for block in twin.trained_blocks() for p in block]
        assert {id(p) for p in twin.restitution.parameters()} <= {id(p) for p in own}


def test_where_no_map_enters_it_is_refused():
    assert "not a map of channels" in restitution_problem("test_vit", 1, 64)
    assert "there are two" in restitution_problem("test_efficientnet+test_resnet", 1, 64)
    with pytest.raises(BackboneError, match="not a map of channels"):
        create_backbone("test_vit", "none").restitute(1, 64)
