"""Settings of a synthesis, checked."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from gsfl_tune.experiment.errors import UserError

# Replaced by the name of the class in the prompt.
CLASS = "{class}"
# A smaller image has too few latents for most pipelines.
LEAST_SIZE = 16


@dataclass(frozen=True)
class Settings:
    """Holds the settings of a synthesis.

    Attributes:
        per_class: Images that are wanted of each class.
        strength: Share of the noise that is added and removed again; 1 forgets the image.
        mix: Share of a second image of the class; 0 for none.
        steps: Denoising steps of strength 1; a strength takes its share of them.
        guidance: Weight of the prompt; 1 and below do without guidance.
        prompt: Text with ``{class}``, which the name of the class replaces.
        size: Side of the images in pixels; None for that of the pipeline.
        confidence: Least probability of the class by the bundle; None without a bundle.
        attempts: Most images that are made for each one that is wanted.
        classes: Names of the classes; empty for all.
        seed: Seed of the choice of images and of the noise.
    """

    per_class: int = 10
    strength: float = 0.5
    mix: float = 0.3
    steps: int = 30
    guidance: float = 7.5
    prompt: str = f"a photo of a {CLASS}"
    size: int | None = None
    confidence: float | None = None
    attempts: int = 3
    classes: tuple[str, ...] = ()
    seed: int = 0

    def check(self) -> None:
        """Refuses settings that cannot be used, all of them at once.

        Raises:
            UserError: With a line for each problem.
        """
        problems = []
        for name in ("per_class", "steps", "attempts"):
            value = getattr(self, name)
            if value < 1:
                option = f"--{name.replace('_', '-')}"
                problems.append(f"{option}: found {value}, allowed a whole number from 1 on")
        if not 0 < self.strength <= 1:
            problems.append(f"--strength: found {self.strength:g}, allowed above 0, up to 1")
        elif self.steps >= 1 and int(self.steps * self.strength) < 1:
            problems.append(
                f"--strength: found {self.strength:g} of {self.steps} steps, which is no step; "
                f"allowed at least {1 / self.steps:.3g}, or more --steps"
            )
        if not 0 <= self.mix <= 1:
            problems.append(f"--mix: found {self.mix:g}, allowed 0 to 1")
        if not (math.isfinite(self.guidance) and self.guidance >= 0):
            problems.append(f"--guidance: found {self.guidance:g}, allowed a number from 0 on")
        if CLASS not in self.prompt:
            problems.append(f"--prompt: found {self.prompt!r}, allowed a text with {CLASS}")
        if self.size is not None and self.size < LEAST_SIZE:
            problems.append(f"--size: found {self.size}, allowed from {LEAST_SIZE} on")
        if self.confidence is not None and not 0 <= self.confidence <= 1:
            problems.append(f"--confidence: found {self.confidence:g}, allowed 0 to 1")
        if self.seed < 0:
            problems.append(f"--seed: found {self.seed}, allowed a whole number from 0 on")
        if problems:
            raise UserError("\n".join(problems))

    def prompt_of(self, name: str) -> str:
        """Returns the prompt of a class; underscores of its name become spaces."""
        return self.prompt.replace(CLASS, name.replace("_", " "))

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return {**asdict(self), "classes": list(self.classes)}
