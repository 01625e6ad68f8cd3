"""Search for all kinds of issues in a data set."""

from __future__ import annotations

import numpy as np

from gsfl_tune.activity import activity
from gsfl_tune.data import Dataset
from gsfl_tune.data.grouping import Grouping
from gsfl_tune.experiment import UserError
from gsfl_tune.experiment.config import Config
from gsfl_tune.issues._base import KINDS, Found, Images, Issue
from gsfl_tune.issues.alike import alike
from gsfl_tune.issues.copies import copies
from gsfl_tune.issues.counts import odd_counts
from gsfl_tune.issues.labels import fold_units, judgement, out_of_fold, wrong_labels
from gsfl_tune.issues.outliers import outliers
from gsfl_tune.issues.pixels import measure, odd_pixels
from gsfl_tune.training import Workspace
from gsfl_tune.training.pretrain import without_pretraining
from gsfl_tune.training.workspace import resolve_device

LEFT_OUT = "left out"


def find_issues(dataset: Dataset, config: Config, *, use_features: bool = True) -> Found:
    """Finds images and classes that a person should check.

    Args:
        dataset: Prepared with any number of broken images.
        config: Determines the backbone, its weights and the image size.
        use_features: Whether to check labels and outliers, which needs the backbone.

    Raises:
        UserError: If the weights of the backbone are not available.
    """
    # As it is before any training.
    config = without_pretraining(config)
    # First, so that missing weights are reported before the long checks.
    workspace = _workspace(dataset, config) if use_features else None
    images = listed_images(dataset)
    issues = odd_pixels(images, measure(images, config.data.fit), config.data.image_size)
    part_of = dict(zip(images.paths, images.part_names, strict=True))
    class_of = dataset.class_of_path()
    with activity("comparing the images"):
        near = dataset.near_duplicates()
    issues += copies(dataset.duplicates, near, class_of, part_of)
    issues += odd_counts(images)
    issues += [
        Issue(
            path=image.path,
            class_name=class_of[image.path],
            part="",
            issue="broken",
            score=1.0,
            suggestion="leave out",
            reason=image.reason,
        )
        for image in dataset.broken
    ]
    notices = list(dataset.notices)
    if workspace is not None:
        found, told = _by_features(dataset, workspace, config)
        issues += found
        notices += told
    order = list(KINDS)
    issues.sort(key=lambda each: (order.index(each.issue), -each.score, _place(each), each.path))
    return Found(
        name=dataset.name,
        issues=issues,
        notices=notices,
        image_count=len(images.paths),
        classes=dataset.classes,
        judged_by="" if workspace is None else f"{config.model.extractor} ({config.model.weights})",
    )


def listed_images(dataset: Dataset) -> Images:
    """Returns all readable images, with the names of their parts."""
    pool = np.full(len(dataset.pool), "train", dtype=object)
    pool[dataset.validation_index] = "validation"
    parts = [
        (dataset.pool, pool.tolist()),
        (dataset.test, ["test"] * len(dataset.test)),
        (dataset.dropped, [LEFT_OUT] * len(dataset.dropped)),
    ]
    return Images(parts, dataset.classes)


def _workspace(dataset: Dataset, config: Config) -> Workspace:
    workspace = Workspace(dataset, device=resolve_device(config.training.device))
    try:
        workspace.backbone(config)
    except UserError as error:
        raise UserError(
            f"{error}; --no-features runs the checks without a backbone: copies, and dark, "
            "blurred, tiny or broken images"
        ) from error
    return workspace


def _by_features(
    dataset: Dataset, workspace: Workspace, config: Config
) -> tuple[list[Issue], list[str]]:
    """Finds wrong labels and outliers, and says how reliable they are."""
    # Images in no part are left out because of images in a part, and need no further check.
    images = Images(listed_images(dataset).parts[:2], dataset.classes)
    plain = config.model_copy(
        update={"model": config.model.model_copy(update={"pooling": "average"})}
    )
    features = np.concatenate(
        [workspace.features(plain, part).float().numpy() for part in ("pool", "test")]
    )
    features /= np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)
    labels = np.asarray(images.labels, dtype=np.int64)
    grouping = _grouping(dataset, images.paths)
    units = fold_units(grouping, labels)
    predictions = out_of_fold(features, labels, units, len(images.classes))
    issues = wrong_labels(images, predictions)
    issues += alike(images, features, grouping.copies)
    issues += outliers(images, features, grouping.copies)
    return issues, judgement(predictions, labels)


def _grouping(dataset: Dataset, paths: list[str]) -> Grouping:
    """Returns which of some images belong together."""
    every, grouping = dataset.belonging()
    place = {path: row for row, path in enumerate(every)}
    rows = np.array([place[path] for path in paths], dtype=np.int64)
    return Grouping(grouping.copies[rows], grouping.units[rows])


def _place(issue: Issue) -> int:
    """Sort key that keeps sets of copies together."""
    return -1 if issue.set_number is None else issue.set_number
