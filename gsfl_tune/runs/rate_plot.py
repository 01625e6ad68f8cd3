"""The picture of a learning-rate range test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gsfl_tune.runs.plots import Plot
from gsfl_tune.training.rate_range import RateRange

_LOSS, _PRESENT, _STEEPEST, _TENTH = "#0072b2", "#1f2933", "#d55e00", "#008a65"


def draw_rates(found: Sequence[RateRange], *, width: float = 5.0) -> Plot:
    """Draws the loss by the learning rate, one chart for each stage.

    Args:
        found: What `gsfl_tune.training.rate_range.find_rates` returned.
        width: Of one chart in inches.
    """
    figure = Plot(figsize=(width * len(found), 3.8), dpi=120, layout="constrained")
    charts = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, each in zip(charts, found, strict=True):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xscale("log")
        axes.plot(each.rates, each.losses, color=_LOSS, alpha=0.25, linewidth=1)
        axes.plot(each.rates, each.smoothed, color=_LOSS, linewidth=2, label="loss, smoothed")
        axes.axvline(each.present, color=_PRESENT, linestyle=":", label=f"now {each.present:.2g}")
        if each.steepest is not None:
            axes.axvline(each.steepest, color=_STEEPEST, label=f"steepest fall {each.steepest:.2g}")
        axes.axvline(
            each.below_minimum,
            color=_TENTH,
            linestyle="--",
            label=f"a tenth of the lowest {each.below_minimum:.2g}",
        )
        # What diverges would press all else to the floor.
        low, start = float(np.min(each.smoothed)), float(np.max(each.smoothed[:10]))
        room = max(start - low, 1e-6)
        axes.set_ylim(low - 0.2 * room, start + room)
        axes.set_title(f"{each.stage} stage, {len(each.rates)} steps", loc="left", fontsize=10)
        axes.set_xlabel(each.key)
        axes.set_ylabel("training loss")
        axes.legend(frameon=False, fontsize=8)
    return figure
