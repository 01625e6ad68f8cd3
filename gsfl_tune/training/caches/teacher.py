"""A teacher: the network of a bundle, and what it says of the images, computed once a node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gsfl_tune.activity import activity
from gsfl_tune.bundles import (
    Architecture,
    BundleError,
    Preprocessing,
    files,
    read_description,
    read_network,
)
from gsfl_tune.cache.building import acquire
from gsfl_tune.data import Augment, Dataset, DecodedImages
from gsfl_tune.data.augment import center_crop
from gsfl_tune.data.loader import eval_batches, view_batches
from gsfl_tune.data.sources._names import spelt
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.training.caches.features import View, all_cores, digest

# Part of every cache key: raise it when the numbers that this file computes change.
CODE_VERSION = 1

_BATCH = 64
_MOST_NAMED = 3


class Teacher:
    """Holds the network of a bundle; its answers are in the order of the student's classes.

    Args:
        path: The bundle, of safetensors.
        classes: Names of the student's classes.
        fit: How the student's images become squares.

    Attributes:
        path: Of the bundle.
        name: What people call it: of a run's winner, the run.
        digest: Of everything that decides its answers.
        trained_on: What the bundle says of the images that it was trained on; empty where it says
            nothing.

    Raises:
        UserError: If it is not a bundle of safetensors, or has other classes or another ``fit``.
    """

    def __init__(self, path: Path, classes: Sequence[str], fit: str) -> None:
        try:
            description = _description(path)
            known = files.read_json_file(path / files.CLASSES)
            classes = spelt(classes, known)
            try:
                architecture = Architecture.from_json(description["architecture"])
                preprocessing = Preprocessing(**description["preprocessing"])
            except (KeyError, TypeError, ValueError) as error:
                raise BundleError(f"the files do not fit together ({error})") from error
            _check(path, known, classes, preprocessing.fit, fit)
            self._network = read_network(path, description, architecture)
        except BundleError as error:
            raise UserError(f"training.teacher: {error}") from error
        self._order = torch.tensor([known.index(name) for name in classes])
        self._size = preprocessing.image_size
        self._mean, self._std = tuple(preprocessing.mean), tuple(preprocessing.std)
        self.path = path
        self.name = path.parent.name if path.name == "best" else path.name
        self.trained_on: dict[str, Any] = description.get("trained_on", {})
        self.digest = digest(
            description["sha256"][files.MODEL],
            sorted(description["architecture"].items(), key=str),
            sorted(description["preprocessing"].items(), key=str),
            [known.index(name) for name in classes],
        )

    @torch.no_grad()
    def logits(self, images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
        """Computes class scores (B, C), float32, of images as the student sees them.

        Args:
            images: (B, 3, side, side), normalised; resized where the teacher's own are larger or
                smaller.
            mean: Mean of the three channels that they were normalised with.
            std: Standard deviation of the three channels.
        """
        if images.shape[-1] != self._size:
            images = functional.interpolate(
                images, (self._size, self._size), mode="bilinear", antialias=True
            )
        if (tuple(mean), tuple(std)) != (self._mean, self._std):
            ours, theirs = (
                torch.tensor(both, device=images.device).view(2, 1, 3, 1, 1)
                for both in ((tuple(mean), tuple(std)), (self._mean, self._std))
            )
            images = (images * ours[1] + ours[0] - theirs[0]) / theirs[1]
        return self._answers(images)

    def table(
        self, images: DecodedImages, cache_dir: Path, device: torch.device, view: View | None = None
    ) -> Tensor:
        """Returns the class scores of all images of a part.

        Args:
            images: Decoded images.
            cache_dir: Root of the node's caches.
            device: Where they are computed.
            view: The fixed view, cut out as the student's is, in the teacher's own size; None for
                the centres of the images.

        Returns:
            (N, C) float32 on the CPU, memory-mapped.
        """
        further = () if view is None else view.key
        key = digest("teacher", CODE_VERSION, images.digest, self.digest, *further)
        shape = (len(images), len(self._order))
        what = f"{self.name}, {images.name}" + ("" if view is None else f", view {view.number}")
        lock = acquire(
            cache_dir / "teachers" / f"{key}.npy",
            lambda path: self._build(images, path, shape, device, view, what),
            what=what,
            size=4 * shape[0] * shape[1],
        )
        array = np.load(lock.path, mmap_mode="c")
        lock.keep_with(array)
        return torch.from_numpy(array)

    def _build(
        self,
        images: DecodedImages,
        path: Path,
        shape: tuple[int, int],
        device: torch.device,
        view: View | None,
        what: str,
    ) -> None:
        def transform(batch: Tensor) -> Tensor:
            return center_crop(batch, self._size, self._mean, self._std)

        index = np.arange(len(images))
        if view is None:
            batches = eval_batches(images, index, _BATCH, transform=transform, device=device)
        else:
            augment = Augment(view.augment, self._size, self._mean, self._std)
            drawn = view.views.draw(view.number, augment)
            batches = view_batches(
                images, index, _BATCH, random=drawn, transform=augment, device=device
            )
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        with (
            activity(f"asking the teacher ({what})", len(images), "images") as step,
            path.open("wb") as file,
            all_cores(device),
            torch.inference_mode(),
        ):
            np.lib.format.write_array_header_1_0(file, header)
            for batch in batches:
                answers = self._answers(batch.inputs).cpu().numpy()
                file.write(np.ascontiguousarray(answers, dtype="<f4").data)
                step.done += len(batch)
        # A GPU's memory is for the trials that follow.
        self._network.cpu()

    def _answers(self, images: Tensor) -> Tensor:
        network = self._network.to(images.device)
        found = network.infer(images.contiguous(memory_format=torch.channels_last))
        return found.float()[:, self._order.to(found.device)]


def seen_by(teacher: Teacher, dataset: Dataset) -> list[str]:
    """Says what a teacher has seen, or may have seen, of the images that a student is judged by.

    Raises:
        UserError: If it was trained on images of the student's test part.
    """
    seen, ours = teacher.trained_on, dataset.trained_on(validation=True)
    if not seen or seen.get("images") != ours["images"]:
        return [
            f"training.teacher: {teacher.path} does not say whether it was trained on images of "
            "the validation or test part: if it was, the student's results are too good"
        ]
    if seen.get("test") != ours["test"]:
        raise UserError(
            f"training.teacher: {teacher.path} was trained on other parts of the same images, so "
            "that it has seen images of the test part; allowed is a bundle of the same test part "
            "(data.split), or of other images"
        )
    return []


def seen_complaint(teacher: Teacher, dataset: Dataset, *, folds: bool) -> str | None:
    """Says that a teacher was trained on images by which its students are compared, or None."""
    seen, ours = teacher.trained_on, dataset.trained_on(validation=True)
    if not seen or seen.get("images") != ours["images"]:
        return None
    if folds:
        return (
            f"training.teacher: {teacher.path} was trained on the same images, all of which "
            "validate students with search.folds; allowed is a bundle of other images, or a "
            "search without folds"
        )
    # Bundles of earlier versions say nothing of another split.
    if not seen.get("validation") and seen.get("held_out", ours["held_out"]) == ours["held_out"]:
        return None
    run = teacher.path.parent if teacher.path.name == "best" else "RUN"
    return (
        f"training.teacher: {teacher.path} was trained on the validation images too, by which "
        "students are compared; allowed is a bundle of the training images alone: "
        f"gsfl-tune export {run} OUT --without-validation"
    )


def teacher_problem(path: Any) -> str | None:
    """Says what keeps a bundle from being a teacher, whatever the data is, or None."""
    if path is None:
        return None
    try:
        _description(Path(path))
    except BundleError as error:
        return f"found '{path}', allowed is the directory of a bundle, such as RUN/best ({error})"
    return None


def teacher_bytes(path: Path) -> int:
    """Counts the bytes of a teacher's weights; 0 where there is no bundle."""
    file = path / files.MODEL
    return file.stat().st_size if file.is_file() else 0


def teacher_sees(path: Path) -> tuple[str, int]:
    """Reads a teacher's backbone and the side of its images, for prices.

    Raises:
        BundleError: If it is not a bundle of safetensors.
    """
    description = _description(path)
    backbone = str(description["architecture"]["backbone"])
    return backbone, int(description["preprocessing"]["image_size"])


def _description(path: Path) -> dict[str, Any]:
    description = read_description(path)
    stored = description.get("export", {}).get("format", "safetensors")
    if stored != "safetensors":
        raise BundleError(f"{path}: found a bundle of format {stored}, allowed is safetensors")
    return description


def _check(path: Path, known: list[str], classes: Sequence[str], fit: str, wanted: str) -> None:
    """Raises where a teacher cannot answer for the student's classes or images."""
    unknown = [name for name in classes if name not in known]
    others = [name for name in known if name not in classes]
    if unknown or others:
        parts = [
            f"{what} {', '.join(names[:_MOST_NAMED])}"
            + (f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else "")
            for what, names in (("lacks", unknown), ("has besides", others))
            if names
        ]
        raise BundleError(
            f"{path}: found {len(known)} classes for the {len(classes)} of the data: it "
            f"{'; it '.join(parts)}; allowed are the same classes"
        )
    if fit != wanted:
        raise BundleError(
            f"{path}: its images are made into squares by {fit}, data.fit is {wanted}; allowed is "
            "the same"
        )
