"""The reference of experiment files in Markdown, generated from the schema."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any

from gsfl_tune.experiment.fields import MISSING, Leaf, leaves, number, sections
from gsfl_tune.experiment.loss_terms import LOSS_TERMS, SHARED_TERMS
from gsfl_tune.experiment.methods import FINETUNE_METHODS, METHOD_SECTIONS

_WIDTH = 118

_HEADER = """\
# The YAML reference

Every key of an experiment file. This page is generated from the schema (`gsfl-tune schema --markdown`), as
[schema.json](../schema.json) is, which editors use. [The experiment file](../experiment.md) explains
how a file is put together; [the template](../../search_spaces/image_folder.yaml) is one to begin with.

*Searched* says whether the key may be a [distribution](#distributions). *When*
says under which conditions a key has an effect; elsewhere it is ignored.
"""

_GRAMMAR = """\
## Distributions

Where *searched* says yes, a value may be one of these mappings.

| form | example | meaning |
| --- | --- | --- |
| choice | `backbone: {choice: [resnet50, convnext_tiny]}` | one of the values |
| int | `count: {int: [1, 20]}` | an integer, both ends included |
| float | `dropout: {float: [0, 0.7]}` | a number, both ends included |
| named mappings | `size: {choice: {small: {latent_dim: 128}, large: {latent_dim: 1024, dropout: 0.5}}}` | \
one of the mappings, merged into the section; the key (`size`) is free |
| alternatives | `learning_rate: [{float: [1e-4, 1e-2], log: true, when: {training.head.optimizer: adamw}}, \
{float: [1e-3, 1], log: true, when: {training.head.optimizer: sgd}}]` | the distribution whose condition \
holds; the conditions must exclude each other; the parameters are called `PATH@0`, `PATH@1` |

Each of them takes more keys:

| key | with | example | meaning |
| --- | --- | --- | --- |
| `log` | int, float | `learning_rate: {float: [1e-4, 1e-2], log: true}` | draw evenly on a logarithmic \
scale; the lower end must be above 0; not with `step` |
| `step` | int, float | `latent_dim: {int: [128, 1024], step: 128}` | the distance of values |
| `default` | all | `dropout: {float: [0, 0.7], default: 0.28}` | what `train` and the first trial use; \
else the first choice, or the middle of the range (the geometric one with `log`) |
| `when` | all | `blocks: {choice: [all, 2], when: {training.finetune.epochs: {gt: 0}}}` | the condition \
under which it is drawn; all that are named must hold |
| `else` | with `when` | `count: {int: [2, 20], when: {model.groups.method: kmeans}, else: 8}` | the value \
while the condition does not hold; without it the key's default |

A condition names a key by its dotted path, fixed or searched. Its value is a scalar (equals), a list (any of them),
or compares: `{gt: 0}`, `{ge: 1}`, `{lt: 10}`, `{le: 9}`. Conditions must not form a cycle.
"""

# Conditions of keys (or sections, with a dot at the end) that do not always have an effect.
CONDITIONS = {
    "data.path": "all sources but `typefaces`",
    "data.download": "sources `aircraft`, `flowers102`, `pets`, `food101`, `dtd`, `gtsrb`",
    "data.classes": "source `folder`",
    "data.config": "sources `parquet`, `webdataset`",
    "data.image_column": "sources `csv`, `jsonl`, `parquet`, `arrow`, `webdataset`",
    "data.label_column": "sources `csv`, `jsonl`, `parquet`, `arrow`, `webdataset`",
    "data.group_column": "sources `csv`, `jsonl`, `parquet`, `arrow`",
    "data.split_column": "sources `csv`, `jsonl`, `parquet`, `arrow`",
    "data.box_columns": "sources `csv`, `jsonl`",
    "data.box_format": "sources `csv`, `jsonl`",
    "data.root": "sources `csv`, `jsonl`, `coco`",
    "data.crop": "sources with boxes: `csv`, `jsonl`, `coco`, `cub`, `nabirds`, `dogs`, `cars`",
    "data.point_columns": "sources `csv`, `jsonl`; shown by `data`; method `part_rcnn`, methods of packages",
    "data.attribute_columns": "sources `csv`, `jsonl`; shown by `data`; `loss.attributes`, method `attribute_attention`",
    "data.class_text": "shown by `data`; `model.classifier_init: class_text`; for methods of packages",
    "data.text_model": "`model.classifier_init: class_text` with texts, not embeddings",
    "data.text_weights": "as `text_model`",
    "data.unlabelled": "method `fixmatch`, methods of packages, and `pretrain`",
    "data.crop_margin": "`data.crop: box`",
    "data.split.": "where the source has no such part of its own",
    "data.split.together": "in every split, also between given parts",
    "data.eval_image_size": "in the finetune stage",
    "data.augment.": "in the finetune stage, and with `data.views`",
    "data.augment.rand_operations": "policy `rand`, in the finetune stage, and with `data.views`",
    "data.augment.rand_magnitude": "policy `rand`, in the finetune stage, and with `data.views`",
    "data.augment.restorer": "`data.augment.degrade` above 0, in the finetune stage, and with `data.views`",
    "data.augment.transforms.": "in the finetune stage, and with `data.views`",
    "data.typefaces.": "source `typefaces`",
    "model.backbone_b": "poolings `bilinear`, `compact_bilinear`",
    "model.weights_b": "with `model.backbone_b`",
    "model.layer_b": "poolings `average`, `attention`, `gem`, `bilinear`, `compact_bilinear`, `isqrt_cov`, and those of packages that read the map; not with `model.backbone_b`",
    "model.pooling_channels": "poolings `bilinear`, `compact_bilinear`, `isqrt_cov`",
    "model.pooling_dim": "pooling `compact_bilinear`",
    "model.gem_power": "pooling `gem`",
    "model.attention_heads": "pooling `attention`, in the finetune stage",
    "model.dropout": "heads `gsfl`, `plain`, `fsdg`",
    "model.latent_dim": "heads `gsfl`, `plain`, `fsdg`",
    "model.decoder": "head `gsfl`",
    "model.groups.": "heads `gsfl`, `fsdg`",
    "model.groups.count": "heads `gsfl`, `fsdg`; not with `taxonomy` and `single`; at most half of the classes "
    "are searched",
    "model.groups.taxonomy": "method `taxonomy`; `typefaces`, `nabirds` and `inaturalist` bring one "
    "along, and so do folders above the classes (`data.classes`) and supercategories (`coco`)",
    "loss.reconstruction": "head `gsfl`",
    "loss.class_center": "head `gsfl`",
    "loss.shared_center": "head `gsfl`",
    "loss.center_rate": "head `gsfl`",
    "loss.center_init": "head `gsfl`",
    "loss.reconstruction_target": "head `gsfl`, in the finetune stage",
    "loss.fsdg.": "head `fsdg`",
    "loss.terms.": "head `gsfl`, but for terms that take part with any",
    **{
        f"loss.{name}.": f"`loss.{name}.weight` above 0"
        + (", head `gsfl`" if name in SHARED_TERMS else "")
        for name in LOSS_TERMS
    },
    "loss.causality.": "`training.finetune.snr`",
    "loss.metric_learning.centers": "kinds `subcenter_arcface`, `soft_triple`",
    **{f"training.{name}.": f"method `{name}`" for name in METHOD_SECTIONS},
    **{f"training.{name}.": f"method `{name}`, in the finetune stage" for name in FINETUNE_METHODS},
    **dict.fromkeys(
        ("training.attribute_attention.temperature", "training.attribute_attention.absent"),
        "`training.attribute_attention.contrast` above 0",
    ),
    **dict.fromkeys(
        ("pretrain.", "pretrain.augment."), "`gsfl-tune pretrain`, and `training.pretrain: true`"
    ),
    "pretrain.momentum": "optimizer `sgd`",
    "pretrain.temperature": "methods `moco`, `dino`",
    "pretrain.queue": "method `moco`",
    "pretrain.norm_groups": "method `moco`, backbones with batch norms",
    "pretrain.teacher_momentum": "methods `moco`, `byol`, `dino`",
    "pretrain.teacher_temperature": "method `dino`",
    "pretrain.prototypes": "method `dino`",
    "pretrain.sketch_weight": "method `lejepa`",
    "pretrain.discriminative.": "as `pretrain`, `pair_weight` or `reconstruction_weight` above 0",
    "pretrain.discriminative.pair_weight": "as `pretrain`",
    "pretrain.discriminative.reconstruction_weight": "as `pretrain`",
    "pretrain.discriminative.strength": "perturbation `noise`",
    "pretrain.lcr.": "as `pretrain`, `pretrain.lcr.weight` above 0",
    "pretrain.lcr.weight": "as `pretrain`",
    "training.teacher": "`loss.distill.weight` above 0",
    "training.head.": "`training.head.epochs` above 0",
    "training.head.momentum": "optimizer `sgd`",
    "training.head.min_learning_rate": "schedule `cosine`",
    "training.head.generate.": "`training.head.epochs` and `training.head.generate.share` above 0",
    "training.head.generate.share": "`training.head.epochs` above 0",
    "training.head.generate.gradient_penalty": "critics `wasserstein`, `instance`",
    "training.head.generate.margin": "critic `relation`",
    "training.head.generate.instance_weight": "critic `instance`",
    "training.head.generate.temperature": "critic `instance`",
    "training.finetune.": "`training.finetune.epochs` above 0",
    "training.finetune.fourier_band": "`training.finetune.fourier` above 0",
    "training.finetune.momentum": "optimizer `sgd`",
    "training.finetune.schedule": "optimizers `adamw`, `sgd`, `muon`",
    "training.finetune.min_learning_rate": "schedule `cosine`, optimizers `adamw`, `sgd`, `muon`",
    "training.finetune.adapter_rank": "`train: lora` and `train: dora`",
    "training.finetune.adapter_scale": "`train: lora` and `train: dora`",
    "search.sampler.startup_trials": "samplers `tpe`, `gp`, `cmaes`",
    "search.sampler.near_defaults": "sampler `tpe` with one objective",
    "search.sampler.cost_ratio": "sampler `tpe` or `random`",
    "search.scheduler.grace": "scheduler `asha`",
    "search.scheduler.pretrain_grace": "scheduler `asha`, with `training.pretrain`",
    "search.scheduler.reduction": "scheduler `asha`",
    "search.scheduler.brackets": "scheduler `asha`",
    "search.scheduler.promote": "scheduler `asha`",
    "search.scheduler.by_objectives": "scheduler `asha`, with `search.objectives`",
    "search.resources.wait": "on a cluster",
    "search.resources.gpus_per_trial": "needs a finetune stage or `training.pretrain`",
    "search.resources.workers_per_trial": "needs a finetune stage or `training.pretrain`",
    "search.resources.shard": "several processes a trial, a finetune stage, no time budget",
}


def yaml_reference() -> str:
    """Returns the page: one table per section in the order of the schema, then the grammar."""
    parts = [_HEADER, *_sections(), _GRAMMAR]
    return "\n".join(parts)


def _sections() -> Iterator[str]:
    for path, model in sections().items():
        own = [leaf for leaf in leaves().values() if leaf.path.rpartition(".")[0] == path]
        title = f"`{path}`" if path else "The file"
        level = "#" * (2 + path.count("."))
        yield f"{level} {title}\n\n{_about(path, model)}\n"
        if own:
            rows = [
                "| key | allowed | default | searched | meaning |",
                "| --- | --- | --- | --- | --- |",
            ]
            yield "\n".join([*rows, *map(_row, own)]) + "\n"


def _about(path: str, model: Any) -> str:
    if not path:
        inside = ", ".join(
            f"[`{name}`](#{name})" for name in sections() if name and "." not in name
        )
        return _wrapped(
            f"Besides these keys a file has the sections {inside}; only `data` is required."
        )
    about = _text(model.__doc__ or "")
    if f"{path}." in CONDITIONS:
        about += f" *When:* {CONDITIONS[f'{path}.']}."
    return _wrapped(about if model.model_fields else f"{about} [How to add one](../extending.md).")


def _row(leaf: Leaf) -> str:
    key = leaf.path.rpartition(".")[2]
    meaning = _text(leaf.field.description or "")
    if leaf.path in CONDITIONS:
        meaning += f" *When:* {CONDITIONS[leaf.path]}."
    searched = "yes" if leaf.not_searched is None else "no"
    cells = [f"`{key}`", _allowed(leaf), _default(leaf), searched, meaning]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _allowed(leaf: Leaf) -> str:
    text, matching, pattern = leaf.allowed.partition("text matching ")
    return f"{matching}`{pattern}`" if matching and not text else _text(leaf.allowed)


def _default(leaf: Leaf) -> str:
    if leaf.default is MISSING:
        return "must be given"
    default = leaf.default
    if default is None:
        return "none"
    if isinstance(default, float):
        return f"`{number(default)}`"
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _WIDTH, break_long_words=False, break_on_hyphens=False)


def _text(text: str) -> str:
    """Converts plain text of the code to one line of Markdown, with markup characters escaped."""
    return " ".join(text.split()).replace("<", "&lt;").replace("*", "\\*")
