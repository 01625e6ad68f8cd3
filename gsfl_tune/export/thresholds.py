"""Calibration of a bundle: its temperature, and thresholds for the answer ``unknown``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.models import scales_logits
from gsfl_tune.run.results import Calibration

AUTO = "auto"
_HALF = 0.5


def scaled(state: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
    """Scales the tensors of a network so that its logits are multiplied by `factor`.

    Args:
        state: Tensors by name.
        factor: One over a temperature.
    """
    return {
        name: tensor * factor if scales_logits(name) else tensor for name, tensor in state.items()
    }


def described(calibration: Calibration) -> dict[str, Any]:
    """Returns ``calibration`` of ``config.json``; the test results are in ``metrics.json``."""
    return {
        "temperature": calibration.temperature,
        "images": calibration.images,
        "seeds": calibration.seeds,
        "wrong": calibration.wrong,
        "rejections": [
            {name: value for name, value in asdict(each).items() if not name.startswith("test_")}
            for each in calibration.rejections
        ],
    }


def half_threshold(calibration: Mapping[str, Any]) -> float | None:
    """Returns the threshold of ``--threshold auto``; None for a bundle without one."""
    known = calibration.get("rejections", ())
    return next((each["threshold"] for each in known if abs(each["errors"] - _HALF) < 1e-9), None)


def parse_threshold(text: str, calibration: Mapping[str, Any], where: str) -> float:
    """Returns the threshold that a user specified.

    Args:
        text: ``auto`` (half of the validation errors are below), ``auto:0.8`` (that share of
            them), or a probability.
        calibration: Calibration of the bundle.
        where: Name of the option, such as ``--threshold``.

    Raises:
        UserError: If it is none of these, or the bundle has no such threshold.
    """
    rule, _, share = text.partition(":")
    if rule != AUTO:
        return _number(text, where, f"a probability from 0 to 1, {AUTO}, {AUTO}:SHARE")
    known = {each["errors"]: each["threshold"] for each in calibration.get("rejections", ())}
    if not known:
        reason = (
            "the validation images had no wrong answer to choose one by"
            if calibration
            else "it was made without one, by an older version or by adapt"
        )
        raise UserError(
            f"{where}: found {text}, but this bundle has no threshold ({reason}); allowed: a "
            "probability from 0 to 1"
        )
    allowed = f"{AUTO}:{min(known):g} to {AUTO}:{max(known):g} in steps of 0.1"
    wanted = _number(share, where, allowed) if share or ":" in text else _HALF
    for errors, threshold in known.items():
        if abs(errors - wanted) < 1e-9:
            return float(threshold)
    raise UserError(f"{where}: found {text}, allowed {allowed}")


def _number(text: str, where: str, allowed: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise UserError(f"{where}: found {text or 'nothing'}, allowed {allowed}")
    return value
