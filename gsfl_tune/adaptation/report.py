"""What an adaptation did: changed answers, pseudo-labels, entropy, classes, accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsfl_tune.adaptation.settings import Settings
from gsfl_tune.data.decoded import BrokenImage
from gsfl_tune.evidence.interval import difference
from gsfl_tune.run.results import Difference
from gsfl_tune.run.verdict import points

_MOST_NAMED = 5


@dataclass(frozen=True)
class Judged:
    """Holds accuracies on labelled images that the adaptation has not seen.

    Attributes:
        images: How many.
        alike: How many were left out, as they look like images adapted to.
        before: Accuracy of the bundle.
        after: Accuracy of the adapted one.
        difference: After minus before, on the same images.
    """

    images: int
    alike: int
    before: float
    after: float
    difference: Difference

    def __repr__(self) -> str:
        change = f"{100 * self.before:.1f} % before, {100 * self.after:.1f} % after"
        return f"Judged({change}, {self.images} images)"

    @classmethod
    def of(
        cls,
        before: NDArray[np.floating],
        after: NDArray[np.floating],
        labels: NDArray[np.int64],
        alike: int,
    ) -> Judged:
        """Compares class scores (N, C) before and after, by labels (N,)."""
        right = [scores.argmax(axis=1) == labels for scores in (before, after)]
        # Another seed would adapt otherwise, but would find the same bundle.
        change = difference(right[1][None], right[0], metric="judge/accuracy")
        return cls(len(labels), alike, float(right[0].mean()), float(right[1].mean()), change)

    @property
    def sentence(self) -> str:
        """Says which of both is better, as far as these images show it."""
        interval = self.difference.interval
        numbers = (
            f"accuracy {100 * self.before:.1f} % before, {100 * self.after:.1f} % after: "
            f"{points(self.difference.mean)} points (95 % interval {points(interval.low)} to "
            f"{points(interval.high)})"
        )
        if interval.contains_zero:
            return f"{numbers}; {self.images:,} images do not show a difference"
        better = "better" if self.difference.mean > 0 else "WORSE"
        return f"{numbers}; the adapted bundle is {better} on {self.images:,} images"


@dataclass(frozen=True)
class Adapted:
    """Holds the result of an adaptation.

    Attributes:
        path: The adapted bundle.
        source: The bundle that was adapted.
        images: Number of images it was adapted to.
        digest: Digest of these images, whatever their names and order.
        broken: Images that could not be read.
        classes: Class names of the bundle.
        settings: Settings of the adaptation.
        records: Records of the epochs, the first one before any; see `Adapting.run_epoch`.
        judged: Accuracies, if there were labelled images for that.
        removed: Parts of the bundle that no longer hold and are not in the adapted one.
        notices: What people must know of the images.
    """

    path: Path
    source: str
    images: int
    digest: str
    broken: list[BrokenImage]
    classes: Sequence[str]
    settings: Settings
    records: list[dict[str, Any]]
    judged: Judged | None = None
    removed: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        judged = "" if self.judged is None else f", {self.judged!r}"
        return f"Adapted({str(self.path)!r}, from {self.source!r}, {self.images} images{judged})"

    @property
    def changed(self) -> float:
        """Returns the share of the images whose answer changed."""
        return float(self.records[-1]["changed"])

    @property
    def lost(self) -> dict[str, int]:
        """Returns the classes that were answers before and are none now: images before."""
        pairs = zip(*(self._counts(place) for place in (0, -1)), strict=True)
        return {
            name: before
            for name, (before, after) in zip(self.classes, pairs, strict=True)
            if before and not after
        }

    @property
    def warnings(self) -> list[str]:
        """Returns signs that the adapted bundle is worse, one line each."""
        found = []
        if lost := self.lost:
            most = sorted(lost.items(), key=lambda item: -item[1])
            named = ", ".join(f"{name} ({count:,})" for name, count in most[:_MOST_NAMED])
            more = f" and {len(most) - _MOST_NAMED} more" if most[_MOST_NAMED:] else ""
            found.append(
                f"{len(lost)} of {len(self.classes)} classes are no answer any more, with their "
                f"images before: {named}{more}"
            )
        kinds = [_kinds(self.records[place]) for place in (0, -1)]
        if kinds[1] < kinds[0] / 2:
            found.append(
                f"answers gather in few classes: as if there were {kinds[1]:.1f} equal ones, "
                f"{kinds[0]:.1f} before"
            )
        judged = self.judged
        if judged is not None and judged.difference.interval.high < 0:
            found.append(judged.sentence)
        return found

    def to_json(self) -> dict[str, Any]:
        """Returns all results ready for JSON."""
        first, last = self.records[0], self.records[-1]
        return {
            "bundle": str(self.path),
            "source": self.source,
            "images": self.images,
            "digest": self.digest,
            "broken": len(self.broken),
            "broken_images": [asdict(each) for each in self.broken],
            "settings": self.settings.to_json(),
            "new_norms": first.get("new_norms", False),
            "changed": self.changed,
            "entropy": _both(first, last, "entropy"),
            "agreement": _both(first, last, "agreement"),
            "effective_classes": {"before": _kinds(first), "after": _kinds(last)},
            "answers": {
                name: {"before": before, "after": after}
                for name, before, after in zip(
                    self.classes, self._counts(0), self._counts(-1), strict=True
                )
            },
            "lost_classes": self.lost,
            "judge": None if self.judged is None else asdict(self.judged),
            "epochs": [
                {name: value for name, value in record.items() if name != "counts"}
                for record in self.records
            ],
            "removed": self.removed,
            "warnings": self.warnings,
            "notices": self.notices,
        }

    def _counts(self, place: int) -> list[int]:
        return list(self.records[place]["counts"])


def _both(first: Mapping[str, Any], last: Mapping[str, Any], name: str) -> dict[str, float]:
    return {"before": first[name], "after": last[name]}


def _kinds(record: Mapping[str, Any]) -> float:
    """Returns how many equally frequent classes have the entropy of the mean answer."""
    return round(math.exp(record["spread"]), 3)
