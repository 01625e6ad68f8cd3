"""Makes an image of one or two others with a diffusion pipeline."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.synthesis.model_files import ModelFiles
from gsfl_tune.synthesis.settings import Settings

# Nearly parallel latents have no plane to turn in; between them a straight line is the same.
_PARALLEL = 0.9995


class SynthesisFailed(Exception):
    """Says why no more images can be made."""


def between(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Computes a tensor on the arc between two others (slerp).

    A straight line between two latents passes through shorter ones, which are decoded as flat and
    grey images. Source: Shoemake, "Animating Rotation with Quaternion Curves", SIGGRAPH 1985.

    Args:
        first: Any shape.
        second: The same shape.
        share: 0 gives the first, 1 the second.
    """
    a, b = first.double().flatten(), second.double().flatten()
    cosine = float(torch.dot(a, b) / (a.norm() * b.norm()).clamp_min(1e-12))
    if abs(cosine) > _PARALLEL:
        mixed = (1 - share) * a + share * b
    else:
        angle = math.acos(cosine)
        shares = (math.sin((1 - share) * angle), math.sin(share * angle))
        mixed = (shares[0] * a + shares[1] * b) / math.sin(angle)
    return mixed.reshape(first.shape).to(first.dtype)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keeps libraries from printing while they load; commands show what is done themselves."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    # torchao, which diffusers imports where it is installed, calls what torch 2.14 deprecates.
    torch_log = logging.getLogger("torch.utils._pytree")
    libraries = (of_diffusers, of_transformers)
    before = [(each.get_verbosity(), each.is_progress_bar_enabled()) for each in libraries]
    level = torch_log.level
    torch_log.setLevel(logging.ERROR)
    for each in libraries:
        each.set_verbosity_error()
        each.disable_progress_bar()
    try:
        yield
    finally:
        torch_log.setLevel(level)
        for each, (verbosity, bars) in zip(libraries, before, strict=True):
            each.set_verbosity(verbosity)
            if bars:
                each.enable_progress_bar()


class Generator:
    """Holds a loaded pipeline.

    Args:
        model: Its files.
        device: Where it computes. On a GPU it computes in bf16, else in fp32.

    Raises:
        UserError: If diffusers cannot load it.
    """

    def __init__(self, model: ModelFiles, device: torch.device) -> None:
        import diffusers

        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        try:
            with _quietly():
                pipe = getattr(diffusers, model.class_name).from_pretrained(
                    str(model.path),
                    dtype=dtype,
                    use_safetensors=True,
                    local_files_only=True,
                    variant=model.variant,
                )
        except torch.OutOfMemoryError:
            raise  # a RuntimeError, but not one of the files
        except (OSError, ValueError, TypeError, KeyError, RuntimeError, ImportError) as error:
            line = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise UserError(
                f"--model: {model.path}: diffusers cannot load it ({line}), allowed a directory "
                "that its `save_pretrained` wrote"
            ) from error
        pipe.set_progress_bar_config(disable=True)
        self._pipe: Any = pipe.to(device)
        self._device, self._dtype = device, dtype

    @torch.inference_mode()
    def latents(self, square: np.ndarray) -> Tensor:
        """Encodes an image.

        Args:
            square: (side, side, 3) uint8.

        Returns:
            (1, 4, h, w), scaled as the denoising network expects. The mean of the encoder, so that
            an image has the same latents each time.
        """
        vae = self._pipe.vae
        pixels = torch.from_numpy(square).permute(2, 0, 1)[None].to(self._device, self._dtype)
        found = vae.encode(pixels / 127.5 - 1).latent_dist.mode()
        mean, std = (getattr(vae.config, f"latents_{name}", None) for name in ("mean", "std"))
        if mean is not None and std is not None:
            shape = (1, -1, 1, 1)
            found = (found - found.new_tensor(mean).view(shape)) / found.new_tensor(std).view(shape)
        return found * vae.config.scaling_factor

    @torch.inference_mode()
    def image(
        self,
        latents: Tensor,
        prompt: str,
        seed: int,
        settings: Settings,
        on_step: Callable[[int], None] = lambda step: None,
    ) -> np.ndarray | None:
        """Adds noise to latents, removes it again, and decodes them.

        Args:
            latents: (1, 4, h, w).
            prompt: What the image shall show.
            seed: Seed of the noise; the noise is drawn on the CPU, for any device.
            settings: Strength, steps and guidance.
            on_step: Called with the number of denoising steps done.

        Returns:
            (side, side, 3) uint8; None if the pipeline's safety checker refuses the image.

        Raises:
            SynthesisFailed: If the image is not finite.
        """

        def told(pipe: Any, step: int, time: Any, kept: dict[str, Any]) -> dict[str, Any]:
            on_step(step + 1)
            return kept

        made = self._pipe(
            prompt=prompt,
            image=latents,
            strength=settings.strength,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            generator=torch.Generator("cpu").manual_seed(seed),
            output_type="np",
            callback_on_step_end=told,
        )
        pixels = np.asarray(made.images[0], dtype=np.float32)
        if not np.isfinite(pixels).all():
            raise SynthesisFailed("the pipeline made an image with values that are not finite")
        if any(getattr(made, "nsfw_content_detected", None) or ()):
            return None
        return np.rint(pixels.clip(0, 1) * 255).astype(np.uint8)
