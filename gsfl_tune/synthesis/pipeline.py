"""The whole synthesis: opens data, pipeline and bundle, makes images, keeps those that pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from gsfl_tune.activity import activity
from gsfl_tune.bundles import files, read_description
from gsfl_tune.data import Dataset, cache_directory, prepare
from gsfl_tune.data.sources._names import spelt
from gsfl_tune.data.training_images import training_images
from gsfl_tune.experiment.data_config import DataConfig
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export import Bundle, load_bundle
from gsfl_tune.export.bundle import own_version
from gsfl_tune.run import RunDirectory
from gsfl_tune.run.lock import run_lock
from gsfl_tune.synthesis.generator import Generator, SynthesisFailed
from gsfl_tune.synthesis.making import Notice, Work, make_class
from gsfl_tune.synthesis.manifest import open_manifest, refuse_existing
from gsfl_tune.synthesis.model_files import ModelFiles, read_model
from gsfl_tune.synthesis.settings import Settings
from gsfl_tune.training import resolve_device

_MODULES = ("diffusers", "transformers")
_SHOWN = 5


@dataclass(frozen=True)
class Synthesized:
    """Describes the result.

    Attributes:
        path: The folder, for ``data.synthetic``.
        kept: Images of each class.
        refused: Images of each class that were made and not kept.
        made: Images that were made now; others were there before.
        wanted: Images that were asked for of each class.
    """

    path: Path
    kept: dict[str, int]
    refused: dict[str, int]
    made: int
    wanted: int

    @property
    def short(self) -> list[str]:
        """Returns the classes with fewer images than were asked for."""
        return [name for name, count in self.kept.items() if count < self.wanted]

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return {
            "path": str(self.path),
            "wanted": self.wanted,
            "kept": self.kept,
            "refused": self.refused,
            "made": self.made,
            "short": self.short,
        }


def synthesize(
    data: DataConfig,
    model: Path,
    out: Path,
    settings: Settings | None = None,
    *,
    bundle: str | Path | None = None,
    device: str = "auto",
    resume: bool = False,
    cache_dir: Path | None = None,
    notice: Notice = lambda line: None,
) -> Synthesized:
    """Makes synthetic images of the training part with a diffusion pipeline.

    The VAE latents of an image are mixed with those of another image of its class. Noise is added
    at a strength and removed again by the pipeline, with the name of the class as its prompt. The
    idea, to augment classes that differ in details by recombining images with a large model, is
    that of Wu et al., "Detail Reinforcement Diffusion Model: Augmentation Fine-Grained Visual
    Categorization in Few-Shot Conditions" (DRDM), arXiv 2309.08097; nothing is trained here, see
    ``docs/synthesize.md``.

    Args:
        data: The section ``data``: which images, and their split. Images of the training part alone
            are used.
        model: Directory of a pipeline that diffusers saved.
        out: The directory to write, for ``data.synthetic``; it must be missing or empty.
        settings: Strength, mix, number, prompt and others.
        bundle: A bundle whose answers decide which images are kept.
        device: ``auto`` (a GPU if there is one) or a torch device.
        resume: Whether to continue what is in `out`, or to add images to it.
        cache_dir: Root of the node's caches.
        notice: Called with what people must know.

    Returns:
        What it made.

    Raises:
        UserError: If data, pipeline, bundle or settings cannot be used, or `out` does not fit.
        SynthesisFailed: If an image was not finite, memory did not suffice, or none was kept.
    """
    settings = settings or Settings()
    settings.check()
    refuse_existing(out, resume=resume)
    if settings.confidence is not None and bundle is None:
        raise UserError("--confidence: found without --bundle, allowed with one: it judges")
    found = read_model(model)
    side = found.side(settings.size)
    missing = [name for name in _MODULES if find_spec(name) is None]
    if missing:
        raise UserError(
            f"synthesis needs {' and '.join(missing)}: run  pip install 'gsfl-tune[diffusers]'"
        )
    where = resolve_device(device)
    judge = None if bundle is None else load_bundle(bundle, device)
    # The same listing, split and pixels as in a search; validation and test images are not used.
    own = data.model_copy(update={"synthetic": None, "unlabelled": None})
    dataset = prepare(own, side=side, cache_dir=cache_dir or cache_directory(), parts=("pool",))
    names = _names(settings, dataset.classes)
    if judge is not None:
        judge.match_classes(names)
    for line in dataset.notices:
        notice(line)
    run = RunDirectory(out)
    try:
        with run_lock(run, "another synthesis is using this directory"):
            facts = _facts(settings, side, data, dataset, found, judge)
            manifest = open_manifest(out, facts, resume=resume)
            with activity("loading the pipeline"):
                generator = Generator(found, where)
            manifest.write()
            total = settings.per_class * len(names)
            with activity("making images", total, "images") as step:
                work = Work(settings, generator, dataset, judge, manifest, step)
                images = dict(zip(dataset.classes, training_images(dataset), strict=True))
                kept = {name: make_class(work, name, images[name], notice) for name in names}
            if not any(kept.values()):
                raise SynthesisFailed(
                    f"none of {work.made:,} images was kept; a lower --confidence or --strength "
                    "may help"
                )
            manifest.finished = True
            manifest.write()
    except torch.OutOfMemoryError as error:
        raise SynthesisFailed(
            "the GPU has not enough memory; a smaller --size needs less"
        ) from error
    except OSError as error:
        raise UserError(
            f"{out}: cannot be written ({error.strerror or error}); --resume continues"
        ) from error
    refused = {
        name: sum(key[0] == name and each["file"] is None for key, each in manifest.records.items())
        for name in names
    }
    return Synthesized(out, kept, refused, work.made, settings.per_class)


def _names(settings: Settings, classes: Sequence[str]) -> list[str]:
    asked = spelt(settings.classes, classes)
    unknown = [name for name in asked if name not in classes]
    if unknown:
        shown = ", ".join(classes[:_SHOWN]) + (", ..." if len(classes) > _SHOWN else "")
        raise UserError(f"--classes: found {', '.join(unknown)}, allowed {shown}")
    return [name for name in classes if not asked or name in asked]


def _facts(
    settings: Settings,
    side: int,
    data: DataConfig,
    dataset: Dataset,
    model: ModelFiles,
    bundle: Bundle | None,
) -> dict[str, Any]:
    """Returns what the images depend on, as JSON gives it back."""
    judge = None
    if bundle is not None:
        sha256 = read_description(bundle.path)["sha256"]
        judge = {"path": str(bundle.path), "sha256": sha256.get(files.MODEL, sha256)}
    return {
        "gsfl_tune": own_version(),
        "data": {"path": data.path, "digest": dataset.digest, "classes": dataset.classes},
        "model": {
            "path": str(model.path),
            "class": model.kind,
            "digest": model.digest,
            "content": model.content,
        },
        "bundle": judge,
        "settings": {**settings.to_json(), "size": side},
    }
