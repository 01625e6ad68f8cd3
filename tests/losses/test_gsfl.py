import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional as F

from gsfl_tune.losses import (
    ClassCenter,
    ClassCenters,
    Loss,
    LossInput,
    LossTerm,
    Sizes,
    Start,
    Weighted,
    gsfl_terms,
)
from gsfl_tune.models import GsflHead, HeadOutput, PlainHead
from gsfl_tune.plugins import PluginError

CLASSES, LATENT, DIM, SCALE = 5, 3, 4, 2.5
GROUPS = torch.tensor([0, 1, 0, 2, 1])
WEIGHTS = {"reconstruction": 0.7, "class_center": 0.3, "shared_center": 0.2}
SIZES = Sizes(DIM, LATENT, CLASSES, GROUPS)
CLASSIFIER = torch.zeros(CLASSES, LATENT)


def gsfl_loss(centers, weights=WEIGHTS, *, target="keep", init="zeros", further=None, **options):
    """The loss of a GSFL head whose class centres are where some others are."""
    terms = gsfl_terms(**weights, center_rate=0.3, center_init=init, target=target)
    loss = Loss(SIZES, terms | (further or {}), **{"feature_scale": SCALE, **options})
    loss.to(centers.centers.dtype)
    loss.find(ClassCenter).centers.load_state_dict(centers.state_dict())
    return loss


def plain_loss(**options):
    return Loss(Sizes(DIM, LATENT, CLASSES), {}, feature_scale=SCALE, **options)


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
    loss = gsfl_loss(centers, label_smoothing=smoothing, class_weights=weights)
    plain = gsfl_loss(centers, label_smoothing=smoothing)
    whole = loss(output, f, y, CLASSIFIER)
    alone = []
    for i in range(len(y)):
        row = slice(i, i + 1)
        one = HeadOutput(*(each[row] for each in output))
        alone.append(float(plain(one, f[row], y[row], CLASSIFIER).cross_entropy))
    expected = sum(float(weights[k]) * v for k, v in zip(y.tolist(), alone, strict=True)) / len(y)
    assert float(whole.cross_entropy) == pytest.approx(expected, abs=1e-12)
    # The other terms are as they were.
    assert whole.terms == plain(output, f, y, CLASSIFIER).terms


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_equals_a_loop_over_samples(smoothing):
    output, f, y, centers = make_batch()
    loss = gsfl_loss(centers, label_smoothing=smoothing)
    terms = loss(output, f, y, CLASSIFIER)
    expected = reference_loss(output, f, y, centers.centers, smoothing)
    found = [float(t) for t in (terms.cross_entropy, *terms.terms.values())]
    assert found == pytest.approx(expected, abs=1e-12)
    assert list(terms.terms) == list(WEIGHTS)
    total = sum(w * v for w, v in zip((1.0, *WEIGHTS.values()), expected, strict=True))
    assert float(terms.total) == pytest.approx(total, abs=1e-12)


def test_gradients():
    output, f, y, centers = make_batch(3)
    loss = gsfl_loss(centers, label_smoothing=0.1)
    inputs = tuple(t.clone().requires_grad_() for t in (*output, f))
    assert gradcheck(lambda *t: loss(HeadOutput(*t[:4]), t[4], y, CLASSIFIER).total, inputs)


def test_gradients_through_the_head():
    _, f, y, centers = make_batch(3)
    torch.manual_seed(0)
    head = GsflHead(
        DIM, CLASSES, latent_dim=LATENT, dropout=0.0, feature_scale=SCALE, decoder="sigmoid"
    ).double()
    loss = gsfl_loss(centers)
    assert gradcheck(lambda x: loss(head(x), x, y, CLASSIFIER).total, (f.requires_grad_(),))


def test_reconstruction_target_keeps_or_loses_its_gradient():
    output, f, y, centers = make_batch()
    gradients = {}
    alone = {"reconstruction": 1.0, "class_center": 0.0, "shared_center": 0.0}
    for target in ("keep", "detach"):
        x = f.clone().requires_grad_()
        r = output.reconstruction.clone().requires_grad_()
        loss = gsfl_loss(centers, alone, target=target)
        loss(output._replace(reconstruction=r), x, y, CLASSIFIER).total.backward()
        gradients[target] = (x.grad, r.grad)
    assert gradients["detach"][0] is None
    expected = 2 * (f - output.reconstruction / SCALE) / len(y)
    assert torch.allclose(gradients["keep"][0], expected)
    assert torch.equal(gradients["keep"][1], gradients["detach"][1])


def test_centres_move_after_the_step_and_by_what_training_saw():
    output, f, y, centers = make_batch()
    loss = gsfl_loss(centers)
    loss.eval()(output, f, y, CLASSIFIER)
    loss.after_step()
    assert torch.equal(loss.find(ClassCenter).centers.centers, centers.centers)
    loss.train()
    loss(output, f, y, CLASSIFIER)
    assert torch.equal(loss.find(ClassCenter).centers.centers, centers.centers)
    loss.after_step()
    centers.accumulate(output.discriminative, y)
    centers.step(0.3)
    assert torch.equal(loss.find(ClassCenter).centers.centers, centers.centers)
    assert torch.equal(
        loss.state_dict()["states.term_class_center.centers.centers"], centers.centers
    )


def test_centres_may_start_at_the_means_of_their_classes():
    output, _, y, centers = make_batch()
    means = gsfl_loss(centers, init="class_mean")
    means.start(Start(lambda: (output.discriminative, y)))
    for label in y.unique().tolist():
        own = output.discriminative[y == label].mean(0)
        assert torch.allclose(means.find(ClassCenter).centers.centers[label], own)
    zeros = gsfl_loss(centers)
    zeros.start(Start(lambda: pytest.fail("nobody asked for the parts")))
    assert torch.equal(zeros.find(ClassCenter).centers.centers, centers.centers)


def test_plain_head_has_cross_entropy_only():
    _, f, y, _ = make_batch()
    head = PlainHead(DIM, CLASSES, latent_dim=LATENT, dropout=0.0, feature_scale=SCALE).double()
    terms = plain_loss()(head(f), f, y, CLASSIFIER)
    assert torch.equal(terms.total, F.cross_entropy(head(f).logits, y))
    assert set(terms.detached()) == {"loss", "cross_entropy"}


def test_gsfl_terms_without_groups_are_an_error():
    with pytest.raises(ValueError, match="need groups of the classes"):
        Loss(Sizes(DIM, LATENT, CLASSES), gsfl_terms(**WEIGHTS, center_rate=0.3))


def test_terms_are_float32_under_autocast():
    torch.manual_seed(0)
    head = GsflHead(DIM, CLASSES, latent_dim=LATENT, dropout=0.0, feature_scale=SCALE)
    f = F.normalize(torch.randn(6, DIM), dim=1)
    y = torch.arange(6) % CLASSES
    loss = gsfl_loss(ClassCenters(GROUPS, LATENT))
    with torch.autocast("cpu", torch.bfloat16):
        output = head(f)
        terms = loss(output, f, y, CLASSIFIER)
    assert output.shared.dtype == torch.bfloat16
    found = list(terms.detached().values())
    assert len(found) == 5
    assert all(t.dtype == torch.float32 for t in found)
    full = HeadOutput(*(t.float() for t in output))
    again = loss(full, f, y, CLASSIFIER).detached().values()
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


def test_a_term_without_weight_cannot_spoil_the_total():
    output, f, y, centers = make_batch()
    broken = output._replace(reconstruction=output.reconstruction * math.inf)
    weights = {"reconstruction": 0.0, "class_center": 0.1, "shared_center": 0.1}
    terms = gsfl_loss(centers, weights)(broken, f, y, CLASSIFIER)
    assert math.isfinite(terms.total)
    assert not math.isfinite(terms.terms["reconstruction"])


class Gap(LossTerm):
    """Half the distance of both parts from each other."""

    def forward(self, batch: LossInput) -> torch.Tensor:
        return (batch.shared - batch.discriminative).square().sum(dim=1).mean() / 2


def test_a_further_term_is_weighted_and_learned_from():
    output, f, y, centers = make_batch()
    plain = gsfl_loss(centers)(output, f, y, CLASSIFIER)
    terms = gsfl_loss(centers, further={"gap": Weighted(0.5, Gap())})(output, f, y, CLASSIFIER)
    gap = sum(
        float((s - d).square().sum()) / 2
        for s, d in zip(output.shared, output.discriminative, strict=True)
    ) / len(y)
    assert float(terms.total - plain.total) == pytest.approx(0.5 * gap, rel=1e-4)
    assert float(terms.detached()["gap"]) == pytest.approx(gap, rel=1e-5)


def test_a_term_may_be_called_as_a_method_of_modules_is():
    output, f, y, centers = make_batch()
    loss = gsfl_loss(centers, further={"parameters": Weighted(0.5, Gap())})
    assert "parameters" in loss(output, f, y, CLASSIFIER).terms
    assert list(loss.parameters()) == []


def test_a_further_term_must_be_a_number():
    class Rows(LossTerm):
        def forward(self, batch: LossInput) -> torch.Tensor:
            return batch.logits.sum(dim=1)

    output, f, y, centers = make_batch()
    loss = gsfl_loss(centers, further={"rows": Weighted(1.0, Rows())})
    with pytest.raises(PluginError, match=r"loss term rows gave \(\d+,\), allowed is a scalar"):
        loss(output, f, y, CLASSIFIER)


def test_a_term_of_the_shared_part_says_that_a_plain_head_has_none():
    _, f, y, _ = make_batch()
    head = PlainHead(DIM, CLASSES, latent_dim=LATENT, dropout=0.0, feature_scale=SCALE).double()
    loss = Loss(Sizes(DIM, LATENT, CLASSES), {"gap": Weighted(1.0, Gap())})
    with pytest.raises(ValueError, match="a plain head has no shared part"):
        loss(head(f), f, y, CLASSIFIER)


def test_soft_targets_and_weights_enter_the_cross_entropy():
    torch.manual_seed(0)
    sizes = Sizes(6, 4, 3)
    logits = torch.randn(5, 3, dtype=torch.float64)
    output = HeadOutput(logits, torch.randn(5, 4).double(), None, None)
    f, y, w = torch.randn(5, 6).double(), torch.tensor([0, 2, 1, 1, 0]), torch.randn(3, 4).double()
    soft = torch.rand(5, 3).double()
    soft /= soft.sum(1, keepdim=True)
    weights = torch.tensor([0.0, 2.0, 1.0, 0.5, 1.5]).double()
    classes = torch.tensor([1.5, 0.5, 1.0]).double()
    loss = Loss(sizes, {}, label_smoothing=0.1, class_weights=classes).double()
    found = loss(output, f, y, w, soft=soft, weights=weights).total
    expected = 0.0
    for row in range(5):
        target = 0.9 * soft[row] + 0.1 / 3
        entropy = -(target * logits[row].log_softmax(0)).sum()
        expected += float(entropy * weights[row] * classes[y[row]]) / 5
    assert float(found) == pytest.approx(expected, rel=1e-12)
    whole = Loss(sizes, {}, label_smoothing=0.1).double()
    hard = whole(output, f, y, w, soft=torch.eye(3).double()[y]).total
    assert float(hard) == pytest.approx(float(whole(output, f, y, w).total), rel=1e-12)
