"""Small views of multi-crop, against loops over all pairs of views."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from gsfl_tune.training.pretrain.bases import BASES
from tests.training.pretrain.conftest import SIZE, network_of, seeded
from tests.training.pretrain.test_bases import cosine, make, vectors

LOCAL = vectors(3, seed=8)


@pytest.mark.parametrize("method", ["simsiam", "byol"])
def test_each_view_is_compared_with_every_large_one_but_itself(method):
    base, views, taught = make(method), vectors(), vectors(seed=2)
    p = [base.predict(base.project(view)) for view in (*views, *LOCAL)]
    if method == "byol":
        z = [base.teach(view) for view in taught]
    else:
        z = [base.project(view) for view in views]
    each = [-cosine(p[i], z[j]) for i in range(5) for j in range(2) if i != j]
    assert len(each) == 8
    found = float(base(views, taught, LOCAL).detach())
    assert found == pytest.approx(float(np.mean(each)), abs=1e-6)


def test_queries_of_moco_share_a_key_which_joins_the_queue_once():
    base, views, taught = make("moco", temperature=0.3), vectors(1), vectors(1, seed=2)
    queue = base.queue.keys.clone().double().numpy()
    k = functional.normalize(base.teach(taught[0]), dim=1).detach().double().numpy()
    losses = []
    for view in (views[0], *LOCAL):
        q = functional.normalize(base.project(view), dim=1).detach().double().numpy()
        for query, key in zip(q, k, strict=True):
            scores = np.array([query @ key, *(query @ other for other in queue)]) / 0.3
            losses.append(math.log(np.exp(scores).sum()) - scores[0])
    found = float(base(views, taught, LOCAL).detach())
    assert found == pytest.approx(float(np.mean(losses)), rel=1e-5)
    bank = base.queue
    assert int(bank.place) == len(k)
    assert np.allclose(bank.keys[: len(k)], k, atol=1e-6)
    assert np.allclose(bank.keys[len(k) :], queue[len(k) :])


def test_small_views_learn_the_teacher_of_dino_and_do_not_move_the_centre():
    base, views, taught = make("dino", temperature=0.2), vectors(), vectors(seed=2)
    center = base.compare.center[0].double()
    teachers = [base.teach(view).double() for view in taught]
    targets = [((t - center) / 0.04).softmax(1) for t in teachers]
    logs = [(base.project(view).double() / 0.2).log_softmax(1) for view in (*views, *LOCAL)]
    losses = [-(targets[t] * logs[s]).sum(1).mean() for t in range(2) for s in range(5) if s != t]
    found = base(views, taught, LOCAL)
    assert float(found.detach()) == pytest.approx(float(sum(losses).detach()) / 8, rel=1e-5)
    moved = 0.9 * center + 0.1 * torch.cat(teachers).mean(0)
    assert torch.allclose(base.compare.center[0].double(), moved, atol=1e-6)


def test_small_views_of_lejepa_come_near_the_mean_of_the_large_ones():
    base, views = make("lejepa", sketch_weight=0.0), vectors()
    z = torch.stack([base.project(view) for view in (*views, *LOCAL)]).detach().double()
    expected = ((z - z[:2].mean(0)) ** 2).mean()
    found = float(base(views, (), LOCAL).detach())
    assert found == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("method", [name for name, kind in BASES.items() if kind.takes_local])
def test_gradients_of_small_views_reach_the_backbone(views, method):
    network = network_of(method=method)
    small = [view[:, :, : SIZE // 2, : SIZE // 2].contiguous() for view in views]
    found = []
    for local in ((), small):
        network.zero_grad()
        torch.manual_seed(0)
        loss, parts, shown = network.terms(views, seeded(), paired=False, local=local)
        loss.backward()
        assert math.isfinite(float(loss.detach()))
        assert shown.shape[0] == len(views[0])
        assert set(parts) == {"base"}
        found.append(next(network.backbone.parameters()).grad.clone())
    assert not torch.equal(*found)
