"""Facts about the output of a timm model, found on the meta device without memory or weights."""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import timm
import torch
from torch import Tensor, nn

from gsfl_tune.hub_names import SCHEME, hub_place
from gsfl_tune.models._added import register
from gsfl_tune.models._blocks import parameter_blocks
from gsfl_tune.models._facts import BackboneError, BackboneFacts, cut, read, to_map
from gsfl_tune.models._layers import inputs_of, is_map, layer_map
from gsfl_tune.models._reads import LAST_BLOCKS, Reads, features_of, gives_blocks
from gsfl_tune.models._uses import FirstUses, without_gradient
from gsfl_tune.models.streams import (
    joined_facts,
    layered_facts,
    second_layer_of,
    stream_names,
    streams_problem,
)
from gsfl_tune.models.weights import architecture
from gsfl_tune.plugins import PluginError, names

# Options that let transformers accept images of another size, tried in this order.
_SIZE_OPTIONS: tuple[dict[str, Any], ...] = (
    {"dynamic_img_size": True},
    {"strict_img_size": False},
    {},
)


def backbone_problem(name: Any) -> str | None:
    """Returns what is wrong with a value of ``model.backbone``, or None.

    Args:
        name: Name of a timm model, with or without a pretrained tag, or of an installed package.

    Returns:
        A complaint that names the nearest models, or None.
    """
    if not isinstance(name, str):
        return f"{name!r} is not the name of a timm model"
    if name.startswith(SCHEME):
        own = name if hub_place(name) else f"{SCHEME}OWNER/NAME"
        return (
            f"{name!r} names weights; allowed is the name of a timm model, the `architecture` in "
            f"config.json there, with model.weights: {own}"
        )
    try:
        _ = register(architecture(name))
    except PluginError as error:
        return str(error)
    if not timm.is_model(architecture(name)):
        known = [*names("backbone"), *timm.list_models()]
        near = difflib.get_close_matches(architecture(name), known, n=3, cutoff=0.5)
        hint = f", did you mean {', '.join(near)}?" if near else ""
        return f"{name!r} is not a timm model{hint}"
    if "." in name:
        base, tag = name.split(".", 1)
        known = [m.split(".", 1)[1] for m in timm.list_pretrained(f"{base}.*")]
        if tag not in known:
            return f"timm has no weights {tag!r} for {base!r}; known are {', '.join(known) or '-'}"
    return None


def second_backbone_problem(name: Any) -> str | None:
    """Returns what is wrong with a value of ``model.backbone_b``, or None."""
    return None if name == "none" else backbone_problem(name)


def reading_problem(name: str, reads: Reads) -> str | None:
    """Returns why a pooling cannot read a backbone of which others read the map, or None."""
    try:
        _ = probe(name)
    except BackboneError:
        return None
    try:
        _ = probe(name, reads)
    except BackboneError as error:
        return str(error)
    return None


def second_layer_problem(name: str) -> str | None:
    """Says why a backbone has not the second layer that its name asks for, or None.

    Args:
        name: Name of a backbone, see `gsfl_tune.models.streams`.
    """
    whole, following = second_layer_of(name)
    try:
        _ = probe(whole)
    except BackboneError:  # said elsewhere
        return None
    try:
        _ = probe(name)
    except BackboneError as error:
        return str(error) if following else None
    return None


def probe(name: str, reads: Reads = "map") -> BackboneFacts:
    """Returns facts about a timm model, two streams, or two layers, without weights.

    Args:
        name: Name of a timm model; two with a ``+``, or a number of blocks behind an ``@``, see
            `gsfl_tune.models.streams`.
        reads: What a pooling reads of it.

    Returns:
        The facts.

    Raises:
        BackboneError: If it is not a timm model, returns no feature map, or has nothing such to
            read.
    """
    names = stream_names(name)
    whole, following = second_layer_of(name)
    if following:
        return _layered(whole, following, reads)
    if len(names) == 1:
        return _probe(name, reads)
    if problem := streams_problem(reads):
        raise BackboneError(f"{name!r}: {problem}")
    return joined_facts(*(_probe(each, reads) for each in names))


@lru_cache(maxsize=64)
def _layered(name: str, following: int, reads: Reads) -> BackboneFacts:
    if len(stream_names(name)) > 1:
        raise BackboneError(f"{name!r}: of two backbones the last maps are read, and no others")
    facts = _probe(name, "map")
    if reads != "map":
        raise BackboneError(f"{name!r}: two layers are joined by their maps alone")
    stop, (channels, _, _) = _layer_at(name, following, facts.input_size)
    return layered_facts(facts, stop, channels)


@lru_cache(maxsize=256)
def _layer_at(name: str, following: int, image_size: int) -> tuple[str, tuple[int, int, int]]:
    """Returns which module the map behind a block enters, and the shape (C, h, w) of that map.

    Args:
        name: Name of a timm model.
        following: How many blocks follow the block.
        image_size: Side of the images in pixels.

    Raises:
        BackboneError: If there is no such block, or no single map behind it.
    """
    facts = _probe(name, "map")
    others = "1 other follows" if following == 1 else f"{following} others follow"
    if following >= facts.blocks:
        raise BackboneError(f"{name!r} has no block that {others}: it has {facts.blocks}")
    for device in ("meta", "cpu"):  # a few models need real numbers while they are built
        try:
            model, _ = _forward(name, dict(facts.options), image_size, device, "map")
            with torch.device(device):
                images = torch.zeros(1, 3, image_size, image_size)
            features, entered = inputs_of(model, facts.block_names[-following:], images)
        except Exception:  # models raise any error
            continue
        stop, activations = entered[0]
        if activations is not None and is_map(activations, features):
            _, channels, height, width = layer_map(activations, facts).shape
            return stop, (channels, height, width)
        break
    raise BackboneError(f"{name!r} has no single map behind the block that {others}")


@lru_cache(maxsize=64)
def _probe(name: str, reads: Reads) -> BackboneFacts:
    problem = backbone_problem(name)
    if problem:
        raise BackboneError(problem)
    config = timm.get_pretrained_cfg(name)
    side = max(config.input_size[1:])
    for device in ("meta", "cpu"):  # a few models need real numbers while they are built
        for options in _SIZE_OPTIONS:
            uses = FirstUses()
            try:
                model, features = _forward(name, options, side, device, reads, uses)
            except BackboneError:
                raise
            except TypeError:  # the model does not know the option
                continue
            except Exception:
                break
            facts = _read_off(name, options, model, features, config, side)
            return _of_what_is_read(name, facts, model, features, reads, uses)
    raise BackboneError(f"{name!r} cannot be built or run by timm at {side} px")


@lru_cache(maxsize=1024)
def map_shape(name: str, image_size: int, reads: Reads = "map") -> tuple[int, int, int]:
    """Returns the shape (C, h, w) of the map of one square image.

    Args:
        name: Name of a timm model.
        image_size: Side in pixels.
        reads: What a pooling reads: the model's own head, if it is that, must accept the size too.

    Raises:
        BackboneError: If the model does not accept this size; the message names its own size.
    """
    facts, names = probe(name, reads), stream_names(name)
    whole, following = second_layer_of(name)
    if following:
        return _joined_shape(
            facts, map_shape(whole, image_size), _layer_at(whole, following, image_size)[1]
        )
    if len(names) > 1:
        return _joined_shape(facts, *(map_shape(each, image_size, reads) for each in names))
    try:
        model, features = _forward(name, dict(facts.options), image_size, "meta", reads)
        if reads == "head":
            model.forward_head(features, pre_logits=True)
    except Exception as error:
        raise BackboneError(
            f"{name!r} cannot see images of {image_size} px ({str(error).strip()[:120]}): "
            f"it was made for {facts.input_size} px"
        ) from error
    shape = to_map(features, facts, image_size, image_size).shape
    return shape[1], shape[2], shape[3]


def _joined_shape(facts: BackboneFacts, *shapes: tuple[int, int, int]) -> tuple[int, int, int]:
    _, height, width = (min(sides) for sides in zip(*shapes, strict=True))
    return facts.channels, height, width


def _forward(
    name: str,
    options: dict[str, Any],
    side: int,
    device: str,
    reads: Reads,
    uses: FirstUses | None = None,
) -> tuple[Any, Any]:
    with warnings.catch_warnings(), torch.device(device), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        created = timm.create_model(name, pretrained=False, num_classes=0, **options)
        model: Any = cut(created.eval(), reads)
        if reads in LAST_BLOCKS:
            if not _has_class_token(list(model.named_parameters())):
                raise BackboneError(f"{name!r} has no class token")
            if not gives_blocks(model):
                raise BackboneError(f"timm gives no tokens of single blocks of {name!r}")
        images = torch.zeros(1, 3, side, side)
        if uses is None:
            return model, features_of(model, images, reads)
        uses.watch(model)
        with uses:
            return model, features_of(model, images, reads)


def _read_off(
    name: str,
    options: dict[str, Any],
    model: nn.Module,
    features: Any,
    config: Any,
    side: int,
) -> BackboneFacts:
    """Returns what is known without a backward pass."""
    width = int(getattr(model, "num_features", 0))
    prefix = 0
    if not isinstance(features, Tensor) or features.ndim not in (3, 4):
        raise BackboneError(f"{name!r} gives back no feature map; choose another backbone")
    if features.ndim == 4:
        last = getattr(model, "output_fmt", "NCHW") == "NHWC" or (
            features.shape[1] != width and features.shape[3] == width
        )
        layout, channels = ("NHWC", features.shape[3]) if last else ("NCHW", features.shape[1])
    else:
        layout, channels, count = "tokens", features.shape[2], features.shape[1]
        guess = next((n for n in range(8) if math.isqrt(count - n) ** 2 == count - n), 0)
        prefix = int(getattr(model, "num_prefix_tokens", guess))
        if count - prefix <= 1:
            raise BackboneError(
                f"{name!r} gives back class tokens alone, no feature map; choose another backbone"
            )
        if math.isqrt(count - prefix) ** 2 != count - prefix:
            raise BackboneError(f"the {count} tokens of {name!r} form no grid")
    return BackboneFacts(
        options=tuple(options.items()),
        layout=layout,
        prefix_tokens=prefix,
        reads="map",
        channels=channels,
        input_size=side,
        mean=tuple(config.mean),
        std=tuple(config.std),
        parameters=0,
        unused=frozenset(),
        block_names=(),
    )


def _of_what_is_read(
    name: str,
    facts: BackboneFacts,
    model: Any,
    features: Tensor,
    reads: Reads,
    uses: FirstUses,
) -> BackboneFacts:
    """Completes the facts with what depends on what is read: channels, parameters, blocks."""
    named = list(model.named_parameters())
    if reads not in ("map", "head") and not (facts.prefix_tokens and _has_class_token(named)):
        raise BackboneError(f"{name!r} has no class token")
    before = set(uses.order)
    with torch.enable_grad():
        if reads == "head":
            output = _head_output(name, model, features, uses)
        else:
            facts = replace(facts, reads=reads)
            output = read(model, features, facts, facts.input_size, facts.input_size)
        unused = without_gradient(output, named)
    return replace(
        facts,
        reads=reads,
        channels=output.shape[-1] if reads != "map" else facts.channels,
        parameters=sum(p.numel() for k, p in named if k not in unused),
        unused=unused,
        block_names=parameter_blocks(model, uses.order, unused),
        head_names=tuple(k for k, _ in named if k in uses.order and k not in before),
    )


def _has_class_token(named: Sequence[tuple[str, Tensor]]) -> bool:
    return any(key.rpartition(".")[2] == "cls_token" for key, _ in named)


def _head_output(name: str, model: Any, features: Tensor, uses: FirstUses) -> Tensor:
    if not hasattr(model, "forward_head"):
        raise BackboneError(f"{name!r} has no method forward_head, which pools as its authors do")
    try:
        with uses:
            pooled = model.forward_head(features, pre_logits=True)
    except Exception as error:  # models raise any error
        reason = str(error).strip()[:120] or type(error).__name__
        raise BackboneError(f"the head of {name!r} cannot be run alone ({reason})") from error
    if not isinstance(pooled, Tensor):
        raise BackboneError(f"the head of {name!r} has several outputs")
    if pooled.ndim != 2:
        raise BackboneError(
            f"the head of {name!r} gives no vector but a tensor of shape {tuple(pooled.shape)}"
        )
    return pooled
