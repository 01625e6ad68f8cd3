"""Is what the GPU computes right? The tests that wait for one, and arithmetic against float64.

The reference of two training steps is written without this package: timm's network and the heads
of `_bare.py` in float64 on the CPU, with torch's SGD. Convolutions run without TF32, unless a row
says otherwise. The network has smooth activations: with ReLU6 a few inputs per million fall on the
other side of a kink, and gradients in float32 differ from float64 by 2e-3 to 9e-3 on any device.
"""

from __future__ import annotations

import copy
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _bare import Gsfl, Plain
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.gpu.record import Record
from benchmarks.gpu.size import Size
from benchmarks.gpu.steps._numbers import apart, deterministic, flat, tensors, tf32
from gsfl_tune.data import Batch, Targets
from gsfl_tune.experiment.config import Config
from gsfl_tune.losses import ClassCenters
from gsfl_tune.models.pooling import create_pooling
from gsfl_tune.training import Training, Workspace
from gsfl_tune.training.stages import FinetuneStage, HeadStage

ROOT = Path(__file__).parents[3]
GROUPS, SCALE, RATE, DECAY, MOMENTUM = 5, 11.8, 0.05, 0.01, 0.9
_SGD = {
    "optimizer": "sgd",
    "weight_decay": DECAY,
    "momentum": MOMENTUM,
    "schedule": "constant",
    "warmup": 0.0,
}


def run(record: Record, size: Size) -> None:
    """Asserts all of it."""
    _tests(record, size)
    workspace = Workspace.open(_config(size).data, device=size.device)
    with tf32(False):
        for precision, limit in (("fp32", 1e-3), ("bf16", 2e-2)):
            _two_steps(record, size, workspace, "gsfl", precision, limit)
        if not size.tiny:
            _two_steps(record, size, workspace, "plain", "fp32", 1e-3)
        _head_steps(record, size, workspace)
        _cut(record, size, workspace)
        _features(record, size, workspace)
    if size.device.type == "cuda":
        with tf32(True):
            _two_steps(record, size, workspace, "gsfl", "fp32", None)
    _resume(record, size, workspace)
    _centres(record, size)
    _compact_bilinear(record, size)


def _config(size: Size, **training: Any) -> Config:
    return Config.model_validate(
        {
            "name": "correct",
            "data": {
                "source": "typefaces",
                "image_size": size.of(96, 32),
                "augment": {"flip": False},
                "typefaces": {"train": size.of(8, 6), "test": 2, "size": size.of(112, 40)},
            },
            "model": {
                "backbone": "test_efficientnet" if size.tiny else "efficientnet_b0",
                "weights": "none",
                "latent_dim": size.of(512, 16),
                "dropout": 0.0,
                "feature_scale": SCALE,
                "groups": {"method": "random", "count": GROUPS},
            },
            "loss": {"center_rate": 0.21},
            "training": {"device": size.device.type, "head": {"epochs": 1}, **training},
        }
    )


# --- two steps of training ------------------------------------------------------------------


@dataclass(frozen=True)
class _Steps:
    """What two optimiser steps gave: losses, trained parameters before and after, centres."""

    losses: list[float]
    before: Tensor
    after: Tensor
    centers: Tensor


def _batch(inputs: Tensor, labels: Tensor) -> Batch:
    return Batch((inputs,), Targets(labels.to(inputs.device)), torch.arange(len(labels)))


def _two_steps(
    record: Record, size: Size, workspace: Workspace, head: str, precision: str, limit: float | None
) -> None:
    stage_config = {"epochs": 1, "learning_rate": RATE, "head_learning_rate": RATE, **_SGD}
    config = _config(size, finetune=stage_config, precision=precision)
    config = config.model_copy(update={"model": config.model.model_copy(update={"head": head})})
    training = Training(config, workspace, size.folder / "steps")
    stage = FinetuneStage(training.context)
    images, labels = _images(size, config, workspace.dataset.class_count)
    wanted = _reference(stage, training, images, labels)

    stage.module.train()
    before, losses = flat(stage.parameters), []
    for step in range(2):
        batch = _batch(stage._batches.of_images(images.to(size.device)), labels)
        losses.append(stage._step(batch).total.item())
        stage._update(step, 10)
    centers = training.centers
    found = _Steps(
        losses,
        before,
        flat(stage.parameters),
        centers.centers if centers is not None else torch.zeros(1).double(),
    )
    kind = precision if limit is not None else f"{precision} with TF32"
    what = f"{head}, finetune, {kind}"
    errors = {
        "losses of two steps": max(
            abs(a / b - 1) for a, b in zip(found.losses, wanted.losses, strict=True)
        ),
        "weights after them": apart(found.after, wanted.after),
    }
    for name, error in errors.items():
        if limit is None:
            record.value(f"{what}: {name}", f"{error:.1e}")
        else:
            record.at_most(f"{what}: {name}", error, limit)
    # In bf16 these differ by the rounding of all layers; the centres' own arithmetic is float32.
    changes = {"what the steps changed": (found.after - found.before, wanted.after - wanted.before)}
    if head == "gsfl":
        changes["class centres"] = (found.centers, wanted.centers)
    for name, pair in changes.items():
        if limit is not None and precision == "fp32":
            record.at_most(f"{what}: {name}", apart(*pair), limit)
        else:
            record.value(f"{what}: {name}", f"{apart(*pair):.1e}")
    # Else a step that does nothing would pass.
    moved = abs(wanted.losses[1] / wanted.losses[0] - 1)
    record.check(f"{what}: the second loss differs", moved > 2e-2, f"{moved:.2g}", "above 0.02")


def _reference(stage: FinetuneStage, training: Training, images: Tensor, labels: Tensor) -> _Steps:
    """The same two steps in float64 on the CPU, without a line of ours."""
    network = copy.deepcopy(stage.module).cpu().double()
    model: nn.Module = network.backbone.model.train()
    head = _bare_head(network.head, training)
    theirs = {f"backbone.model.{name}": p for name, p in model.named_parameters()}
    theirs |= {f"head.{name}": p for name, p in head.named_parameters()}
    names = {id(p): name for name, p in stage.module.named_parameters()}
    parameters = [theirs[names[id(p)]] for p in stage.parameters]
    optimizer = _sgd(parameters)
    before, losses = flat(parameters), []
    for _ in range(2):
        maps = model.forward_features(images.double())
        f = functional.normalize(maps.mean((2, 3)), dim=1)
        losses.append(_bare_step(head, optimizer, f, labels))
    centers = head.centers if isinstance(head, Gsfl) else torch.zeros(1).double()
    return _Steps(losses, before, flat(parameters), centers)


def _bare_head(head: nn.Module, training: Training) -> Plain:
    """A head of `_bare.py` in float64 with the weights of ours; their tensors have one name."""
    sizes = (head.feature_dim, head.latent_dim, head.class_count, 0.0, SCALE)
    groups = training.groups
    bare = Plain(*sizes) if groups is None else Gsfl(*sizes, torch.from_numpy(groups))
    bare.double()
    for name, parameter in bare.named_parameters():
        parameter.data = head.get_parameter(name).detach().double().cpu().clone()
    return bare


def _sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": DECAY},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=RATE, momentum=MOMENTUM, nesterov=True)


def _bare_step(head: Plain, optimizer: torch.optim.Optimizer, f: Tensor, labels: Tensor) -> float:
    loss = head.loss(f, labels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    head.after_step()
    return loss.item()


def _head_steps(record: Record, size: Size, workspace: Workspace) -> None:
    config = _config(size, head={"epochs": 1, "learning_rate": RATE, **_SGD})
    training = Training(config, workspace, size.folder / "head")
    stage = HeadStage(training.context)
    _, labels = _images(size, config, workspace.dataset.class_count)
    generator = torch.Generator().manual_seed(2)
    shape = (len(labels), stage.module.feature_dim)
    f = functional.normalize(torch.randn(shape, generator=generator), dim=1)
    bare = _bare_head(stage.module, training)
    optimizer = _sgd(list(bare.parameters()))
    stage.module.train()
    for step in range(2):
        ours = stage._step(_batch(f.to(size.device), labels)).total.item()
        stage._update(step, 10)
        loss = _bare_step(bare, optimizer, f.double(), labels)
        record.at_most(f"gsfl, head, fp32: loss {step + 1}", abs(ours / loss - 1), 1e-3)
    after = dict(stage.module.named_parameters())
    error = max(apart(after[name], p) for name, p in bare.named_parameters())
    record.at_most("gsfl, head, fp32: weights after them, worst tensor", error, 1e-3)
    assert training.centers is not None
    error = apart(training.centers.centers, bare.centers)
    record.at_most("gsfl, head, fp32: class centres", error, 1e-3)


# --- the rest -------------------------------------------------------------------------------


def _cut(record: Record, size: Size, workspace: Workspace) -> None:
    """Frozen blocks as a fast copy, the last ones trained: features as of the whole network."""
    config = _config(size, finetune={"epochs": 1, "blocks": 2}, precision="fp32")
    stage = FinetuneStage(Training(config, workspace, size.folder / "cut").context)
    images, _ = _images(size, config, workspace.dataset.class_count)
    network = copy.deepcopy(stage.module).cpu().double().eval()
    with torch.inference_mode():
        maps = network.backbone.model.forward_features(images.double())
        wanted = functional.normalize(maps.mean((2, 3)), dim=1)
        inputs = stage._batches.of_images(images.to(size.device))
        found = stage._batches.features(stage.module.eval())(inputs)
    record.at_most("cut backbone: unit features", apart(found, wanted), 1e-3)


def _features(record: Record, size: Size, workspace: Workspace) -> None:
    """Cached features of images, as they are kept."""
    config = _config(size)
    backbone, count = workspace.backbone(config), 32
    found = workspace.features(config)[:count]
    squares = torch.from_numpy(workspace.dataset.pool.gather(np.arange(count)))
    start = (squares.shape[1] - config.data.image_size) // 2
    end = start + config.data.image_size
    pixels = squares[:, start:end, start:end].permute(0, 3, 1, 2).double() / 255
    mean, std = (torch.tensor(each).double().view(3, 1, 1) for each in backbone.preprocessing)
    model = copy.deepcopy(backbone.model).cpu().double().eval()
    with torch.inference_mode():
        maps = model.forward_features((pixels - mean) / std)
    wanted = functional.normalize(maps.mean((2, 3)), dim=1)
    record.at_most("cached features", apart(found, wanted), 1e-3)


def _resume(record: Record, size: Size, workspace: Workspace) -> None:
    """To the last bit, with deterministic algorithms: without them no two trainings are equal."""
    config = _config(size, head={"epochs": 1}, finetune={"epochs": 2, "blocks": 2}, ema=0.5)

    def trained(name: str) -> Training:
        training = Training(config, workspace, size.folder / name)
        while not training.finished:
            training.run_epoch()
        return training

    with deterministic():
        whole = trained("whole")
        first = Training(config, workspace, size.folder / "parts")
        first.run_epoch()
        first.run_epoch()
        first.save()
        second = Training(config, workspace, size.folder / "parts")
        taken = second.restore()
        record.check("resume: the checkpoint is taken", taken, str(second.epoch), "epoch 2")
        second.run_epoch()
    ours, theirs = (tensors(each._state()) for each in (second, whole))
    differing = sum(not torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    found = f"{differing} of {len(ours)} tensors differ"
    record.check("resume equals going on, deterministic algorithms", differing == 0, found, "0")
    weights = [
        torch.cat([t.flatten() for t in tensors(each._state()["module"])])
        for each in (trained("again"), trained("once more"))
    ]
    record.value("two equal trainings without them: weights apart", f"{apart(*weights):.1e}")


def _centres(record: Record, size: Size) -> None:
    generator = torch.Generator().manual_seed(3)
    classes, latent, rate = 37, 64, 0.21
    groups = torch.arange(classes) % 5
    centers = ClassCenters(groups, latent).to(size.device)
    wanted = torch.zeros(classes, latent, dtype=torch.float64)
    for _ in range(5):
        d = torch.randn(256, latent, generator=generator)
        y = torch.randint(classes // 2, (256,), generator=generator)
        centers.accumulate(d.to(size.device), y.to(size.device))
        centers.step(rate)
        for k in range(classes):
            mine = d[y == k].double()
            wanted[k] -= rate * (wanted[k] - mine).sum(0) / (1 + len(mine))
    record.at_most("class centres, five updates", apart(centers.centers, wanted), 1e-3)
    means = torch.stack([wanted[groups == g].mean(0) for g in range(5)])
    record.at_most("means of the groups", apart(centers.group_means(), means), 1e-3)


def _compact_bilinear(record: Record, size: Size) -> None:
    """Against count sketches convolved by FFT at every position, in float64."""
    pooling = create_pooling("compact_bilinear", 64, dim=1024)
    maps = torch.randn(4, 64, 7, 7, generator=torch.Generator().manual_seed(4))
    bins, signs = pooling.bins, pooling.signs.double()
    flat = maps.double().flatten(2).transpose(1, 2)
    sketches = [
        torch.zeros(*flat.shape[:2], 1024, dtype=torch.float64).index_add(
            2, bins[side], flat * signs[side]
        )
        for side in range(2)
    ]
    product = torch.fft.rfft(sketches[0]) * torch.fft.rfft(sketches[1])
    sums = torch.fft.irfft(product, 1024).mean(1)
    wanted = sums / ((sums.abs() + 1e-8).sqrt() + 1e-4)
    found = pooling.to(size.device)(maps.to(size.device))
    record.at_most("compact bilinear pooling", apart(found, wanted), 1e-3)


def _tests(record: Record, size: Size) -> None:
    """The tests with the marker `gpu`; on a CPU ``make test`` collects and skips them."""
    files = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if "mark.gpu" in path.read_text()
    ]
    record.check("files with tests that need a GPU", len(files) > 4, str(len(files)), "at least 5")
    if size.device.type != "cuda":
        return
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout[-6000:], done.stderr[-2000:], flush=True)
    last = (done.stdout.strip().splitlines() or ["nothing"])[-1]
    fine = done.returncode == 0 and " skipped" not in last
    record.check("these tests", fine, last.strip("= "), "all pass")


# --- small things ---------------------------------------------------------------------------


def _images(size: Size, config: Config, classes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    side, count = config.data.image_size, 16
    images = torch.randn(count, 3, side, side, generator=generator)
    return images, torch.randint(classes, (count,), generator=generator)
