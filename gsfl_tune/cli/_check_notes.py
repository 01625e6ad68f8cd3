"""What ``gsfl-tune check`` says besides parameters and price."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gsfl_tune.experiment import Experiment


def notes(experiment: Experiment) -> list[str]:
    """Lists what holds and may surprise, one line each."""
    defaults = experiment.defaults()
    found = []
    if defaults.search.trials > 1 and not experiment.space.parameters:
        found.append("every trial would be the same, as nothing is searched.")
    found.extend(_few(experiment))
    for index, entry in enumerate(defaults.search.enqueue):
        _, clipped = experiment.space.clip(entry)
        found.extend(f"search.enqueue[{index}]: {notice}" for notice in clipped)
    found.extend(_warm(experiment))
    if "schedule_free" in experiment.values("training.finetune.optimizer"):
        found.append(
            "training.finetune.optimizer: schedule_free keeps its rate after the warm-up; "
            "training.finetune.schedule is for the other optimizers."
        )
    # Epochs that a plan decides count as some: the last blocks may be trained.
    return found + _prefix_notes(experiment.provisional())


def _warm(experiment: Experiment) -> list[str]:
    """Names the configurations of earlier runs that come first, and what cannot be kept of them."""
    runs = experiment.defaults().search.warm_start
    if not runs:
        return []
    from gsfl_tune.search.study.warm_start import earlier_trials

    notes = []
    for each in earlier_trials(experiment, runs):
        changes = "; ".join(each.notices)
        text = f"search.warm_start: trial {each.number} of {each.run} is tried first"
        notes.append(f"{text} ({changes})" if changes else f"{text}.")
    return notes


def _few(experiment: Experiment) -> list[str]:
    """Warns if there are fewer configurations than trials."""
    from gsfl_tune.search.samplers.configurations import count_configurations

    trials = experiment.defaults().search.trials
    possible = count_configurations(experiment.provisional().space, trials)
    if not experiment.space.parameters or possible is None or possible >= trials:
        return []
    return [
        f"{possible} configurations are possible: the search ends when they are tried, before "
        f"{trials} trials."
    ]


def _prefix_notes(experiment: Experiment) -> list[str]:
    """Describes what trials of the last blocks cache, and where they cannot."""
    from gsfl_tune.experiment.units import binary_size
    from gsfl_tune.training.pricing.cases import cases
    from gsfl_tune.training.pricing.finetune_problems import unreached_blocks
    from gsfl_tune.training.pricing.prefix_caches import prefix_caches, whole_backbones

    notes: list[str] = []
    if max(experiment.values("training.finetune.epochs")) == 0:
        return notes
    partial = any(blocks != "all" for blocks in experiment.values("training.finetune.blocks"))
    if partial and 0 in experiment.values("data.views"):
        notes.append(
            "data.views: 0 augments anew in every epoch, so the frozen blocks in front of the "
            "last training.finetune.blocks are run again in every epoch; fixed views are cached."
        )
    for backbone, blocks, count in whole_backbones(experiment):
        notes.append(
            f"training.finetune.blocks: {blocks} trains all of {backbone}, which has {count}."
        )
    notes.extend(note for case in cases(experiment) for note in unreached_blocks(case))
    caches = prefix_caches(experiment)
    cut = [cache for cache in caches if cache.problem is None]
    if cut:
        largest = cut[0]
        notes.append(
            "activations in front of trained blocks take up to "
            f"{binary_size(1000 * largest.image_bytes)} of the cache for 1,000 images "
            f"({largest.backbone}, last {largest.blocks} blocks, "
            f"{largest.image_size} px, {largest.views} views and the centre); other backbones, "
            "blocks and sizes have files of their own."
        )
    for cache in caches:
        if cache.problem is not None:
            notes.append(
                f"{cache.backbone} cannot be cut in front of its last {cache.blocks} blocks "
                f"({cache.problem}): it is run as a whole in every epoch."
            )
    # Of one backbone that is read in two ways the same is said once.
    return list(dict.fromkeys(notes))
