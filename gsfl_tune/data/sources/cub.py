"""CUB-200-2011 in its official layout."""

from __future__ import annotations

from gsfl_tune.data.sources._lists import LISTS, ListedSource

WHAT = f"the folder CUB_200_2011, which holds {', '.join(LISTS)} and images/"


class CubSource(ListedSource):
    """Reads the four lists and the folder ``images/`` of the official archive.

    Boxes come from ``bounding_boxes.txt`` if it exists. Class names lose their number
    (``001.Black_footed_Albatross``) and underscores.

    Args:
        path: The folder, or the folder that the archive was unpacked in.

    Raises:
        UserError: If a file is missing or a line cannot be read.
    """

    def __init__(self, path: str | list[str] | None) -> None:
        super().__init__()
        root = self._root(path, "CUB_200_2011", LISTS, WHAT)
        self.classes = [_plain(name) for name in self._read_lists(root).values()]
        self.drop_empty_classes()


def _plain(name: str) -> str:
    number, dot, rest = name.partition(".")
    return (rest if dot and number.isdigit() else name).replace("_", " ")
