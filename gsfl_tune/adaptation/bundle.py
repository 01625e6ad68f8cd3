"""Writes the adapted bundle, without what no longer holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gsfl_tune.adaptation.report import Adapted
from gsfl_tune.bundles import files
from gsfl_tune.export import Bundle
from gsfl_tune.export.bundle import own_version
from gsfl_tune.export.card import model_card
from gsfl_tune.models import Network

# Keys of config.json that go on to hold.
_KEPT = ("name", "model", "architecture", "preprocessing", "experiment")
_MODELS = ("winner", "control", "probe")


def removed_parts(bundle: Bundle, description: Mapping[str, Any]) -> list[str]:
    """Names the parts of a bundle that do not hold for an adapted network.

    Args:
        bundle: The bundle.
        description: Its ``config.json``.
    """
    parts = {
        "test results (metrics.json)": bool(bundle.metrics),
        "thresholds of --threshold auto": bool(bundle.calibration.get("rejections")),
        f"shared branch ({files.SHARED})": bundle.has_shared,
        f"training images ({files.NEIGHBOURS})": bundle.has_neighbours,
        "export measurements": bool(description.get("export")),
    }
    return [name for name, there in parts.items() if there]


def write_adapted(
    out: Path, network: Network, bundle: Bundle, description: Mapping[str, Any], found: Adapted
) -> None:
    """Writes the bundle as an export does, see `files.fill_directory`.

    Args:
        out: The directory; missing or empty.
        network: The adapted network.
        bundle: The bundle that was adapted.
        description: Its ``config.json``.
        found: What the adaptation did.

    Raises:
        UserError: If the directory cannot be written, or is not empty any more.
    """
    weights = files.tensor_bytes(dict(network.inference_state()))
    facts = {
        "source": found.source,
        "source_sha256": description["sha256"][files.MODEL],
        "gsfl_tune": own_version(),
        "images": found.images,
        "images_digest": found.digest,
        "broken": len(found.broken),
        "settings": found.settings.to_json(),
        "removed": found.removed,
        # They are divided out of the classifier, which did not change.
        "source_temperature": bundle.calibration.get("temperature"),
        "source_trained_on": description.get("trained_on"),
    }
    # Without it a network that has lost channels could not be built.
    prune = description.get("export", {}).get("prune")
    export = {"format": "safetensors", "precision": "fp32", "prune": prune} if prune else None
    content = {
        "format": files.FORMAT,
        "gsfl_tune": own_version(),
        **{key: description[key] for key in _KEPT if key in description},
        "sha256": {files.MODEL: files.sha256(weights)},
        **({} if export is None else {"export": export}),
        "adapted": [*description.get("adapted", []), facts],
    }
    contents = {
        files.MODEL: weights,
        files.CONFIG: files.json_bytes(content),
        files.CLASSES: files.json_bytes(bundle.classes),
        files.GROUPS: files.json_bytes(bundle.groups),
        files.METRICS: files.json_bytes({"adaptation": found.to_json()}),
        files.CARD: _card(bundle, content, found).encode(),
    }

    def fill(folder: Path) -> None:
        for name, data in contents.items():
            (folder / name).write_bytes(data)

    files.fill_directory(out, fill)


def _card(bundle: Bundle, content: Mapping[str, Any], found: Adapted) -> str:
    """Writes the model card: what was done to the bundle, before all that it still is."""
    paragraphs = _paragraphs(found, content["adapted"])
    kind = content.get("model", "winner")
    try:
        return model_card(
            bundle.config,
            classes=bundle.classes,
            groups=bundle.groups,
            preprocessing=content["preprocessing"],
            metrics={},
            model=kind if kind in _MODELS else "winner",
            adaptation=paragraphs,
        )
    except (KeyError, TypeError):  # the configuration of another version
        title = f"# {bundle.config.get('name', 'bundle')}"
        return "\n\n".join([title, "## Adaptation", *paragraphs]) + "\n"


def _paragraphs(found: Adapted, history: Sequence[Mapping[str, Any]]) -> list[str]:
    own = found.settings
    blocks = "the backbone" if own.blocks == "all" else f"the backbone's last {own.blocks} blocks"
    if own.part != "all":
        blocks = f"the {own.part} of {blocks}"
    trained = [
        *([blocks] if own.blocks else []),
        *(["the encoder with its pooling"] if own.train_encoder else []),
    ]
    first, last = found.records[0], found.records[-1]
    lines = [
        f"**This bundle was adapted to other images after its training, without labels.** It was "
        f"made from `{found.source}` (SHA-256 of its weights "
        f"`{history[-1]['source_sha256'][:16]}...`) on {found.images:,} images (digest "
        f"`{found.digest}`), by SHOT (Liang et al., ICML 2020): the classifier stayed, "
        f"{' and '.join(trained)} were trained for {own.epochs} epochs (learning rate "
        f"{own.learning_rate:g}, batch {own.batch_size}, beta {own.beta:g}, seed {own.seed}).",
        f"On these images {100 * found.changed:.1f} % of the answers changed. Their mean entropy "
        f"was {first['entropy']:.3f} nats before and {last['entropy']:.3f} after. Neither says "
        "whether the answers are right.",
        found.judged.sentence[0].upper() + found.judged.sentence[1:] + "."
        if found.judged
        else "It was not judged on labelled images.",
    ]
    if found.warnings:
        lines.append("\n".join(f"- **warning**: {line}" for line in found.warnings))
    if found.removed:
        lines.append(
            f"What does not hold any more was removed: {', '.join(found.removed)}. The temperature "
            "of the source is still in the weights, but its probabilities are not calibrated on "
            "these images."
        )
    if len(history) > 1:
        lines.append(f"It is the adaptation number {len(history)}; `config.json` lists all.")
    return lines
