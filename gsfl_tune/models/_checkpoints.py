"""Checkpoints of other programs: which of their tensors are those of a backbone.

Trainings save more than a backbone: DINO and DINOv2 a teacher and a student with projection heads,
MoCo two encoders, lightly a module around the backbone, timm an average beside the weights. All of
it is one tree of names here. The names of the backbone's tensors occur in it once or more, each
time below a prefix; the prefix with most of them is taken.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

# Of equally complete copies of a backbone: what the authors of these methods evaluate comes first,
# and what only helps to train it last.
_EVALUATED = re.compile(r"teacher|target_encoder|ema\b")
_HELPERS = re.compile(r"student|momentum|encoder_k\b")

# Groups of DINOv2's blocks: `blocks.1.7.` is the block with number 7.
_CHUNK = re.compile(r"^blocks\.\d+\.(?=\d+\.)")


class Found(NamedTuple):
    """Holds the tensors of a file that may be those of a backbone.

    Attributes:
        state: Tensors by the backbone's own names.
        left_out: Number of other tensors by what holds them, such as ``student``.
    """

    state: dict[str, Tensor]
    left_out: dict[str, int]


def find_state(content: Mapping[Any, Any], wanted: Collection[str]) -> Found:
    """Finds the tensors of a backbone in a checkpoint.

    Args:
        content: What a file holds: tensors by name, in mappings to any depth.
        wanted: Names of the backbone's tensors.

    Raises:
        ValueError: If there are no tensors; the message names a key.
    """
    tree = _flat(content)
    if not tree:
        raise ValueError(f"{next(iter(content))!r} is not a tensor")
    prefix = _prefix(tree, frozenset(wanted))
    state = {name.removeprefix(prefix): t for name, t in tree.items() if name.startswith(prefix)}
    if not any(_CHUNK.match(name) for name in wanted):
        state = {_CHUNK.sub("blocks.", name): tensor for name, tensor in state.items()}
    left_out = Counter(_holder(name, prefix) for name in tree if not name.startswith(prefix))
    return Found(state, dict(left_out))


def converted(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Returns tensors as timm converts them for a model, or None where it cannot.

    timm knows the names in the checkpoints of a model's authors, and resamples position embeddings
    and relative position biases of images of another size.
    """
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return None
    try:
        found = convert(dict(state), model)
    except Exception:  # it was written for the files of the authors
        return None
    return {name: tensor for name, tensor in found.items() if isinstance(tensor, Tensor)}


def _flat(content: Mapping[Any, Any], prefix: str = "") -> dict[str, Tensor]:
    """Returns all tensors below string keys by their dotted names."""
    found: dict[str, Tensor] = {}
    for key, value in content.items():
        if not isinstance(key, str):  # the state of an optimiser
            continue
        if isinstance(value, Tensor):
            found[f"{prefix}{key}"] = value
        elif isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
    return found


def _prefix(names: Collection[str], wanted: frozenset[str]) -> str:
    """Returns the prefix, with its dot, of most names of a backbone."""
    counts: Counter[str] = Counter()
    for name in names:
        start = 0
        while True:
            if name[start:] in wanted:
                counts[name[:start]] += 1
            dot = name.find(".", start)
            if dot < 0:
                break
            start = dot + 1
    if not counts:
        # Names of another program, which timm may know: what all of them begin with says nothing.
        return _common(names)

    def order(prefix: str) -> tuple[int, bool, bool, int]:
        helper, evaluated = _HELPERS.search(prefix), _EVALUATED.search(prefix)
        return -counts[prefix], helper is not None, evaluated is None, len(prefix)

    return min(counts, key=order)


def _common(names: Collection[str]) -> str:
    """Returns the longest prefix of whole words, with its dot, that all names have."""
    first, last = min(names).split("."), max(names).split(".")
    count = 0
    while count < min(len(first), len(last)) - 1 and first[count] == last[count]:
        count += 1
    return "".join(f"{word}." for word in first[:count])


def _holder(name: str, prefix: str) -> str:
    """Returns the part of a name that tells where it leaves a prefix."""
    own, words = prefix.split("."), name.split(".")
    same = 0
    while same < len(words) - 1 and same < len(own) and words[same] == own[same]:
        same += 1
    return ".".join(words[: same + 1])
