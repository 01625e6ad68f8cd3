"""The model card of a bundle: use, results, limits, preprocessing and training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gsfl_tune.experiment.heads import HEADS
from gsfl_tune.experiment.metrics import METRIC_TITLES
from gsfl_tune.export.card_backbones import backbones_and_licences, streams, weights_words
from gsfl_tune.export.pick_findings import told_ahead
from gsfl_tune.run.further import further_rows
from gsfl_tune.run.results import Calibration, Results
from gsfl_tune.run.verdict import Model, ahead, verdicts
from gsfl_tune.training.timeline import STAGES

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
- It always answers with one of its classes, even for an image that shows none of them: check
  the probability, and test the bundle on such images before you rely on it.
- {calibrated}
- The numbers hold for images like the test images. Other cameras, crops or rendering usually
  give worse results: run `gsfl-tune evaluate` on your own images.
"""

_LICENCE = """\
The weights derive from the pretrained backbone and from the training images. The licences of
both apply to them in addition to the one under which you publish this bundle.

{backbones}
- Your images: only you know.
"""


def model_card(
    config: Mapping[str, Any],
    *,
    classes: Sequence[str],
    groups: Mapping[str, int],
    preprocessing: Mapping[str, Any],
    metrics: Mapping[str, Any],
    model: Model = "winner",
    calibration: Calibration | None = None,
    adaptation: Sequence[str] = (),
) -> str:
    """Writes the card in Markdown.

    Args:
        config: The complete configuration of the winner.
        classes: Class names, in the order of the outputs.
        groups: Group of every class; empty for a plain head.
        preprocessing: ``image_size``, ``side``, ``fit``, ``mean``, ``std``.
        metrics: Content of ``metrics.json``; missing parts are left out.
        model: Which of the models in `metrics` it is.
        calibration: The temperature in its weights, and its thresholds.
        adaptation: Paragraphs on what was changed after the training, if anything was.
    """
    settings, data = config["model"], config["data"]
    kind = {"control": "plain classifier, the control", "probe": "linear classifier"}.get(
        model, HEADS[settings["head"]].title
    )
    results = _results(metrics)
    encodes = HEADS[settings["head"]].encodes
    holds = (
        "the frozen backbone and a logistic regression of its features"
        if model == "probe"
        else f"the backbone{', the discriminative encoder' if encodes else ''} and the classifier, "
        "but not the parts that only training needed"
    )
    sections = [
        f"# {config['name']}",
        *_first(results, model),
        f"An image classifier for {len(classes)} classes: a {kind} on "
        f"{' and '.join(f'`{name}`' for name, _ in streams(settings))} "
        f"({settings['pooling'].replace('_', ' ')} pooling), from a gsfl-tune search. The bundle "
        f"holds {holds}.",
        *(["## Adaptation", *adaptation] if adaptation else []),
        "## Test",
        _test_table(metrics, model, results),
        *_further(results),
        *_calibration(calibration),
        *_findings(results),
        "## Classes",
        _class_list(classes, groups),
        "## Training",
        _training(config, model, metrics),
        "## Preprocessing",
        f"`{data['fit']}` to a square of {preprocessing['side']} px, resize and centre crop to "
        f"{preprocessing['image_size']} px, RGB in 0..1, mean {_numbers(preprocessing['mean'])}, "
        f"standard deviation {_numbers(preprocessing['std'])}. `load_bundle` does all of it."
        + _cropped(data)
        + _synthetic(data),
        "## Loading",
        _LOADING.rstrip(),
        "## Limits",
        _LIMITS.format(calibrated=_calibrated(calibration, tested=bool(metrics))).rstrip(),
        "## Licence of the weights",
        _LICENCE.format(backbones=backbones_and_licences(settings)).rstrip(),
    ]
    return "\n\n".join(sections) + "\n"


def _cropped(data: Mapping[str, Any]) -> str:
    """Says that images must be cropped to boxes, if the training images were."""
    if data.get("crop", "none") != "box":
        return ""
    return (
        f"\n\n**It was trained and tested on boxes, cut out with a margin of "
        f"{100 * data['crop_margin']:g} % of their sides.** `predict` does not use boxes: crop "
        "images in the same way first; expect worse results for whole images."
    )


def _synthetic(data: Mapping[str, Any]) -> str:
    """Says that the network has seen synthetic images, if it has."""
    if not data.get("synthetic"):
        return ""
    return (
        "\n\n**Synthetic images were among the training images** (`data.synthetic`): a diffusion "
        "pipeline made them from other training images. Validation and test have none."
    )


def _results(metrics: Mapping[str, Any]) -> Results | None:
    """Returns the results of the run; None if `metrics` are not (yet) those of a whole run."""
    try:
        return Results.from_json(metrics)
    except (KeyError, TypeError, AttributeError):
        return None


def better_than(metrics: Mapping[str, Any], model: Model) -> str | None:
    """Returns the sentence on a better model of the same run that a winner's card begins with.

    Args:
        metrics: Content of ``metrics.json`` of a bundle.
        model: Which of the models in `metrics` the bundle is.
    """
    first = _first(_results(metrics), model) if model == "winner" else []
    return first[0].strip("*") if first else None


def _first(results: Results | None, model: Model) -> list[str]:
    """Returns the most important note: that there is a better model beside this one."""
    if results is None:
        return []
    first = ahead(results)
    if first is None:
        # The results of a picked trial hold no other model: its findings tell.
        return [f"**{each}**" for each in told_ahead(results.findings or ())[:1]]
    if model != "winner":
        return [first.replace("its bundle is in best-simple/.", "this is its bundle.")]
    return [f"**{first}**"]


def _findings(results: Results | None) -> list[str]:
    """Lists the findings, the most severe first."""
    if results is None or not results.findings:
        return []
    lines = [f"- **{each.severity}**: {each.sentence}" for each in results.findings]
    return ["## Findings", "\n".join(lines)]


def _calibration(calibration: Calibration | None) -> list[str]:
    """Describes the temperature of the probabilities and the thresholds for ``unknown``."""
    if calibration is None:
        return []
    before, after, half = calibration.before, calibration.after, calibration.half
    seeds = f"{calibration.seeds} training{'s' if calibration.seeds > 1 else ''}"
    text = (
        f"The logits are divided by a temperature of {calibration.temperature:.3g}, which is in "
        f"the weights. It was fitted on {calibration.images} validation images and {seeds} that "
        "had not seen them. This model was trained on them later, so its own answers could not be "
        f"used. On the test images, ECE was {before['ece'].mean:.4f} before and "
        f"{after['ece'].mean:.4f} after, NLL {before['nll'].mean:.4f} and {after['nll'].mean:.4f}"
    )
    # A finding says whether the difference is more than chance.
    text += "." if calibration.carries_over else ": **NLL is higher with it**."
    if half is None:
        return ["## Calibration", f"{text} No validation answer was wrong: there is no threshold."]
    text += (
        f"\n\n`predict --threshold auto` answers `unknown` below {half.threshold:.3f}: this "
        f"rejects {100 * half.rejected_errors:.0f} % of the errors on validation and "
        f"{100 * half.rejected_right:.1f} % of the right answers"
    )
    if half.test_errors is not None and half.test_right is not None:
        text += (
            f"; on the test images {100 * half.test_errors:.0f} % and {100 * half.test_right:.1f} %"
        )
    return ["## Calibration", f"{text}."]


def _calibrated(calibration: Calibration | None, *, tested: bool) -> str:
    if calibration is None and not tested:
        return "Its probabilities come from the network without calibration."
    if calibration is None:
        return (
            "Its probabilities come from the network without calibration; the calibration error\n"
            "  above says how wrong they are."
        )
    return (
        "Its probabilities are calibrated on images like those it was trained on. On other images "
        "they\n  can be wrong by any amount."
    )


def _test_table(metrics: Mapping[str, Any], model: Model, results: Results | None) -> str:
    rows = [
        (f"**{label}, this bundle**" if key == model else label, metrics[key]["test"])
        for key, label in (
            ("winner", "winner"),
            ("control", "control (plain head)"),
            ("probe", "linear probe"),
        )
        if metrics.get(key)
    ]
    if not rows:
        return "Not tested yet."
    names = [name for name in METRIC_TITLES if all(name in scores for _, scores in rows)]
    lines = [
        "| | " + " | ".join(name.replace("_", " ") for name in names) + " |",
        "| --- |" + " --- |" * len(names),
    ]
    for label, scores in rows:
        lines.append(f"| {label} | " + " | ".join(_score(scores[name]) for name in names) + " |")
    text = "\n".join(lines)
    own = metrics.get(model) or {}
    interval = own.get("interval")
    if interval:
        text += (
            f"\n\nTest accuracy {100 * own['test']['accuracy']['mean']:.1f} %, "
            f"{100 * interval['level']:.0f} % interval {100 * interval['low']:.1f} to "
            f"{100 * interval['high']:.1f} ({interval['method']})."
        )
    if results is not None:
        for each in verdicts(results):
            text += f"\n\n{each.sentence}"
    seeds = own["test"][names[0]]["values"] if own and names else []
    if len(seeds) > 1:
        text += (
            f"\n\nMeans over {len(seeds)} seeds; the weights here are the first seed's"
            f" ({names[0].replace('_', ' ')} {seeds[0]:.4f}), not the best on the test images."
        )
    return text


def _further(results: Results | None) -> list[str]:
    """Returns the table of the metrics that are not in the first one."""
    models, rows = further_rows(results) if results is not None else ([], [])
    if not rows:
        return []
    lines = ["| | " + " | ".join(models) + " |", "| --- |" + " --- |" * len(models)]
    lines += [f"| {title} | " + " | ".join(cells) + " |" for title, cells in rows]
    note = (
        "Means over the classes that occur in the test images. The threshold of `--threshold auto` "
        "was chosen on validation images."
    )
    return ["\n".join(lines), note]


def _score(score: Mapping[str, Any]) -> str:
    return f"{score['mean']:.4f}"


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


def _training(config: Mapping[str, Any], kind: Model, metrics: Mapping[str, Any]) -> str:
    if kind == "probe":
        strength = (metrics.get("probe") or {}).get("strength")
        chosen = f" ({strength:g}, scikit-learn's C)" if strength is not None else ""
        return (
            f"- Pretrained weights: {weights_words(config['model']['weights'])}"
            f"{_unlabelled(config)}; not changed.\n"
            f"- Head: a logistic regression of unit features; its regularisation{chosen} was "
            f"chosen on validation images.\n"
            f"- Fitted on {_images(config)}."
        )
    model, loss, training = config["model"], config["loss"], config["training"]
    stages = [
        f"`{name}` {stage['epochs']} epochs ({stage['optimizer']}, learning rate "
        f"{stage['learning_rate']:.3g}, batch {stage['batch_size']})"
        for name, stage in ((each.name, training[each.name]) for each in STAGES)
        if stage["epochs"]
    ]
    lines = [
        f"- Pretrained weights: {weights_words(model['weights'])}{_unlabelled(config)}.",
        f"- Stages: {'; '.join(stages)}.",
        f"- Head: {_encoder(model)}feature scale {model['feature_scale']:.3g}.",
    ]
    if named := HEADS[model["head"]].weights:
        weights = ", ".join(f"{words} {_leaf(loss, path):.3g}" for words, path in named)
        lines.append(f"- Loss: {weights}; groups by {model['groups']['method']}.")
    lines.append(f"- Trained on {_images(config)}; the full configuration is in")
    lines.append("  `config.json`, key `experiment`.")
    return "\n".join(lines)


def _leaf(section: Mapping[str, Any], path: str) -> Any:
    value: Any = section
    for key in path.split("."):
        value = value[key]
    return value


def _encoder(model: Mapping[str, Any]) -> str:
    head = HEADS[model["head"]]
    if not head.encodes:
        return f"a {head.title}, "
    return f"latent dimension {model['latent_dim']}, dropout {model['dropout']:.3g}, "


def _images(config: Mapping[str, Any]) -> str:
    shots = config["data"].get("shots")
    if not shots:
        return "training and validation images"
    return f"{shots} training image{'s' * (shots > 1)} of each class"


def _unlabelled(config: Mapping[str, Any]) -> str:
    """Says what the backbone learned without labels, if anything."""
    if not config.get("training", {}).get("pretrain"):
        return ""
    own = config["pretrain"]
    return f"; then {own['epochs']} epochs of {own['method']} on the training images without labels"


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.3f}" for value in values) + ")"
