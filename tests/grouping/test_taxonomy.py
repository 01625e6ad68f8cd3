import unicodedata

import numpy as np
import pytest

from gsfl_tune.grouping import load_taxonomy, make_groups

CLASSES = ["wren", "finch", "gull", "tern"]


def write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "taxonomy.csv"
    path.write_text(text, encoding=encoding)
    return path


def test_a_taxonomy_makes_its_own_groups(tmp_path):
    path = write(
        tmp_path,
        "group,class\nwater,tern\nland,wren\nwater,gull\nland,finch\n",
        encoding="utf-8-sig",
    )
    taxonomy = load_taxonomy(path, CLASSES)
    assert taxonomy == ["land", "land", "water", "water"]
    nothing = np.empty((0, 1), np.float32), np.empty(0, np.int64)
    groups = make_groups("taxonomy", 16, *nothing, 4, taxonomy=taxonomy)
    assert groups.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_may_be_composed_or_decomposed(tmp_path, form):
    """macOS writes decomposed names; both forms look the same."""
    text = unicodedata.normalize(form, "\u00c9pervier,pr\u00e9dateur\npie,\u00e9tang\n")
    path = write(tmp_path, "class,group\n" + text + "H\u00e9ron,\u00e9tang\n")
    classes = ["H\u00e9ron", "pie", unicodedata.normalize(form, "\u00c9pervier")]
    for spelling in ("NFC", "NFD"):
        found = load_taxonomy(path, [unicodedata.normalize(spelling, name) for name in classes])
        # One group in two forms is one group.
        assert (found[0] == found[1], found[1] == found[2]) == (True, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class,group\nwren,a\nfinch,a\n", "classes without a line: gull, tern"),
        ("class,group\nwren,a\nfinch,a\ngull,b\ntern,b\nhawk,b\n", "unknown classes: hawk"),
        ("class,group\nwren,a\nwren,b\nfinch,a\ngull,b\ntern,b\n", "several lines: wren"),
        ("class,group\nwren,a\nfinch,\ngull,b\ntern,b\n", "without a group: finch"),
        ("name,family\nwren,a\n", "columns class and group"),
        ("", "columns class and group"),
    ],
)
def test_a_taxonomy_that_does_not_fit_says_where(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        load_taxonomy(write(tmp_path, text), CLASSES)


def test_a_taxonomy_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        load_taxonomy(tmp_path / "missing.csv", CLASSES)
    with pytest.raises(ValueError, match="cannot be read"):
        load_taxonomy(write(tmp_path, "class,group\nwrén,a\n", encoding="latin-1"), CLASSES)
