"""Losses: the terms of GSFL-Net and the class centres they measure against."""

from gsfl_tune.losses.centers import ClassCenters
from gsfl_tune.losses.gsfl import GsflLoss, LossTerms

__all__ = ["ClassCenters", "GsflLoss", "LossTerms"]
