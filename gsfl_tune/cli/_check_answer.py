"""What ``gsfl-tune check`` says of an experiment: plain values, so that they can be kept."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from gsfl_tune.cli._base import load_experiment, showing
from gsfl_tune.cli._check_notes import notes
from gsfl_tune.cli._estimate import estimate_of, rows

if TYPE_CHECKING:
    from gsfl_tune.experiment import Experiment, Parameter
    from gsfl_tune.search.costs.estimate import Estimate
    from gsfl_tune.training.pricing.cost import Cost


def answer_of(args: argparse.Namespace) -> tuple[Experiment, dict[str, Any]]:
    """Checks an experiment and describes it.

    Args:
        args: Arguments of the command.

    Returns:
        The experiment, and for ``--json`` what is printed, else lines and tables by name. All
        values are those of JSON.

    Raises:
        ExperimentError: With every problem of the file.
    """
    with showing("reading the experiment, loading PyTorch", short=True):
        from gsfl_tune.experiment import ExperimentError
        from gsfl_tune.training.fit_precision import refuse_unfit_precision
        from gsfl_tune.training.pricing.problems import cost_problems

        experiment = load_experiment(args)
        problems = cost_problems(experiment)
    if problems:
        raise ExperimentError(problems)
    refuse_unfit_precision(experiment)
    estimate = estimate_of(args, experiment)
    if args.json:
        content = _json_content(experiment, estimate, args.price)
        plain: dict[str, Any] = json.loads(json.dumps(content, default=str))
        return experiment, plain
    described, images = _data(experiment)
    return experiment, {
        "file": str(experiment.file),
        "name": experiment.name,
        "parameters": [
            [
                parameter.name,
                parameter.distribution.describe(),
                _default(parameter),
                _condition(parameter),
            ]
            for parameter in experiment.space.parameters
        ],
        "data": described,
        "warnings": [str(warning) for warning in experiment.warnings],
        "cost": _cost_rows(experiment, images),
        "notes": notes(experiment),
        "estimate": None if estimate is None else rows(estimate, args.price),
    }


def _json_content(
    experiment: Experiment, estimate: Estimate | None, price: float | None
) -> dict[str, Any]:
    from gsfl_tune.training.pricing.cost import largest_model, memory_of_a_trial, search_cost

    assumed = experiment.provisional()
    cost, model = search_cost(assumed), largest_model(assumed)
    return {
        "file": experiment.file,
        "name": experiment.name,
        "parameters": [
            {
                "name": parameter.name,
                "distribution": parameter.distribution.describe(),
                "default": parameter.distribution.default,
                "condition": _condition(parameter) or None,
            }
            for parameter in experiment.space.parameters
        ],
        "warnings": [str(warning) for warning in experiment.warnings],
        "notes": notes(experiment),
        "planned": sorted(experiment.automatic),
        "most": {
            "trials": cost.trials,
            "search_epochs": cost.search_epochs,
            "retrainings": cost.retrainings,
            "final_epochs": cost.final_epochs,
            "model_bytes": model.bytes,
            "memory_bytes": memory_of_a_trial(experiment)[0],
        },
        "estimate": None if estimate is None else estimate.to_json(price),
    }


def _data(experiment: Experiment) -> tuple[list[str], int | None]:
    """Describes the data and counts the images, as far as a listing tells.

    Remote images are not read; their number is None.
    """
    from collections import Counter

    from gsfl_tune.data import cache_directory
    from gsfl_tune.data.exclude import leave_out
    from gsfl_tune.data.held_out import told_before
    from gsfl_tune.data.preparation import settle_validation
    from gsfl_tune.data.sources import create_source
    from gsfl_tune.data.synthetic import read_manifest, synthetic_folders
    from gsfl_tune.experiment import UserError

    config = experiment.defaults().data
    paths = [config.path] if isinstance(config.path, str) else config.path or []
    if config.source == "typefaces" or config.download or any("://" in path for path in paths):
        return [], None
    try:
        with showing("listing the images", short=True):
            source = leave_out(create_source(config, cache_directory()), config)
            synthetic = sum(map(len, map(read_manifest, synthetic_folders(config))))
    except UserError as error:
        return [f"Warning: {line}" for line in str(error).splitlines()], None
    parts = Counter(sample.part for sample in source.samples)
    told = [f"{part} {parts[part]:,}" for part in ("train", "validation", "test") if parts[part]]
    counts = f" ({', '.join(told)})" if told else ""
    settle_validation(source, config.split)
    measured = told_before(source, config.split, cache_directory())
    if measured is None and config.split.by == "auto":
        measured = [
            "`gsfl-tune data` and the search measure how near validation images are to training "
            "images (data.split.by: auto)"
        ]
    lines = [
        f"Data: {len(source.classes)} classes, {len(source.samples):,} images{counts}",
        *(f"Data: {notice}" for notice in source.told()),
        *(f"Data: {notice}" for notice in measured or ()),
        *(f"Warning: {problem}" for problem in source.problems),
    ]
    if synthetic:
        lines.append(f"Data: data.synthetic: {synthetic:,} images for the training part")
    return lines, len(source.samples) + synthetic


def _default(parameter: Parameter) -> str:
    from gsfl_tune.experiment.fields import show

    default = parameter.distribution.default
    return f"{default:.4g}" if isinstance(default, float) else show(default).strip("'")


def _condition(parameter: Parameter) -> str:
    from gsfl_tune.experiment.conditions import describe
    from gsfl_tune.experiment.fields import MISSING, show

    condition = describe(parameter.when)
    if parameter.otherwise is not MISSING:
        condition += ", else " + show(parameter.otherwise).strip("'")
    return condition


def _cost_rows(experiment: Experiment, images: int | None) -> dict[str, str]:
    from gsfl_tune.experiment.units import binary_size
    from gsfl_tune.training.pricing.cost import largest_model, memory_of_a_trial, search_cost

    assumed = experiment.provisional()
    cost, model = search_cost(assumed), largest_model(assumed)
    available, whose = memory_of_a_trial(experiment)
    control = experiment.defaults().search.control
    note = ", half of them for the tuned control" if control == "tuned" else ""
    return {
        **_amount(experiment, cost, note),
        "a trial": _dearest(assumed),
        **_pretraining(assumed, cost.trials),
        "features": _features(assumed, images),
        "memory": f"{binary_size(model.bytes)} of {binary_size(available)} {whose} for the weights "
        "and optimiser state of the largest model; activations need more",
        "largest model": f"{model.parameters / 1e6:,.1f} M parameters: {model.backbone}, "
        f"{model.pooling} pooling to {model.feature_dim:,} dimensions, latent_dim "
        f"{model.latent_dim}, {model.class_count} classes",
        "licences": _licences(assumed),
    }


def _licences(experiment: Experiment) -> str:
    """Names the licence of every backbone's weights, as far as it is stated."""
    from gsfl_tune.models import licence, stream_weights
    from gsfl_tune.training.pricing.cost import pretrained

    told: dict[str, list[str]] = {}
    for backbone, weights, _ in pretrained(experiment):
        for name, own in stream_weights(backbone, weights):
            names = told.setdefault(str(licence(name, own)), [])
            if name not in names:
                names.append(name)
    return "; ".join(f"{', '.join(names)}: {words}" for words, names in told.items())


def _amount(experiment: Experiment, cost: Cost, note: str) -> dict[str, str]:
    """Describes how much is trained, or the time budget that decides it."""
    from gsfl_tune.experiment.units import duration_text

    budget = experiment.defaults().search.time_budget
    rows = {}
    if budget is not None:
        text = f"{duration_text(budget)} for everything up to the tested bundle"
        words = [path.rpartition(".")[2] for path in sorted(experiment.automatic)]
        if experiment.automatic:
            follow = ", ".join(dict.fromkeys(words))
            text += f"; {follow} follow from what an epoch costs where the search runs"
        rows["time"] = text
    if "search.trials" in experiment.automatic:
        return rows
    rows["trials"] = f"{cost.trials:,}{note}"
    replicates = experiment.defaults().search.replicates
    all_of_them = f" and each has all {replicates} replicates" if replicates > 1 else ""
    rows["epochs"] = (
        f"{cost.epochs:,}: {cost.search_epochs:,} in the search if no trial is stopped early"
        f"{all_of_them}, {cost.final_epochs:,} in {cost.retrainings} trainings at the end"
    )
    return rows


def _dearest(experiment: Experiment) -> str:
    """Compares the price of the most expensive trial with that of the default one."""
    from gsfl_tune.training.pricing.extremes import dearest

    config, factor = dearest(experiment)
    if factor < 1.05:
        return "every trial costs about the same"
    model, training = config.model, config.training
    parts = [model.extractor, f"latent_dim {model.latent_dim}"]
    if training.finetune.epochs:
        parts.append(f"blocks {training.finetune.blocks}")
    if training.head.epochs and training.head.generate.share:
        parts.append(f"generate.share {training.head.generate.share:g}")
    return f"the most expensive one costs {factor:.3g} times the default one ({', '.join(parts)})"


def _pretraining(experiment: Experiment, trials: int) -> dict[str, str]:
    """Describes what is learned without labels in front of the trials."""
    from gsfl_tune.training.pricing.pretraining import pretraining_price

    price = pretraining_price(experiment, trials)
    if price is None:
        return {}
    tera = 1000 * price.epochs * price.operations / 1e12
    many = f"up to {price.count:,} of" if price.count > 1 else "1 of"
    return {
        "pretraining": f"{many} {price.epochs:,} epochs, {tera:,.3g} TFLOP each for 1,000 images "
        f"({price.backbone}, {price.image_size} px); trials with the same one share it"
    }


def _features(experiment: Experiment, images: int | None) -> str:
    """Counts the passes through a frozen backbone; says in which precision, on this machine."""
    from gsfl_tune.training import resolve_device
    from gsfl_tune.training.fit_precision import decide
    from gsfl_tune.training.pricing.passes import feature_passes

    plain, augmented = feature_passes(experiment)
    views = experiment.defaults().data.views
    text = f"{plain:,} pass{'es' if plain > 1 else ''} of all images through a frozen backbone"
    if augmented:
        text += f" and {augmented:,} of augmented training images (data.views: {views})"
    device = resolve_device(experiment.defaults().training.device)
    looked_at = None if images is None else images * (plain + augmented)
    chosen = decide(experiment, looked_at, alone=True, device=device, measure=None)
    words = "each precision" if chosen.precision == "searched" else chosen.precision
    return f"{text}, computed once for all trials in {words} ({chosen.reason})"
