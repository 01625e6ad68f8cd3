"""Adaptation of a bundle to images of another domain, without labels and without its own images."""

from gsfl_tune.adaptation.pipeline import adapt
from gsfl_tune.adaptation.report import Adapted, Judged
from gsfl_tune.adaptation.settings import Settings
from gsfl_tune.adaptation.training import AdaptationFailed

__all__ = ["AdaptationFailed", "Adapted", "Judged", "Settings", "adapt"]
