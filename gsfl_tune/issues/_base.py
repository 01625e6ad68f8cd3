"""What a finding is, and the kinds that there are."""

from __future__ import annotations

from dataclasses import dataclass, field

from gsfl_tune.data import DecodedImages

# A value this many robust standard deviations from the median is listed (Iglewicz and Hoaglin,
# "How to Detect and Handle Outliers", 1993).
LIMIT = 3.5

# Every kind with the title of its section, in the order of the page.
KINDS = {
    "label": "Labels that may be wrong",
    "near_duplicate": "The same picture more than once",
    "alike": "Probably the same picture: cropped, mirrored, or of one moment",
    "outlier": "Far from all others of their class",
    "dark": "Dark",
    "bright": "Bright",
    "low_contrast": "Low contrast",
    "blurred": "Blurred",
    "tiny": "Tiny",
    "aspect_ratio": "Odd aspect ratio",
    "few_images": "Classes with few images",
    "imbalance": "Classes of very different size",
    "broken": "Cannot be read",
}


@dataclass(frozen=True)
class Issue:
    """Something that is probably wrong with an image or a class.

    Attributes:
        path: Of the image, as messages name it; empty for a class.
        class_name: The class that it is given.
        part: ``train``, ``validation``, ``test``; ``left out`` for an image that has no part;
            empty for a class.
        issue: One of `KINDS`.
        score: How sure it is, from 0 to 1.
        suggestion: A class, or what to do; empty where there is none.
        reason: What was measured, in words.
        set_number: Number of the set of copies that it is of.
    """

    path: str
    class_name: str
    part: str
    issue: str
    score: float
    suggestion: str
    reason: str
    set_number: int | None = None


@dataclass(frozen=True)
class Images:
    """Decoded images of all parts, one after the other.

    Attributes:
        parts: (images, name of the part of each of them) of every part.
        classes: Names of the classes.
    """

    parts: list[tuple[DecodedImages, list[str]]]
    classes: list[str]

    @property
    def paths(self) -> list[str]:
        """Their paths."""
        return [path for images, _ in self.parts for path in images.paths]

    @property
    def part_names(self) -> list[str]:
        """Their parts."""
        return [name for _, names in self.parts for name in names]

    @property
    def labels(self) -> list[int]:
        """Their classes."""
        return [int(label) for images, _ in self.parts for label in images.labels]


@dataclass(frozen=True)
class Found:
    """Everything that was found.

    Attributes:
        name: Of the data set.
        issues: By kind, then the surest first.
        notices: What is no issue of an image or class but must be known.
        image_count: Images that were looked at.
        classes: Names of the classes.
        judged_by: Whose features say which labels are wrong; empty without any.
    """

    name: str
    issues: list[Issue]
    notices: list[str]
    image_count: int
    classes: list[str]
    judged_by: str = ""
    counts: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        counts = {kind: sum(each.issue == kind for each in self.issues) for kind in KINDS}
        object.__setattr__(self, "counts", counts)

    def of(self, kind: str) -> list[Issue]:
        """Those of one kind."""
        return [each for each in self.issues if each.issue == kind]


def beyond(distance: float, limit: float) -> float:
    """How sure it is that what is beyond a limit is odd: one half at the limit, then towards 1."""
    return 1.0 - 0.5 * limit / distance
