"""Pretrainings that cannot be trained."""

from __future__ import annotations

from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.pretrain_config import PretrainConfig
from gsfl_tune.models import BackboneError
from gsfl_tune.training.pretrain.bases import BASES
from gsfl_tune.training.pretrain.screening import screening_problem


def refuse(config: Config, images: int, image_size: int) -> None:
    """Refuses what cannot be trained.

    Args:
        config: The configuration.
        images: Number of images to learn from.
        image_size: Side of the views in pixels.

    Raises:
        UserError: With what was found and what is allowed.
    """
    own = config.pretrain
    if images < own.batch_size:
        raise UserError(
            f"pretrain.batch_size: found {own.batch_size} for {images} images, allowed at "
            "most their number"
        )
    if own.method == "moco" and own.batch_size < 2 * own.groups:
        raise UserError(
            f"pretrain.norm_groups: found {own.groups} for batches of {own.batch_size} images, "
            "allowed at most half of them: batch norms need two images"
        )
    if own.augment.off:
        raise UserError(
            "pretrain.augment: found no change, allowed any: both views of an image are the same"
        )
    try:
        problem = screening_problem(config.model.backbone, image_size)
    except BackboneError as error:
        raise UserError(f"pretrain.image_size: {error}") from error
    if own.augment.local_crops:
        _refuse_local(config, image_size)
    if problem and own.lcr.weight:
        raise UserError(
            f"pretrain.lcr.weight: found {own.lcr.weight:g}, {problem}; allowed: 0, or a "
            "larger pretrain.image_size"
        )


def processes_problem(
    own: PretrainConfig, processes: int, groups: int
) -> tuple[str, str, int | None] | None:
    """Says why a batch cannot be divided between processes, or returns None.

    Args:
        own: Section ``pretrain``.
        processes: Their number.
        groups: Groups of a batch whose batch norms have their own statistics.

    Returns:
        The leaf, the message, and the value that it is about.
    """
    images, given = own.batch_size, own.norm_groups
    if processes > images:
        few = f"found {images} for {processes} processes, allowed at least one image for each"
        return "pretrain.batch_size", few, images
    if groups > 1 and groups % processes:
        found = f"found {groups}" if given is not None else f"found null, which is {groups} here,"
        message = (
            f"{found} for {processes} processes, allowed 1, or a multiple of their number: a group "
            "passes one process as a whole"
        )
        return "pretrain.norm_groups", message, given
    return None


def refuse_processes(own: PretrainConfig, processes: int, groups: int) -> None:
    """Refuses processes that a batch cannot be divided between, see `processes_problem`.

    Raises:
        UserError: With what was found and what is allowed.
    """
    if problem := processes_problem(own, processes, groups):
        path, message, _ = problem
        raise UserError(f"{path}: {message}")


def _refuse_local(config: Config, image_size: int) -> None:
    """Refuses small views that the method or the backbone cannot take."""
    own, side = config.pretrain, config.pretrain.augment.local_side(image_size)
    if not BASES[own.method].takes_local:
        able = ", ".join(name for name, kind in BASES.items() if kind.takes_local)
        raise UserError(
            f"pretrain.augment.local_crops: found {own.augment.local_crops} with pretrain."
            f"method {own.method}, which has no loss for small views; allowed: 0, or {able}"
        )
    if side > image_size:
        raise UserError(
            f"pretrain.augment.local_size: found {side}, allowed at most the image size, "
            f"{image_size}"
        )
    try:
        screening_problem(config.model.backbone, side)
    except BackboneError as error:
        raise UserError(f"pretrain.augment.local_size: {error}") from error
