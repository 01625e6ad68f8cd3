"""Parameters that two processes divide: the same steps and the same state as of one."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gsfl_tune.training import sharding
from gsfl_tune.training.process_group import Ranks, meet
from gsfl_tune.training.sharding import Shards, shardable
from tests import warm


class Backbone(nn.Module):
    """Convolutions whose channels two processes cannot share evenly; of the last one has none."""

    def __init__(self) -> None:
        super().__init__()
        inner = nn.Sequential(nn.Conv2d(5, 7, 3), nn.ReLU(), nn.Conv2d(7, 1, 1))
        self.model = nn.Sequential(
            nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(), inner
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).mean((2, 3))


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.head = nn.Linear(1, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))


def _optimizer(name: str, network: nn.Module) -> torch.optim.Optimizer:
    if name == "adamw":
        return torch.optim.AdamW(network.parameters(), lr=0.1, fused=True)
    return torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, fused=True)


def _same(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def _compare(rank: int, ranks: Ranks, name: str) -> None:
    torch.manual_seed(0)
    # In float64: Adam makes much of the last digits of small gradients.
    one = Whole().double().eval()
    two = copy.deepcopy(one)
    alone, shared = _optimizer(name, one), _optimizer(name, two)
    shards = Shards([two], shared, ranks, 16)
    assert shards.count == 8
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    labels = torch.randint(0, 3, (4,))
    own = slice(0, 1) if rank == 0 else slice(1, 4)
    parameters = [each for group in shared.param_groups for each in group["params"]]
    for _ in range(3):
        F.cross_entropy(one(images), labels).backward()
        torch.nn.utils.clip_grad_norm_(one.parameters(), 0.5)
        alone.step()
        alone.zero_grad()
        share = len(labels[own]) / 4
        # In two parts, whose gradients add up.
        for _ in range(2):
            (F.cross_entropy(two(images[own]), labels[own]) * share / 2).backward()
        shards.take_gradients()
        ranks.add_up([each.grad for each in parameters if not shards.is_part(each)])
        shards.clip(parameters, 0.5)
        shared.step()
        shared.zero_grad()
    whole, state = shards.whole(two.state_dict()), shards.optimizer_state(shared)
    _same(dict(one.state_dict()), whole)
    _same(alone.state_dict()["state"], state["state"])
    with torch.no_grad():
        _same(one(images), two(images))
    # Loaded into others, it is the same again.
    other = copy.deepcopy(one)
    for each in other.parameters():
        nn.init.zeros_(each)
    third = _optimizer(name, other)
    again = Shards([other], third, ranks, 16)
    again.load(other, whole)
    again.load_optimizer(third, state)
    _same(whole, again.whole(other.state_dict()))
    _same(state["state"], again.optimizer_state(third)["state"])
    # So it is in an optimiser that is made of the divided network, which has no whole parameters.
    fourth = _optimizer(name, other)
    again.adopt(fourth)
    again.load_optimizer(fourth, state)
    _same(state["state"], again.optimizer_state(fourth)["state"])
    adopted = [each for group in fourth.param_groups for each in group["params"]]
    assert sum(map(again.is_part, adopted)) == again.count
    with pytest.raises(RuntimeError, match="other tensors"):
        again.load(other, {"else": torch.zeros(1)})


def run_rank(rank: int, meeting: str) -> None:
    """Is what each process does.

    Args:
        rank: Its number.
        meeting: A file, or the port of a store.
    """
    torch.set_num_threads(1)
    sharding._LEAST_ELEMENTS = 1
    store: Any = meet("127.0.0.1", 2, int(meeting)) if meeting.isdigit() else Path(meeting)
    address = "127.0.0.1" if meeting.isdigit() else None
    ranks = Ranks(rank, 2, store, torch.device("cpu"), shards=True, address=address)
    for name in ("adamw", "sgd"):
        _compare(rank, ranks, name)
    ranks.close()


CODE = """
import sys
from tests.training.test_sharding import run_rank
run_rank(int(sys.argv[1]), sys.argv[2])
"""


@pytest.mark.parametrize(
    "over", [pytest.param("a file", marks=pytest.mark.slow), "a store of an address"]
)
def test_two_processes_take_the_steps_of_one(tmp_path: Path, over: str) -> None:
    store = meet("127.0.0.1", 2) if over != "a file" else None
    meeting = tmp_path / "meeting" if store is None else store.port
    ranks = [warm.start([rank, meeting], code=CODE) for rank in range(2)]
    for each in ranks:
        _, said = each.communicate(timeout=500)
        assert each.returncode == 0, said


def test_modules_that_a_pass_does_not_call_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "_LEAST_ELEMENTS", 1)

    class Reads(Backbone):
        """Reads the weights of its first convolution in place of calling it."""

        def forward(self, images: Tensor) -> Tensor:
            first: Any
            first, *rest = self.model
            maps = F.conv2d(images, first.weight, first.bias, padding=1)
            return nn.Sequential(*rest)(maps).mean((2, 3))

    backbone: Any = Reads()
    found = shardable(backbone, 16)
    assert backbone.model[0] not in found
    assert backbone.model[1] in found
    names = {name for name, module in backbone.model.named_modules() if module in found}
    assert names == {"1", "3.0", "3.2"}
    backbone.model[3][0].requires_grad_(False)
    assert backbone.model[3][0] not in shardable(backbone, 16)
