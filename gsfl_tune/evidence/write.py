"""Writer of ``evidence.json`` and its pictures; a part that fails does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsfl_tune.activity import activity
from gsfl_tune.data import Dataset
from gsfl_tune.evidence.attempts import Attempts, Drawing
from gsfl_tune.evidence.calibration import calibration_report
from gsfl_tune.evidence.cams import look
from gsfl_tune.evidence.confusions import confusion_report, confusion_table
from gsfl_tune.evidence.embedding import plane
from gsfl_tune.evidence.flip import flip_report
from gsfl_tune.evidence.gradcam import NoMaps
from gsfl_tune.evidence.group_probes import group_probes
from gsfl_tune.evidence.nearest import Nearest, nearest_images
from gsfl_tune.evidence.parts import parts_report
from gsfl_tune.evidence.pictures import Picture, confused_pictures, group_pictures
from gsfl_tune.evidence.swap import Judge, Swappable, swap_test
from gsfl_tune.evidence.trained import Decode, Latents, Retrained, TrainedModel, spread_index
from gsfl_tune.evidence.wrong import MOST_SHOWN, wrong_answers, wrong_pictures
from gsfl_tune.evidence.wrong_sheet import MOST_PICTURED, nearest_sheet, wrong_sheet
from gsfl_tune.experiment.config import Config
from gsfl_tune.run import RunDirectory, write_json
from gsfl_tune.run.results import Calibration
from gsfl_tune.training import Predictions, Timeline, Workspace

# Limits that bound the time. A search itself sends all images through its networks many times.
MOST_SEEDS = 3
MOST_TEST_IMAGES = 2000
MOST_POOL_IMAGES = 2048

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class _Seed:
    """Holds what probes, swap test and map need of one retrained model."""

    latents: Latents
    pool: NDArray[np.float32]
    decode: Decode | None


@dataclass(frozen=True)
class _Studied:
    """Holds the networks' features of the images.

    Attributes:
        index: (N,) positions of the test images used.
        pool_index: (M,) positions of the training images for the judge of the swap test.
        seeds: The winner's models.
        control: The control's models.
        first: The winner's first model, complete.
    """

    index: Positions
    pool_index: Positions
    seeds: list[_Seed]
    control: list[Latents]
    first: TrainedModel


def write_evidence(
    run: RunDirectory,
    workspace: Workspace,
    winner: Retrained,
    control: Retrained | None,
    *,
    predictions: Sequence[Predictions],
    groups: NDArray[np.int64] | None,
    calibrated: Calibration | None = None,
    notice: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Computes ``evidence.json`` and draws the pictures that it names.

    The same models and images give the same numbers. A plain winner has no groups and no shared
    part, so it has no probes and no swap test.

    Args:
        run: Run directory to write to; pictures of an earlier call are replaced.
        workspace: Data and caches, with the winner's ``data.fit``.
        winner: The winner's retrained models.
        control: The control's models, if there is one.
        predictions: The winner's predictions on the test images, one per seed.
        groups: (C,) group of every class; None for a plain winner.
        calibrated: The winner's temperature and thresholds, if it has them.
        notice: Receives every part that could not be computed.

    Returns:
        The content of the file, described in ``docs/evidence.md``.
    """
    folder = run.evidence
    dataset = workspace.dataset
    logits = np.stack([each.logits for each in predictions])
    labels = np.asarray(predictions[0].labels)
    attempt = Attempts(notice)
    content = confusion_report(logits, labels, dataset.classes, groups)
    content |= confusion_table(logits, labels, dataset.class_count, groups)
    content["calibration"] = attempt(
        "calibration", lambda: calibration_report(logits, labels, calibrated)
    )
    temperature = 1.0 if calibrated is None else calibrated.temperature
    wrong = wrong_answers(logits[0], labels, predictions[0].paths, temperature)
    content["wrong_images"] = wrong
    sheet = attempt("all wrong images", lambda: wrong_sheet(folder, dataset.test, wrong["images"]))
    if sheet is not None:
        content["wrong_sheet"] = sheet
    pictures: list[Picture] = []
    draw = Drawing(attempt, pictures)
    draw("confused pairs", lambda: confused_pictures(folder, dataset.test, logits, dataset.classes))
    if groups is not None:
        draw("class groups", lambda: group_pictures(folder, dataset, groups))
    try:
        with activity("evidence: features of the retrained models"):
            studied = _study(workspace, winner, control, labels, groups, attempt)
    except Exception as error:
        failed = attempt.failed("the parts that need the retrained models", error)
        parts = ["map", "gradcam", *(["probes", "swap", "shared"] if groups is not None else [])]
        parts += ["wrong_nearest"] if wrong["images"] else []
        content |= dict.fromkeys(parts, failed)
    else:
        content |= _from_models(studied, dataset, labels, logits[0], groups, folder, attempt, draw)
        content |= _beside_wrong(studied, dataset, wrong["images"], folder, attempt, draw)
    content["pictures"] = [picture.to_json() for picture in pictures]
    if attempt.notes:
        content["notes"] = attempt.notes
    if attempt.failures:
        content["failed"] = attempt.failures
    write_json(run.evidence_file, content)
    _remove_others(folder, [*(picture.file for picture in pictures), *_sheets(content)])
    return content


def _study(
    workspace: Workspace,
    winner: Retrained,
    control: Retrained | None,
    labels: Positions,
    groups: NDArray[np.int64] | None,
    attempt: Attempts,
) -> _Studied:
    index = spread_index(labels, MOST_TEST_IMAGES)
    most = _most_pool_images(workspace, winner.config)
    pool_index = spread_index(workspace.dataset.pool.labels, most)
    seeds: list[_Seed] = []
    first: TrainedModel | None = None
    for model in winner.models(workspace, MOST_SEEDS):
        first = first or model
        decode = None
        pool = np.zeros((0, 0), np.float32)
        if groups is not None:
            decode = model.decode
            # Cached features are the same for all seeds, so the judge is too.
            fresh = model.finetuned or not seeds
            pool = model.features("pool", pool_index) if fresh else seeds[0].pool
        seeds.append(_Seed(model.latents("test", index), pool, decode))
    assert first is not None, "Retrained.models raises where there is none"
    wanted = min(MOST_SEEDS, len(winner.directories))
    if len(seeds) < wanted:
        attempt.notes.append(f"{len(seeds)} of {wanted} retrained models could be loaded")
    others: list[Latents] = []
    if control is not None and groups is not None:
        try:
            others = _latents_of_control(workspace, control, winner, index)
        except Exception as error:
            reason = attempt.failed("the probe of the control", error)["error"]
            attempt.notes.append(f"no probe of the control: {reason}")
    return _Studied(index, pool_index, seeds, others, first)


def _mirrors(config: Config) -> bool:
    """Returns whether a training saw mirrored images: in the finetune stage or as fixed views."""
    augmented = config.training.finetune.epochs > 0 or config.data.views > 0
    return config.data.augment.flip and augmented


def _most_pool_images(workspace: Workspace, config: Config) -> int:
    """Returns the judge's number of training images; cached features cost little, N and D more."""
    trained = Timeline.of(config).trains_backbone
    if trained or workspace.feature_dim(config) > MOST_POOL_IMAGES:
        return MOST_POOL_IMAGES
    return 2 * MOST_POOL_IMAGES


def _latents_of_control(
    workspace: Workspace, control: Retrained, winner: Retrained, index: Positions
) -> list[Latents]:
    dataset = workspace.dataset
    if control.config.data.fit != winner.config.data.fit:
        side = dataset.pool.side
        workspace = Workspace.open(
            control.config.data, side=side, cache_dir=workspace.cache_dir, device=workspace.device
        )
        if workspace.dataset.test.paths != dataset.test.paths:
            raise ValueError("the control was tested on other images")
    models = control.models(workspace, MOST_SEEDS)
    return [model.latents("test", index) for model in models]


def _from_models(
    studied: _Studied,
    dataset: Dataset,
    labels: Positions,
    logits: NDArray[np.floating],
    groups: NDArray[np.int64] | None,
    folder: Path,
    attempt: Attempts,
    draw: Drawing,
) -> dict[str, Any]:
    content: dict[str, Any] = {}
    own = labels[studied.index]
    if groups is not None and int(groups.max()) > 0:
        content["probes"] = attempt("probes", lambda: _probes(studied, own, groups))
    elif groups is not None:
        attempt.notes.append("no probes for the group: there is a single group")
    if groups is not None:
        pool_labels = dataset.pool.labels[studied.pool_index]
        content["swap"] = attempt(
            "the swap test", lambda: _swap(studied.seeds, own, pool_labels, groups)
        )
        content["shared"] = attempt("the spread of the shared part", lambda: _shared(studied.seeds))
    if _mirrors(studied.first.config):
        content["flip"] = attempt(
            "mirrored images", lambda: flip_report(studied.first, logits, labels, studied.index)
        )
    if studied.first.network.parts is not None:
        content["parts"] = attempt(
            "parts", lambda: parts_report(studied.first, dataset, studied.index)
        )
    content["map"] = attempt("the map", lambda: _map(studied, own, logits.argmax(axis=1)))
    try:
        with activity("evidence: Grad-CAM"):
            cams = look(
                studied.first,
                logits,
                labels,
                index=studied.index,
                shared=studied.seeds[0].latents.shared,
                groups=groups,
            )
    except NoMaps as error:
        attempt.notes.append(f"no Grad-CAM: {error}")
    except Exception as error:
        content["gradcam"] = attempt.failed("Grad-CAM", error)
    else:
        if (numbers := cams.numbers()) is not None:
            content["gradcam"] = numbers
        draw("Grad-CAM", lambda: cams.pictures(folder, dataset))
    return content


def _beside_wrong(
    studied: _Studied,
    dataset: Dataset,
    wrong: Sequence[dict[str, Any]],
    folder: Path,
    attempt: Attempts,
    draw: Drawing,
) -> dict[str, Any]:
    """Draws the nearest training images beside wrong ones: the surest large, all in a sheet."""
    listed, parts = wrong[:MOST_PICTURED], studied.seeds[0].latents.discriminative
    if not listed:
        return {}

    @cache
    def near() -> Nearest:
        return nearest_images(
            studied.first, dataset, listed, studied.index, parts, surest=MOST_SHOWN
        )

    draw("wrong images", lambda: wrong_pictures(folder, dataset, listed, near()))
    sheet = attempt(
        "training images near wrong ones", lambda: nearest_sheet(folder, dataset, listed, near())
    )
    return {} if sheet is None else {"wrong_nearest": sheet}


def _probes(studied: _Studied, labels: Positions, groups: NDArray[np.int64]) -> dict[str, Any]:
    latents = [seed.latents for seed in studied.seeds]
    # Features of a frozen backbone are the same for all seeds.
    distinct = latents if studied.first.finetuned else latents[:1]
    parts: dict[str, list[NDArray[np.floating]]] = {"f": [each.features for each in distinct]}
    shared = [each.shared for each in latents if each.shared is not None]
    if shared:
        parts["s"] = list(shared)
    parts["d"] = [each.discriminative for each in latents]
    if studied.control:
        parts["d of the control"] = [each.discriminative for each in studied.control]
    return group_probes(parts, labels, groups)


def _swap(
    seeds: Sequence[_Seed],
    labels: Positions,
    pool_labels: Positions,
    groups: NDArray[np.int64],
) -> dict[str, Any]:
    networks: list[Swappable] = []
    judge: Judge | None = None
    known: NDArray[np.float32] | None = None
    for seed in seeds:
        if judge is None or seed.pool is not known:
            judge, known = Judge(seed.pool, pool_labels, groups), seed.pool
        latents = seed.latents
        assert seed.decode is not None
        assert latents.shared is not None
        networks.append(
            Swappable(judge, latents.features, latents.shared, latents.discriminative, seed.decode)
        )
    return swap_test(networks, labels, groups)


def _shared(seeds: Sequence[_Seed]) -> dict[str, Any]:
    """Computes how much the shared part varies between images, relative to its length."""
    shares = [
        spread_share(seed.latents.shared) for seed in seeds if seed.latents.shared is not None
    ]
    return {"spread": float(np.mean(shares)), "by_seed": shares}


def spread_share(part: NDArray[np.floating]) -> float:
    """Returns the variance over images as a share of the mean square, 0 (one point) to 1.

    Args:
        part: (N, H) of N images.
    """
    values = np.asarray(part, dtype=np.float64)
    square = float((values**2).sum(axis=1).mean())
    moved = float(((values - values.mean(axis=0)) ** 2).sum(axis=1).mean())
    return moved / square if square > 1e-12 else 0.0


def _map(studied: _Studied, labels: Positions, predicted: Positions) -> dict[str, Any]:
    latents = studied.seeds[0].latents
    planes = {"discriminative": plane(latents.discriminative)}
    if latents.shared is not None:
        planes["shared"] = plane(latents.shared)
    methods = {name: method for name, (_, method) in planes.items()}
    same = len(set(methods.values())) == 1
    return {
        "method": methods["discriminative"]
        if same
        else ", ".join(f"{name} part: {method}" for name, method in methods.items()),
        "points": [
            {"image": int(image), "label": int(label), "predicted": int(predicted[image])}
            | {name: [round(float(x), 4) for x in at[row]] for name, (at, _) in planes.items()}
            for row, (image, label) in enumerate(zip(studied.index, labels, strict=True))
        ],
    }


def _sheets(content: dict[str, Any]) -> list[str]:
    found = [content.get(key, {}) for key in ("wrong_sheet", "wrong_nearest")]
    return [sheet["file"] for sheet in found if "file" in sheet]


def _remove_others(folder: Path, files: Sequence[str]) -> None:
    """Removes pictures of an earlier winner."""
    kept = {Path(file).name for file in files}
    for path in folder.glob("*.jpg"):
        if path.name not in kept:
            path.unlink(missing_ok=True)
