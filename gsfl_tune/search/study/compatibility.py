"""Checks that a resumed study continues the experiment that began it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.fields import leaves

if TYPE_CHECKING:
    import optuna

FORMAT = 1

# A resume may change how much is searched, on which machines, and what follows the search. The
# paths of the images may change too: `Manifest.refuse_other_data` compares their content.
CHANGEABLE = (
    "name",
    "storage",
    "data.path",
    "data.root",
    "data.download",
    "model.licenses",
    "search.trials",
    "search.resources",
    "search.max_concurrent",
    "search.max_failures",
    "search.finalists",
    "search.final_seeds",
    "search.control",
    "search.enqueue",
    "search.warm_start",
    "search.time_budget",
    "search.target",
    "search.trial_timeout",
    "search.keep_checkpoints",
    "search.last_checkpoints",
    "search.disk_budget",
)


def changeable(path: str) -> bool:
    """Returns whether a resume may change a leaf of an experiment."""
    return any(path == each or path.startswith(f"{each}.") for each in CHANGEABLE)


def sign_study(
    study: optuna.Study, *, metric: str, seed: int, signature: Mapping[str, Any]
) -> None:
    """Records in a new study what it begins with; refuses a study that began differently.

    Args:
        study: A new study, or one of an earlier driver.
        metric: The objective.
        seed: Seed of the study.
        signature: See `gsfl_tune.search.study.reconcile.study_signature`; empty to accept anything.

    Raises:
        UserError: With one line per difference.
    """
    attributes = study.user_attrs
    if "format" not in attributes:
        study.set_user_attr("format", FORMAT)
        study.set_user_attr("seed", seed)
        study.set_user_attr("metric", metric)
        study.set_user_attr("created", time.time())
    elif attributes["format"] != FORMAT:
        raise UserError(
            f"study {study.study_name}: found format {attributes['format']}, this version reads "
            f"{FORMAT}; continue with the version of gsfl-tune that began the run"
        )
    known = study.user_attrs.get("fingerprint")
    if known is None:
        study.set_user_attr("fingerprint", dict(signature))
    elif signature:
        check_signature(study.study_name, known, signature)


def check_signature(name: str, known: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Compares what a study was begun with to what it would be continued with.

    Raises:
        UserError: With one line per difference.
    """
    lines = differences(known, found)
    if lines:
        raise UserError(
            "\n".join(
                [
                    f"study {name}: the experiment is not the one that began this run",
                    *lines,
                    "continue with the run's own experiment.yaml, begin a new run, or give "
                    "--change-space to keep what still fits (docs/search.md)",
                ]
            )
        )


def differences(known: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Lists what changed between two signatures, one line per dotted path.

    A key that the run does not know comes from a later version of the program. It counts as
    unchanged while it has its default.
    """
    lines = []
    for path in sorted({*known, *found}):
        # A run of an earlier version may have recorded more keys.
        if changeable(path) or _defaulted(path, known, found):
            continue
        before, after = known.get(path, "nothing"), found.get(path, "nothing")
        if before != after:
            lines.append(f"  {path}: was {before}, found {after}")
    return lines


def _defaulted(path: str, known: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    leaf = leaves().get(path)
    if path in known or leaf is None or leaf.required:
        return False
    return bool(found[path] == str(leaf.default))
