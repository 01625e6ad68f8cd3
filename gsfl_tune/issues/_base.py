"""The data classes of issues, and all kinds of issues."""

from __future__ import annotations

from dataclasses import dataclass, field

from gsfl_tune.data import DecodedImages

# A value this many robust standard deviations from the median is listed (Iglewicz and Hoaglin,
# "How to Detect and Handle Outliers", 1993).
LIMIT = 3.5

# Every kind and the title of its section, in the order of the page.
KINDS = {
    "label": "Labels that may be wrong",
    "near_duplicate": "Copies of the same image",
    "alike": "Similar images: cropped, mirrored or from one moment",
    "outlier": "Outliers of their class",
    "dark": "Dark",
    "bright": "Bright",
    "low_contrast": "Low contrast",
    "blurred": "Blurred",
    "tiny": "Tiny",
    "aspect_ratio": "Odd aspect ratio",
    "few_images": "Classes with few images",
    "imbalance": "Classes of very different size",
    "broken": "Unreadable images",
}


@dataclass(frozen=True)
class Issue:
    """Holds a probable problem of an image or a class.

    Attributes:
        path: Path of the image, as in messages; empty for a class.
        class_name: The given class.
        part: ``train``, ``validation``, ``test``; ``left out`` for an image that has no part;
            empty for a class.
        issue: One of `KINDS`.
        score: How certain it is, from 0 to 1.
        suggestion: A class or an action; empty if there is none.
        reason: The measurement, in words.
        set_number: Number of its set of copies.
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
    """Holds the decoded images of all parts, one part after the other.

    Attributes:
        parts: For every part, its images and the part name of each image.
        classes: Names of the classes.
    """

    parts: list[tuple[DecodedImages, list[str]]]
    classes: list[str]

    @property
    def paths(self) -> list[str]:
        """Lists the paths of all images."""
        return [path for images, _ in self.parts for path in images.paths]

    @property
    def part_names(self) -> list[str]:
        """Returns the part names of all images."""
        return [name for _, names in self.parts for name in names]

    @property
    def labels(self) -> list[int]:
        """Returns the class numbers of all images."""
        return [int(label) for images, _ in self.parts for label in images.labels]


@dataclass(frozen=True)
class Found:
    """Holds all issues of a data set.

    Attributes:
        name: Name of the data set.
        issues: By kind, then the most certain first.
        notices: Important facts that are not issues of an image or class.
        image_count: Number of images checked.
        classes: Names of the classes.
        judged_by: The backbone that judged labels and outliers; empty without any.
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
        """Returns the issues of one kind."""
        return [each for each in self.issues if each.issue == kind]


def beyond(distance: float, limit: float) -> float:
    """Scores a value beyond a limit: one half at the limit, then towards 1."""
    return 1.0 - 0.5 * limit / distance
