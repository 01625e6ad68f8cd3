"""Names of models on the Hugging Face hub.

Those of weights are written as timm writes them, ``hf-hub:OWNER/NAME``. Those of bundles are read
in `gsfl_tune.export.hub`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SCHEME = "hf-hub:"
ALLOWED = f"{SCHEME}OWNER/NAME or {SCHEME}OWNER/NAME@REVISION"

_PLACE = re.compile(rf"{SCHEME}([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w][\w./-]*))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# What else people write for it.
_OTHERS = re.compile(r"(hf[-_]hub|hf|huggingface|timm):/*(?=\w)", re.IGNORECASE)


@dataclass(frozen=True)
class HubPlace:
    """Names a model on the hub.

    Attributes:
        repository: ``OWNER/NAME``.
        revision: A branch, tag or commit; None for the newest commit.
        scheme: What its name begins with.
    """

    repository: str
    revision: str | None = None
    scheme: str = SCHEME

    def __str__(self) -> str:
        return f"{self.scheme}{self.repository}" + (f"@{self.revision}" if self.revision else "")

    @property
    def pinned(self) -> bool:
        """Returns whether it always means the same files: the revision is a full commit."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None


def hub_place(text: str) -> HubPlace | None:
    """Returns the model that a value of ``model.weights`` names on the hub; None for any other."""
    found = _PLACE.fullmatch(text)
    return None if found is None else HubPlace(found[1], found[2])


def meant_for_hub(text: str) -> bool:
    """Returns whether a text is meant to name a model of the hub, well written or not."""
    return text.startswith(SCHEME) or _OTHERS.match(text) is not None


def name_problem(text: str) -> str | None:
    """Says what is wrong with a text that is meant to name a model of the hub, or returns None.

    Args:
        text: A value of ``model.weights``; a word or the path of a file is none of the hub.
    """
    if not meant_for_hub(text) or hub_place(text) is not None:
        return None
    other = None if text.startswith(SCHEME) else _OTHERS.match(text)
    better = f"{SCHEME}{text[other.end() :]}" if other else ""
    hint = f", did you mean {better!r}?" if hub_place(better) else ""
    return f"{text!r} names no model of the hub{hint} (allowed is {ALLOWED})"
