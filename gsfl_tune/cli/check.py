"""``gsfl-tune check``: all problems of an experiment file, or its parameters and its price."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gsfl_tune.cli._base import (
    FINISHED,
    Command,
    add_experiment_arguments,
    load_experiment,
    showing,
)
from gsfl_tune.cli._check_notes import notes
from gsfl_tune.cli._estimate import add_estimate_arguments, estimate_of, rows

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from gsfl_tune.experiment import Experiment, Parameter
    from gsfl_tune.search.costs.estimate import Estimate
    from gsfl_tune.training.pricing.cost import Cost

# From this width on, long names are not folded.
_WIDE = 120


class Check(Command):
    """Checks an experiment without reading images or training anything."""

    name = "check"
    help = "check an experiment file; show its parameters and what the search costs at most"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        add_experiment_arguments(parser)
        add_estimate_arguments(parser)
        parser.add_argument("--json", action="store_true", help="print JSON")

    def run(self, args: argparse.Namespace) -> int:
        """Prints the parameters and the price.

        Raises:
            ExperimentError: With every problem of the file.
        """
        from rich.console import Console

        with showing("reading the experiment, loading PyTorch", short=True):
            from gsfl_tune.experiment import ExperimentError
            from gsfl_tune.training.fit_precision import refuse_unfit_precision
            from gsfl_tune.training.parts import learns_parts
            from gsfl_tune.training.pricing.problems import cost_problems

            experiment = load_experiment(args)
            problems = cost_problems(experiment)
        if problems:
            raise ExperimentError(problems)
        refuse_unfit_precision(experiment)
        estimate = estimate_of(args, experiment)
        listed = not args.json or learns_parts(experiment)
        described, images = _data(experiment) if listed else ([], None)
        if args.json:
            _print_json(experiment, estimate, args.price)
            return FINISHED
        console = Console(highlight=False, markup=False)
        console.print(f"{experiment.file}: valid, experiment {experiment.name}", soft_wrap=True)
        if experiment.space.parameters:
            console.print(parameter_table(experiment, console))
        else:
            console.print("No leaf is a distribution: there is nothing to search.")
        for line in described:
            console.print(line, soft_wrap=True)
        for warning in experiment.warnings:
            console.print(f"Warning: {warning}", soft_wrap=True)
        _print_cost(experiment, console, images)
        if estimate is not None:
            console.print("What it is expected to take:")
            console.print(_grid(rows(estimate, args.price)))
        return FINISHED


def _print_json(experiment: Experiment, estimate: Estimate | None, price: float | None) -> None:
    from gsfl_tune.training.pricing.cost import largest_model, memory_of_a_trial, search_cost

    assumed = experiment.provisional()
    cost, model = search_cost(assumed), largest_model(assumed)
    content = {
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
            "memory_bytes": memory_of_a_trial(experiment, model.backbone)[0],
        },
        "estimate": None if estimate is None else estimate.to_json(price),
    }
    print(json.dumps(content, indent=2, ensure_ascii=False, default=str))


def _data(experiment: Experiment) -> tuple[list[str], int | None]:
    """Describes the data and counts the images, as far as a listing tells.

    Remote images are not read; their number is None.
    """
    from collections import Counter

    from gsfl_tune.data import cache_directory
    from gsfl_tune.data.apart import told_by_listing
    from gsfl_tune.data.exclude import leave_out
    from gsfl_tune.data.held_out import told_before
    from gsfl_tune.data.preparation import settle_validation
    from gsfl_tune.data.sources import create_source
    from gsfl_tune.data.synthetic import read_manifest, synthetic_folders
    from gsfl_tune.data.together import mark_sets
    from gsfl_tune.experiment import UserError
    from gsfl_tune.training.parts import refuse_without_parts

    config = experiment.defaults().data
    paths = [config.path] if isinstance(config.path, str) else config.path or []
    if config.source == "typefaces" or config.download or any("://" in path for path in paths):
        return [], None
    try:
        with showing("listing the images", short=True):
            source = leave_out(create_source(config, cache_directory()), config)
            mark_sets(source, config)
            synthetic = sum(map(len, map(read_manifest, synthetic_folders(config))))
    except UserError as error:
        return [f"Warning: {line}" for line in str(error).splitlines()], None
    refuse_without_parts(experiment, source)
    parts = Counter(sample.part for sample in source.samples)
    told = [f"{part} {parts[part]:,}" for part in ("train", "validation", "test") if parts[part]]
    counts = f" ({', '.join(told)})" if told else ""
    settle_validation(source, config.split)
    measured = told_before(source, config.split, cache_directory())
    if measured is None:
        # Groups are in the list; copies, and how near parts are, need the images.
        measured = told_by_listing(source.samples, config.split)
        if config.split.by == "auto":
            measured.append(
                "`gsfl-tune data` and the search measure how near validation images are to "
                "training images (data.split.by: auto)"
            )
    lines = [
        f"Data: {len(source.classes)} classes, {len(source.samples):,} images{counts}",
        *(f"Data: {notice}" for notice in source.told()),
        *(f"Data: {notice}" for notice in measured),
        *(f"Warning: {problem}" for problem in source.problems),
    ]
    if synthetic:
        lines.append(f"Data: data.synthetic: {synthetic:,} images for the training part")
    return lines, len(source.samples) + synthetic


def parameter_table(experiment: Experiment, console: Console) -> Table:
    """Tabulates name, distribution, default and condition of every parameter."""
    from rich import box
    from rich.table import Table

    width = 200 if console.width >= _WIDE else 22
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    table.add_column("name", no_wrap=True)
    for heading in ("distribution", "default", "condition"):
        table.add_column(heading, overflow="fold")
    for parameter in experiment.space.parameters:
        table.add_row(
            fold(parameter.name, width),
            parameter.distribution.describe(),
            _default(parameter),
            fold(_condition(parameter), width),
        )
    return table


def fold(text: str, width: int) -> str:
    """Breaks dotted paths that are longer than ``width`` after a dot, indented from there on."""
    words = []
    for word in text.split(" "):
        lines = [""]
        for index, part in enumerate(word.split(".")):
            piece = part if index == 0 else f".{part}"
            # A dot between digits belongs to a number.
            if lines[-1] and len(lines[-1]) + len(piece) > width and not part[:1].isdigit():
                lines[-1] += "."
                lines.append(f"  {part}")
            else:
                lines[-1] += piece
        words.append("\n".join(lines))
    return " ".join(words)


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


def _print_cost(experiment: Experiment, console: Console, images: int | None) -> None:
    from gsfl_tune.experiment.units import binary_size
    from gsfl_tune.training.pricing.cost import largest_model, memory_of_a_trial, search_cost

    assumed = experiment.provisional()
    cost, model = search_cost(assumed), largest_model(assumed)
    available, whose = memory_of_a_trial(experiment, model.backbone)
    control = experiment.defaults().search.control
    note = ", half of them for the tuned control" if control == "tuned" else ""
    found = {
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
    console.print("What the search costs at most:")
    console.print(_grid(found))
    for note in notes(experiment):
        console.print(f"Note: {note}")


def _grid(rows: Mapping[str, str]) -> Table:
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    for heading, text in rows.items():
        grid.add_row(f"  {heading}", text)
    return grid


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
