"""Makes the images of a class one after the other, and records each of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from gsfl_tune.activity.record import Activity
from gsfl_tune.data import Dataset
from gsfl_tune.data.marks import marked_png
from gsfl_tune.data.sources._names import normal
from gsfl_tune.data.training_images import TrainingImage
from gsfl_tune.export import Bundle
from gsfl_tune.run.atomic import write_bytes
from gsfl_tune.synthesis.generator import Generator, between
from gsfl_tune.synthesis.manifest import Manifest
from gsfl_tune.synthesis.recipes import Recipe, recipe
from gsfl_tune.synthesis.settings import Settings

_REFUSED = "the pipeline's safety checker"
_NOT_SURE = "the bundle"
# Settings that an image depends on, beside its own seed.
_SAID = ("strength", "mix", "steps", "guidance", "prompt", "size")

Notice = Callable[[str], None]


@dataclass
class Work:
    """Holds what the making of all images needs.

    Attributes:
        settings: Strength, mix, number and others.
        generator: The pipeline.
        dataset: The images, decoded to the side of the synthetic ones.
        bundle: Judges the images; None for no judge.
        manifest: Where they are recorded.
        step: The activity; its `done` counts images that are kept.
        made: Images that were made now.
        encoded: Latents of the last images that were encoded, by row.
    """

    settings: Settings
    generator: Generator
    dataset: Dataset
    bundle: Bundle | None
    manifest: Manifest
    step: Activity
    made: int = 0
    encoded: dict[int, Any] = field(default_factory=dict)


def make_class(work: Work, name: str, images: Sequence[TrainingImage], notice: Notice) -> int:
    """Makes the images of one class that are not there yet.

    Args:
        work: What it needs.
        name: The class.
        images: Its training images.
        notice: Called with how many there are in the end.

    Returns:
        The number of images that are kept.

    Raises:
        SynthesisFailed: If an image is not finite.
        OSError: If a file cannot be written.
    """
    settings, kept, number = work.settings, 0, 0
    before = work.step.done
    work.encoded.clear()
    while kept < settings.per_class and number < settings.per_class * settings.attempts:
        record = work.manifest.done(name, number)
        if record is None:
            mixes = settings.mix > 0
            how = recipe(images, name, number, seed=settings.seed, mixes=mixes)
            work.step.what = f"making images of {name}"
            record = _make(work, name, how)
            work.manifest.records[name, number] = record
            work.manifest.write()
            work.made += 1
        kept += record["file"] is not None
        number += 1
        work.step.done = before + kept
    work.step.done = before + settings.per_class
    refused = f", {number - kept:,} more were refused" if number > kept else ""
    few = f" of {settings.per_class:,} that were asked for" if kept < settings.per_class else ""
    notice(f"{name}: {kept:,} images{few}{refused}")
    return kept


def _make(work: Work, name: str, how: Recipe) -> dict[str, Any]:
    """Makes one image, writes it if it is kept, and returns its record."""
    settings, what = work.settings, work.step.what
    latents = _latents(work, how.first)
    if how.second is not None:
        latents = between(latents, _latents(work, how.second), settings.mix)

    def on_step(step: int) -> None:
        work.step.what = f"{what}, number {how.number + 1}, step {step}"

    pixels = work.generator.image(latents, settings.prompt_of(name), how.seed, settings, on_step)
    used = [how.first] if how.second is None else [how.first, how.second]
    record: dict[str, Any] = {
        "file": None,
        "class": name,
        "number": how.number,
        "seed": how.seed,
        "sources": [{"path": each.path, "digest": each.digest.hex()} for each in used],
    }
    if pixels is None:
        return record | {"refused_by": _REFUSED}
    image = Image.fromarray(pixels)
    if work.bundle is not None:
        best = work.bundle.predict(image, top=1)[0]
        record |= {"answer": best.classes[0], "confidence": round(best.probabilities[0], 6)}
        least = settings.confidence or 0.0
        # A bundle of an earlier version may have decomposed names.
        other = normal(best.classes[0]) != name
        if other or best.probabilities[0] < least:
            return record | {"refused_by": _NOT_SURE}
    label = work.dataset.classes.index(name)
    folder = f"{label:04}-{re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-')[:60]}"
    record["file"] = f"{folder}/{how.number:05}.png"
    write_bytes(work.manifest.folder / record["file"], marked_png(image, _mark(work, record)))
    return record


def _mark(work: Work, record: dict[str, Any]) -> dict[str, Any]:
    """Returns what the file of an image says; names of files of this machine stay out of it."""
    facts = work.manifest.facts
    return {
        **{key: value for key, value in record.items() if key not in ("file", "sources")},
        "sources": [each["digest"] for each in record["sources"]],
        "model": {key: facts["model"][key] for key in ("class", "digest", "content")},
        "settings": {name: facts["settings"][name] for name in _SAID},
        "gsfl_tune": facts["gsfl_tune"],
    }


def _latents(work: Work, image: TrainingImage) -> Any:
    if image.row not in work.encoded:
        square = work.dataset.pool.gather(np.array([image.row]))[0]
        work.encoded[image.row] = work.generator.latents(square)
    return work.encoded[image.row]
