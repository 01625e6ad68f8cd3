"""The number of floating-point operations of a backbone, counted on the meta device."""

from __future__ import annotations

import logging
import warnings
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import timm
import torch
from torch import nn

from gsfl_tune.models._blocks import trained_names
from gsfl_tune.models._facts import BackboneFacts, cut
from gsfl_tune.models._probe import probe
from gsfl_tune.models._reads import Reads, run
from gsfl_tune.models.streams import second_layer_of, stream_names


def flop_counter() -> Any:
    """Returns a context that counts the operations of what runs in it.

    torch says at the import that it cannot count kernels of triton: there are none here.
    """
    logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)
    from torch.utils.flop_counter import FlopCounterMode

    return FlopCounterMode(display=False)


class BackboneWork(NamedTuple):
    """Holds the operations (multiplications and additions) of one forward pass of one image.

    Attributes:
        frozen: Operations before the trained blocks.
        trained: Operations in the trained blocks.
        parameters: Number of trained parameters.
    """

    frozen: float
    trained: float
    parameters: int


@lru_cache(maxsize=256)
def backbone_work(
    name: str, blocks: int | Literal["all"], image_size: int, reads: Reads = "map"
) -> BackboneWork:
    """Counts the operations of a backbone whose last blocks are trained.

    Matrix products and convolutions count; norms and activations are left out.

    Args:
        name: Name of a timm model.
        blocks: How many of its last blocks are trained, or ``all``; 0 for none.
        image_size: Side of the images in pixels.
        reads: What its pooling reads.

    Raises:
        BackboneError: If there is no such backbone, or nothing such to read.
    """
    facts, names = probe(name, reads), stream_names(name)
    whole, following = second_layer_of(name)
    if following:
        # What averages the map of the second layer is as nothing.
        return backbone_work(whole, blocks, image_size, reads)
    if len(names) > 1:
        each = [backbone_work(one, blocks, image_size, reads) for one in names]
        frozen, trained, parameters = (sum(own) for own in zip(*each, strict=True))
        return BackboneWork(frozen, trained, int(parameters))
    for device in ("meta", "cpu"):  # a few models need real numbers while they are built
        try:
            return _count(name, blocks, image_size, facts, device)
        except Exception:  # models raise any error
            continue
    # If counting fails: an estimate of two operations per parameter and position of a small map.
    total = 2.0 * facts.parameters * 49
    share = 1.0 if blocks == "all" else min(1.0, blocks / facts.blocks)
    return BackboneWork(total * (1 - share), total * share, round(facts.parameters * share))


def _count(
    name: str,
    blocks: int | Literal["all"],
    side: int,
    facts: BackboneFacts,
    device: str,
) -> BackboneWork:
    done = _pass(name, side, facts.reads, device)
    trained = set(trained_names(facts.block_names, blocks))
    ours = sum(
        (done.operations.get(path, 0.0) for path in _outermost_trained(done.modules, trained)),
        0.0,
    )
    parameters = sum(size for key, size in done.parameters.items() if key in trained)
    if blocks == "all":
        ours = done.total
    return BackboneWork(done.total - ours, ours, parameters)


class _Pass(NamedTuple):
    """Holds what one forward pass of one image does, whatever is trained.

    Attributes:
        total: All operations.
        operations: Those of each module, by path.
        modules: Names of each module's parameters, by path, outer modules first.
        parameters: The number of elements of each parameter.
    """

    total: float
    operations: dict[str, float]
    modules: dict[str, list[str]]
    parameters: dict[str, int]


# A plan asks for every number of trained blocks, and half a second each adds up.
@lru_cache(maxsize=64)
def _pass(name: str, side: int, reads: Reads, device: str) -> _Pass:
    facts = probe(name, reads)
    with warnings.catch_warnings(), torch.device(device), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        options = dict(facts.options)
        created = timm.create_model(name, pretrained=False, num_classes=0, **options)
        model: Any = cut(created.eval(), facts.reads)
        counter = flop_counter()
        with torch.no_grad(), counter:
            _Features(model, facts.reads)(torch.zeros(1, 3, side, side))
    root = f"{_Features.__name__}.model."
    return _Pass(
        float(counter.get_total_flops()),
        {
            path.removeprefix(root): float(sum(counts.values()))
            for path, counts in counter.get_flop_counts().items()
            if path.startswith(root)
        },
        {
            path: [f"{path}.{name}" for name, _ in module.named_parameters()]
            for path, module in model.named_modules()
            if path
        },
        {key: parameter.numel() for key, parameter in model.named_parameters()},
    )


class _Features(nn.Module):
    """Wraps what is read in a module call, as operations are counted per call."""

    def __init__(self, model: Any, reads: Reads) -> None:
        super().__init__()
        self.model = model
        self.reads = reads

    def forward(self, images: torch.Tensor) -> object:
        return run(self.model, images, self.reads)


def _outermost_trained(modules: dict[str, list[str]], trained: set[str]) -> list[str]:
    """Returns the paths of the outermost modules whose parameters are all trained."""
    found: list[str] = []
    for path, names in modules.items():
        inside = any(path.startswith(f"{other}.") for other in found)
        if names and not inside and trained.issuperset(names):
            found.append(path)
    return found
