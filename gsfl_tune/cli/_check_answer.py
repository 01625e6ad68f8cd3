"""What ``gsfl-tune check`` says of an experiment, as far as PyTorch and timm must tell it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gsfl_tune.cli._check_notes import notes
from gsfl_tune.cli._estimate import estimate_of, rows

if TYPE_CHECKING:
    from gsfl_tune.experiment import Experiment
    from gsfl_tune.training.pricing.cost import Cost


@dataclass(frozen=True)
class Answer:
    """Holds plain values: they may come from a file.

    Attributes:
        notes: What holds and may surprise.
        cost: What the search costs at most, by heading.
        most: The same as numbers, for ``--json``.
        rows: What it is expected to take, by heading; empty without an estimate.
        estimate: The same as numbers; None without an estimate.
    """

    notes: list[str]
    cost: dict[str, str] = field(default_factory=dict)
    most: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, str] = field(default_factory=dict)
    estimate: dict[str, Any] | None = None


def find_answer(args: argparse.Namespace, experiment: Experiment, images: int | None) -> Answer:
    """Computes what `check` says of a valid experiment.

    Args:
        args: The arguments of the command.
        experiment: The experiment.
        images: Number of images; None if unknown.

    Raises:
        UserError: If --price or --slots is given and there is no estimate, or the data cannot be
            used.
    """
    estimate = estimate_of(args, experiment)
    if args.json:
        number = None if estimate is None else estimate.to_json(args.price)
        return Answer(notes(experiment), most=_most(experiment), estimate=number)
    told = {} if estimate is None else rows(estimate, args.price)
    return Answer(notes(experiment), _cost(experiment, images), rows=told)


def _most(experiment: Experiment) -> dict[str, Any]:
    from gsfl_tune.training.pricing.cost import largest_model, memory_of_a_trial, search_cost

    assumed = experiment.provisional()
    cost, model = search_cost(assumed), largest_model(assumed)
    return {
        "trials": cost.trials,
        "search_epochs": cost.search_epochs,
        "retrainings": cost.retrainings,
        "final_epochs": cost.final_epochs,
        "model_bytes": model.bytes,
        "memory_bytes": memory_of_a_trial(experiment, model.backbone)[0],
    }


def _cost(experiment: Experiment, images: int | None) -> dict[str, str]:
    from gsfl_tune.experiment.units import binary_size
    from gsfl_tune.training.pricing.cost import largest_model, memory_of_a_trial, search_cost

    assumed = experiment.provisional()
    cost, model = search_cost(assumed), largest_model(assumed)
    available, whose = memory_of_a_trial(experiment, model.backbone)
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
    ratio = experiment.defaults().search.sampler.weighs_cost
    chance = ""
    if ratio is not None and factor > 1.5 * ratio:  # a little more is not worth a word
        chance = f"; when it is proposed, it is tried with a probability of {ratio / factor:.1%}"
    return (
        f"the most expensive one costs {factor:.3g} times the default one "
        f"({', '.join(parts)}){chance}"
    )


def _pretraining(experiment: Experiment, trials: int) -> dict[str, str]:
    """Describes what is learned without labels in front of the trials."""
    from gsfl_tune.training.pricing.pretraining import pretraining_price
    from gsfl_tune.training.timeline import pretraining_rungs

    price = pretraining_price(experiment, trials)
    if price is None:
        return {}
    tera = 1000 * price.epochs * price.operations / 1e12
    many = f"up to {price.count:,} of" if price.count > 1 else "1 of"
    text = (
        f"{many} {price.epochs:,} epochs, {tera:,.3g} TFLOP each for 1,000 images "
        f"({price.backbone}, {price.image_size} px); trials with the same one share it"
    )
    if rungs := pretraining_rungs(experiment):
        text += (
            f"; compared by kNN accuracy after {', '.join(f'{each:,}' for each in rungs)} epochs: "
            f"about {price.expected:,.0f} epochs each, if each trial has its own"
        )
    return {"pretraining": text}


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
