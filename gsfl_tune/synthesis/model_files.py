"""The files of a diffusion pipeline on this disk, checked before any of it is loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsfl_tune.experiment.errors import UserError

# Classes that a directory may name, and the class of diffusers that changes images with its parts.
_CHANGES_IMAGES = {
    "StableDiffusionPipeline": "StableDiffusionImg2ImgPipeline",
    "StableDiffusionImg2ImgPipeline": "StableDiffusionImg2ImgPipeline",
    "StableDiffusionXLPipeline": "StableDiffusionXLImg2ImgPipeline",
    "StableDiffusionXLImg2ImgPipeline": "StableDiffusionXLImg2ImgPipeline",
}
# Any other library would be imported, and code beside the weights would run.
_LIBRARIES = ("diffusers", "transformers", "stable_diffusion")
_NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_SAFE = ".safetensors"
_LATENT_CHANNELS = 4
_INDEX = "model_index.json"
# Pieces of a file of weights that its digest reads. A fine-tuning changes most bytes of a tensor.
_PIECES = 1024
_PIECE = 65536


@dataclass(frozen=True)
class ModelFiles:
    """Describes a pipeline on this disk.

    Attributes:
        path: Its directory.
        kind: The class that it names.
        class_name: The class of diffusers that changes images with its parts.
        size: Side in pixels that it was trained for; None if it does not say.
        multiple: Allowed sides are multiples of this many pixels.
        variant: Suffix of its weights, such as ``fp16``; None for plain names.
        digest: Digest of its configuration, and of names and sizes of its weights.
        content: Digest of the bytes of its weights; of large files, of pieces all over them.
    """

    path: Path
    kind: str
    class_name: str
    size: int | None
    multiple: int
    variant: str | None
    digest: str
    content: str

    def side(self, asked: int | None) -> int:
        """Returns the side of images in pixels.

        Args:
            asked: What the user asks for; None for the pipeline's own.

        Raises:
            UserError: If it is not a multiple of what the networks need, or is not known.
        """
        side = self.size if asked is None else asked
        if side is None:
            raise UserError(f"--size: {self.path} does not say its own, allowed with a number")
        if side % self.multiple:
            raise UserError(
                f"--size: found {side}, allowed a multiple of {self.multiple} with this pipeline"
            )
        return side


def read_model(path: Path) -> ModelFiles:
    """Reads the description of a pipeline of diffusers.

    Args:
        path: A directory that ``save_pretrained`` wrote.

    Raises:
        UserError: If there is none, it is of a kind that cannot be used, has code of its own, or
            weights that are not safetensors.
    """
    allowed = (
        "allowed a directory of this disk that `save_pretrained` of diffusers wrote, with "
        f"{_INDEX}; nothing is downloaded"
    )
    if not path.is_dir():
        found = "a file" if path.exists() else "no such directory"
        raise UserError(f"--model: {path}: found {found}, {allowed}")
    if not (path / _INDEX).is_file():
        raise UserError(f"--model: {path}: found no {_INDEX}, {allowed}")
    index = _json(path / _INDEX)
    kind = index.get("_class_name")
    if not isinstance(kind, str) or kind not in _CHANGES_IMAGES:
        raise UserError(
            f"--model: {path}: found a pipeline of the class {kind}, allowed "
            f"{', '.join(_CHANGES_IMAGES)}"
        )
    parts = {
        name: value
        for name, value in index.items()
        if not name.startswith("_") and isinstance(value, list) and value[:1] != [None]
    }
    problems = [*_foreign(parts), *_without_safe_weights(path, parts)]
    if problems:
        raise UserError("\n".join(f"--model: {path}: {problem}" for problem in problems))
    unet, vae = (_json(path / name / "config.json") for name in ("unet", "vae"))
    for name, value in (
        ("vae: latent_channels", vae.get("latent_channels", _LATENT_CHANNELS)),
        ("unet: in_channels", unet.get("in_channels", _LATENT_CHANNELS)),
    ):
        if value != _LATENT_CHANNELS:
            raise UserError(f"--model: {path}: {name}: found {value}, allowed {_LATENT_CHANNELS}")
    shrinks = 2 ** (_levels(vae) - 1)
    size = unet.get("sample_size")
    return ModelFiles(
        path=path,
        kind=kind,
        class_name=_CHANGES_IMAGES[kind],
        size=size * shrinks if isinstance(size, int) else None,
        multiple=shrinks * 2 ** (_levels(unet) - 1),
        variant=_variant(path / "unet"),
        digest=_digest(path),
        content=_content(path),
    )


def _foreign(parts: dict[str, Any]) -> Iterator[str]:
    """Finds parts that are not classes of known libraries."""
    for name, value in parts.items():
        if value[0] not in _LIBRARIES or not isinstance(value[-1], str):
            yield (
                f"{name}: found a part of {value[0]!r}, allowed parts of "
                f"{' and '.join(_LIBRARIES[:2])}: code of a pipeline is never run"
            )


def _without_safe_weights(path: Path, parts: dict[str, Any]) -> Iterator[str]:
    """Finds networks without safetensors; unpickling weights of others could run code."""
    for name in dict.fromkeys([*_NETWORKS[:2], *parts]):
        folder = path / name
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        if any(file.suffix == _SAFE for file in files):
            continue
        pickled = [file.name for file in files if file.suffix in _PICKLES]
        if pickled:
            yield (
                f"{name}/{pickled[0]}: found pickled weights, allowed {_SAFE} "
                "(`save_pretrained(..., safe_serialization=True)` writes them)"
            )
        elif name in _NETWORKS:
            yield f"{name}/: found no weights, allowed {_SAFE}"


def _variant(folder: Path) -> str | None:
    """Returns the suffix of weights where there are none with the plain name."""
    names = [file.name.removesuffix(_SAFE) for file in folder.glob(f"*{_SAFE}")]
    # Pieces of a large file end in a number: NAME-00001-of-00002, NAME.fp16-00001-of-00002.
    suffixes = {name.split("-0", 1)[0].partition(".")[2] for name in names}
    return None if "" in suffixes else min(suffixes)


def _levels(config: dict[str, Any]) -> int:
    return len(config.get("block_out_channels", [0]))


def _digest(path: Path) -> str:
    state = hashlib.blake2b(digest_size=16)
    for file in sorted(path.rglob("*")):
        if file.suffix == ".json" and file.is_file():
            state.update(f"{file.relative_to(path)} ".encode() + file.read_bytes())
        elif file.suffix == _SAFE and file.is_file():
            state.update(f"{file.relative_to(path)} {file.stat().st_size} ".encode())
    return state.hexdigest()


def _content(path: Path) -> str:
    state = hashlib.blake2b(digest_size=16)
    for file in sorted(path.rglob(f"*{_SAFE}")):
        state.update(f"{file.relative_to(path)} ".encode())
        try:
            for piece in _pieces(file):
                state.update(piece)
        except OSError as error:
            raise UserError(f"--model: {file}: cannot be read ({error.strerror})") from error
    return state.hexdigest()


def _pieces(file: Path) -> Iterator[bytes]:
    """Reads a file, or as much of it as takes a moment: evenly, with its beginning and its end."""
    last = file.stat().st_size - _PIECE
    step = max(_PIECE, last // (_PIECES - 1))
    with file.open("rb") as stream:
        for start in (*range(0, max(1, last), step), max(0, last)):
            stream.seek(start)
            yield stream.read(_PIECE)


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--model: {file}: cannot be read ({error}), allowed JSON") from error
    if not isinstance(content, dict):
        raise UserError(f"--model: {file}: found {type(content).__name__}, allowed a JSON object")
    return content
