"""Finds files whose names have another Unicode form on disk than in a list.

macOS and its archives write decomposed names (NFD: e and an accent), most lists composed ones
(NFC). File systems other than Apple's take these for two names.
"""

from __future__ import annotations

import os
import unicodedata


def respelled(path: str) -> str | None:
    """Returns the existing path that differs in the Unicode form of its names only.

    Args:
        path: A path that does not exist.

    Returns:
        None if there is no such path, or several.
    """
    if path.isascii() or "\0" in path:
        return None
    for form in ("NFC", "NFD"):
        whole = unicodedata.normalize(form, path)
        if os.path.exists(whole):
            return whole
    # Each folder may have another form.
    found = [os.sep if path.startswith(os.sep) else ""]
    for name in filter(None, path.split(os.sep)):
        spellings = {name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)}
        paths = (os.path.join(each, spelling) for each in found for spelling in sorted(spellings))
        found = [each for each in paths if os.path.exists(each)]
    return found[0] if len(found) == 1 else None
