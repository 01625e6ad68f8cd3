"""NABirds in its official layout."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from gsfl_tune.data.sources._attributes import numbered_lines
from gsfl_tune.data.sources._base import some
from gsfl_tune.data.sources._lists import LISTS, ListedSource

FILES = (*LISTS, "hierarchy.txt")
WHAT = f"the folder nabirds, which holds {', '.join(FILES)} and images/"


class NABirdsSource(ListedSource):
    """Reads the lists and the folder ``images/`` of the official archive.

    Classes are the nodes of the hierarchy that have images; their parents are known groups. Other
    nodes (orders, families, birds with separate male and female classes) have no images and are
    counted. Names of several classes get their number appended.

    Args:
        path: The folder, or the folder that the archive was unpacked in.

    Raises:
        UserError: If a file is missing or a line cannot be read.
    """

    def __init__(self, path: str | list[str] | None) -> None:
        super().__init__()
        root = self._root(path, "nabirds", FILES, WHAT)
        nodes = self._read_lists(root)
        numbers = list(nodes)
        used = sorted({sample.label for sample in self.samples})
        if used and len(used) < len(nodes):
            self.notices.append(
                f"{len(nodes) - len(used)} of {len(nodes)} nodes of the hierarchy have no images "
                "and are not classes"
            )
        order = {label: place for place, label in enumerate(used)}
        self.samples = [replace(each, label=order[each.label]) for each in self.samples]
        self.classes = _told_apart([numbers[label] for label in used], nodes)
        parents = numbered_lines(root / "hierarchy.txt")
        orphans = [numbers[label] for label in used if parents.get(numbers[label]) not in nodes]
        if orphans:
            self.problems.append(
                f"{root / 'hierarchy.txt'}: {len(orphans)} classes have no parent that classes.txt "
                f"has: {some(orphans)}"
            )
            return
        above = list(dict.fromkeys(parents[numbers[label]] for label in used))
        names = dict(zip(above, _told_apart(above, nodes), strict=True))
        self.known_groups = [names[parents[numbers[label]]] for label in used]


def _told_apart(numbers: list[str], names: dict[str, str]) -> list[str]:
    """Returns names of nodes, with the number appended to equal names."""
    counts = Counter(names[number] for number in numbers)
    return [
        f"{names[number]} [{number}]" if counts[names[number]] > 1 else names[number]
        for number in numbers
    ]
