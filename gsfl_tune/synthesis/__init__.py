"""Synthetic training images, which a diffusion pipeline makes of images of one class."""

from gsfl_tune.synthesis.pipeline import SynthesisFailed, Synthesized, synthesize
from gsfl_tune.synthesis.settings import Settings

__all__ = ["Settings", "SynthesisFailed", "Synthesized", "synthesize"]
