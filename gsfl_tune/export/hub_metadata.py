"""Metadata of a model card, as the Hugging Face hub reads it: licence, tags, results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gsfl_tune.experiment.heads import HEADS
from gsfl_tune.export.card_backbones import streams
from gsfl_tune.models import hub_place
from gsfl_tune.models.licences import UNKNOWN, licence

# Identifiers that the hub knows and that weights of backbones have; any other is `other` with a
# name (https://huggingface.co/docs/hub/repositories-licenses).
KNOWN_LICENCES = frozenset(
    {
        *("apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "isc", "unlicense"),
        *("cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0"),
        *("cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-2.0"),
        *("cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0"),
        *("cc-by-nd-4.0", "gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0"),
        *("agpl-3.0", "mpl-2.0", "openrail", "apple-amlr", "apple-ascl", "wtfpl", "zlib", UNKNOWN),
    }
)
_METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "top5": "top-5 accuracy",
    "nll": "negative log-likelihood",
    "ece": "expected calibration error",
}


def card_metadata(
    description: Mapping[str, Any], metrics: Mapping[str, Any], chosen: str | None = None
) -> str:
    """Writes the YAML between the lines of a card's head.

    Args:
        description: Content of ``config.json``.
        metrics: Content of ``metrics.json``.
        chosen: Identifier of a licence; default: that of the backbone's weights.
    """
    from huggingface_hub import EvalResult, ModelCardData

    experiment = description["experiment"]
    settings = experiment["model"]
    name = str(experiment.get("name", "bundle"))
    results = [
        EvalResult(
            task_type="image-classification",
            task_name="Image classification",
            dataset_type=str(experiment["data"].get("source", "folder")),
            dataset_name=name,
            dataset_split="test",
            metric_type=metric,
            metric_name=title,
            metric_value=value,
        )
        for metric, title, value in _results(description, metrics)
    ]
    data = ModelCardData(
        library_name="gsfl-tune",
        pipeline_tag="image-classification",
        tags=_tags(description),
        base_model=_base_models(streams(settings)),
        metrics=[metric for metric in ("accuracy",) if results],
        # The hub lists results under a name of their own.
        model_name=name if results else None,
        eval_results=results or None,
        **_licence(streams(settings), chosen),
    )
    return str(data.to_yaml())


def _licence(backbones: Sequence[tuple[str, str]], chosen: str | None) -> dict[str, Any]:
    name = chosen or _name_of_all(backbones)
    if name is None:  # random weights, or somebody's file: the publisher's to say
        return {}
    if name.lower() in KNOWN_LICENCES:
        return {"license": name.lower()}
    return {"license": "other", "license_name": name}


def _name_of_all(backbones: Sequence[tuple[str, str]]) -> str | None:
    """Returns the licence of all pretrained weights, or names each where they differ."""
    pretrained = [(name, weights) for name, weights in backbones if weights != "none"]
    names = {licence(name, weights).name for name, weights in pretrained}
    known = sorted(name for name in names if name is not None)
    if not known or len(known) < len(names):
        return None
    return UNKNOWN if UNKNOWN in known else " and ".join(known)


def _tags(description: Mapping[str, Any]) -> list[str]:
    export = description.get("export", {})
    tag = HEADS[description["experiment"]["model"]["head"]].tag
    return [
        "image-classification",
        "fine-grained-classification",
        "gsfl-tune",
        *([tag] if tag and description.get("model") == "winner" else []),
        "timm",
        export.get("format", "safetensors").replace("torch-export", "torch.export"),
    ]


def _base_models(backbones: Sequence[tuple[str, str]]) -> str | list[str] | None:
    found = (_base_model(name, weights) for name, weights in backbones)
    names = list(dict.fromkeys(name for name in found if name is not None))
    return names if len(names) > 1 else next(iter(names), None)


def _base_model(backbone: str, weights: str) -> str | None:
    """Returns the repository of the pretrained weights; None if they are not from the hub."""
    import timm

    if (place := hub_place(weights)) is not None:
        return place.repository
    if weights != "imagenet":
        return None
    config = timm.get_pretrained_cfg(backbone)
    if config is None or not config.hf_hub_id:
        return None
    owner = str(config.hf_hub_id)
    if not owner.endswith("/"):
        return owner
    full = f"{config.architecture}.{config.tag}" if config.tag else str(config.architecture)
    return f"{owner}{full}"


def _results(
    description: Mapping[str, Any], metrics: Mapping[str, Any]
) -> list[tuple[str, str, float]]:
    """Returns (metric, title, value) of the test images: of these weights, not of the mean."""
    table = description.get("export", {}).get("table")
    if table:
        row = table[-1]  # the file's own, behind the network that it was made of
        found = {"accuracy": row["test"], "nll": row.get("nll"), "ece": row.get("ece")}
    else:
        own = (metrics.get(description.get("model", "winner")) or {}).get("test", {})
        found = {key: (score.get("values") or [score["mean"]])[0] for key, score in own.items()}
    return [
        (metric, f"Test {title}", round(float(found[metric]), 6))
        for metric, title in _METRICS.items()
        if found.get(metric) is not None
    ]
