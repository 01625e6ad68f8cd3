"""What a bundle answers about one image."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Prediction:
    """Holds the most probable classes of one image, most probable first.

    Attributes:
        path: The image.
        classes: Names of the classes.
        probabilities: Their probabilities.
        unknown: Whether the first is below the requested threshold; None without one.
    """

    path: str
    classes: list[str]
    probabilities: list[float]
    unknown: bool | None = None

    def __repr__(self) -> str:
        best = f"{self.classes[0]} {100 * self.probabilities[0]:.1f} %" if self.classes else "?"
        more = f", {len(self.classes) - 1} more" if len(self.classes) > 1 else ""
        return f"Prediction({self.path!r}, {'unknown: ' if self.unknown else ''}{best}{more})"

    def to_json(self) -> dict[str, Any]:
        """Returns plain values; ``unknown`` only if there was a threshold."""
        content = asdict(self)
        if self.unknown is None:
            del content["unknown"]
        return content
