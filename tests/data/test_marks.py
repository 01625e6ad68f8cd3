"""The mark of a synthetic image, in its file."""

from __future__ import annotations

import io
import json

import numpy as np
from PIL import Image

from gsfl_tune.data.marks import KEYWORD, is_marked, marked_png
from tests.data.conftest import picture


def content(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_the_mark_holds_the_facts_and_changes_no_pixel():
    image, facts = picture(1), {"class": "Häher", "seed": 7}
    marked = marked_png(image, facts)
    assert is_marked(marked)
    with Image.open(io.BytesIO(marked)) as read:
        assert json.loads(read.text[KEYWORD]) == facts
        assert np.array_equal(np.asarray(read), np.asarray(image))


def test_other_images_are_not_marked():
    image = picture(1)
    assert not is_marked(content(image, "PNG"))
    assert not is_marked(content(image, "JPEG"))
    assert not is_marked(b"")
    # Text about the mark, in another kind of file.
    assert not is_marked(b"tEXt" + KEYWORD.encode() + b"\0")


def test_the_mark_is_found_behind_a_profile_of_colours():
    image = picture(1)
    with Image.open(io.BytesIO(marked_png(image, {}))) as read:
        text = read.text
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt(KEYWORD, text[KEYWORD])
    assert is_marked(content(image, "PNG", pnginfo=info, icc_profile=b"x" * 3000))
