"""Apple's GPUs, as far as it can be told without one: PyTorch has every operator that is used.

PyTorch ships the list of its operators with the devices that each runs on. Everything that a
training does on its device is recorded here on the CPU, and looked up there.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest
import torch
import torchgen
import yaml
from torch.utils._python_dispatch import TorchDispatchMode

import gsfl_tune
from gsfl_tune.data.augment import Augment
from gsfl_tune.data.contrast import images_without_labels
from gsfl_tune.experiment.data_config import AugmentConfig
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.models import fit_projection
from gsfl_tune.training import Training, resolve_device
from gsfl_tune.training.at_once import most_at_once
from gsfl_tune.training.pretrain import Pretraining, starting_backbone

from .conftest import tiny_config

PACKAGE = Path(gsfl_tune.__file__).parent
# They run wherever their parts do.
COMPOSITE = {
    *("CompositeImplicitAutograd", "CompositeExplicitAutograd"),
    "CompositeExplicitAutogradNonFunctional",
}
# Of the profiler, and of oneDNN, which only a CPU uses.
ELSEWHERE = ("profiler::", "mkldnn::")


@cache
def _listed() -> dict[str, dict]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast
    file = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
    return {each["func"].split("(")[0]: each for each in yaml.load(file.read_text(), Loader=loader)}


def _runs_on_mps(operator: str) -> bool:
    entry = _listed().get(operator)
    if entry is None:
        return False
    if "structured_delegate" in entry:
        return _runs_on_mps(entry["structured_delegate"])
    devices = {each.strip() for keys in entry.get("dispatch") or {} for each in keys.split(",")}
    return not devices or bool(devices & {"MPS", *COMPOSITE})


class Recorded(TorchDispatchMode):
    """Keeps the names of all operators, and those that give numbers in 64 bits."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: set[str] = set()
        self.double: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = function(*args, **(kwargs or {}))
        schema = function._schema
        name = f"{schema.name}.{schema.overload_name}".rstrip(".").removeprefix("aten::")
        self.operators.add(name)
        for each in given if isinstance(given, tuple | list) else [given]:
            if isinstance(each, torch.Tensor) and each.dtype == torch.float64:
                self.double.add(name)
        return given

    @property
    def missing(self) -> list[str]:
        return sorted(
            name
            for name in self.operators
            if not name.startswith(ELSEWHERE) and not _runs_on_mps(name)
        )


TERMS = {
    **{name: {"weight": 0.1} for name in ("isda", "metric_learning", "independence")},
    **{name: {"weight": 0.1} for name in ("shared_variance", "group_reversal")},
    **{name: {"weight": 0.1} for name in ("pairwise_confusion", "center")},
}


def _slow(changes):
    return pytest.param(changes, marks=pytest.mark.slow)


FINETUNE = {"epochs": 1, "batch_size": 12, "blocks": 2}


@pytest.mark.parametrize(
    "changes",
    [
        {"data": {"views": 2}},
        {"loss": TERMS, "training": {"ema": 0.9}},
        {"training": {"finetune": {"blocks": "all", "optimizer": "sgd"}}},
        {"training": {"finetune": {"optimizer": "muon", "clip_norm": 1.0}}},
        {"model": {"pooling": "isqrt_cov"}},
        {"model": {"pooling": "compact_bilinear"}},
        {"model": {"head": "fsdg"}},
        _slow({"data": {"image_size": 64}, "training": {"method": "pmg"}}),
        _slow({"data": {"image_size": 64}, "training": {"method": "attention_crop"}}),
    ],
    ids=["views", "terms", "sgd", "muon", "isqrt", "bilinear", "fsdg", "jigsaws", "crops"],
)
def test_every_operator_of_a_training_runs_on_an_apple_gpu(workspace, tmp_path, changes):
    training = {"head": {"epochs": 1}, "finetune": FINETUNE}
    config = tiny_config(**{**changes, "training": _both(training, changes.get("training", {}))})
    made = Training(config, workspace, tmp_path)
    with Recorded() as recorded:
        while not made.finished:
            made.run_epoch()
    assert len(recorded.operators) > 50
    assert recorded.missing == []
    # Apple's GPUs have no float64. Sums of an epoch have it, on the CPU.
    with Recorded() as step:
        made._stage.rehearse()
    assert step.double == set()


def test_every_operator_of_a_pretraining_runs_on_an_apple_gpu(workspace, tmp_path):
    pytest.importorskip("lightly")
    pretrain = {
        **{"epochs": 1, "batch_size": 24, "hidden_dim": 16, "projection_dim": 8, "queue": 40},
        "method": "moco",
        "lcr": {"weight": 0.05, "channels": 4},
        "discriminative": {"pair_weight": 0.7, "decoder_width": 8, "warmup": 0},
    }
    config = tiny_config(
        data={"image_size": 64}, model={"backbone": "test_resnet"}, pretrain=pretrain
    )
    images, cpu = images_without_labels(workspace.dataset), torch.device("cpu")
    backbone = starting_backbone(config)
    made = Pretraining(config, backbone, images, tmp_path, key="key", device=cpu)
    # As where the device is an Apple GPU, which takes no module with float64 in it.
    made.network.float()
    with Recorded() as recorded:
        names, steps = made._steps(0)
    spreads = {"spread", "projected"}
    assert {"base", "reconstruction", "pair", "screening", *spreads} == set(names)
    assert len(steps) == made.steps
    assert len(recorded.operators) > 50
    assert recorded.missing == []
    assert recorded.double == set()


class OfApple(torch.Tensor):
    """Says that it is on an Apple GPU, and refuses float64 there, until it is copied to the CPU."""

    @property
    def device(self):
        return torch.device("mps")

    def cpu(self):
        return self.as_subclass(torch.Tensor)

    def double(self):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")


def test_a_projection_is_fitted_to_maps_on_an_apple_gpu():
    maps = torch.randn(8, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    found = fit_projection([maps.as_subclass(OfApple)], 3)
    expected = fit_projection([maps], 3)
    assert torch.equal(found.weight, expected.weight)
    assert torch.equal(found.mean, expected.mean)


def _both(first: dict, second: dict) -> dict:
    return {
        **first,
        **{
            key: {**first[key], **value} if isinstance(value, dict) and key in first else value
            for key, value in second.items()
        },
    }


@pytest.mark.parametrize("policy", ["none", "trivial", "rand"])
def test_every_operator_of_the_augmentation_runs_on_an_apple_gpu(policy):
    config = AugmentConfig(policy=policy, color=0.3, erasing=0.5)
    augment = Augment(config, 32, (0.5,) * 3, (0.2,) * 3)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (64, 40, 40, 3), dtype=torch.uint8, generator=generator)
    random = augment.draw_rows(64, generator, lambda name: generator)
    with Recorded() as recorded:
        changed = augment.resample(images, random)
    assert changed.shape == (64, 32, 32, 3)
    assert len(recorded.operators) > 20
    assert recorded.missing == []


def test_auto_takes_an_apple_gpu_for_one_trial_at_a_time(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("mps")
    auto = tiny_config(training={"device": "auto"})
    assert most_at_once(auto) == 1
    two = auto.model_copy(update={"search": auto.search.model_copy(update={"max_concurrent": 2})})
    assert most_at_once(two) == 2
    assert most_at_once(tiny_config(training={"device": "cpu"})) is None


def test_mps_without_an_apple_gpu_is_refused():
    if torch.backends.mps.is_available():
        pytest.skip("there is one")
    with pytest.raises(UserError, match=r"found mps, but torch sees no GPU of Apple"):
        resolve_device("mps")


# Names of `os` that macOS does not have.
LINUX = {
    *("sched_getaffinity", "sched_setaffinity", "posix_fadvise", "posix_fallocate"),
    *("copy_file_range", "memfd_create", "eventfd", "pidfd_open", "splice"),
}


def test_what_only_linux_has_is_asked_for_before_it_is_used():
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        text = file.read_text()
        for node in ast.walk(ast.parse(text)):
            if (
                isinstance(node, ast.Attribute)
                and node.attr in LINUX
                and f'hasattr(os, "{node.attr}")' not in text
            ):
                found.append(f"{file.relative_to(PACKAGE)}:{node.lineno} {node.attr}")
    assert found == []
