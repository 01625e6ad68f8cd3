"""The whole adaptation: opens bundle and images, trains, judges, and writes the new bundle."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gsfl_tune.adaptation.bundle import removed_parts, write_adapted
from gsfl_tune.adaptation.images import AdaptedTo, open_images
from gsfl_tune.adaptation.judge import JudgeImages, open_judge
from gsfl_tune.adaptation.report import Adapted, Judged
from gsfl_tune.adaptation.settings import Norms, Part, Settings
from gsfl_tune.adaptation.training import AdaptationFailed, Adapting
from gsfl_tune.arguments import call, instance, one_of, path_of, texts
from gsfl_tune.bundles import files, read_description
from gsfl_tune.data import cache_directory
from gsfl_tune.experiment.data_config import AugmentConfig
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export import Bundle, load_bundle
from gsfl_tune.run import RunDirectory, read_json, write_json
from gsfl_tune.run.lock import run_lock
from gsfl_tune.training.out_of_memory import out_of_memory

_FACTS_FILE = "adapt.json"
_SUFFIX = ".adapting"

Notice = Callable[[str], None]
OnRecord = Callable[[dict[str, Any]], None]


def adapt(
    bundle: str | Path,
    images: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    epochs: int = Settings.epochs,
    learning_rate: float = Settings.learning_rate,
    batch_size: int = Settings.batch_size,
    blocks: int | Literal["all"] | None = None,
    train_encoder: bool = True,
    beta: float = Settings.beta,
    norms: Norms = Settings.norms,
    seed: int = 0,
    device: str = "auto",
    judge: str | Path | None = None,
    resume: bool = False,
    cache_dir: str | Path | None = None,
    on_record: OnRecord = lambda record: None,
    notice: Notice = lambda line: None,
) -> Adapted:
    """Adapts a bundle to images of another domain, without labels and without its own images.

    The classifier stays as it is. The rest of the network learns to give sure and diverse answers,
    and to agree with pseudo-labels of the nearest centroids, which are renewed before each epoch.
    Source: Liang, Hu and Feng, "Do We Really Need to Access the Source Data? Source Hypothesis
    Transfer for Unsupervised Domain Adaptation" (SHOT), ICML 2020. Until it is done, its state is
    in a directory beside `out` whose name ends in ``.adapting``.

    Args:
        bundle: A bundle of safetensors with one network: a directory, or ``hf://OWNER/NAME``.
        images: Files, folders with all below them, patterns, Parquet files, or another data set.
            Labels are not read.
        out: The directory to write; it must be missing or empty.
        epochs: Epochs.
        learning_rate: Peak rate of AdamW.
        batch_size: Images of a step.
        blocks: Last blocks of the backbone that are trained, or ``all``; default: what of them was
            fine-tuned in training. If nothing was, or adapters were: 0, or 1 for a head without an
            encoder.
        train_encoder: Whether the discriminative encoder and the pooling are trained too.
        beta: Weight of the pseudo-labels.
        norms: Batch norms of trained blocks: ``new`` takes statistics of the images, ``kept`` those
            of the bundle, ``auto`` the ones with which answers are surer and more diverse.
        seed: Seed of order and augmentation.
        device: ``auto`` (a GPU if there is one) or a torch device.
        judge: Labelled images that are not among `images`, as for an evaluation.
        resume: Whether to continue an adaptation that was stopped.
        cache_dir: Root of the node's caches.
        on_record: Called with the record of every epoch, the first of which is before any.
        notice: Called with what people must know.

    Returns:
        What it did.

    Raises:
        UserError: If the bundle, the images or the settings cannot be used, `out` exists, images of
            `judge` are among those adapted to, or there is another adaptation to resume.
        AdaptationFailed: If the loss was not finite, or all images got one answer.
        TypeError, ValueError: If an argument is of another kind.
    """
    counts: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "seed": seed}
    if blocks not in (None, "all"):
        counts["blocks"] = blocks
    _check_kinds(counts, {"learning_rate": learning_rate, "beta": beta})
    one_of(norms, "adapt: norms", ("auto", "new", "kept"))
    instance(bool, resume, "adapt: resume", "True or False")
    call(on_record, "adapt: on_record", "a function that takes a dictionary")
    call(notice, "adapt: notice", "a function that takes a text")
    if judge is not None:
        path_of(judge, "adapt: judge")
    caches = None if cache_dir is None else path_of(cache_dir, "adapt: cache_dir")
    names = _names(images)
    out = path_of(out, "adapt: out")
    files.refuse_filled(out)
    state = state_directory(out)
    _refuse_state(state, resume)
    loaded = load_bundle(bundle, device)
    network, description = loaded.network, read_description(loaded.path)
    cache = caches or cache_directory()
    found = open_images(loaded, names, cache)
    told = [*found.notices, *(f"{each.path}: left out ({each.reason})" for each in found.broken)]
    own, part, hints = _trained(loaded)
    settings = Settings(
        epochs,
        learning_rate,
        batch_size,
        own if blocks is None else blocks,
        train_encoder,
        beta,
        norms,
        seed,
        part if blocks is None else "all",
    )
    settings.check(len(found.images), network.backbone.block_count, encodes=network.head.encodes)
    judged = None
    if judge is not None:
        judged = open_judge(loaded, str(judge), found, cache)
        told += judged.notices
        told += [f"{each.path}: left out ({each.reason})" for each in judged.broken]
    told += hints if blocks is None else []
    for line in told:
        notice(line)
    run = RunDirectory(state)
    with run_lock(run, "another adaptation is using this directory"):
        _begin(state, _facts(settings, found, description), resume)
        training = _training(loaded, found, settings, state)
        # Judged before anything is restored: of the bundle itself.
        before = None if judged is None else _scores(training, judged)
        try:
            _train(training, on_record)
        except AdaptationFailed:
            # Going on would fail in the same way.
            shutil.rmtree(state, ignore_errors=True)
            raise
        except Exception as error:
            # Nothing is lost, and a smaller batch is another adaptation.
            begun = any(record["epoch"] > 0 for record in training.log.read())
            if not begun and out_of_memory(error):
                shutil.rmtree(state, ignore_errors=True)
            raise
        result = Adapted(
            path=out,
            source=loaded.source or str(bundle),
            images=len(found.images),
            digest=found.digest,
            broken=found.broken,
            classes=loaded.classes,
            settings=settings,
            records=training.log.read(),
            judged=None if before is None or judged is None else _judged(training, judged, before),
            removed=removed_parts(loaded, description),
            notices=told,
        )
        try:
            write_adapted(out, network.cpu().eval(), loaded, description, result)
        except UserError as error:
            raise UserError(f"{error}; {state} keeps what was trained, for --resume") from error
    shutil.rmtree(state, ignore_errors=True)
    return result


def _train(training: Adapting, on_record: OnRecord) -> None:
    if not training.restore():
        training.begin()
    for record in training.log.read():
        on_record(record)
    while not training.finished:
        on_record(training.run_epoch())


def state_directory(out: Path) -> Path:
    """Returns where the state of an adaptation is until it is done."""
    place = out.absolute()  # `.` has no name
    return place.with_name(place.name + _SUFFIX)


def _training(bundle: Bundle, found: AdaptedTo, settings: Settings, state: Path) -> Adapting:
    how, data = bundle.preprocessing, bundle.config.get("data", {})
    own, plain = data.get("augment", {}), AugmentConfig()
    # Crop and flip as in the bundle's training, and nothing that a package has to add.
    augment = AugmentConfig(
        scale=own.get("scale", plain.scale),
        ratio=own.get("ratio", plain.ratio),
        flip=own.get("flip", plain.flip),
    )
    size = int(data.get("image_size", how.image_size))
    return Adapting(bundle.network, found, settings, how, augment, size, state)


def _scores(training: Adapting, judged: JudgeImages) -> np.ndarray:
    return training.logits(judged.images)[judged.kept]


def _judged(training: Adapting, judged: JudgeImages, before: np.ndarray) -> Judged:
    labels = judged.labels[judged.kept]
    return Judged.of(before, _scores(training, judged), labels, judged.alike)


def _trained(bundle: Bundle) -> tuple[int | Literal["all"], Part, list[str]]:
    """Returns the blocks that were fine-tuned, what of them, and notices.

    None where none was, if there is an encoder: blocks that were frozen have norms with statistics
    of other images than the bundle's own. New ones would change what later blocks have learned to
    read. Nor where adapters were trained: they are part of the weights now, and to train all of
    these would be another method than the one that was chosen for the bundle.
    """
    network = bundle.network
    stage = bundle.config.get("training", {}).get("finetune", {})
    frozen = 0 if network.head.encodes else 1
    if not stage.get("epochs"):
        return frozen, "all", []
    part = stage.get("train", "all")
    if part in ("lora", "dora"):
        what = "no block" if frozen == 0 else "the last block"
        return (
            frozen,
            "all",
            [
                f"the bundle was trained by adapters ({part}), now a part of its weights: {what} "
                "of the backbone is trained; --blocks trains more"
            ],
        )
    blocks = stage.get("blocks", "all")
    return "all" if blocks == "all" else min(int(blocks), network.backbone.block_count), part, []


def _facts(settings: Settings, found: AdaptedTo, description: dict[str, Any]) -> dict[str, Any]:
    """Returns what must not change in a resume, as JSON gives it back."""
    return {
        **settings.to_json(),
        "images": found.images.digest,
        "bundle": description["sha256"][files.MODEL],
    }


def _refuse_state(state: Path, resume: bool) -> None:
    begun = (state / _FACTS_FILE).exists()
    if begun and not resume:
        raise UserError(
            f"{state}: found an adaptation that was stopped, allowed with --resume; remove the "
            "directory to begin anew"
        )
    if resume and not begun:
        raise UserError(f"{state}: found no adaptation to resume, allowed without --resume")


def _begin(state: Path, facts: dict[str, Any], resume: bool) -> None:
    if not resume:
        write_json(state / _FACTS_FILE, facts)
        return
    known = read_json(state / _FACTS_FILE)
    lines = [
        f"  {name}: was {known.get(name, 'nothing')}, found {value}"
        for name, value in facts.items()
        if known.get(name) != value
    ]
    if lines:
        raise UserError(
            "\n".join([f"{state}: this is not the adaptation that began there", *lines])
        )


def _names(images: Any) -> list[str]:
    if isinstance(images, str | Path):
        return [str(path_of(images, "adapt: images"))]
    if isinstance(images, Sequence) and not isinstance(images, bytes):
        images = [str(each) if isinstance(each, Path) else each for each in images]
    return texts(images, "adapt: images", "a path, or a list of paths")


def _check_kinds(whole: dict[str, Any], real: dict[str, Any]) -> None:
    """Refuses arguments of another kind; their ranges are checked with the images."""
    for name, value in whole.items():
        instance(int, value, f"adapt: {name}", "a whole number")
    for name, value in real.items():
        instance((int, float), value, f"adapt: {name}", "a number")
