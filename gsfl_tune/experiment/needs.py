"""What a leaf needs to have an effect: the table, and the question for one configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gsfl_tune.experiment.conditions import Condition
from gsfl_tune.experiment.generate_config import PENALISED
from gsfl_tune.experiment.heads import ENCODING_HEADS, GROUPED_HEADS, HEADS, SHARED_HEADS
from gsfl_tune.experiment.loss_terms import LOSS_TERMS, SHARED_TERMS
from gsfl_tune.experiment.methods import FINETUNE_METHODS, METHOD_SECTIONS
from gsfl_tune.experiment.model_config import TWO_STREAMS, layer_poolings
from gsfl_tune.plugins import BUILT_IN

Need = Mapping[str, Condition]

_POSITIVE = Condition(compare=(("gt", 0),))
_SGD = Condition(("sgd",))
_ADAPTERS = {"training.finetune.train": Condition(("lora", "dora"))}
_COSINE = Condition(("cosine",))
_SCHEDULED = {"training.finetune.optimizer": Condition(("adamw", "sgd", "muon"))}
_GSFL = {"model.head": Condition(SHARED_HEADS)}
_GROUPED = {"model.head": Condition(GROUPED_HEADS)}
_ENCODER = {"model.head": Condition(ENCODING_HEADS)}
_HEAD = {"training.head.epochs": _POSITIVE}
_GENERATE = {**_HEAD, "training.head.generate.share": _POSITIVE}
_FINETUNE = {"training.finetune.epochs": _POSITIVE}
_VIEWS = {"data.views": _POSITIVE}
_PRETRAIN = {"training.pretrain": Condition((True,))}
_DECODED = [
    {**_PRETRAIN, f"pretrain.discriminative.{name}_weight": _POSITIVE}
    for name in ("pair", "reconstruction")
]
_COUNTED = Condition(("kmeans", "spectral", "agglomerative", "random"))


def _of_term(name: str) -> dict[str, Condition]:
    needs = {f"loss.{name}.weight": _POSITIVE}
    return {**needs, **_GSFL} if name in SHARED_TERMS else needs


NEEDS: dict[str, Sequence[Mapping[str, Condition]]] = {
    "data.eval_image_size": [_FINETUNE],
    "data.augment.": [_FINETUNE, _VIEWS],
    **{
        f"data.augment.rand_{name}": [
            {"data.augment.policy": Condition(("rand",)), **each} for each in (_FINETUNE, _VIEWS)
        ]
        for name in ("operations", "magnitude")
    },
    "data.augment.restorer": [
        {"data.augment.degrade": _POSITIVE, **each} for each in (_FINETUNE, _VIEWS)
    ],
    "data.augment.transforms.": [_FINETUNE, _VIEWS],
    "model.backbone_b": [{"model.pooling": Condition(TWO_STREAMS)}],
    "model.weights_b": [{"model.pooling": Condition(TWO_STREAMS)}],
    "model.layer_b": [{"model.pooling": Condition(layer_poolings())}],
    "model.pooling_channels": [
        {"model.pooling": Condition(("bilinear", "compact_bilinear", "isqrt_cov"))}
    ],
    "model.pooling_dim": [{"model.pooling": Condition(("compact_bilinear",))}],
    "model.gem_power": [{"model.pooling": Condition(("gem",))}],
    "model.attention_heads": [{"model.pooling": Condition(("attention",)), **_FINETUNE}],
    "model.dropout": [_ENCODER],
    "model.latent_dim": [_ENCODER],
    "model.decoder": [_GSFL],
    "model.groups.": [_GROUPED],
    "model.groups.count": [{**_GROUPED, "model.groups.method": _COUNTED}],
    "model.groups.taxonomy": [{**_GROUPED, "model.groups.method": Condition(("taxonomy",))}],
    "loss.reconstruction": [_GSFL],
    "loss.class_center": [_GSFL],
    "loss.shared_center": [_GSFL],
    "loss.center_rate": [_GSFL],
    "loss.center_init": [_GSFL],
    "loss.reconstruction_target": [{**_GSFL, **_FINETUNE}],
    **{
        f"loss.{head.section}.": [{"model.head": Condition((name,))}]
        for name, head in HEADS.items()
        if head.section
    },
    "loss.terms.": [_GSFL],
    **{f"loss.{name}.": [_of_term(name)] for name in LOSS_TERMS},
    "loss.causality.": [{**_of_term("causality"), "training.finetune.snr": Condition((True,))}],
    "loss.metric_learning.centers": [
        {
            **_of_term("metric_learning"),
            "loss.metric_learning.kind": Condition(("subcenter_arcface", "soft_triple")),
        }
    ],
    **{f"training.{name}.": [{"training.method": Condition((name,))}] for name in METHOD_SECTIONS},
    **{
        f"training.{name}.": [{"training.method": Condition((name,)), **_FINETUNE}]
        for name in FINETUNE_METHODS
    },
    **{
        f"training.attribute_attention.{name}": [
            {
                "training.method": Condition(("attribute_attention",)),
                **_FINETUNE,
                "training.attribute_attention.contrast": _POSITIVE,
            }
        ]
        for name in ("temperature", "absent")
    },
    "training.teacher": [_of_term("distill")],
    "pretrain.": [_PRETRAIN],
    "pretrain.augment.": [_PRETRAIN],
    "pretrain.momentum": [{**_PRETRAIN, "pretrain.optimizer": _SGD}],
    "pretrain.temperature": [{**_PRETRAIN, "pretrain.method": Condition(("moco", "dino"))}],
    "pretrain.queue": [{**_PRETRAIN, "pretrain.method": Condition(("moco",))}],
    "pretrain.norm_groups": [{**_PRETRAIN, "pretrain.method": Condition(("moco",))}],
    "pretrain.teacher_momentum": [
        {**_PRETRAIN, "pretrain.method": Condition(("moco", "byol", "dino"))}
    ],
    **{
        f"pretrain.{name}": [{**_PRETRAIN, "pretrain.method": Condition(("dino",))}]
        for name in ("teacher_temperature", "prototypes")
    },
    "pretrain.sketch_weight": [{**_PRETRAIN, "pretrain.method": Condition(("lejepa",))}],
    "pretrain.discriminative.": _DECODED,
    "pretrain.discriminative.pair_weight": [_PRETRAIN],
    "pretrain.discriminative.reconstruction_weight": [_PRETRAIN],
    "pretrain.discriminative.strength": [
        {**each, "pretrain.discriminative.perturbation": Condition(("noise",))} for each in _DECODED
    ],
    "pretrain.lcr.": [{**_PRETRAIN, "pretrain.lcr.weight": _POSITIVE}],
    "pretrain.lcr.weight": [_PRETRAIN],
    "training.head.": [_HEAD],
    "training.head.momentum": [{**_HEAD, "training.head.optimizer": _SGD}],
    "training.head.min_learning_rate": [{**_HEAD, "training.head.schedule": _COSINE}],
    "training.head.generate.": [_GENERATE],
    "training.head.generate.share": [_HEAD],
    **{
        f"training.head.generate.{name}": [
            {**_GENERATE, "training.head.generate.critic": Condition(critics)}
        ]
        for name, critics in {
            "gradient_penalty": PENALISED,
            "margin": ("relation",),
            "instance_weight": ("instance",),
            "temperature": ("instance",),
        }.items()
    },
    "training.finetune.": [_FINETUNE],
    "training.finetune.fourier_band": [{**_FINETUNE, "training.finetune.fourier": _POSITIVE}],
    "training.finetune.momentum": [{**_FINETUNE, "training.finetune.optimizer": _SGD}],
    "training.finetune.adapter_rank": [{**_FINETUNE, **_ADAPTERS}],
    "training.finetune.adapter_scale": [{**_FINETUNE, **_ADAPTERS}],
    "training.finetune.schedule": [{**_FINETUNE, **_SCHEDULED}],
    "training.finetune.min_learning_rate": [
        {**_FINETUNE, **_SCHEDULED, "training.finetune.schedule": _COSINE}
    ],
}
"""Needs of a leaf (or of a section, with a dot at the end): all of one of these mappings."""

# Leaves that would only need themselves.
_FREE = (
    "training.head.epochs",
    "training.finetune.epochs",
    *(f"loss.{name}.weight" for name in LOSS_TERMS if name not in SHARED_TERMS),
)

# A term of a package may take part with any head.
_ADDED = "loss.terms."
_POOLING = "model.pooling"


def needs_of(path: str) -> Sequence[Need]:
    """Returns what a leaf needs, one of these; none for a leaf that always has an effect.

    Args:
        path: Its dotted path.
    """
    if path in _FREE:
        return []
    if path in NEEDS:
        return NEEDS[path]
    section = path.rpartition(".")[0]
    return NEEDS.get(f"{section}.", [])


def is_idle(path: str, value_of: Callable[[str], Any]) -> bool:
    """Returns whether a leaf has no effect in a configuration, whatever its value.

    Args:
        path: Dotted path of the leaf.
        value_of: Returns the value of another leaf of the configuration.
    """
    if path.startswith(_ADDED):
        return False
    needs = needs_of(path)
    return bool(needs) and not any(
        # A weight of 0 is a value like others.
        all(
            each == path or _holds(each, condition, value_of(each))
            for each, condition in need.items()
        )
        for need in needs
    )


def _holds(path: str, condition: Condition, value: Any) -> bool:
    # What a pooling of a package takes, the table does not say.
    return condition.holds(value) or (path == _POOLING and value not in BUILT_IN["pooling"])
