import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional as F

from gsfl_tune.losses import Batch, ClassCenters, GsflLoss, LossTerm, WeightedTerm
from gsfl_tune.models import GsflHead, HeadOutput, PlainHead
from gsfl_tune.plugins import PluginError

CLASSES, LATENT, DIM, SCALE = 5, 3, 4, 2.5
GROUPS = torch.tensor([0, 1, 0, 2, 1])
WEIGHTS = {"reconstruction": 0.7, "class_center": 0.3, "shared_center": 0.2}


def make_batch(size=7):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    output = HeadOutput(
        draw(size, CLASSES), draw(size, LATENT), draw(size, LATENT), draw(size, DIM)
    )
    f = F.normalize(draw(size, DIM), dim=1)
    y = torch.randint(CLASSES, (size,), generator=generator)
    centers = ClassCenters(GROUPS, LATENT).double()
    centers.centers.copy_(draw(CLASSES, LATENT))
    return output, f, y, centers


def reference_loss(output, f, y, centers, smoothing):
    """One sample, one dimension at a time; every sample with its own group's centre."""
    centers, groups = centers.tolist(), GROUPS.tolist()
    sums = [0.0, 0.0, 0.0, 0.0]
    for i, k in enumerate(y.tolist()):
        logits = output.logits[i].tolist()
        log_total = math.log(sum(math.exp(v) for v in logits))
        for j, v in enumerate(logits):
            share = smoothing / CLASSES + (1 - smoothing if j == k else 0)
            sums[0] -= share * (v - log_total)
        for j in range(DIM):
            sums[1] += (float(output.reconstruction[i, j]) / SCALE - float(f[i, j])) ** 2
        members = [c for c in range(CLASSES) if groups[c] == groups[k]]
        for j in range(LATENT):
            sums[2] += (float(output.discriminative[i, j]) - centers[k][j]) ** 2
            mean = sum(centers[c][j] for c in members) / len(members)
            sums[3] += (float(output.shared[i, j]) - mean) ** 2
    return [v / len(y) for v in sums]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_weights_weigh_each_image_whatever_its_batch(smoothing):
    output, f, y, centers = make_batch()
    weights = torch.tensor([0.2, 3.0, 1.0, 0.0, 0.7], dtype=torch.float64)
    loss = GsflLoss(**WEIGHTS, label_smoothing=smoothing, class_weights=weights)
    plain = GsflLoss(**WEIGHTS, label_smoothing=smoothing)
    whole = loss(output, f, y, centers)
    alone = []
    for i in range(len(y)):
        row = slice(i, i + 1)
        one = HeadOutput(output.logits[row], output.discriminative[row], None, None)
        alone.append(float(plain(one, f[row], y[row]).cross_entropy))
    expected = sum(float(weights[k]) * v for k, v in zip(y.tolist(), alone, strict=True)) / len(y)
    assert float(whole.cross_entropy) == pytest.approx(expected, abs=1e-12)
    # The other terms are as they were.
    assert whole[2:5] == plain(output, f, y, centers)[2:5]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_equals_a_loop_over_samples(smoothing):
    output, f, y, centers = make_batch()
    loss = GsflLoss(**WEIGHTS, label_smoothing=smoothing, feature_scale=SCALE)
    terms = loss(output, f, y, centers)
    expected = reference_loss(output, f, y, centers.centers, smoothing)
    assert [float(t) for t in terms[1:5]] == pytest.approx(expected, abs=1e-12)
    total = sum(w * v for w, v in zip((1.0, *WEIGHTS.values()), expected, strict=True))
    assert float(terms.total) == pytest.approx(total, abs=1e-12)


def test_gradients():
    output, f, y, centers = make_batch(3)
    loss = GsflLoss(**WEIGHTS, label_smoothing=0.1, feature_scale=SCALE)
    inputs = tuple(t.clone().requires_grad_() for t in (*output, f))
    assert gradcheck(lambda *t: loss(HeadOutput(*t[:4]), t[4], y, centers).total, inputs)


def test_gradients_through_the_head():
    _, f, y, centers = make_batch(3)
    torch.manual_seed(0)
    head = GsflHead(
        DIM, CLASSES, latent_dim=LATENT, dropout=0.0, feature_scale=SCALE, decoder="sigmoid"
    ).double()
    loss = GsflLoss(**WEIGHTS, feature_scale=SCALE)
    assert gradcheck(lambda x: loss(head(x), x, y, centers).total, (f.requires_grad_(),))


def test_reconstruction_target_keeps_or_loses_its_gradient():
    output, f, y, centers = make_batch()
    gradients = {}
    for target in ("keep", "detach"):
        x = f.clone().requires_grad_()
        r = output.reconstruction.clone().requires_grad_()
        loss = GsflLoss(1.0, 0.0, 0.0, feature_scale=SCALE, reconstruction_target=target)
        loss(output._replace(reconstruction=r), x, y, centers).total.backward()
        gradients[target] = (x.grad, r.grad)
    assert gradients["detach"][0] is None
    expected = 2 * (f - output.reconstruction / SCALE) / len(y)
    assert torch.allclose(gradients["keep"][0], expected)
    assert torch.equal(gradients["keep"][1], gradients["detach"][1])


def test_loss_changes_no_state():
    output, f, y, centers = make_batch()
    before = {k: v.clone() for k, v in centers.named_buffers()}
    GsflLoss(**WEIGHTS, feature_scale=SCALE)(output, f, y, centers)
    assert all(torch.equal(before[k], v) for k, v in centers.named_buffers())


def test_plain_head_has_cross_entropy_only():
    _, f, y, centers = make_batch()
    head = PlainHead(DIM, CLASSES, latent_dim=LATENT, dropout=0.0, feature_scale=SCALE).double()
    loss = GsflLoss(**WEIGHTS, feature_scale=SCALE)
    terms = loss(head(f), f, y)
    assert torch.equal(terms.total, F.cross_entropy(head(f).logits, y))
    assert terms[2:5] == (None, None, None)
    assert set(terms.detached()) == {"loss", "cross_entropy"}
    assert torch.equal(loss(head(f), f, y, centers).total, terms.total)


def test_gsfl_head_without_centres_is_an_error():
    output, f, y, _ = make_batch()
    with pytest.raises(ValueError, match="class centres"):
        GsflLoss(**WEIGHTS)(output, f, y)


def test_terms_are_float32_under_autocast():
    torch.manual_seed(0)
    head = GsflHead(DIM, CLASSES, latent_dim=LATENT, dropout=0.0, feature_scale=SCALE)
    f = F.normalize(torch.randn(6, DIM), dim=1)
    y = torch.arange(6) % CLASSES
    centers = ClassCenters(GROUPS, LATENT)
    loss = GsflLoss(**WEIGHTS, feature_scale=SCALE)
    with torch.autocast("cpu", torch.bfloat16):
        output = head(f)
        terms = loss(output, f, y, centers)
    assert output.shared.dtype == torch.bfloat16
    assert all(t.dtype == torch.float32 for t in terms[:5])
    full = HeadOutput(*(t.float() for t in output))
    for ours, expected in zip(terms[:5], loss(full, f, y, centers)[:5], strict=True):
        assert torch.equal(ours, expected)


def test_a_term_without_weight_cannot_spoil_the_total():
    output, f, y, centers = make_batch()
    broken = output._replace(reconstruction=output.reconstruction * math.inf)
    terms = GsflLoss(0.0, 0.1, 0.1, feature_scale=SCALE)(broken, f, y, centers)
    assert math.isfinite(terms.total)
    assert not math.isfinite(terms.reconstruction)


class Gap(LossTerm):
    """Half the distance of both parts from each other."""

    def __call__(self, batch: Batch) -> torch.Tensor:
        return (batch.shared - batch.discriminative).square().sum(dim=1).mean() / 2


def test_a_further_term_is_weighted_and_learned_from():
    output, f, y, centers = make_batch()
    plain = GsflLoss(**WEIGHTS, feature_scale=SCALE)(output, f, y, centers)
    loss = GsflLoss(**WEIGHTS, feature_scale=SCALE, further=(WeightedTerm("gap", 0.5, Gap()),))
    terms = loss(output, f, y, centers)
    gap = sum(
        float((s - d).square().sum()) / 2
        for s, d in zip(output.shared, output.discriminative, strict=True)
    ) / len(y)
    assert float(terms.total - plain.total) == pytest.approx(0.5 * gap, rel=1e-4)
    assert float(terms.detached()["gap"]) == pytest.approx(gap, rel=1e-5)


def test_a_further_term_must_be_a_number():
    class Rows(LossTerm):
        def __call__(self, batch: Batch) -> torch.Tensor:
            return batch.logits.sum(dim=1)

    output, f, y, centers = make_batch()
    loss = GsflLoss(**WEIGHTS, feature_scale=SCALE, further=(WeightedTerm("rows", 1.0, Rows()),))
    with pytest.raises(PluginError, match=r"loss term rows gave \(\d+,\), allowed is a scalar"):
        loss(output, f, y, centers)
