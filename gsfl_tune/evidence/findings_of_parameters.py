"""Findings about the parameters of a search: what the results depend on, and what they do not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gsfl_tune.run.results import Finding

# A forest of fewer trials hardly ever explains others.
_FEWEST_TRIALS = 20
# Out-of-bag R^2, as the report judges it: below the first the importances mean nothing, from the
# second on they are reliable.
_USABLE, _RELIABLE = 0.15, 0.5
_NEARLY_ALL = 0.8
# Loss of R^2. Of 60 to 200 trials, a parameter without effect gets up to 0.02 by chance.
_NOTHING = 0.03
# Parameters of GSFL's own terms and groups. Names of alternatives begin with the name of the key.
_OWN = (
    "loss.reconstruction",
    "loss.class_center",
    "loss.shared_center",
    "loss.center_rate",
    "model.groups.",
)
_RATE = "learning_rate"


@dataclass(frozen=True)
class Explained:
    """Holds what a forest explains of the finished trials' results.

    Attributes:
        trials: Trials that it was fitted on.
        explained: Out-of-bag R^2.
        shares: Parameter and the loss of R^2 when its values are shuffled, largest first.
    """

    trials: int
    explained: float
    shares: Sequence[tuple[str, float]]


def of_parameters(found: Explained | None) -> Iterator[Finding]:
    """Finds that parameters explain nothing, that one explains all, or that GSFL's explain none."""
    if found is None or found.trials < _FEWEST_TRIALS or not found.shares:
        return
    if found.explained < _USABLE:
        yield Finding(
            "parameters_explain_nothing",
            "note",
            {"explained": found.explained, "trials": found.trials, "limit": _USABLE},
            f"The parameters do not explain the results of {found.trials} finished trials (R² "
            f"{found.explained:.2f} on trials that the forest has not seen): the noise is larger "
            "than their effects, or the trials are too few. Their importances mean nothing.",
        )
    if found.explained < _RELIABLE:
        return
    name, share = found.shares[0]
    # Shuffling a parameter that does not matter may gain a little by chance.
    total = sum(max(0.0, each) for _, each in found.shares)
    if _RATE in name and len(found.shares) > 1 and share > _NEARLY_ALL * total:
        yield Finding(
            "one_learning_rate",
            "note",
            {"parameter": name, "share": share / total, "trials": found.trials},
            f"Nearly all that the results depend on is {name} ({100 * share / total:.0f} % of the "
            "importances): with a narrower range of it, a search may see the other parameters.",
        )
    own = [(name, share) for name, share in found.shares if name.startswith(_OWN)]
    if own and max(share for _, share in own) < _NOTHING:
        names = ", ".join(name for name, _ in own)
        yield Finding(
            "no_slope",
            "note",
            {"parameters": [name for name, _ in own], "largest": own[0][1], "limit": _NOTHING},
            f"The results are not seen to depend on {names}: shuffling their values costs the "
            f"forest less than {_NOTHING} of its R² of {found.explained:.2f}. GSFL's terms do "
            "little on this data, or little within these ranges.",
        )
