"""The section of a model card that an export to another format adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gsfl_tune.export.measure import Measurement, doubts, legend, markdown_table


def _together(ensemble: Mapping[str, Any] | None) -> str:
    if not ensemble:
        return ""
    seeds = ensemble["seeds"]
    text = f"; the mean of the probabilities of {len(seeds)} seeds" if seeds else ""
    if seeds and ensemble.get("calibrated"):
        text += ", with the temperature and thresholds of `calibration` in `config.json`"
    views = ["its four corners"] if ensemble.get("crops") else []
    views += ["the mirror images"] if ensemble["flip"] else []
    if views:
        text += ", of each image" if text else "; the mean of the probabilities of the image"
        text += f" and {' and '.join(views)}"
    return text


def of_another_network(info: Mapping[str, Any]) -> str:
    """Says that temperature and thresholds were chosen before the network was changed, if it was.

    Args:
        info: ``export`` of ``config.json``.
    """
    changes = ["pruned"] if info["prune"] else []
    changes += ["trained further"] if info.get("refined") else []
    changes += ["rounded to int8"] if info["precision"] == "int8" else []
    if not changes:
        return ""
    return (
        "The temperature and the thresholds of --threshold auto were chosen for the network before "
        f"it was {' and '.join(changes)}: what they reject of its errors is not known. Compare NLL "
        "in the table."
    )


def export_section(
    info: Mapping[str, Any],
    rows: Sequence[Measurement],
    program: str | None = None,
    *,
    calibrated: bool = False,
) -> str:
    """Returns what an export adds to the card: the table, and how to read the file.

    Args:
        info: ``export`` of ``config.json``.
        rows: The measurements.
        program: A program that reads the file without this package.
        calibrated: Whether the original network has a temperature.
    """
    conditions, parity = info["conditions"], info["parity"]
    parts = [
        "## This export",
        f"`{info['format']}`, {info['precision']}"
        + (f", {100 * info['prune']:.0f} % of the channels pruned" if info["prune"] else "")
        + _together(info.get("ensemble"))
        + f". Takes `{info['input']}`, gives {info['output']} in the order of `classes.json`. On "
        f"{parity['images']} validation images no probability differs by more than "
        f"{parity['probabilities']:.1e} from PyTorch's with the same weights in fp32.",
        markdown_table(rows),
        legend(conditions["threads"], conditions["cpu"])
        + " The winner was also trained on the validation images: only differences between rows "
        "count there. No decision used the test images.",
        *filter(None, [doubts(rows), of_another_network(info) if calibrated else ""]),
    ]
    if program:
        parts += ["Reading it without gsfl-tune:", f"```python\n{program.rstrip()}\n```"]
    return "\n\n".join(parts) + "\n"
