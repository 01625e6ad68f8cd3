"""Learning of a backbone's weights without labels, judged by epoch."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gsfl_tune.activity import activity
from gsfl_tune.data import Dataset
from gsfl_tune.data.contrast import images_without_labels
from gsfl_tune.evidence.representation import (
    neighbour_notices,
    representation_metrics,
    retrieval_notices,
)
from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.metrics import VALIDATION, keyed
from gsfl_tune.pretraining.directory import PretrainingDirectory
from gsfl_tune.pretraining.pictures import keep_maps, pictures_of
from gsfl_tune.report.pretraining import Dimensions, pretraining_page
from gsfl_tune.run import EpochLog, RunDirectory, run_lock, whole_file, write_text
from gsfl_tune.training import CheckpointError, Workspace, resolve_device
from gsfl_tune.training.neighbours import LabelledFeatures
from gsfl_tune.training.pin_weights import keep_pins, pin_weights, read_pins
from gsfl_tune.training.pretrain import (
    Pretraining,
    PretrainingTeam,
    acquire_weights,
    keep_weights,
    key_parts,
    pretraining_digest,
    starting_backbone,
    with_precision,
)
from gsfl_tune.training.pretrain.refused import refuse_processes
from gsfl_tune.training.standalone import broken_checkpoint, open_workspace

Notice = Callable[[str], None]
OnRecord = Callable[[dict[str, Any]], None]
Gather = Callable[[Config, Workspace], PretrainingTeam | None]


@dataclass(frozen=True)
class Pretrained:
    """Describes the result.

    Attributes:
        weights: File of the backbone's weights, for ``model.weights``.
        records: Records of the epochs, the first one of the backbone before any.
        computed: Whether it was trained now; else it came from the cache.
    """

    weights: Path
    records: list[dict[str, Any]]
    computed: bool


def pretrain(
    experiment: Experiment,
    directory: Path,
    *,
    resume: bool = False,
    cache_dir: Path | None = None,
    on_record: OnRecord = lambda record: None,
    notice: Notice = lambda line: None,
    gather: Gather = lambda config, workspace: None,
) -> Pretrained:
    """Learns the weights of an experiment's backbone without labels.

    Args:
        experiment: The experiment; its distributions take their defaults.
        directory: Where weights, ``epochs.jsonl`` and the checkpoint go.
        resume: Whether to continue what is in the directory.
        cache_dir: Root of the node's caches.
        on_record: Called with the record of every epoch.
        notice: Called with what people must know.
        gather: Gives the processes that train together with this one.

    Raises:
        UserError: If the data or the settings cannot be used, processes cannot divide a batch, or
            the directory holds another pretraining or something else, or is in use.
        PretrainingFailed: If the loss was not finite, or representations or projections collapsed.
    """
    known = read_pins(directory) if resume else {}
    experiment, pins = pin_weights(experiment, known, notice, searched=False)
    config = experiment.defaults()
    place = PretrainingDirectory(directory)
    place.open(config, resume=resume)
    with run_lock(RunDirectory(directory), "another pretraining is using this directory"):
        # Again, as another one may have begun since.
        place.open(config, resume=resume)
        keep_pins(directory, pins)
        workspace = open_workspace(experiment, cache_dir)
        return _pretrain(experiment, config, place, workspace, on_record, notice, gather)


def _pretrain(
    experiment: Experiment,
    config: Config,
    place: PretrainingDirectory,
    workspace: Workspace,
    on_record: OnRecord,
    notice: Notice,
    gather: Gather,
) -> Pretrained:
    dataset, log = workspace.dataset, place.log
    images = images_without_labels(dataset)
    for line in dataset.notices:
        notice(line)
    notice(f"{len(images):,} images to learn from: the training part{_further(dataset)}")
    judged = np.asarray(dataset.pool.labels)[dataset.validation_index]
    for line in (*neighbour_notices(len(dataset.train_index)), *retrieval_notices(judged)):
        notice(line)
    device = resolve_device(config.training.device)
    backbone = starting_backbone(config)
    where = (images, backbone, device, workspace.cache_dir)
    config = with_precision(config, *where, place.precision)
    parts = key_parts(config, backbone, device)
    key = pretraining_digest(config, images, backbone, device)
    place.refuse_change(images.digest, key, parts)
    computed = False
    shown: dict[str, Any] = {}

    def train(training: Pretraining) -> None:
        nonlocal computed
        computed = True
        training.team = gather(config, workspace)
        if training.team is not None:
            refuse_processes(training.config, training.team.size, training.network.groups)
        try:
            found = training.restore(own=True)
        except CheckpointError as error:
            raise broken_checkpoint(error) from error
        # Only now, as a start that is refused must leave nothing that binds the next one.
        place.begin(experiment, config, images.digest, parts)
        if not found:
            first = {"epoch": 0, **_judged(training, dataset)}
            training.log.append(first)
            place.maps.unlink(missing_ok=True)
            keep_maps(training, dataset, place.maps)
        for record in log.read():
            on_record(record)
        try:
            while not training.finished:
                record = training.run_epoch()
                number = record["epoch"]
                if training.finished or number % training.config.evaluate_every == 0:
                    screened = training.network.screening is not None
                    record |= _judged(training, dataset, with_screened=screened)
                training.record(record)
                on_record(record)
        finally:
            # Pictures are of whole batches that this process makes alone.
            training.leave()
        with activity("drawing the page of the pretraining"):
            shown.update(_shown(training, dataset, place.maps))

    if place.has_result(config, key):
        # The cache may have lost it since.
        keep_weights(config, images, workspace.cache_dir, key, place.weights)
    lock, key = acquire_weights(
        config, images, workspace.cache_dir, device, train, place.path, backbone
    )
    with lock as path:
        if not computed:
            place.begin(experiment, config, images.digest, parts)
        with whole_file(place.weights) as temporary:
            shutil.copyfile(path, temporary)
        if not computed:
            notice("the same pretraining was done before: its weights come from the cache")
            if not place.complete(config):
                _judge_file(config, images, dataset, path, key, log, on_record)
            else:
                for record in log.read():
                    on_record(record)
    records = log.read()
    if computed or not place.page.exists():
        page = pretraining_page(experiment.name, _facts(config, len(images)), records, **shown)
        write_text(place.page, page)
    # At last: until here a resume repeats what a kill has prevented, without training.
    place.checkpoint.unlink(missing_ok=True)
    return Pretrained(place.weights, records, computed)


def _shown(training: Pretraining, dataset: Dataset, maps: Path) -> dict[str, Any]:
    """Returns what the page shows of a network at the end of its training."""
    found: dict[str, Any] = {"pictures": pictures_of(training, dataset, maps)}
    if (own := training.network.discriminative) is not None:
        statistics = own.statistics
        found["dimensions"] = Dimensions(
            statistics.variance.tolist(), statistics.importance.tolist(), own.chosen.tolist()
        )
    return found


def _facts(config: Config, images: int) -> dict[str, str]:
    own = config.pretrain
    facts = {
        "method": own.method,
        "backbone": f"{config.model.backbone}, from weights {config.model.weights}",
        "images": f"{images:,}, {own.image_size or config.data.image_size} px",
        "epochs": f"{own.epochs} of {own.batch_size} images a step",
    }
    if own.augment.local_crops:
        facts["small views"] = str(own.augment.local_crops)
    if own.discriminative.on:
        facts["pairs"] = (
            f"weight {own.discriminative.pair_weight:g}, reconstruction "
            f"{own.discriminative.reconstruction_weight:g}"
        )
    if own.lcr.weight:
        facts["common rationales"] = f"weight {own.lcr.weight:g}"
    return facts


def _judge_file(
    config: Config,
    images: Any,
    dataset: Dataset,
    path: Path,
    key: str,
    log: EpochLog,
    on_record: OnRecord,
) -> None:
    """Records what weights of the cache are worth, before and after; epochs are not known."""
    log.truncate(-1)
    device = resolve_device(config.training.device)
    last = config.pretrain.epochs
    for epoch, weights in ((0, config.model.weights), (last, str(path))):
        model = config.model.model_copy(update={"weights": weights})
        backbone = starting_backbone(config.model_copy(update={"model": model}))
        training = Pretraining(config, backbone, images, log.path.parent, key=key, device=device)
        record = {"epoch": epoch, **_judged(training, dataset)}
        log.append(record)
        on_record(record)


def _judged(
    training: Pretraining, dataset: Dataset, *, with_screened: bool = False
) -> dict[str, float]:
    """Evaluates the present weights on the validation part.

    Args:
        training: Has the weights.
        dataset: Has the images.
        with_screened: Whether also with places weighted by the screening head.
    """
    pool = dataset.pool
    found: dict[str, float] = {}
    for screened in [False, True] if with_screened else [False]:
        parts = [
            LabelledFeatures(
                training.features(pool, index, screened=screened), np.asarray(pool.labels)[index]
            )
            for index in (dataset.train_index, dataset.validation_index)
        ]
        with activity("judging the representation"):
            metrics = representation_metrics(parts[0], parts[1], dataset.class_count)
        rounded = {name: round(value, 6) for name, value in metrics.items()}
        found |= keyed(f"{VALIDATION}/screened" if screened else VALIDATION, rounded)
    return found


def _further(dataset: Dataset) -> str:
    spare, other = len(dataset.split.spare), dataset.unlabelled
    words = []
    if spare:
        words.append(f"{spare:,} that data.shots leaves without a label")
    if other is not None:
        words.append(f"{len(other):,} of data.unlabelled")
    return f" ({', '.join(words)})" if words else ""
