"""Pretrained weights in the cache: the same settings and images are trained on once a node."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from gsfl_tune.cache.building import acquire
from gsfl_tune.cache.entries import describe, forget, lock_file, touch
from gsfl_tune.cache.locks import ReadLock, file_lock, read_lock
from gsfl_tune.cache.shared import is_shared
from gsfl_tune.data.contrast import images_without_labels
from gsfl_tune.data.dataset import Dataset
from gsfl_tune.data.decoded import DecodedImages
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.models import (
    Backbone,
    BackboneError,
    Preprocessing,
    WeightsError,
    create_backbone,
    licence_problem,
    probe,
)
from gsfl_tune.run.layout import CHECKPOINT_FILE
from gsfl_tune.training.caches.features import digest
from gsfl_tune.training.checkpoint import CheckpointError
from gsfl_tune.training.out_of_memory import free_memory, out_of_memory
from gsfl_tune.training.precision import whole_backbone_uses_bf16
from gsfl_tune.training.pretrain.pretraining import Pretraining, PretrainingFailed, uses_bf16

# Part of every key; raise it when the same settings give other weights, of all of them or of some.
CODE_VERSION = 1
_CODE_VERSION_OF_MOCO = 2  # norms in groups, no own images in the queue
_CODE_VERSION_WITH_LCR = 2  # the file has the screening head

KIND = "pretrained"
_SUFFIX = ".safetensors"
# A folder with the checkpoint of a pretraining that is not finished.
_UNFINISHED = ".unfinished"

Train = Callable[[Pretraining], None]


def without_pretraining(config: Config) -> Config:
    """Returns a configuration whose backbone has the weights that ``model.weights`` names."""
    training = config.training.model_copy(update={"pretrain": False})
    return config.model_copy(update={"training": training})


def pretraining_settings(config: Config) -> dict[str, Any]:
    """Returns the settings of ``pretrain`` that have an effect, by name."""
    own = config.pretrain
    found = own.model_dump(exclude={"evaluate_every"})
    found["image_size"] = own.image_size or config.data.image_size
    if own.method == "moco":
        found["norm_groups"] = own.groups
    else:  # as of versions without it
        del found["norm_groups"]
    if not own.augment.local_crops:
        found["augment"] = {
            name: value for name, value in found["augment"].items() if "local" not in name
        }
    if not own.discriminative.on:
        del found["discriminative"]
    if not own.lcr.weight:
        del found["lcr"]
    return found


def pretraining_digest(
    config: Config, images: DecodedImages, backbone: Backbone, device: torch.device
) -> str:
    """Returns a digest of all that decides the weights of a pretraining.

    Args:
        config: The configuration.
        images: What is learned from.
        backbone: The backbone at its start.
        device: Where it is trained.
    """
    return digest(
        "pretrained", _code_version(config), _lightly(), images.digest, backbone.digest,
        sorted(pretraining_settings(config).items()), uses_bf16(config, device),
    )  # fmt: skip


def with_precision(
    config: Config,
    images: DecodedImages,
    backbone: Backbone,
    device: torch.device,
    cache_dir: Path,
    known: str | None = None,
) -> Config:
    """Returns a configuration whose ``training.precision`` is decided for its pretraining.

    On a CPU `auto` is what a pretraining in the cache has, finished or not, and else what is
    measured to be faster. Nodes that share their caches would not all measure the same and train
    twice: they compute in fp32.

    Args:
        config: The configuration.
        images: What is learned from.
        backbone: The backbone at its start.
        device: Where it is trained.
        cache_dir: Root of the node's caches.
        known: What was decided when it began.
    """

    def decided(precision: str) -> Config:
        training = config.training.model_copy(update={"precision": precision})
        return config.model_copy(update={"training": training})

    if config.training.precision != "auto":
        return config
    if known is not None:
        return decided(known)
    if device.type != "cpu" or is_shared():
        return decided("bf16" if uses_bf16(config, device) else "fp32")
    for precision in ("fp32", "bf16"):
        key = pretraining_digest(decided(precision), images, backbone, device)
        begun = _unfinished_folder(cache_dir, key) / CHECKPOINT_FILE
        if weights_file(cache_dir, key).exists() or begun.exists():
            return decided(precision)
    size = config.pretrain.image_size or config.data.image_size
    faster = whole_backbone_uses_bf16(backbone, size, cache_dir)
    return decided("bf16" if faster else "fp32")


def key_parts(config: Config, backbone: Backbone, device: torch.device) -> dict[str, Any]:
    """Returns what the key of a pretraining holds beside images and settings, for people.

    Args:
        config: The configuration.
        backbone: The backbone at its start.
        device: Where it is trained.
    """
    return {
        "training.precision": "bf16" if uses_bf16(config, device) else "fp32",
        "version of lightly": _lightly() or "none",
        "digest of the first weights": backbone.digest,
        "version of the pretraining's code": _code_version(config),
    }


def _code_version(config: Config) -> int:
    of_method = _CODE_VERSION_OF_MOCO if config.pretrain.method == "moco" else CODE_VERSION
    return max(of_method, _CODE_VERSION_WITH_LCR if config.pretrain.lcr.weight else CODE_VERSION)


def _lightly() -> str:
    try:
        return version("lightly")
    except PackageNotFoundError:
        return ""


def starting_backbone(config: Config) -> Backbone:
    """Returns the backbone that a pretraining begins with.

    Its inputs are normalised as those of a file of weights, which the result is.

    Raises:
        UserError: If the backbone or its weights cannot be had, or have a licence that is not
            allowed.
    """
    model = config.model
    allowed = model.licenses
    told = (model.backbone, model.weights)
    if allowed is not None and (problem := licence_problem(*told, allowed)):
        raise UserError(f"model.backbone: {problem}")
    try:
        backbone = create_backbone(model.backbone, model.weights, seed=config.pretrain.seed)
        facts = probe(model.backbone)
    except WeightsError as error:
        raise UserError(f"model.weights: {error}") from error
    except BackboneError as error:
        raise UserError(f"model.backbone: {error}") from error
    backbone.preprocessing = Preprocessing(facts.mean, facts.std)
    return backbone


def acquire_weights(
    config: Config,
    images: DecodedImages,
    cache_dir: Path,
    device: torch.device,
    train: Train,
    directory: Path | None = None,
    backbone: Backbone | None = None,
) -> tuple[ReadLock, str]:
    """Takes the weights of a pretraining into use, and trains it if nobody has yet.

    Args:
        config: The configuration.
        images: What is learned from.
        cache_dir: Root of the node's caches.
        device: Where to train.
        train: Trains it to its end.
        directory: Folder of its checkpoint; by default one in the cache, so that a pretraining that
            was killed goes on where it was.
        backbone: The backbone at its start, where the caller has made it; it is trained.

    Returns:
        The lock of the file, and the key of the pretraining.

    Raises:
        UserError: If it cannot begin.
        PretrainingFailed: If it has no usable result.
    """
    first = backbone or starting_backbone(config)
    key = pretraining_digest(config, images, first, device)
    what = words_of(config, images)

    def build(path: Path) -> None:
        with contextlib.ExitStack() as stack:
            if directory is None:
                begun = unfinished_pretraining(config, first, images, cache_dir, device, key)
                training = stack.enter_context(begun)
            else:
                training = Pretraining(config, first, images, directory, key=key, device=device)
            train(training)
            # The checkpoint stays until the file is durable: by then, a kill would cost it all.
            training.write(path)

    lock = acquire(weights_file(cache_dir, key), build, what=what)
    unfinished = _unfinished_folder(cache_dir, key)
    if unfinished.exists():
        with contextlib.suppress(OSError):
            shutil.rmtree(unfinished)
            forget(unfinished)
    return lock, key


def keep_weights(
    config: Config, images: DecodedImages, cache_dir: Path, key: str, weights: Path
) -> None:
    """Puts weights that were learned before into the cache, where it lacks them.

    Args:
        config: The configuration.
        images: What was learned from.
        cache_dir: Root of the node's caches.
        key: Name of the pretraining.
        weights: Its result.
    """

    def copy(path: Path) -> None:
        shutil.copyfile(weights, path)

    acquire(weights_file(cache_dir, key), copy, what=words_of(config, images)).close()


def weights_file(cache_dir: Path, key: str) -> Path:
    """Returns the file in the cache that the weights of a pretraining have at its end."""
    return cache_dir / KIND / f"{key}{_SUFFIX}"


def words_of(config: Config, images: DecodedImages) -> str:
    """Says what a pretraining is, for people who look into the cache."""
    own = config.pretrain
    return f"{config.model.backbone}, {own.method}, {own.epochs} epochs, {images.name}"


@contextlib.contextmanager
def unfinished_pretraining(
    config: Config,
    backbone: Backbone,
    images: DecodedImages,
    cache_dir: Path,
    device: torch.device,
    key: str,
) -> Iterator[Pretraining]:
    """Lets this process alone go on with a pretraining whose checkpoint is in the cache.

    Args:
        config: The configuration.
        backbone: The backbone at its start.
        images: What is learned from.
        cache_dir: Root of the node's caches.
        device: Where to train.
        key: Name of the pretraining.

    Raises:
        UserError: If it cannot be trained.
    """
    folder, what = _unfinished_folder(cache_dir, key), words_of(config, images)
    # Several trials may want to train the same one, up to different epochs.
    with file_lock(lock_file(folder), f"learns without labels ({what})"):
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            # Until it is released, nobody who makes room in the cache removes the checkpoint.
            if (used := read_lock(folder)) is not None:
                break
        with used:
            describe(folder, f"{what}, not finished")
            yield Pretraining(config, backbone, images, folder, key=key, device=device)


def train_epoch(training: Pretraining) -> None:
    """Trains the next epoch of a pretraining whose checkpoint is in the cache, and records it."""
    training.record(training.run_epoch())
    touch(training.checkpoint_path.parent)


def go_on(training: Pretraining) -> None:
    """Continues from the checkpoint of a pretraining in the cache, if there is one."""
    try:
        training.restore()
    except CheckpointError:  # nobody could remove it but by hand
        training.discard()


@contextlib.contextmanager
def failures_told() -> Iterator[None]:
    """Puts the failures of a pretraining into words for the trial that needs it.

    Raises:
        UserError: With the reason.
    """
    complaint: str | None = None
    try:
        yield
    except PretrainingFailed as error:
        raise UserError(f"pretrain: {error}") from error
    except Exception as error:
        complaint = None if isinstance(error, UserError) else out_of_memory(error)
        if complaint is None:
            raise
    # Without its cause: the trial would try again with half of its batch, which is another one.
    if complaint is not None:
        free_memory()
        raise UserError(
            f"pretrain.batch_size: out of memory ({complaint}); a smaller one needs less"
        )


def _unfinished_folder(cache_dir: Path, key: str) -> Path:
    return cache_dir / KIND / f"{key}{_UNFINISHED}"


def pretrained_backbone(
    config: Config, dataset: Dataset, cache_dir: Path, device: torch.device, reads: Any = "map"
) -> Backbone:
    """Returns a frozen backbone with the weights of the configuration's pretraining.

    Args:
        config: The configuration.
        dataset: Its images.
        cache_dir: Root of the node's caches.
        device: Where to train, if it must be.
        reads: What the pooling reads.

    Raises:
        UserError: If it cannot be trained, or has no usable result; with the reason.
    """

    def train(training: Pretraining) -> None:
        go_on(training)
        while not training.finished:
            train_epoch(training)

    images = images_without_labels(dataset)
    with failures_told():
        first = starting_backbone(config)
        decided = with_precision(config, images, first, device, cache_dir)
        lock, _ = acquire_weights(decided, images, cache_dir, device, train, backbone=first)
    with lock as path:
        try:
            return create_backbone(config.model.extractor, str(path), reads=reads)
        except (BackboneError, WeightsError) as error:
            raise UserError(f"training.pretrain: {error}") from error
