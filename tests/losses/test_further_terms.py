"""Further terms against the equations of their papers, as loops in float64."""

from __future__ import annotations

import math
import statistics
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from gsfl_tune.losses import (
    Attributes,
    Distill,
    GroupReversal,
    GroupUnlearning,
    Independence,
    LossInput,
    LossTerm,
    MetricLearning,
    PairwiseConfusion,
    Shared,
    SharedVariance,
    Sizes,
    metric_learning_problem,
)
from gsfl_tune.plugins import PluginError

CLASSES, LATENT, COUNT = 5, 4, 7
GROUPS = torch.tensor([0, 1, 0, 1, 2])
LABELS = torch.tensor([0, 2, 1, 4, 3, 2, 0])


def made(seed: int = 0, labels: torch.Tensor = LABELS, progress: float = 0.5) -> LossInput:
    random = np.random.default_rng(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.from_numpy(random.normal(size=shape))

    d, w = draw(len(labels), LATENT), draw(CLASSES, LATENT)
    shared = Shared(
        shared=draw(len(labels), LATENT),
        reconstruction=draw(len(labels), 3),
        groups=GROUPS[labels],
        class_centers=draw(CLASSES, LATENT),
        group_means=draw(3, LATENT),
    )
    return LossInput(
        features=draw(len(labels), 3),
        discriminative=d,
        logits=d @ w.T,
        labels=labels,
        classifier=w,
        cross_entropy=lambda z: torch.nn.functional.cross_entropy(z, labels),
        progress=progress,
        gsfl=shared,
    )


def built(term: LossTerm) -> LossTerm:
    torch.manual_seed(0)
    term.build(Sizes(3, LATENT, CLASSES, GROUPS))
    return term.double()


def softmax(row: list[float]) -> list[float]:
    total = sum(map(math.exp, row))
    return [math.exp(value) / total for value in row]


def test_pairwise_confusion_is_that_of_the_paper():
    batch = made()
    p = [softmax(row) for row in batch.logits.tolist()]
    y = batch.labels.tolist()
    pairs = [(i, j) for i in range(COUNT) for j in range(COUNT) if y[i] != y[j]]
    expected = sum((a - b) ** 2 for i, j in pairs for a, b in zip(p[i], p[j], strict=True))
    assert float(PairwiseConfusion()(batch)) == pytest.approx(expected / len(pairs), rel=1e-12)
    assert float(PairwiseConfusion()(made(labels=torch.ones(4, dtype=torch.int64)))) == 0


def squared(a: np.ndarray, b: np.ndarray) -> float:
    return sum((x - y) ** 2 for x, y in zip(a.tolist(), b.tolist(), strict=True))


def kernel(rows: np.ndarray, measure: str) -> np.ndarray:
    count = len(rows)
    found = np.zeros((count, count))
    apart = sorted(squared(rows[i], rows[j]) for i in range(count) for j in range(i))
    width = statistics.median_low(apart)
    for i in range(count):
        for j in range(count):
            if measure == "hsic_linear":
                found[i, j] = sum(rows[i] * rows[j])
            else:
                found[i, j] = math.exp(-squared(rows[i], rows[j]) / (2 * width))
    return found


@pytest.mark.parametrize("measure", ["hsic_linear", "hsic_gaussian"])
@pytest.mark.parametrize("count", [COUNT, 4])
def test_hsic_is_that_of_the_paper(measure, count):
    batch = made(labels=LABELS[:count])
    k = kernel(batch.shared.numpy(), measure)
    m = kernel(batch.discriminative.numpy(), measure)
    h = np.eye(count) - 1 / count
    expected = np.trace(k @ h @ m @ h) / (count - 1) ** 2
    assert float(Independence(measure)(batch)) == pytest.approx(expected, rel=1e-10)


def test_the_cosine_is_of_both_parts_of_an_image():
    batch = made()
    expected = 0.0
    for s, d in zip(batch.shared.numpy(), batch.discriminative.numpy(), strict=True):
        expected += (s @ d / math.sqrt((s @ s) * (d @ d))) ** 2 / COUNT
    assert float(Independence("cosine")(batch)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("measure", ["hsic_linear", "hsic_gaussian", "cosine"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_dead_parts_and_few_images_give_a_number_and_a_gradient(measure, count):
    batch = made(labels=LABELS[:count])
    dead = torch.zeros_like(batch.shared, requires_grad=True)
    batch.gsfl.__dict__["shared"] = dead
    value = Independence(measure)(batch)
    assert float(value.detach()) == pytest.approx(0, abs=1e-12)
    if value.requires_grad:
        value.backward()
        assert bool(torch.isfinite(dead.grad).all())


def test_gaussian_hsic_sees_no_scale_and_what_the_linear_one_misses():
    torch.manual_seed(0)
    d = torch.linspace(-1, 1, 41, dtype=torch.float64)[:, None].repeat(1, LATENT)
    batch = made(labels=torch.zeros(41, dtype=torch.int64))
    batch.__dict__["discriminative"] = d
    # It depends on d entirely, and is not correlated with it.
    batch.gsfl.__dict__["shared"] = d.square()
    assert float(Independence("hsic_linear")(batch)) == pytest.approx(0, abs=1e-12)
    found = float(Independence("hsic_gaussian")(batch))
    batch.gsfl.__dict__["shared"] = torch.randn(41, LATENT, dtype=torch.float64)
    assert found > 3 * float(Independence("hsic_gaussian")(batch))
    batch.gsfl.__dict__["shared"] = 100 * d.square()
    assert float(Independence("hsic_gaussian")(batch)) == pytest.approx(found, rel=1e-9)


@pytest.mark.parametrize("floor", [0.5, 1.5])
def test_the_variance_is_held_above_its_floor(floor):
    batch = made()
    expected = 0.0
    for column in batch.shared.numpy().T:
        mean = sum(column) / COUNT
        variance = sum((value - mean) ** 2 for value in column) / (COUNT - 1)
        expected += max(0.0, floor - math.sqrt(variance + 1e-4)) / LATENT
    assert float(SharedVariance(floor)(batch)) == pytest.approx(expected, abs=1e-12)
    assert float(SharedVariance(floor)(made(labels=LABELS[:1]))) == 0


def test_the_classifier_of_the_shared_part_knows_the_group():
    batch = made()
    term = built(GroupReversal(6))
    first, _, second = term.classifier
    expected = 0.0
    for s, label in zip(batch.shared.numpy(), batch.labels.tolist(), strict=True):
        hidden = np.maximum(first.weight.detach().numpy() @ s + first.bias.detach().numpy(), 0)
        scores = second.weight.detach().numpy() @ hidden + second.bias.detach().numpy()
        members = [k for k in range(CLASSES) if GROUPS[k] == GROUPS[label]]
        p = softmax([scores[k] for k in members])
        expected -= math.log(p[members.index(label)]) / COUNT
    assert float(term(batch)) == pytest.approx(expected, rel=1e-12)
    # A class that is alone in its group cannot be told from others of it.
    alone = made(labels=torch.full((3,), 4))
    assert float(term(alone)) == 0


def test_a_classifier_of_the_shared_part_needs_groups():
    with pytest.raises(ValueError, match=r"needs groups of the classes"):
        GroupReversal(6).build(Sizes(3, LATENT, CLASSES, None))


def test_the_shared_part_gets_the_reversed_gradient_and_the_classifier_its_own():
    term = built(GroupReversal(6))
    gradients = {}
    for progress in (0.0, 0.5):
        batch = made(progress=progress)
        s = batch.shared.clone().requires_grad_()
        batch.gsfl.__dict__["shared"] = s
        term.zero_grad()
        term(batch).backward()
        gradients[progress] = s.grad, term.classifier[0].weight.grad.clone()
    assert float(gradients[0.0][0].abs().max()) == 0
    torch.testing.assert_close(gradients[0.0][1], gradients[0.5][1])
    # Against finite differences of the term.
    batch, step = made(), 1e-6
    numerical = torch.zeros_like(batch.shared)
    for place in range(batch.shared.numel()):
        values = []
        for sign in (1, -1):
            moved = batch.shared.clone()
            moved.view(-1)[place] += sign * step
            other = made()
            other.gsfl.__dict__["shared"] = moved
            values.append(float(term(other)))
        numerical.view(-1)[place] = (values[0] - values[1]) / (2 * step)
    strength = 2 / (1 + math.exp(-10 * 0.5)) - 1
    torch.testing.assert_close(gradients[0.5][0], -strength * numerical, rtol=1e-6, atol=1e-8)


def test_the_group_that_the_discriminative_part_tells_is_unlearnt():
    """The term against a loop, and its reversed gradient against one written out by hand."""
    term = built(GroupUnlearning(6))
    first, _, second = (each for each in term.classifier)
    w1, b1, w2, b2 = (
        each.detach().numpy() for each in (first.weight, first.bias, second.weight, second.bias)
    )
    assert w2.shape == (3, 6)
    batch = made(progress=0.3)
    d = batch.discriminative.clone().requires_grad_()
    batch.__dict__["discriminative"] = d
    found = term(batch)
    found.backward()
    expected, slope = 0.0, np.zeros((COUNT, LATENT))
    for row, label in enumerate(LABELS.tolist()):
        before = w1 @ d[row].detach().numpy() + b1
        p = np.array(softmax((w2 @ np.maximum(before, 0) + b2).tolist()))
        group = int(GROUPS[label])
        expected -= math.log(p[group]) / COUNT
        slope[row] = w1.T @ ((w2.T @ (p - np.eye(3)[group])) * (before > 0)) / COUNT
    assert float(found) == pytest.approx(expected, rel=1e-12)
    strength = 2 / (1 + math.exp(-3)) - 1
    np.testing.assert_allclose(d.grad.numpy(), -strength * slope, rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match=r"needs groups of the classes"):
        GroupUnlearning(6).build(Sizes(3, LATENT, CLASSES, None))


@pytest.mark.parametrize("standardize", [False, True])
def test_distillation_is_that_of_its_papers(standardize):
    teacher = 3 * made(5).logits
    batch = replace(made(), extras={"teacher": teacher})
    expected = 0.0
    for mine, wanted in zip(batch.logits.tolist(), teacher.tolist(), strict=True):
        rows = []
        for row in (mine, wanted):
            if standardize:
                mean = sum(row) / CLASSES
                deviation = math.sqrt(sum((value - mean) ** 2 for value in row) / CLASSES)
                row = [(value - mean) / deviation for value in row]
            rows.append(softmax([value / 2.5 for value in row]))
        q, p = rows
        expected += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / COUNT
    found = Distill(2.5, standardize=standardize)(batch)
    assert float(found) == pytest.approx(2.5**2 * expected, rel=1e-12)
    agreeing = replace(batch, extras={"teacher": batch.logits})
    assert float(Distill(2.5, standardize=standardize)(agreeing)) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match=r"training\.teacher names its bundle"):
        Distill(1.0, standardize=False)(made())


@pytest.mark.parametrize("standardize", [False, True])
def test_a_student_or_teacher_of_equal_scores_has_a_gradient(standardize):
    batch = made()
    logits = torch.zeros_like(batch.logits, requires_grad=True)
    extras = {"teacher": torch.zeros_like(batch.logits)}
    batch = replace(batch, logits=logits, extras=extras)
    value = Distill(1.0, standardize=standardize)(batch)
    value.backward()
    assert float(value) == pytest.approx(0, abs=1e-12)
    assert bool(torch.isfinite(logits.grad).all())


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / math.sqrt((a @ a) * (b @ b)))


def arcface(d, y, proxies, scale, margin):
    """`proxies`: (C, K, H); the best of a class counts."""
    value = 0.0
    for row, label in zip(d, y, strict=True):
        scores = [max(cosine(row, each) for each in own) for own in proxies]
        angle = math.acos(scores[label])
        assert angle <= math.pi - math.radians(margin)
        scores[label] = math.cos(angle + math.radians(margin))
        value -= math.log(softmax([scale * each for each in scores])[label]) / len(d)
    return value


def proxy_anchor(d, y, proxies, scale, margin):
    present = sorted(set(y))
    pulled = pushed = 0.0
    for k, proxy in enumerate(proxies[:, 0]):
        near = sum(
            math.exp(-scale * (cosine(row, proxy) - margin))
            for row, label in zip(d, y, strict=True)
            if label == k
        )
        far = sum(
            math.exp(scale * (cosine(row, proxy) + margin))
            for row, label in zip(d, y, strict=True)
            if label != k
        )
        pulled += math.log(1 + near) / len(present)
        pushed += math.log(1 + far) / CLASSES
    return pulled + pushed


def soft_triple(d, y, proxies, scale, margin):
    value = 0.0
    for row, label in zip(d, y, strict=True):
        scores = []
        for own in proxies:
            each = [cosine(row, center) for center in own]
            shares = softmax([10 * value for value in each])
            scores.append(sum(a * b for a, b in zip(shares, each, strict=True)))
        scores[label] -= margin
        value -= math.log(softmax([scale * each for each in scores])[label]) / len(d)
    return value


@pytest.mark.parametrize(
    ("kind", "reference", "settings", "usual"),
    [
        ("arcface", arcface, {"scale": 8.0, "margin": 20.0}, (64, 28.6, 1)),
        ("subcenter_arcface", arcface, {"scale": 8.0, "margin": 20.0, "centers": 2}, (64, 28.6, 3)),
        ("proxy_anchor", proxy_anchor, {"scale": 5.0, "margin": 0.2}, (32, 0.1, 1)),
        ("soft_triple", soft_triple, {"scale": 9.0, "margin": 0.05, "centers": 4}, (20, 0.01, 10)),
    ],
)
@pytest.mark.parametrize("given", [True, False])
def test_metric_losses_are_those_of_their_papers(kind, reference, settings, usual, given):
    scale, margin, centers = (
        (settings["scale"], settings["margin"], settings.get("centers", 1)) if given else usual
    )
    term = built(MetricLearning(kind, **(settings if given else {})))
    [parameter] = term.parameters()
    stored = parameter.detach().numpy()
    # The library keeps proxies in columns, those of a class side by side.
    rows = stored if kind == "proxy_anchor" else stored.T
    proxies = rows.reshape(CLASSES, centers, LATENT)
    batch = made(1)
    expected = reference(
        batch.discriminative.numpy(), batch.labels.tolist(), proxies, scale, margin
    )
    assert float(term(batch)) == pytest.approx(expected, rel=1e-6)


def test_attributes_are_the_mean_over_those_that_are_known():
    batch = made()
    term = Attributes()
    torch.manual_seed(0)
    term.build(Sizes(3, LATENT, CLASSES, GROUPS, extras={"attributes": 4}))
    term.double()
    nan = math.nan
    rows = [
        [1, 0, nan, 0.3], [nan] * 4, [0, 0, 0, 1], [nan, 1, nan, nan], [1, 1, 1, 1],
        [0, nan, 1, nan], [0.5, 0, 0, nan],
    ]  # fmt: skip
    weight, bias = term.layer.weight.tolist(), term.layer.bias.tolist()
    expected = 0.0
    for d, row in zip(batch.discriminative.tolist(), rows, strict=True):
        own = []
        for a, wanted in enumerate(row):
            if not math.isnan(wanted):
                z = sum(w * v for w, v in zip(weight[a], d, strict=True)) + bias[a]
                p = 1 / (1 + math.exp(-z))
                own.append(-wanted * math.log(p) - (1 - wanted) * math.log(1 - p))
        expected += sum(own) / len(own) if own else 0.0
    found = term(replace(batch, extras={"attributes": torch.tensor(rows)}))
    assert float(found.detach()) == pytest.approx(expected / COUNT, rel=1e-6)
    found.backward()
    assert bool(term.layer.weight.grad.isfinite().all())
    # The random inputs that test the memory have none.
    assert float(term(batch).detach()) == 0
    with pytest.raises(ValueError, match="needs images with attributes"):
        Attributes().build(Sizes(3, LATENT, CLASSES, GROUPS))


def test_metric_losses_say_what_to_install_where_their_library_is_missing(monkeypatch):
    # As Python sees a package that is not there.
    monkeypatch.setitem(sys.modules, "pytorch_metric_learning", None)
    assert metric_learning_problem(0.0) is None
    with pytest.raises(PluginError, match=r"pip install 'gsfl-tune\[metric-learning\]'"):
        built(MetricLearning("arcface"))
