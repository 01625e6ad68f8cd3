"""Attributes on the map and their contrast against plain loops, in float64."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from gsfl_tune.losses import Sizes
from gsfl_tune.losses.attribute_contrast import attribute_contrast
from gsfl_tune.methods import Passes
from gsfl_tune.methods.attribute_attention import AttributeAttention
from gsfl_tune.models import HeadOutput

from .images import CHANNELS, CLASSES, Model, batch

COUNT, KINDS, WIDTH = 5, 4, 8
NAN = math.nan
KNOWN = torch.tensor(
    [[1, 0, NAN, 1], [1, 1, 0, 0.5], [0, 1, NAN, 0], [NAN] * 4, [1, 0.2, 1, 0.9]],
    dtype=torch.float64,
)
OTHERS = KNOWN[[1, 2, 0, 4, 3]]


def made(weight=0.7, contrast=0.3, temperature=0.2, absent=True, layers=(CHANNELS,), kinds=KINDS):
    torch.manual_seed(3)
    method = AttributeAttention(weight, contrast, temperature, WIDTH, absent)
    method.build(Sizes(CHANNELS, CHANNELS, CLASSES, None, layers, extras={"attributes": kinds}))
    method.double()
    for parameter in method.parameters():
        torch.nn.init.normal_(parameter, 0, 0.5)
    return method


def data(**targets):
    plain = batch(COUNT, 12, 16)
    return replace(plain, targets=replace(plain.targets, extras={"attributes": KNOWN}, **targets))


def plain_attended(attended, maps):
    """Position by position and attribute by attribute: scores and embeddings of one image."""
    places = []
    for place in maps.flatten(1).T:
        centred = place - place.mean()
        places.append(centred / ((centred**2).mean() + 1e-5).sqrt())
    scores, embeddings = [], []
    for kind in range(len(attended.queries)):
        answers = [math.exp(float(attended.queries[kind] @ x) / CHANNELS**0.5) for x in places]
        seen = torch.zeros(WIDTH, dtype=torch.float64)
        for answer, x in zip(answers, places, strict=True):
            value = attended.values.weight @ x + attended.values.bias
            seen += answer / sum(answers) * value
        embeddings.append(attended.gains[kind] * seen)
        scores.append(float(attended.weight[kind] @ embeddings[-1] + attended.bias[kind]))
    return scores, embeddings


def plain_error(scores, known):
    total = 0.0
    for own, row in zip(scores, known.tolist(), strict=True):
        costs = []
        for score, wanted in zip(own, row, strict=True):
            if not math.isnan(wanted):
                p = 1 / (1 + math.exp(-score))
                costs.append(-wanted * math.log(p) - (1 - wanted) * math.log(1 - p))
        total += sum(costs) / len(costs) if costs else 0.0
    return total / len(scores)


def plain_contrast(embeddings, known, temperature, absent):
    """Each embedding against each other one that it is compared with."""

    def value(image, kind):
        found = float(known[image, kind])
        return None if math.isnan(found) or found == 0.5 else found > 0.5

    def likeness(one, other):
        cosine = float(one @ other / (one.norm() * other.norm()))
        return math.exp(cosine / temperature)

    images, kinds = known.shape
    total = 0.0
    for i in range(images):
        own = []
        for k in range(kinds):
            mine = value(i, k)
            if mine is None or not (mine or absent):
                continue
            rest = [j for j in range(images) if j != i and value(j, k) is not None]
            alike = [j for j in rest if value(j, k) == mine]
            if not alike:
                continue
            whole = sum(likeness(embeddings[i][k], embeddings[j][k]) for j in rest)
            whole += sum(
                likeness(embeddings[i][k], embeddings[i][m]) for m in range(kinds) if m != k
            )
            costs = [-math.log(likeness(embeddings[i][k], embeddings[j][k]) / whole) for j in alike]
            own.append(sum(costs) / len(costs))
        total += sum(own) / len(own) if own else 0.0
    return total / images


@torch.no_grad()
@pytest.mark.parametrize("absent", [True, False])
@pytest.mark.parametrize("kept", [1.0, 0.75])
def test_it_is_the_loss_of_the_image_of_attributes_and_of_their_contrast(absent, kept):
    model, method = Model(), made(absent=absent)
    given = data()
    if kept < 1:
        mixed = {"attributes": OTHERS}
        given = data(others=given.labels.flip(0), kept=kept, extras_of_others=mixed)
    terms = method.step(given, model.passes())
    assert len(model.shown) == 1
    rows = [plain_attended(method.attended, maps) for maps in model.conv(given.inputs).relu()]
    scores, embeddings = [own for own, _ in rows], [each for _, each in rows]
    error = kept * plain_error(scores, KNOWN) + (1 - kept) * plain_error(scores, OTHERS)
    contrast, theirs = (plain_contrast(embeddings, each, 0.2, absent) for each in (KNOWN, OTHERS))
    contrast = kept * contrast + (1 - kept) * theirs
    assert contrast > 0
    assert float(terms.terms["attribute_error"]) == pytest.approx(error, rel=1e-9)
    assert float(terms.terms["attribute_contrast"]) == pytest.approx(contrast, rel=1e-9)
    whole = functional.cross_entropy(model.layer(model.features(given.inputs)), given.labels)
    wanted = float(whole) + 0.5 + 0.7 * error + 0.3 * contrast
    assert float(terms.total) == pytest.approx(wanted, rel=1e-9)
    assert [note for note, _ in model.noted] == [True]


def test_gradients_are_numerical_ones():
    method = made()
    maps = torch.randn(4, CHANNELS, 2, 3, dtype=torch.float64, requires_grad=True)

    def value(maps):
        passes = Passes(
            features=lambda inputs: inputs.mean((2, 3)),
            head=lambda features: HeadOutput(features, features, None, None),
            infer=lambda features: features,
            loss=Model().loss,
            maps=lambda inputs: inputs,
            pool=lambda inputs: inputs.mean((2, 3)),
        )
        plain = batch(4, 2, 3)
        known = replace(plain.targets, extras={"attributes": KNOWN[:4]})
        return method.step(replace(plain, views=(maps,), targets=known), passes).total

    assert torch.autograd.gradcheck(value, (maps,))


@pytest.mark.parametrize("rows", [KNOWN[:1], KNOWN[3:4].expand(3, 4), KNOWN[:3, :1]])
def test_where_nothing_is_alike_there_is_nothing_to_learn_and_no_nan(rows):
    embeddings = torch.randn(*rows.shape, WIDTH, dtype=torch.float64, requires_grad=True)
    found = attribute_contrast(embeddings, rows, 0.1, absent=True)
    found.backward()
    assert bool(embeddings.grad.isfinite().all())
    if rows.shape[1] > 1:
        assert float(found.detach()) == 0
        assert not embeddings.grad.any()


def test_embeddings_of_a_value_come_together():
    torch.manual_seed(0)
    embeddings = torch.randn(6, 2, WIDTH, dtype=torch.float64, requires_grad=True)
    known = torch.tensor([[1, 0], [1, 1], [0, 0], [0, 1], [1, 0], [0, 1]], dtype=torch.float64)

    def likeness():
        unit = functional.normalize(embeddings.detach()[:, 0], dim=1)
        cosines, same = unit @ unit.T, known[:, None, 0] == known[None, :, 0]
        return float(cosines[same].mean()), float(cosines[~same].mean())

    before = likeness()
    optimizer = torch.optim.SGD([embeddings], lr=5.0)
    for _ in range(50):
        optimizer.zero_grad()
        attribute_contrast(embeddings, known, 0.2, absent=True).backward()
        optimizer.step()
    after = likeness()
    assert after[0] > 0.8 > before[0]
    assert after[1] < before[1] + 0.1


def test_without_contrast_it_is_not_computed(monkeypatch):
    monkeypatch.setattr("gsfl_tune.methods.attribute_attention.attribute_contrast", None)
    terms = made(contrast=0.0).step(data(), Model().passes())
    assert float(terms.terms["attribute_contrast"]) == 0


def test_inputs_without_attributes_teach_nothing():
    model, method = Model(), made()
    terms = method.step(batch(COUNT, 12, 16), model.passes())
    assert float(terms.terms["attribute_error"].detach()) == 0
    terms.total.backward()
    assert not method.attended.queries.grad.any()


def test_without_maps_it_takes_one_pass():
    model = Model()
    passes = Passes(model.features, model.head, model.layer, model.loss)
    assert set(made().step(data(), passes).terms) == {"half"}
    # No finetune stage, so nothing to attend with.
    assert not made(layers=(), kinds=0).state_dict()
    with pytest.raises(ValueError, match="needs images with attributes"):
        made(kinds=0)
